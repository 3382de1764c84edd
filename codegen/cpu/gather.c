/* gather.c - pull rules that read by index tensors, and rotate pairs. */
#include "codegen/cpu/pull.h"

/* ---- gather
 * ---------------------------------------------------------------------------------- */

fg_index
fg_position(fg_em *e, fg_v v, fg_dtype d, fg_expr n)
{
    fg_ll *g = e->g;
    fg_v i = fg_em_cast(e, v, d, FG_i64);
    fg_t t = LLVMTypeOf(i);
    fg_v size = ll_splat(g, fg_em_expr(e, n), ll_lanes(i));
    i = ll_sel(g, ll_cmp(g, LL_LT, i, ll_zero(t)), ll_add(g, i, size), i);
    i = ll_min(g, i, ll_sub(g, size, ll_ci(t, 1)));
    return fg_ix_vec(e, ll_max(g, i, ll_zero(t)));
}

fg_v
fg_pull_gather(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    const fg_type *tx = fg_rt(e->m, i->in[0]), *ti = fg_rt(e->m, i->in[1]);
    int axis = (int)FG_GET(i, gather, axis).i;
    fg_index at[FG_MAXRANK];
    fg_v v = fg_pull(e, i->in[1], ix + axis);
    for (int a = 0; a < axis; a++)
        at[a] = ix[a];
    at[axis] = fg_position(e, v, ti->dtype, tx->dim[axis]);
    for (int a = axis + 1; a < tx->rank; a++)
        at[a] = ix[a + ti->rank - 1];
    return fg_pull_nonempty(e, i->in[0], tx->dim[axis], at);
}

fg_v
fg_pull_gather_elements(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    const fg_type *tx = fg_rt(e->m, i->in[0]), *ti = fg_rt(e->m, i->in[1]);
    int axis = (int)FG_GET(i, gather_elements, axis).i;
    fg_index at[FG_MAXRANK];
    memcpy(at, ix, sizeof *at * tx->rank);
    at[axis] = fg_position(e, fg_pull(e, i->in[1], ix), ti->dtype, tx->dim[axis]);
    return fg_pull_nonempty(e, i->in[0], tx->dim[axis], at);
}

fg_v
fg_pull_gather_nd(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    (void)r;
    const fg_type *tx = fg_rt(e->m, i->in[0]), *ti = fg_rt(e->m, i->in[1]);
    int batch = (int)FG_GET(i, gather_nd, batch).i, q = ti->rank - 1;
    fg_index at[FG_MAXRANK], ia[FG_MAXRANK];
    int64_t tuple = 0;
    fg_e_const(e->m->ex, ti->dim[q], &tuple);
    for (int a = 0; a < batch; a++)
        at[a] = ix[a];
    memcpy(ia, ix, sizeof *ia * (size_t)q);
    for (int k = 0; k < tuple; k++) {
        ia[q] = fg_ixc(e, k);
        at[batch + k] =
            fg_position(e, fg_pull(e, i->in[1], ia), ti->dtype, tx->dim[batch + k]);
    }
    for (int a = batch + (int)tuple; a < tx->rank; a++)
        at[a] = ix[q + a - batch - (int)tuple];
    return fg_pull_nonempty(e, i->in[0], fg_type_count(e->m->ex, tx), at);
}

/* ---- rope --------------------------------------------------------------------------
 * ------------- */

/* cos or sin for the pair each lane belongs to. */
static fg_v
pull_angle(fg_em *e, fg_inst *i, int which, const fg_index *ix, fg_index pair)
{
    const fg_type *tx = fg_rt(e->m, i->in[0]), *t = fg_rt(e->m, i->in[which]);
    fg_index at[FG_MAXRANK], full[FG_MAXRANK];
    fg_type shape = *tx;
    memcpy(full, ix, sizeof *full * tx->rank);
    full[tx->rank - 1] = pair;
    shape.dim[tx->rank - 1] = t->dim[t->rank - 1];
    fg_ix_broadcast(e, &shape, full, t, at);
    return fg_pull(e, i->in[which], at);
}

/* Neighbouring pairs in whole vectors: the partner is a shuffle, each angle serves two
 * lanes. */
static fg_v
rotate_neighbours(fg_em *e, fg_inst *i, const fg_index *ix, fg_v x)
{
    fg_ll *g = e->g;
    int n = e->lanes, last = fg_rt(e->m, i->in[0])->rank - 1, swap[64], twice[64];
    fg_v sign = ll_undef(ll_vec(g->f32, n)), angle[2];
    fg_index pair = ix[last];
    for (int l = 0; l < n; l++) {
        swap[l] = l ^ 1;
        twice[l] = l / 2;
        sign = ll_insert(g, sign, ll_cf(g->f32, l & 1 ? 1 : -1), l);
    }
    pair.base = ll_shr(g, pair.base, ll_i(g, 1));
    pair.align /= 2;
    e->lanes = n / 2;
    for (int k = 0; k < 2; k++)
        angle[k] = fg_lanes(e, pull_angle(e, i, 1 + k, ix, pair));
    e->lanes = n;
    for (int k = 0; k < 2; k++)
        angle[k] =
            n == 2 ? ll_splat(g, angle[k], 2) : ll_shuffle(g, angle[k], NULL, n, twice);
    fg_v other = ll_mul(g, ll_shuffle(g, x, NULL, n, swap), sign);
    return ll_fma(g, x, angle[0], ll_mul(g, other, angle[1]));
}

/* c: column. y[c] = x[c] cos[pair] -+ x[partner] sin[pair]; columns past `width` stay. */
fg_v
fg_pull_rope(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_ll *g = e->g;
    fg_exprs *ex = e->m->ex;
    const fg_type *t = fg_rt(e->m, r);
    int last = t->rank - 1;
    int64_t dim = FG_GET(i, rope, dim).i;
    fg_expr width = dim ? fg_ec(ex, dim) : t->dim[last];
    fg_expr half = fg_ediv(ex, width, fg_ec(ex, 2));
    bool part = width != t->dim[last], pairs = FG_GET(i, rope, interleaved).i;
    fg_index at[FG_MAXRANK], c = ix[last];
    fg_v x = fg_pull(e, i->in[0], ix);
    bool row = true;
    for (int a = 0; a < last; a++)
        row = row && fg_ix_uniform(ix[a]);
    if (pairs && row && !part && !e->mask && c.step == 1 && !c.vec &&
        c.align >= e->lanes && t->dtype == FG_f32)
        return rotate_neighbours(e, i, ix, x);
    /* Columns of one vector lie on the same side when halves hold whole vectors. */
    bool aligned = !pairs && !c.vec && c.step == 1 && c.align >= e->lanes &&
                   fg_e_divides(ex, e->lanes, half) && fg_e_divides(ex, e->lanes, width);
    fg_v v = aligned || fg_ix_uniform(c) ? c.base : fg_ix_value(e, c);
    fg_t ti = LLVMTypeOf(v);
    fg_v h = ll_splat(g, fg_em_expr(e, half), ll_lanes(v)), one = ll_ci(ti, 1), first,
         partner, pair;
    if (pairs) {
        first = ll_cmp(g, LL_EQ, ll_and(g, v, one), ll_zero(ti));
        partner = ll_xor(g, v, one);
        pair = ll_shr(g, v, one);
    } else {
        first = ll_cmp(g, LL_LT, v, h);
        partner = ll_sel(g, first, ll_add(g, v, h), ll_sub(g, v, h));
        pair = ll_sel(g, first, v, ll_sub(g, v, h));
    }
    fg_v turns = NULL;
    if (part) {
        turns = ll_cmp(g, LL_LT, v, ll_splat(g, fg_em_expr(e, width), ll_lanes(v)));
        partner = ll_sel(g, turns, partner, v);
        pair = ll_sel(g, turns, pair, ll_zero(ti));
    }
    memcpy(at, ix, sizeof *at * t->rank);
    at[last] = aligned ? fg_ix_run(e, partner, e->lanes) : fg_ix_vec(e, partner);
    fg_index pi = aligned ? fg_ix_run(e, pair, e->lanes) : fg_ix_vec(e, pair);
    fg_v other = fg_lanes(e, fg_pull(e, i->in[0], at));
    fg_v co = fg_lanes(e, pull_angle(e, i, 1, ix, pi)),
         si = fg_lanes(e, pull_angle(e, i, 2, ix, pi));
    fg_t ft = LLVMTypeOf(other);
    x = fg_lanes(e, x);
    fg_v sign = ll_sel(g, first, ll_cf(ll_like(first, ll_elem(ft)), -1),
                       ll_cf(ll_like(first, ll_elem(ft)), 1));
    si = ll_mul(g, si, fg_lanes(e, sign));
    fg_v y = fg_em_round(e, t->dtype, ll_fma(g, x, co, ll_mul(g, other, si)));
    return turns ? ll_sel(g, turns, y, x) : y;
}
