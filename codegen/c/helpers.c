/* helpers.c - functions that emitted C calls and C itself does not have. */
#include "codegen/c/c.h"

/* In an order in which each calls only those above it. */
static const struct {
    const char *name, *text;
} helpers[] = {
    {"floor_div", "static int64_t\nfloor_div(int64_t a, int64_t b)\n{\n"
                  "    return a / b - (a % b != 0 && (a < 0) != (b < 0));\n}\n"},
    {"floor_mod", "static int64_t\nfloor_mod(int64_t a, int64_t b)\n{\n"
                  "    return a - floor_div(a, b) * b;\n}\n"},
    {"copy", "static void\ncopy(void *to, const void *from, int64_t bytes)\n{\n"
             "    if (bytes > 0)\n        memcpy(to, from, (size_t)bytes);\n}\n"},
    {"times",
     "/* Products of sizes stay at what no memory holds. */\n"
     "static int64_t\ntimes(int64_t a, int64_t b)\n{\n"
     "    const int64_t most = (int64_t)1 << 56;\n"
     "    const double x = (double)a * (double)b;\n\n"
     "    return x > (double)most ? most : x < (double)-most ? -most : a * b;\n}\n"},
    {"least",
     "static int64_t\nleast(int64_t a, int64_t b)\n{\n    return a < b ? a : b;\n}\n"},
    {"most",
     "static int64_t\nmost(int64_t a, int64_t b)\n{\n    return a > b ? a : b;\n}\n"},
    {"place",
     "/* Of n places the one that index i names: negative ones count from the end. */\n"
     "static int64_t\nplace(int64_t i, int64_t n)\n{\n    i += i < 0 ? n : 0;\n"
     "    return i < 0 ? 0 : i >= n ? n - 1 : i;\n}\n"},
    {"mirror", "static int64_t\nmirror(int64_t i, int64_t n)\n{\n"
               "    if (n <= 1)\n        return 0;\n    i = floor_mod(i, 2 * (n - 1));\n"
               "    return i < n ? i : 2 * (n - 1) - i;\n}\n"},
    {"f16",
     "static float\nf16(uint16_t h)\n{\n    int e = h >> 10 & 31, m = h & 1023;\n"
     "    float v = e == 31 ? m ? NAN : INFINITY\n"
     "            : e ? ldexpf((float)(m | 1024), e - 25) : ldexpf((float)m, -24);\n"
     "    return h >> 15 ? -v : v;\n}\n"},
    {"to_f16",
     "/* Rounds to nearest, ties to even. What carries out of the last place carries "
     "into the\n"
     " * exponent, up to infinity. */\n"
     "static uint16_t\nto_f16(float v)\n{\n    int sign = signbit(v) ? 0x8000 : 0, e;\n\n"
     "    if (isnan(v))\n        return (uint16_t)(sign | 0x7e00);\n"
     "    if (fabsf(v) >= 65520)\n        return (uint16_t)(sign | 0x7c00);\n"
     "    frexpf(v, &e);\n    if (v == 0 || e < -13)\n        e = -13;\n"
     "    int units = (int)nearbyintf(ldexpf(fabsf(v), 11 - e));\n"
     "    return (uint16_t)(sign | (units + (e + 13) * 1024));\n}\n"},
    {"bf16", "static float\nbf16(uint16_t h)\n{\n    uint32_t bits = (uint32_t)h << 16;\n"
             "    float v;\n\n    memcpy(&v, &bits, sizeof v);\n    return v;\n}\n"},
    {"to_bf16", "/* Rounds to nearest, ties to even. */\n"
                "static uint16_t\nto_bf16(float v)\n{\n    uint32_t bits;\n\n"
                "    memcpy(&bits, &v, sizeof bits);\n    if (isnan(v))\n"
                "        return (uint16_t)(bits >> 16 | 64);\n"
                "    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);\n}\n"},
    {"i4", "static int8_t\ni4(const uint8_t *p, int64_t i)\n{\n"
           "    int v = p[i / 2] >> (i % 2 * 4) & 15;\n    return (int8_t)(v < 8 ? v : v "
           "- 16);\n}\n"},
    {"u4", "static uint8_t\nu4(const uint8_t *p, int64_t i)\n{\n"
           "    return p[i / 2] >> (i % 2 * 4) & 15;\n}\n"},
    {"wrap_i4",
     "static int8_t\nwrap_i4(int v)\n{\n    return (int8_t)(((v & 15) ^ 8) - 8);\n}\n"},
    {"wrap_u4", "static uint8_t\nwrap_u4(int v)\n{\n    return (uint8_t)(v & 15);\n}\n"},
    {"put4", "static void\nput4(uint8_t *p, int64_t i, int v)\n{\n"
             "    const int by = (int)(i % 2) * 4;\n\n"
             "    p[i / 2] = (uint8_t)((p[i / 2] & 0xf0 >> by) | (v & 15) << by);\n}\n"},
    {"bits_of_f32", "static uint32_t\nbits_of_f32(float v)\n{\n    uint32_t bits;\n\n"
                    "    memcpy(&bits, &v, sizeof bits);\n    return bits;\n}\n"},
    {"bits_of_f64", "static uint64_t\nbits_of_f64(double v)\n{\n    uint64_t bits;\n\n"
                    "    memcpy(&bits, &v, sizeof bits);\n    return bits;\n}\n"},
    {"f32_of_bits", "static float\nf32_of_bits(uint32_t bits)\n{\n    float v;\n\n"
                    "    memcpy(&v, &bits, sizeof v);\n    return v;\n}\n"},
    {"f64_of_bits", "static double\nf64_of_bits(uint64_t bits)\n{\n    double v;\n\n"
                    "    memcpy(&v, &bits, sizeof v);\n    return v;\n}\n"},
    {"saturate_u64",
     "/* x as an integer; NaN is 0. */\n"
     "static uint64_t\nsaturate_u64(double x)\n{\n"
     "    return x >= 0x1p64 ? UINT64_MAX : x >= 1 ? (uint64_t)x : 0;\n}\n"},
    {"saturate",
     "/* x as an integer of [lo, hi]; NaN is 0. */\n"
     "static int64_t\nsaturate(double x, double lo, double hi)\n{\n"
     "    x = isnan(x) ? 0 : trunc(x);\n"
     "    if (x >= 0x1p63)\n        return hi >= 0x1p63 ? INT64_MAX : (int64_t)hi;\n"
     "    if (x <= lo)\n        return (int64_t)lo;\n"
     "    return x >= hi ? (int64_t)hi : (int64_t)x;\n}\n"},
    {"sigmoid", "static double\nsigmoid(double x)\n{\n    double e = exp(-fabs(x));\n"
                "    return x >= 0 ? 1 / (1 + e) : e / (1 + e);\n}\n"},
    {"weighted", "/* x w, and 0 where the weight has vanished. */\n"
                 "static double\nweighted(double x, double w)\n{\n"
                 "    return w == 0 ? 0 : x * w;\n}\n"},
    {"silu",
     "static double\nsilu(double x)\n{\n    return weighted(x, sigmoid(x));\n}\n"},
    {"gelu", "static double\ngelu(double x)\n{\n"
             "    return weighted(x, 0.5 * erfc(x * -0.70710678118654752440));\n}\n"},
    {"gelu_tanh", "static double\ngelu_tanh(double x)\n{\n    return weighted(x, "
                  "sigmoid(1.59576912160573071176 * (x + 0.044715 * x * x * x)));\n}\n"},
    {"softplus", "static double\nsoftplus(double x)\n{\n"
                 "    return fmax(x, 0) + log1p(exp(-fabs(x)));\n}\n"},
    {"relu", "static double\nrelu(double x)\n{\n    return x < 0 ? 0 : x;\n}\n"},
    {"sign", "static double\nsign(double x)\n{\n"
             "    return x > 0 ? 1 : x < 0 ? -1 : x == 0 ? 0 : x;\n}\n"},
    {"smaller", "/* NaN wins. */\nstatic double\nsmaller(double x, double y)\n{\n"
                "    return isnan(x) || isnan(y) ? NAN : x < y ? x : y;\n}\n"},
    {"larger", "/* NaN wins. */\nstatic double\nlarger(double x, double y)\n{\n"
               "    return isnan(x) || isnan(y) ? NAN : x > y ? x : y;\n}\n"},
    {"float_mod",
     "/* With the sign of y. */\nstatic double\nfloat_mod(double x, double y)\n{\n"
     "    double r = fmod(x, y);\n"
     "    return r != 0 && (r < 0) != (y < 0) ? r + y : r;\n}\n"},
    {"above", "/* NaN is above all else. */\nstatic int\nabove(double x, double y)\n{\n"
              "    return isnan(y) ? 0 : isnan(x) || x > y;\n}\n"},
    {"below", "/* NaN is below all else. */\nstatic int\nbelow(double x, double y)\n{\n"
              "    return isnan(y) ? 0 : isnan(x) || x < y;\n}\n"},
    {"rank_of",
     "/* Integers in the order of floats; NaN is the greatest. */\n"
     "static int64_t\nrank_of(double x)\n{\n    int64_t bits;\n\n    x += 0.0;\n"
     "    memcpy(&bits, &x, sizeof bits);\n"
     "    return isnan(x) ? INT64_MAX : bits < 0 ? INT64_MIN - bits - 1 : bits;\n}\n"},
    {"sort_pairs", "static int\nby_rank(const void *a, const void *b)\n{\n"
                   "    const int64_t *x = a, *y = b;\n\n"
                   "    if (x[0] != y[0])\n        return x[0] > y[0] ? -1 : 1;\n"
                   "    return x[1] < y[1] ? -1 : x[1] > y[1];\n}\n\n"
                   "/* n pairs of a rank and a place: the greatest rank first, of equals "
                   "the first place. */\n"
                   "static void\nsort_pairs(int64_t *p, int64_t n)\n{\n"
                   "    qsort(p, (size_t)n, 2 * sizeof *p, by_rank);\n}\n"},
    {"tent", "static double\ntent(double x)\n{\n    return fmax(0, 1 - fabs(x));\n}\n"},
    {"cubic",
     "static double\ncubic(double x, double a)\n{\n    const double t = fabs(x);\n\n"
     "    if (t <= 1)\n        return ((a + 2) * t - (a + 3)) * t * t + 1;\n"
     "    return t < 2 ? ((a * t - 5 * a) * t + 8 * a) * t - 4 * a : 0;\n}\n"},
    {"inside", "/* The nearest of the places 0..n - 1. */\n"
               "static int64_t\ninside(double x, int64_t n)\n{\n"
               "    return x > 0 ? x < (double)n ? (int64_t)x : n - 1 : 0;\n}\n"},
    {"shift_left", "static uint64_t\nshift_left(uint64_t x, uint64_t n, int width)\n{\n"
                   "    return n >= (uint64_t)width ? 0 : x << n;\n}\n"},
    {"shift_right", "static uint64_t\nshift_right(uint64_t x, uint64_t n, int width)\n{\n"
                    "    return n >= (uint64_t)width ? 0 : x >> n;\n}\n"},
    {"shift_signed", "static int64_t\nshift_signed(int64_t x, uint64_t n, int width)\n{\n"
                     "    n = n >= (uint64_t)width ? (uint64_t)width - 1 : n;\n"
                     "    return x < 0 ? ~(~x >> n) : x >> n;\n}\n"},
    {"uint_pow", "static uint64_t\nuint_pow(uint64_t x, uint64_t y)\n{\n"
                 "    uint64_t r = 1;\n\n    for (; y; y >>= 1, x *= x)\n"
                 "        if (y & 1)\n            r *= x;\n    return r;\n}\n"},
    {"int_pow", "static uint64_t\nint_pow(uint64_t x, int64_t y)\n{\n"
                "    if (y >= 0)\n        return uint_pow(x, (uint64_t)y);\n"
                "    return x == 1 ? 1 : x == UINT64_MAX ? y & 1 ? x : 1 : 0;\n}\n"},
    {"int_abs", "static uint64_t\nint_abs(int64_t x)\n{\n"
                "    return x < 0 ? -(uint64_t)x : (uint64_t)x;\n}\n"},
    {"uint_least", "static uint64_t\nuint_least(uint64_t x, uint64_t y)\n{\n"
                   "    return x < y ? x : y;\n}\n"},
    {"uint_most", "static uint64_t\nuint_most(uint64_t x, uint64_t y)\n{\n"
                  "    return x > y ? x : y;\n}\n"},
    {"uint_div", "static uint64_t\nuint_div(uint64_t x, uint64_t y)\n{\n"
                 "    return y ? x / y : 0;\n}\n"},
    {"uint_rem", "static uint64_t\nuint_rem(uint64_t x, uint64_t y)\n{\n"
                 "    return y ? x % y : 0;\n}\n"},
    {"int_div",
     "/* Toward 0; by 0 it is 0. */\nstatic int64_t\nint_div(int64_t x, int64_t y)\n{\n"
     "    return y == 0 ? 0 : y == -1 ? (int64_t)-(uint64_t)x : x / y;\n}\n"},
    {"int_rem", "static int64_t\nint_rem(int64_t x, int64_t y)\n{\n"
                "    return y == 0 || y == -1 ? 0 : x % y;\n}\n"},
    {"int_mod",
     "/* With the sign of y. */\nstatic int64_t\nint_mod(int64_t x, int64_t y)\n{\n"
     "    int64_t r = int_rem(x, y);\n"
     "    return r != 0 && (r < 0) != (y < 0) ? r + y : r;\n}\n"},
};
enum { NHELPER = sizeof helpers / sizeof *helpers };

static bool
calls(const char *text, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = text; (p = strstr(p, name)); p += n) {
        char before = p > text ? p[-1] : ' ';
        bool word = before == '_' || (before >= 'a' && before <= 'z') ||
                    (before >= '0' && before <= '9');
        if (p[n] == '(' && !word)
            return true;
    }
    return false;
}

void
cc_put_helpers(fg_text *o, const char *text)
{
    bool used[NHELPER] = {false};

    for (int k = NHELPER - 1; k >= 0; k--) {
        used[k] = calls(text, helpers[k].name);
        for (int j = k + 1; j < NHELPER && !used[k]; j++)
            used[k] = used[j] && calls(helpers[j].text, helpers[k].name);
    }
    for (int k = 0; k < NHELPER; k++)
        if (used[k])
            fg_putf(o, "%s\n", helpers[k].text);
}
