/* algebra.h - rewriting rules of the fold pass, as tables.
 *
 * The law. A rule keeps element type and shape. It never makes more work, dearer work or
 * more memory. It looks at definitions, never at how often a register is read. It may
 * change a result only where its row says so. Operand order needs no second rule: rules
 * try both orders of commutative operations themselves.
 */
#ifndef FG_PASSES_ALGEBRA_H
#define FG_PASSES_ALGEBRA_H

#include "ir/ir.h"

typedef enum {
    FG_DIFFERS_NOWHERE,
    FG_DIFFERS_ZERO_SIGN, /* -0 may become 0 or the reverse */
    FG_DIFFERS_ROUNDING,  /* last bit, or where the old form overflowed on the way */
    FG_DIFFERS_SUMS       /* sums are rounded elsewhere, or not at all */
} fg_differs;

/* The register to read instead of i's only result; 0 when the rule does not apply. New
 * instructions go through b. */
typedef fg_reg fg_rule_fn(fg_build *b, fg_inst *i);

typedef struct fg_rule {
    fg_op op; /* of the instruction to replace; FG_OP_NONE: any */
    fg_rule_fn *run;
    fg_differs differs;
    const char *law;
} fg_rule;

#define FG_RULE(op, run, differs, law) {FG_OP_##op, run, FG_DIFFERS_##differs, law},

/* Terminated by a row without function. */
extern const fg_rule fg_rules_arith[], fg_rules_cast[], fg_rules_view[], fg_rules_index[],
    fg_rules_quant[], fg_rules_cache[]; /* for the states pass */

/* What the first rule of the table that applies makes of i; 0 when none does. */
fg_reg fg_rules_apply(fg_build *b, fg_inst *i, const fg_rule *table);

/* i once more, with other operands; 0 when one of them is missing. */
fg_reg fg_emit_again(fg_build *b, const fg_inst *i, const fg_reg *in);

/* Operand of i that is not the constant splat *v; -1 when there is none. From position
 * 0 on for commutative operations, else only the second operand counts. */
int fg_splat_operand(const fg_module *m, const fg_inst *i, double *v);
/* x when it has exactly the type of i's result, else 0. */
fg_reg fg_same_type(const fg_module *m, const fg_inst *i, fg_reg x);
/* Definition of operand k when it is a `op`, else NULL. */
fg_inst *fg_operand_def(const fg_module *m, const fg_inst *i, int k, fg_op op);

/* An integer register as a linear function of the position: its element at [c0, c1, ..]
 * is start + sum of coef c[axis]. Axes of the terms differ. */
enum { FG_AFFINE_TERMS = 4 };
typedef struct fg_affine {
    int n;
    struct {
        int axis;
        fg_expr coef;
    } term[FG_AFFINE_TERMS];
    fg_expr start;
} fg_affine;
bool fg_find_affine(fg_module *m, fg_reg r, fg_affine *out); /* false: cannot be shown */
/* Entry c of the tuples along the last axis of a constant; axes count without it. */
bool fg_find_affine_entry(fg_module *m, fg_reg r, int64_t c, fg_affine *out);

#endif
