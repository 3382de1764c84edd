/* expr_impl.h - the table behind fg_exprs, shared by expr.c and expr_bounds.c. */
#ifndef FG_IR_EXPR_IMPL_H
#define FG_IR_EXPR_IMPL_H

/* clang-format off: members and their comments stand in columns */

#include "ir/expr.h"

/* Beyond any of these: FG_E_BAD. */
enum { MAXTERMS = 64, MAXDEGREE = 16 };

typedef struct term {
    int64_t coef;
    int natom;
    uint32_t *atom; /* ascending */
} term;

typedef struct poly {
    int n;
    term *t;
    int depth;           /* of nested atoms */
    int64_t lo, hi;      /* bounds when it was made; symbols only get tighter */
    uint32_t generation; /* `renewed` is valid for this one */
    fg_expr renewed;
} poly;

struct fg_exprs {
    fg_arena *a;
    int depth; /* of atoms within atoms, at most: it bounds every walk over an expression */
    poly *poly;
    uint32_t npoly;
    size_t cappoly;
    fg_atom *atom;
    uint32_t natom;
    size_t capatom;
    fg_syminfo *sym;
    uint32_t nsym;
    size_t capsym;
    uint32_t *hash, cap_hash;   /* ids by content */
    uint32_t *ahash, cap_ahash; /* atom + 1 by content */
    uint32_t generation;        /* counts unifications */
};

void fg_poly_bounds(fg_exprs *t, const poly *p, int64_t *lo,
                    int64_t *hi); /* expr_bounds.c */

/* clang-format on */
#endif
