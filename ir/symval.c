/* symval.c - the elements of small integer tensors as expressions over the symbols.
 *
 *     %s = symvec {v=[B,S,768]} : i64[3]
 *     %d = gather %s, %one : i64[]               ; S
 *     %f = cast %d {to=f32} : f32[]
 *     %h = div %f, %two : f32[]                  ; S / 2, not stored: a float
 *     %i = floor %h : f32[]
 *     %n = cast %i {to=i64} : i64[]              ; S/2, rounded down
 *
 * Values are pulled: an element of a result asks for the elements of the operands it is
 * made of, through any depth of instructions, until it meets one that is known. So a
 * vector with one unknown entry still gives the others, and float chains need no storage.
 * An element is a fraction with a positive constant denominator, exact by construction;
 * what float arithmetic might round (an inexact constant, a division by a symbol) is
 * unknown. Sizes are taken to stay below 2^24, where f32 arithmetic on them and the
 * rounding of their quotients is exact, and below 2^31, so that i32 does not wrap.
 */
#include <math.h>

#include "ir/symval.h"

enum { FUEL = 8192, MAXDEPTH = 200 };

static const int64_t max_den = (int64_t)1 << 30;

bool
fg_look_dims(fg_module *m, fg_reg r, int64_t *dim)
{
    return fg_type_static(m->ex, fg_rt(m, r), dim);
}

bool
fg_look_strides(fg_module *m, fg_reg r, int64_t *stride)
{
    const fg_type *t = fg_rt(m, r);
    int64_t n = 1, d;
    for (int k = t->rank - 1; k >= 0; k--) {
        stride[k] = n;
        if (k && (!fg_e_const(m->ex, t->dim[k], &d) || __builtin_mul_overflow(n, d, &n)))
            return false;
    }
    return true;
}

/* ---- fractions --------------------------------------------------------------------- */

static const fg_frac unknown = {FG_E_BAD, 1};

static fg_frac
whole(fg_expr e)
{
    return (fg_frac){e, 1};
}

static bool
known(fg_frac f)
{
    return f.num != FG_E_BAD;
}

/* num/den in lowest terms as far as that can be proved. */
static fg_frac
make(fg_look *l, fg_expr num, int64_t den)
{
    if (num == FG_E_BAD || den <= 0 || den > max_den)
        return unknown;
    for (int64_t p = 2; p <= den && den > 1;) {
        if (den % p == 0 && fg_e_divides(l->ex, p, num)) {
            num = fg_ediv(l->ex, num, fg_ec(l->ex, p));
            den /= p;
        } else {
            p = p * p > den && p < den ? den : p + 1;
        }
    }
    return (fg_frac){num, den};
}

static fg_expr
scaled(fg_look *l, fg_expr e, int64_t k)
{
    return fg_emul(l->ex, e, fg_ec(l->ex, k));
}

static fg_frac
from_double(fg_look *l, double v)
{
    int64_t den = 1;
    while (v != floor(v) && den < 1 << 20 && isfinite(v)) {
        v *= 2;
        den *= 2;
    }
    if (!(fabs(v) < 9e15) || v != floor(v))
        return unknown;
    return make(l, fg_ec(l->ex, (int64_t)v), den);
}

static fg_expr
floor_of(fg_look *l, fg_frac f)
{
    return f.den == 1 ? f.num : fg_ediv(l->ex, f.num, fg_ec(l->ex, f.den));
}

static fg_expr
negated(fg_look *l, fg_expr e)
{
    return fg_esub(l->ex, fg_ec(l->ex, 0), e);
}

/* a / b toward 0, for b > 0. */
static fg_expr
truncated(fg_look *l, fg_expr a, fg_expr b)
{
    fg_expr q = fg_ediv(l->ex, a, b);
    if (fg_e_lo(l->ex, a) >= 0 || (q != FG_E_BAD && fg_emul(l->ex, q, b) == a))
        return q;
    if (fg_e_hi(l->ex, a) <= 0)
        return negated(l, fg_ediv(l->ex, negated(l, a), b));
    return FG_E_BAD;
}

/* What is left of e when it is stored as a d. */
static fg_expr
stored(fg_look *l, fg_dtype d, fg_expr e)
{
    int64_t v;
    int bits = fg_dtypes[d].bits;
    bool is_signed = fg_dtypes[d].cls == FG_CLASS_SINT;
    if (e == FG_E_BAD || d == FG_bool)
        return e;
    if (fg_e_const(l->ex, e, &v)) {
        if (bits == 64)
            return is_signed || v >= 0 ? e : FG_E_BAD;
        uint64_t low = (uint64_t)v & (((uint64_t)1 << bits) - 1);
        if (is_signed && low >> (bits - 1))
            low |= ~(uint64_t)0 << bits;
        return fg_ec(l->ex, (int64_t)low);
    }
    int64_t lo = fg_e_lo(l->ex, e), hi = fg_e_hi(l->ex, e);
    if (!is_signed && lo < 0)
        return FG_E_BAD;
    if (bits >= 32)
        return e;
    int64_t top = (int64_t)1 << (bits - is_signed);
    return lo >= (is_signed ? -top : 0) && hi < top ? e : FG_E_BAD;
}

/* ---- elements ---------------------------------------------------------------------- */

fg_frac
fg_look_at(fg_look *l, fg_reg r, int64_t i)
{
    if (!r || i < 0 || l->depth >= MAXDEPTH || l->fuel-- <= 0)
        return unknown;
    const fg_reginfo *ri = fg_ri(l->m, r);
    if (ri->sym)
        return i < ri->nsym ? whole(ri->sym[i]) : unknown;
    fg_elem_fn *fn = ri->def ? fg_elem_rule(ri->def->op) : NULL;
    if (!fn)
        return unknown;
    l->depth++;
    fg_frac f = fn(l, ri->def, i);
    l->depth--;
    if (known(f) && !fg_is_float((fg_dtype)fg_rt(l->m, r)->dtype)) {
        f.num = f.den == 1 ? stored(l, (fg_dtype)fg_rt(l->m, r)->dtype, f.num) : FG_E_BAD;
        f.den = 1;
    }
    return f;
}

bool
fg_look_const(fg_look *l, fg_reg r, int64_t i, int64_t *v)
{
    fg_frac f = fg_look_at(l, r, i);
    return known(f) && f.den == 1 && fg_e_const(l->ex, f.num, v);
}

/* Element of operand k that result element i is made of, under NumPy broadcasting. */
static fg_frac
operand(fg_look *l, const fg_inst *inst, int k, int64_t i)
{
    const fg_type *t = fg_rt(l->m, inst->in[k]);
    int64_t yd[FG_MAXRANK], xd[FG_MAXRANK];
    if (t->rank == 0)
        return fg_look_at(l, inst->in[k], 0);
    if (fg_type_equal(t, fg_rt(l->m, inst->out[0])))
        return fg_look_at(l, inst->in[k], i);
    if (!fg_look_dims(l->m, inst->out[0], yd) || !fg_look_dims(l->m, inst->in[k], xd))
        return unknown;
    int64_t at = 0, stride = 1;
    int lead = fg_rt(l->m, inst->out[0])->rank - t->rank;
    for (int d = t->rank - 1; d >= 0; d--) {
        int64_t c = yd[lead + d] ? i % yd[lead + d] : 0;
        i = yd[lead + d] ? i / yd[lead + d] : 0;
        at += xd[d] == 1 ? 0 : c * stride;
        stride *= xd[d];
    }
    return fg_look_at(l, inst->in[k], at);
}

static bool
result_is_float(fg_look *l, const fg_inst *inst)
{
    return fg_is_float((fg_dtype)fg_rt(l->m, inst->out[0])->dtype);
}

/* ---- values ------------------------------------------------------------------------ */

static fg_frac
elem_const(fg_look *l, const fg_inst *inst, int64_t i)
{
    int64_t v;
    double f;
    const fg_weight *w = fg_reg_weight(l->m, inst->out[0]);
    if (fg_is_float(w->dtype))
        return fg_const_f64(l->m, inst->out[0], i, &f) ? from_double(l, f) : unknown;
    if (!fg_const_i64(l->m, inst->out[0], i, &v) || (w->dtype == FG_u64 && v < 0))
        return unknown;
    return whole(fg_ec(l->ex, v));
}

static fg_frac
elem_symvec(fg_look *l, const fg_inst *inst, int64_t i)
{
    (void)l;
    const fg_attr *v = &FG_GET(inst, symvec, v);
    return i < v->n ? whole(v->es[i]) : unknown;
}

static fg_frac
elem_iota(fg_look *l, const fg_inst *inst, int64_t i)
{
    fg_expr start = FG_GET(inst, iota, start).e;
    fg_expr off = scaled(l, fg_ec(l->ex, i), FG_GET(inst, iota, step).i);
    return whole(start == FG_E_BAD ? off : fg_eadd(l->ex, start, off));
}

static fg_frac
elem_cast(fg_look *l, const fg_inst *inst, int64_t i)
{
    fg_frac x = fg_look_at(l, inst->in[0], i);
    fg_dtype to = (fg_dtype)fg_rt(l->m, inst->out[0])->dtype;
    int64_t v;
    if (!known(x))
        return unknown;
    if (to == FG_bool)
        return whole(
            fg_esub(l->ex, fg_ec(l->ex, 1), fg_eeq(l->ex, x.num, fg_ec(l->ex, 0))));
    if (fg_is_float(to)) {
        int64_t exact = to == FG_f16    ? 2048
                        : to == FG_bf16 ? 256
                        : to == FG_f32  ? 1 << 24
                                        : (int64_t)1 << 53;
        if (fg_e_const(l->ex, x.num, &v) ? v > exact || v < -exact
                                         : to != FG_f32 && to != FG_f64)
            return unknown;
        return x;
    }
    return x.den == 1 ? x : whole(truncated(l, x.num, fg_ec(l->ex, x.den)));
}

/* ---- elementwise ------------------------------------------------------------------- */

static fg_frac
elem_unary(fg_look *l, const fg_inst *inst, int64_t i)
{
    fg_exprs *t = l->ex;
    fg_frac x = fg_look_at(l, inst->in[0], i);
    fg_expr zero = fg_ec(t, 0);
    int64_t v;
    if (!known(x))
        return unknown;
    switch (inst->op) {
    case FG_OP_neg:
        return make(l, negated(l, x.num), x.den);
    case FG_OP_abs:
        if (fg_e_lo(t, x.num) >= 0)
            return x;
        return make(l, fg_emax(t, x.num, negated(l, x.num)), x.den);
    case FG_OP_sign:
        return whole(fg_esub(t, fg_elt(t, zero, x.num), fg_elt(t, x.num, zero)));
    case FG_OP_relu:
        return make(l, fg_emax(t, x.num, zero), x.den);
    case FG_OP_not:
        return whole(fg_esub(t, fg_ec(t, 1), x.num));
    case FG_OP_floor:
        return whole(floor_of(l, x));
    case FG_OP_ceil:
        return whole(negated(l, floor_of(l, (fg_frac){negated(l, x.num), x.den})));
    case FG_OP_round:
        return x.den == 1 ? x : unknown;
    case FG_OP_sqrt:
        if (x.den != 1 || !fg_e_const(t, x.num, &v) || v < 0)
            return unknown;
        return from_double(l, sqrt((double)v));
    default:
        return unknown;
    }
}

static fg_frac
quotient(fg_look *l, fg_frac a, fg_frac b, bool is_float)
{
    fg_exprs *t = l->ex;
    int64_t v;
    if (!is_float) {
        if (fg_e_const(t, b.num, &v) && v < 0)
            return whole(truncated(l, negated(l, a.num), fg_ec(t, -v)));
        if (fg_e_is(t, b.num, 0))
            return whole(b.num); /* by the convention of ops.def */
        return fg_e_lo(t, b.num) >= 0 ? whole(truncated(l, a.num, b.num)) : unknown;
    }
    if (!fg_e_const(t, b.num, &v)) {
        fg_expr q = fg_ediv(t, a.num, b.num);
        bool exact = q != FG_E_BAD && fg_emul(t, q, b.num) == a.num;
        return exact && fg_e_lo(t, b.num) >= 1 ? make(l, scaled(l, q, b.den), a.den)
                                               : unknown;
    }
    int64_t den;
    if (v == 0 || v == INT64_MIN || __builtin_mul_overflow(a.den, v < 0 ? -v : v, &den))
        return unknown;
    return make(l, scaled(l, a.num, v < 0 ? -b.den : b.den), den);
}

static fg_frac
power(fg_look *l, fg_frac a, fg_frac b)
{
    int64_t n, v;
    if (!fg_e_const(l->ex, b.num, &n))
        return unknown;
    if (b.den == 2 && n == 1 && a.den == 1 && fg_e_const(l->ex, a.num, &v) && v >= 0)
        return from_double(l, sqrt((double)v));
    if (b.den != 1 || a.den != 1 || n < 0 || n > 62)
        return unknown;
    fg_expr e = fg_ec(l->ex, 1);
    for (int64_t k = 0; k < n && e != FG_E_BAD; k++)
        e = fg_emul(l->ex, e, a.num);
    return whole(e);
}

static fg_frac
elem_binary(fg_look *l, const fg_inst *inst, int64_t i)
{
    fg_exprs *t = l->ex;
    fg_frac a = operand(l, inst, 0, i);
    if (!known(a))
        return unknown;
    fg_frac b = operand(l, inst, 1, i);
    int64_t den;
    if (!known(b) || __builtin_mul_overflow(a.den, b.den, &den))
        return unknown;
    /* Both over the common denominator. */
    fg_expr x = scaled(l, a.num, b.den), y = scaled(l, b.num, a.den), one = fg_ec(t, 1);
    if (x == FG_E_BAD || y == FG_E_BAD)
        return unknown;
    /* clang-format off */
    switch (inst->op) {
    case FG_OP_add: return make(l, fg_eadd(t, x, y), den);
    case FG_OP_sub: return make(l, fg_esub(t, x, y), den);
    case FG_OP_mul: return make(l, fg_emul(t, a.num, b.num), den);
    case FG_OP_div: return quotient(l, a, b, result_is_float(l, inst));
    case FG_OP_pow: return power(l, a, b);
    case FG_OP_min: return make(l, fg_emin(t, x, y), den);
    case FG_OP_max: return make(l, fg_emax(t, x, y), den);
    case FG_OP_mod:
        if (fg_e_is(t, y, 0))
            return whole(y);
        return make(l, fg_emod(t, x, y), den);
    case FG_OP_fmod:
        if (fg_e_lo(t, x) < 0 || fg_e_lo(t, y) < 1)
            return unknown;
        return make(l, fg_emod(t, x, y), den);
    case FG_OP_eq: return whole(fg_eeq(t, x, y));
    case FG_OP_ne: return whole(fg_esub(t, one, fg_eeq(t, x, y)));
    case FG_OP_lt: return whole(fg_elt(t, x, y));
    case FG_OP_gt: return whole(fg_elt(t, y, x));
    case FG_OP_le: return whole(fg_esub(t, one, fg_elt(t, y, x)));
    case FG_OP_ge: return whole(fg_esub(t, one, fg_elt(t, x, y)));
    case FG_OP_and: return whole(fg_emin(t, x, y));
    case FG_OP_or: return whole(fg_emax(t, x, y));
    case FG_OP_xor: return whole(fg_esub(t, one, fg_eeq(t, x, y)));
    default: return unknown;
    }
    /* clang-format on */
}

static fg_frac
elem_where(fg_look *l, const fg_inst *inst, int64_t i)
{
    fg_frac c = operand(l, inst, 0, i);
    int64_t v;
    if (!known(c))
        return unknown;
    if (fg_e_const(l->ex, c.num, &v))
        return operand(l, inst, v ? 1 : 2, i);
    fg_frac a = operand(l, inst, 1, i), b = operand(l, inst, 2, i);
    int64_t den;
    if (!known(a) || !known(b) || __builtin_mul_overflow(a.den, b.den, &den))
        return unknown;
    fg_expr x = scaled(l, a.num, b.den), y = scaled(l, b.num, a.den);
    return make(l, x == y ? x : fg_eselect(l->ex, c.num, x, y), den);
}

/* ---- rules ------------------------------------------------------------------------- */

static fg_frac
elem_same(fg_look *l, const fg_inst *inst, int64_t i)
{
    return fg_look_at(l, inst->in[0], i);
}

static fg_frac
elem_expand(fg_look *l, const fg_inst *inst, int64_t i)
{
    return operand(l, inst, 0, i);
}

fg_elem_fn *
fg_elem_rule(fg_op op)
{
    /* clang-format off */
    static fg_elem_fn *const rule[FG_NOPS] = {
        [FG_OP_const] = elem_const, [FG_OP_symvec] = elem_symvec,
        [FG_OP_iota] = elem_iota,
        [FG_OP_copy] = elem_same, [FG_OP_reshape] = elem_same, [FG_OP_cast] = elem_cast,
        [FG_OP_expand] = elem_expand, [FG_OP_where] = elem_where,
        [FG_OP_neg] = elem_unary, [FG_OP_abs] = elem_unary, [FG_OP_sign] = elem_unary,
        [FG_OP_relu] = elem_unary, [FG_OP_not] = elem_unary, [FG_OP_floor] = elem_unary,
        [FG_OP_ceil] = elem_unary, [FG_OP_round] = elem_unary, [FG_OP_sqrt] = elem_unary,
        [FG_OP_add] = elem_binary, [FG_OP_sub] = elem_binary, [FG_OP_mul] = elem_binary,
        [FG_OP_div] = elem_binary, [FG_OP_pow] = elem_binary, [FG_OP_min] = elem_binary,
        [FG_OP_max] = elem_binary, [FG_OP_mod] = elem_binary, [FG_OP_fmod] = elem_binary,
        [FG_OP_eq] = elem_binary, [FG_OP_ne] = elem_binary, [FG_OP_lt] = elem_binary,
        [FG_OP_le] = elem_binary, [FG_OP_gt] = elem_binary, [FG_OP_ge] = elem_binary,
        [FG_OP_and] = elem_binary, [FG_OP_or] = elem_binary, [FG_OP_xor] = elem_binary,
        [FG_OP_transpose] = fg_elem_transpose, [FG_OP_slice] = fg_elem_slice,
        [FG_OP_concat] = fg_elem_concat, [FG_OP_pad] = fg_elem_pad,
        [FG_OP_gather] = fg_elem_gather,
        [FG_OP_gather_elements] = fg_elem_gather_elements,
        [FG_OP_gather_nd] = fg_elem_gather_nd,
        [FG_OP_scatter_elements] = fg_elem_scatter_elements,
        [FG_OP_scatter_nd] = fg_elem_scatter_nd,
        [FG_OP_reduce_sum] = fg_elem_reduce, [FG_OP_reduce_prod] = fg_elem_reduce,
        [FG_OP_reduce_max] = fg_elem_reduce, [FG_OP_reduce_min] = fg_elem_reduce,
        [FG_OP_cumsum] = fg_elem_cumsum, [FG_OP_nonzero_count] = fg_elem_nonzero_count,
    };
    /* clang-format on */
    return rule[op];
}

fg_expr
fg_sym_at(fg_module *m, fg_reg r, int64_t i)
{
    fg_look l = {.m = m, .ex = m->ex, .fuel = FUEL};
    fg_frac f = fg_look_at(&l, r, i);
    return f.den == 1 ? f.num : FG_E_BAD;
}

void
fg_symval(fg_module *m, fg_inst *i)
{
    if (!fg_elem_rule(i->op) || i->nout != 1)
        return;
    fg_reginfo *ri = fg_ri(m, i->out[0]);
    int64_t dim[FG_MAXRANK], n = 1;
    ri->sym = NULL;
    ri->nsym = 0;
    if (fg_is_float((fg_dtype)ri->type.dtype) || !fg_look_dims(m, i->out[0], dim))
        return;
    for (int k = 0; k < ri->type.rank; k++)
        if (__builtin_mul_overflow(n, dim[k], &n))
            return;
    if (n > FG_MAXSYM)
        return;
    fg_expr v[FG_MAXSYM];
    fg_look l = {.m = m, .ex = m->ex, .fuel = FUEL};
    for (int k = 0; k < n; k++) {
        fg_frac f = fg_look_at(&l, i->out[0], k);
        if (!known(f) || f.den != 1)
            return;
        v[k] = f.num;
    }
    fg_expr *keep = FG_NEWN(m->a, fg_expr, n ? (size_t)n : 1);
    memcpy(keep, v, sizeof *v * (size_t)n);
    ri->sym = keep;
    ri->nsym = (int)n;
}
