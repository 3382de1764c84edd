/* math.c - elementary functions on vectors of f32.
 *
 * Each reduces its argument to a small interval and evaluates a polynomial there; both
 * sides of a case split are computed and one is selected, so any number of lanes goes the
 * same way. The polynomials are minimax fits of the relative error of the whole function.
 * Clamps are written hi < x ? hi : x, which keeps NaN.
 */
#include "codegen/cpu/emit.h"

#include <math.h>

static fg_v
k(fg_v like, double x)
{
    return ll_cf(LLVMTypeOf(like), x);
}

static fg_v
ki(fg_ll *g, fg_v like, int64_t x)
{
    return ll_ci(ll_like(like, g->i32), x);
}

/* c[0] + c[1] x + .. + c[n-1] x^(n-1) */
static fg_v
poly(fg_ll *g, fg_v x, int n, const double *c)
{
    fg_v p = k(x, c[n - 1]);
    for (int i = n - 2; i >= 0; i--)
        p = ll_fma(g, p, x, k(x, c[i]));
    return p;
}
#define POLY(g, x, ...)                                                                  \
    poly(g, x, (int)(sizeof((const double[]){__VA_ARGS__}) / sizeof(double)),            \
         (const double[]){__VA_ARGS__})

static fg_v
cap(fg_ll *g, double hi, fg_v x)
{
    return ll_min(g, k(x, hi), x);
}

static fg_v
atleast(fg_ll *g, double lo, fg_v x)
{
    return ll_max(g, k(x, lo), x);
}

static fg_v
sel_lt(fg_ll *g, fg_v x, double limit, fg_v below, fg_v other)
{
    return ll_sel(g, ll_cmp(g, LL_LT, x, k(x, limit)), below, other);
}

static fg_v
copysign_of(fg_ll *g, fg_v magnitude, fg_v sign)
{
    return ll_intr2(g, "llvm.copysign", magnitude, sign);
}

/* ---- exponentials --------------------------------------------------------------- */

/* x = n ln 2 + r with |r| <= ln 2 / 2; n comes as f32 and, in the low bits of
 * *shifted, as an integer: adding 1.5 * 2^23 leaves the rounded sum there, NaN
 * included, without a conversion. */
static const double shifter = 12582912.0;

static fg_v
reduce_exp(fg_ll *g, fg_v x, fg_v *shifted)
{
    *shifted = ll_fma(g, x, k(x, FG_LOG2_E), k(x, shifter));
    fg_v n = ll_sub(g, *shifted, k(x, shifter));
    fg_v r = ll_fma(g, n, k(x, -0.693359375), x);
    return ll_fma(g, n, k(x, 2.12194440054690583e-4), r);
}

static fg_v
exp_poly(fg_ll *g, fg_v r)
{
    fg_v p = POLY(g, r, 0.50000001009602502, 0.16666512881753986, 0.041666187370071224,
                  0.0083695990162245392, 0.0013951711061463623);
    return ll_add(g, ll_fma(g, p, ll_mul(g, r, r), r), k(r, 1));
}

/* 2^n for the integer vector n in -126..127 */
static fg_v
power_of_two(fg_ll *g, fg_v n, fg_t t)
{
    return ll_bits(g, ll_shl(g, ll_add(g, n, ki(g, n, 127)), ki(g, n, 23)), t);
}

/* Scaling in two steps reaches denormal results and infinity without overflowing on
 * the way. */
static fg_v
scale_by(fg_ll *g, fg_v p, fg_v shifted)
{
    fg_t t = LLVMTypeOf(p);
    fg_v bits = ll_bits(g, shifted, ll_like(p, g->i32));
    fg_v n = ll_sub(g, bits, ki(g, bits, 0x4b400000));
    fg_v half = ll_sar(g, n, ki(g, n, 1));
    p = ll_mul(g, p, power_of_two(g, half, t));
    return ll_mul(g, p, power_of_two(g, ll_sub(g, n, half), t));
}

fg_v
vm_exp(fg_ll *g, fg_v x)
{
    fg_v shifted;
    fg_v r = reduce_exp(g, atleast(g, -105, cap(g, 89, x)), &shifted);
    return scale_by(g, exp_poly(g, r), shifted);
}

fg_v
vm_exp_neg(fg_ll *g, fg_v x)
{
    fg_v shifted;
    fg_v r = reduce_exp(g, atleast(g, -87, x), &shifted);
    fg_v n = ll_shl(g, ll_bits(g, shifted, ll_like(x, g->i32)), ki(g, x, 23));
    fg_v one = ki(g, x, 127 << 23);
    fg_v y = ll_mul(g, exp_poly(g, r), ll_bits(g, ll_add(g, n, one), LLVMTypeOf(x)));
    return sel_lt(g, x, -87, k(x, 0), y);
}

/* 2^x = 2^n 2^r. Adding 127 to the shifter leaves the exponent's field in the low bits: 0 for
 * n = -127, and so is the power. */
fg_v
vm_exp2(fg_ll *g, fg_v x)
{
    fg_v bias = k(x, shifter + 127), t = atleast(g, -127, x);
    fg_v shifted = ll_add(g, t, bias), r = ll_sub(g, t, ll_sub(g, shifted, bias));
    fg_v p = POLY(g, r, 1, 0.6931469775987169, 0.24022242084635104, 0.0555073374357406,
                  0.009671512688152474, 0.001326472724719198);
    fg_v n = ll_shl(g, ll_bits(g, shifted, ll_like(x, g->i32)), ki(g, x, 23));
    return ll_mul(g, p, ll_bits(g, n, LLVMTypeOf(x)));
}

fg_v
vm_sigmoid(fg_ll *g, fg_v x)
{
    return ll_div(g, k(x, 1), ll_add(g, k(x, 1), vm_exp(g, ll_neg(g, x))));
}

/* x / (1 + e^-x), where e^-x = inf must give 0 and not NaN for x = -inf. */
fg_v
vm_silu(fg_ll *g, fg_v x)
{
    fg_v y = ll_div(g, x, ll_add(g, k(x, 1), vm_exp(g, ll_neg(g, x))));
    return sel_lt(g, x, -120, k(x, -0.0), y);
}

fg_v
vm_tanh(fg_ll *g, fg_v x)
{
    fg_v t = ll_abs(g, x), s = ll_mul(g, x, x);
    fg_v p = POLY(g, s, -0.33333283923590679, 0.13331491248512828, -0.053743495261210687,
                  0.020650579003132403, -0.0057170365606576653);
    fg_v near = ll_fma(g, ll_mul(g, x, s), p, x);
    fg_v e = vm_exp(g, ll_add(g, t, t));
    fg_v far = ll_sub(g, k(x, 1), ll_div(g, k(x, 2), ll_add(g, e, k(x, 1))));
    return sel_lt(g, t, 0.625, near, copysign_of(g, far, x));
}

fg_v
vm_sinh(fg_ll *g, fg_v x)
{
    fg_v t = ll_abs(g, x), s = ll_mul(g, x, x);
    fg_v p =
        POLY(g, s, 0.16666719821119033, 0.0083301480996808858, 0.00020382836493500152);
    fg_v near = ll_fma(g, ll_mul(g, x, s), p, x);
    fg_v h = vm_exp(g, ll_mul(g, t, k(x, 0.5)));
    fg_v far = ll_mul(g, ll_mul(g, h, k(x, 0.5)), h);
    far = ll_sub(g, far, ll_div(g, ll_div(g, k(x, 0.5), h), h));
    return sel_lt(g, t, 1, near, copysign_of(g, far, x));
}

fg_v
vm_cosh(fg_ll *g, fg_v x)
{
    fg_v h = vm_exp(g, ll_mul(g, ll_abs(g, x), k(x, 0.5)));
    fg_v far = ll_mul(g, ll_mul(g, h, k(x, 0.5)), h);
    return ll_add(g, far, ll_div(g, ll_div(g, k(x, 0.5), h), h));
}

/* ---- logarithms ----------------------------------------------------------------- */

/* log(1+f) for f near 0, without its first term: -f^2/2 + f^3 P(f) + lo */
static fg_v
log_tail(fg_ll *g, fg_v f, fg_v lo)
{
    fg_v s = ll_mul(g, f, f);
    fg_v p = POLY(g, f, 0.33333307740459311, -0.24999998598448087, 0.20002472094711979,
                  -0.16668921607672124, 0.14212670026083166, -0.12383812679984894,
                  0.11919495826314444, -0.11826428002909806, 0.068610973004882406);
    fg_v r = ll_mul(g, ll_mul(g, s, f), p);
    if (lo)
        r = ll_add(g, r, lo);
    return ll_fma(g, s, k(f, -0.5), r);
}

fg_v
vm_log(fg_ll *g, fg_v x)
{
    fg_t ti = ll_like(x, g->i32), t = LLVMTypeOf(x);
    fg_v tiny = ll_cmp(g, LL_LT, x, k(x, 1.17549435e-38));
    fg_v y = ll_sel(g, tiny, ll_mul(g, x, k(x, 8388608)), x);
    fg_v bits = ll_sub(g, ll_bits(g, y, ti), ll_ci(ti, 0x3f3504f3));
    fg_v e = ll_fromint(g, ll_sar(g, bits, ll_ci(ti, 23)), g->f32, true);
    e = ll_sel(g, tiny, ll_sub(g, e, k(x, 23)), e);
    bits = ll_add(g, ll_and(g, bits, ll_ci(ti, 0x7fffff)), ll_ci(ti, 0x3f3504f3));
    fg_v f = ll_sub(g, ll_bits(g, bits, t), k(x, 1));
    fg_v r = log_tail(g, f, ll_mul(g, e, k(x, -2.12194440054690583e-4)));
    r = ll_fma(g, e, k(x, 0.693359375), ll_add(g, f, r));
    r = ll_sel(g, ll_cmp(g, LL_EQ, x, k(x, INFINITY)), x, r);
    r = ll_sel(g, ll_cmp(g, LL_EQ, x, k(x, 0)), k(x, -INFINITY), r);
    return ll_sel(g, ll_cmp(g, LL_GE, x, k(x, 0)), r, k(x, NAN));
}

fg_v
vm_log1p(fg_ll *g, fg_v x)
{
    fg_v near = ll_add(g, x, log_tail(g, x, NULL));
    fg_v in =
        ll_and(g, ll_cmp(g, LL_GT, x, k(x, -0.29)), ll_cmp(g, LL_LT, x, k(x, 0.41)));
    return ll_sel(g, in, near, vm_log(g, ll_add(g, x, k(x, 1))));
}

fg_v
vm_softplus(fg_ll *g, fg_v x)
{
    fg_v rest = vm_log1p(g, vm_exp(g, ll_neg(g, ll_abs(g, x))));
    return ll_add(g, ll_max(g, k(x, 0), x), rest);
}

/* log(t + sqrt(t^2 + 1)) = log1p(t + t^2 / (1 + sqrt(1 + t^2))); for large t: log t +
 * log 2 */
fg_v
vm_asinh(fg_ll *g, fg_v x)
{
    fg_v t = ll_abs(g, x), s = ll_mul(g, t, t), one = k(x, 1);
    fg_v root = ll_sqrt(g, ll_add(g, s, one));
    fg_v near = vm_log1p(g, ll_add(g, t, ll_div(g, s, ll_add(g, one, root))));
    fg_v far = ll_add(g, vm_log(g, t), k(x, 0.693147180559945309));
    return copysign_of(g, sel_lt(g, t, 1e9, near, far), x);
}

fg_v
vm_acosh(fg_ll *g, fg_v x)
{
    fg_v t = ll_sub(g, x, k(x, 1));
    fg_v root = ll_sqrt(g, ll_fma(g, t, t, ll_add(g, t, t)));
    fg_v far = ll_add(g, vm_log(g, x), k(x, 0.693147180559945309));
    return sel_lt(g, x, 1e9, vm_log1p(g, ll_add(g, t, root)), far);
}

fg_v
vm_atanh(fg_ll *g, fg_v x)
{
    fg_v t = ll_abs(g, x);
    fg_v q = ll_div(g, ll_add(g, t, t), ll_sub(g, k(x, 1), t));
    return copysign_of(g, ll_mul(g, k(x, 0.5), vm_log1p(g, q)), x);
}

/* ---- circle --------------------------------------------------------------------- */

/* x = n pi/2 + r, |r| <= pi/4. The subtraction runs in f64 with pi/2 in three parts of
 * 33 bits, exact while n has 20: that covers arguments past 1e6, and degrades slowly
 * beyond. *quadrant is n mod 4. */
static fg_v
reduce_circle(fg_ll *g, fg_v x, fg_v *quadrant)
{
    fg_v d = ll_fcast(g, x, g->f64);
    fg_v n = ll_round(g, ll_mul(g, d, k(d, 0.636619772367581343)));
    fg_v r = ll_fma(g, n, k(d, -1.57079632673412561417e+00), d);
    r = ll_fma(g, n, k(d, -6.07710050630396597660e-11), r);
    r = ll_fma(g, n, k(d, -2.02226624879595063154e-21), r);
    fg_v turn = ll_mul(g, ll_floor(g, ll_mul(g, n, k(d, 0.25))), k(d, 4));
    fg_v q = ll_fcast(g, ll_sub(g, n, turn), g->f32);
    *quadrant = ll_sub(g, ll_bits(g, ll_add(g, q, k(q, shifter)), ll_like(q, g->i32)),
                       ki(g, q, 0x4b400000));
    return ll_fcast(g, r, g->f32);
}

static fg_v
sin_near(fg_ll *g, fg_v r, fg_v s)
{
    fg_v p = POLY(g, s, -0.16666666639557345, 0.0083333291438706034,
                  -0.00019839256622413906, 2.7175643641963769e-06);
    return ll_fma(g, ll_mul(g, r, s), p, r);
}

static fg_v
cos_near(fg_ll *g, fg_v s)
{
    fg_v p =
        POLY(g, s, 0.041666645652426906, -0.0013887306024738615, 2.4431203146235802e-05);
    fg_v half = ll_fma(g, s, k(s, -0.5), k(s, 1));
    return ll_fma(g, ll_mul(g, s, s), p, half);
}

static fg_v
circle(fg_ll *g, fg_v x, int ahead)
{
    fg_v q, r = reduce_circle(g, x, &q), s = ll_mul(g, r, r);
    q = ll_add(g, q, ki(g, q, ahead));
    fg_v odd = ll_cmp(g, LL_NE, ll_and(g, q, ki(g, q, 1)), ki(g, q, 0));
    fg_v y = ll_sel(g, odd, cos_near(g, s), sin_near(g, r, s));
    fg_v sign = ll_shl(g, ll_and(g, q, ki(g, q, 2)), ki(g, q, 30));
    return ll_bits(g, ll_xor(g, ll_bits(g, y, LLVMTypeOf(sign)), sign), LLVMTypeOf(x));
}

fg_v
vm_sin(fg_ll *g, fg_v x)
{
    return circle(g, x, 0);
}

fg_v
vm_cos(fg_ll *g, fg_v x)
{
    return circle(g, x, 1);
}

fg_v
vm_tan(fg_ll *g, fg_v x)
{
    fg_v q, r = reduce_circle(g, x, &q), s = ll_mul(g, r, r);
    fg_v odd = ll_cmp(g, LL_NE, ll_and(g, q, ki(g, q, 1)), ki(g, q, 0));
    fg_v si = sin_near(g, r, s), co = cos_near(g, s);
    return ll_div(g, ll_sel(g, odd, ll_neg(g, co), si), ll_sel(g, odd, si, co));
}

static const double half_pi = 1.57079632679489662;

fg_v
vm_atan(fg_ll *g, fg_v x)
{
    fg_v t = ll_abs(g, x), one = k(x, 1);
    fg_v big = ll_cmp(g, LL_GT, t, k(x, 2.41421356237309505));
    fg_v mid = ll_cmp(g, LL_GT, t, k(x, 0.41421356237309505));
    fg_v num = ll_sel(g, big, k(x, -1), ll_sel(g, mid, ll_sub(g, t, one), t));
    fg_v den = ll_sel(g, big, t, ll_sel(g, mid, ll_add(g, t, one), one));
    fg_v base = ll_sel(g, big, k(x, half_pi), ll_sel(g, mid, k(x, half_pi / 2), k(x, 0)));
    fg_v a = ll_div(g, num, den), s = ll_mul(g, a, a);
    fg_v p = POLY(g, s, -0.33332952474372429, 0.19977807243916879, -0.13878449038806917,
                  0.080554340305004371);
    fg_v y = ll_add(g, base, ll_fma(g, ll_mul(g, a, s), p, a));
    return copysign_of(g, y, x);
}

/* asin(a) for |a| <= 1/2, with s = a^2 */
static fg_v
asin_near(fg_ll *g, fg_v a, fg_v s)
{
    fg_v p = POLY(g, s, 0.16666759137911627, 0.074950097442855024, 0.045508660314652845,
                  0.023980696477828044, 0.042519523851838242);
    return ll_fma(g, ll_mul(g, a, s), p, a);
}

/* Above 1/2: asin(t) = pi/2 - 2 asin(sqrt((1-t)/2)) */
static fg_v
asin_parts(fg_ll *g, fg_v t, fg_v *small)
{
    *small = ll_cmp(g, LL_LE, t, k(t, 0.5));
    fg_v far = ll_mul(g, ll_sub(g, k(t, 1), t), k(t, 0.5));
    fg_v s = ll_sel(g, *small, ll_mul(g, t, t), far);
    return asin_near(g, ll_sel(g, *small, t, ll_sqrt(g, far)), s);
}

fg_v
vm_asin(fg_ll *g, fg_v x)
{
    fg_v small, a = asin_parts(g, ll_abs(g, x), &small);
    fg_v far = ll_sub(g, k(x, half_pi), ll_add(g, a, a));
    return copysign_of(g, ll_sel(g, small, a, far), x);
}

fg_v
vm_acos(fg_ll *g, fg_v x)
{
    fg_v small, a = asin_parts(g, ll_abs(g, x), &small);
    fg_v twice = ll_add(g, a, a);
    fg_v far = sel_lt(g, x, 0, ll_sub(g, k(x, 2 * half_pi), twice), twice);
    return ll_sel(g, small, ll_sub(g, k(x, half_pi), copysign_of(g, a, x)), far);
}

/* ---- error function and its kin
 * --------------------------------------------------------- */

/* Near 0 an odd polynomial; beyond, 1 - exp(q(t)) where q fits log(1 - erf). */
fg_v
vm_erf(fg_ll *g, fg_v x)
{
    fg_v t = ll_abs(g, x), s = ll_mul(g, x, x);
    fg_v p = POLY(g, s, 0.1283791666760872, -0.37612634029148323, 0.11283699117008396,
                  -0.026859560793596252, 0.0052013592971452555, -0.00081457027563737732,
                  8.3802529888606011e-05);
    fg_v near = ll_fma(g, x, p, x);
    fg_v c = cap(g, 4.1, t);
    fg_v q = POLY(g, c, 0.00017345391896133195, -1.1295091877644063, -0.6333581574678997,
                  -0.10826809993442557, 0.025111925595367422, -0.0041683078502113167,
                  0.00043391277695265109, -2.1049060006078537e-05);
    fg_v shifted, r = reduce_exp(g, q, &shifted);
    fg_v n = ll_shl(g, ll_bits(g, shifted, ll_like(x, g->i32)), ki(g, x, 23));
    fg_v e = ll_bits(g, ll_add(g, ll_bits(g, exp_poly(g, r), LLVMTypeOf(n)), n),
                     LLVMTypeOf(x));
    fg_v far = ll_sub(g, k(x, 1), e);
    far = sel_lt(g, t, 4, far, ll_add(g, k(x, 1), ll_mul(g, k(x, 0), t)));
    far = ll_sel(g, ll_cmp(g, LL_EQ, t, k(x, INFINITY)), k(x, 1), far);
    return sel_lt(g, t, 0.92, near, copysign_of(g, far, x));
}

/* max(x, 0) - t P(-t) where t = |x| and P, the normal distribution, is 2^q(t): one
 * polynomial for all of it, and no cancellation for negative x. */
fg_v
vm_gelu(fg_ll *g, fg_v x)
{
    const double end = 5.6; /* beyond, t P(-t) is less than 1e-7 */
    fg_v t = cap(g, end, ll_abs(g, x));
    fg_v q = POLY(g, t, -0.9999999611150973, -1.151106523959274, -0.459200729632244,
                  -0.0525038945870755, 0.007040320151744453, -7.607622026008622e-05,
                  -0.00024354020041121778, 6.620754108553013e-05, -9.259298916063363e-06,
                  7.049029746224175e-07, -2.3052500294701484e-08);
    fg_v shifted = ll_add(g, q, k(x, shifter));
    fg_v r = ll_sub(g, q, ll_sub(g, shifted, k(x, shifter)));
    fg_v p = POLY(g, r, 1.0000000716546709, 0.6931469670643615, 0.24022119723882474,
                  0.05550713274150991, 0.009675541332740971, 0.0013276471781201742);
    fg_v n = ll_shl(g, ll_bits(g, shifted, ll_like(x, g->i32)), ki(g, x, 23));
    p = ll_bits(g, ll_add(g, ll_bits(g, p, LLVMTypeOf(n)), n), LLVMTypeOf(x));
    fg_v y = ll_fma(g, ll_neg(g, t), p, atleast(g, 0, x));
    return sel_lt(g, x, -end, k(x, -0.0), y);
}

/* x/2 (1 + tanh u) = x / (1 + e^-2u) */
fg_v
vm_gelu_tanh(fg_ll *g, fg_v x)
{
    fg_v s = ll_mul(g, x, x);
    fg_v u = ll_mul(g, ll_mul(g, x, k(x, -1.5957691216057308)),
                    ll_fma(g, s, k(x, 0.044715), k(x, 1)));
    fg_v y = ll_div(g, x, ll_add(g, k(x, 1), vm_exp(g, u)));
    return sel_lt(g, x, -20, k(x, -0.0), y);
}

/* ---- powers
 * --------------------------------------------------------------------------------- */

/* log|x| in f64 of an f32: 0 and infinity become -+1e300, so that times y they decide
 * by sign. */
static fg_v
log_wide(fg_ll *g, fg_v t)
{
    fg_t ti = ll_like(t, g->i64), td = LLVMTypeOf(t);
    fg_v bits = ll_sub(g, ll_bits(g, t, ti), ll_ci(ti, 0x3fe6a09e667f3bcd));
    fg_v e = ll_sext(g, ll_sar(g, bits, ll_ci(ti, 52)), g->i32);
    e = ll_fromint(g, e, g->f64, true);
    bits = ll_add(g, ll_and(g, bits, ll_ci(ti, 0xfffffffffffff)),
                  ll_ci(ti, 0x3fe6a09e667f3bcd));
    fg_v m = ll_bits(g, bits, td), one = k(t, 1);
    fg_v s = ll_div(g, ll_sub(g, m, one), ll_add(g, m, one)), z = ll_mul(g, s, s);
    fg_v p = POLY(g, z, 0.33333333333333687, 0.19999999999697232, 0.14285714373649613,
                  0.11111099014719734, 0.090917972627028693, 0.076566154742452264,
                  0.074022986856823139);
    fg_v y = ll_fma(g, ll_mul(g, s, z), p, s);
    y = ll_fma(g, e, k(t, 0.693147180559945309), ll_add(g, y, y));
    y = ll_sel(g, ll_cmp(g, LL_EQ, t, k(t, 0)), k(t, -1e300), y);
    return ll_sel(g, ll_cmp(g, LL_EQ, t, k(t, INFINITY)), k(t, 1e300), y);
}

static fg_v
exp_wide(fg_ll *g, fg_v x)
{
    const double shift = 6755399441055744.0;
    x = atleast(g, -200, cap(g, 200, x));
    fg_v shifted = ll_add(g, ll_mul(g, x, k(x, FG_LOG2_E)), k(x, shift));
    fg_v n = ll_sub(g, shifted, k(x, shift));
    fg_v r = ll_fma(g, n, k(x, -0.693147180369123816490), x);
    r = ll_fma(g, n, k(x, -1.90821492927058770002e-10), r);
    fg_v p = POLY(g, r, 0.50000000000000144, 0.16666666666666702, 0.04166666666650274,
                  0.0083333333333057372, 0.0013888888950616459, 0.00019841269920968199,
                  2.4801485972531963e-05, 2.7557212830648501e-06, 2.7632771194102639e-07,
                  2.5119024067373248e-08);
    p = ll_add(g, ll_fma(g, ll_mul(g, r, r), p, r), k(x, 1));
    fg_t ti = ll_like(x, g->i64);
    fg_v bits = ll_shl(g, ll_bits(g, shifted, ti), ll_ci(ti, 52));
    return ll_bits(g, ll_add(g, ll_bits(g, p, ti), bits), LLVMTypeOf(x));
}

/* In f64, since the exponent multiplies the logarithm's error. */
fg_v
vm_pow(fg_ll *g, fg_v x, fg_v y)
{
    fg_v dx = ll_fcast(g, x, g->f64), dy = ll_fcast(g, y, g->f64), t = ll_abs(g, dx);
    fg_v w = ll_fcast(g, exp_wide(g, ll_mul(g, dy, log_wide(g, t))), g->f32);
    fg_v whole = ll_cmp(g, LL_EQ, ll_floor(g, y), y);
    fg_v half = ll_mul(g, y, k(y, 0.5));
    fg_v odd = ll_and(g, whole, ll_cmp(g, LL_NE, ll_floor(g, half), half));
    fg_v r = ll_sel(g, odd, copysign_of(g, w, x), w);
    fg_v below = ll_cmp(g, LL_LT, x, k(x, 0));
    fg_v bad = ll_and(g, ll_and(g, below, ll_not(g, whole)),
                      ll_cmp(g, LL_NE, x, k(x, -INFINITY)));
    bad = ll_or(g, bad, ll_or(g, ll_isnan(g, x), ll_isnan(g, y)));
    r = ll_sel(g, bad, k(x, NAN), r);
    fg_v unit = ll_and(g, ll_cmp(g, LL_EQ, x, k(x, -1)),
                       ll_cmp(g, LL_EQ, ll_abs(g, y), k(y, INFINITY)));
    unit = ll_or(g, unit, ll_cmp(g, LL_EQ, y, k(y, 0)));
    unit = ll_or(g, unit, ll_cmp(g, LL_EQ, x, k(x, 1)));
    return ll_sel(g, unit, k(x, 1), r);
}
