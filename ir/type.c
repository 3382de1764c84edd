/* type.c - element types and tensor types. */
#include "ir/type.h"

#include <math.h>

const fg_dtypeinfo fg_dtypes[FG_NDTYPES] = {[FG_NODTYPE] = {"none", 0, FG_CLASS_NONE, 0},
#define X(id, bits, cls, ctype, onnx) [FG_##id] = {#id, bits, FG_CLASS_##cls, onnx},
                                            FG_DTYPES(X)
#undef X
};

fg_dtype
fg_dtype_by_name(const char *s, size_t n)
{
    for (int d = FG_NODTYPE + 1; d < FG_NDTYPES; d++)
        if (strlen(fg_dtypes[d].name) == n && memcmp(fg_dtypes[d].name, s, n) == 0)
            return (fg_dtype)d;
    return FG_NODTYPE;
}

fg_dtype
fg_dtype_by_onnx(int code)
{
    for (int d = FG_NODTYPE + 1; d < FG_NDTYPES; d++)
        if (fg_dtypes[d].onnx == code)
            return (fg_dtype)d;
    return FG_NODTYPE;
}

bool
fg_dtype_bytes(fg_dtype d, int64_t n, size_t *out)
{
    size_t bits;
    if (n < 0 || !fg_mul_size((size_t)n, (size_t)fg_dtypes[d].bits, &bits) ||
        !fg_add_size(bits, 7, &bits))
        return false;
    *out = bits / 8;
    return *out <= SIZE_MAX / 4;
}

float
fg_f16_to_f32(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    float v = e == 31 ? (m ? NAN : INFINITY)
              : e     ? ldexpf((float)(m + 1024), e - 25)
                      : ldexpf((float)m, -24);
    return h & 0x8000 ? -v : v;
}

uint16_t
fg_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) /* rounds past 65504 */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* subnormal: let the FPU round at the right place */
        float v, magic = 0.5f;
        memcpy(&v, &a, 4);
        v += magic;
        memcpy(&a, &v, 4);
        return (uint16_t)(sign | (a - 0x3f000000));
    }
    uint32_t odd = a >> 13 & 1;
    return (uint16_t)(sign | ((a - 0x38000000 + 0xfff + odd) >> 13));
}

float
fg_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

uint16_t
fg_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

fg_type
fg_type_make(fg_dtype d, int rank, const fg_expr *dims)
{
    fg_type t = {.dtype = (uint8_t)d, .rank = (uint8_t)rank};
    for (int i = 0; i < rank; i++)
        t.dim[i] = dims[i];
    return t;
}

fg_type
fg_type_scalar(fg_dtype d)
{
    return fg_type_make(d, 0, NULL);
}

bool
fg_type_equal(const fg_type *a, const fg_type *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->dim, b->dim, a->rank * sizeof a->dim[0]) == 0;
}

fg_expr
fg_type_count(fg_exprs *t, const fg_type *ty)
{
    fg_expr n = fg_ec(t, 1);
    for (int i = 0; i < ty->rank; i++)
        n = fg_emul(t, n, ty->dim[i]);
    return n;
}

bool
fg_type_static(const fg_exprs *t, const fg_type *ty, int64_t *dims)
{
    for (int i = 0; i < ty->rank; i++)
        if (!fg_e_const(t, ty->dim[i], &dims[i]))
            return false;
    return true;
}

void
fg_put_type(fg_text *o, const fg_exprs *t, const fg_type *ty)
{
    fg_puts(o, fg_dtypes[ty->dtype].name);
    fg_putc(o, '[');
    for (int i = 0; i < ty->rank; i++) {
        if (i)
            fg_putc(o, ',');
        fg_put_expr(o, t, ty->dim[i]);
    }
    fg_putc(o, ']');
}
