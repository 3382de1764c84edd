/* lab.c - values that tests try programs on. */
#include "tests/lab.h"

#include <math.h>
#include <string.h>

#define FLOATS "f32,f64,f16,bf16"
#define INTEGERS "i64,i32,i16,i8,u64,u32,u16,u8"

const char *
lab_types(const char *name)
{
    static const char *const lists[][2] = {
        {"F", FLOATS},
        {"I", INTEGERS},
        {"N", FLOATS "," INTEGERS},
        {"A", FLOATS "," INTEGERS ",bool"},
        {"P", FLOATS "," INTEGERS ",bool,i4,u4"},
    };

    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
        if (!strcmp(name, lists[k][0]))
            return lists[k][1];
    return name;
}

uint64_t
lab_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t
lab_below(uint64_t *state, uint64_t n)
{
    return n ? lab_random(state) % n : 0;
}

static double
odd_float(fg_dtype d, uint64_t *state)
{
    static const double special[] = {0.0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 0.5, 2};
    static const double range[FG_NDTYPES][3] = {
        /* greatest, least normal, least */
        [FG_f32] = {0x1.fffffep127, 0x1p-126, 0x1p-149},
        [FG_f64] = {0x1.fffffffffffffp1023, 0x1p-1022, 0x1p-1074},
        [FG_f16] = {65504, 0x1p-14, 0x1p-24},
        [FG_bf16] = {0x1.fep127, 0x1p-126, 0x1p-133}};
    enum { NSPECIAL = sizeof special / sizeof *special };
    uint64_t k = lab_below(state, NSPECIAL + 6);
    if (k < NSPECIAL)
        return special[k];
    double v = range[d][(k - NSPECIAL) % 3];
    return lab_below(state, 2) ? -v : v;
}

static int64_t
odd_int(fg_dtype d, uint64_t *state)
{
    int bits = fg_dtypes[d].bits;
    uint64_t top = (uint64_t)1 << (bits - 1);
    const uint64_t special[] = {0, 1, ~(uint64_t)0, top, top - 1, top + 1, 2};
    return (int64_t)special[lab_below(state, sizeof special / sizeof *special)];
}

void
lab_fill_range(fg_tensor *t, int64_t lo, int64_t hi, uint64_t *state)
{
    for (int64_t k = 0; k < t->count; k++)
        fg_tensor_set_i64(t, k, lo + (int64_t)lab_below(state, (uint64_t)(hi - lo) + 1));
}

void
lab_fill(fg_tensor *t, lab_kind kind, uint64_t *state)
{
    bool flt = fg_is_float(t->dtype), uns = fg_dtypes[t->dtype].cls == FG_CLASS_UINT;
    for (int64_t k = 0; k < t->count; k++) {
        bool odd = kind == LAB_ODD && lab_below(state, 2);
        if (flt)
            fg_tensor_set_f64(t, k,
                              odd ? odd_float(t->dtype, state)
                                  : (double)(lab_random(state) >> 40) / (1 << 22) - 2);
        else if (t->dtype == FG_bool)
            fg_tensor_set_i64(t, k, (int64_t)lab_below(state, 2));
        else if (odd)
            fg_tensor_set_i64(t, k, odd_int(t->dtype, state));
        else
            fg_tensor_set_i64(t, k,
                              uns || kind == LAB_NATURAL
                                  ? (int64_t)lab_below(state, 8)
                                  : (int64_t)lab_below(state, 15) - 7);
    }
}
