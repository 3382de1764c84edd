/* eval_tensor.c - tensors of the evaluator: storage, elements as numbers, walks.
 *
 * Elements are read and written through memcpy, because weights lie where a file put
 * them, at any alignment. Two 4-bit elements share a byte, the first in the low half.
 */
#include "ir/eval_impl.h"

#include <math.h>

const size_t fg_eval_cap = (size_t)1 << 30;

bool
fg_tensor_new(fg_arena *a, fg_tensor *t, fg_dtype d, int rank, const int64_t *dim)
{
    fg_ctx *cx = fg_arena_ctx(a);
    size_t bytes;

    *t = (fg_tensor){.dtype = d, .rank = rank, .count = 1};
    for (int k = 0; k < rank; k++) {
        t->dim[k] = dim[k];
        if (dim[k] < 0)
            return fg_error(cx, "dimension %d of a tensor is %lld", k, (long long)dim[k]);
        if (__builtin_mul_overflow(t->count, dim[k], &t->count))
            return fg_error(cx, "a tensor has too many elements");
    }
    if (!fg_dtype_bytes(d, t->count, &bytes) || bytes > fg_eval_cap)
        return fg_error(cx, "a tensor of %lld elements is too large to evaluate",
                        (long long)t->count);
    t->data = fg_alloc(a, bytes ? bytes : 1);
    return true;
}

void
fg_tensor_strides(const fg_tensor *t, int64_t *stride)
{
    int64_t s = 1;

    for (int k = t->rank - 1; k >= 0; k--) {
        stride[k] = s;
        s *= t->dim[k];
    }
}

int64_t
fg_span(const fg_tensor *t, int from, int to)
{
    int64_t n = 1;

    for (int k = from; k < to; k++)
        n *= t->dim[k];
    return n;
}

/* ---- elements ---------------------------------------------------------------------- */

#define BIT_COPY(ctype)                                                                  \
    static inline ctype at_##ctype(const void *p, int64_t i)                             \
    {                                                                                    \
        ctype v;                                                                         \
        memcpy(&v, (const char *)p + i * (int64_t)sizeof v, sizeof v);                   \
        return v;                                                                        \
    }                                                                                    \
    static inline void to_##ctype(void *p, int64_t i, ctype v)                           \
    {                                                                                    \
        memcpy((char *)p + i * (int64_t)sizeof v, &v, sizeof v);                         \
    }
BIT_COPY(float)
BIT_COPY(double)
BIT_COPY(uint8_t)
BIT_COPY(uint16_t)
BIT_COPY(uint32_t)
BIT_COPY(uint64_t)
#undef BIT_COPY

static inline unsigned
at_nibble(const void *p, int64_t i)
{
    return (((const uint8_t *)p)[i >> 1] >> (4 * (i & 1))) & 15;
}

static inline void
to_nibble(void *p, int64_t i, unsigned v)
{
    uint8_t *b = (uint8_t *)p + (i >> 1);
    int s = 4 * (int)(i & 1);

    *b = (uint8_t)((*b & ~(15 << s)) | (v & 15) << s);
}

/* How each type becomes a number and back: p is the storage, i the index, num the number
 * as double (F) or uint64_t (U). */
#define READ_TYPES(F, U)                                                                 \
    F(f32, at_float(p, i))                                                               \
    F(f64, at_double(p, i))                                                              \
    F(f16, fg_f16_to_f32(at_uint16_t(p, i)))                                             \
    F(bf16, fg_bf16_to_f32(at_uint16_t(p, i)))                                           \
    U(i64, at_uint64_t(p, i))                                                            \
    U(i32, (int32_t)at_uint32_t(p, i))                                                   \
    U(i16, (int16_t)at_uint16_t(p, i))                                                   \
    U(i8, (int8_t)at_uint8_t(p, i))                                                      \
    U(i4, (int)(at_nibble(p, i) ^ 8) - 8)                                                \
    U(u64, at_uint64_t(p, i))                                                            \
    U(u32, at_uint32_t(p, i))                                                            \
    U(u16, at_uint16_t(p, i))                                                            \
    U(u8, at_uint8_t(p, i))                                                              \
    U(u4, at_nibble(p, i))                                                               \
    U(bool, at_uint8_t(p, i) != 0)

#define WRITE_TYPES(F, U)                                                                \
    F(f32, to_float(p, i, (float)num))                                                   \
    F(f64, to_double(p, i, num))                                                         \
    F(f16, to_uint16_t(p, i, fg_f32_to_f16((float)num)))                                 \
    F(bf16, to_uint16_t(p, i, fg_f32_to_bf16((float)num)))                               \
    U(i64, to_uint64_t(p, i, num))                                                       \
    U(i32, to_uint32_t(p, i, (uint32_t)num))                                             \
    U(i16, to_uint16_t(p, i, (uint16_t)num))                                             \
    U(i8, to_uint8_t(p, i, (uint8_t)num))                                                \
    U(i4, to_nibble(p, i, (unsigned)num))                                                \
    U(u64, to_uint64_t(p, i, num))                                                       \
    U(u32, to_uint32_t(p, i, (uint32_t)num))                                             \
    U(u16, to_uint16_t(p, i, (uint16_t)num))                                             \
    U(u8, to_uint8_t(p, i, (uint8_t)num))                                                \
    U(u4, to_nibble(p, i, (unsigned)num))                                                \
    U(bool, to_uint8_t(p, i, num != 0))

void
fg_num_load(const fg_tensor *t, int64_t off, int64_t stride, int64_t n, fg_num *out)
{
    const void *p = t->data;

    switch (t->dtype) {
#define LOOP(member, value)                                                              \
    for (int64_t k = 0, i = off; k < n; k++, i += stride)                                \
        out[k].member = value;                                                           \
    break;
#define F(id, value)                                                                     \
    case FG_##id:                                                                        \
        LOOP(f, value)
#define U(id, value)                                                                     \
    case FG_##id:                                                                        \
        LOOP(u, (uint64_t)(value))
        READ_TYPES(F, U)
#undef F
#undef U
#undef LOOP
    case FG_NODTYPE:
    case FG_NDTYPES:
        break;
    }
}

void
fg_num_store(fg_tensor *t, int64_t off, int64_t n, const fg_num *in)
{
    void *p = t->data;

    switch (t->dtype) {
#define LOOP(type, member, write)                                                        \
    for (int64_t k = 0, i = off; k < n; k++, i++) {                                      \
        type num = in[k].member;                                                         \
        write;                                                                           \
    }                                                                                    \
    break;
#define F(id, write)                                                                     \
    case FG_##id:                                                                        \
        LOOP(double, f, write)
#define U(id, write)                                                                     \
    case FG_##id:                                                                        \
        LOOP(uint64_t, u, write)
        WRITE_TYPES(F, U)
#undef F
#undef U
#undef LOOP
    case FG_NODTYPE:
    case FG_NDTYPES:
        break;
    }
}

fg_num
fg_num_get(const fg_tensor *t, int64_t i)
{
    fg_num v = {.u = 0};

    fg_num_load(t, i, 1, 1, &v);
    return v;
}

void
fg_num_put(fg_tensor *t, int64_t i, fg_num v)
{
    fg_num_store(t, i, 1, &v);
}

double
fg_tensor_f64(const fg_tensor *t, int64_t i)
{
    fg_num v = fg_num_get(t, i);

    switch (fg_dtypes[t->dtype].cls) {
    case FG_CLASS_FLOAT:
        return v.f;
    case FG_CLASS_SINT:
        return (double)(int64_t)v.u;
    default:
        return (double)v.u;
    }
}

/* Truncates toward 0 and stays in lo..hi; NaN is 0. Both bounds are compared as doubles,
 * where 2^63 - 1 and 2^64 - 1 round up: hence >=. */
static int64_t
saturate_signed(double v, int64_t lo, int64_t hi)
{
    if (v != v)
        return 0;
    if (v >= (double)hi)
        return hi;
    return v <= (double)lo ? lo : (int64_t)v;
}

static uint64_t
saturate_unsigned(double v, uint64_t hi)
{
    if (v >= (double)hi)
        return hi;
    return v > 0 ? (uint64_t)v : 0;
}

int64_t
fg_tensor_i64(const fg_tensor *t, int64_t i)
{
    fg_num v = fg_num_get(t, i);

    return fg_is_float(t->dtype) ? saturate_signed(v.f, INT64_MIN, INT64_MAX)
                                 : (int64_t)v.u;
}

void
fg_tensor_set_f64(fg_tensor *t, int64_t i, double v)
{
    int bits = fg_dtypes[t->dtype].bits;
    fg_num n = {.f = v};

    switch (fg_dtypes[t->dtype].cls) {
    case FG_CLASS_SINT:
        n.u = (uint64_t)saturate_signed(v, INT64_MIN >> (64 - bits),
                                        INT64_MAX >> (64 - bits));
        break;
    case FG_CLASS_UINT:
        n.u = saturate_unsigned(v, UINT64_MAX >> (64 - bits));
        break;
    case FG_CLASS_BOOL:
        n.u = v != 0;
        break;
    default:
        break;
    }
    fg_num_put(t, i, n);
}

void
fg_tensor_set_i64(fg_tensor *t, int64_t i, int64_t v)
{
    if (t->dtype == FG_f32) /* by way of double would round twice */
        to_float(t->data, i, (float)v);
    else if (fg_is_float(t->dtype))
        fg_num_put(t, i, (fg_num){.f = (double)v});
    else
        fg_num_put(t, i, (fg_num){.u = (uint64_t)v});
}

void
fg_num_add_scaled(bool flt, fg_num *acc, fg_num w, const fg_num *x, int64_t stride,
                  int64_t n)
{
    if (flt)
        for (int64_t k = 0; k < n; k++)
            acc[k].f += w.f * x[k * stride].f;
    else
        for (int64_t k = 0; k < n; k++)
            acc[k].u += w.u * x[k * stride].u;
}

uint64_t
fg_num_key(fg_dtype d, fg_num v)
{
    const uint64_t sign = (uint64_t)1 << 63;

    switch (fg_dtypes[d].cls) {
    case FG_CLASS_FLOAT:
        if (v.f != v.f)
            return UINT64_MAX;
        if (v.f == 0) /* -0 equals 0 */
            return sign;
        return v.u & sign ? ~v.u : v.u | sign;
    case FG_CLASS_SINT:
        return v.u ^ sign;
    default:
        return v.u;
    }
}

fg_num
fg_num_least(fg_dtype d)
{
    switch (fg_dtypes[d].cls) {
    case FG_CLASS_FLOAT:
        return (fg_num){.f = -INFINITY};
    case FG_CLASS_SINT:
        return (fg_num){.u = (uint64_t)(INT64_MIN >> (64 - fg_dtypes[d].bits))};
    default:
        return (fg_num){.u = 0};
    }
}

fg_num
fg_num_greatest(fg_dtype d)
{
    switch (fg_dtypes[d].cls) {
    case FG_CLASS_FLOAT:
        return (fg_num){.f = INFINITY};
    case FG_CLASS_SINT:
        return (fg_num){.u = (uint64_t)(INT64_MAX >> (64 - fg_dtypes[d].bits))};
    case FG_CLASS_BOOL:
        return (fg_num){.u = 1};
    default:
        return (fg_num){.u = UINT64_MAX >> (64 - fg_dtypes[d].bits)};
    }
}

void
fg_tensor_move(fg_tensor *dst, int64_t i, const fg_tensor *src, int64_t j)
{
    switch (fg_dtypes[src->dtype].bits) {
    case 4:
        to_nibble(dst->data, i, at_nibble(src->data, j));
        break;
    case 8:
        to_uint8_t(dst->data, i, at_uint8_t(src->data, j));
        break;
    case 16:
        to_uint16_t(dst->data, i, at_uint16_t(src->data, j));
        break;
    case 32:
        to_uint32_t(dst->data, i, at_uint32_t(src->data, j));
        break;
    default:
        to_uint64_t(dst->data, i, at_uint64_t(src->data, j));
        break;
    }
}

/* ---- walks ------------------------------------------------------------------------- */

fg_walk
fg_walk_new(int rank, const int64_t *dim)
{
    fg_walk w = {.rank = rank};

    for (int k = 0; k < rank; k++)
        w.dim[k] = dim[k];
    return w;
}

int64_t *
fg_walk_add(fg_walk *w, const fg_tensor *t)
{
    int64_t *stride = w->stride[w->n++];

    fg_tensor_strides(t, stride);
    return stride;
}

bool
fg_walk_broadcast(fg_walk *w, const fg_tensor *t)
{
    int64_t *stride = w->stride[w->n++], s = 1;

    if (t->rank > w->rank)
        return false;
    for (int k = t->rank - 1, to = w->rank - 1; k >= 0; k--, to--) {
        if (t->dim[k] != 1 && t->dim[k] != w->dim[to])
            return false;
        stride[to] = t->dim[k] == 1 ? 0 : s;
        s *= t->dim[k];
    }
    return true;
}

void
fg_walk_next(fg_walk *w)
{
    for (int k = w->rank - 1; k >= 0; k--) {
        for (int j = 0; j < w->n; j++)
            w->off[j] += w->stride[j][k];
        if (++w->at[k] < w->dim[k])
            return;
        for (int j = 0; j < w->n; j++)
            w->off[j] -= w->dim[k] * w->stride[j][k];
        w->at[k] = 0;
    }
}
