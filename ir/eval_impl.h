/* eval_impl.h - what the evaluator's own files share: numbers, offsets, complaints.
 *
 * A number is a double or 64 bits of integer, whichever its tensor's class says. Signed
 * elements are sign-extended and unsigned ones zero-extended, so that sums, differences and
 * products modulo 2^64 are right for both and wrap on the way back into the tensor.
 */
#ifndef FG_IR_EVAL_IMPL_H
#define FG_IR_EVAL_IMPL_H

#include "ir/eval.h"

typedef union fg_num {
    double f;   /* FLOAT */
    uint64_t u; /* SINT, UINT, BOOL */
} fg_num;

fg_num fg_num_get(const fg_tensor *t, int64_t i);
void fg_num_put(fg_tensor *t, int64_t i, fg_num v); /* rounds once, or wraps */
/* n elements from `off` on, `stride` apart. */
void fg_num_load(const fg_tensor *t, int64_t off, int64_t stride, int64_t n, fg_num *out);
void fg_num_store(fg_tensor *t, int64_t off, int64_t n, const fg_num *in);
/* acc[k] += w x[k stride], of one class. */
void fg_num_add_scaled(bool flt, fg_num *acc, fg_num w, const fg_num *x, int64_t stride,
                       int64_t n);
/* Numbers of one class as unsigned keys in the same order; NaN above everything. */
uint64_t fg_num_key(fg_dtype d, fg_num v);
/* The least and the greatest value of a type; infinities for floats. */
fg_num fg_num_least(fg_dtype d);
fg_num fg_num_greatest(fg_dtype d);
static inline bool
fg_num_is_nan(fg_dtype d, fg_num v)
{
    return fg_is_float(d) && v.f != v.f;
}

/* Element j of src to element i of dst, bit for bit: both of one type. */
void fg_tensor_move(fg_tensor *dst, int64_t i, const fg_tensor *src, int64_t j);
void fg_tensor_strides(const fg_tensor *t, int64_t *stride); /* row-major, in elements */
int64_t fg_span(const fg_tensor *t, int from, int to); /* product of dim[from..to) */

/* Visits a shape in row-major order and keeps an offset into each of some tensors that
 * see the shape through strides of their own (0: broadcast). */
#define FG_WALK_MAX 4
typedef struct fg_walk {
    int rank, n;
    int64_t dim[FG_MAXRANK], at[FG_MAXRANK];
    int64_t off[FG_WALK_MAX], stride[FG_WALK_MAX][FG_MAXRANK];
} fg_walk;
fg_walk fg_walk_new(int rank, const int64_t *dim);
int64_t *fg_walk_add(fg_walk *w,
                     const fg_tensor *t); /* its strides; t's rank is the walk's */
/* t broadcast to the shape from the right; false when it does not fit. */
bool fg_walk_broadcast(fg_walk *w, const fg_tensor *t);
void fg_walk_next(fg_walk *w);

bool fg_eval_error(fg_evalcall *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
bool fg_eval_expr(fg_evalcall *c, fg_expr e, int64_t *v); /* false with a diagnostic */

#endif
