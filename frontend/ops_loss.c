/* ops_loss.c - ONNX losses over class scores.
 *
 *     NegativeLogLikelihoodLoss x, t, w  ->  -w[t] x[.., t, ..], summed or averaged
 *     SoftmaxCrossEntropyLoss x, t, w    ->  the same on log(softmax(x))
 *
 * Targets to ignore get weight 0 and read class 0, so that their index is never used.
 */
#include "frontend/ops.h"

typedef struct loss {
    fg_reg x, target, weight; /* [N,C,d..], i64[N,d..], [C] or 0 */
} loss;

static bool
reduction(fg_node *n, bool *none, bool *mean)
{
    const char *how = fg_attr_str(n, "reduction", "mean");

    *none = !strcmp(how, "none");
    *mean = !strcmp(how, "mean");
    return *none || *mean || !strcmp(how, "sum") ||
           fg_node_error(n, "reduction \"%s\"", how);
}

static fg_reg
sum_all(fg_node *n, fg_reg x)
{
    int64_t axes[FG_MAXRANK];

    for (int a = 0; x && a < fg_rank(n, x); a++)
        axes[a] = a;
    return x && fg_rank(n, x)
               ? fg_emit_reduce(n->b, FG_OP_reduce_sum, x, fg_rank(n, x), axes, false)
               : x;
}

/* The score of the target's class, the class axis dropped. */
static fg_reg
at_target(fg_node *n, fg_reg x, fg_reg target)
{
    fg_reg in[2] = {x, fg_insert1(n, target, 1, 1)};

    if (!in[1])
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_gather_elements, 2, in);
    FG_SET(i, gather_elements, axis).i = 1;
    return fg_inst_finish(n->b, i, NULL, 0) ? fg_like_shape(n, i->out[0], target) : 0;
}

static fg_reg
likelihood(fg_node *n, const loss *l)
{
    fg_reg target = fg_emit_cast(n->b, l->target, FG_i64), weight = 0, used = 0, y;
    bool none, mean;

    if (!target || !reduction(n, &none, &mean))
        return 0;
    if (fg_attr_has(n, "ignore_index")) {
        used = E2(ne, target,
                  fg_emit_f(n->b, FG_i64, (double)fg_attr_int(n, "ignore_index", 0)));
        target = E3(where, used, target, fg_emit_f(n->b, FG_i64, 0));
    }
    y = E1(neg, at_target(n, l->x, target));
    if (l->weight)
        weight = fg_emit_gather(n->b, fg_narrow(n, l->weight, l->x), target, 0);
    if (used)
        weight =
            E3(where, used, weight ? weight : fg_num(n, l->x, 1), fg_num(n, l->x, 0));
    if (weight)
        y = E2(mul, y, weight);
    if (none || !y)
        return y;
    fg_expr count = fg_dims_product(n, y, 0, fg_rank(n, y));
    y = sum_all(n, y);
    if (!mean)
        return y;
    return E2(div, y,
              weight ? sum_all(n, weight) : fg_sym_scalar(n, count, fg_elem(n, l->x)));
}

static bool
operands(fg_node *n, loss *l)
{
    *l = (loss){fg_need(n, 0), fg_need(n, 1), fg_in(n, 2)};
    if (!l->x || !l->target)
        return false;
    if (fg_rank(n, l->x) < 2 || fg_rank(n, l->target) != fg_rank(n, l->x) - 1 ||
        !fg_is_int(fg_elem(n, l->target)) || (l->weight && fg_rank(n, l->weight) != 1))
        return fg_node_error(n, "targets %s for scores %s",
                             fg_type_text(n->m, fg_rt(n->m, l->target)),
                             fg_type_text(n->m, fg_rt(n->m, l->x)));
    return true;
}

bool
fg_onnx_nll_loss(fg_node *n)
{
    loss l;

    if (!operands(n, &l))
        return false;
    fg_reg x = l.x;
    l.x = fg_widen(n, x);
    return fg_yield(n, fg_narrow(n, likelihood(n, &l), x));
}

bool
fg_onnx_softmax_loss(fg_node *n)
{
    loss l;
    int64_t axis = 1;

    if (!operands(n, &l))
        return false;
    fg_reg x = l.x, w = fg_widen(n, x);
    w = E2(sub, w, fg_emit_reduce(n->b, FG_OP_reduce_max, w, 1, &axis, true));
    w = E2(sub, w,
           E1(log, fg_emit_reduce(n->b, FG_OP_reduce_sum, E1(exp, w), 1, &axis, true)));
    if (!w || !fg_yield_at(n, 1, fg_narrow(n, w, x)))
        return false;
    l.x = w;
    return fg_yield(n, fg_narrow(n, likelihood(n, &l), x));
}
