/* quant.h - products with weights of 4, 8 or 16 bits, read as they lie in the model file.
 *
 *     %w = dequantize %q, %s, %z {axis=1, block=32} : f32[N,K]
 *     %y = matmul %x, %w {trans_b=1, round=32}
 *
 * Rows of %q are contiguous along k. Scales are taken out of the sums, so that what is
 * summed are small integers: products of bytes when x is rounded to 8 bits (`round`),
 * else f32.
 */
#ifndef FG_CODEGEN_CPU_QUANT_H
#define FG_CODEGEN_CPU_QUANT_H

#include "codegen/cpu/gemm.h"
#include "codegen/cpu/strided.h"

/* What a kernel has to know when it is emitted. A lane is 32 bits of weights. */
typedef struct fg_qform {
    int bits;      /* of a weight: 4 or 8; 16: bf16, which have no scales */
    bool sign;     /* two's complement; the kernels flip the top bit */
    bool zeros;    /* zero points differ, beside the one number that serves all */
    int64_t block; /* weights under one scale; 0: a whole row */
    int64_t round; /* elements of x under one scale; 0: x stays f32 */
} fg_qform;

static inline int
fg_q_each(const fg_qform *f) /* weights in a lane */
{
    return 32 / f->bits;
}

/* Bytes of a prepared row of x per vector of weights. */
int fg_q_unit_bytes(fg_ll *g, const fg_qform *f);

/* x[m][k] to dst[m][ld] as the sums want it. bytes: room for a rounded row, and 64 more;
 * steps: for its scales, one per `round` elements, and 64 more. zero: of all weights,
 * after the flip. */
typedef struct fg_q_prepare {
    fg_v x, ldx, m, k, dst, ld, bytes, steps, zero;
} fg_q_prepare;
void fg_q_prepare_rows(fg_ll *g, const fg_qform *f, const fg_q_prepare *p);

/* y[m][n] += x w[n]: rows of w ldw bytes apart, `lanes` long; scale[n][lds] and, when
 * zero points differ, scaled_zero[n][lds] (scale times zero point) as f32, with room for
 * whole vectors. y has room for whole vectors. */
typedef struct fg_q_few {
    fg_v x, ldx, m, w, ldw, lanes, scale, scaled_zero, lds, y, ldy, n, zero;
} fg_q_few;
void fg_q_few_columns(fg_ll *g, const fg_qform *f, const fg_q_few *p);

/* x[m][k], rows ldx bytes apart, rounded in place. */
void fg_q_round_rows(fg_ll *g, int64_t round, fg_v x, fg_v ldx, fg_v m, fg_v k);

/* ---- recognised products (matmul_quant.c) --------------------------------------- */

typedef struct fg_quant {
    fg_em *e;
    fg_qform form;
    fg_strided w; /* the weights, axes [n, k] */
    fg_reg scale, zero;
    int n_axis; /* of the dequantize: which of its two axes is n */
    int64_t one_zero;
    fg_expr first; /* column of the weights that is the product's first */
    fg_expr k, lanes, units, blocks;
    fg_v x, bytes, steps, scales, zeros; /* scratch */
    fg_v n, to;                          /* the line of scales under way */
    fg_reg from;
} fg_quant;

/* The second operand of a product as such weights; NULL: it is something else. */
fg_quant *fg_quant_of(fg_em *e, const fg_inst *matmul);
/* Few rows: y += the product of x and columns [col, col + n). */
void fg_quant_few(fg_quant *q, const fg_few *f, fg_v col, fg_v n);

#endif
