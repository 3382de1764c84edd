/* onnx_tensor.c - the one way from a TensorProto to a weight: initializers, attributes,
 * sparse tensors and test data all come through here, so every check is made once.
 *
 *     dims [2, 3], FLOAT, raw_data <24 bytes>          a view into the mapped file
 *     dims [2, 3], FLOAT, float_data <6 numbers>       the same: packed floats are laid out like raw data
 *     dims [2, 3], INT8,  int32_data <6 varints>       converted into the arena
 *     dims [2, 3], FLOAT, external {location, offset}  a view into the mapped file of that name
 *
 * Sizes are known to match before anything is allocated or read: the element count comes from dims by
 * checked products, and bytes in the file bound what they may claim.
 */
#include "frontend/model.h"

enum {
    RAW = 9,
    FLOATS = 4,
    INT32S = 5,
    STRINGS = 6,
    INT64S = 7,
    DOUBLES = 10,
    UINT64S = 11
};
enum { EXTERNAL = 1, CODE_STRING = 8 };

static const char *const field_names[] = {
    [RAW] = "raw_data",        [FLOATS] = "float_data", [INT32S] = "int32_data",
    [STRINGS] = "string_data", [INT64S] = "int64_data", [DOUBLES] = "double_data",
    [UINT64S] = "uint64_data",
};

/* Element types of ONNX that are not ours. */
static const char *const foreign_types[] = {
    [8] = "string",          [14] = "complex64",      [15] = "complex128",
    [17] = "float8e4m3fn",   [18] = "float8e4m3fnuz", [19] = "float8e5m2",
    [20] = "float8e5m2fnuz", [23] = "float4e2m1",     [24] = "float8e8m0",
    [25] = "uint2",          [26] = "int2",
};

const char *
fg_onnx_type_name(fg_arena *a, int code)
{
    if (code > 0 && (size_t)code < sizeof foreign_types / sizeof *foreign_types &&
        foreign_types[code])
        return foreign_types[code];
    return fg_format(a, "%d", code);
}

/* The typed field that holds elements of this type. */
static uint32_t
field_of(fg_dtype d)
{
    switch (d) {
    case FG_f32:
        return FLOATS;
    case FG_f64:
        return DOUBLES;
    case FG_i64:
        return INT64S;
    case FG_u32:
    case FG_u64:
        return UINT64S;
    default:
        return INT32S;
    }
}

/* ---- typed fields --------------------------------------------------------------------- */

typedef struct reader { /* single elements, across the pieces of a field */
    const uint8_t *base;
    Onnx__TensorProto__Chunk *const *chunk, *const *end;
    const uint8_t *p, *stop;
    bool packed;
} reader;

static bool
read_varint(reader *r, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; r->p < r->stop && shift < 70; shift += 7) {
        uint8_t b = *r->p++;
        *out |= shift < 64 ? (uint64_t)(b & 127) << shift : 0;
        if (b < 128)
            return true;
    }
    return false;
}

/* Moves to the next element: into the next piece when this one is used up, past the tag when
 * elements are tagged. */
static bool
next_element(reader *r)
{
    uint64_t tag;
    while (r->p == r->stop) {
        if (r->chunk == r->end)
            return false;
        r->p = r->base + (*r->chunk)->offset;
        r->stop = r->p + (*r->chunk)->length;
        r->packed = (*r->chunk)->packed;
        r->chunk++;
    }
    return r->packed || read_varint(r, &tag);
}

static bool
read_element(reader *r, size_t width, uint64_t *bits)
{
    if (!next_element(r))
        return false;
    if (!width)
        return read_varint(r, bits);
    if ((size_t)(r->stop - r->p) < width)
        return false;
    *bits = 0;
    memcpy(bits, r->p, width);
    r->p += width;
    return true;
}

static bool
typed_data(fg_onnx_file *f, fg_arena *a, const char *what, const Onnx__TensorProto *t,
           uint32_t field, int64_t count, fg_weight *w)
{
    size_t width = field == FLOATS ? 4 : field == DOUBLES ? 8 : 0, have = 0;
    /* 0: packed nibbles, a byte each */
    size_t each = (size_t)fg_dtypes[w->dtype].bits / 8;
    size_t n = each ? (size_t)count : w->bytes;
    if (!each)
        each = 1;
    for (size_t i = 0; i < t->n_chunk; i++)
        have += t->chunk[i]->length;
    if (t->n_chunk == 1 && t->chunk[0]->packed && width && have == w->bytes) {
        w->data = f->map.data + t->chunk[0]->offset;
        w->file = f->map.local;
        w->mapped = true;
        w->file_offset = t->chunk[0]->offset;
        return true;
    }
    if (have < n)
        return fg_error(f->cx, "%s: %s holds fewer elements than the %lld of its dims",
                        what, field_names[field], (long long)count);
    if (w->bytes > FG_MAX_TYPED)
        return fg_error(f->cx, "%s: %zu bytes of %s are too many; use raw_data", what,
                        w->bytes, field_names[field]);
    uint8_t *to = fg_alloc(a, w->bytes);
    reader r = {.base = f->map.data, .chunk = t->chunk, .end = t->chunk + t->n_chunk};
    uint64_t bits;
    for (size_t i = 0; i < n; i++) {
        if (!read_element(&r, width, &bits))
            return fg_error(f->cx,
                            "%s: %s holds fewer elements than the %lld of its dims", what,
                            field_names[field], (long long)count);
        memcpy(to + i * each, &bits, each);
    }
    if (next_element(&r))
        return fg_error(f->cx, "%s: %s holds more elements than the %lld of its dims",
                        what, field_names[field], (long long)count);
    w->data = to;
    return true;
}

/* ---- external data -------------------------------------------------------------------- */

static bool
decimal(const char *s, uint64_t *v)
{
    *v = 0;
    if (!*s)
        return false;
    for (; *s >= '0' && *s <= '9'; s++)
        if (__builtin_mul_overflow(*v, 10, v) || __builtin_add_overflow(*v, *s - '0', v))
            return false;
    return !*s;
}

static bool
external_data(fg_onnx_file *f, const char *what, const Onnx__TensorProto *t, fg_weight *w)
{
    enum { LOCATION, OFFSET, LENGTH, NKEYS };
    static const char *const keys[] = {"location", "offset", "length"};
    const char *value[NKEYS] = {0};
    uint64_t offset = 0, length = 0, end;
    for (size_t i = 0; i < t->n_external_data; i++) {
        const Onnx__StringStringEntryProto *e = t->external_data[i];
        for (int k = 0; k < NKEYS; k++) {
            if (!e->key || strcmp(e->key, keys[k]))
                continue;
            if (value[k])
                return fg_error(f->cx, "%s: external data gives its %s twice", what,
                                keys[k]);
            value[k] = e->value ? e->value : "";
        }
    }
    if (!value[LOCATION])
        return fg_error(f->cx, "%s: external data without a location", what);
    for (int k = OFFSET; k < NKEYS; k++)
        if (value[k] && !decimal(value[k], k == OFFSET ? &offset : &length))
            return fg_error(f->cx, "%s: external data %s \"%s\" is not a size", what,
                            keys[k], fg_printable(f->a, value[k], strlen(value[k]), 60));
    const fg_map *map = fg_onnx_external(f, what, value[LOCATION]);
    if (!map)
        return false;
    if (!value[LENGTH])
        length = w->bytes;
    if (length < w->bytes)
        return fg_error(f->cx, "%s: external data of %llu bytes where %zu are needed",
                        what, (unsigned long long)length, w->bytes);
    if (__builtin_add_overflow(offset, length, &end) || end > map->size)
        return fg_error(
            f->cx, "%s: external data reaches past the end of \"%s\" (%zu bytes)", what,
            fg_printable(f->a, map->name, strlen(map->name), 200), map->size);
    w->data = map->data + offset;
    w->file = map->local;
    w->mapped = true;
    w->file_offset = offset;
    return true;
}

/* ---- whole tensors -------------------------------------------------------------------- */

/* Type and shape; *count the elements. */
static bool
tensor_type(fg_onnx_file *f, const char *what, int32_t code, size_t rank,
            const int64_t *dims, fg_weight *w, int64_t *count)
{
    w->dtype = fg_dtype_by_onnx(code);
    if (w->dtype == FG_NODTYPE)
        return fg_error(f->cx, "%s: element type %s is not supported", what,
                        fg_onnx_type_name(f->a, code));
    if (rank > FG_MAXRANK)
        return fg_error(f->cx, "%s: %zu dimensions; %d are supported", what, rank,
                        FG_MAXRANK);
    bool empty = false, huge = false;
    *count = 1;
    w->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        if (dims[i] < 0)
            return fg_error(f->cx, "%s: dimension %zu is negative", what, i);
        empty |= dims[i] == 0;
        huge |= __builtin_mul_overflow(*count, dims[i], count);
        w->dim[i] = dims[i];
    }
    if (empty)
        *count = 0;
    if ((huge && !empty) || !fg_dtype_bytes(w->dtype, *count, &w->bytes))
        return fg_error(f->cx, "%s: the product of its dims overflows", what);
    return true;
}

static bool
inline_data(fg_onnx_file *f, fg_arena *a, const char *what, const Onnx__TensorProto *t,
            int64_t count, fg_weight *w)
{
    const Onnx__TensorProto__Chunk *last = t->n_chunk ? t->chunk[t->n_chunk - 1] : NULL;
    for (size_t i = 0; i < t->n_chunk; i++)
        if (t->chunk[i]->field != last->field)
            return fg_error(f->cx, "%s: has both %s and %s", what,
                            field_names[t->chunk[i]->field], field_names[last->field]);
    if (count == 0) {
        if (last && last->length)
            return fg_error(f->cx, "%s: has data but no elements", what);
        w->data = fg_alloc(a, 16);
        return true;
    }
    if (!last)
        return fg_error(f->cx, "%s: has no data for its %lld elements", what,
                        (long long)count);
    if (last->field != RAW && last->field != field_of(w->dtype))
        return fg_error(f->cx, "%s: elements of type %s cannot be in %s", what,
                        fg_dtypes[w->dtype].name, field_names[last->field]);
    if (last->field != RAW)
        return typed_data(f, a, what, t, last->field, count, w);
    if (last->length < w->bytes)
        return fg_error(f->cx, "%s: %llu bytes of raw_data where %zu are needed", what,
                        (unsigned long long)last->length, w->bytes);
    if (last->length > w->bytes)
        fg_warn(f->cx,
                "%s: %llu bytes of raw_data where %zu are needed; the rest is ignored",
                what, (unsigned long long)last->length, w->bytes);
    w->data = f->map.data + last->offset;
    w->file = f->map.local;
    w->mapped = true;
    w->file_offset = last->offset;
    return true;
}

/* Bytes other than 0 and 1 in a bool tensor become 1. */
static void
normalise_bools(fg_arena *a, fg_weight *w)
{
    const uint8_t *from = w->data;
    size_t i = 0;
    while (i < w->bytes && from[i] <= 1)
        i++;
    if (i == w->bytes)
        return;
    uint8_t *to = fg_alloc(a, w->bytes);
    for (i = 0; i < w->bytes; i++)
        to[i] = from[i] != 0;
    w->data = to;
    w->file = NULL;
    w->mapped = false;
    w->file_offset = 0;
}

bool
fg_onnx_tensor(fg_onnx_file *f, fg_arena *a, const char *what, const Onnx__TensorProto *t,
               fg_weight *w)
{
    int64_t count;
    if (t->segmented)
        return fg_error(f->cx, "%s: segmented tensors are not supported", what);
    if (!tensor_type(f, what, t->data_type, t->n_dims, t->dims, w, &count))
        return false;
    if (t->data_location != 0 && t->data_location != EXTERNAL)
        return fg_error(f->cx, "%s: unknown data location %d", what, t->data_location);
    if (t->data_location == EXTERNAL) {
        if (t->n_chunk)
            return fg_error(f->cx, "%s: has both external data and %s", what,
                            field_names[t->chunk[0]->field]);
        if (!external_data(f, what, t, w))
            return false;
        if (!w->bytes)
            w->data = fg_alloc(a, 16);
    } else if (!inline_data(f, a, what, t, count, w)) {
        return false;
    }
    if (w->dtype == FG_bool)
        normalise_bools(a, w);
    return true;
}

/* Coordinates: row k of [nnz, rank], or one linear index. Strictly ascending, so unique. */
bool
fg_onnx_sparse(fg_onnx_file *f, fg_arena *a, const char *what,
               const Onnx__SparseTensorProto *t, fg_weight *w)
{
    fg_weight val = {0}, idx = {0};
    int64_t count, last = -1;
    if (!t->values || !t->indices)
        return fg_error(f->cx, "%s: sparse tensor without values or indices", what);
    if (!fg_onnx_tensor(f, a, what, t->values, &val) ||
        !fg_onnx_tensor(f, a, what, t->indices, &idx))
        return false;
    if (!tensor_type(f, what, t->values->data_type, t->n_dims, t->dims, w, &count))
        return false;
    size_t each = (size_t)fg_dtypes[w->dtype].bits / 8;
    bool linear = idx.rank == 1;
    if (!each || idx.dtype != FG_i64 || val.rank != 1 ||
        !(linear || (idx.rank == 2 && idx.dim[1] == w->rank)) || idx.dim[0] != val.dim[0])
        return fg_error(f->cx, "%s: sparse values and indices do not fit together", what);
    if (w->bytes > FG_MAX_TYPED)
        return fg_error(
            f->cx,
            "%s: the sparse tensor has %zu bytes when made dense; %d are supported", what,
            w->bytes, FG_MAX_TYPED);
    uint8_t *to = fg_alloc(a, w->bytes ? w->bytes : 16);
    for (int64_t k = 0; k < val.dim[0]; k++) {
        int64_t at = 0, v;
        for (int d = 0; d < (linear ? 1 : w->rank); d++) {
            memcpy(&v, (const uint8_t *)idx.data + (k * (linear ? 1 : w->rank) + d) * 8,
                   8);
            int64_t size = linear ? count : w->dim[d];
            if (v < 0 || v >= size)
                return fg_error(f->cx, "%s: sparse index %lld out of range", what,
                                (long long)v);
            at = linear ? v : at * size + v;
        }
        if (at <= last)
            return fg_error(f->cx, "%s: sparse indices are not ascending", what);
        last = at;
        memcpy(to + (size_t)at * each, (const uint8_t *)val.data + (size_t)k * each,
               each);
    }
    w->data = to;
    return true;
}
