/* values.c - the value table: every size, stride and count of a program from its symbols.
 *
 * Operands come before what they make, so one walk computes all. Arithmetic is exact:
 * overflow and division by zero give FG_UNKNOWN, which spreads, and whoever needs the
 * number as a size reports it.
 */
#include "runtime/rt.h"

static int64_t
divide(int64_t a, int64_t b, int remainder)
{
    if (b == 0 || (a == INT64_MIN && b == -1))
        return FG_UNKNOWN;
    int64_t q = a / b, m = a % b;
    if (m != 0 && (m < 0) != (b < 0)) {
        q--;
        m += b;
    }
    return remainder ? m : q;
}

static int64_t
compute(const fg_value *v, const int64_t *sym, const int64_t *value)
{
    if (v->op == FG_V_CONST)
        return v->k;
    if (v->op == FG_V_SYM)
        return sym[v->a];
    int64_t a = value[v->a], b = value[v->b], r;
    if (a == FG_UNKNOWN || b == FG_UNKNOWN)
        return FG_UNKNOWN;
    switch ((fg_vop)v->op) {
    case FG_V_ADD:
        return __builtin_add_overflow(a, b, &r) ? FG_UNKNOWN : r;
    case FG_V_MUL:
        return __builtin_mul_overflow(a, b, &r) ? FG_UNKNOWN : r;
    case FG_V_DIV:
        return divide(a, b, 0);
    case FG_V_MOD:
        return divide(a, b, 1);
    case FG_V_MIN:
        return a < b ? a : b;
    case FG_V_MAX:
        return a > b ? a : b;
    case FG_V_EQ:
        return a == b;
    case FG_V_LT:
        return a < b;
    default:
        return FG_UNKNOWN;
    }
}

void
fg_values(const fg_program *p, const int64_t *sym, int64_t *value, uint32_t first,
          uint32_t end)
{
    for (uint32_t i = first; i < end; i++)
        value[i] = compute(&p->value[i], sym, value);
}

void
fg_values_run(forge_run *r)
{
    for (uint32_t k = 0; k < r->nrun_value; k++) {
        uint32_t i = r->run_value[k];
        r->value[i] = compute(&r->p->value[i], r->sym, r->value);
    }
}
