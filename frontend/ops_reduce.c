/* ops_reduce.c - ONNX reductions, running sums, arg and top-k, softmax and its kin.
 *
 *     ReduceL2 x      ->  sqrt(reduce_sum(x x))
 *     LogSoftmax x    ->  (x - max) - log(reduce_sum(exp(x - max)))
 *
 * Axes computed from data: for every axis in turn, the reduced and the whole lie side
 * by side and the axis's flag picks one of them:
 *
 *     x = slice(concat(reduce(x, a), x), 1 - flag, flag ? 1 : dim)   along a
 *
 * Right for every reduction that may be done one axis at a time, as all of these may.
 */
#include "frontend/ops.h"

/* ---- reductions ------------------------------------------------------------------ */

typedef struct reduction {
    const char *onnx;
    fg_op op;
    bool abs, square, exp; /* before */
    bool log, sqrt;        /* after */
    int axes_operand;      /* first opset with axes as an operand */
} reduction;

static const reduction reductions[] = {
    {"ReduceL1", FG_OP_reduce_sum, .abs = true, .axes_operand = 18},
    {"ReduceL2", FG_OP_reduce_sum, .square = true, .sqrt = true, .axes_operand = 18},
    {"ReduceLogSum", FG_OP_reduce_sum, .log = true, .axes_operand = 18},
    {"ReduceLogSumExp", FG_OP_reduce_sum, .exp = true, .log = true, .axes_operand = 18},
    {"ReduceMax", FG_OP_reduce_max, .axes_operand = 18},
    {"ReduceMean", FG_OP_reduce_mean, .axes_operand = 18},
    {"ReduceMin", FG_OP_reduce_min, .axes_operand = 18},
    {"ReduceProd", FG_OP_reduce_prod, .axes_operand = 18},
    {"ReduceSum", FG_OP_reduce_sum, .axes_operand = 13},
    {"ReduceSumSquare", FG_OP_reduce_sum, .square = true, .axes_operand = 18},
};

/* Reduced, with axes of size 1 kept. */
static fg_reg
reduce_keep(fg_node *n, fg_op op, fg_reg x, const fg_axisset *s)
{
    fg_exprs *t = n->ex;

    if (s->known)
        return s->count ? fg_emit_reduce(n->b, op, x, s->count, s->axis, true) : x;
    for (int64_t a = 0; x && a < s->rank; a++) {
        fg_expr d = fg_dim(n, x, (int)a), size = fg_eselect(t, s->flag[a], fg_c(n, 1), d);
        fg_reg r = fg_emit_reduce(n->b, op, x, 1, &a, true);
        x = fg_emit_concat(n->b, 2, (fg_reg[]){r, x}, (int)a);
        x = fg_emit_slice_axis(n->b, x, (int)a, fg_esub(t, fg_c(n, 1), s->flag[a]), size);
    }
    return x;
}

static fg_reg
reduce_finish(fg_node *n, fg_reg y, const fg_axisset *s, bool keep)
{
    fg_expr dim[FG_MAXRANK];

    if (!y || keep)
        return y;
    const fg_type t = *fg_rt(n->m, y);
    if (!fg_axisset_drop(n, s, t.dim, dim))
        return 0;
    return fg_emit_reshape(n->b, y, s->rank - s->count, dim);
}

/* y, kept by reduce_keep, at the shape of x again: an axis is 1 or whole. */
static fg_reg
spread(fg_node *n, fg_reg y, fg_reg x, const fg_axisset *s)
{
    for (int a = 0; y && !s->known && a < s->rank; a++) {
        fg_expr last = fg_esub(n->ex, fg_dim(n, y, a), fg_c(n, 1));
        fg_reg at = fg_emit_iota(n->b, fg_dim(n, x, a), fg_c(n, 0), 1, FG_i64);
        y = fg_emit_gather(n->b, y, E2(min, at, fg_sym_scalar(n, last, FG_i64)), a);
    }
    return y;
}

/* log(sum(exp(x - max))) + max, with max taken as 0 where it is infinite: inf - inf is
 * NaN. */
static fg_reg
log_sum_exp(fg_node *n, fg_reg x, const fg_axisset *s)
{
    fg_reg max = reduce_keep(n, FG_OP_reduce_max, x, s);

    if (!max)
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_isinf, 1, &max);
    if (!fg_inst_finish(n->b, i, NULL, 0))
        return 0;
    max = E3(where, i->out[0], fg_num(n, max, 0), max);
    fg_reg sum =
        reduce_keep(n, FG_OP_reduce_sum, E1(exp, E2(sub, x, spread(n, max, x, s))), s);
    return E2(add, E1(log, sum), max);
}

static fg_reg
reduce(fg_node *n, const reduction *r, fg_reg x, const fg_axisset *s, bool keep)
{
    if (r->exp)
        return reduce_finish(n, log_sum_exp(n, x, s), s, keep);
    if (r->abs)
        x = E1(abs, x);
    if (r->square)
        x = E2(mul, x, x);
    if (s->known && s->count)
        x = fg_emit_reduce(n->b, r->op, x, s->count, s->axis, keep);
    else
        x = reduce_finish(n, reduce_keep(n, r->op, x, s), s, keep);
    if (r->log)
        x = E1(log, x);
    if (r->sqrt)
        x = E1(sqrt, x);
    return x;
}

bool
fg_onnx_reduce(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const reduction *r = reductions;
    fg_axisset s;

    while (strcmp(r->onnx, n->op))
        r++;
    if (!x ||
        !fg_axisset_read(n, n->opset >= r->axes_operand ? 1 : n->nin, fg_rank(n, x), &s))
        return false;
    if (s.count == 0 && !fg_attr_int(n, "noop_with_empty_axes", 0)) {
        int64_t all[FG_MAXRANK];
        for (int a = 0; a < s.rank; a++)
            all[a] = a;
        fg_axisset_make(n, &s, s.rank, s.rank, all);
    }
    bool wide = r->exp || r->square || r->log;
    fg_reg y = wide ? fg_widen(n, x) : x;
    if ((r->exp || r->log || r->sqrt) && !fg_is_float(fg_elem(n, x)))
        y = fg_emit_cast(n->b, x, FG_f64);
    y = reduce(n, r, y, &s, fg_attr_int(n, "keepdims", 1) != 0);
    return fg_yield(n, fg_narrow(n, y, x));
}

bool
fg_onnx_arg(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    bool max = !strcmp(n->op, "ArgMax");
    int axis;

    if (!x || !fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, x), &axis))
        return false;
    fg_inst *i = fg_inst_begin(n->b, max ? FG_OP_argmax : FG_OP_argmin, 1, &x);
    bool keep = fg_attr_int(n, "keepdims", 1) != 0,
         last = fg_attr_int(n, "select_last_index", 0) != 0;
    if (max) {
        FG_SET(i, argmax, axis).i = axis;
        FG_SET(i, argmax, keep).i = keep;
        FG_SET(i, argmax, last).i = last;
    } else {
        FG_SET(i, argmin, axis).i = axis;
        FG_SET(i, argmin, keep).i = keep;
        FG_SET(i, argmin, last).i = last;
    }
    return fg_inst_finish(n->b, i, NULL, 0) && fg_yield(n, i->out[0]);
}

/* ---- running sums ---------------------------------------------------------------- */

static fg_reg
cumsum(fg_node *n, fg_reg x, int axis)
{
    fg_inst *i = fg_inst_begin(n->b, FG_OP_cumsum, 1, &x);

    FG_SET(i, cumsum, axis).i = axis;
    FG_SET(i, cumsum, exclusive).i = fg_attr_int(n, "exclusive", 0) != 0;
    FG_SET(i, cumsum, reverse).i = fg_attr_int(n, "reverse", 0) != 0;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* f along the axis that operand k names; when that is computed, along every axis, of
 * which one is chosen. */
bool
fg_along_axis(fg_node *n, int k, fg_reg (*f)(fg_node *n, fg_reg x, int axis))
{
    fg_reg x = fg_need(n, 0), y = 0;
    const fg_expr *e;
    int64_t at;
    int count, axis, rank = x ? fg_rank(n, x) : 0;

    if (!x || !fg_in_clamped(n, k, -rank, rank - 1, &e, &count))
        return false;
    if (count != 1)
        return fg_node_error(n, "axis has %d elements", count);
    if (fg_e_const(n->ex, e[0], &at))
        return fg_axis(n, at, rank, &axis) && fg_yield(n, f(n, x, axis));
    fg_expr which = fg_emod(n->ex, e[0], fg_c(n, rank));
    for (int a = 0; a < rank; a++) {
        fg_reg z = f(n, x, a);
        fg_reg here = fg_sym_scalar(n, fg_eeq(n->ex, which, fg_c(n, a)), FG_bool);
        y = y ? E3(where, here, z, y) : z;
    }
    return fg_yield(n, y);
}

bool
fg_onnx_cumsum(fg_node *n)
{
    return fg_along_axis(n, 1, cumsum);
}

/* ---- top-k ----------------------------------------------------------------------- */

bool
fg_onnx_topk(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const fg_expr *k = NULL;
    fg_expr attr;
    int axis, count = 1;

    if (!x || !fg_axis(n, fg_attr_int(n, "axis", -1), fg_rank(n, x), &axis))
        return false;
    if (n->opset < 10) {
        attr = fg_c(n, fg_attr_int(n, "k", -1));
        k = &attr;
    } else if (!fg_in_clamped(n, 1, 0, INT64_MAX, &k, &count)) {
        return false;
    }
    int64_t kv, dv;
    if (count != 1 || (fg_e_const(n->ex, *k, &kv) && kv < 0))
        return fg_node_error(n, "k must be one number, not negative");
    if (fg_e_const(n->ex, *k, &kv) && fg_e_const(n->ex, fg_dim(n, x, axis), &dv) &&
        kv > dv)
        return fg_node_error(n, "k = %lld is more than the %lld elements of axis %d",
                             (long long)kv, (long long)dv, axis);
    fg_expr d = fg_dim(n, x, axis);
    if (!fg_e_le(n->ex, *k, d) && !fg_require(n->b, fg_emax(n->ex, *k, d), d))
        return fg_node_error(n, "k is more than the elements of axis %d", axis);
    fg_inst *i = fg_inst_begin(n->b, FG_OP_topk, 1, &x);
    FG_SET(i, topk, axis).i = axis;
    FG_SET(i, topk, k).e = *k;
    FG_SET(i, topk, largest).i = fg_attr_int(n, "largest", 1) != 0;
    return fg_inst_finish(n->b, i, NULL, 0) && fg_yield(n, i->out[0]) &&
           fg_yield_at(n, 1, i->out[1]);
}

/* ---- softmax and its kin --------------------------------------------------------- */

static fg_reg
softmax_along(fg_node *n, fg_reg x, int axis)
{
    return fg_emit_softmax(n->b, x, axis);
}

static fg_reg
log_softmax_along(fg_node *n, fg_reg x, int axis)
{
    int64_t a = axis;
    fg_reg w = fg_widen(n, x);

    w = E2(sub, w, fg_emit_reduce(n->b, FG_OP_reduce_max, w, 1, &a, true));
    fg_reg sum = fg_emit_reduce(n->b, FG_OP_reduce_sum, E1(exp, w), 1, &a, true);
    return fg_narrow(n, E2(sub, w, E1(log, sum)), x);
}

static fg_reg
hardmax_along(fg_node *n, fg_reg x, int axis)
{
    if (!x)
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_argmax, 1, &x);
    FG_SET(i, argmax, axis).i = axis;
    FG_SET(i, argmax, keep).i = 1;
    if (!fg_inst_finish(n->b, i, NULL, 0))
        return 0;
    fg_reg at = fg_iota_along(n, fg_dim(n, x, axis), axis, fg_rank(n, x), FG_i64);
    return fg_emit_cast(n->b, E2(eq, at, i->out[0]), fg_elem(n, x));
}

static const struct {
    const char *onnx;
    fg_reg (*along)(fg_node *n, fg_reg x, int axis);
} softmaxes[] = {
    {"Softmax", softmax_along},
    {"LogSoftmax", log_softmax_along},
    {"Hardmax", hardmax_along},
};

bool
fg_onnx_softmax(fg_node *n)
{
    fg_reg x = fg_need(n, 0), y;
    int axis, k = 0;

    while (strcmp(softmaxes[k].onnx, n->op))
        k++;
    if (!x || !fg_axis(n, fg_attr_int(n, "axis", n->opset >= 13 ? -1 : 1), fg_rank(n, x),
                       &axis))
        return false;
    /* Before opset 13 all axes from `axis` on were one. */
    if (n->opset >= 13 || axis == fg_rank(n, x) - 1)
        return fg_yield(n, softmaxes[k].along(n, x, axis));
    y = softmaxes[k].along(n, fg_flat2(n, x, axis), 1);
    return fg_yield(n, fg_like_shape(n, y, x));
}

/* x / norm of x along one axis; 0 where the norm is 0. */
bool
fg_onnx_lp_normalization(fg_node *n)
{
    fg_reg x = fg_need(n, 0), w, norm;
    int64_t p = fg_attr_int(n, "p", 2), a;
    int axis;

    if (!x || !fg_axis(n, fg_attr_int(n, "axis", -1), fg_rank(n, x), &axis))
        return false;
    if (p != 1 && p != 2)
        return fg_node_error(n, "p = %lld is neither 1 nor 2", (long long)p);
    a = axis;
    w = fg_widen(n, x);
    norm = fg_emit_reduce(n->b, FG_OP_reduce_sum, p == 1 ? E1(abs, w) : E2(mul, w, w), 1,
                          &a, true);
    if (p == 2)
        norm = E1(sqrt, norm);
    fg_reg zero = fg_num(n, w, 0);
    w = E3(where, E2(eq, norm, zero), zero, E2(div, w, norm));
    return fg_yield(n, fg_narrow(n, w, x));
}

/* (x - mean) / (std + 1e-9) over the given axes. */
bool
fg_onnx_mean_variance(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    static const int64_t usual[] = {0, 2, 3};
    int64_t axis[FG_MAXRANK];
    int count;

    if (!x || !fg_axes(n, n->nin, fg_rank(n, x), axis, &count))
        return false;
    if (count < 0) {
        if (fg_rank(n, x) < 4)
            return fg_node_error(n, "%s has no axes 0, 2 and 3",
                                 fg_type_text(n->m, fg_rt(n->m, x)));
        memcpy(axis, usual, sizeof usual);
        count = 3;
    }
    fg_reg w = fg_widen(n, x);
    fg_reg mean = fg_emit_reduce(n->b, FG_OP_reduce_mean, w, count, axis, true);
    fg_reg square =
        fg_emit_reduce(n->b, FG_OP_reduce_mean, E2(mul, w, w), count, axis, true);
    fg_reg std = E1(sqrt, E2(sub, square, E2(mul, mean, mean)));
    w = E2(div, E2(sub, w, mean), E2(add, std, fg_num(n, w, 1e-9)));
    return fg_yield(n, fg_narrow(n, w, x));
}
