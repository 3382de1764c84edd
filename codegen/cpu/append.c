/* append.c - rows written where an operand says, which is known while running.
 *
 *     %1 = append %0, %y, %rows {axis=2}     for each batch and head:
 *       %0: f32[B,H,C,64]  %y: f32[B,H,S,64]   for s < S: if 0 <= rows[b,s] < C,
 *       %rows: i64[B,S]                          64 elements of y to row rows[b,s]
 *
 * Axes in front of the rows are the items that chunks are made of, so of two elements for
 * one row the later one wins whatever the number of threads. In a state nothing else is
 * touched; elsewhere the result begins as a copy, made by the chunk that then writes into it.
 */
#include "codegen/cpu/pull.h"

typedef struct writer {
    fg_inst *i;
    int axis, rank;
    fg_index from[FG_MAXRANK], to[FG_MAXRANK]; /* in y, in the result */
    fg_v base;                                 /* of what a chunk copies */
} writer;

bool
fg_rows_append(fg_module *m, const fg_inst *i)
{
    (void)m;
    return i->op == FG_OP_append && i->nin > 2 && i->in[2];
}

static void
copy_run(fg_em *e, void *user, fg_v i)
{
    writer *w = user;
    fg_reg x = w->i->in[0];
    fg_dtype d = fg_rt(e->m, x)->dtype;
    fg_index at = fg_ix_run(e, ll_add(e->g, w->base, i), 1);
    fg_v v = fg_em_load(e, d, fg_em_buf(e, fg_em_param(e, x)), at);
    fg_em_store_to(e, d, fg_em_result_buf(e, 0), at, v);
}

/* Elements under the axes from `axis` on. */
static fg_expr
elements_from(fg_exprs *x, const fg_type *t, int axis)
{
    fg_expr n = fg_ec(x, 1);
    for (int a = axis; a < t->rank; a++)
        n = fg_emul(x, n, t->dim[a]);
    return n;
}

static void
write_run(fg_em *e, void *user, fg_v i)
{
    writer *w = user;
    if (w->axis < w->rank - 1)
        w->from[w->rank - 1] = w->to[w->rank - 1] = fg_ix_run(e, i, e->lanes);
    fg_em_store(e, 0, w->to, fg_pull(e, w->i->in[1], w->from));
}

/* Element s of y along the axis; what lies between the rows and the innermost axis too. */
static void
write_row(fg_em *e, writer *w)
{
    fg_ll *g = e->g;
    const fg_type *t = fg_rt(e->m, w->i->in[1]);
    fg_reg rows = w->i->in[2];
    fg_index at[2] = {w->from[0], w->from[w->axis]};
    bool each = fg_rt(e->m, rows)->rank == 2;
    fg_v row = fg_pull(e, rows, each ? at : at + 1);
    fg_v n = fg_em_dim(e, w->i->out[0], w->axis);
    ll_branch inside;
    w->to[w->axis] = fg_ix(e, row);
    ll_if(g, &inside, ll_ucmp(g, LL_LT, row, n));
    fg_expr inner = w->axis < w->rank - 1 ? t->dim[t->rank - 1] : fg_ec(e->m->ex, 1);
    fg_em_run(e, ll_i(g, 0), fg_em_expr(e, inner),
              fg_e_divides(e->m->ex, e->lanes, inner), write_run, w);
    ll_end(g, &inside, NULL, NULL);
}

static void
write_rows(fg_em *e, writer *w)
{
    fg_ll *g = e->g;
    const fg_type *t = fg_rt(e->m, w->i->in[1]);
    int n = w->axis < w->rank - 1 ? w->rank - 1 - w->axis : 1;
    fg_scopemark s = fg_scope(e);
    ll_loop l;
    ll_for(g, &l, ll_i(g, 0), fg_em_count(e, n, t->dim + w->axis), ll_i(g, 1), 0, NULL);
    fg_ix_unlinear(e, n, t->dim + w->axis, fg_ix(e, l.i), w->from + w->axis);
    memcpy(w->to, w->from, sizeof w->to);
    write_row(e, w);
    ll_next(g, &l, NULL);
    fg_unscope(e, s);
}

bool
fg_gen_append(fg_em *e, fg_inst *anchor)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    const fg_type *t = fg_rt(e->m, anchor->out[0]), *y = fg_rt(e->m, anchor->in[1]);
    writer w = {
        .i = anchor, .axis = (int)FG_GET(anchor, append, axis).i, .rank = t->rank};
    bool in_place = fg_appends_in_place(e->m, anchor);
    bool packed = fg_dtypes[t->dtype].bits < 8;
    fg_expr one = fg_ec(x, 1), whole = elements_from(x, t, w.axis);
    fg_expr each = in_place ? elements_from(x, y, w.axis) : whole;
    fg_expr per = fg_emax(x, one, fg_ediv(x, fg_ec(x, 16384), fg_emax(x, one, each)));
    ll_loop l;

    for (int a = 0; a < FG_MAXRANK; a++)
        w.from[a] = fg_ixc(e, 0);
    e->lanes = packed || w.axis == w.rank - 1 ? 1 : g->W;
    fg_em_items(e, &l, w.axis, t->dim, packed ? FG_E_BAD : per);
    fg_ix_unlinear(e, w.axis, t->dim, fg_ix(e, l.i), w.from);
    if (!in_place) {
        fg_v n = fg_em_count(e, w.rank - w.axis, t->dim + w.axis);
        int lanes = e->lanes;
        e->lanes = packed ? 1 : g->W;
        w.base = ll_mul(g, l.i, n);
        fg_em_run(e, ll_i(g, 0), n, fg_e_divides(x, e->lanes, whole), copy_run, &w);
        e->lanes = lanes;
    }
    write_rows(e, &w);
    ll_next(g, &l, NULL);
    return true;
}
