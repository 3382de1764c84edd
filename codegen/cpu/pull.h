/* pull.h - the rules behind fg_pull: one per operation that can be read element by
 * element. */
#ifndef FG_CODEGEN_CPU_PULL_H
#define FG_CODEGEN_CPU_PULL_H

#include "codegen/cpu/emit.h"

/* The value of result r of i at ix. */
typedef fg_v fg_pullrule(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix);

fg_v fg_pull_inst(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix);
/* Whether there is a rule at all. */
bool fg_pull_can(fg_op op);

/* views.c */
fg_pullrule fg_pull_const, fg_pull_symvec, fg_pull_iota, fg_pull_copy, fg_pull_reshape,
    fg_pull_transpose, fg_pull_expand, fg_pull_slice, fg_pull_concat, fg_pull_append,
    fg_pull_pad;
/* gather.c */
fg_pullrule fg_pull_gather, fg_pull_gather_elements, fg_pull_gather_nd, fg_pull_rope;
/* grid.c */
fg_pullrule fg_pull_quantize, fg_pull_dequantize;
/* nest.c: a loop nest per element */
fg_pullrule fg_pull_matmul, fg_pull_matmul_panels, fg_pull_matmul_int, fg_pull_conv,
    fg_pull_conv_transpose, fg_pull_max_pool, fg_pull_avg_pool, fg_pull_reduce,
    fg_pull_arg;
/* Loops from 0 to size[k], the last innermost, all carrying acc[nacc]; acc becomes the
 * carried values of the innermost, and after closing those at the end. */
typedef struct fg_nest {
    int n;
    ll_loop l[FG_MAXRANK + 1];
    fg_scopemark scope;
} fg_nest;
void fg_nest_open(fg_em *e, fg_nest *s, int n, const fg_v *size, int nacc, fg_v *acc);
void fg_nest_close(fg_em *e, fg_nest *s, int nacc, fg_v *acc);

/* A loaded index as a position on an axis of n: negative ones count from the end, what
 * is out of range is clamped, so that no index tensor can make a kernel touch other
 * memory. */
fg_index fg_position(fg_em *e, fg_v v, fg_dtype d, fg_expr n);

/* r at ix, on an axis of n: 0 when there are no elements to clamp to. */
fg_v fg_pull_nonempty(fg_em *e, fg_reg r, fg_expr n, const fg_index *ix);

/* Shared with rows.c: start, step, accumulating type and end of a reduction, and the
 * test of argmax and argmin. */
fg_v fg_reduce_init(fg_em *e, fg_op op, fg_dtype d);
fg_v fg_reduce_step(fg_em *e, fg_op op, fg_dtype d, fg_v acc, fg_v x);
fg_dtype fg_reduce_type(fg_op op, fg_dtype d);
fg_v fg_reduce_finish(fg_em *e, fg_op op, fg_dtype d, fg_v acc, fg_v count);
fg_v fg_arg_better(fg_em *e, const fg_inst *i, fg_dtype d, fg_v x, fg_v best);
/* resize.c */
fg_pullrule fg_pull_resize;

/* cond ? yes : no, where both make code: a branch when cond is a scalar, else each
 * side under the lanes that want it, skipped when none does. */
typedef fg_v fg_sidefn(fg_em *e, void *user);
fg_v fg_pull_either(fg_em *e, fg_v cond, fg_sidefn *yes, fg_sidefn *no, void *user);

#endif
