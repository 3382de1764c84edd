/* attention_plain.c - attention in f64, one query at a time.
 *
 *     for each batch, head, query:
 *         w[j] = capped(scale q . k[j]) + mask; -inf where j may not be seen
 *         w[j] = exp(w[j] - largest), and their sum
 *         y[e] = sum of w[j] v[j, e] / sum
 *
 * The emitter in attention.c computes in f32; this one serves the element types that
 * would lose by it.
 */
#include "codegen/cpu/pull.h"

#include <math.h>

typedef struct plain {
    fg_em *e;
    fg_inst *i;
    fg_v T, length, place; /* keys, keys of this batch, key the query stands at */
    fg_v w;                /* scratch: f64[T] */
    fg_index b, h, g, s;   /* batch, head, key head, query */
    fg_v sink;             /* NULL: none */
} plain;

static fg_v
as_f64(plain *p, int k, const fg_index *ix)
{
    fg_reg r = p->i->in[k];
    fg_dtype d = fg_rt(p->e->m, r)->dtype;
    return fg_em_cast(p->e, fg_pull(p->e, r, ix),
                      d == FG_f16 || d == FG_bf16 ? FG_f32 : d, FG_f64);
}

static bool
has(const plain *p, int k)
{
    return k < p->i->nin && p->i->in[k];
}

/* Whether key j may be seen at all, by position. */
static fg_v
in_sight(plain *p, fg_v j)
{
    fg_ll *g = p->e->g;
    int64_t left = FG_GET(p->i, attention, left).i,
            right = FG_GET(p->i, attention, right).i;
    fg_v ok = ll_cmp(g, LL_LT, j, p->length);
    if (FG_GET(p->i, attention, causal).i)
        ok = ll_and(g, ok, ll_cmp(g, LL_LE, j, p->place));
    if (left >= 0)
        ok = ll_and(g, ok, ll_cmp(g, LL_GE, j, ll_sub(g, p->place, ll_i(g, left))));
    if (right >= 0)
        ok = ll_and(g, ok, ll_cmp(g, LL_LE, j, ll_add(g, p->place, ll_i(g, right))));
    if (has(p, 3)) {
        const fg_type *t = fg_rt(p->e->m, p->i->in[3]);
        if (t->rank && !fg_e_is(p->e->m->ex, t->dim[t->rank - 1], 1))
            ok =
                ll_and(g, ok, ll_cmp(g, LL_LT, j, fg_em_expr(p->e, t->dim[t->rank - 1])));
    }
    return ok;
}

/* The mask's index: broadcast from the right, where the last axis may be short. */
static void
mask_index(plain *p, fg_v j, fg_index *at)
{
    fg_em *e = p->e;
    const fg_type *t = fg_rt(e->m, p->i->in[3]);
    fg_index full[4] = {p->b, p->h, p->s, fg_ix(e, j)};
    for (int a = 0; a < t->rank; a++)
        at[a] = fg_e_is(e->m->ex, t->dim[a], 1) ? fg_ixc(e, 0) : full[a + 4 - t->rank];
}

static fg_v
dot(plain *p, fg_v j)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    fg_v x = ll_cf(g->f64, 0), size = fg_em_dim(e, p->i->in[0], 3);
    fg_nest n;
    fg_nest_open(e, &n, 1, &size, 1, &x);
    fg_index d = fg_ix(e, n.l[0].i);
    fg_v q = as_f64(p, 0, (fg_index[]){p->b, p->h, p->s, d});
    x = ll_fma(g, q, as_f64(p, 1, (fg_index[]){p->b, p->g, fg_ix(e, j), d}), x);
    fg_nest_close(e, &n, 1, &x);
    return x;
}

static fg_v
seen_score(plain *p, fg_v j)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    double cap = FG_GET(p->i, attention, softcap).f;
    fg_v x = ll_mul(g, dot(p, j), ll_cf(g->f64, FG_GET(p->i, attention, scale).f));
    fg_index at[4];
    if (cap != 0) {
        x = ll_div(g, x, ll_cf(g->f64, cap));
        x = ll_mul(g, ll_libm(g, "tanh", 1, &x), ll_cf(g->f64, cap));
    }
    if (!has(p, 3))
        return x;
    mask_index(p, j, at);
    if (fg_rt(e->m, p->i->in[3])->dtype == FG_bool)
        return ll_sel(g, fg_pull(e, p->i->in[3], at), x, ll_cf(g->f64, -INFINITY));
    return ll_add(g, x, as_f64(p, 3, at));
}

/* Fills w; the largest score, and whether any key counts. */
static void
score_all(plain *p, fg_v *top, fg_v *any)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    fg_v acc[2] = {p->sink ? p->sink : ll_cf(g->f64, -INFINITY), ll_ci(g->i1, 0)}, x;
    fg_v hidden = ll_cf(g->f64, -INFINITY);
    fg_scopemark s = fg_scope(e);
    ll_loop l;
    ll_branch b;
    ll_for(g, &l, ll_i(g, 0), p->T, ll_i(g, 1), 2, acc);
    ll_if(g, &b, in_sight(p, l.i));
    fg_scopemark inner = fg_scope(e);
    x = seen_score(p, l.i);
    fg_unscope(e, inner);
    ll_else(g, &b, 1, &x);
    ll_end(g, &b, &hidden, &x);
    ll_store(g, x, ll_at(g, p->w, g->f64, l.i));
    acc[0] = ll_max(g, x, l.phi[0]);
    acc[1] = ll_or(g, l.phi[1], ll_cmp(g, LL_NE, x, hidden));
    ll_next(g, &l, acc);
    fg_unscope(e, s);
    *top = l.phi[0];
    *any = l.phi[1];
}

static fg_v
sum_weights(plain *p, fg_v top)
{
    fg_ll *g = p->e->g;
    fg_v sum = ll_cf(g->f64, 0), x;
    ll_loop l;
    if (p->sink) {
        x = ll_sub(g, p->sink, top);
        sum = ll_libm(g, "exp", 1, &x);
    }
    ll_for(g, &l, ll_i(g, 0), p->T, ll_i(g, 1), 1, &sum);
    fg_v at = ll_at(g, p->w, g->f64, l.i);
    x = ll_sub(g, ll_load(g, g->f64, at), top);
    x = ll_libm(g, "exp", 1, &x);
    ll_store(g, x, at);
    sum = ll_add(g, l.phi[0], x);
    ll_next(g, &l, &sum);
    return l.phi[0];
}

/* One element of the result; a key without weight leaves no trace, whatever its value. */
static fg_v
weighted(plain *p, fg_index column, fg_v sum, fg_v any)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    bool nan = strcmp(FG_GET(p->i, attention, empty).s, "zero") && !p->sink;
    fg_v y = ll_cf(g->f64, 0), zero = y;
    fg_scopemark s = fg_scope(e);
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), p->T, ll_i(g, 1), 1, &y);
    fg_v w = ll_load(g, g->f64, ll_at(g, p->w, g->f64, l.i));
    fg_v v = as_f64(p, 2, (fg_index[]){p->b, p->g, fg_ix(e, l.i), column});
    y = ll_fma(g, w, v, l.phi[0]);
    y = ll_sel(g, ll_cmp(g, LL_EQ, w, zero), l.phi[0], y);
    ll_next(g, &l, &y);
    fg_unscope(e, s);
    y = ll_div(g, l.phi[0], sum);
    fg_v keys = ll_cmp(g, LL_GT, p->T, ll_i(g, 0));
    fg_v none = nan ? ll_sel(g, keys, ll_cf(g->f64, NAN), zero) : zero;
    return ll_sel(g, any, y, none);
}

/* What the row's batch says about keys. */
static void
place_query(plain *p)
{
    fg_em *e = p->e;
    fg_ll *g = e->g;
    fg_expr given = FG_GET(p->i, attention, offset).e;
    p->length = p->T;
    if (has(p, 5))
        p->length = fg_em_cast(e, fg_pull(e, p->i->in[5], &p->b), FG_i64, FG_i64);
    fg_v offset = given != FG_E_BAD ? fg_em_expr(e, given)
                                    : ll_sub(g, p->length, fg_em_dim(e, p->i->in[0], 2));
    p->place = ll_add(g, p->s.base, offset);
    p->sink = has(p, 4) ? as_f64(p, 4, &p->h) : NULL;
}

bool
fg_gen_attention_plain(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    const fg_type *q = fg_rt(e->m, i->in[0]), *k = fg_rt(e->m, i->in[1]);
    plain p = {.e = e, .i = i};
    fg_index ix[3];
    fg_dtype d = fg_rt(e->m, i->out[0])->dtype;
    ll_loop row, l;
    fg_v top, any;
    e->lanes = 1;
    p.T = fg_em_expr(e, k->dim[2]);
    p.w = fg_em_scratch(e, fg_emul(x, k->dim[2], fg_ec(x, 8)));
    fg_em_items(e, &row, 3, q->dim, fg_ec(x, 1));
    fg_scopemark s = fg_scope(e);
    fg_ix_unlinear(e, 3, q->dim, fg_ix(e, row.i), ix);
    p.b = ix[0];
    p.h = ix[1];
    p.s = ix[2];
    p.g = fg_ix_div(e, p.h, fg_ediv(x, q->dim[1], k->dim[1]));
    place_query(&p);
    score_all(&p, &top, &any);
    fg_v sum = sum_weights(&p, top);
    ll_for(g, &l, ll_i(g, 0), fg_em_dim(e, i->out[0], 3), ll_i(g, 1), 0, NULL);
    fg_index column = fg_ix(e, l.i);
    fg_v y = fg_em_cast(e, weighted(&p, column, sum, any), FG_f64, d);
    fg_em_store(e, 0, (fg_index[]){p.b, p.h, p.s, column}, y);
    ll_next(g, &l, NULL);
    fg_unscope(e, s);
    ll_next(g, &row, NULL);
    return true;
}
