/* distance.c - how far the elements of two tensors are apart.
 *
 * The bits of a float, with those below the sign flipped when it is negative, count its values
 * in order; so the difference of two such numbers is how many values lie between.
 */
#include "ir/distance.h"

#include <math.h>

/* The place of v among the values of its type; zeros of both signs are neighbours. */
static int64_t
rank_of(fg_dtype d, double v)
{
    int64_t bits, sign = (int64_t)1 << 31;
    float f = (float)v;
    uint32_t single;
    memcpy(&single, &f, sizeof single);
    memcpy(&bits, &v, sizeof bits);
    if (d == FG_f64)
        return bits < 0 ? (int64_t)((uint64_t)INT64_MIN - (uint64_t)bits) - 1 : bits;
    bits = single;
    if (d != FG_f32) {
        bits = d == FG_f16 ? fg_f32_to_f16(f) : fg_f32_to_bf16(f);
        sign = 1 << 15;
    }
    return bits & sign ? -(bits ^ sign) - 1 : bits;
}

double
fg_ulps(fg_dtype d, double got, double want)
{
    if (!fg_is_float(d))
        return fabs(got - want);
    if (isnan(got) || isnan(want))
        return isnan(got) && isnan(want) ? 0 : INFINITY;
    return fabs((double)rank_of(d, got) - (double)rank_of(d, want));
}

/* 64-bit integers do not fit into a double; their difference does, nearly. */
static double
int_distance(const fg_tensor *got, const fg_tensor *want, int64_t i)
{
    int64_t g = fg_tensor_i64(got, i), w = fg_tensor_i64(want, i);
    bool less =
        fg_dtypes[got->dtype].cls == FG_CLASS_UINT ? (uint64_t)g < (uint64_t)w : g < w;
    return (double)(less ? (uint64_t)w - (uint64_t)g : (uint64_t)g - (uint64_t)w);
}

fg_distance
fg_tensor_distance(const fg_tensor *got, const fg_tensor *want)
{
    fg_distance d = {.at = -1};
    bool flt = fg_is_float(got->dtype);
    for (int64_t i = 0; i < want->count; i++) {
        double g = fg_tensor_f64(got, i), w = fg_tensor_f64(want, i);
        double ulp = flt ? fg_ulps(got->dtype, g, w) : int_distance(got, want, i);
        if (ulp == 0 || (flt && g == w))
            continue;
        bool finite = isfinite(g) && isfinite(w);
        double absolute = !finite ? INFINITY : flt ? fabs(g - w) : ulp;
        d.differ++;
        d.absolute = fmax(d.absolute, absolute);
        d.relative = fmax(d.relative, absolute / fabs(w));
        if (ulp <= d.ulp)
            continue;
        d.ulp = ulp;
        d.at = i;
        d.got = g;
        d.want = w;
    }
    return d;
}
