/* ops.h - what the operator importers (ops_*.c) share on top of import.h.
 *
 * An importer composes registers; every emitter gives 0 once something failed, so
 * a formula is written without checks and fg_yield looks at the end.
 */
#ifndef FG_FRONTEND_OPS_H
#define FG_FRONTEND_OPS_H

#include "frontend/import.h"

/* clang-format off */

/* One instruction in the place of node n. */
#define E1(op, x)       fg_emit1(n->b, FG_OP_##op, (x))
#define E2(op, x, y)    fg_emit2(n->b, FG_OP_##op, (x), (y))
#define E3(op, x, y, z) fg_emit3(n->b, FG_OP_##op, (x), (y), (z))

static inline int fg_rank(const fg_node *n, fg_reg r) { return fg_rt(n->m, r)->rank; }
static inline fg_dtype fg_elem(const fg_node *n, fg_reg r)
{ return (fg_dtype)fg_rt(n->m, r)->dtype; }
static inline fg_expr fg_dim(const fg_node *n, fg_reg r, int axis)
{ return fg_rt(n->m, r)->dim[axis]; }
static inline fg_expr fg_c(const fg_node *n, int64_t v) { return fg_ec(n->ex, v); }

/* Results. fg_yield is result 0; both are false when r is 0. */
static inline bool
fg_yield_at(fg_node *n, int k, fg_reg r)
{
    if (k < n->nout)
        n->out[k] = r;
    return r != 0;
}
static inline bool fg_yield(fg_node *n, fg_reg r) { return fg_yield_at(n, 0, r); }
static inline bool fg_wants(const fg_node *n, int k)
{ return k < n->nout && n->pb->output[k] && n->pb->output[k][0]; }

/* ---- values ---------------------------------------------------------------------- */

fg_reg fg_num(fg_node *n, fg_reg like, double v);       /* scalar typed as `like` */
fg_reg fg_sym_scalar(fg_node *n, fg_expr e, fg_dtype to);
/* f16 and bf16 to f32, so that a formula rounds once: fg_narrow(n, formula(fg_widen(n,
 * x)), x). */
fg_reg fg_widen(fg_node *n, fg_reg x);
fg_reg fg_narrow(fg_node *n, fg_reg y, fg_reg like);
/* The one element of r as rank 0; diagnostic when r may hold another number. */
fg_reg fg_scalar(fg_node *n, fg_reg r, const char *what);
/* Operand k read when the program runs, every element as an expression in lo..hi: values
 * beyond are clamped, so that sentinels cannot overflow later arithmetic. But where lo is 0,
 * for sizes and counts, the run refuses what is negative. */
bool   fg_in_clamped(fg_node *n, int k, int64_t lo, int64_t hi, const fg_expr **v,
                     int *count);

/* ---- shapes ---------------------------------------------------------------------- */

fg_expr fg_dims_product(fg_node *n, fg_reg r, int from, int to);        /* [from, to) */
fg_reg  fg_flat2(fg_node *n, fg_reg x, int axis);       /* [before axis, from axis] */
fg_reg  fg_like_shape(fg_node *n, fg_reg x, fg_reg like);   /* reshape x */
fg_reg  fg_insert1(fg_node *n, fg_reg x, int at, int count);    /* axes of size 1 */
fg_reg  fg_along(fg_node *n, fg_reg v, int axis, int rank);     /* [1,..,C,..,1] */
fg_reg  fg_iota_along(fg_node *n, fg_expr len, int axis, int rank, fg_dtype to);
fg_reg  fg_expand_like(fg_node *n, fg_reg x, fg_reg like);
/* [start, start+size) of one axis, with constant bounds. */
fg_reg  fg_pad_zero(fg_node *n, fg_reg x, const fg_expr *before, const fg_expr *after);
fg_reg  fg_nonzero(fg_node *n, fg_reg x);        /* i64[rank, n] */
fg_reg  fg_cache_write(fg_node *n, fg_reg cache, fg_reg update, fg_reg start, int axis,
                       bool circular);
fg_reg  fg_part(fg_node *n, fg_reg x, int axis, int64_t start, int64_t size);

/* Axes of an operator, which may be known only when the program runs: then flag[a] is a
 * run-time symbol, 1 when axis a is meant. Their number is always known. */
typedef struct fg_axisset {
    int     rank, count;
    bool    given;              /* false: neither attribute nor operand was there */
    bool    known;              /* axis[] holds them, ascending */
    int64_t axis[FG_MAXRANK];
    fg_expr flag[FG_MAXRANK];   /* 0 or 1 */
    fg_reg  flags;              /* the same as i64[rank], when not known */
} fg_axisset;
bool fg_axisset_read(fg_node *n, int k, int rank, fg_axisset *s);
void fg_axisset_make(fg_node *n, fg_axisset *s, int rank, int count, const int64_t *axis);
/* Dims without the axes of s, and with axes of size 1 inserted where s says. */
bool fg_axisset_drop(fg_node *n, const fg_axisset *s, const fg_expr *dim, fg_expr *out);
bool fg_axisset_insert(fg_node *n, const fg_axisset *s, const fg_expr *dim, fg_expr *out);

bool fg_along_axis(fg_node *n, int k, fg_reg (*f)(fg_node *n, fg_reg x, int axis));

/* ---- composed operators used by several files ------------------------------------ */

fg_reg fg_matmul_any(fg_node *n, fg_reg x, fg_reg y);   /* NumPy rules, rank 1 too */
/* A product of operands that had ranks rx and ry: a vector was a row on the left, a column on
 * the right, and its axis goes from the result. */
fg_reg fg_product_shape(fg_node *n, fg_reg z, int rx, int ry);
fg_reg fg_norm_part(fg_node *n, fg_reg x, int axis, double eps);    /* no scale */
fg_reg fg_layernorm(fg_node *n, fg_reg x, fg_reg scale, fg_reg bias, int axis,
                    double eps);
fg_reg fg_rmsnorm(fg_node *n, fg_reg x, fg_reg scale, int axis, double eps);
/* 1 / sqrt(variance + eps) over axes axis.. , at least f32; *mean NULL: around 0. */
fg_reg fg_inverse_deviation(fg_node *n, fg_reg x, int axis, double eps, fg_reg *mean);
fg_reg fg_gemm(fg_node *n);                             /* Gemm with the operands of n */
/* Alpha and beta NaN: the activation's own defaults. */
fg_reg fg_activation(fg_node *n, const char *name, fg_reg x, double alpha, double beta);
/* Convolution with the attributes of node n (strides, pads, auto_pad, ..). */
fg_reg fg_conv(fg_node *n, fg_reg x, fg_reg w, fg_reg bias);
fg_reg fg_repeat_heads(fg_node *n, fg_reg x, fg_expr heads);    /* [B,heads,T,D] */

fg_reg fg_quantize(fg_node *n, fg_reg x, fg_reg scale, fg_reg zero, int axis,
                   int64_t block, fg_dtype to);
fg_reg fg_dequantize(fg_node *n, fg_reg x, fg_reg scale, fg_reg zero, int axis,
                     int64_t block, fg_dtype to);
fg_reg fg_quantize_dynamic(fg_node *n, fg_reg x, fg_reg *scale, fg_reg *zero);
fg_reg fg_matmul_int(fg_node *n, fg_reg x, fg_reg y, fg_reg zx, fg_reg zy);
/* i32 sums times both scales, plus bias unless it is 0. */
fg_reg fg_scaled_product(fg_node *n, fg_reg sum, fg_reg sx, fg_reg sy, fg_reg bias);

/* Attention: all tensors [B,H,S,D]; what is 0 or FG_E_BAD is absent. */
typedef struct fg_attention {
    fg_reg  q, k, v, mask, sink, lengths;
    double  scale, softcap;
    bool    causal;
    fg_expr offset;
    int64_t left, right;        /* -1: open */
    bool    empty_nan;          /* a row without keys is NaN instead of 0 */
} fg_attention;
fg_reg fg_attention_emit(fg_node *n, const fg_attention *a);
/* The same from primitives. *scores is what `stage` names: 0 scaled, 1 capped, 2
 * masked, 3 softmax. */
fg_reg fg_attention_open(fg_node *n, const fg_attention *a, int stage, fg_reg *scores);
fg_reg fg_heads_apart(fg_node *n, fg_reg x, int64_t heads); /* [B,S,HD] to [B,S,H,D] */
fg_reg fg_heads_split(fg_node *n, fg_reg x, int64_t heads); /* [B,S,HD] to [B,H,S,D] */
fg_reg fg_heads_merge(fg_node *n, fg_reg x);                    /* and back */
fg_reg fg_rope(fg_node *n, fg_reg x, fg_reg cos, fg_reg sin, bool interleaved,
               int64_t dim);
/* x[B,H,S,D] rotated by rows `position` (int [B,S]) of the caches [max, D/2]. */
fg_reg fg_rope_cached(fg_node *n, fg_reg x, fg_reg position, fg_reg cos, fg_reg sin,
                      bool interleaved);

/* A loop over t = 0 .. count-1 (i64 scalar): f makes, from the state, the next state
 * and an output; the outputs are stacked on a new axis 0. */
enum { FG_MAXSTATE = 2 };
typedef bool fg_step(fg_node *n, void *arg, fg_reg t, const fg_reg *state, fg_reg *next,
                     fg_reg *out);
bool fg_steps(fg_node *n, fg_expr count, int nstate, const fg_reg *start, fg_step *f,
              void *arg, fg_reg *state, fg_reg *out);

/* Experts of a mixture: layers 1, 2 and, where the gate is separate, 3; [E, out, in]
 * and [E, out]. */
typedef struct fg_experts { fg_reg w[3], bias[3]; } fg_experts;
fg_reg fg_mixture(fg_node *n, fg_reg x, fg_reg logits, const fg_experts *e);

/* clang-format on */

#endif
