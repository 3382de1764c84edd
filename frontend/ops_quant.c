/* ops_quant.c - ONNX quantisation: linear, dynamic, integer products.
 *
 *     DynamicQuantizeLinear x  ->  lo = min(0, min x), hi = max(0, max x),
 *                                  s = (hi - lo) / 255, z = saturate(round(-lo / s)),
 *                                  y = quantize(x, s, z)
 *     QLinearMatMul            ->  quantize(cast(matmul_int(a, b)) sa sb, sy, zy)
 */
#include "frontend/ops.h"

/* ---- quantize and dequantize ----------------------------------------------------- */

/* Axis of a scale that is not per tensor; a scale of one element is. */
static fg_reg
per_tensor(fg_node *n, fg_reg r)
{
    return r && fg_rank(n, r) == 1 && fg_e_is(n->ex, fg_dim(n, r, 0), 1)
               ? fg_emit_reshape(n->b, r, 0, NULL)
               : r;
}

fg_reg
fg_quantize(fg_node *n, fg_reg x, fg_reg scale, fg_reg zero, int axis, int64_t block,
            fg_dtype to)
{
    if (!x || !scale)
        return 0;
    fg_inst *i =
        fg_inst_begin(n->b, FG_OP_quantize, zero ? 3 : 2, (fg_reg[]){x, scale, zero});
    FG_SET(i, quantize, axis).i = axis;
    FG_SET(i, quantize, block).i = block;
    FG_SET(i, quantize, to).i = to;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

fg_reg
fg_dequantize(fg_node *n, fg_reg x, fg_reg scale, fg_reg zero, int axis, int64_t block,
              fg_dtype to)
{
    if (!x || !scale)
        return 0;
    fg_inst *i =
        fg_inst_begin(n->b, FG_OP_dequantize, zero ? 3 : 2, (fg_reg[]){x, scale, zero});
    FG_SET(i, dequantize, axis).i = axis;
    FG_SET(i, dequantize, block).i = block;
    FG_SET(i, dequantize, to).i = to == fg_elem(n, scale) ? FG_NODTYPE : to;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* Axis and block length; checked against the operands. */
static bool
granularity(fg_node *n, fg_reg x, fg_reg scale, int *axis, int64_t *block)
{
    *axis = 0;
    *block = fg_attr_int(n, "block_size", 0);
    if (*block < 0)
        return fg_node_error(n, "block_size %lld", (long long)*block);
    if (fg_rank(n, scale) == 0 && *block == 0)
        return true;
    if (!fg_axis(n, fg_attr_int(n, "axis", 1), fg_rank(n, x), axis))
        return false;
    if (*block ? fg_rank(n, scale) != fg_rank(n, x) : fg_rank(n, scale) != 1)
        return fg_node_error(n, "scale %s for %s", fg_type_text(n->m, fg_rt(n->m, scale)),
                             fg_type_text(n->m, fg_rt(n->m, x)));
    return true;
}

static bool
type_attr(fg_node *n, const char *name, fg_dtype dflt, fg_dtype *d)
{
    int64_t code = fg_attr_int(n, name, 0);

    *d = code == 0                 ? dflt
         : code < 0 || code > 1000 ? FG_NODTYPE
                                   : fg_dtype_by_onnx((int)code);
    return *d || fg_node_unsupported(n, "element type %lld", (long long)code);
}

bool
fg_onnx_quantize_linear(fg_node *n)
{
    fg_reg x = fg_need(n, 0), scale = per_tensor(n, fg_need(n, 1)),
           zero = per_tensor(n, fg_in(n, 2));
    fg_dtype to;
    int64_t block;
    int axis;

    if (!x || !scale || !granularity(n, x, scale, &axis, &block) ||
        !type_attr(n, "output_dtype", zero ? fg_elem(n, zero) : FG_u8, &to))
        return false;
    if (zero && fg_elem(n, zero) != to)
        return fg_node_error(n, "the zero point is %s, the result %s",
                             fg_dtypes[fg_elem(n, zero)].name, fg_dtypes[to].name);
    if (!fg_is_int(to))
        return fg_node_unsupported(n, "quantisation to %s", fg_dtypes[to].name);
    if (!fg_is_float(fg_elem(n, x)))
        x = fg_emit_cast(n->b, x, FG_f32);
    x = fg_widen(n, x);
    return fg_yield(n, fg_quantize(n, x, fg_narrow(n, scale, x), zero, axis, block, to));
}

bool
fg_onnx_dequantize_linear(fg_node *n)
{
    fg_reg x = fg_need(n, 0), scale = per_tensor(n, fg_need(n, 1)),
           zero = per_tensor(n, fg_in(n, 2));
    fg_dtype to;
    int64_t block;
    int axis;

    if (!x || !scale || !granularity(n, x, scale, &axis, &block) ||
        !type_attr(n, "output_dtype", fg_elem(n, scale), &to))
        return false;
    if (zero && fg_elem(n, zero) != fg_elem(n, x))
        return fg_node_error(n, "the zero point is %s, the data %s",
                             fg_dtypes[fg_elem(n, zero)].name,
                             fg_dtypes[fg_elem(n, x)].name);
    return fg_yield(n, fg_dequantize(n, x, scale, zero, axis, block, to));
}

static fg_reg
extreme(fg_node *n, fg_op op, fg_op with, fg_reg x)
{
    int64_t axes[FG_MAXRANK];
    int rank = fg_rank(n, x);

    for (int a = 0; a < rank; a++)
        axes[a] = a;
    return fg_emit2(n->b, with, fg_emit_reduce(n->b, op, x, rank, axes, false),
                    fg_num(n, x, 0));
}

/* The range always holds 0; an all-zero x has scale 0 and zero point 0, and quantises
 * to 0. */
fg_reg
fg_quantize_dynamic(fg_node *n, fg_reg x, fg_reg *scale, fg_reg *zero)
{
    if (!x)
        return 0;
    fg_reg lo = extreme(n, FG_OP_reduce_min, FG_OP_min, x);
    fg_reg hi = extreme(n, FG_OP_reduce_max, FG_OP_max, x);
    fg_reg nil = fg_num(n, x, 0), one = fg_num(n, x, 1);
    *scale = E2(div, E2(sub, hi, lo), fg_num(n, x, 255));
    fg_reg safe = E3(where, E2(eq, *scale, nil), one, *scale);
    fg_reg z = E1(round, E2(div, E2(sub, nil, lo), safe));
    z = E2(min, E2(max, z, nil), fg_num(n, x, 255));
    *zero = z ? fg_emit_cast(n->b, z, FG_u8) : 0;
    return *zero ? fg_quantize(n, x, safe, *zero, 0, 0, FG_u8) : 0;
}

bool
fg_onnx_dynamic_quantize(fg_node *n)
{
    fg_reg x = fg_need(n, 0), scale = 0, zero = 0;
    fg_reg y = fg_quantize_dynamic(n, x, &scale, &zero);

    fg_yield_at(n, 1, scale);
    fg_yield_at(n, 2, zero);
    return fg_yield(n, y);
}

/* ---- integer products ------------------------------------------------------------ */

fg_reg
fg_matmul_int(fg_node *n, fg_reg x, fg_reg y, fg_reg zx, fg_reg zy)
{
    if (!x || !y)
        return 0;
    int rx = fg_rank(n, x), ry = fg_rank(n, y);
    if (rx == 0 || ry == 0) {
        fg_node_error(n, "a scalar has no inner axis");
        return 0;
    }
    fg_reg in[4] = {rx == 1 ? fg_insert1(n, x, 0, 1) : x,
                    ry == 1 ? fg_insert1(n, y, 1, 1) : y, per_tensor(n, zx),
                    per_tensor(n, zy)};
    fg_inst *i = fg_inst_begin(n->b, FG_OP_matmul_int, in[3] ? 4 : in[2] ? 3 : 2, in);
    if (!fg_inst_finish(n->b, i, NULL, 0))
        return 0;
    return fg_product_shape(n, i->out[0], rx, ry);
}

bool
fg_onnx_matmul_integer(fg_node *n)
{
    return fg_yield(
        n, fg_matmul_int(n, fg_need(n, 0), fg_need(n, 1), fg_in(n, 2), fg_in(n, 3)));
}

/* A scale or zero point that has one entry per row or column of a product. */
static fg_reg
beside(fg_node *n, fg_reg r, bool rows)
{
    r = per_tensor(n, r);
    return r && rows && fg_rank(n, r) == 1 ? fg_insert1(n, r, 1, 1) : r;
}

bool
fg_onnx_qlinear_matmul(fg_node *n)
{
    fg_reg in[8];

    for (int k = 0; k < 8; k++)
        if (!(in[k] = fg_need(n, k)))
            return false;
    fg_dtype to = fg_elem(n, in[7]);
    fg_reg sum = fg_matmul_int(n, in[0], in[3], in[2], in[5]);
    fg_reg scale = E2(mul, beside(n, fg_widen(n, in[1]), true),
                      beside(n, fg_widen(n, in[4]), false));
    fg_reg y = sum ? E2(mul, fg_emit_cast(n->b, sum, FG_f32), scale) : 0;
    fg_reg by = fg_widen(n, per_tensor(n, in[6]));
    return fg_yield(n, fg_quantize(n, y, by, per_tensor(n, in[7]), 0, 0, to));
}

/* x - zero in i32, where zero is one number or one per channel (axis). */
static fg_reg
centred(fg_node *n, fg_reg x, fg_reg zero, int axis)
{
    x = x ? fg_emit_cast(n->b, x, FG_i32) : 0;
    zero = per_tensor(n, zero);
    if (!x || !zero)
        return x;
    zero = fg_emit_cast(n->b, zero, FG_i32);
    if (zero && fg_rank(n, zero) == 1)
        zero = fg_along(n, zero, axis, fg_rank(n, x));
    return E2(sub, x, zero);
}

bool
fg_onnx_conv_integer(fg_node *n)
{
    fg_reg x = fg_need(n, 0), w = fg_need(n, 1);

    return x && w &&
           fg_yield(n, fg_conv(n, centred(n, x, fg_in(n, 2), 1),
                               centred(n, w, fg_in(n, 3), 0), 0));
}

bool
fg_onnx_qlinear_conv(fg_node *n)
{
    fg_reg in[8];

    for (int k = 0; k < 8; k++)
        if (!(in[k] = fg_need(n, k)))
            return false;
    fg_dtype to = fg_elem(n, in[7]);
    fg_reg sum =
        fg_conv(n, centred(n, in[0], in[2], 1), centred(n, in[3], in[5], 0), fg_in(n, 8));
    fg_reg scale = E2(mul, per_tensor(n, in[1]), per_tensor(n, in[4]));
    if (!sum || !scale)
        return false;
    if (fg_rank(n, scale) == 1)
        scale = fg_along(n, scale, 1, fg_rank(n, sum));
    fg_reg y = E2(mul, fg_emit_cast(n->b, sum, FG_f32), scale);
    return fg_yield(
        n, fg_quantize(n, y, per_tensor(n, in[6]), per_tensor(n, in[7]), 0, 0, to));
}
