/* ops_ms_quant.c - quantised operators of com.microsoft.
 *
 *     MatMulNBits x, w, s, z            ->  %w = dequantize (w as u4[N,K]), s, z
 *                                           %y = matmul x, %w {trans_b=1}
 *     QLinearAdd a, .., b, .., y scale  ->  quantize(dequantize(a) + dequantize(b))
 *
 * Packed weights are a constant of bytes whose low bits come first, which is how u4
 * lies in memory: the same bytes get another type and nothing is copied. Only 2-bit
 * data, and packed data that is computed, is taken apart by shifts.
 */
#include "frontend/ops.h"

#include <math.h>

/* ---- packed data ----------------------------------------------------------------- */

/* The constant w read as another shape or type of as many bytes. */
static fg_reg
reread(fg_node *n, const fg_weight *w, fg_dtype d, int rank, const int64_t *dim)
{
    fg_weight copy = *w;

    copy.dtype = d;
    copy.rank = rank;
    for (int a = 0; a < rank; a++)
        copy.dim[a] = dim[a];
    fg_weightcount counted = n->m->initializers; /* w was */
    fg_inst *i = fg_inst_begin(n->b, FG_OP_const, 0, NULL);
    FG_SET(i, const, w).i = fg_weight_add(n->m, &copy);
    n->m->initializers = counted;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* Bytes [.., c] as unsigned elements [.., c * 8 / bits]. */
static fg_reg
unpack_bits(fg_node *n, fg_reg r, int64_t bits)
{
    fg_expr dim[FG_MAXRANK];
    fg_reg part[4];

    if (!r || bits == 8)
        return r;
    int rank = fg_rank(n, r), each = (int)(8 / bits);
    const fg_weight *w = fg_reg_weight(n->m, r);
    if (rank == 0) {
        fg_node_error(n, "packed data is a scalar");
        return 0;
    }
    if (bits == 4 && w) {
        int64_t wide[FG_MAXRANK];
        for (int a = 0; a < rank; a++)
            wide[a] = a == rank - 1 ? 2 * w->dim[a] : w->dim[a];
        return reread(n, w, FG_u4, rank, wide);
    }
    for (int k = 0; k < each; k++) {
        part[k] = E2(shr, r, fg_emit_f(n->b, FG_u8, (double)(k * bits)));
        part[k] = E2(bitand, part[k], fg_emit_f(n->b, FG_u8, (double)((1 << bits) - 1)));
        if (!(part[k] = fg_insert1(n, part[k], rank, 1)))
            return 0;
    }
    for (int a = 0; a < rank; a++)
        dim[a] = fg_dim(n, r, a);
    dim[rank - 1] = fg_emul(n->ex, dim[rank - 1], fg_c(n, each));
    return fg_emit_reshape(n->b, fg_emit_concat(n->b, each, part, rank), rank, dim);
}

/* The middle of the range: what packed data without zero points is relative to. */
static fg_reg
middle(fg_node *n, fg_dtype d, int64_t bits)
{
    return fg_emit_f(n->b, d, (double)((int64_t)1 << (bits - 1)));
}

/* ---- MatMulNBits and MatMulBnb4 -------------------------------------------------- */

typedef struct nbits {
    int64_t k, n, bits, block, blocks; /* blocks per row */
} nbits;

static bool
nbits_read(fg_node *n, nbits *q)
{
    int64_t count, blob;
    fg_reg w = fg_need(n, 1);

    *q = (nbits){.k = fg_attr_int(n, "K", 0),
                 .n = fg_attr_int(n, "N", 0),
                 .bits = fg_attr_int(n, "bits", 4),
                 .block = fg_attr_int(n, "block_size", 0)};
    if (!w)
        return false;
    if (q->bits != 2 && q->bits != 4 && q->bits != 8)
        return fg_node_unsupported(n, "%lld bits", (long long)q->bits);
    if (q->k < 1 || q->n < 1 || q->k > INT32_MAX || q->n > INT32_MAX || q->block < 16 ||
        q->block > INT32_MAX || (q->block & (q->block - 1)))
        return fg_node_error(n, "N %lld, K %lld, block_size %lld", (long long)q->n,
                             (long long)q->k, (long long)q->block);
    q->blocks = (q->k + q->block - 1) / q->block;
    blob = q->block * q->bits / 8;
    if (!fg_e_const(n->ex, fg_dims_product(n, w, 0, fg_rank(n, w)), &count) ||
        fg_elem(n, w) != FG_u8 || count != q->n * q->blocks * blob)
        return fg_node_error(n,
                             "weights %s do not hold %lld x %lld elements of %lld bits",
                             fg_type_text(n->m, fg_rt(n->m, w)), (long long)q->n,
                             (long long)q->k, (long long)q->bits);
    return true;
}

/* w as [rows, row] bytes; a constant stays one, so that unpacking it is free. */
static fg_reg
bytes_rows(fg_node *n, fg_reg w, int64_t rows, int64_t row)
{
    const fg_weight *k = fg_reg_weight(n->m, w);

    return k ? reread(n, k, k->dtype, 2, (int64_t[]){rows, row})
             : fg_emit_reshape(n->b, w, 2, (fg_expr[]){fg_c(n, rows), fg_c(n, row)});
}

/* r as [N, columns]; older files give it flat. */
static fg_reg
per_block(fg_node *n, fg_reg r, const nbits *q, int64_t columns)
{
    fg_expr want = fg_c(n, q->n * columns);

    if (r && fg_dims_product(n, r, 0, fg_rank(n, r)) != want) {
        fg_node_error(n, "%s for %lld rows of %lld blocks",
                      fg_type_text(n->m, fg_rt(n->m, r)), (long long)q->n,
                      (long long)q->blocks);
        return 0;
    }
    return r ? bytes_rows(n, r, q->n, columns) : 0;
}

/* Zero points typed like the data: given (packed), or the middle. */
static fg_reg
nbits_zero(fg_node *n, const nbits *q, fg_reg given, fg_dtype d)
{
    if (!given)
        return middle(n, d, q->bits);
    int64_t row = (q->blocks * q->bits + 7) / 8;
    given = per_block(n, given, q, row);
    given = given ? unpack_bits(n, bytes_rows(n, given, q->n, row), q->bits) : 0;
    if (given && !fg_e_is(n->ex, fg_dim(n, given, 1), q->blocks))
        given = fg_part(n, given, 1, 0, q->blocks);
    return given;
}

/* (data - zero) scale with zero points that are no integers. */
static fg_reg
dequantize_float_zero(fg_node *n, const nbits *q, fg_reg data, fg_reg scale, fg_reg zero)
{
    fg_expr cut[3] = {fg_c(n, q->n), fg_c(n, q->blocks), fg_c(n, q->block)};
    fg_expr whole[2] = {cut[0], fg_c(n, q->blocks * q->block)};

    zero = fg_insert1(n, per_block(n, zero, q, q->blocks), 2, 1);
    scale = fg_insert1(n, scale, 2, 1);
    data = fg_emit_reshape(n->b, fg_narrow(n, data, scale), 3, cut);
    data = E2(mul, E2(sub, data, fg_narrow(n, zero, scale)), scale);
    return data ? fg_emit_reshape(n->b, data, 2, whole) : 0;
}

bool
fg_onnx_ms_matmul_nbits(fg_node *n)
{
    fg_reg x = fg_need(n, 0), w = fg_need(n, 1), scale = fg_need(n, 2),
           zero = fg_in(n, 3), y;
    nbits q;

    if (!x || !scale || !nbits_read(n, &q))
        return false;
    if (fg_in(n, 4))
        return fg_node_unsupported(n, "g_idx");
    int64_t row = q.blocks * q.block * q.bits / 8;
    w = unpack_bits(n, bytes_rows(n, w, q.n, row), q.bits);
    scale = fg_widen(n, per_block(n, scale, &q, q.blocks));
    if (!w || !scale)
        return false;
    if (zero && fg_is_float(fg_elem(n, zero)))
        w = dequantize_float_zero(n, &q, w, scale, zero);
    else
        w = fg_dequantize(n, w, scale, nbits_zero(n, &q, zero, fg_elem(n, w)), 1, q.block,
                          fg_elem(n, scale));
    if (w && q.blocks * q.block != q.k)
        w = fg_part(n, w, 1, 0, q.k);
    if (!w)
        return false;
    fg_reg wide = fg_widen(n, x);
    if (fg_rank(n, wide) < 2)
        return fg_node_error(n, "%s is not a matrix", fg_type_text(n->m, fg_rt(n->m, x)));
    /* As onnxruntime reads the attribute: only level 4 allows 8-bit activations, block by
     * block as the weights. */
    y = fg_emit_matmul_rounded(n->b, wide, fg_narrow(n, w, wide), false, true,
                               fg_attr_int(n, "accuracy_level", 0) == 4 ? q.block : 0);
    if (y && fg_in(n, 5))
        y = E2(add, y, fg_narrow(n, n->in[5], y));
    return fg_yield(n, fg_narrow(n, y, x));
}

static const float fp4_values[16] = {
    0.0f,         5.208333333e-03f,
    0.66666667f,  1.0f,
    0.33333333f,  0.5f,
    0.16666667f,  0.25f,
    -0.0f,        -5.208333333e-03f,
    -0.66666667f, -1.0f,
    -0.33333333f, -0.5f,
    -0.16666667f, -0.25f,
};

/* Quantiles of the normal distribution. */
static const float nf4_values[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

/* Table lookups, the high half of a byte first, times the block's largest magnitude. */
bool
fg_onnx_ms_matmul_bnb4(fg_node *n)
{
    fg_reg x = fg_need(n, 0), w = fg_need(n, 1), absmax = fg_need(n, 2), at[2], table;
    int64_t k = fg_attr_int(n, "K", 0), rows = fg_attr_int(n, "N", 0), count;
    int64_t block = fg_attr_int(n, "block_size", 0),
            type = fg_attr_int(n, "quant_type", 1);

    if (!x || !w || !absmax)
        return false;
    if (k < 1 || rows < 1 || block < 1 || k > INT32_MAX || rows > INT32_MAX ||
        (k * rows) % block ||
        !fg_e_const(n->ex, fg_dims_product(n, w, 0, fg_rank(n, w)), &count) ||
        count != k * rows / 2)
        return fg_node_error(n, "N %lld, K %lld, block_size %lld for %s", (long long)rows,
                             (long long)k, (long long)block,
                             fg_type_text(n->m, fg_rt(n->m, w)));
    w = fg_emit_reshape(n->b, w, 2, (fg_expr[]){fg_c(n, count), fg_c(n, 1)});
    at[0] = E2(shr, w, fg_emit_f(n->b, FG_u8, 4));
    at[1] = E2(bitand, w, fg_emit_f(n->b, FG_u8, 15));
    if (!at[0] || !at[1])
        return false;
    table =
        fg_emit_const(n->b, FG_f32, 1, (int64_t[]){16}, type ? nf4_values : fp4_values);
    w = fg_emit_gather(n->b, table, fg_emit_concat(n->b, 2, at, 1), 0);
    w = fg_emit_reshape(n->b, w, 2,
                        (fg_expr[]){fg_c(n, k * rows / block), fg_c(n, block)});
    w = E2(mul, w, fg_insert1(n, fg_widen(n, absmax), 1, 1));
    w = w ? fg_emit_reshape(n->b, w, 2, (fg_expr[]){fg_c(n, rows), fg_c(n, k)}) : 0;
    fg_reg wide = fg_widen(n, x);
    return fg_yield(n,
                    fg_narrow(n, w ? fg_emit_matmul(n->b, wide, w, false, true) : 0, x));
}

/* ---- GatherBlockQuantized -------------------------------------------------------- */

bool
fg_onnx_ms_gather_block_quantized(fg_node *n)
{
    fg_reg data = fg_need(n, 0), index = fg_need(n, 1), scale = fg_need(n, 2),
           zero = fg_in(n, 3);
    int64_t block = fg_attr_int(n, "block_size", 128), bits = fg_attr_int(n, "bits", 4);
    int gather, axis;

    if (!data || !index || !scale ||
        !fg_axis(n, fg_attr_int(n, "gather_axis", 0), fg_rank(n, data), &gather) ||
        !fg_axis(n, fg_attr_int(n, "quantize_axis", 1), fg_rank(n, data), &axis))
        return false;
    if (block < 16 || (block & (block - 1)) || (bits != 4 && bits != 8))
        return fg_node_error(n, "block_size %lld, %lld bits", (long long)block,
                             (long long)bits);
    if (gather == axis || fg_rank(n, scale) != fg_rank(n, data))
        return fg_node_error(n, "scales %s for %s",
                             fg_type_text(n->m, fg_rt(n->m, scale)),
                             fg_type_text(n->m, fg_rt(n->m, data)));
    if (fg_elem(n, data) == FG_u8) {
        data = unpack_bits(n, data, bits);
        zero = zero ? unpack_bits(n, zero, bits) : 0;
        if (!zero) {
            zero = data ? middle(n, fg_elem(n, data), bits) : 0;
        } else if (fg_dim(n, zero, axis) != fg_dim(n, scale, axis)) {
            zero =
                fg_emit_slice_axis(n->b, zero, axis, fg_c(n, 0), fg_dim(n, scale, axis));
        }
        if (!zero)
            return false;
    }
    int shift = fg_rank(n, index) - 1;
    data = fg_emit_gather(n->b, data, index, gather);
    scale = fg_emit_gather(n->b, scale, index, gather);
    if (zero && fg_rank(n, zero))
        zero = fg_emit_gather(n->b, zero, index, gather);
    if (!data || !scale)
        return false;
    return fg_yield(n, fg_dequantize(n, data, scale, zero,
                                     axis < gather ? axis : axis + shift, block,
                                     fg_elem(n, scale)));
}

/* ---- integer products ------------------------------------------------------------ */

fg_reg
fg_scaled_product(fg_node *n, fg_reg sum, fg_reg sx, fg_reg sy, fg_reg bias)
{
    if (!sum || !sx || !sy)
        return 0;
    fg_reg y = E2(mul, fg_emit_cast(n->b, sum, fg_elem(n, sx)), E2(mul, sx, sy));
    return bias ? E2(add, y, bias) : y;
}

bool
fg_onnx_ms_dynamic_quantize_matmul(fg_node *n)
{
    fg_reg scale = 0, zero = 0, x = fg_quantize_dynamic(n, fg_need(n, 0), &scale, &zero);

    if (!x)
        return false;
    fg_reg sum = fg_matmul_int(n, x, fg_need(n, 1), zero, fg_in(n, 3));
    return fg_yield(n, fg_scaled_product(n, sum, scale, fg_need(n, 2), fg_in(n, 4)));
}

bool
fg_onnx_ms_matmul_integer_to_float(fg_node *n)
{
    fg_reg sum = fg_matmul_int(n, fg_need(n, 0), fg_need(n, 1), fg_in(n, 4), fg_in(n, 5));

    return fg_yield(n,
                    fg_scaled_product(n, sum, fg_need(n, 2), fg_need(n, 3), fg_in(n, 6)));
}

/* alpha (a - za)(b - zb) sa sb + c sa sb alpha, requantised when there is a result
 * scale. */
bool
fg_onnx_ms_qgemm(fg_node *n)
{
    fg_reg a = fg_need(n, 0), sa = fg_need(n, 1), b = fg_need(n, 3), sb = fg_need(n, 4),
           zy = fg_in(n, 8);
    double alpha = fg_attr_float(n, "alpha", 1);

    if (!a || !sa || !b || !sb)
        return false;
    if (fg_rank(n, a) != 2 || fg_rank(n, b) != 2)
        return fg_node_error(n, "operands are not matrices");
    int64_t swap[2] = {1, 0};
    a = fg_attr_int(n, "transA", 0) ? fg_emit_transpose(n->b, a, swap) : a;
    b = fg_attr_int(n, "transB", 0) ? fg_emit_transpose(n->b, b, swap) : b;
    fg_reg sum = fg_matmul_int(n, a, b, fg_in(n, 2), fg_in(n, 5));
    if (fg_in(n, 6))
        sum = E2(add, sum, n->in[6]);
    fg_reg y = fg_scaled_product(n, sum, fg_scalar(n, sa, "the first scale"), sb, 0);
    if (alpha != 1)
        y = E2(mul, y, fg_num(n, y, alpha));
    if (fg_in(n, 7))
        y = fg_quantize(n, y, fg_scalar(n, n->in[7], "the result's scale"),
                        zy ? fg_scalar(n, zy, "zero") : 0, 0, 0,
                        zy ? fg_elem(n, zy) : FG_u8);
    return fg_yield(n, y);
}

/* ---- one operator between dequantize and quantize -------------------------------- */

/* Operands k, k+1, k+2: data, scale, zero point, as floats. */
static fg_reg
floats(fg_node *n, int k)
{
    fg_reg x = fg_need(n, k), s = fg_need(n, k + 1), z = fg_in(n, k + 2);

    if (!x || !s)
        return 0;
    s = fg_scalar(n, s, "a scale");
    return fg_dequantize(n, x, s, z ? fg_scalar(n, z, "a zero point") : 0, 0, 0, FG_f32);
}

/* y with scale and zero point from operands k and k+1; typed like the zero point or
 * `like`. */
static bool
requantize(fg_node *n, fg_reg y, int k, fg_reg like)
{
    fg_reg s = fg_need(n, k), z = fg_in(n, k + 1);

    if (!y || !s || !like)
        return false;
    return fg_yield(n, fg_quantize(n, y, fg_scalar(n, s, "a scale"),
                                   z ? fg_scalar(n, z, "a zero point") : 0, 0, 0,
                                   fg_elem(n, z ? z : like)));
}

bool
fg_onnx_ms_qlinear_binary(fg_node *n)
{
    bool add = !strcmp(n->op, "QLinearAdd");
    fg_reg x = floats(n, 0), y = floats(n, 3);

    return requantize(n, add ? E2(add, x, y) : E2(mul, x, y), 6, fg_need(n, 0));
}

bool
fg_onnx_ms_qlinear_unary(fg_node *n)
{
    fg_reg x = floats(n, 0);
    bool leaky = !strcmp(n->op, "QLinearLeakyRelu");
    double alpha = leaky ? fg_attr_float(n, "alpha", 0.01) : NAN;

    return requantize(n, fg_activation(n, leaky ? "LeakyRelu" : "Sigmoid", x, alpha, NAN),
                      3, fg_need(n, 0));
}

bool
fg_onnx_ms_qlinear_softmax(fg_node *n)
{
    fg_reg x = floats(n, 0);
    int axis;

    if (!x || !fg_axis(n, fg_attr_int(n, "axis", -1), fg_rank(n, x), &axis))
        return false;
    if (fg_attr_int(n, "opset", 13) >= 13 || axis == fg_rank(n, x) - 1)
        return requantize(n, fg_emit_softmax(n->b, x, axis), 3, n->in[0]);
    fg_reg y = fg_emit_softmax(n->b, fg_flat2(n, x, axis), 1);
    return requantize(n, fg_like_shape(n, y, x), 3, n->in[0]);
}

/* Result scale and zero point, then data, scale and zero point of every part. */
bool
fg_onnx_ms_qlinear_concat(fg_node *n)
{
    fg_reg x[256];
    int count = (n->nin - 2) / 3, axis;

    if (count < 1 || count > 256 || n->nin != 2 + 3 * count)
        return fg_node_error(n, "%d operands", n->nin);
    for (int k = 0; k < count; k++)
        if (!(x[k] = floats(n, 2 + 3 * k)))
            return false;
    if (!fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, x[0]), &axis))
        return false;
    return requantize(n, count == 1 ? x[0] : fg_emit_concat(n->b, count, x, axis), 0,
                      n->in[2]);
}

bool
fg_onnx_ms_qlinear_where(fg_node *n)
{
    return requantize(n, E3(where, fg_need(n, 0), floats(n, 1), floats(n, 4)), 7,
                      fg_need(n, 1));
}

/* QLinearReduceMean, QLinearGlobalAveragePool. */
bool
fg_onnx_ms_qlinear_mean(fg_node *n)
{
    fg_reg x = floats(n, 0);
    const int64_t *given;
    int64_t axes[FG_MAXRANK];
    bool global = !strcmp(n->op, "QLinearGlobalAveragePool");
    bool channels_last = global && fg_attr_int(n, "channels_last", 0);
    int count = fg_attr_ints(n, "axes", &given), a;

    if (!x)
        return false;
    int rank = fg_rank(n, x);
    if (global || count < 0) {
        int from = global ? (channels_last ? 1 : 2) : 0,
            to = channels_last ? rank - 1 : rank;
        count = 0;
        for (a = from; a < to; a++)
            axes[count++] = a;
    } else {
        unsigned seen = 0;
        for (int i = 0; i < count; i++) {
            if (!fg_axis(n, given[i], rank, &a))
                return false;
            seen |= 1u << a;
        }
        for (a = 0, count = 0; a < rank; a++)
            if (seen >> a & 1)
                axes[count++] = a;
    }
    bool keep = global || fg_attr_int(n, "keepdims", 1);
    return requantize(n, fg_emit_reduce(n->b, FG_OP_reduce_mean, x, count, axes, keep), 3,
                      n->in[0]);
}

bool
fg_onnx_ms_qlinear_average_pool(fg_node *n)
{
    fg_reg x = floats(n, 0), y;

    if (!x)
        return false;
    if (fg_attr_int(n, "channels_last", 0))
        return fg_node_unsupported(n, "channels_last");
    return fg_import_as(n, "", "AveragePool", 19, 1, &x, 1, &y) &&
           requantize(n, y, 3, n->in[0]);
}

/* ---- QMoE ------------------------------------------------------------------------ */

/* Layer k of the experts: packed weights, scales, bias and zero points at the given
 * operands. */
static fg_reg
expert_weight(fg_node *n, int w, int s, int z)
{
    fg_reg data = fg_in(n, w), scale = fg_in(n, s), zero = fg_in(n, z);
    int64_t bits = fg_attr_int(n, "expert_weight_bits", 4),
            block = fg_attr_int(n, "block_size", 0);
    int64_t cols;

    if (!data || !scale)
        return 0;
    if ((bits != 2 && bits != 4 && bits != 8) || fg_rank(n, data) != 3 || block < 0) {
        fg_node_error(n, "expert weights %s of %lld bits",
                      fg_type_text(n->m, fg_rt(n->m, data)), (long long)bits);
        return 0;
    }
    data = unpack_bits(n, data, bits);
    if (!data)
        return 0;
    if (fg_rank(n, scale) == 2) { /* one scale per row: one block */
        scale = fg_insert1(n, scale, 2, 1);
        block = 0;
    }
    if (block == 0) {
        if (!fg_e_const(n->ex, fg_dim(n, data, 2), &cols)) {
            fg_node_unsupported(n, "expert weights of unknown size");
            return 0;
        }
        block = cols;
    }
    scale = fg_widen(n, scale);
    if (zero) {
        if (fg_rank(n, zero) == 2)
            zero = fg_insert1(n, zero, 2, 1);
        zero = unpack_bits(n, zero, bits);
        zero =
            zero ? fg_emit_slice_axis(n->b, zero, 2, fg_c(n, 0), fg_dim(n, scale, 2)) : 0;
    } else {
        zero = middle(n, fg_elem(n, data), bits);
    }
    return zero ? fg_dequantize(n, data, scale, zero, 2, block, fg_elem(n, scale)) : 0;
}

bool
fg_onnx_ms_qmoe(fg_node *n)
{
    fg_reg x = fg_need(n, 0), logits = fg_need(n, 1);
    fg_experts e = {{0}, {0}};

    if (strcmp(fg_attr_str(n, "quant_type", "int"), "int") != 0)
        return fg_node_unsupported(n, "quant_type \"%s\"",
                                   fg_attr_str(n, "quant_type", "int"));
    if (n->nin > 14)
        return fg_node_unsupported(n, "router weights or activation scales");
    if (!x || !logits || !fg_need(n, 2) || !fg_need(n, 3) || !fg_need(n, 5) ||
        !fg_need(n, 6))
        return false;
    for (int k = 0; k < 3; k++) {
        e.w[k] = expert_weight(n, 2 + 3 * k, 3 + 3 * k, 11 + k);
        e.bias[k] = fg_in(n, 4 + 3 * k);
    }
    return fg_yield(n, fg_mixture(n, x, logits, &e));
}
