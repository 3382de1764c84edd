/* eval.h - the evaluator: every operation computed slowly and obviously. Oracle for rules, kernels and
 * targets, and the engine of constant folding. Never in the run path. */
#ifndef FG_IR_EVAL_H
#define FG_IR_EVAL_H

/* clang-format off: members and their comments stand in columns */

#include "ir/ir.h"

typedef struct fg_tensor { /* a value with concrete shape; row-major, packed */
    fg_dtype dtype;
    int rank;
    int64_t dim[FG_MAXRANK];
    int64_t count; /* product of dim */
    void *data;    /* sub-byte types packed; NULL: absent operand */
} fg_tensor;

extern const size_t fg_eval_cap; /* bytes of one tensor: 1 GiB */

/* Zeroed storage from a; false with a diagnostic when larger than the evaluator's cap
 * (fg_eval_cap bytes) or on overflow. */
bool fg_tensor_new(fg_arena *a, fg_tensor *t, fg_dtype d, int rank, const int64_t *dim);
double fg_tensor_f64(const fg_tensor *t, int64_t i);  /* element as a number */
int64_t fg_tensor_i64(const fg_tensor *t, int64_t i); /* exact for 64-bit integers */
void fg_tensor_set_f64(fg_tensor *t, int64_t i,
                       double v); /* rounds; saturates for integers */
void fg_tensor_set_i64(fg_tensor *t, int64_t i, int64_t v); /* wraps */

typedef struct fg_evalcall {
    fg_module *m;
    fg_inst *i;
    fg_arena *a;         /* results live here */
    fg_arena *scratch;   /* freed after the instruction */
    const int64_t *sym;  /* values of the symbols, for exprs in attributes and types */
    const fg_tensor *in; /* [nin] */
    fg_tensor *out;      /* [nout]: dtype, rank, dim set from the result type and
                                   data allocated before the call */
} fg_evalcall;

/* Runs @main. `in` by position (input ports), out[noutput] filled. sym is found from the shapes
 * of the inputs (checked; a diagnostic names the dimension). regs, when not NULL, receives every
 * register's value by number (arena a). max_steps bounds loop iterations; 0: 1e6. */
bool fg_eval(fg_module *m, fg_arena *a, const fg_tensor *in, fg_tensor *out,
             fg_tensor *regs);
/* One pure instruction on constants; symbols must not be needed. For folding. */
bool fg_eval_inst(fg_module *m, fg_inst *i, fg_arena *a, const fg_tensor *in,
                  fg_tensor *out);
/* Solve the symbols from input shapes: sym[fg_sym_count]. Shared with tests and tools. */
bool fg_bind_symbols(fg_module *m, const fg_tensor *in, int64_t *sym);

/* clang-format on */
#endif
