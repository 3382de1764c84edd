/* type.h - element types and tensor types. */
#ifndef FG_IR_TYPE_H
#define FG_IR_TYPE_H

/* clang-format off: members and their comments stand in columns */

#include "ir/expr.h"

/* One row per element type: id, text, bits, class, the C type that holds it, ONNX code.
 * Sub-byte types are packed, the first element in the low bits. */
#define FG_DTYPES(X)                                                                     \
    X(f32, 32, FLOAT, float, 1)                                                          \
    X(f64, 64, FLOAT, double, 11)                                                        \
    X(f16, 16, FLOAT, uint16_t, 10)                                                      \
    X(bf16, 16, FLOAT, uint16_t, 16)                                                     \
    X(i64, 64, SINT, int64_t, 7)                                                         \
    X(i32, 32, SINT, int32_t, 6)                                                         \
    X(i16, 16, SINT, int16_t, 5)                                                         \
    X(i8, 8, SINT, int8_t, 3)                                                            \
    X(i4, 4, SINT, uint8_t, 22)                                                          \
    X(u64, 64, UINT, uint64_t, 13)                                                       \
    X(u32, 32, UINT, uint32_t, 12)                                                       \
    X(u16, 16, UINT, uint16_t, 4)                                                        \
    X(u8, 8, UINT, uint8_t, 2)                                                           \
    X(u4, 4, UINT, uint8_t, 21)                                                          \
    X(bool, 8, BOOL, uint8_t, 9)

typedef enum {
    FG_NODTYPE,
#define X(id, ...) FG_##id,
    FG_DTYPES(X)
#undef X
        FG_NDTYPES
} fg_dtype;

typedef enum {
    FG_CLASS_NONE,
    FG_CLASS_FLOAT,
    FG_CLASS_SINT,
    FG_CLASS_UINT,
    FG_CLASS_BOOL
} fg_class;

typedef struct fg_dtypeinfo {
    const char *name;
    int bits;
    fg_class cls;
    int onnx;
} fg_dtypeinfo;
extern const fg_dtypeinfo fg_dtypes[FG_NDTYPES];

fg_dtype fg_dtype_by_name(const char *s, size_t n); /* FG_NODTYPE if none */
fg_dtype fg_dtype_by_onnx(int code);
static inline bool
fg_is_float(fg_dtype d)
{
    return fg_dtypes[d].cls == FG_CLASS_FLOAT;
}
static inline bool
fg_is_int(fg_dtype d)
{
    return fg_dtypes[d].cls == FG_CLASS_SINT || fg_dtypes[d].cls == FG_CLASS_UINT;
}
/* Bytes of n elements of d, sub-byte types rounded up; false on overflow. */
bool fg_dtype_bytes(fg_dtype d, int64_t n, size_t *out);

/* Scalar conversions used by the evaluator, folding and tests. */
float fg_f16_to_f32(uint16_t h);
uint16_t fg_f32_to_f16(float f); /* round to nearest even */
float fg_bf16_to_f32(uint16_t h);
uint16_t fg_f32_to_bf16(float f); /* round to nearest even */

#define FG_MAXRANK 12

typedef struct fg_type {
    uint8_t dtype; /* fg_dtype */
    uint8_t rank;
    fg_expr dim[FG_MAXRANK];
} fg_type;

fg_type fg_type_make(fg_dtype d, int rank, const fg_expr *dims);
fg_type fg_type_scalar(fg_dtype d);
bool fg_type_equal(const fg_type *a, const fg_type *b);
fg_expr fg_type_count(fg_exprs *t, const fg_type *ty); /* product of the dims */
bool fg_type_static(const fg_exprs *t, const fg_type *ty,
                    int64_t *dims);                                 /* all constant */
void fg_put_type(fg_text *o, const fg_exprs *t, const fg_type *ty); /* f32[B,12,S,64] */

/* clang-format on */
#endif
