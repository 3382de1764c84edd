/* eval_elem.c - elementwise operations: one table row each, one loop per operand count.
 *
 * A row gives the scalar function of each class that the operation takes. Floats are
 * computed in double and rounded once, which for one + - * / or sqrt is the correctly
 * rounded f32. Integers are computed modulo 2^64 on extended values and wrapped into the
 * type, so sums, differences and products need no signed form; division, comparison and
 * right shift do.
 */
#include "ir/eval_impl.h"

#include <math.h>

/* A row's functions; NULL where the operation does not take the class. Bool is unsigned. */
typedef struct unary {
    double (*flt)(double);
    uint64_t (*sgn)(int64_t);
    uint64_t (*uns)(uint64_t);
} unary;

typedef struct binary {
    double (*flt)(double, double);
    uint64_t (*sgn)(int64_t, int64_t);
    uint64_t (*uns)(uint64_t, uint64_t);
} binary;

typedef struct comparison {
    bool (*flt)(double, double);
    bool (*sgn)(int64_t, int64_t);
    bool (*uns)(uint64_t, uint64_t);
} comparison;

/* ---- scalar helpers the rows use --------------------------------------------------- */

static double
sigmoid(double x) /* exp never overflows */
{
    double e = exp(-fabs(x));

    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

/* x w for a weight that falls to 0 faster than x grows: so does their product. */
static double
weighted(double x, double w)
{
    return w == 0 ? 0 : x * w;
}

static double
sign_of(double x) /* NaN stays */
{
    return x > 0 ? 1 : x < 0 ? -1 : x == 0 ? 0 : x;
}

static double
gelu(double x)
{
    return weighted(x, 0.5 * erfc(x * -0.70710678118654752440));
}

static double
gelu_tanh(double x)
{
    return weighted(x, sigmoid(1.59576912160573071176 * (x + 0.044715 * x * x * x)));
}

static double
float_mod(double x, double y) /* sign of y */
{
    double r = fmod(x, y);

    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static int64_t
int_rem(int64_t x, int64_t y) /* sign of x; INT64_MIN % -1 would trap */
{
    return y == 0 || y == -1 ? 0 : x % y;
}

static uint64_t
int_mod(int64_t x, int64_t y) /* sign of y */
{
    int64_t r = int_rem(x, y);

    return (uint64_t)(r != 0 && (r < 0) != (y < 0) ? r + y : r);
}

static uint64_t
int_div(int64_t x, int64_t y) /* -1 apart: INT64_MIN / -1 would trap */
{
    return y == 0 ? 0 : y == -1 ? -(uint64_t)x : (uint64_t)(x / y);
}

static uint64_t
int_pow(uint64_t x, uint64_t y)
{
    uint64_t r = 1;

    for (; y; y >>= 1, x *= x)
        if (y & 1)
            r *= x;
    return r;
}

/* The exact value of x^-n is an integer only for x = 1 and -1; the rest truncates to 0. */
static uint64_t
signed_pow(int64_t x, int64_t y)
{
    if (y >= 0)
        return int_pow((uint64_t)x, (uint64_t)y);
    return x == 1 ? 1 : x == -1 ? (y & 1 ? (uint64_t)-1 : 1) : 0;
}

static double
nan_min(double x, double y)
{
    return x != x || y != y ? NAN : x < y ? x : y;
}

static double
nan_max(double x, double y)
{
    return x != x || y != y ? NAN : x > y ? x : y;
}

/* ---- loops ------------------------------------------------------------------------- */

static bool
map1(fg_evalcall *c, const unary *r)
{
    const fg_tensor *x = &c->in[0];
    fg_tensor *o = &c->out[0];
    fg_class cls = fg_dtypes[x->dtype].cls;

    for (int64_t k = 0; k < o->count; k++) {
        fg_num v = fg_num_get(x, k);

        if (cls == FG_CLASS_FLOAT)
            v.f = r->flt(v.f);
        else if (cls == FG_CLASS_SINT)
            v.u = r->sgn((int64_t)v.u);
        else
            v.u = r->uns(v.u);
        fg_num_put(o, k, v);
    }
    return true;
}

static bool
broadcast2(fg_evalcall *c, fg_walk *w)
{
    *w = fg_walk_new(c->out[0].rank, c->out[0].dim);
    return (fg_walk_broadcast(w, &c->in[0]) && fg_walk_broadcast(w, &c->in[1])) ||
           fg_eval_error(c, "shapes do not broadcast");
}

static bool
map2(fg_evalcall *c, const binary *r)
{
    const fg_tensor *x = &c->in[0], *y = &c->in[1];
    fg_tensor *o = &c->out[0];
    fg_class cls = fg_dtypes[x->dtype].cls;
    fg_walk w;

    if (!broadcast2(c, &w))
        return false;
    for (int64_t k = 0; k < o->count; k++, fg_walk_next(&w)) {
        fg_num p = fg_num_get(x, w.off[0]), q = fg_num_get(y, w.off[1]), v;

        if (cls == FG_CLASS_FLOAT)
            v.f = r->flt(p.f, q.f);
        else if (cls == FG_CLASS_SINT)
            v.u = r->sgn((int64_t)p.u, (int64_t)q.u);
        else
            v.u = r->uns(p.u, q.u);
        fg_num_put(o, k, v);
    }
    return true;
}

static bool
compare(fg_evalcall *c, const comparison *r)
{
    const fg_tensor *x = &c->in[0], *y = &c->in[1];
    fg_tensor *o = &c->out[0];
    fg_class cls = fg_dtypes[x->dtype].cls;
    fg_walk w;

    if (!broadcast2(c, &w))
        return false;
    for (int64_t k = 0; k < o->count; k++, fg_walk_next(&w)) {
        fg_num p = fg_num_get(x, w.off[0]), q = fg_num_get(y, w.off[1]), v;

        if (cls == FG_CLASS_FLOAT)
            v.u = r->flt(p.f, q.f);
        else if (cls == FG_CLASS_SINT)
            v.u = r->sgn((int64_t)p.u, (int64_t)q.u);
        else
            v.u = r->uns(p.u, q.u);
        fg_num_put(o, k, v);
    }
    return true;
}

/* ---- the table --------------------------------------------------------------------- */

/* clang-format off */

/*    name       of a float                     */
#define UNARY_FLOAT(X)                          \
    X(sqrt,      sqrt(x))                       \
    X(rsqrt,     1 / sqrt(x))                   \
    X(recip,     1 / x)                         \
    X(exp,       exp(x))                        \
    X(log,       log(x))                        \
    X(sin,       sin(x))                        \
    X(cos,       cos(x))                        \
    X(tan,       tan(x))                        \
    X(asin,      asin(x))                       \
    X(acos,      acos(x))                       \
    X(atan,      atan(x))                       \
    X(sinh,      sinh(x))                       \
    X(cosh,      cosh(x))                       \
    X(asinh,     asinh(x))                      \
    X(acosh,     acosh(x))                      \
    X(atanh,     atanh(x))                      \
    X(tanh,      tanh(x))                       \
    X(sigmoid,   sigmoid(x))                    \
    X(erf,       erf(x))                        \
    X(gelu,      gelu(x))                       \
    X(gelu_tanh, gelu_tanh(x))                  \
    X(silu,      weighted(x, sigmoid(x)))       \
    X(softplus,  fmax(x, 0) + log1p(exp(-fabs(x)))) \
    X(floor,     floor(x))                      \
    X(ceil,      ceil(x))                       \
    X(round,     nearbyint(x))

/*    name       float             signed                    unsigned */
#define UNARY_NUMBER(X)                                      \
    X(neg,       -x,               -(uint64_t)x,             -x)        \
    X(abs,       fabs(x),          x < 0 ? -(uint64_t)x : (uint64_t)x, x) \
    X(sign,      sign_of(x),       (uint64_t)((x > 0) - (x < 0)), x != 0) \
    X(relu,      x < 0 ? 0 : x,    x < 0 ? 0 : (uint64_t)x,  x)

/*    name       float             signed                    unsigned */
#define BINARY_NUMBER(X)                                     \
    X(add,       x + y,            (uint64_t)x + (uint64_t)y, x + y)    \
    X(sub,       x - y,            (uint64_t)x - (uint64_t)y, x - y)    \
    X(mul,       x * y,            (uint64_t)x * (uint64_t)y, x * y)    \
    X(div,       x / y,            int_div(x, y),            y ? x / y : 0) \
    X(mod,       float_mod(x, y),  int_mod(x, y),            y ? x % y : 0) \
    X(fmod,      fmod(x, y),       (uint64_t)int_rem(x, y),  y ? x % y : 0) \
    X(min,       nan_min(x, y),    (uint64_t)(x < y ? x : y), x < y ? x : y) \
    X(max,       nan_max(x, y),    (uint64_t)(x > y ? x : y), x > y ? x : y)

/*    name       of the bits       */
#define BINARY_BITS(X)             \
    X(and,       x & y)            \
    X(or,        x | y)            \
    X(xor,       x ^ y)            \
    X(bitand,    x & y)            \
    X(bitor,     x | y)            \
    X(bitxor,    x ^ y)

#define COMPARISONS(X)             \
    X(eq, ==) X(ne, !=) X(lt, <) X(le, <=) X(gt, >) X(ge, >=)

#define X(name, of_float)                                                         \
    static double name##_flt(double x) { return of_float; }                       \
    bool fg_eval_##name(fg_evalcall *c) { return map1(c, &(unary){name##_flt}); }
UNARY_FLOAT(X)
#undef X

#define X(name, of_float, of_signed, of_unsigned)                                 \
    static double name##_flt(double x) { return of_float; }                       \
    static uint64_t name##_sgn(int64_t x) { return of_signed; }                   \
    static uint64_t name##_uns(uint64_t x) { return of_unsigned; }                \
    bool fg_eval_##name(fg_evalcall *c)                                           \
    { return map1(c, &(unary){name##_flt, name##_sgn, name##_uns}); }
UNARY_NUMBER(X)
#undef X

#define X(name, of_float, of_signed, of_unsigned)                                 \
    static double name##_flt(double x, double y) { return of_float; }             \
    static uint64_t name##_sgn(int64_t x, int64_t y) { return of_signed; }        \
    static uint64_t name##_uns(uint64_t x, uint64_t y) { return of_unsigned; }    \
    bool fg_eval_##name(fg_evalcall *c)                                           \
    { return map2(c, &(binary){name##_flt, name##_sgn, name##_uns}); }
BINARY_NUMBER(X)
#undef X

#define X(name, of_bits)                                                          \
    static uint64_t name##_uns(uint64_t x, uint64_t y) { return of_bits; }        \
    static uint64_t name##_sgn(int64_t x, int64_t y)                              \
    { return name##_uns((uint64_t)x, (uint64_t)y); }                              \
    bool fg_eval_##name(fg_evalcall *c)                                           \
    { return map2(c, &(binary){NULL, name##_sgn, name##_uns}); }
BINARY_BITS(X)
#undef X

#define X(name, rel)                                                              \
    static bool name##_flt(double x, double y) { return x rel y; }                \
    static bool name##_sgn(int64_t x, int64_t y) { return x rel y; }              \
    static bool name##_uns(uint64_t x, uint64_t y) { return x rel y; }            \
    bool fg_eval_##name(fg_evalcall *c)                                           \
    { return compare(c, &(comparison){name##_flt, name##_sgn, name##_uns}); }
COMPARISONS(X)
#undef X

/* clang-format on */

/* ---- the rest: operations that need more than the values --------------------------- */

static uint64_t
not_of(uint64_t x)
{
    return !x;
}

bool
fg_eval_not(fg_evalcall *c)
{
    return map1(c, &(unary){.uns = not_of});
}

static uint64_t
flip(uint64_t x)
{
    return ~x;
}

static uint64_t
flip_signed(int64_t x)
{
    return ~(uint64_t)x;
}

bool
fg_eval_bitnot(fg_evalcall *c)
{
    return map1(c, &(unary){.sgn = flip_signed, .uns = flip});
}

bool
fg_eval_isnan(fg_evalcall *c)
{
    for (int64_t k = 0; k < c->out[0].count; k++)
        fg_tensor_set_i64(&c->out[0], k, isnan(fg_tensor_f64(&c->in[0], k)) != 0);
    return true;
}

bool
fg_eval_isinf(fg_evalcall *c)
{
    bool neg = FG_GET(c->i, isinf, neg).i, pos = FG_GET(c->i, isinf, pos).i;

    for (int64_t k = 0; k < c->out[0].count; k++) {
        double x = fg_tensor_f64(&c->in[0], k);

        fg_tensor_set_i64(&c->out[0], k, isinf(x) && (x < 0 ? neg : pos));
    }
    return true;
}

/* From float the value counts (truncated, saturated, NaN as 0, but true as bool); from an
 * integer or bool the bits do, so that narrowing wraps. u64 beyond INT64_MAX has no i64. */
bool
fg_eval_cast(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    fg_tensor *o = &c->out[0];

    for (int64_t k = 0; k < o->count; k++) {
        int64_t v = fg_tensor_i64(x, k);

        if (fg_is_float(x->dtype) ||
            (x->dtype == FG_u64 && v < 0 && fg_is_float(o->dtype)))
            fg_tensor_set_f64(o, k, fg_tensor_f64(x, k));
        else
            fg_tensor_set_i64(o, k, v);
    }
    return true;
}

bool
fg_eval_bitcast(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0];
    size_t bytes;

    if (fg_dtypes[x->dtype].bits != fg_dtypes[c->out[0].dtype].bits ||
        !fg_dtype_bytes(x->dtype, x->count, &bytes))
        return fg_eval_error(c, "widths differ");
    memcpy(c->out[0].data, x->data, bytes);
    return true;
}

/* The exponent may be of another type: an integer base and exponent are exact, all
 * else goes through double. */
bool
fg_eval_pow(fg_evalcall *c)
{
    const fg_tensor *x = &c->in[0], *y = &c->in[1];
    fg_tensor *o = &c->out[0];
    fg_walk w;

    if (!broadcast2(c, &w))
        return false;
    for (int64_t k = 0; k < o->count; k++, fg_walk_next(&w)) {
        int64_t p = w.off[0], q = w.off[1];

        if (fg_is_float(x->dtype) || fg_is_float(y->dtype))
            fg_tensor_set_f64(o, k, pow(fg_tensor_f64(x, p), fg_tensor_f64(y, q)));
        else if (fg_dtypes[y->dtype].cls == FG_CLASS_SINT)
            fg_tensor_set_i64(
                o, k, (int64_t)signed_pow(fg_tensor_i64(x, p), fg_tensor_i64(y, q)));
        else
            fg_tensor_set_i64(o, k,
                              (int64_t)int_pow((uint64_t)fg_tensor_i64(x, p),
                                               (uint64_t)fg_tensor_i64(y, q)));
    }
    return true;
}

/* A count of the type's width or more (a negative one is a large one) empties the value. */
static bool
shift(fg_evalcall *c, bool left)
{
    const fg_tensor *x = &c->in[0], *y = &c->in[1];
    uint64_t width = (uint64_t)fg_dtypes[x->dtype].bits;
    bool sgn = fg_dtypes[x->dtype].cls == FG_CLASS_SINT;
    fg_walk w;

    if (!broadcast2(c, &w))
        return false;
    for (int64_t k = 0; k < c->out[0].count; k++, fg_walk_next(&w)) {
        fg_num v = fg_num_get(x, w.off[0]);
        uint64_t n = fg_num_get(y, w.off[1]).u;

        if (left)
            v.u = n >= width ? 0 : v.u << n;
        else if (sgn)
            v.u = (uint64_t)((int64_t)v.u >> (n >= width ? width - 1 : n));
        else
            v.u = n >= width ? 0 : v.u >> n;
        fg_num_put(&c->out[0], k, v);
    }
    return true;
}

bool
fg_eval_shl(fg_evalcall *c)
{
    return shift(c, true);
}

bool
fg_eval_shr(fg_evalcall *c)
{
    return shift(c, false);
}

bool
fg_eval_where(fg_evalcall *c)
{
    fg_tensor *o = &c->out[0];
    fg_walk w = fg_walk_new(o->rank, o->dim);

    for (int k = 0; k < 3; k++)
        if (!fg_walk_broadcast(&w, &c->in[k]))
            return fg_eval_error(c, "shapes do not broadcast");
    for (int64_t k = 0; k < o->count; k++, fg_walk_next(&w)) {
        int from = fg_num_get(&c->in[0], w.off[0]).u ? 1 : 2;

        fg_tensor_move(o, k, &c->in[from], w.off[from]);
    }
    return true;
}
