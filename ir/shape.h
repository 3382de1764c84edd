/* shape.h - what the shape rules share. Only ir/shape*.c include this. */
#ifndef FG_IR_SHAPE_H
#define FG_IR_SHAPE_H

#include "ir/ir.h"

const char *fg_dim_text(fg_module *m, fg_expr e);

/* Each records the complaint and returns false when its condition does not hold. */
bool fg_infer_axis(fg_infer *s, int64_t axis, int rank, const char *what);
bool fg_infer_equal(fg_infer *s, fg_expr a, fg_expr b, const char *what); /* unifies */
bool fg_infer_length(fg_infer *s, int have, int want, const char *what);
bool fg_infer_rank(fg_infer *s, int operand, int lo, int hi);
bool fg_infer_word(fg_infer *s, const char *word, const char *const *known, int n,
                   const char *what);

/* What the rules `same` and `given` check beyond the result type, by operation. */
bool fg_check_scatter_elements(fg_infer *s);
bool fg_check_scatter_nd(fg_infer *s);
bool fg_check_softmax(fg_infer *s);
bool fg_check_norm(fg_infer *s);
bool fg_check_rope(fg_infer *s);
bool fg_check_window(fg_infer *s);
bool fg_check_conv_transpose(fg_infer *s);
bool fg_check_resize(fg_infer *s);

#endif
