/* ops_nn.c - ONNX products and normalisations.
 *
 *     Gemm x, w, b {transB=1}   ->  add(matmul(x, w) {trans_b=1}, b)
 *     InstanceNormalization x   ->  reshape to [N, C, rest], layernorm, scale per channel
 *
 * Normalisations over a group of axes are layernorm over trailing axes of a reshape.
 */
#include "frontend/ops.h"

#include <math.h>

/* ---- products -------------------------------------------------------------------- */

fg_reg
fg_product_shape(fg_node *n, fg_reg z, int rx, int ry)
{
    fg_expr dim[FG_MAXRANK];
    int r = 0;
    if (!z || (rx > 1 && ry > 1))
        return z;
    for (int a = 0; a < fg_rank(n, z); a++) {
        bool row = a == fg_rank(n, z) - 2, col = a == fg_rank(n, z) - 1;
        if (!(row && rx == 1) && !(col && ry == 1))
            dim[r++] = fg_dim(n, z, a);
    }
    return fg_emit_reshape(n->b, z, r, dim);
}

fg_reg
fg_matmul_any(fg_node *n, fg_reg x, fg_reg y)
{
    if (!x || !y)
        return 0;
    int rx = fg_rank(n, x), ry = fg_rank(n, y);
    if (rx == 0 || ry == 0) {
        fg_node_error(n, "a scalar has no inner axis");
        return 0;
    }
    fg_reg z = fg_emit_matmul(n->b, rx == 1 ? fg_insert1(n, x, 0, 1) : x,
                              ry == 1 ? fg_insert1(n, y, 1, 1) : y, false, false);
    return fg_product_shape(n, z, rx, ry);
}

bool
fg_onnx_matmul(fg_node *n)
{
    return fg_yield(n, fg_matmul_any(n, fg_need(n, 0), fg_need(n, 1)));
}

fg_reg
fg_gemm(fg_node *n)
{
    fg_reg x = fg_need(n, 0), w = fg_need(n, 1), c = fg_in(n, 2), y;
    double alpha = fg_attr_float(n, "alpha", 1), beta = fg_attr_float(n, "beta", 1);

    if (!x || !w)
        return 0;
    if (fg_rank(n, x) != 2 || fg_rank(n, w) != 2) {
        fg_node_error(n, "%s and %s are not matrices", fg_type_text(n->m, fg_rt(n->m, x)),
                      fg_type_text(n->m, fg_rt(n->m, w)));
        return 0;
    }
    y = fg_emit_matmul(n->b, x, w, fg_attr_int(n, "transA", 0) != 0,
                       fg_attr_int(n, "transB", 0) != 0);
    if (alpha != 1)
        y = E2(mul, y, fg_num(n, x, alpha));
    if (y && c && beta != 0)
        y = E2(add, y, beta == 1 ? c : E2(mul, c, fg_num(n, c, beta)));
    return y;
}

bool
fg_onnx_gemm(fg_node *n)
{
    return fg_yield(n, fg_gemm(n));
}

/* ---- normalisations -------------------------------------------------------------- */

fg_reg
fg_layernorm(fg_node *n, fg_reg x, fg_reg scale, fg_reg bias, int axis, double eps)
{
    if (!x)
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_layernorm,
                               bias    ? 3
                               : scale ? 2
                                       : 1,
                               (fg_reg[]){x, scale, bias});
    FG_SET(i, layernorm, axis).i = axis;
    FG_SET(i, layernorm, eps).f = eps;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

fg_reg
fg_norm_part(fg_node *n, fg_reg x, int axis, double eps)
{
    return fg_layernorm(n, x, 0, 0, axis, eps);
}

/* The operation's result is typed like x; ONNX's like the scale. */
fg_reg
fg_rmsnorm(fg_node *n, fg_reg x, fg_reg scale, int axis, double eps)
{
    if (!x)
        return 0;
    fg_dtype out = scale ? fg_elem(n, scale) : fg_elem(n, x);
    if (scale && fg_elem(n, x) != out) {
        x = fg_widen(n, x);
        scale = fg_narrow(n, scale, x);
    }
    if (!x || (!scale && out != fg_elem(n, x)))
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_rmsnorm, scale ? 2 : 1, (fg_reg[]){x, scale});
    FG_SET(i, rmsnorm, axis).i = axis;
    FG_SET(i, rmsnorm, eps).f = eps;
    return fg_inst_finish(n->b, i, NULL, 0) ? fg_emit_cast(n->b, i->out[0], out) : 0;
}

/* Mean and 1 / sqrt(var + eps), or with mean 0 when `mean` is NULL, in at least f32. */
fg_reg
fg_inverse_deviation(fg_node *n, fg_reg x, int axis, double eps, fg_reg *mean)
{
    int64_t axes[FG_MAXRANK];
    int rank = fg_rank(n, x), count = rank - axis;
    fg_reg w = fg_widen(n, x);

    for (int a = 0; a < count; a++)
        axes[a] = axis + a;
    if (mean) {
        *mean = fg_emit_reduce(n->b, FG_OP_reduce_mean, w, count, axes, true);
        w = E2(sub, w, *mean);
    }
    w = fg_emit_reduce(n->b, FG_OP_reduce_mean, E2(mul, w, w), count, axes, true);
    return E1(rsqrt, E2(add, w, fg_num(n, w, eps)));
}

bool
fg_onnx_layer_norm(fg_node *n)
{
    fg_reg x = fg_need(n, 0), scale = fg_need(n, 1), mean = 0, dev;
    double eps = fg_attr_float(n, "epsilon", 1e-5);
    int axis;

    if (!x || !scale || !fg_axis(n, fg_attr_int(n, "axis", -1), fg_rank(n, x), &axis))
        return false;
    if (fg_wants(n, 1) || fg_wants(n, 2)) {
        dev = fg_inverse_deviation(n, x, axis, eps, &mean);
        if (!fg_yield_at(n, 1, mean) || !fg_yield_at(n, 2, dev))
            return false;
    }
    return fg_yield(n, fg_layernorm(n, x, scale, fg_in(n, 2), axis, eps));
}

bool
fg_onnx_rms_norm(fg_node *n)
{
    fg_reg x = fg_need(n, 0), scale = fg_need(n, 1);
    double eps = fg_attr_float(n, "epsilon", 1e-5);
    int axis;

    if (!x || !scale || !fg_axis(n, fg_attr_int(n, "axis", -1), fg_rank(n, x), &axis))
        return false;
    if (fg_wants(n, 1) && !fg_yield_at(n, 1, fg_inverse_deviation(n, x, axis, eps, NULL)))
        return false;
    return fg_yield(n, fg_rmsnorm(n, x, scale, axis, eps));
}

/* y scale + bias, with one of each per channel (axis 1). */
static fg_reg
per_channel(fg_node *n, fg_reg y, fg_reg scale, fg_reg bias)
{
    if (!y || !scale || !bias)
        return 0;
    int rank = fg_rank(n, y);
    y = E2(mul, y, fg_along(n, fg_narrow(n, scale, y), 1, rank));
    return E2(add, y, fg_along(n, fg_narrow(n, bias, y), 1, rank));
}

static bool
channels(fg_node *n, fg_reg x)
{
    return fg_rank(n, x) >= 2 ||
           fg_node_error(n, "%s has no channel axis", fg_type_text(n->m, fg_rt(n->m, x)));
}

static bool
vectors(fg_node *n, int from, int to)
{
    for (int k = from; k < to; k++) {
        fg_reg r = fg_need(n, k);
        if (!r ||
            (fg_rank(n, r) != 1 && !fg_node_error(n, "operand %d is not a vector", k)))
            return false;
    }
    return true;
}

bool
fg_onnx_instance_norm(fg_node *n)
{
    fg_reg x = fg_need(n, 0);

    if (!x || !channels(n, x) || !vectors(n, 1, 3))
        return false;
    fg_reg w = fg_widen(n, x);
    fg_expr dim[3] = {fg_dim(n, x, 0), fg_dim(n, x, 1),
                      fg_dims_product(n, x, 2, fg_rank(n, x))};
    fg_reg y = fg_norm_part(n, fg_emit_reshape(n->b, w, 3, dim), 2,
                            fg_attr_float(n, "epsilon", 1e-5));
    y = per_channel(n, fg_like_shape(n, y, w), n->in[1], n->in[2]);
    return fg_yield(n, fg_narrow(n, y, x));
}

bool
fg_onnx_group_norm(fg_node *n)
{
    fg_reg x = fg_need(n, 0), p[2];
    int64_t groups = fg_attr_int(n, "num_groups", 0);

    if (!x || !channels(n, x) || !vectors(n, 1, 3))
        return false;
    if (groups < 1 || !fg_e_divides(n->ex, groups, fg_dim(n, x, 1)))
        return fg_node_error(n, "%lld groups do not divide the channels of %s",
                             (long long)groups, fg_type_text(n->m, fg_rt(n->m, x)));
    fg_expr g = fg_c(n, groups), each = fg_ediv(n->ex, fg_dim(n, x, 1), g);
    fg_expr dim[3] = {fg_dim(n, x, 0), g,
                      fg_emul(n->ex, each, fg_dims_product(n, x, 2, fg_rank(n, x)))};
    /* Opset 18 had one scale and bias per group. */
    for (int k = 0; k < 2; k++) {
        p[k] = n->in[k + 1];
        if (n->opset < 21 && fg_e_is(n->ex, fg_dim(n, p[k], 0), groups)) {
            p[k] = fg_emit_expand(n->b, fg_along(n, p[k], 0, 2), 2, (fg_expr[]){g, each});
            p[k] =
                p[k] ? fg_emit_reshape(n->b, p[k], 1, (fg_expr[]){fg_dim(n, x, 1)}) : 0;
        }
    }
    fg_reg w = fg_widen(n, x);
    fg_reg y = fg_norm_part(n, fg_emit_reshape(n->b, w, 3, dim), 2,
                            fg_attr_float(n, "epsilon", 1e-5));
    y = per_channel(n, fg_like_shape(n, y, w), p[0], p[1]);
    return fg_yield(n, fg_narrow(n, y, x));
}

/* Batch statistics over every axis but the channels; running = old m + new (1 - m). */
static bool
batch_norm_train(fg_node *n, fg_reg x, fg_reg *mean, fg_reg *var)
{
    int64_t axes[FG_MAXRANK];
    double m = fg_attr_float(n, "momentum", 0.9);
    int rank = fg_rank(n, x), count = 0;

    for (int a = 0; a < rank; a++)
        if (a != 1)
            axes[count++] = a;
    fg_reg mu = fg_emit_reduce(n->b, FG_OP_reduce_mean, x, count, axes, true);
    fg_reg d = E2(sub, x, mu), new[2] = {mu, 0}, old[2] = {*mean, *var};
    new[1] = fg_emit_reduce(n->b, FG_OP_reduce_mean, E2(mul, d, d), count, axes, true);
    for (int k = 0; k < 2; k++) {
        new[k] = fg_like_shape(n, new[k], old[k]);
        fg_reg typed = fg_narrow(n, new[k], old[k]);
        fg_reg run = E2(add, E2(mul, old[k], fg_num(n, old[k], m)),
                        E2(mul, typed, fg_num(n, old[k], 1 - m)));
        if (!fg_yield_at(n, 1 + k, run))
            return false;
    }
    *mean = new[0];
    *var = new[1];
    return true;
}

bool
fg_onnx_batch_norm(fg_node *n)
{
    fg_reg x = fg_need(n, 0), w, mean, var;
    double eps = fg_attr_float(n, "epsilon", 1e-5);

    if (!x || !channels(n, x) || !vectors(n, 1, 5))
        return false;
    if (n->opset < 9 && !fg_attr_int(n, "spatial", 1))
        return fg_node_unsupported(n, "spatial=0");
    w = fg_widen(n, x);
    mean = n->in[3];
    var = n->in[4];
    if (n->opset >= 14 && fg_attr_int(n, "training_mode", 0)) {
        if (!batch_norm_train(n, w, &mean, &var))
            return false;
    } else {
        for (int k = 1; k < n->nout; k++)
            if (fg_wants(n, k))
                return fg_node_unsupported(n, "outputs of training");
    }
    mean = fg_narrow(n, mean, w);
    var = fg_narrow(n, var, w);
    fg_reg dev = E1(rsqrt, E2(add, var, fg_num(n, w, eps)));
    fg_reg a = E2(mul, fg_narrow(n, n->in[1], w), dev);
    if (!mean || !a)
        return false;
    w = E2(sub, w, fg_along(n, mean, 1, fg_rank(n, x)));
    return fg_yield(n, fg_narrow(n, per_channel(n, w, a, n->in[2]), x));
}

/* x / (bias + alpha/size sum of squares over `size` neighbouring channels)^beta. */
bool
fg_onnx_lrn(fg_node *n)
{
    fg_reg x = fg_need(n, 0), sum = 0;
    int64_t size = fg_attr_int(n, "size", 0);
    double alpha = fg_attr_float(n, "alpha", 1e-4), beta = fg_attr_float(n, "beta", 0.75);
    double bias = fg_attr_float(n, "bias", 1);
    fg_expr before[FG_MAXRANK], after[FG_MAXRANK];

    if (!x || !channels(n, x))
        return false;
    if (size < 1 || size > 1024)
        return fg_node_error(n, "size %lld", (long long)size);
    for (int a = 0; a < fg_rank(n, x); a++)
        before[a] = after[a] = fg_c(n, 0);
    before[1] = fg_c(n, (size - 1) / 2);
    after[1] = fg_c(n, size - 1 - (size - 1) / 2);
    fg_reg w = fg_widen(n, x), padded = fg_pad_zero(n, E2(mul, w, w), before, after);
    for (int64_t k = 0; padded && k < size; k++) {
        fg_reg part = fg_emit_slice_axis(n->b, padded, 1, fg_c(n, k), fg_dim(n, x, 1));
        sum = sum ? E2(add, sum, part) : part;
    }
    if (!sum)
        return false;
    sum = E2(add, E2(mul, sum, fg_num(n, w, alpha / (double)size)), fg_num(n, w, bias));
    return fg_yield(n, fg_narrow(n, E2(div, w, E2(pow, sum, fg_num(n, w, beta))), x));
}
