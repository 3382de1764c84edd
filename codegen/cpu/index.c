/* index.c - arithmetic on indices that keeps what addresses want to know.
 *
 *     base + lane step      with base a multiple of `align`
 *
 * As long as an index stays in this form a load is a vector or a scalar load. Divisions
 * keep the form when a run of lanes provably stays within one quotient: its length
 * divides k, and base is a multiple of it. Otherwise lanes go their own way (vec), and
 * loads become gathers.
 *
 * A linear index that is taken apart for the axes of one tensor and put together again
 * for another, with some axes alike, is the same number: quotient and remainder of
 * one division that meet again in place are what was divided.
 */
#include "codegen/cpu/emit.h"

#include <stdlib.h>

static int
align_of(int64_t c)
{
    return c ? (int)((c & -c) < FG_ALIGN_MAX ? (c & -c) : FG_ALIGN_MAX) : FG_ALIGN_MAX;
}

/* Largest power of two that provably divides x. */
static int
align_of_expr(fg_em *e, fg_expr x)
{
    int a = FG_ALIGN_MAX;
    while (a > 1 && !fg_e_divides(e->m->ex, a, x))
        a /= 2;
    return a;
}

static int
smaller(int a, int b)
{
    return a < b ? a : b;
}

fg_index
fg_ix(fg_em *e, fg_v base)
{
    (void)e;
    int64_t c;
    return (fg_index){.base = base, .align = ll_const(base, &c) ? align_of(c) : 1};
}

fg_index
fg_ixc(fg_em *e, int64_t c)
{
    return fg_ix(e, ll_i(e->g, c));
}

fg_index
fg_ix_run(fg_em *e, fg_v base, int align)
{
    return (fg_index){.base = base, .step = e->lanes > 1, .align = align};
}

fg_index
fg_ix_vec(fg_em *e, fg_v vec)
{
    return ll_lanes(vec) == 1 ? fg_ix(e, vec) : (fg_index){.vec = vec, .align = 1};
}

bool
fg_ix_uniform(fg_index x)
{
    return !x.vec && !x.step;
}

static fg_v
wide(fg_em *e, fg_index x)
{
    fg_ll *g = e->g;
    if (x.vec)
        return x.vec;
    fg_v v = ll_splat(g, x.base, e->lanes);
    if (!x.step)
        return v;
    fg_v lane = ll_iota(g->i64, e->lanes);
    return ll_add(g, v, ll_mul(g, lane, ll_ci(LLVMTypeOf(lane), x.step)));
}

fg_v
fg_ix_value(fg_em *e, fg_index x)
{
    return fg_ix_uniform(x) ? x.base : wide(e, x);
}

fg_index
fg_ix_add(fg_em *e, fg_index a, fg_index b)
{
    if (a.vec || b.vec)
        return fg_ix_vec(e, ll_add(e->g, wide(e, a), wide(e, b)));
    return (fg_index){.base = ll_add(e->g, a.base, b.base),
                      .step = a.step + b.step,
                      .align = smaller(a.align, b.align)};
}

fg_index
fg_ix_addc(fg_em *e, fg_index a, fg_expr c)
{
    fg_index b = {.base = fg_em_expr(e, c), .align = align_of_expr(e, c)};
    return fg_ix_add(e, a, b);
}

fg_index
fg_ix_mul(fg_em *e, fg_index a, fg_expr k)
{
    fg_ll *g = e->g;
    int64_t c;
    bool known = fg_e_const(e->m->ex, k, &c);
    fg_v f = fg_em_expr(e, k);
    if (a.vec || (a.step && !known))
        return fg_ix_vec(e, ll_mul(g, wide(e, a), ll_splat(g, f, e->lanes)));
    int scale = known ? align_of(c) : align_of_expr(e, k);
    return (fg_index){.base = ll_mul(g, a.base, f),
                      .step = known ? a.step * c : 0,
                      .align = smaller(a.align * scale, FG_ALIGN_MAX)};
}

/* Whether lanes never straddle a multiple of k. */
static bool
stays_within(fg_em *e, fg_index a, fg_expr k)
{
    return !a.vec && (!a.step || (a.step == 1 && a.align >= e->lanes &&
                                  fg_e_divides(e->m->ex, e->lanes, k)));
}

/* Quotients of lanes: by shifts, or in f64, where the rounded quotient of integers
 * below 2^52 never reaches the next integer. Vector units divide no integers. */
static fg_v
vector_div(fg_em *e, fg_v a, fg_expr k)
{
    fg_ll *g = e->g;
    int64_t c;
    fg_t t = LLVMTypeOf(a);
    if (fg_e_const(e->m->ex, k, &c) && c > 0 && !(c & (c - 1)))
        return ll_shr(g, a, ll_ci(t, __builtin_ctzll((uint64_t)c)));
    fg_v num = ll_fromint(g, a, g->f64, true);
    fg_v den = ll_splat(g, ll_fromint(g, fg_em_expr(e, k), g->f64, true), e->lanes);
    return ll_toint(g, ll_div(g, num, den), g->i64);
}

fg_index
fg_ix_div(fg_em *e, fg_index a, fg_expr k)
{
    fg_ll *g = e->g;
    if (fg_e_is(e->m->ex, k, 1))
        return a;
    if (!stays_within(e, a, k))
        return fg_ix_vec(e, vector_div(e, wide(e, a), k));
    return fg_ix(e, ll_udiv(g, a.base, fg_em_expr(e, k)));
}

fg_index
fg_ix_mod(fg_em *e, fg_index a, fg_expr k)
{
    fg_ll *g = e->g;
    if (fg_e_is(e->m->ex, k, 1))
        return fg_ixc(e, 0);
    fg_v f = fg_em_expr(e, k);
    if (!stays_within(e, a, k)) {
        fg_v v = wide(e, a), q = vector_div(e, v, k);
        return fg_ix_vec(e, ll_sub(g, v, ll_mul(g, q, ll_splat(g, f, e->lanes))));
    }
    return (fg_index){.base = ll_urem(g, a.base, f),
                      .step = a.step,
                      .align = smaller(a.align, align_of_expr(e, k))};
}

/* a times the product of dims that is too large for an expression. */
static fg_index
times_count(fg_em *e, fg_index a, int n, const fg_expr *dim)
{
    fg_v f = fg_em_count(e, n, dim);
    if (fg_ix_uniform(a))
        return fg_ix(e, ll_mul(e->g, a.base, f));
    return fg_ix_vec(e, ll_mul(e->g, wide(e, a), ll_splat(e->g, f, e->lanes)));
}

/* Two neighbouring axes, the second of size n, hold the parts of one number. */
static bool
belong_together(const fg_index *a, const fg_index *b, fg_expr n)
{
    return a->whole && a->whole == b->whole && a->by == n && a->quotient && !b->quotient;
}

fg_index
fg_ix_linear(fg_em *e, int rank, const fg_expr *dim, const fg_index *ix)
{
    fg_exprs *x = e->m->ex;
    fg_index at = fg_ixc(e, 0), run[FG_MAXRANK];
    fg_expr stride = fg_ec(x, 1);
    int last[FG_MAXRANK], n = 0; /* axes that run[k] covers end with last[k] */
    for (int a = 0; a < rank; a++) {
        if (fg_e_is(x, dim[a], 1))
            continue;
        bool joins = n && belong_together(&run[n - 1], &ix[a], dim[a]);
        n -= joins;
        run[n] = joins ? *ix[a].whole : ix[a];
        last[n++] = a;
    }
    /* From the last axis, so that only the axis the lanes run along keeps a step; sums of
     * products rather than a nest, so that outer parts are loop invariants. */
    for (int a = rank - 1, k = n - 1; a >= 0; a--) {
        if (k >= 0 && last[k] == a) {
            at = fg_ix_add(e,
                           stride != FG_E_BAD
                               ? fg_ix_mul(e, run[k], stride)
                               : times_count(e, run[k], rank - 1 - a, dim + a + 1),
                           at);
            k--;
        }
        stride = fg_emul(x, stride, dim[a]);
    }
    return at;
}

void
fg_ix_unlinear(fg_em *e, int rank, const fg_expr *dim, fg_index linear, fg_index *ix)
{
    int first = 0;
    while (first < rank && fg_e_is(e->m->ex, dim[first], 1))
        ix[first++] = fg_ixc(e, 0);
    for (int a = rank - 1; a >= first; a--) {
        if (a == first) {
            ix[a] = linear;
        } else if (!fg_e_is(e->m->ex, dim[a], 1)) {
            const fg_index *whole = fg_dup(e->a, &linear, sizeof linear);
            ix[a] = fg_ix_mod(e, linear, dim[a]);
            linear = fg_ix_div(e, linear, dim[a]);
            ix[a].whole = linear.whole = whole;
            ix[a].by = linear.by = dim[a];
            linear.quotient = true;
        } else {
            ix[a] = fg_ixc(e, 0);
        }
    }
}

void
fg_ix_broadcast(fg_em *e, const fg_type *result, const fg_index *ix, const fg_type *t,
                fg_index *to)
{
    fg_exprs *x = e->m->ex;
    fg_ll *g = e->g;
    int shift = result->rank - t->rank;
    for (int a = 0; a < t->rank; a++) {
        fg_index from = ix[a + shift];
        if (fg_e_is(x, t->dim[a], 1)) {
            to[a] = fg_ixc(e, 0);
        } else if (t->dim[a] == result->dim[a + shift] || fg_e_lo(x, t->dim[a]) > 1) {
            to[a] = from;
        } else {
            /* One or the full size: only known while running. */
            fg_v one = ll_cmp(g, LL_EQ, fg_em_expr(e, t->dim[a]), ll_i(g, 1));
            fg_v f = ll_sel(g, one, ll_i(g, 0), ll_i(g, 1));
            to[a] =
                fg_ix_uniform(from)
                    ? fg_ix(e, ll_mul(g, from.base, f))
                    : fg_ix_vec(e, ll_mul(g, wide(e, from), ll_splat(g, f, e->lanes)));
        }
    }
}
