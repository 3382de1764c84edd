/* loops.c - kernels whose results share one index space.
 *
 *     kernel (%0: f32[B,S,768], %1: f32[768])        axes B S | 768
 *       %2 = add %0, %1                              for each row of B*S: 48 vectors
 *
 * Axes of size 1 vanish, and neighbouring axes merge when every access of the region sees
 * them side by side: then the index of the merged axis, put on the last of them with the
 * others at 0, addresses the same elements. The innermost axis is vectorised; rows are
 * cut into blocks, and chunks are runs of blocks with enough work to be worth a thread.
 *
 * A kernel that appends to a state computes what is appended and stores it further on in
 * the state; the rest of the state it never touches.
 */
#include "codegen/cpu/pull.h"

#define BLOCK                                                                            \
    8192 /* elements of one row done in one go; a multiple of every lane count */

/* ---- which axes may merge
 * ------------------------------------------------------------------- */

typedef struct space {
    fg_em *e;
    fg_inst *append; /* what is computed is its second operand; or NULL: the results */
    int n;           /* merged axes */
    int axis[FG_MAXRANK]; /* of the result: where the merged index goes */
    fg_expr size[FG_MAXRANK];
} space;

static bool merges(fg_em *e, fg_reg r, int p, int q);

/* Only axes of size 1 between p and q. */
static bool
adjacent(fg_em *e, const fg_type *t, int p, int q)
{
    for (int a = p + 1; a < q; a++)
        if (!fg_e_is(e->m->ex, t->dim[a], 1))
            return false;
    return p < q;
}

/* An operand that broadcasts to a result of type t: both axes as they are, or both
 * repeated. */
static bool
merges_broadcast(fg_em *e, const fg_type *t, fg_reg x, int p, int q)
{
    const fg_type *tx = fg_rt(e->m, x);
    int shift = t->rank - tx->rank;
    bool full_p = p >= shift && tx->dim[p - shift] == t->dim[p];
    bool full_q = q >= shift && tx->dim[q - shift] == t->dim[q];
    bool one_p = p < shift || fg_e_is(e->m->ex, tx->dim[p - shift], 1);
    bool one_q = q < shift || fg_e_is(e->m->ex, tx->dim[q - shift], 1);
    if (one_p && one_q)
        return true;
    return full_p && full_q && merges(e, x, p - shift, q - shift);
}

static bool
merges_all(fg_em *e, fg_inst *i, const fg_type *t, int p, int q)
{
    for (int k = 0; k < i->nin; k++)
        if (i->in[k] && !merges_broadcast(e, t, i->in[k], p, q))
            return false;
    return true;
}

/* Elements before axis a, as an expression: axes of two shapes correspond where these
 * agree. */
static fg_expr
count_before(fg_exprs *x, const fg_type *t, int a)
{
    fg_expr n = fg_ec(x, 1);
    for (int k = 0; k < a; k++)
        n = fg_emul(x, n, t->dim[k]);
    return n;
}

static int
same_axis(fg_exprs *x, const fg_type *to, int a, const fg_type *from)
{
    for (int b = 0; b < from->rank; b++)
        if (from->dim[b] == to->dim[a] && !fg_e_is(x, from->dim[b], 1) &&
            count_before(x, from, b) == count_before(x, to, a))
            return b;
    return -1;
}

static bool
merges_reshape(fg_em *e, fg_inst *i, const fg_type *t, int p, int q)
{
    const fg_type *from = fg_rt(e->m, i->in[0]);
    int fp = same_axis(e->m->ex, t, p, from), fq = same_axis(e->m->ex, t, q, from);
    if (fp < 0 && fq < 0) {
        /* In one group the reshape itself uses only the merged index; in two it would
         * not. */
        fg_expr end = fg_emul(e->m->ex, count_before(e->m->ex, t, p), t->dim[p]);
        for (int b = 0; b <= from->rank; b++)
            if (count_before(e->m->ex, from, b) == end)
                return false;
        return true;
    }
    return fp >= 0 && fq >= 0 && adjacent(e, from, fp, fq) && merges(e, i->in[0], fp, fq);
}

static bool
merges_gather(fg_em *e, fg_inst *i, int p, int q)
{
    int axis = (int)FG_GET(i, gather, axis).i, ni = fg_rt(e->m, i->in[1])->rank;
    if (q < axis)
        return merges(e, i->in[0], p, q);
    if (p >= axis + ni)
        return merges(e, i->in[0], p - ni + 1, q - ni + 1);
    return p >= axis && q < axis + ni && merges(e, i->in[1], p - axis, q - axis);
}

static bool
merges_quantised(fg_em *e, fg_inst *i, int p, int q)
{
    fg_exprs *x = e->m->ex;
    for (int k = 1; k < i->nin; k++)
        if (i->in[k] && !fg_e_is(x, fg_type_count(x, fg_rt(e->m, i->in[k])), 1))
            return false;
    return merges(e, i->in[0], p, q);
}

static bool
merges_slice(fg_em *e, fg_inst *i, const fg_type *t, int p, int q)
{
    const fg_attr *start = &FG_GET(i, slice, start), *step = &FG_GET(i, slice, step);
    const fg_type *from = fg_rt(e->m, i->in[0]);
    return step->is[p] == 1 && step->is[q] == 1 && fg_e_is(e->m->ex, start->es[q], 0) &&
           from->dim[q] == t->dim[q] && adjacent(e, from, p, q) &&
           merges(e, i->in[0], p, q);
}

/* Whether index (0, ip * dim q + iq) on axes p, q of r means the same element as (ip,
 * iq). A no ends the question, so whatever was asked before within it was a yes: each value is
 * looked at once, however many ways lead to it. */
static bool
merges(fg_em *e, fg_reg r, int p, int q)
{
    const fg_type *t = fg_rt(e->m, r);
    fg_inst *i = fg_def(e->m, r);
    const int64_t *perm;
    if (fg_em_param(e, r) >= 0 || i->op == FG_OP_const || fg_em_asked(e, r, p, q))
        return true;
    if (fg_op_is(i->op, FG_T_ELEM))
        return merges_all(e, i, t, p, q);
    switch (i->op) {
    case FG_OP_copy:
        return merges(e, i->in[0], p, q);
    case FG_OP_expand:
        return merges_all(e, i, t, p, q);
    case FG_OP_rope:
        return q < t->rank - 1 && merges_all(e, i, t, p, q);
    case FG_OP_transpose:
        perm = FG_GET(i, transpose, perm).is;
        return adjacent(e, fg_rt(e->m, i->in[0]), (int)perm[p], (int)perm[q]) &&
               merges(e, i->in[0], (int)perm[p], (int)perm[q]);
    case FG_OP_reshape:
        return merges_reshape(e, i, t, p, q);
    case FG_OP_slice:
        return merges_slice(e, i, t, p, q);
    case FG_OP_concat:
        return FG_GET(i, concat, axis).i != p && FG_GET(i, concat, axis).i != q &&
               merges_all(e, i, t, p, q);
    case FG_OP_append:
        return FG_GET(i, append, axis).i != p && FG_GET(i, append, axis).i != q &&
               merges(e, i->in[0], p, q) && merges(e, i->in[1], p, q);
    case FG_OP_gather:
        return merges_gather(e, i, p, q);
    case FG_OP_quantize:
    case FG_OP_dequantize:
        return merges_quantised(e, i, p, q);
    default:
        return false;
    }
}

static bool
all_merge(const space *s, int p, int q)
{
    fg_em *e = s->e;
    e->question++;
    if (s->append) { /* rows of the state are further apart than those appended */
        int64_t axis = FG_GET(s->append, append, axis).i;
        return (axis <= p || axis > q) && merges(e, s->append->in[1], p, q);
    }
    for (int k = 0; k < fg_em_nresult(e); k++)
        if (!merges(e, fg_em_result(e, k), p, q))
            return false;
    return true;
}

static space
make_space(fg_em *e, const fg_type *t, fg_inst *append)
{
    fg_exprs *x = e->m->ex;
    space s = {.e = e, .append = append};
    for (int a = 0; a < t->rank; a++) {
        if (fg_e_is(x, t->dim[a], 1))
            continue;
        fg_expr both = s.n ? fg_emul(x, s.size[s.n - 1], t->dim[a]) : FG_E_BAD;
        if (both != FG_E_BAD && all_merge(&s, s.axis[s.n - 1], a)) {
            s.size[s.n - 1] = both;
        } else {
            s.size[s.n++] = t->dim[a];
        }
        s.axis[s.n - 1] = a;
    }
    return s;
}

/* ---- the loops
 * ----------------------------------------------------------------------------------- */

typedef struct row {
    const space *s;
    int rank;
    fg_index ix[FG_MAXRANK];
} row;

static void
put_appended(fg_em *e, const fg_inst *append, const row *w)
{
    int axis = (int)FG_GET(append, append, axis).i;
    fg_index at[FG_MAXRANK];
    memcpy(at, w->ix, sizeof at);
    at[axis] = fg_ix_addc(e, at[axis], FG_GET(append, append, at).e);
    fg_em_store(e, 0, at, fg_pull(e, append->in[1], w->ix));
}

static void
put_run(fg_em *e, void *user, fg_v i)
{
    row *w = user;
    if (w->s->n)
        w->ix[w->s->axis[w->s->n - 1]] = fg_ix_run(e, i, e->lanes);
    if (w->s->append) {
        put_appended(e, w->s->append, w);
        return;
    }
    for (int k = 0; k < fg_em_nresult(e); k++)
        fg_em_put(e, k, w->ix);
}

/* Short rows waste no lanes they can avoid. */
static int
lanes_for(fg_em *e, fg_expr inner)
{
    int64_t n;
    int lanes = e->g->W;
    if (fg_e_const(e->m->ex, inner, &n))
        while (lanes > 1 && lanes / 2 >= n)
            lanes /= 2;
    return lanes;
}

static bool
packed_result(fg_em *e)
{
    for (int k = 0; k < fg_em_nresult(e); k++)
        if (fg_dtypes[fg_rt(e->m, fg_em_result(e, k))->dtype].bits < 8)
            return true;
    return false;
}

/* Elements worth one chunk: fewer when each runs loops of its own. */
static int64_t
chunk_elements(fg_em *e)
{
    int64_t n = 16384;
    fg_each_inst(e->region, i)
        if (i->mark == e->label && fg_op_is(i->op, FG_T_ANCHOR) && i->op != FG_OP_rope &&
            i->op != FG_OP_append)
            n = 256;
    return n;
}

bool
fg_gen_loops(fg_em *e, fg_inst *anchor)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    const fg_type *t = fg_rt(e->m, anchor ? anchor->in[1] : fg_em_result(e, 0));
    space s = make_space(e, t, anchor);
    fg_expr one = fg_ec(x, 1), inner = s.n ? s.size[s.n - 1] : one;
    row w = {.s = &s, .rank = t->rank};
    e->lanes = lanes_for(e, inner);

    /* A chunk is a run of blocks; a block is a row, or a piece of a long one. */
    fg_expr block = fg_ec(x, BLOCK);
    bool whole_rows = fg_e_le(x, inner, block);
    fg_expr per_row =
        whole_rows ? one : fg_ediv(x, fg_eadd(x, inner, fg_ec(x, BLOCK - 1)), block);
    fg_expr length = fg_emax(x, one, fg_emin(x, inner, block));
    fg_expr per = fg_emax(x, one, fg_ediv(x, fg_ec(x, chunk_elements(e)), length));
    fg_expr dim[FG_MAXRANK];
    int n = 0;
    for (; n + 1 < s.n; n++)
        dim[n] = s.size[n];
    dim[n++] = per_row;
    ll_loop l;
    fg_em_items(e, &l, n, dim, packed_result(e) ? FG_E_BAD : per);
    fg_v at = l.i, lo = ll_i(g, 0), hi = fg_em_expr(e, inner);
    if (!whole_rows) {
        fg_v pieces = fg_em_expr(e, per_row);
        lo = ll_mul(g, ll_urem(g, at, pieces), ll_i(g, BLOCK));
        at = ll_udiv(g, at, pieces);
        hi = ll_min(g, hi, ll_add(g, lo, ll_i(g, BLOCK)));
    }
    for (int a = 0; a < FG_MAXRANK; a++)
        w.ix[a] = fg_ixc(e, 0);
    if (s.n > 1) {
        fg_index outer[FG_MAXRANK];
        fg_ix_unlinear(e, s.n - 1, s.size, fg_ix(e, at), outer);
        for (int k = 0; k + 1 < s.n; k++)
            w.ix[s.axis[k]] = outer[k];
    }
    fg_em_run(e, lo, hi, fg_e_divides(x, e->lanes, inner), put_run, &w);
    ll_next(g, &l, NULL);
    return true;
}
