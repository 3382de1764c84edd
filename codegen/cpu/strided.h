/* strided.h - a chain of views as one base address and strides. */
#ifndef FG_CODEGEN_CPU_STRIDED_H
#define FG_CODEGEN_CPU_STRIDED_H

#include "codegen/cpu/emit.h"

/* Element (i0, i1, ..) of a register is element offset + sum i stride of the kernel's
 * operand `param`, in elements of its type. */
typedef struct fg_strided {
    int param;
    fg_dtype dtype;
    int rank;
    fg_expr dim[FG_MAXRANK], stride[FG_MAXRANK], offset;
} fg_strided;

/* Follows transposes, slices, expansions and those reshapes that strides can express.
 * False when r is anything else. */
bool fg_strided_of(fg_em *e, fg_reg r, fg_strided *v);
/* The same elements in row-major order under other dimensions; false when strides
 * cannot say it. */
bool fg_strided_reshape(fg_exprs *t, fg_strided *v, int rank, const fg_expr *dim);
void fg_strided_swap(fg_strided *v, int a, int b);

/* Strides of a register in the operand that most of its elements come from, arithmetic
 * looked through: tells which axis is contiguous in memory. False when unknown. */
bool fg_strided_source(fg_em *e, fg_reg r, fg_strided *v);

/* Whether the value of r may differ from place to place along an axis. */
bool fg_varies(fg_em *e, fg_reg r, int axis);

/* From an index of `from` to the index of the same element of `to`, which is made of
 * it by elementwise instructions and views that drop nothing. */
bool fg_forward_known(fg_em *e, fg_reg from, fg_reg to);
void fg_forward(fg_em *e, fg_reg from, fg_reg to, fg_index *ix);

#endif
