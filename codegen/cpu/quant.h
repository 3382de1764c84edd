/* quant.h - products with weights of 4, 8 or 16 bits, read as they lie in the model file.
 *
 *     %w = dequantize %q, %s, %z {axis=1, block=32} : f32[N,K]
 *     %r = dequantize %b, %t, 128 {axis=1, block=32} : f32[M,K]
 *     %y = matmul %r, %w {trans_b=1}
 *
 * Rows of %q are contiguous along k. Scales are taken out of the sums, so that what is
 * summed are small integers: products of bytes when the left side is bytes too, as
 * quantize_rows makes them (`round`), else f32.
 */
#ifndef FG_CODEGEN_CPU_QUANT_H
#define FG_CODEGEN_CPU_QUANT_H

#include "codegen/cpu/gemm.h"
#include "codegen/cpu/strided.h"

/* What a kernel has to know when it is emitted. A lane is 32 bits of weights. */
typedef struct fg_qform {
    int bits;       /* of a weight: 4 or 8; 16: bf16, which have no scales */
    bool sign;      /* two's complement; the kernels flip the top bit */
    bool zeros;     /* zero points differ, beside the one number that serves all */
    int64_t block;  /* weights under one scale; 0: a whole row */
    int64_t round;  /* x is bytes, so many of them under one scale; 0: x is f32 */
    fg_dtype scale; /* of blocks, as few rows read them: f16 or f32 */
} fg_qform;

static inline int
fg_q_each(const fg_qform *f) /* weights in a lane */
{
    return 32 / f->bits;
}

/* Bytes of a prepared row of x per vector of weights. */
int fg_q_unit_bytes(fg_ll *g, const fg_qform *f);

/* x[m][k] to dst[m][ld] as the sums want it; of bytes, with the scales s[m]. bytes: room for a
 * row, and 64 more; steps: for its scales, one per `round` elements, and 64 more. zero: of
 * all weights, after the flip. */
typedef struct fg_q_prepare {
    fg_v x, ldx, m, k, dst, ld, bytes, steps, zero, s, lds;
} fg_q_prepare;
void fg_q_prepare_rows(fg_ll *g, const fg_qform *f, const fg_q_prepare *p);

/* y[m][n] += x w[n]: rows of w ldw bytes apart, `lanes` long; lines of scales lds bytes
 * apart and, when zero points differ, of scales times zero points, f32, ldz apart. y has
 * room for whole vectors. */
typedef struct fg_q_few {
    fg_v x, ldx, m, w, ldw, lanes, scale, lds, scaled_zero, ldz, y, ldy, n, zero;
} fg_q_few;
void fg_q_few_columns(fg_ll *g, const fg_qform *f, const fg_q_few *p);

bool fg_q_helper(fg_ll *g, const fg_qform *f, const char *what, int n, const fg_t *param,
                 ll_place *back, fg_v *fn);

/* ---- many rows (quant_tile.c) --------------------------------------------------- */

/* How such a product is cut. Sums are i32 within a run, f32 across runs. */
fg_tile fg_q_tile(fg_ll *g);
/* Bytes of weights under one scale of x, in quads of 4: the turns of a tile's inner loop. */
static inline int64_t
fg_q_quads(const fg_qform *f)
{
    return f->round / 4;
}

/* Columns [0, n) at w to bytes in the order of the tiles: panel[k / 4][NR][4], zero points
 * taken off; then start[run][NR], what sums begin with so that bytes of x may be 128 too
 * large. zeros[run][NR], f32, of `lanes` long rows when zero points differ. */
typedef struct fg_q_pack {
    fg_v w, ldw, lanes, n, runs, panel, start, zeros, zero;
} fg_q_pack;
void fg_q_pack_panel(fg_ll *g, const fg_tile *t, const fg_qform *f, const fg_q_pack *p);
/* Rows of a panel that fg_q_pack_panel may write: quads. */
fg_expr fg_q_panel_quads(fg_ll *g, fg_exprs *t, const fg_qform *f, fg_expr k);
/* The micro-kernel, for fg_panel: a is bytes, ska quads of a run, k runs, beside the scales of
 * x; more: start, scales of w, bytes between those of two runs. */
fg_v fg_q_tile_kernel(fg_ll *g, void *maker, const fg_tile *t, int n);
/* The same of one run of any length: its sums, in i32, unscaled; with a maker, what stands
 * beside a row, i32, is added to its sums. */
fg_v fg_q_exact_kernel(fg_ll *g, void *maker, const fg_tile *t, int n);

/* x[m][k], rows ldx bytes apart, rounded in place (quant_rows.c). */
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
    fg_strided left, steps_of; /* with `round`: x and its scales, axes [rows, k] */
    bool lie; /* scales of blocks are read where they lie: at `lines`, axes [n, block] */
    fg_strided lines;
    bool tiles; /* of bytes (see fg_q_pack_panel), or of pairs of bf16, for many rows */
    fg_tile tile;
    fg_v x, bytes, steps, scales, zeros;         /* scratch */
    fg_v panel, start, scale_rows, zero_rows, a; /* of tiles */
    fg_v n, to;                                  /* the line of scales under way */
    enum { FG_Q_SCALE, FG_Q_ZERO, FG_Q_SCALED_ZERO } what;
} fg_quant;

/* The second operand of a product of `rows` rows as such weights, and the first as bytes if
 * it is; NULL: they are something else. */
fg_quant *fg_quant_of(fg_em *e, const fg_inst *matmul, fg_expr rows);
/* Few rows: y += the product of x and columns [col, col + n). */
void fg_quant_few(fg_quant *q, const fg_few *f, fg_v col, fg_v n);
/* Many rows, with `tiles`: their memory; fg_product's multiply, and the address of rows of x. */
void fg_quant_take_tiles(fg_quant *q);
void fg_quant_multiply(fg_quant *q, fg_panel *p, fg_v first, fg_v col, fg_v n);
fg_v fg_quant_rows(fg_quant *q, fg_v row, fg_v n);

#endif
