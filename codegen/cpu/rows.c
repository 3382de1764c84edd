/* rows.c - kernels around an operation that looks at whole rows: softmax, norms,
 * reductions.
 *
 *     kernel (%0: f32[B,S,768], %1: f32[768])        for each of B*S rows:
 *       %2 = gelu %0                                   sweep: sum gelu(x), keep gelu(x)
 *       %3 = layernorm %2, %1 {axis=2}                 sweep: sum (x - mean)^2
 *       %4 = add %3, %0                                sweep: store the sum
 *
 * A row is what the reduced axes span. Operands of the anchor are pulled in every sweep,
 * or kept in scratch memory by the first when they are dear. Results of the anchor's
 * operand's shape are stored by a last sweep that pulls them with the anchor's result
 * overridden; results of the reduced shape once per row.
 *
 * wide: the last axis is reduced, lanes run along the row and meet at the end.
 * tall: it is not; each lane is a row of its own.
 */
#include "codegen/cpu/pull.h"

#include <math.h>

#define MAXUNROLL 4

typedef struct rows {
    fg_em *e;
    fg_inst *anchor;
    const fg_type *t; /* of the anchor's operand */
    fg_dtype d;       /* accumulated and kept in */
    bool tall;
    int n; /* reduced axes; when wide the last one carries the lanes */
    int axis[FG_MAXRANK];
    fg_index ix[FG_MAXRANK]; /* the element a sweep stands at */
    fg_expr length;          /* of a row */
    fg_v kept;               /* scratch row, or NULL */
    bool keeping;            /* this sweep fills it */
    fg_v a, b;               /* the row's statistics, scalars (vectors when tall) */
} rows;

/* ---- axes --------------------------------------------------------------------------
 * ----------- */

static int
reduced_axes(fg_em *e, const fg_inst *i, int *axis)
{
    const fg_type *t = fg_rt(e->m, i->in[0]);
    int n = 0, first;
    switch (i->op) {
    case FG_OP_softmax:
        axis[n++] = (int)FG_GET(i, softmax, axis).i;
        return n;
    case FG_OP_argmax:
    case FG_OP_argmin:
        axis[n++] = (int)FG_GET(i, argmax, axis).i;
        return n;
    case FG_OP_layernorm:
    case FG_OP_rmsnorm:
        first = (int)(i->op == FG_OP_layernorm ? FG_GET(i, layernorm, axis).i
                                               : FG_GET(i, rmsnorm, axis).i);
        for (int a = first; a < t->rank; a++)
            axis[n++] = a;
        return n;
    default:
        for (int k = 0; k < FG_GET(i, reduce_sum, axes).n; k++)
            axis[n++] = (int)FG_GET(i, reduce_sum, axes).is[k];
        return n;
    }
}

/* The loops of loops.c do a reduction whose last axis stays. */
bool
fg_rows_takes(fg_module *m, const fg_inst *i)
{
    fg_em e = {.m = m};
    const fg_type *t = fg_rt(m, i->in[0]);
    int axis[FG_MAXRANK], n = reduced_axes(&e, i, axis), last = t->rank - 1;
    while (last >= 0 && fg_e_is(m->ex, t->dim[last], 1))
        last--;
    for (int k = 0; k < n; k++)
        if (axis[k] == last)
            return true;
    return false;
}

static bool
is_reduced(const rows *w, int a)
{
    for (int k = 0; k < w->n; k++)
        if (w->axis[k] == a)
            return true;
    return false;
}

/* Drops reduced axes of size 1 and says whether lanes run along the row. */
static void
settle_axes(rows *w)
{
    fg_exprs *x = w->e->m->ex;
    int n = 0, last = w->t->rank - 1;
    w->length = fg_ec(x, 1);
    for (int k = 0; k < w->n; k++)
        w->length = fg_emul(x, w->length, w->t->dim[w->axis[k]]);
    while (last > 0 && fg_e_is(x, w->t->dim[last], 1))
        last--;
    w->tall = w->n > 0 && last >= 0 && !is_reduced(w, last);
    for (int k = 0; k < w->n; k++)
        if (!fg_e_is(x, w->t->dim[w->axis[k]], 1))
            w->axis[n++] = w->axis[k];
    if (!n && w->n)
        n = 1;
    w->n = n;
}

/* Position within the row of an element of the operand's space. */
static fg_index
position(rows *w, const fg_index *ix)
{
    fg_expr dim[FG_MAXRANK];
    fg_index at[FG_MAXRANK];
    for (int k = 0; k < w->n; k++) {
        dim[k] = w->t->dim[w->axis[k]];
        at[k] = ix[w->axis[k]];
    }
    fg_index p = fg_ix_linear(w->e, w->n, dim, at);
    if (!w->tall)
        return p;
    p = fg_ix_mul(w->e, p, fg_ec(w->e->m->ex, w->e->lanes));
    p.step = w->e->lanes > 1;
    return p;
}

/* ---- the operand
 * ------------------------------------------------------------------------------- */

/* Instructions it takes to make r, dear ones counted as several. */
static int
price(fg_em *e, fg_reg r)
{
    fg_inst *i = fg_def(e->m, r);
    if (!r || fg_em_param(e, r) >= 0)
        return 0;
    int n = fg_op_is(i->op, FG_T_VIEW) || i->op == FG_OP_const                        ? 0
            : fg_op_is(i->op, FG_T_ELEM) && i->op < FG_OP_floor && i->op >= FG_OP_exp ? 8
                                                                                      : 1;
    for (int k = 0; k < i->nin && n < 100; k++)
        n += price(e, i->in[k]);
    return n;
}

static fg_v
kept_value(fg_em *e, void *user, fg_reg r, const fg_index *ix)
{
    rows *w = user;
    (void)r;
    return fg_em_load(e, w->d, w->kept, position(w, ix));
}

/* The operand at w->ix in the accumulating type. */
static fg_v
operand(rows *w)
{
    fg_em *e = w->e;
    fg_v v = fg_lanes(e, fg_pull(e, w->anchor->in[0], w->ix));
    v = fg_em_cast(e, v,
                   w->t->dtype == FG_f16 || w->t->dtype == FG_bf16 ? FG_f32 : w->t->dtype,
                   w->d);
    if (w->keeping)
        fg_em_store_to(e, w->d, w->kept, position(w, w->ix), v);
    return v;
}

/* Scratch for a row, filled by the next sweep, read by those after stop_keeping. */
static void
start_keeping(rows *w)
{
    fg_exprs *x = w->e->m->ex;
    int64_t each = fg_dtypes[w->d].bits / 8 * (w->tall ? w->e->lanes : 1);
    w->kept = fg_em_scratch(w->e, fg_emul(x, w->length, fg_ec(x, each)));
    w->keeping = true;
}

static void
stop_keeping(rows *w, fg_reg r)
{
    w->keeping = false;
    fg_em_override(w->e, r, kept_value, w);
}

/* ---- sweeps ------------------------------------------------------------------------
 * ---------------- */

/* acc[n] = step(acc, element at w->ix) */
typedef void stepfn(rows *w, fg_v *acc);
#define MAXACC 2

static void
masked_step(rows *w, stepfn *step, int nacc, fg_v *acc)
{
    fg_v old[MAXACC];
    memcpy(old, acc, sizeof *acc * (size_t)nacc);
    step(w, acc);
    for (int k = 0; k < nacc && w->e->mask; k++)
        acc[k] = ll_sel(w->e->g, w->e->mask, acc[k], old[k]);
}

/* The innermost axis: `unroll` vectors a turn, then single ones under a mask. */
static void
sweep_lanes(rows *w, stepfn *step, int unroll, int nacc, fg_v *acc)
{
    fg_em *e = w->e;
    fg_ll *g = e->g;
    int axis = w->axis[w->n - 1], lanes = e->lanes, stride = unroll * lanes;
    fg_expr size = w->t->dim[axis];
    fg_v n = fg_em_expr(e, size), full = ll_and(g, n, ll_i(g, -stride));
    bool whole = fg_e_divides(e->m->ex, stride, size);
    fg_scopemark s = fg_scope(e);
    ll_loop l;
    if (whole || unroll > 1 || !g->t->masks) {
        ll_for(g, &l, ll_i(g, 0), whole ? n : full, ll_i(g, stride), unroll * nacc, acc);
        memcpy(acc, l.phi, sizeof *acc * (size_t)(unroll * nacc));
        for (int u = 0; u < unroll; u++) {
            w->ix[axis] = fg_ix_run(e, ll_add(g, l.i, ll_i(g, u * lanes)), lanes);
            step(w, acc + u * nacc);
        }
        ll_next(g, &l, acc);
        memcpy(acc, l.phi, sizeof *acc * (size_t)(unroll * nacc));
        fg_unscope(e, s);
    } else {
        full = ll_i(g, 0);
    }
    if (whole)
        return;
    ll_for(g, &l, full, n, ll_i(g, lanes), nacc, acc);
    memcpy(acc, l.phi, sizeof *acc * (size_t)nacc);
    w->ix[axis] = fg_ix_run(e, l.i, lanes);
    if (!fg_e_divides(e->m->ex, lanes, size))
        e->mask = ll_first(g, ll_sub(g, n, l.i), lanes);
    masked_step(w, step, nacc, acc);
    e->mask = NULL;
    ll_next(g, &l, acc);
    memcpy(acc, l.phi, sizeof *acc * (size_t)nacc);
    fg_unscope(e, s);
}

/* All elements of the row. acc: start values in, one value per lane and accumulator
 * out, accumulator sets one after another. */
static void
sweep(rows *w, stepfn *step, int unroll, int nacc, fg_v *acc)
{
    fg_em *e = w->e;
    fg_ll *g = e->g;
    ll_loop l[FG_MAXRANK];
    int inner = w->tall ? w->n : w->n - 1;
    fg_scopemark s = fg_scope(e);
    for (int k = 0; k < inner; k++) {
        fg_v n = fg_em_expr(e, w->t->dim[w->axis[k]]);
        ll_for(g, &l[k], ll_i(g, 0), n, ll_i(g, 1), unroll * nacc, acc);
        memcpy(acc, l[k].phi, sizeof *acc * (size_t)(unroll * nacc));
        w->ix[w->axis[k]] = fg_ix(e, l[k].i);
    }
    if (w->tall || !w->n)
        step(w, acc);
    else
        sweep_lanes(w, step, unroll, nacc, acc);
    for (int k = inner - 1; k >= 0; k--) {
        ll_next(g, &l[k], acc);
        memcpy(acc, l[k].phi, sizeof *acc * (size_t)(unroll * nacc));
    }
    fg_unscope(e, s);
}

/* One accumulator, folded by op over the whole row; several sets hide the latency of
 * cheap steps. */
static fg_v
fold(rows *w, stepfn *step, fg_v init, fg_v (*op)(rows *, fg_v, fg_v), bool cheap)
{
    fg_ll *g = w->e->g;
    int unroll = cheap && !w->tall && w->n ? MAXUNROLL : 1;
    fg_v acc[MAXUNROLL];
    for (int u = 0; u < unroll; u++)
        acc[u] = ll_splat(g, init, w->n ? w->e->lanes : 1);
    sweep(w, step, unroll, 1, acc);
    for (int u = 1; u < unroll; u++)
        acc[0] = op(w, acc[0], acc[u]);
    while (!w->tall && ll_lanes(acc[0]) > 1)
        acc[0] = op(w, ll_half(g, acc[0], 0), ll_half(g, acc[0], 1));
    return acc[0];
}

/* A statistic as wide as the code being emitted. */
static fg_v
spread(rows *w, fg_v stat)
{
    return ll_splat(w->e->g, stat, w->e->lanes);
}

/* ---- the operations
 * --------------------------------------------------------------------------------- */

static fg_v
op_add(rows *w, fg_v a, fg_v b)
{
    return ll_add(w->e->g, a, b);
}

static fg_v
op_max(rows *w, fg_v a, fg_v b)
{
    return ll_max(w->e->g, a, b);
}

static void
step_sum(rows *w, fg_v *acc)
{
    acc[0] = ll_add(w->e->g, acc[0], operand(w));
}

static void
step_max(rows *w, fg_v *acc)
{
    acc[0] = ll_max(w->e->g, acc[0], operand(w));
}

static void
step_square(rows *w, fg_v *acc)
{
    fg_v x = operand(w);
    if (w->a)
        x = ll_sub(w->e->g, x, spread(w, w->a));
    acc[0] = ll_fma(w->e->g, x, x, acc[0]);
}

static void
step_exp(rows *w, fg_v *acc)
{
    fg_em *e = w->e;
    fg_v x =
        ll_sub(e->g, fg_lanes(e, fg_pull(e, w->anchor->in[0], w->ix)), spread(w, w->a));
    x = w->d == FG_f64 ? ll_libm(e->g, "exp", 1, &x) : vm_exp_neg(e->g, x);
    fg_em_store_to(e, w->d, w->kept, position(w, w->ix), x);
    acc[0] = ll_add(e->g, acc[0], x);
}

static fg_v
count(rows *w)
{
    return fg_em_cast(w->e, fg_em_expr(w->e, w->length), FG_i64, w->d);
}

static fg_v
softmax_value(fg_em *e, void *user, fg_reg r, const fg_index *ix)
{
    rows *w = user;
    fg_v x = fg_em_load(e, w->d, w->kept, position(w, ix));
    return fg_em_round(e, fg_rt(e->m, r)->dtype,
                       ll_mul(e->g, fg_lanes(e, x), spread(w, w->b)));
}

static void
make_softmax(rows *w)
{
    fg_em *e = w->e;
    fg_t t = fg_em_type(e, w->d);
    bool dear = price(e, w->anchor->in[0]) > 4;
    start_keeping(w);
    w->keeping = dear;
    w->a = fold(w, step_max, ll_cf(t, -INFINITY), op_max, !dear);
    if (dear)
        stop_keeping(w, w->anchor->in[0]);
    w->b = fold(w, step_exp, ll_zero(t), op_add, false);
    w->b = ll_div(e->g, ll_c(LLVMTypeOf(w->b), 1), w->b);
    if (dear)
        fg_em_override(e, w->anchor->in[0], NULL, NULL);
    fg_em_override(e, w->anchor->out[0], softmax_value, w);
}

/* (x - mean) r scale + bias, or x r scale */
static fg_v
norm_value(fg_em *e, void *user, fg_reg r, const fg_index *ix)
{
    rows *w = user;
    fg_ll *g = e->g;
    fg_inst *i = w->anchor;
    fg_index at[FG_MAXRANK];
    fg_v x = fg_lanes(e, fg_pull(e, i->in[0], ix));
    if (w->a)
        x = ll_sub(g, x, spread(w, w->a));
    x = ll_mul(g, x, spread(w, w->b));
    for (int k = 1; k < i->nin; k++) {
        if (!i->in[k])
            continue;
        const fg_type *t = fg_rt(e->m, i->in[k]);
        fg_ix_broadcast(e, w->t, ix, t, at);
        fg_v v = fg_lanes(e, fg_pull(e, i->in[k], at));
        v = fg_em_cast(e, v, t->dtype == FG_f64 ? FG_f64 : FG_f32, w->d);
        x = k == 1 ? ll_mul(g, x, v) : ll_add(g, x, v);
    }
    return fg_em_round(e, fg_rt(e->m, r)->dtype, x);
}

static void
make_norm(rows *w)
{
    fg_em *e = w->e;
    fg_ll *g = e->g;
    fg_t t = fg_em_type(e, w->d);
    bool center = w->anchor->op == FG_OP_layernorm;
    bool dear = price(e, w->anchor->in[0]) > 4;
    double eps =
        center ? FG_GET(w->anchor, layernorm, eps).f : FG_GET(w->anchor, rmsnorm, eps).f;
    if (dear)
        start_keeping(w);
    if (center) {
        w->a = fold(w, step_sum, ll_zero(t), op_add, true);
        w->a = ll_div(g, w->a, ll_splat(g, count(w), ll_lanes(w->a)));
        if (dear)
            stop_keeping(w, w->anchor->in[0]);
    }
    w->b = fold(w, step_square, ll_zero(t), op_add, true);
    if (dear && !center)
        stop_keeping(w, w->anchor->in[0]);
    fg_t wide = LLVMTypeOf(w->b);
    w->b = ll_div(g, w->b, ll_splat(g, count(w), ll_lanes(w->b)));
    w->b = ll_div(g, ll_c(wide, 1), ll_sqrt(g, ll_add(g, w->b, ll_cf(wide, eps))));
    fg_em_override(e, w->anchor->out[0], norm_value, w);
}

static fg_v
stat_value(fg_em *e, void *user, fg_reg r, const fg_index *ix)
{
    (void)e, (void)r, (void)ix;
    return ((rows *)user)->a;
}

static fg_v
op_reduce(rows *w, fg_v a, fg_v b)
{
    return fg_reduce_step(w->e, w->anchor->op, w->d, a, b);
}

static void
step_reduce(rows *w, fg_v *acc)
{
    acc[0] = op_reduce(w, acc[0], operand(w));
}

static void
make_reduce(rows *w)
{
    fg_em *e = w->e;
    fg_op op = w->anchor->op;
    bool cheap = price(e, w->anchor->in[0]) < 8;
    fg_v v = fold(w, step_reduce, fg_reduce_init(e, op, w->d), op_reduce, cheap);
    w->a = fg_reduce_finish(e, op, w->t->dtype, v, fg_em_expr(e, w->length));
    fg_em_override(e, w->anchor->out[0], stat_value, w);
}

static void
step_arg(rows *w, fg_v *acc)
{
    fg_em *e = w->e;
    fg_v x = operand(w), i = fg_lanes(e, fg_ix_value(e, w->ix[w->axis[0]]));
    fg_v better = fg_arg_better(e, w->anchor, w->t->dtype, x, acc[0]);
    acc[0] = ll_sel(e->g, better, x, acc[0]);
    acc[1] = ll_sel(e->g, better, i, acc[1]);
}

/* Lanes hold the best of their own places; ties between lanes go to the lower place,
 * or to the higher when the last of equals counts. */
static void
make_arg(rows *w)
{
    fg_em *e = w->e;
    fg_ll *g = e->g;
    bool last = FG_GET(w->anchor, argmax, last).i;
    w->ix[w->axis[0]] = fg_ixc(e, 0);
    fg_v first = fg_pull_nonempty(e, w->anchor->in[0], w->length, w->ix);
    fg_v acc[2] = {fg_lanes(e, first), ll_zero(ll_vec(g->i64, e->lanes))};
    sweep(w, step_arg, 1, 2, acc);
    fg_v best = ll_extract(g, acc[0], 0), at = ll_extract(g, acc[1], 0);
    for (int l = 1; l < e->lanes; l++) {
        fg_v x = ll_extract(g, acc[0], l), i = ll_extract(g, acc[1], l);
        fg_v win = fg_arg_better(e, w->anchor, w->t->dtype, x, best);
        fg_v lose = fg_arg_better(e, w->anchor, w->t->dtype, best, x);
        fg_v tie = last ? ll_and(g, win, lose) : ll_not(g, ll_or(g, win, lose));
        fg_v nearer = ll_cmp(g, last ? LL_GT : LL_LT, i, at);
        win = ll_sel(g, tie, nearer, win);
        best = ll_sel(g, win, x, best);
        at = ll_sel(g, win, i, at);
    }
    w->a = at;
    fg_em_override(e, w->anchor->out[0], stat_value, w);
}

/* ---- results -----------------------------------------------------------------------
 * ------------------- */

static bool
same_shape(const fg_type *a, const fg_type *b)
{
    bool same = a->rank == b->rank;
    for (int k = 0; same && k < a->rank; k++)
        same = a->dim[k] == b->dim[k];
    return same;
}

/* Results of the reduced shape: once, at the row's own index. */
static void
put_reduced(rows *w, int k)
{
    fg_em *e = w->e;
    const fg_type *t = fg_rt(e->m, fg_em_result(e, k));
    bool keep = t->rank == w->t->rank;
    int lanes = e->lanes;
    fg_index at[FG_MAXRANK];
    bool gone[FG_MAXRANK] = {false};
    int axis[FG_MAXRANK], n = reduced_axes(e, w->anchor, axis);
    fg_scopemark s = fg_scope(e);
    for (int j = 0; j < n; j++)
        gone[axis[j]] = true;
    for (int a = 0, o = 0; a < w->t->rank; a++) {
        if (gone[a] && !keep)
            continue;
        at[o++] = gone[a] ? fg_ixc(e, 0) : w->ix[a];
    }
    if (!w->tall)
        e->lanes = 1;
    fg_em_put(e, k, at);
    e->lanes = lanes;
    fg_unscope(e, s);
}

static void
put_step(rows *w, fg_v *acc)
{
    (void)acc;
    for (int k = 0; k < fg_em_nresult(w->e); k++)
        if (same_shape(w->t, fg_rt(w->e->m, fg_em_result(w->e, k))))
            fg_em_put(w->e, k, w->ix);
}

static void
put_results(rows *w)
{
    bool along = false;
    for (int k = 0; k < fg_em_nresult(w->e); k++) {
        if (same_shape(w->t, fg_rt(w->e->m, fg_em_result(w->e, k))))
            along = true;
        else
            put_reduced(w, k);
    }
    fg_v none[1] = {0}; /* memcpy of nothing still wants an address */
    if (along)
        sweep(w, put_step, 1, 0, none);
}

static void
make_row(rows *w)
{
    switch (w->anchor->op) {
    case FG_OP_softmax:
        make_softmax(w);
        break;
    case FG_OP_layernorm:
    case FG_OP_rmsnorm:
        make_norm(w);
        break;
    case FG_OP_argmax:
    case FG_OP_argmin:
        make_arg(w);
        break;
    default:
        make_reduce(w);
    }
    put_results(w);
}

static int
lanes_of_row(rows *w, int axis)
{
    int64_t n;
    int lanes = w->e->g->W;
    if (axis >= 0 && fg_e_const(w->e->m->ex, w->t->dim[axis], &n))
        while (lanes > 1 && lanes / 2 >= n)
            lanes /= 2;
    return lanes;
}

bool
fg_gen_rows(fg_em *e, fg_inst *anchor)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    rows w = {.e = e, .anchor = anchor, .t = fg_rt(e->m, anchor->in[0])};
    fg_expr dim[FG_MAXRANK];
    int outer[FG_MAXRANK], n = 0, lane_axis = w.t->rank - 1;
    fg_index ix[FG_MAXRANK];
    fg_dtype d = w.t->dtype;
    w.n = reduced_axes(e, anchor, w.axis);
    w.d = d == FG_f16 || d == FG_bf16 ? FG_f32 : fg_reduce_type(anchor->op, d);
    settle_axes(&w);
    while (lane_axis > 0 && fg_e_is(x, w.t->dim[lane_axis], 1))
        lane_axis--;
    e->lanes = w.n ? lanes_of_row(&w, w.tall ? lane_axis : w.axis[w.n - 1]) : 1;
    fg_expr lanes = fg_ec(x, e->lanes);
    for (int a = 0; a < w.t->rank; a++) {
        w.ix[a] = fg_ixc(e, 0);
        if (is_reduced(&w, a) || fg_e_is(x, w.t->dim[a], 1))
            continue;
        fg_expr size = w.t->dim[a];
        if (w.tall && a == lane_axis)
            size = fg_ediv(x, fg_eadd(x, size, fg_ec(x, e->lanes - 1)), lanes);
        outer[n] = a;
        dim[n++] = size;
    }
    fg_expr cost =
        fg_emax(x, fg_ec(x, 1), w.tall ? fg_emul(x, w.length, lanes) : w.length);
    fg_expr per = fg_emax(x, fg_ec(x, 1), fg_ediv(x, fg_ec(x, 8192), cost));
    ll_loop l;
    fg_em_items(e, &l, n, dim, per);
    fg_scopemark s = fg_scope(e);
    fg_ix_unlinear(e, n, dim, fg_ix(e, l.i), ix);
    for (int k = 0; k < n; k++)
        w.ix[outer[k]] = ix[k];
    if (w.tall) {
        fg_v base = ll_mul(g, w.ix[lane_axis].base, ll_i(g, e->lanes));
        w.ix[lane_axis] = fg_ix_run(e, base, e->lanes);
        if (!fg_e_divides(x, e->lanes, w.t->dim[lane_axis]))
            e->mask = ll_first(g, ll_sub(g, fg_em_expr(e, w.t->dim[lane_axis]), base),
                               e->lanes);
    }
    make_row(&w);
    e->mask = NULL;
    fg_unscope(e, s);
    ll_next(g, &l, NULL);
    return true;
}
