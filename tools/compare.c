/* compare.c - outputs against expected values, element by element. */
#include "tools/compare.h"

#include <math.h>

/* Absolute and relative tolerance by element type; types not listed are exact. */
static const struct {
    fg_dtype type;
    double atol, rtol;
} defaults[] = {{FG_f32, 1e-4, 1e-3},
                {FG_f64, 1e-4, 1e-3},
                {FG_f16, 1e-2, 1e-2},
                {FG_bf16, 1.0 / 64, 1.0 / 64}};

/* |got - want|: 0 when both are NaN or the same infinity. */
static double
distance(double got, double want)
{
    if (isnan(got) && isnan(want))
        return 0;
    if (got == want)
        return 0;
    if (!isfinite(got) || !isfinite(want))
        return INFINITY;
    return fabs(got - want);
}

/* 64-bit integers do not fit into a double; their difference does, nearly. */
static double
int_distance(const fg_tensor *got, const fg_tensor *want, int64_t i)
{
    int64_t g = fg_tensor_i64(got, i), w = fg_tensor_i64(want, i);
    uint64_t a = (uint64_t)g, b = (uint64_t)w;

    if (fg_dtypes[got->dtype].cls == FG_CLASS_UINT)
        return (double)(a > b ? a - b : b - a);
    return (double)(g > w ? a - b : b - a);
}

tool_difference
tool_compare(const fg_tensor *got, const fg_tensor *want, tool_tolerance t)
{
    tool_difference d = {.at = -1};
    bool flt = fg_is_float(got->dtype);

    for (size_t k = 0; k < sizeof defaults / sizeof *defaults; k++)
        if (defaults[k].type == got->dtype) {
            d.atol = defaults[k].atol;
            d.rtol = defaults[k].rtol;
        }
    if (t.atol >= 0)
        d.atol = t.atol;
    if (t.rtol >= 0)
        d.rtol = t.rtol;
    for (int64_t i = 0; i < got->count; i++) {
        double g = fg_tensor_f64(got, i), w = fg_tensor_f64(want, i);
        double e = flt ? distance(g, w) : int_distance(got, want, i);
        d.wrong += !(e <= d.atol + d.rtol * (isfinite(w) ? fabs(w) : 0));
        if (e > d.worst || d.at < 0) {
            d.worst = e;
            d.at = i;
            d.got = g;
            d.want = w;
        }
    }
    return d;
}
