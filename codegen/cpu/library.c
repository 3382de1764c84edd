/* library.c - operations that walk their operand in order: scatter, nonzero, cumsum,
 * topk.
 *
 *     cumsum, topk     a chunk is some lines along the axis
 *     the rest         one chunk, since an update may hit what the one before it did
 */
#include "codegen/cpu/pull.h"

static fg_v
element(fg_em *e, fg_reg r, const fg_index *ix)
{
    return fg_pull(e, r, ix);
}

/* Address of the kernel's k-th result. */
static fg_v
result(fg_em *e, int k)
{
    return fg_em_result_buf(e, k);
}

/* Elements of t: a loop over the linear index, and where it stands. Ends with
 * close_elements. */
static void
open_elements(fg_em *e, const fg_type *t, ll_loop *l, int nacc, const fg_v *acc,
              fg_index *ix)
{
    fg_ll *g = e->g;
    ll_for(g, l, ll_i(g, 0), fg_em_count(e, t->rank, t->dim), ll_i(g, 1), nacc, acc);
    fg_ix_unlinear(e, t->rank, t->dim, fg_ix(e, l->i), ix);
}

/* A single chunk, which has work even when nothing is to be done. */
static void
one_chunk(fg_em *e, ll_loop *l)
{
    e->lanes = 1;
    fg_em_items(e, l, 0, NULL, fg_ec(e->m->ex, 1));
}

/* ---- scatter
 * ------------------------------------------------------------------------------------ */

static void
copy_run(fg_em *e, void *user, fg_v i)
{
    fg_inst *s = user;
    const fg_type *t = fg_rt(e->m, s->in[0]);
    fg_index at = fg_ix_run(e, i, e->lanes);
    fg_v v = fg_em_load(e, t->dtype, fg_em_buf(e, fg_em_param(e, s->in[0])), at);
    fg_em_store_to(e, t->dtype, result(e, 0), at, v);
}

/* The result starts as a copy of x. */
static void
copy_operand(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    const fg_type *t = fg_rt(e->m, i->in[0]);
    e->lanes = fg_dtypes[t->dtype].bits < 8 ? 1 : g->W;
    fg_expr n = fg_type_count(x, t);
    fg_em_run(e, ll_i(g, 0), fg_em_count(e, t->rank, t->dim),
              fg_e_divides(x, e->lanes, n), copy_run, i);
    e->lanes = 1;
}

static void
combine(fg_em *e, fg_inst *i, const char *how, fg_index at, fg_v update)
{
    fg_dtype d = fg_rt(e->m, i->out[0])->dtype;
    fg_v p = result(e, 0);
    if (strcmp(how, "none")) {
        fg_op op = !strcmp(how, "add")   ? FG_OP_reduce_sum
                   : !strcmp(how, "mul") ? FG_OP_reduce_prod
                   : !strcmp(how, "max") ? FG_OP_reduce_max
                                         : FG_OP_reduce_min;
        fg_v old = fg_em_load(e, d, p, at);
        update = fg_reduce_finish(e, op, d, fg_reduce_step(e, op, d, old, update), NULL);
    }
    fg_em_store_to(e, d, p, at, update);
}

static void
scatter_elements(fg_em *e, fg_inst *i)
{
    const fg_type *t = fg_rt(e->m, i->in[0]), *ti = fg_rt(e->m, i->in[1]);
    int axis = (int)FG_GET(i, scatter_elements, axis).i;
    fg_index ix[FG_MAXRANK], at[FG_MAXRANK];
    ll_loop l;
    fg_scopemark s = fg_scope(e);
    open_elements(e, ti, &l, 0, NULL, ix);
    memcpy(at, ix, sizeof at);
    at[axis] = fg_position(e, element(e, i->in[1], ix), ti->dtype, t->dim[axis]);
    combine(e, i, FG_GET(i, scatter_elements, how).s,
            fg_ix_linear(e, t->rank, t->dim, at), element(e, i->in[2], ix));
    ll_next(e->g, &l, NULL);
    fg_unscope(e, s);
}

static void
scatter_nd(fg_em *e, fg_inst *i)
{
    const fg_type *t = fg_rt(e->m, i->in[0]), *ti = fg_rt(e->m, i->in[1]),
                  *tu = fg_rt(e->m, i->in[2]);
    int q = ti->rank - 1;
    int64_t tuple = 0;
    fg_index ix[FG_MAXRANK], at[FG_MAXRANK], it[FG_MAXRANK];
    ll_loop l;
    fg_scopemark s = fg_scope(e);
    fg_e_const(e->m->ex, ti->dim[q], &tuple);
    open_elements(e, tu, &l, 0, NULL, ix);
    memcpy(it, ix, sizeof *it * (size_t)q);
    for (int a = 0; a < tuple; a++) {
        it[q] = fg_ixc(e, a);
        at[a] = fg_position(e, element(e, i->in[1], it), ti->dtype, t->dim[a]);
    }
    for (int a = (int)tuple; a < t->rank; a++)
        at[a] = ix[q + a - (int)tuple];
    combine(e, i, FG_GET(i, scatter_nd, how).s, fg_ix_linear(e, t->rank, t->dim, at),
            element(e, i->in[2], ix));
    ll_next(e->g, &l, NULL);
    fg_unscope(e, s);
}

/* Updates of an axis without elements have nowhere to go. */
static void
make_scatter(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    ll_loop l;
    ll_branch some;
    const fg_type *t = fg_rt(e->m, i->in[0]);
    one_chunk(e, &l);
    copy_operand(e, i);
    ll_if(g, &some, ll_cmp(g, LL_GT, fg_em_count(e, t->rank, t->dim), ll_i(g, 0)));
    if (i->op == FG_OP_scatter_elements)
        scatter_elements(e, i);
    else
        scatter_nd(e, i);
    ll_end(g, &some, NULL, NULL);
    ll_next(g, &l, NULL);
}

/* ---- nonzero -----------------------------------------------------------------------
 * --------------- */

static fg_v
is_nonzero(fg_em *e, fg_inst *i, const fg_index *ix)
{
    return fg_em_cast(e, element(e, i->in[0], ix), fg_rt(e->m, i->in[0])->dtype, FG_bool);
}

static void
make_nonzero_count(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    fg_index ix[FG_MAXRANK];
    fg_v n = ll_i(g, 0);
    ll_loop chunk, l;
    one_chunk(e, &chunk);
    fg_scopemark s = fg_scope(e);
    open_elements(e, fg_rt(e->m, i->in[0]), &l, 1, &n, ix);
    n = ll_add(g, l.phi[0], ll_zext(g, is_nonzero(e, i, ix), g->i64));
    ll_next(g, &l, &n);
    fg_unscope(e, s);
    fg_em_store_to(e, FG_i64, result(e, 0), fg_ixc(e, 0), l.phi[0]);
    ll_next(g, &chunk, NULL);
}

static void
make_nonzero(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    const fg_type *t = fg_rt(e->m, i->in[0]), *to = fg_rt(e->m, i->out[0]);
    fg_v room = fg_em_expr(e, to->dim[1]), n = ll_i(g, 0), next;
    fg_index ix[FG_MAXRANK];
    ll_loop chunk, l;
    ll_branch b;
    one_chunk(e, &chunk);
    fg_scopemark s = fg_scope(e);
    open_elements(e, t, &l, 1, &n, ix);
    fg_v found = ll_and(g, is_nonzero(e, i, ix), ll_cmp(g, LL_LT, l.phi[0], room));
    ll_if(g, &b, found);
    for (int a = 0; a < t->rank; a++) {
        fg_v at = ll_add(g, ll_mul(g, ll_i(g, a), room), l.phi[0]);
        fg_em_store_to(e, FG_i64, result(e, 0), fg_ix(e, at), ix[a].base);
    }
    next = ll_add(g, l.phi[0], ll_i(g, 1));
    ll_else(g, &b, 1, &next);
    ll_end(g, &b, &l.phi[0], &next);
    ll_next(g, &l, &next);
    fg_unscope(e, s);
    ll_next(g, &chunk, NULL);
}

/* ---- lines -------------------------------------------------------------------------
 * ----------------- */

/* The loop over lines along `axis`; ix is set except there. */
static void
open_lines(fg_em *e, const fg_type *t, int axis, ll_loop *l, fg_index *ix)
{
    fg_exprs *x = e->m->ex;
    fg_expr dim[FG_MAXRANK], one = fg_ec(x, 1);
    int n = 0, outer[FG_MAXRANK];
    fg_index at[FG_MAXRANK];
    e->lanes = 1;
    for (int a = 0; a < t->rank; a++)
        if (a != axis) {
            outer[n] = a;
            dim[n++] = t->dim[a];
        }
    fg_expr per =
        fg_emax(x, one, fg_ediv(x, fg_ec(x, 1024), fg_emax(x, one, t->dim[axis])));
    fg_em_items(e, l, n, dim, per);
    fg_ix_unlinear(e, n, dim, fg_ix(e, l->i), at);
    for (int k = 0; k < n; k++)
        ix[outer[k]] = at[k];
}

static void
make_cumsum(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    const fg_type *t = fg_rt(e->m, i->in[0]);
    int axis = (int)FG_GET(i, cumsum, axis).i;
    bool exclusive = FG_GET(i, cumsum, exclusive).i,
         reverse = FG_GET(i, cumsum, reverse).i;
    fg_index ix[FG_MAXRANK];
    fg_v n = fg_em_expr(e, t->dim[axis]), acc = ll_zero(fg_em_type(e, t->dtype));
    ll_loop line, l;
    open_lines(e, t, axis, &line, ix);
    fg_scopemark s = fg_scope(e);
    ll_for(g, &l, ll_i(g, 0), n, ll_i(g, 1), 1, &acc);
    fg_v at = reverse ? ll_sub(g, ll_sub(g, n, ll_i(g, 1)), l.i) : l.i;
    ix[axis] = fg_ix(e, at);
    acc = ll_add(g, l.phi[0], element(e, i->in[0], ix));
    fg_v out =
        fg_reduce_finish(e, FG_OP_reduce_sum, t->dtype, exclusive ? l.phi[0] : acc, NULL);
    fg_em_store(e, 0, ix, out);
    ll_next(g, &l, &acc);
    fg_unscope(e, s);
    ll_next(g, &line, NULL);
}

/* ---- topk --------------------------------------------------------------------------
 * -------------------- */

typedef struct topk {
    fg_em *e;
    fg_inst *i;
    fg_dtype d;
    bool largest;
    fg_v k, n;
    fg_v value, place; /* the best so far, in order */
    fg_index ix[FG_MAXRANK];
    int axis;
} topk;

/* x goes before y: it is better, or y's place is empty. NaN counts as the largest. */
static fg_v
goes_before(topk *s, fg_v x, fg_v y)
{
    fg_ll *g = s->e->g;
    ll_cond c = s->largest ? LL_GT : LL_LT;
    if (!fg_is_float(s->d))
        return fg_dtypes[s->d].cls == FG_CLASS_SINT ? ll_cmp(g, c, x, y)
                                                    : ll_ucmp(g, c, x, y);
    fg_v xn = ll_isnan(g, x), yn = ll_isnan(g, y);
    fg_v nan = s->largest ? ll_and(g, xn, ll_not(g, yn)) : ll_and(g, yn, ll_not(g, xn));
    return ll_or(g, ll_cmp(g, c, x, y), nan);
}

/* Moves the entries that x goes before one place back, from `have` down, and puts x
 * where it belongs. Places come in ascending order, so equals stay in order. */
static void
insert(topk *s, fg_v x, fg_v at, fg_v have)
{
    fg_em *e = s->e;
    fg_ll *g = e->g;
    fg_t t = fg_em_type(e, s->d);
    fg_v one = ll_i(g, 1);
    fg_bb from = ll_here(g), test = ll_block(g), look = ll_block(g), move = ll_block(g),
          done = ll_block(g);
    ll_go(g, test);
    fg_v p = LLVMBuildPhi(g->b, g->i64, "");
    LLVMAddIncoming(p, &have, &from, 1);
    ll_cbr(g, ll_cmp(g, LL_GT, p, ll_i(g, 0)), look, done);
    ll_stand(g, look);
    fg_v prev = ll_sub(g, p, one), y = ll_load(g, t, ll_at(g, s->value, t, prev));
    ll_cbr(g, goes_before(s, x, y), move, done);
    ll_stand(g, move);
    ll_store(g, y, ll_at(g, s->value, t, p));
    ll_store(g, ll_load(g, g->i64, ll_at(g, s->place, g->i64, prev)),
             ll_at(g, s->place, g->i64, p));
    LLVMAddIncoming(p, &prev, &move, 1);
    ll_br(g, test);
    ll_stand(g, done);
    ll_store(g, x, ll_at(g, s->value, t, p));
    ll_store(g, at, ll_at(g, s->place, g->i64, p));
}

/* Sees every element; the list has one entry more than k, which takes what falls off. */
static void
select_best(topk *s)
{
    fg_em *e = s->e;
    fg_ll *g = e->g;
    fg_t t = fg_em_type(e, s->d);
    ll_loop l;
    ll_branch b;
    fg_scopemark m = fg_scope(e);
    ll_for(g, &l, ll_i(g, 0), s->n, ll_i(g, 1), 0, NULL);
    s->ix[s->axis] = fg_ix(e, l.i);
    fg_v x = element(e, s->i->in[0], s->ix), have = ll_min(g, l.i, s->k);
    fg_v worst =
        ll_at(g, s->value, t, ll_max(g, ll_sub(g, have, ll_i(g, 1)), ll_i(g, 0)));
    fg_v room = ll_cmp(g, LL_LT, l.i, s->k);
    ll_if(g, &b, ll_or(g, room, goes_before(s, x, ll_load(g, t, worst))));
    insert(s, x, l.i, have);
    ll_end(g, &b, NULL, NULL);
    ll_next(g, &l, NULL);
    fg_unscope(e, m);
}

static void
make_topk(fg_em *e, fg_inst *i)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    const fg_type *t = fg_rt(e->m, i->in[0]);
    fg_expr k = FG_GET(i, topk, k).e, list = fg_eadd(x, k, fg_ec(x, 1));
    topk s = {.e = e,
              .i = i,
              .d = t->dtype,
              .axis = (int)FG_GET(i, topk, axis).i,
              .largest = FG_GET(i, topk, largest).i,
              .k = fg_em_expr(e, k)};
    fg_t te = fg_em_type(e, s.d);
    ll_loop line, l;
    s.n = fg_em_expr(e, t->dim[s.axis]);
    s.value = fg_em_scratch(e, fg_emul(x, list, fg_ec(x, 8)));
    s.place = fg_em_scratch(e, fg_emul(x, list, fg_ec(x, 8)));
    open_lines(e, t, s.axis, &line, s.ix);
    /* An entry to compare with before there is any. */
    ll_store(g, ll_zero(te), s.value);
    select_best(&s);
    ll_for(g, &l, ll_i(g, 0), s.k, ll_i(g, 1), 0, NULL);
    s.ix[s.axis] = fg_ix(e, l.i);
    for (int r = 0; r < fg_em_nresult(e); r++) {
        bool places = fg_em_result(e, r) == i->out[1];
        fg_em_store(e, r, s.ix,
                    places ? ll_load(g, g->i64, ll_at(g, s.place, g->i64, l.i))
                           : ll_load(g, te, ll_at(g, s.value, te, l.i)));
    }
    ll_next(g, &l, NULL);
    ll_next(g, &line, NULL);
}

/* ---- the table ---------------------------------------------------------------------
 * ---------------------- */

bool
fg_gen_library(fg_em *e, fg_inst *anchor)
{
    static void (*const make[FG_NOPS])(fg_em *, fg_inst *) = {
        [FG_OP_scatter_elements] = make_scatter,
        [FG_OP_scatter_nd] = make_scatter,
        [FG_OP_nonzero_count] = make_nonzero_count,
        [FG_OP_nonzero] = make_nonzero,
        [FG_OP_cumsum] = make_cumsum,
        [FG_OP_topk] = make_topk,
    };
    if (!make[anchor->op])
        return fg_error(e->m->cx, "%s: no code for this operation and element type",
                        fg_inst_where(e->m, anchor));
    make[anchor->op](e, anchor);
    return true;
}
