/* algebra_quant.c - rules of what is quantised: numbers stay integers for as long as they can.
 *
 *     matmul (dequantize %x, s, z), (dequantize %w, t)   => cast(matmul_int %x, %w, z) (s t)
 *     gather (dequantize %w, s), %ids                    => dequantize (gather %w, %ids), s
 *     quantize (reshape (dequantize %x, s, z)), s, z     => reshape %x
 *
 * Each function is one rule of the table at the end; the law is in algebra.h.
 */
#include <math.h>

#include "passes/algebra.h"

/* One scale with which k s / s differs from the integer k of 16 bits by far less than a
 * half: neither k s nor s loses bits. */
static bool
plain_scale(const fg_module *m, fg_reg r)
{
    bool half = fg_rt(m, r)->dtype == FG_f16;
    double s;
    return fg_const_splat(m, r, &s) && fabs(s) > (half ? 0x1p-13 : 0x1p-100) &&
           fabs(s) < (half ? 0x1p-1 : 0x1p100);
}

/* quantize(view(dequantize q)) = view(q) for one scale and zero point. */
static fg_reg
quantized_again(fg_build *b, fg_inst *i)
{
    enum { MAXVIEWS = 4 };
    fg_inst *view[MAXVIEWS], *d = fg_def(b->m, i->in[0]);
    int n = 0;
    while (d && n < MAXVIEWS && (d->op == FG_OP_reshape || d->op == FG_OP_transpose)) {
        view[n++] = d;
        d = fg_def(b->m, d->in[0]);
    }
    if (!fg_is_op(d, FG_OP_dequantize) || d->nin != i->nin || d->in[1] != i->in[1] ||
        (i->nin > 2 && d->in[2] != i->in[2]) || !plain_scale(b->m, i->in[1]) ||
        fg_dtypes[fg_rt(b->m, d->in[0])->dtype].bits > 16 ||
        fg_rt(b->m, d->in[0])->dtype != fg_rt(b->m, i->out[0])->dtype)
        return 0;
    fg_reg x = d->in[0];
    while (n-- > 0) {
        const fg_type t = *fg_rt(b->m, view[n]->out[0]);
        x = view[n]->op == FG_OP_reshape
                ? fg_emit_reshape(b, x, t.rank, t.dim)
                : fg_emit_transpose(b, x, FG_GET(view[n], transpose, perm).is);
    }
    return x;
}

/* Zero points that are all the same are one, and the usual ones of packed weights need no
 * memory. */
static fg_reg
one_zero_point(fg_build *b, fg_inst *i)
{
    fg_reg in[FG_MAXOPERANDS];
    int last = i->nin - 1;
    const fg_weight *w = last >= 2 ? fg_reg_weight(b->m, i->in[last]) : NULL;
    const unsigned char *p = w ? w->data : NULL;
    if (!p || w->rank == 0 || !w->bytes || fg_dtypes[w->dtype].bits > 8 ||
        (fg_dtypes[w->dtype].bits == 4 && (w->bytes < 2 || p[0] >> 4 != (p[0] & 15))) ||
        memcmp(p, p + 1, w->bytes - 1))
        return 0;
    unsigned char one = fg_dtypes[w->dtype].bits == 4 ? p[0] & 15 : p[0];
    memcpy(in, i->in, (size_t)last * sizeof *in);
    in[last] = fg_emit_const(b, w->dtype, 0, NULL, &one);
    return fg_emit_again(b, i, in);
}

/* ---- products ---------------------------------------------------------------------- */

static bool
one_element(fg_module *m, fg_reg r)
{
    return fg_e_is(m->ex, fg_type_count(m->ex, fg_rt(m, r)), 1);
}

/* Constants of which two, and i32 sums times them, have a product that loses nothing. */
static bool
tame(const fg_module *m, fg_reg r)
{
    double s;
    int64_t k = 0;
    if (fg_rt(m, r)->dtype != FG_f32)
        return false;
    for (; fg_const_f64(m, r, k, &s); k++)
        if (!(fabs(s) > 0x1p-40 && fabs(s) < 0x1p40))
            return false;
    return k > 0 && fg_e_is(m->ex, fg_type_count(m->ex, fg_rt(m, r)), k);
}

/* Bytes that are dequantised by one scale and zero point, or along `axis` by as many scales. */
static fg_inst *
dequantised_bytes(const fg_module *m, fg_reg r, int axis)
{
    fg_inst *d = fg_def(m, r);
    if (!fg_is_op(d, FG_OP_dequantize) ||
        fg_dtypes[fg_rt(m, d->in[0])->dtype].bits != 8 ||
        FG_GET(d, dequantize, block).i || fg_rt(m, r)->dtype != FG_f32 ||
        !tame(m, d->in[1]) ||
        (d->nin > 2 && d->in[2] && !one_element((fg_module *)m, d->in[2])))
        return NULL;
    return one_element((fg_module *)m, d->in[1]) || FG_GET(d, dequantize, axis).i == axis
               ? d
               : NULL;
}

static bool
is_constant(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    while (d && (d->op == FG_OP_transpose || d->op == FG_OP_reshape))
        d = fg_def(m, d->in[0]);
    return fg_is_op(d, FG_OP_const);
}

static fg_reg
zero_point(const fg_inst *d)
{
    return d->nin > 2 ? d->in[2] : 0;
}

/* The sums are exact: every factor is below 256, and there are few enough. Products of two
 * activations are left to attention. */
static fg_reg
product_of_bytes(fg_build *b, fg_inst *i)
{
    static const int64_t turn[] = {1, 0};
    enum { MOST_TERMS = INT32_MAX / (255 * 255) };
    fg_module *m = b->m;
    bool trans = FG_GET(i, matmul, trans_b).i != 0;
    const fg_type *tx = fg_rt(m, i->in[0]);
    fg_inst *x = dequantised_bytes(m, i->in[0], -1);
    fg_inst *w = dequantised_bytes(m, i->in[1], trans ? 0 : 1);
    int64_t k;
    if (!x || !w || FG_GET(i, matmul, trans_a).i || FG_GET(i, matmul, round).i ||
        fg_rt(m, i->in[1])->rank != 2 || !is_constant(m, w->in[0]) ||
        !fg_e_const(m->ex, tx->dim[tx->rank - 1], &k) || k > MOST_TERMS)
        return 0;
    fg_reg scale =
        fg_emit2(b, FG_OP_mul, fg_emit_reshape(b, x->in[1], 0, NULL), w->in[1]);
    fg_reg in[4] = {x->in[0], trans ? fg_emit_transpose(b, w->in[0], turn) : w->in[0],
                    zero_point(x), zero_point(w)};
    int n = in[3] ? 4 : in[2] ? 3 : 2;
    fg_inst *sum = in[1] ? fg_inst_begin(b, FG_OP_matmul_int, n, in) : NULL;
    if (!scale || !sum || !fg_inst_finish(b, sum, NULL, 0))
        return 0;
    return fg_emit2(b, FG_OP_mul, fg_emit_cast(b, sum->out[0], FG_f32), scale);
}

/* ---- lookups ----------------------------------------------------------------------- */

/* Rows of a packed table are widened, not the table. */
static fg_reg
gather_of_packed(fg_build *b, fg_inst *i)
{
    fg_module *m = b->m;
    fg_inst *d = fg_operand_def(m, i, 0, FG_OP_dequantize);
    int64_t axis = FG_GET(i, gather, axis).i;
    if (!d || !is_constant(m, d->in[0]))
        return 0;
    fg_reg in[3] = {0, d->in[1], zero_point(d)};
    int64_t along = FG_GET(d, dequantize, axis).i, block = FG_GET(d, dequantize, block).i;
    bool many = !one_element(m, in[1]) || (in[2] && !one_element(m, in[2]));
    if (many && along == axis)
        return 0;
    if (block)
        for (int k = 1; k < 3 && in[k]; k++)
            if (fg_rt(m, in[k])->rank &&
                !(in[k] = fg_emit_gather(b, in[k], i->in[1], (int)axis)))
                return 0;
    in[0] = fg_emit_gather(b, d->in[0], i->in[1], (int)axis);
    fg_inst *y = in[0] ? fg_inst_begin(b, FG_OP_dequantize, d->nin, in) : NULL;
    if (!y)
        return 0;
    FG_SET(y, dequantize, axis).i =
        along < axis || !many ? along : along + fg_rt(m, i->in[1])->rank - 1;
    FG_SET(y, dequantize, block).i = block;
    FG_SET(y, dequantize, to).i = FG_GET(d, dequantize, to).i;
    return fg_inst_finish(b, y, NULL, 0) ? y->out[0] : 0;
}

/* clang-format off */
const fg_rule fg_rules_quant[] = {
    FG_RULE(quantize,    quantized_again,      NOWHERE,  "of what was dequantised so")
    FG_RULE(dequantize,  one_zero_point,       NOWHERE,  "with equal zero points")
    FG_RULE(matmul_int,  one_zero_point,       NOWHERE,  "with equal zero points")
    FG_RULE(matmul,      product_of_bytes,     SUMS,     "of bytes, dequantised")
    FG_RULE(gather,      gather_of_packed,     NOWHERE,  "of dequantised rows")
    { FG_OP_NONE, NULL, FG_DIFFERS_NOWHERE, NULL },
};
/* clang-format on */
