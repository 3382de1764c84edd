/* algebra.c - rules of arithmetic, logic and conversion.
 *
 *     mul %x, 1 => %x        div %x, 8 => mul %x, 0.125        neg(neg %x) => %x
 *     cast(cast %x {f64}) {f32} => %x          where true, %x, %y => %x
 *
 * Each function is one rule of the tables at the end; the law is in algebra.h.
 */
#include <math.h>

#include "passes/algebra.h"

/* ---- helpers ----------------------------------------------------------------------- */

fg_reg
fg_rules_apply(fg_build *b, fg_inst *i, const fg_rule *table)
{
    fg_module *m = b->m;
    for (const fg_rule *r = table; r->run; r++) {
        fg_reg x = r->op == i->op || r->op == FG_OP_NONE ? r->run(b, i) : 0;
        if (x && !fg_type_equal(fg_rt(m, x), fg_rt(m, i->out[0])))
            FG_BUG(m->cx, "rule \"%s\" makes %s of %s", r->law,
                   fg_type_text(m, fg_rt(m, x)), fg_type_text(m, fg_rt(m, i->out[0])));
        if (x)
            return x;
    }
    return 0;
}

fg_reg
fg_emit_again(fg_build *b, const fg_inst *i, const fg_reg *in)
{
    for (int k = 0; k < i->nin; k++)
        if (i->in[k] && !in[k])
            return 0;
    fg_inst *c = fg_inst_begin(b, i->op, i->nin, in);
    memcpy(c->attr, i->attr, sizeof *c->attr * (size_t)fg_op_info(i->op)->nattr);
    return fg_inst_finish(b, c, NULL, 0) ? c->out[0] : 0;
}

fg_reg
fg_same_type(const fg_module *m, const fg_inst *i, fg_reg x)
{
    return x && fg_type_equal(fg_rt(m, x), fg_rt(m, i->out[0])) ? x : 0;
}

fg_inst *
fg_operand_def(const fg_module *m, const fg_inst *i, int k, fg_op op)
{
    fg_inst *d = k < i->nin ? fg_def(m, i->in[k]) : NULL;
    return fg_is_op(d, op) ? d : NULL;
}

int
fg_splat_operand(const fg_module *m, const fg_inst *i, double *v)
{
    if (i->nin != 2)
        return -1;
    if (fg_const_splat(m, i->in[1], v))
        return 0;
    return fg_op_is(i->op, FG_T_COMM) && fg_const_splat(m, i->in[0], v) ? 1 : -1;
}

static bool
is_float(const fg_module *m, fg_reg r)
{
    return fg_is_float((fg_dtype)fg_rt(m, r)->dtype);
}

/* x repeated to the shape of i's result. */
static fg_reg
as_result(fg_build *b, fg_inst *i, fg_reg x)
{
    const fg_type *t = fg_rt(b->m, i->out[0]);
    return fg_rt(b->m, x)->dtype == t->dtype ? fg_emit_expand(b, x, t->rank, t->dim) : 0;
}

/* x when the other operand is the constant v. */
static fg_reg
neutral(fg_build *b, fg_inst *i, double v)
{
    double c;
    int k = fg_splat_operand(b->m, i, &c);
    return k >= 0 && c == v ? as_result(b, i, i->in[k]) : 0;
}

/* x of op(op(x)). */
static fg_reg
undone(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, i->op);
    return d ? fg_same_type(b->m, i, d->in[0]) : 0;
}

/* A power of two whose product with anything is exact unless it leaves the range. */
static bool
power_of_two(double v)
{
    int e;
    return isfinite(v) && v != 0 && fabs(frexp(v, &e)) == 0.5 && e > -14 && e < 14;
}

/* ---- arithmetic -------------------------------------------------------------------- */

static fg_reg
plus_zero(fg_build *b, fg_inst *i)
{
    return neutral(b, i, 0);
}

/* -0 - (-0) is 0. */
static fg_reg
minus_zero(fg_build *b, fg_inst *i)
{
    double v;
    bool plain = fg_const_splat(b->m, i->in[1], &v) && !signbit(v);
    return plain ? neutral(b, i, 0) : 0;
}

static fg_reg
times_one(fg_build *b, fg_inst *i)
{
    return neutral(b, i, 1);
}

static fg_reg
times_minus_one(fg_build *b, fg_inst *i)
{
    fg_reg x = neutral(b, i, -1);
    return x ? fg_emit1(b, FG_OP_neg, x) : 0;
}

static fg_reg
div_by_power(fg_build *b, fg_inst *i)
{
    double v;
    if (!is_float(b->m, i->in[0]) || !fg_const_splat(b->m, i->in[1], &v) ||
        !power_of_two(v) || !fg_same_type(b->m, i, i->in[0]))
        return 0;
    return fg_emit2(b, FG_OP_mul, i->in[0],
                    fg_emit_f(b, (fg_dtype)fg_rt(b->m, i->in[0])->dtype, 1 / v));
}

static fg_reg
one_over(fg_build *b, fg_inst *i)
{
    double v;
    if (!is_float(b->m, i->in[1]) || !fg_const_splat(b->m, i->in[0], &v) || v != 1 ||
        !fg_same_type(b->m, i, i->in[1]))
        return 0;
    return fg_emit1(b, FG_OP_recip, i->in[1]);
}

/* (x c1) c2, one of them a power of two: only that factor moves the exponent. */
static fg_reg
times_twice(fg_build *b, fg_inst *i)
{
    double c1, c2;
    int k = fg_splat_operand(b->m, i, &c2);
    fg_inst *d = k >= 0 ? fg_operand_def(b->m, i, k, FG_OP_mul) : NULL;
    int j = d ? fg_splat_operand(b->m, d, &c1) : -1;
    if (j < 0 || !is_float(b->m, i->in[k]) || !fg_same_type(b->m, i, d->in[j]))
        return 0;
    double c = c1 * c2;
    if (!(power_of_two(c1) || power_of_two(c2)) || fabs(c) < 1e-4 || fabs(c) > 1e4)
        return 0;
    return fg_emit2(b, FG_OP_mul, d->in[j],
                    fg_emit_f(b, (fg_dtype)fg_rt(b->m, d->in[j])->dtype, c));
}

/* (x + c1) + c2 on integers. */
static fg_reg
plus_twice(fg_build *b, fg_inst *i)
{
    double c1, c2;
    int k = fg_splat_operand(b->m, i, &c2);
    fg_inst *d = k >= 0 ? fg_operand_def(b->m, i, k, FG_OP_add) : NULL;
    int j = d ? fg_splat_operand(b->m, d, &c1) : -1;
    if (j < 0 || is_float(b->m, i->in[k]) || !fg_same_type(b->m, i, d->in[j]) ||
        fabs(c1) > 1e9 || fabs(c2) > 1e9)
        return 0;
    return fg_emit2(b, FG_OP_add, d->in[j],
                    fg_emit_f(b, (fg_dtype)fg_rt(b->m, d->in[j])->dtype, c1 + c2));
}

static fg_reg
small_power(fg_build *b, fg_inst *i)
{
    double v;
    fg_reg x = fg_same_type(b->m, i, i->in[0]);
    if (!x || !fg_const_splat(b->m, i->in[1], &v))
        return 0;
    if (v == 1)
        return x;
    if (!is_float(b->m, x)) /* integer powers end at the bound, products wrap */
        return 0;
    if (v == 2)
        return fg_emit2(b, FG_OP_mul, x, x);
    if (v == -1)
        return fg_emit1(b, FG_OP_recip, x);
    return 0;
}

/* Provably neither negative nor -0, or NaN. */
static bool
never_negative(const fg_module *m, fg_reg r, int depth)
{
    const fg_inst *d = fg_def(m, r);
    double v;
    if (fg_const_splat(m, r, &v))
        return v >= 0 && !signbit(v);
    if (!d || depth > 8)
        return false;
    switch (d->op) {
    case FG_OP_exp:
    case FG_OP_abs:
    case FG_OP_sigmoid:
        return true;
    case FG_OP_mul:
        return d->in[0] == d->in[1] || (never_negative(m, d->in[0], depth + 1) &&
                                        never_negative(m, d->in[1], depth + 1));
    case FG_OP_add:
        return never_negative(m, d->in[0], depth + 1) &&
               never_negative(m, d->in[1], depth + 1);
    case FG_OP_sqrt:
    case FG_OP_cast:
    case FG_OP_reshape:
    case FG_OP_reduce_sum:
    case FG_OP_reduce_mean:
        return is_float(m, d->in[0]) && never_negative(m, d->in[0], depth + 1);
    default:
        return false;
    }
}

/* The two differ for -0 and for -inf. */
static fg_reg
power_half(fg_build *b, fg_inst *i)
{
    double v;
    fg_reg x = fg_same_type(b->m, i, i->in[0]);
    return x && is_float(b->m, x) && fg_const_splat(b->m, i->in[1], &v) && v == 0.5 &&
                   never_negative(b->m, x, 0)
               ? fg_emit1(b, FG_OP_sqrt, x)
               : 0;
}

static fg_reg
twice_itself(fg_build *b, fg_inst *i)
{
    return i->in[0] == i->in[1] ? fg_same_type(b->m, i, i->in[0]) : 0;
}

static fg_reg
abs_again(fg_build *b, fg_inst *i)
{
    fg_inst *neg = fg_operand_def(b->m, i, 0, FG_OP_neg);
    if (neg) /* an unsigned -x is another number */
        return fg_dtypes[fg_rt(b->m, neg->in[0])->dtype].cls == FG_CLASS_UINT
                   ? 0
                   : fg_emit1(b, FG_OP_abs, neg->in[0]);
    return fg_operand_def(b->m, i, 0, FG_OP_abs) ? i->in[0] : 0;
}

/* x - (-y), x + (-y) */
static fg_reg
minus_negated(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 1, FG_OP_neg);
    if (d)
        return fg_emit2(b, i->op == FG_OP_sub ? FG_OP_add : FG_OP_sub, i->in[0],
                        d->in[0]);
    d = i->op == FG_OP_add ? fg_operand_def(b->m, i, 0, FG_OP_neg) : NULL;
    return d ? fg_emit2(b, FG_OP_sub, i->in[1], d->in[0]) : 0;
}

/* ---- logic ------------------------------------------------------------------------- */

/* x and true, x or false; x and false, x or true. */
static fg_reg
with_constant(fg_build *b, fg_inst *i)
{
    double v;
    int k = fg_splat_operand(b->m, i, &v);
    if (k < 0)
        return 0;
    if ((v != 0) == (i->op == FG_OP_and))
        return as_result(b, i, i->in[k]);
    return as_result(b, i, i->in[1 - k]);
}

static fg_reg
not_compared(fg_build *b, fg_inst *i)
{
    static const fg_op inverse[FG_NOPS] = {
        [FG_OP_eq] = FG_OP_ne, [FG_OP_ne] = FG_OP_eq, [FG_OP_lt] = FG_OP_ge,
        [FG_OP_le] = FG_OP_gt, [FG_OP_gt] = FG_OP_le, [FG_OP_ge] = FG_OP_lt};
    fg_inst *d = fg_def(b->m, i->in[0]);
    fg_op op = d ? inverse[d->op] : FG_OP_NONE;
    /* NaN is neither less nor greater or equal. */
    bool total = d && d->nin == 2 && !is_float(b->m, d->in[0]);
    if (!op || (!total && op != FG_OP_eq && op != FG_OP_ne))
        return 0;
    return fg_emit2(b, op, d->in[0], d->in[1]);
}

/* eq and ne of a bool (perhaps converted to a number) and a constant 0 or 1. */
static fg_reg
bool_compared(fg_build *b, fg_inst *i)
{
    double v;
    int k = fg_splat_operand(b->m, i, &v);
    if (k < 0 || (v != 0 && v != 1))
        return 0;
    fg_inst *c = fg_operand_def(b->m, i, k, FG_OP_cast);
    fg_reg x = c ? c->in[0] : i->in[k];
    if (fg_rt(b->m, x)->dtype != FG_bool || !fg_same_type(b->m, i, x))
        return 0;
    return (i->op == FG_OP_eq) == (v == 1) ? x : fg_emit1(b, FG_OP_not, x);
}

static fg_reg
where_known(fg_build *b, fg_inst *i)
{
    double v;
    return fg_const_splat(b->m, i->in[0], &v) ? as_result(b, i, i->in[v != 0 ? 1 : 2])
                                              : 0;
}

static fg_reg
where_equal(fg_build *b, fg_inst *i)
{
    return i->in[1] == i->in[2] ? as_result(b, i, i->in[1]) : 0;
}

static fg_reg
where_not(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_not);
    return d ? fg_emit3(b, FG_OP_where, d->in[0], i->in[2], i->in[1]) : 0;
}

/* where(c, 1, 0) is c as a number. */
static fg_reg
where_flag(fg_build *b, fg_inst *i)
{
    double x, y;
    const fg_type *t = fg_rt(b->m, i->out[0]);
    if (!fg_const_splat(b->m, i->in[1], &x) || !fg_const_splat(b->m, i->in[2], &y) ||
        x != 1 || y != 0 || signbit(y))
        return 0;
    fg_type c = *fg_rt(b->m, i->in[0]);
    c.dtype = t->dtype;
    return fg_type_equal(&c, t) ? fg_emit_cast(b, i->in[0], (fg_dtype)t->dtype) : 0;
}

/* ---- conversion -------------------------------------------------------------------- */

/* Bits of magnitude that a type holds without rounding. */
static int
exact_bits(fg_dtype d)
{
    static const uint8_t mantissa[FG_NDTYPES] = {
        [FG_f32] = 24, [FG_f64] = 53, [FG_f16] = 11, [FG_bf16] = 8};
    switch (fg_dtypes[d].cls) {
    case FG_CLASS_FLOAT:
        return mantissa[d];
    case FG_CLASS_SINT:
        return fg_dtypes[d].bits - 1;
    case FG_CLASS_BOOL:
        return 1;
    default:
        return fg_dtypes[d].bits;
    }
}

/* Every value of `from` has the same value in `to`. */
static bool
holds(fg_dtype to, fg_dtype from)
{
    fg_class t = fg_dtypes[to].cls, f = fg_dtypes[from].cls;
    if (to == from)
        return true;
    if (t == FG_CLASS_BOOL || exact_bits(to) < exact_bits(from))
        return false;
    if (f == FG_CLASS_FLOAT) /* bf16 has exponents that f16 has not */
        return t == FG_CLASS_FLOAT && !(from == FG_bf16 && to == FG_f16);
    return t != FG_CLASS_UINT || f != FG_CLASS_SINT;
}

static fg_reg
cast_nothing(fg_build *b, fg_inst *i)
{
    return fg_same_type(b->m, i, i->in[0]);
}

static fg_reg
cast_twice(fg_build *b, fg_inst *i)
{
    fg_inst *d = fg_operand_def(b->m, i, 0, FG_OP_cast);
    if (!d)
        return 0;
    fg_dtype from = (fg_dtype)fg_rt(b->m, d->in[0])->dtype;
    fg_dtype via = (fg_dtype)fg_rt(b->m, i->in[0])->dtype;
    fg_dtype to = (fg_dtype)fg_rt(b->m, i->out[0])->dtype;
    /* What is too large wraps from integer to integer, but ends at the bound from a float. */
    bool bounded = fg_is_int(from) && fg_is_float(via) && fg_is_int(to);
    return holds(via, from) && (!bounded || holds(to, from))
               ? fg_emit_cast(b, d->in[0], to)
               : 0;
}

/* clang-format off */
const fg_rule fg_rules_arith[] = {
    FG_RULE(add,     plus_zero,       ZERO_SIGN, "x + 0 = x")
    FG_RULE(sub,     minus_zero,      NOWHERE,   "x - 0 = x")
    FG_RULE(mul,     times_one,       NOWHERE,   "x 1 = x")
    FG_RULE(div,     times_one,       NOWHERE,   "x / 1 = x")
    FG_RULE(mul,     times_minus_one, NOWHERE,   "x (-1) = -x")
    FG_RULE(div,     div_by_power,    NOWHERE,   "x / 2^k = x 2^-k")
    FG_RULE(div,     one_over,        NOWHERE,   "1 / x = recip x")
    FG_RULE(mul,     times_twice,     ROUNDING,  "(x c) 2^k = x (c 2^k)")
    FG_RULE(add,     plus_twice,      NOWHERE,   "(x + c) + d = x + (c + d), integers")
    FG_RULE(pow,     small_power,     ROUNDING,  "x^1, x^2, x^-1")
    FG_RULE(pow,     power_half,      ROUNDING,  "x^0.5 = sqrt x, x not negative")
    FG_RULE(min,     twice_itself,    NOWHERE,   "min(x, x) = x")
    FG_RULE(max,     twice_itself,    NOWHERE,   "max(x, x) = x")
    FG_RULE(and,     twice_itself,    NOWHERE,   "x and x = x")
    FG_RULE(or,      twice_itself,    NOWHERE,   "x or x = x")
    FG_RULE(neg,     undone,          NOWHERE,   "-(-x) = x")
    FG_RULE(not,     undone,          NOWHERE,   "not not x = x")
    FG_RULE(bitnot,  undone,          NOWHERE,   "~~x = x")
    FG_RULE(abs,     abs_again,       NOWHERE,   "||x|| = |x|, |-x| = |x|")
    FG_RULE(sub,     minus_negated,   NOWHERE,   "x - (-y) = x + y")
    FG_RULE(add,     minus_negated,   NOWHERE,   "x + (-y) = x - y")
    FG_RULE(and,     with_constant,   NOWHERE,   "x and true = x, x and false = false")
    FG_RULE(or,      with_constant,   NOWHERE,   "x or false = x, x or true = true")
    FG_RULE(not,     not_compared,    NOWHERE,   "not (x == y) = x != y")
    FG_RULE(eq,      bool_compared,   NOWHERE,   "b == true = b, b == false = not b")
    FG_RULE(ne,      bool_compared,   NOWHERE,   "b != false = b, b != true = not b")
    FG_RULE(where,   where_known,     NOWHERE,   "true ? x : y = x")
    FG_RULE(where,   where_equal,     NOWHERE,   "c ? x : x = x")
    FG_RULE(where,   where_not,       NOWHERE,   "not c ? x : y = c ? y : x")
    FG_RULE(where,   where_flag,      NOWHERE,   "c ? 1 : 0 = c as a number")
    { FG_OP_NONE, NULL, FG_DIFFERS_NOWHERE, NULL },
};

const fg_rule fg_rules_cast[] = {
    FG_RULE(cast,    cast_nothing,    NOWHERE,   "to its own type")
    FG_RULE(bitcast, cast_nothing,    NOWHERE,   "to its own type")
    FG_RULE(cast,    cast_twice,      NOWHERE,   "through a type that holds every value")
    { FG_OP_NONE, NULL, FG_DIFFERS_NOWHERE, NULL },
};
/* clang-format on */
