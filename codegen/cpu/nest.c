/* nest.c - pull rules that run a loop nest for each element: products, windows,
 * reductions.
 *
 *     pull(matmul %a, %b at [i, j..j+15]):   for k: acc += splat(a[i, k]) * b[k, j..j+15]
 *
 * The lanes run along the result, so nothing is summed across them and any axes, types
 * and epilogues go. The emitters in gemm.c, conv.c and rows.c take over the shapes that
 * matter; this is what remains.
 */
#include "codegen/cpu/pull.h"

#include <math.h>

void
fg_nest_open(fg_em *e, fg_nest *s, int n, const fg_v *size, int nacc, fg_v *acc)
{
    fg_ll *g = e->g;
    s->n = n;
    s->scope = fg_scope(e);
    for (int k = 0; k < n; k++) {
        ll_for(g, &s->l[k], ll_i(g, 0), size[k], ll_i(g, 1), nacc, acc);
        memcpy(acc, s->l[k].phi, sizeof *acc * (size_t)nacc);
    }
}

void
fg_nest_close(fg_em *e, fg_nest *s, int nacc, fg_v *acc)
{
    for (int k = s->n - 1; k >= 0; k--) {
        ll_next(e->g, &s->l[k], acc);
        memcpy(acc, s->l[k].phi, sizeof *acc * (size_t)nacc);
    }
    fg_unscope(e, s->scope);
}

static fg_v
wide_zero(fg_em *e, fg_dtype d)
{
    return ll_zero(ll_vec(fg_em_type(e, d), e->lanes));
}

/* acc + a b, in the register type of d. */
static fg_v
accumulate(fg_em *e, fg_v acc, fg_v a, fg_v b)
{
    return ll_fma(e->g, fg_lanes(e, a), fg_lanes(e, b), acc);
}

static fg_v
finish(fg_em *e, fg_dtype d, fg_v v)
{
    fg_ll *g = e->g;
    if (d == FG_i4 || d == FG_u4)
        return fg_em_cast(e, v, d == FG_i4 ? FG_i8 : FG_u8, d);
    (void)g;
    return fg_em_round(e, d, v);
}

/* ---- reductions
 * ----------------------------------------------------------------------------- */

/* What a reduction starts from, and one step of it, in the register type of d. */
fg_v
fg_reduce_init(fg_em *e, fg_op op, fg_dtype d)
{
    fg_t t = fg_em_type(e, d);
    bool sign = fg_dtypes[d].cls == FG_CLASS_SINT;
    int bits = fg_dtypes[d].bits;
    bool max = op == FG_OP_reduce_max || op == FG_OP_argmax || op == FG_OP_max_pool;
    if (op == FG_OP_reduce_sum || op == FG_OP_reduce_mean)
        return ll_zero(t);
    if (op == FG_OP_reduce_prod)
        return ll_c(t, 1);
    if (fg_is_float(d))
        return ll_cf(t, max ? -INFINITY : INFINITY);
    if (d == FG_bool)
        return ll_ci(t, !max);
    if (sign)
        return ll_ci(t, max ? -(int64_t)((uint64_t)1 << (bits - 1))
                            : (int64_t)(((uint64_t)1 << (bits - 1)) - 1));
    return ll_ci(t, max ? 0 : (int64_t)(~(uint64_t)0 >> (64 - bits)));
}

fg_v
fg_reduce_step(fg_em *e, fg_op op, fg_dtype d, fg_v acc, fg_v x)
{
    fg_ll *g = e->g;
    bool max = op == FG_OP_reduce_max || op == FG_OP_max_pool;
    if (op == FG_OP_reduce_sum || op == FG_OP_reduce_mean)
        return ll_add(g, acc, x);
    if (op == FG_OP_reduce_prod)
        return ll_mul(g, acc, x);
    if (fg_is_float(d))
        return ll_sel(g, ll_isnan(g, x), x,
                      ll_sel(g, ll_isnan(g, acc), acc,
                             max ? ll_max(g, acc, x) : ll_min(g, acc, x)));
    if (fg_dtypes[d].cls == FG_CLASS_SINT)
        return max ? ll_max(g, acc, x) : ll_min(g, acc, x);
    return max ? ll_umax(g, acc, x) : ll_umin(g, acc, x);
}

/* The type a reduction accumulates in. */
fg_dtype
fg_reduce_type(fg_op op, fg_dtype d)
{
    if (op == FG_OP_reduce_mean && fg_is_int(d))
        return fg_dtypes[d].cls == FG_CLASS_SINT ? FG_i64 : FG_u64;
    return d;
}

/* From the accumulated value to the result's. */
fg_v
fg_reduce_finish(fg_em *e, fg_op op, fg_dtype d, fg_v acc, fg_v count)
{
    fg_ll *g = e->g;
    fg_dtype wide = fg_reduce_type(op, d);
    if (op != FG_OP_reduce_mean)
        return finish(e, d, acc);
    count = ll_splat(g, count, ll_lanes(acc));
    if (fg_is_float(d))
        return fg_em_round(e, d, ll_div(g, acc, fg_em_cast(e, count, FG_i64, wide)));
    count = ll_max(g, count, ll_ci(LLVMTypeOf(count), 1));
    acc = wide == FG_i64 ? ll_div(g, acc, count) : ll_udiv(g, acc, count);
    return fg_em_cast(e, acc, wide, d);
}

fg_v
fg_pull_reduce(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    fg_ll *g = e->g;
    const fg_type *t = fg_rt(e->m, i->in[0]);
    const fg_attr *axes = &FG_GET(i, reduce_sum, axes);
    bool keep = FG_GET(i, reduce_sum, keep).i;
    fg_dtype wide = fg_reduce_type(i->op, t->dtype);
    fg_index at[FG_MAXRANK];
    fg_v size[FG_MAXRANK], acc = fg_lanes(e, fg_reduce_init(e, i->op, wide)),
                           count = ll_i(g, 1);
    fg_nest s;
    for (int k = 0; k < axes->n; k++) {
        size[k] = fg_em_expr(e, t->dim[axes->is[k]]);
        count = ll_mul(g, count, size[k]);
    }
    fg_nest_open(e, &s, axes->n, size, 1, &acc);
    for (int a = 0, k = 0, o = 0; a < t->rank; a++) {
        bool gone = k < axes->n && axes->is[k] == a;
        at[a] = gone ? fg_ix(e, s.l[k++].i) : ix[o];
        o += !gone || keep;
    }
    fg_v x = fg_em_cast(e, fg_lanes(e, fg_pull(e, i->in[0], at)), t->dtype, wide);
    acc = fg_reduce_step(e, i->op, wide, acc, x);
    fg_nest_close(e, &s, 1, &acc);
    return fg_reduce_finish(e, i->op, t->dtype, acc, count);
}

/* Whether x beats the best so far; NaN beats everything but NaN. */
fg_v
fg_arg_better(fg_em *e, const fg_inst *i, fg_dtype d, fg_v x, fg_v best)
{
    fg_ll *g = e->g;
    bool max = i->op == FG_OP_argmax, last = FG_GET(i, argmax, last).i;
    ll_cond c = max ? (last ? LL_GE : LL_GT) : (last ? LL_LE : LL_LT);
    if (!fg_is_float(d))
        return fg_dtypes[d].cls == FG_CLASS_SINT ? ll_cmp(g, c, x, best)
                                                 : ll_ucmp(g, c, x, best);
    fg_v xn = ll_isnan(g, x), bn = ll_isnan(g, best);
    fg_v nan = last ? xn : ll_and(g, xn, ll_not(g, bn));
    return ll_or(g, ll_cmp(g, c, x, best), nan);
}

fg_v
fg_pull_arg(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    fg_ll *g = e->g;
    const fg_type *t = fg_rt(e->m, i->in[0]);
    int axis = (int)FG_GET(i, argmax, axis).i;
    bool keep = FG_GET(i, argmax, keep).i;
    fg_index at[FG_MAXRANK];
    for (int a = 0, o = 0; a < t->rank; a++) {
        at[a] = a == axis ? fg_ixc(e, 0) : ix[o];
        o += a != axis || keep;
    }
    fg_v first = fg_pull_nonempty(e, i->in[0], t->dim[axis], at);
    fg_v acc[2] = {fg_lanes(e, first), wide_zero(e, FG_i64)};
    fg_v size = fg_em_expr(e, t->dim[axis]);
    fg_nest s;
    fg_nest_open(e, &s, 1, &size, 2, acc);
    at[axis] = fg_ix(e, s.l[0].i);
    fg_v x = fg_lanes(e, fg_pull(e, i->in[0], at));
    fg_v better = fg_arg_better(e, i, t->dtype, x, acc[0]);
    acc[0] = ll_sel(g, better, x, acc[0]);
    acc[1] = ll_sel(g, better, fg_lanes(e, s.l[0].i), acc[1]);
    fg_nest_close(e, &s, 2, acc);
    return acc[1];
}

/* ---- products
 * ---------------------------------------------------------------------------------- */

/* Index of a product's operand of type t: leading axes broadcast, then (row, col). */
static void
product_index(fg_em *e, const fg_type *result, const fg_index *ix, const fg_type *t,
              fg_index row, fg_index col, fg_index *at)
{
    fg_type lead = *result, own = *t;
    lead.rank -= 2;
    own.rank -= 2;
    fg_ix_broadcast(e, &lead, ix, &own, at);
    at[own.rank] = row;
    at[own.rank + 1] = col;
}

fg_v
fg_pull_matmul(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    const fg_type *t = fg_rt(e->m, r), *ta = fg_rt(e->m, i->in[0]),
                  *tb = fg_rt(e->m, i->in[1]);
    bool xa = FG_GET(i, matmul, trans_a).i, xb = FG_GET(i, matmul, trans_b).i;
    fg_index at[FG_MAXRANK], bt[FG_MAXRANK], m = ix[t->rank - 2], n = ix[t->rank - 1];
    fg_v acc = wide_zero(e, t->dtype);
    fg_v size = fg_em_expr(e, ta->dim[ta->rank - (xa ? 2 : 1)]);
    fg_nest s;
    fg_nest_open(e, &s, 1, &size, 1, &acc);
    fg_index k = fg_ix(e, s.l[0].i);
    product_index(e, t, ix, ta, xa ? k : m, xa ? m : k, at);
    product_index(e, t, ix, tb, xb ? n : k, xb ? k : n, bt);
    acc = accumulate(e, acc, fg_pull(e, i->in[0], at), fg_pull(e, i->in[1], bt));
    fg_nest_close(e, &s, 1, &acc);
    return finish(e, t->dtype, acc);
}

/* Columns of a panel lie side by side. */
fg_v
fg_pull_matmul_panels(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    const fg_type *t = fg_rt(e->m, r), *tb = fg_rt(e->m, i->in[1]);
    fg_index at[FG_MAXRANK], n = ix[t->rank - 1];
    fg_v acc = wide_zero(e, t->dtype), size = fg_em_expr(e, tb->dim[1]);
    fg_nest s;
    fg_nest_open(e, &s, 1, &size, 1, &acc);
    fg_index k = fg_ix(e, s.l[0].i);
    memcpy(at, ix, sizeof *at * t->rank);
    at[t->rank - 1] = k;
    fg_index bt[] = {fg_ix_div(e, n, tb->dim[2]), k, fg_ix_mod(e, n, tb->dim[2])};
    acc = accumulate(e, acc, fg_pull(e, i->in[0], at), fg_pull(e, i->in[1], bt));
    fg_nest_close(e, &s, 1, &acc);
    return finish(e, t->dtype, acc);
}

/* Zero point of a row or column; 0 when absent. */
static fg_v
zero_point(fg_em *e, fg_inst *i, int which, fg_reg r, const fg_index *ix)
{
    const fg_type *t = fg_rt(e->m, r);
    fg_index at[FG_MAXRANK];
    if (which >= i->nin || !i->in[which])
        return ll_i32(e->g, 0);
    const fg_type *tz = fg_rt(e->m, i->in[which]);
    fg_ix_broadcast(e, t, ix, tz, at);
    if (which == 2 && tz->rank == 1 && !fg_e_is(e->m->ex, tz->dim[0], 1))
        at[0] = ix[t->rank - 2];
    return fg_em_cast(e, fg_pull(e, i->in[which], at), tz->dtype, FG_i32);
}

fg_v
fg_pull_matmul_int(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_ll *g = e->g;
    const fg_type *t = fg_rt(e->m, r), *ta = fg_rt(e->m, i->in[0]),
                  *tb = fg_rt(e->m, i->in[1]);
    fg_index at[FG_MAXRANK], bt[FG_MAXRANK];
    fg_v za = fg_lanes(e, zero_point(e, i, 2, r, ix)),
         zb = fg_lanes(e, zero_point(e, i, 3, r, ix));
    fg_v acc = wide_zero(e, FG_i32), size = fg_em_expr(e, ta->dim[ta->rank - 1]);
    fg_nest s;
    fg_nest_open(e, &s, 1, &size, 1, &acc);
    fg_index k = fg_ix(e, s.l[0].i);
    product_index(e, t, ix, ta, ix[t->rank - 2], k, at);
    product_index(e, t, ix, tb, k, ix[t->rank - 1], bt);
    fg_v a = fg_em_cast(e, fg_pull(e, i->in[0], at), ta->dtype, FG_i32);
    fg_v b = fg_em_cast(e, fg_pull(e, i->in[1], bt), tb->dtype, FG_i32);
    acc =
        accumulate(e, acc, ll_sub(g, fg_lanes(e, a), za), ll_sub(g, fg_lanes(e, b), zb));
    fg_nest_close(e, &s, 1, &acc);
    return acc;
}

/* ---- windows -----------------------------------------------------------------------
 * ---------------- */

static int64_t
listed(const fg_attr *a, int k, int64_t other)
{
    return k < a->n ? a->is[k] : other;
}

/* One lane of a window walk: what to do at a place of the operand that exists. */
typedef struct place {
    fg_inst *i;
    fg_op op;
    fg_index at[FG_MAXRANK], wt[FG_MAXRANK]; /* of the operand, of the filter */
    fg_v acc;
} place;

static fg_v
place_outside(fg_em *e, void *user)
{
    (void)e;
    return ((place *)user)->acc;
}

static fg_v
place_inside(fg_em *e, void *user)
{
    place *p = user;
    fg_inst *i = p->i;
    fg_v x = fg_lanes(e, fg_pull(e, i->in[0], p->at));
    if (p->op == FG_OP_max_pool)
        return fg_reduce_step(e, p->op, fg_rt(e->m, i->in[0])->dtype, p->acc, x);
    if (p->op == FG_OP_avg_pool)
        return ll_add(e->g, p->acc, x);
    return accumulate(e, p->acc, x, fg_pull(e, i->in[1], p->wt));
}

/* lo <= v < hi */
static fg_v
in_range(fg_em *e, fg_v v, fg_v lo, fg_v hi)
{
    fg_ll *g = e->g;
    int n = ll_lanes(v);
    return ll_ucmp(g, LL_LT, ll_sub(g, v, ll_splat(g, lo, n)),
                   ll_splat(g, ll_sub(g, hi, lo), n));
}

static fg_v
both(fg_em *e, fg_v a, fg_v b)
{
    int n = ll_lanes(a) > ll_lanes(b) ? ll_lanes(a) : ll_lanes(b);
    return ll_and(e->g, ll_splat(e->g, a, n), ll_splat(e->g, b, n));
}

/* Position of window element k in the operand: out * stride - before + k * dilation. */
static fg_index
window_position(fg_em *e, fg_index out, fg_v k, int64_t stride, int64_t before,
                int64_t dilation)
{
    fg_exprs *x = e->m->ex;
    fg_index p = fg_ix_addc(e, fg_ix_mul(e, out, fg_ec(x, stride)), fg_ec(x, -before));
    return fg_ix_add(e, p, fg_ix(e, ll_mul(e->g, k, ll_i(e->g, dilation))));
}

fg_v
fg_pull_conv(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    const fg_type *t = fg_rt(e->m, r), *tx = fg_rt(e->m, i->in[0]),
                  *tw = fg_rt(e->m, i->in[1]);
    int64_t group = FG_GET(i, conv, group).i;
    place p = {.i = i, .op = i->op, .acc = wide_zero(e, t->dtype)};
    fg_v size[FG_MAXRANK], ok = ll_ci(g->i1, 1);
    fg_nest s;
    fg_index first = fg_ixc(e, 0);
    if (group > 1) {
        fg_index own = fg_ix_div(e, ix[1], fg_ediv(x, tw->dim[0], fg_ec(x, group)));
        first = fg_ix_mul(e, own, tw->dim[1]);
    }
    if (i->nin > 2 && i->in[2])
        p.acc = fg_lanes(e, fg_pull(e, i->in[2], ix + 1));
    for (int a = 1; a < tw->rank; a++)
        size[a - 1] = fg_em_expr(e, tw->dim[a]);
    fg_nest_open(e, &s, tw->rank - 1, size, 1, &p.acc);
    p.at[0] = ix[0];
    p.wt[0] = ix[1];
    p.wt[1] = fg_ix(e, s.l[0].i);
    p.at[1] = fg_ix_add(e, first, p.wt[1]);
    for (int a = 2; a < tx->rank; a++) {
        p.wt[a] = fg_ix(e, s.l[a - 1].i);
        p.at[a] = window_position(e, ix[a], s.l[a - 1].i,
                                  listed(&FG_GET(i, conv, stride), a - 2, 1),
                                  listed(&FG_GET(i, conv, before), a - 2, 0),
                                  listed(&FG_GET(i, conv, dilation), a - 2, 1));
        ok = both(
            e, ok,
            in_range(e, fg_ix_value(e, p.at[a]), ll_i(g, 0), fg_em_expr(e, tx->dim[a])));
    }
    fg_v acc = fg_pull_either(e, ok, place_inside, place_outside, &p);
    fg_nest_close(e, &s, 1, &acc);
    return finish(e, t->dtype, acc);
}

/* Every product lands at out = in * stride - before + k * dilation, so an element gathers
 * those k for which that can be solved for `in`. */
fg_v
fg_pull_conv_transpose(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    const fg_type *t = fg_rt(e->m, r), *tx = fg_rt(e->m, i->in[0]),
                  *tw = fg_rt(e->m, i->in[1]);
    fg_expr each = fg_ediv(x, tw->dim[0], fg_ec(x, FG_GET(i, conv_transpose, group).i));
    place p = {.i = i, .op = i->op, .acc = wide_zero(e, t->dtype)};
    fg_v size[FG_MAXRANK], ok = ll_ci(g->i1, 1);
    fg_nest s;
    fg_index own = fg_ix_div(e, ix[1], tw->dim[1]);
    if (i->nin > 2 && i->in[2])
        p.acc = fg_lanes(e, fg_pull(e, i->in[2], ix + 1));
    size[0] = fg_em_expr(e, each);
    for (int a = 2; a < tw->rank; a++)
        size[a - 1] = fg_em_expr(e, tw->dim[a]);
    fg_nest_open(e, &s, tw->rank - 1, size, 1, &p.acc);
    p.at[0] = ix[0];
    p.at[1] = p.wt[0] = fg_ix_add(e, fg_ix_mul(e, own, each), fg_ix(e, s.l[0].i));
    p.wt[1] = fg_ix_mod(e, ix[1], tw->dim[1]);
    for (int a = 2; a < tx->rank; a++) {
        int64_t stride = listed(&FG_GET(i, conv_transpose, stride), a - 2, 1);
        int64_t dilation = listed(&FG_GET(i, conv_transpose, dilation), a - 2, 1);
        fg_index at = fg_ix_addc(
            e, ix[a], fg_ec(x, listed(&FG_GET(i, conv_transpose, before), a - 2, 0)));
        fg_v v = fg_ix_value(e, at);
        v = ll_sub(g, v,
                   ll_splat(g, ll_mul(g, s.l[a - 1].i, ll_i(g, dilation)), ll_lanes(v)));
        fg_v by = ll_ci(LLVMTypeOf(v), stride), q = ll_div(g, v, by);
        fg_v exact = ll_cmp(g, LL_EQ, ll_mul(g, q, by), v);
        exact = both(e, exact, ll_cmp(g, LL_GE, v, ll_zero(LLVMTypeOf(v))));
        ok = both(e, ok,
                  both(e, exact, in_range(e, q, ll_i(g, 0), fg_em_expr(e, tx->dim[a]))));
        p.wt[a] = fg_ix(e, s.l[a - 1].i);
        p.at[a] = stride == 1 ? fg_ix_add(e, at,
                                          fg_ix(e, ll_neg(g, ll_mul(g, s.l[a - 1].i,
                                                                    ll_i(g, dilation)))))
                              : fg_ix_vec(e, q);
    }
    fg_v acc = fg_pull_either(e, ok, place_inside, place_outside, &p);
    fg_nest_close(e, &s, 1, &acc);
    return finish(e, t->dtype, acc);
}

/* Both poolings: acc[0] the value, acc[1] how many places count in the divisor.
 * max_pool and avg_pool begin with the same attributes. */
static fg_v
pull_pool(fg_em *e, fg_inst *i, const fg_index *ix, fg_v init, fg_v *count)
{
    fg_ll *g = e->g;
    const fg_type *tx = fg_rt(e->m, i->in[0]);
    bool pad = count && FG_GET(i, avg_pool, count_pad).i;
    place p = {.i = i, .op = i->op, .acc = init};
    fg_v size[FG_MAXRANK], ok = ll_ci(g->i1, 1), counts = ok,
                           acc[2] = {init, wide_zero(e, FG_i64)};
    fg_nest s;
    for (int a = 2; a < tx->rank; a++)
        size[a - 2] = ll_i(g, FG_GET(i, max_pool, kernel).is[a - 2]);
    fg_nest_open(e, &s, tx->rank - 2, size, 2, acc);
    p.acc = acc[0];
    p.at[0] = ix[0];
    p.at[1] = ix[1];
    for (int a = 2; a < tx->rank; a++) {
        int64_t before = listed(&FG_GET(i, max_pool, before), a - 2, 0);
        fg_v n = fg_em_expr(e, tx->dim[a]);
        p.at[a] = window_position(e, ix[a], s.l[a - 2].i,
                                  listed(&FG_GET(i, max_pool, stride), a - 2, 1), before,
                                  listed(&FG_GET(i, max_pool, dilation), a - 2, 1));
        fg_v v = fg_ix_value(e, p.at[a]);
        ok = both(e, ok, in_range(e, v, ll_i(g, 0), n));
        if (pad)
            n = ll_add(g, n, ll_i(g, listed(&FG_GET(i, avg_pool, after), a - 2, 0)));
        counts = both(e, counts, in_range(e, v, ll_i(g, pad ? -before : 0), n));
    }
    acc[0] = fg_pull_either(e, ok, place_inside, place_outside, &p);
    acc[1] = ll_add(g, acc[1], ll_zext(g, fg_lanes(e, counts), g->i64));
    fg_nest_close(e, &s, 2, acc);
    if (count)
        *count = acc[1];
    return acc[0];
}

fg_v
fg_pull_max_pool(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_dtype d = fg_rt(e->m, r)->dtype;
    return pull_pool(e, i, ix, fg_lanes(e, fg_reduce_init(e, i->op, d)), NULL);
}

fg_v
fg_pull_avg_pool(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_dtype d = fg_rt(e->m, r)->dtype;
    fg_v count, sum = pull_pool(e, i, ix, wide_zero(e, d), &count);
    count = ll_fromint(e->g, count, fg_em_type(e, d), true);
    return fg_em_round(e, d, ll_div(e->g, sum, count));
}
