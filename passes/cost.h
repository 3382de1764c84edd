/* cost.h - what running something takes, in microseconds: the one estimate that fusion,
 * alpha and the report go by. */
#ifndef FG_PASSES_COST_H
#define FG_PASSES_COST_H

#include "ir/ir.h"

/* Sizes are nominal: see fg_nominal_symbols. */
typedef struct fg_costs {
    fg_module *m;
    const int64_t *sym;
} fg_costs;
fg_costs fg_costs_new(fg_module *m, fg_arena *a);

/* Elements and bytes of a register; 0 when not known. */
double fg_cost_count(const fg_costs *c, fg_reg r);
double fg_cost_bytes(const fg_costs *c, fg_reg r);

double fg_cost_size(const fg_costs *c, fg_expr e);                  /* 1 when not known */
double fg_cost_scores(const fg_costs *c, const fg_inst *attention); /* elements */

/* What one core does in a microsecond, and what starting a kernel takes. */
typedef struct fg_rates {
    double flops, bytes, start_us;
} fg_rates;
extern const fg_rates fg_cost_rates; /* those that everything goes by */

/* A kernel of so many operations and bytes of memory traffic. */
double fg_cost_kernel(double flops, double bytes);
double fg_cost_kernel_at(const fg_rates *r, double flops, double bytes);

/* Multiply-adds that one element of an elementwise operation is worth. */
double fg_cost_element(fg_op op);

/* A value that a kernel may compute itself, or read once it is in memory. It is made of
 * tensors in memory, by way of others that would not be there otherwise. */
typedef struct fg_making {
    double kernel_flops, kernel_bytes; /* of the kernel without it */
    double elements, bytes;            /* bytes: those that the kernel looks at */
    double store;       /* bytes of all of it; 0: it is in memory in any case */
    double flops, once; /* of computing it in the kernel, and of doing so once */
    double read,
        more;       /* bytes it is made of; those of them the kernel does not read yet */
    double made;    /* bytes of results that another kernel would have to store */
    double kernels; /* that would compute it alike */
} fg_making;
/* What it saves that the kernel computes it, and what either takes. */
double fg_gain_computed(const fg_making *v, double *here, double *memory);
/* Multiply-adds of an instruction with a code generator of its own. */
double fg_cost_anchor(const fg_costs *c, const fg_inst *i);

/* What it saves that kernel b runs beside kernel a: `shared` bytes are read once, one
 * start is spared; if other kernels ran between, b's results wait in memory meanwhile. */
double fg_gain_beside(const fg_costs *c, const fg_inst *b, double shared, bool between);

/* What fusing attention saves whose scores have so many elements of so many bits: the
 * instructions between its two products would write and read them. */
double fg_gain_attention(double scores, int bits);
/* The same of an attention instruction. */
double fg_gain_attention_of(const fg_costs *c, const fg_inst *attention);

#endif
