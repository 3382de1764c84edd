/* elem.c - one elementwise instruction on values in registers, and the table of pull
 * rules.
 *
 * f16 and bf16 values are f32 here; the result of an instruction is rounded to its type
 * once. 4-bit integers are kept extended in i8.
 */
#include "codegen/cpu/pull.h"

#include <math.h>

static bool
is_signed(fg_dtype d)
{
    return fg_dtypes[d].cls == FG_CLASS_SINT;
}

/* What a 4-bit type keeps of an i8. */
static fg_v
wrap(fg_ll *g, fg_dtype d, fg_v v)
{
    if (d != FG_i4 && d != FG_u4)
        return v;
    fg_v four = ll_ci(LLVMTypeOf(v), 4);
    v = ll_shl(g, v, four);
    return d == FG_i4 ? ll_sar(g, v, four) : ll_shr(g, v, four);
}

/* ---- conversions
 * ------------------------------------------------------------------------- */

/* NaN is 0, what lies outside the nearest. LLVM saturates vectors of fewer than 32 bits one
 * element at a time, so they are cut to size before. */
static fg_v
float_to_int(fg_em *e, fg_v v, fg_dtype to)
{
    fg_ll *g = e->g;
    fg_t t = LLVMTypeOf(v);
    int bits = fg_dtypes[to].bits;
    if (bits > 16)
        return ll_toint_sat(g, v, fg_em_type(e, to), is_signed(to));
    double half = 1 << (bits - 1), lo = is_signed(to) ? -half : 0;
    if (is_signed(to))
        v = ll_sel(g, ll_isnan(g, v), ll_zero(t), v);
    v = ll_max(g, v, ll_cf(t, lo)); /* the second, if the first is NaN */
    v = ll_min(g, v, ll_cf(t, lo + 2 * half - 1));
    return ll_sext(g, ll_toint(g, v, g->i32), fg_em_type(e, to));
}

fg_v
fg_em_cast(fg_em *e, fg_v v, fg_dtype from, fg_dtype to)
{
    fg_ll *g = e->g;
    fg_t t = fg_em_type(e, to);
    if (from == to)
        return v;
    if (to == FG_bool)
        return ll_cmp(g, LL_NE, v, ll_zero(LLVMTypeOf(v)));
    if (fg_is_float(from))
        return fg_is_float(to) ? fg_em_round(e, to, ll_fcast(g, v, t))
                               : float_to_int(e, v, to);
    if (fg_is_float(to))
        return fg_em_round(e, to, ll_fromint(g, v, t, is_signed(from)));
    return wrap(g, to, is_signed(from) ? ll_sext(g, v, t) : ll_zext(g, v, t));
}

static fg_v
bit_cast(fg_em *e, fg_v v, fg_dtype from, fg_dtype to)
{
    fg_ll *g = e->g;
    /* Half floats are f32 in registers; their bits are those they have in memory. */
    if (from == FG_f16 || from == FG_bf16 || to == FG_f16 || to == FG_bf16) {
        fg_v slot = ll_slot(g, g->i16, 64);
        fg_index at = fg_ix_run(e, ll_i(g, 0), FG_ALIGN_MAX);
        fg_em_store_to(e, from, slot, at, v);
        return fg_em_load(e, to, slot, at);
    }
    return from == FG_bool || to == FG_bool
               ? fg_em_cast(e, v, from, to)
               : ll_bits(g, v, ll_like(v, fg_em_type(e, to)));
}

/* ---- integers
 * -------------------------------------------------------------------------------- */

/* x / 0 = 0 and INT_MIN / -1 wraps, where the machine would trap. */
static fg_v
int_div(fg_ll *g, fg_v a, fg_v b, bool sign)
{
    fg_t t = LLVMTypeOf(a);
    fg_v zero = ll_zero(t), one = ll_ci(t, 1), none = ll_cmp(g, LL_EQ, b, zero);
    if (!sign)
        return ll_sel(g, none, zero, ll_udiv(g, a, ll_sel(g, none, one, b)));
    fg_v minus = ll_cmp(g, LL_EQ, b, ll_ci(t, -1));
    fg_v safe = ll_sel(g, ll_or(g, none, minus), one, b);
    fg_v q = ll_sel(g, minus, ll_neg(g, a), ll_div(g, a, safe));
    return ll_sel(g, none, zero, q);
}

static fg_v
int_rem(fg_ll *g, fg_v a, fg_v b, bool sign, bool like_divisor)
{
    fg_t t = LLVMTypeOf(a);
    fg_v zero = ll_zero(t), none = ll_cmp(g, LL_EQ, b, zero);
    fg_v r = ll_sub(g, a, ll_mul(g, int_div(g, a, b, sign), b));
    if (sign && like_divisor) {
        fg_v differ = ll_cmp(g, LL_LT, ll_xor(g, r, b), zero);
        differ = ll_and(g, differ, ll_cmp(g, LL_NE, r, zero));
        r = ll_sel(g, differ, ll_add(g, r, b), r);
    }
    return ll_sel(g, none, zero, r);
}

/* By squaring; negative exponents leave 1/x truncated. */
static fg_v
int_pow(fg_em *e, fg_v x, fg_v y, bool sign, bool y_sign)
{
    fg_ll *g = e->g;
    fg_t t = LLVMTypeOf(x), ty = LLVMTypeOf(y);
    fg_v one = ll_ci(t, 1), zero = ll_zero(t), n = y;
    ll_loop l;
    ll_for1(g, &l, ll_i(g, 0), ll_i(g, 64), ll_i(g, 1), 3, (fg_v[]){one, x, n});
    fg_v odd = ll_cmp(g, LL_NE, ll_and(g, l.phi[2], ll_ci(ty, 1)), ll_zero(ty));
    fg_v r = ll_sel(g, odd, ll_mul(g, l.phi[0], l.phi[1]), l.phi[0]);
    ll_next(
        g, &l,
        (fg_v[]){r, ll_mul(g, l.phi[1], l.phi[1]), ll_shr(g, l.phi[2], ll_ci(ty, 1))});
    if (!y_sign)
        return l.phi[0];
    fg_v below = ll_cmp(g, LL_LT, y, ll_zero(ty));
    fg_v unit = ll_cmp(g, LL_EQ, x, one);
    if (sign)
        unit = ll_or(g, unit, ll_cmp(g, LL_EQ, x, ll_ci(t, -1)));
    fg_v odd_y = ll_cmp(g, LL_NE, ll_and(g, y, ll_ci(ty, 1)), ll_zero(ty));
    fg_v v = ll_sel(g, unit, ll_sel(g, odd_y, x, one), zero);
    return ll_sel(g, below, v, l.phi[0]);
}

static fg_v
shift(fg_ll *g, const fg_inst *i, fg_dtype d, fg_v a, fg_v b)
{
    fg_t t = LLVMTypeOf(a);
    fg_v width = ll_ci(t, fg_dtypes[d].bits);
    fg_v over = ll_ucmp(g, LL_GE, b, width);
    fg_v n = ll_sel(g, over, ll_sub(g, width, ll_ci(t, 1)), b);
    if (i->op == FG_OP_shl)
        return wrap(g, d, ll_sel(g, over, ll_zero(t), ll_shl(g, a, n)));
    if (is_signed(d))
        return ll_sar(g, a, n);
    return ll_sel(g, over, ll_zero(t), ll_shr(g, a, n));
}

/* ---- floats
 * ---------------------------------------------------------------------------------- */

/* Exact for all quotients: the library's fmod, lane by lane. */
static fg_v
float_rem(fg_ll *g, fg_v a, fg_v b, bool like_divisor)
{
    fg_t t = ll_elem(LLVMTypeOf(a));
    fg_v arg[2] = {ll_fcast(g, a, g->f64), ll_fcast(g, b, g->f64)};
    fg_v r = ll_fcast(g, ll_libm(g, "fmod", 2, arg), t);
    if (!like_divisor)
        return r;
    fg_v zero = ll_zero(LLVMTypeOf(a));
    fg_v differ =
        ll_cmp(g, LL_LT,
               ll_mul(g, ll_intr2(g, "llvm.copysign", ll_c(LLVMTypeOf(a), 1), r),
                      ll_intr2(g, "llvm.copysign", ll_c(LLVMTypeOf(a), 1), b)),
               zero);
    differ = ll_and(g, differ, ll_cmp(g, LL_NE, r, zero));
    return ll_sel(g, differ, ll_add(g, r, b), r);
}

static fg_v
float_pow(fg_em *e, const fg_inst *i, fg_v x, fg_v y)
{
    fg_ll *g = e->g;
    fg_t t = LLVMTypeOf(x);
    double c;
    if (fg_const_splat(e->m, i->in[1], &c)) {
        if (c == 2)
            return ll_mul(g, x, x);
        if (c == 1)
            return x;
        if (c == 3)
            return ll_mul(g, x, ll_mul(g, x, x));
        if (c == -1)
            return ll_div(g, ll_c(t, 1), x);
    }
    if (ll_elem(t) == g->f64)
        return ll_libm(g, "pow", 2, (fg_v[]){x, y});
    return vm_pow(g, x, y);
}

typedef fg_v mathfn(fg_ll *g, fg_v x);
static const struct {
    mathfn *single;
    const char *wide; /* of the C library, for f64 */
} functions[FG_NOPS] = {
    [FG_OP_exp] = {vm_exp, "exp"},       [FG_OP_log] = {vm_log, "log"},
    [FG_OP_sin] = {vm_sin, "sin"},       [FG_OP_cos] = {vm_cos, "cos"},
    [FG_OP_tan] = {vm_tan, "tan"},       [FG_OP_asin] = {vm_asin, "asin"},
    [FG_OP_acos] = {vm_acos, "acos"},    [FG_OP_atan] = {vm_atan, "atan"},
    [FG_OP_sinh] = {vm_sinh, "sinh"},    [FG_OP_cosh] = {vm_cosh, "cosh"},
    [FG_OP_asinh] = {vm_asinh, "asinh"}, [FG_OP_acosh] = {vm_acosh, "acosh"},
    [FG_OP_atanh] = {vm_atanh, "atanh"}, [FG_OP_tanh] = {vm_tanh, "tanh"},
    [FG_OP_erf] = {vm_erf, "erf"},       [FG_OP_sigmoid] = {vm_sigmoid, NULL},
    [FG_OP_gelu] = {vm_gelu, NULL},      [FG_OP_gelu_tanh] = {vm_gelu_tanh, NULL},
    [FG_OP_silu] = {vm_silu, NULL},      [FG_OP_softplus] = {vm_softplus, NULL},
};

/* y, but 0 at x = -inf, where x times a vanishing weight would be NaN. */
static fg_v
vanishing(fg_ll *g, fg_v x, fg_v y)
{
    fg_t t = LLVMTypeOf(x);
    return ll_sel(g, ll_cmp(g, LL_EQ, x, ll_cf(t, -INFINITY)), ll_zero(t), y);
}

/* f64 forms of what the C library lacks. */
static fg_v
wide_function(fg_ll *g, fg_op op, fg_v x)
{
    fg_t t = LLVMTypeOf(x);
    fg_v one = ll_c(t, 1), half = ll_mul(g, x, ll_c(t, 0.5)), y;
    switch (op) {
    case FG_OP_sigmoid:
    case FG_OP_silu:
        y = ll_neg(g, x);
        y = ll_div(g, one, ll_add(g, one, ll_libm(g, "exp", 1, &y)));
        return op == FG_OP_silu ? vanishing(g, x, ll_mul(g, x, y)) : y;
    case FG_OP_gelu:
        y = ll_mul(g, x, ll_c(t, M_SQRT1_2));
        y = ll_mul(g, half, ll_add(g, one, ll_libm(g, "erf", 1, &y)));
        return vanishing(g, x, y);
    case FG_OP_gelu_tanh:
        y = ll_fma(g, ll_mul(g, x, x), ll_c(t, 0.044715), one);
        y = ll_mul(g, ll_mul(g, y, x), ll_c(t, 0.79788456080286535588));
        y = ll_mul(g, half, ll_add(g, one, ll_libm(g, "tanh", 1, &y)));
        return vanishing(g, x, y);
    default: /* softplus */
        y = ll_neg(g, ll_abs(g, x));
        y = ll_libm(g, "exp", 1, &y);
        return ll_add(g, ll_max(g, ll_c(t, 0), x), ll_libm(g, "log1p", 1, &y));
    }
}

static fg_v
is_infinite(fg_ll *g, const fg_inst *i, fg_v x)
{
    fg_t t = LLVMTypeOf(x);
    fg_v r = ll_zero(ll_like(x, g->i1));
    if (FG_GET(i, isinf, pos).i)
        r = ll_or(g, r, ll_cmp(g, LL_EQ, x, ll_cf(t, INFINITY)));
    if (FG_GET(i, isinf, neg).i)
        r = ll_or(g, r, ll_cmp(g, LL_EQ, x, ll_cf(t, -INFINITY)));
    return r;
}

/* ---- by operand count
 * ---------------------------------------------------------------------------- */

static fg_v
unary(fg_em *e, const fg_inst *i, fg_dtype d, fg_v x)
{
    fg_ll *g = e->g;
    fg_t t = LLVMTypeOf(x);
    fg_v zero = ll_zero(t), one = d == FG_bool ? NULL : ll_c(t, 1);
    if (functions[i->op].single) {
        if (d != FG_f64)
            return functions[i->op].single(g, x);
        return functions[i->op].wide ? ll_libm(g, functions[i->op].wide, 1, &x)
                                     : wide_function(g, i->op, x);
    }
    switch (i->op) {
    case FG_OP_neg:
        return wrap(g, d, ll_neg(g, x));
    case FG_OP_abs:
        return fg_is_float(d) || is_signed(d) ? wrap(g, d, ll_abs(g, x)) : x;
    case FG_OP_sign:
        if (!fg_is_float(d) && !is_signed(d))
            return ll_sel(g, ll_cmp(g, LL_NE, x, zero), one, zero);
        x = ll_sel(g, ll_cmp(g, LL_LT, x, zero), ll_c(t, -1), x);
        return ll_sel(g, ll_cmp(g, LL_GT, x, zero), one, x);
    case FG_OP_sqrt:
        return ll_sqrt(g, x);
    case FG_OP_rsqrt:
        return ll_div(g, one, ll_sqrt(g, x));
    case FG_OP_recip:
        return ll_div(g, one, x);
    case FG_OP_relu:
        if (!fg_is_float(d) && !is_signed(d))
            return x;
        return ll_max(g, zero, x);
    case FG_OP_floor:
        return ll_floor(g, x);
    case FG_OP_ceil:
        return ll_ceil(g, x);
    case FG_OP_round:
        return ll_round(g, x);
    case FG_OP_isnan:
        return ll_isnan(g, x);
    case FG_OP_isinf:
        return is_infinite(g, i, x);
    case FG_OP_not:
        return ll_not(g, x);
    case FG_OP_bitnot:
        return wrap(g, d, ll_not(g, x));
    case FG_OP_cast:
        return fg_em_cast(e, x, d, (fg_dtype)FG_GET(i, cast, to).i);
    case FG_OP_bitcast:
        return bit_cast(e, x, d, (fg_dtype)FG_GET(i, bitcast, to).i);
    default:
        FG_BUG(e->m->cx, "no code for elementwise %s", fg_op_info(i->op)->name);
    }
}

static fg_v
compare(fg_ll *g, fg_op op, fg_dtype d, fg_v a, fg_v b)
{
    ll_cond c = op == FG_OP_eq   ? LL_EQ
                : op == FG_OP_ne ? LL_NE
                : op == FG_OP_lt ? LL_LT
                : op == FG_OP_le ? LL_LE
                : op == FG_OP_gt ? LL_GT
                                 : LL_GE;
    return fg_is_float(d) || is_signed(d) ? ll_cmp(g, c, a, b) : ll_ucmp(g, c, a, b);
}

/* NaN wins: the comparison picks b when either is NaN, so only a's is left to see to. */
static fg_v
extreme(fg_ll *g, bool max, fg_dtype d, fg_v a, fg_v b)
{
    if (!fg_is_float(d))
        return is_signed(d) ? (max ? ll_max(g, a, b) : ll_min(g, a, b))
                            : (max ? ll_umax(g, a, b) : ll_umin(g, a, b));
    return ll_sel(g, ll_isnan(g, a), a, max ? ll_max(g, a, b) : ll_min(g, a, b));
}

static fg_v
power(fg_em *e, const fg_inst *i, fg_dtype d, fg_v a, fg_v b)
{
    fg_ll *g = e->g;
    fg_dtype dy = fg_rt(e->m, i->in[1])->dtype;
    if (fg_is_float(d))
        return float_pow(e, i, a, fg_em_cast(e, b, dy, d == FG_f64 ? FG_f64 : FG_f32));
    if (!fg_is_float(dy))
        return wrap(g, d, int_pow(e, a, b, is_signed(d), is_signed(dy)));
    fg_v arg[2] = {fg_em_cast(e, a, d, FG_f64), fg_em_cast(e, b, dy, FG_f64)};
    return fg_em_cast(e, ll_libm(g, "pow", 2, arg), FG_f64, d);
}

static fg_v
binary(fg_em *e, const fg_inst *i, fg_dtype d, fg_v a, fg_v b)
{
    fg_ll *g = e->g;
    bool flt = fg_is_float(d), sign = is_signed(d);
    switch (i->op) {
    case FG_OP_add:
        return wrap(g, d, ll_add(g, a, b));
    case FG_OP_sub:
        return wrap(g, d, ll_sub(g, a, b));
    case FG_OP_mul:
        return wrap(g, d, ll_mul(g, a, b));
    case FG_OP_div:
        return flt ? ll_div(g, a, b) : wrap(g, d, int_div(g, a, b, sign));
    case FG_OP_mod:
        return flt ? float_rem(g, a, b, true) : int_rem(g, a, b, sign, true);
    case FG_OP_fmod:
        return flt ? float_rem(g, a, b, false) : int_rem(g, a, b, sign, false);
    case FG_OP_pow:
        return power(e, i, d, a, b);
    case FG_OP_min:
        return extreme(g, false, d, a, b);
    case FG_OP_max:
        return extreme(g, true, d, a, b);
    case FG_OP_and:
    case FG_OP_bitand:
        return ll_and(g, a, b);
    case FG_OP_or:
    case FG_OP_bitor:
        return ll_or(g, a, b);
    case FG_OP_xor:
    case FG_OP_bitxor:
        return ll_xor(g, a, b);
    case FG_OP_shl:
    case FG_OP_shr:
        return shift(g, i, d, a, b);
    default:
        return compare(g, i->op, d, a, b);
    }
}

fg_v
fg_em_elem(fg_em *e, const fg_inst *i, const fg_v *v)
{
    fg_v x[3];
    int lanes = 1;
    fg_dtype d = fg_rt(e->m, i->in[0])->dtype, to = fg_rt(e->m, i->out[0])->dtype;
    for (int k = 0; k < i->nin; k++)
        lanes = ll_lanes(v[k]) > lanes ? ll_lanes(v[k]) : lanes;
    for (int k = 0; k < i->nin; k++)
        x[k] = ll_splat(e->g, v[k], lanes);
    if (i->op == FG_OP_where)
        return ll_sel(e->g, x[0], x[1], x[2]);
    if (i->nin == 1) {
        fg_v y = unary(e, i, d, x[0]);
        bool same = i->op == FG_OP_cast || i->op == FG_OP_bitcast || i->op == FG_OP_neg ||
                    i->op == FG_OP_abs || i->op == FG_OP_relu;
        return same ? y : fg_em_round(e, to, y);
    }
    return fg_em_round(e, to, binary(e, i, d, x[0], x[1]));
}

static fg_v
pull_elementwise(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    fg_v v[3];
    fg_index at[FG_MAXRANK];
    for (int k = 0; k < i->nin; k++) {
        fg_ix_broadcast(e, fg_rt(e->m, r), ix, fg_rt(e->m, i->in[k]), at);
        v[k] = fg_pull(e, i->in[k], at);
    }
    return fg_em_elem(e, i, v);
}

/* ---- the rules ---------------------------------------------------------------------
 * ---------------- */

static fg_pullrule *const rules[FG_NOPS] = {
    [FG_OP_const] = fg_pull_const,
    [FG_OP_symvec] = fg_pull_symvec,
    [FG_OP_iota] = fg_pull_iota,
    [FG_OP_copy] = fg_pull_copy,
    [FG_OP_reshape] = fg_pull_reshape,
    [FG_OP_transpose] = fg_pull_transpose,
    [FG_OP_expand] = fg_pull_expand,
    [FG_OP_slice] = fg_pull_slice,
    [FG_OP_concat] = fg_pull_concat,
    [FG_OP_append] = fg_pull_append,
    [FG_OP_pad] = fg_pull_pad,
    [FG_OP_gather] = fg_pull_gather,
    [FG_OP_gather_elements] = fg_pull_gather_elements,
    [FG_OP_gather_nd] = fg_pull_gather_nd,
    [FG_OP_rope] = fg_pull_rope,
    [FG_OP_quantize] = fg_pull_quantize,
    [FG_OP_dequantize] = fg_pull_dequantize,
    [FG_OP_matmul] = fg_pull_matmul,
    [FG_OP_matmul_panels] = fg_pull_matmul_panels,
    [FG_OP_matmul_int] = fg_pull_matmul_int,
    [FG_OP_conv] = fg_pull_conv,
    [FG_OP_conv_transpose] = fg_pull_conv_transpose,
    [FG_OP_max_pool] = fg_pull_max_pool,
    [FG_OP_avg_pool] = fg_pull_avg_pool,
    [FG_OP_resize] = fg_pull_resize,
    [FG_OP_reduce_sum] = fg_pull_reduce,
    [FG_OP_reduce_mean] = fg_pull_reduce,
    [FG_OP_reduce_prod] = fg_pull_reduce,
    [FG_OP_reduce_max] = fg_pull_reduce,
    [FG_OP_reduce_min] = fg_pull_reduce,
    [FG_OP_argmax] = fg_pull_arg,
    [FG_OP_argmin] = fg_pull_arg,
};

bool
fg_pull_can(fg_op op)
{
    return rules[op] || fg_op_is(op, FG_T_ELEM);
}

fg_v
fg_pull_inst(fg_em *e, fg_inst *i, fg_reg r, const fg_index *ix)
{
    if (rules[i->op])
        return rules[i->op](e, i, r, ix);
    if (!fg_op_is(i->op, FG_T_ELEM))
        FG_BUG(e->m->cx, "%s cannot be read element by element", fg_op_info(i->op)->name);
    return pull_elementwise(e, i, r, ix);
}
