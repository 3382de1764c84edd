/* op.h - ops.def as tables. */
#ifndef FG_IR_OP_H
#define FG_IR_OP_H

/* clang-format off: members and their comments stand in columns */

#include "ir/type.h"

typedef enum {
    FG_OP_NONE,
#define OP(id, ...) FG_OP_##id,
#include "ir/ops.def"
    FG_NOPS
} fg_op;

/* One index per attribute of all ops; an op's own are consecutive from attr0. */
typedef enum {
#define OP(id, ...)
#define ATTR(op, name, ...) FG_AT_##op##_##name,
#include "ir/ops.def"
    FG_NATTRS
} fg_attrid;

enum {
    FG_T_PURE = 1,
    FG_T_COMM = 2,
    FG_T_ELEM = 4,
    FG_T_VIEW = 8,
    FG_T_REGION = 16,
    FG_T_TERM = 32,
    FG_T_EFFECT = 64,
    FG_T_ANCHOR = 128
};

typedef enum {
    FG_AK_int,
    FG_AK_flag,
    FG_AK_flt,
    FG_AK_dtype,
    FG_AK_expr,
    FG_AK_exprs,
    FG_AK_ints,
    FG_AK_word,
    FG_AK_weight,
    FG_AK_sym,
    FG_AK_syms
} fg_attrkind;

typedef struct fg_attr {
    union {
        int64_t i; /* int, flag, dtype, weight, sym */
        double f;
        fg_expr e;
        const char *s; /* word, interned */
        fg_expr *es;   /* exprs */
        int64_t *is;   /* ints, syms */
    };
    int n; /* length of a list */
} fg_attr;

typedef struct fg_attrinfo {
    const char *name, *meaning;
    fg_attrkind kind;
    fg_attr dflt;
} fg_attrinfo;

#define FG_OUTS_N (-1)
#define FG_MAXOPERANDS 7 /* operand words in a row; the last may repeat */

typedef enum {
    FG_IN_any,
    FG_IN_num,
    FG_IN_flt,
    FG_IN_int,
    FG_IN_bool,
    FG_IN_i64,
    FG_IN_same
} fg_inclass;

typedef struct fg_operand {
    uint8_t cls;
    bool optional, repeat;
} fg_operand;

struct fg_infer;    /* ir/ir.h */
struct fg_evalcall; /* ir/eval.h */

typedef struct fg_opinfo {
    const char *name, *operands, *meaning;
    int nout; /* FG_OUTS_N: per instruction */
    unsigned traits;
    int attr0, nattr;
    fg_operand operand[FG_MAXOPERANDS];
    int noperand, min_in, max_in; /* max_in = INT_MAX when the last repeats */
    bool (*shape)(struct fg_infer *);
    bool (*eval)(struct fg_evalcall *); /* NULL: the evaluator's walk */
} fg_opinfo;

extern const fg_attrinfo fg_attrs[FG_NATTRS];
const fg_opinfo *fg_op_info(fg_op op);
fg_op fg_op_by_name(const char *s, size_t n); /* FG_OP_NONE if none */
static inline bool fg_op_is(fg_op op, unsigned trait);

/* The rules named by ops.def: a missing one is a link error. */
#define OP(id, operands, outs, shape, ...) bool fg_shape_##shape(struct fg_infer *);
#include "ir/ops.def"
#define OP(id, operands, outs, shape, eval, ...)                                         \
    bool fg_eval_##eval(struct fg_evalcall *);
#include "ir/ops.def"

static inline bool
fg_op_is(fg_op op, unsigned trait)
{
    return (fg_op_info(op)->traits & trait) != 0;
}

/* clang-format on */
#endif
