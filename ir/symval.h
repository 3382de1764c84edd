/* symval.h - looking up single elements symbolically. Only ir/symval*.c include this. */
#ifndef FG_IR_SYMVAL_H
#define FG_IR_SYMVAL_H

#include "ir/ir.h"

typedef struct fg_frac {
    fg_expr num; /* FG_E_BAD: not known */
    int64_t den; /* > 0; 1 for every integer register */
} fg_frac;

typedef struct fg_look {
    fg_module *m;
    fg_exprs *ex;
    int fuel, depth; /* bound the work on chains that share operands */
} fg_look;

/* Element i (row-major) of a register. */
fg_frac fg_look_at(fg_look *l, fg_reg r, int64_t i);
bool fg_look_const(fg_look *l, fg_reg r, int64_t i, int64_t *v);

/* Element i of the result of an instruction. */
typedef fg_frac fg_elem_fn(fg_look *l, const fg_inst *inst, int64_t i);
fg_elem_fn *fg_elem_rule(fg_op op); /* NULL: never known */

/* Constant sizes of a register; row-major strides, which need no constant first size. */
bool fg_look_dims(fg_module *m, fg_reg r, int64_t *dim);
bool fg_look_strides(fg_module *m, fg_reg r, int64_t *stride);

fg_elem_fn fg_elem_transpose, fg_elem_slice, fg_elem_concat, fg_elem_pad, fg_elem_gather,
    fg_elem_gather_elements, fg_elem_gather_nd, fg_elem_scatter_elements,
    fg_elem_scatter_nd, fg_elem_reduce, fg_elem_cumsum, fg_elem_nonzero_count;

#endif
