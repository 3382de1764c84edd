/* onnx_scan.c - bounded scan of ONNX bytes before protobuf-c sees them.
 *
 *     file   07 .. ModelProto.graph { initializer { dims 768 768, raw_data <2 MB> } .. }
 *     slim   07 .. ModelProto.graph { initializer { dims 768 768, chunk {9, at 4711, 2 MB} } .. }
 *
 * protobuf-c recurses without limit, copies every bytes field and allocates whatever the
 * counts say. So the file is walked here first, by protobuf-c's own descriptors: depth,
 * message and element counts are capped, tags, lengths and wire types checked, unknown
 * fields left out, and element data of tensors replaced by references into the mapping. What is
 * handed on is small, well formed and of bounded depth.
 *
 * A length prefix is written before its message is known: as five bytes, which is a legal
 * (padded) varint, filled in afterwards.
 */
#include "frontend/model.h"

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { FIRST_PRIVATE = 1001, CHUNK = 1001, SEGMENTED = 1002, SEGMENT = 3 };

typedef struct scan {
    fg_onnx_file *f;
    fg_arena *a;
    uint8_t *out;
    size_t n, cap;
    size_t messages, strings, scalars;
} scan;

typedef struct field { /* one field of the input */
    uint32_t id;
    int wire;
    const uint8_t *tag;  /* where it begins */
    const uint8_t *data; /* value, or contents when length-delimited */
    size_t size;
} field;

/* Element data of a TensorProto, by field number: how a single element is encoded. */
static const struct {
    uint8_t id, wire, width;
} data_fields[] = {
    {4, FIXED32, 4},  /* float_data */
    {5, VARINT, 0},   /* int32_data */
    {6, BYTES, 0},    /* string_data */
    {7, VARINT, 0},   /* int64_data */
    {9, BYTES, 0},    /* raw_data */
    {10, FIXED64, 8}, /* double_data */
    {11, VARINT, 0},  /* uint64_data */
};

static bool
bad(scan *s, const uint8_t *at, const char *why)
{
    return fg_error(s->f->cx, "not a valid ONNX file: %s at byte %zu", why,
                    (size_t)(at - s->f->map.data));
}

static bool
too_much(scan *s, const char *what)
{
    return fg_error(s->f->cx, "the model has too many %s", what);
}

/* ---- output ------------------------------------------------------------------------- */

static void
put(scan *s, const void *p, size_t n)
{
    if (s->n + n > s->cap) {
        size_t cap = (s->n + n) * 2 + 4096;
        uint8_t *grown = fg_alloc(s->a, cap);
        if (s->n)
            memcpy(grown, s->out, s->n);
        s->out = grown;
        s->cap = cap;
    }
    if (n)
        memcpy(s->out + s->n, p, n);
    s->n += n;
}

static void
put_varint(scan *s, uint64_t v)
{
    uint8_t b[10];
    size_t n = 0;
    for (; v >= 128; v >>= 7)
        b[n++] = (uint8_t)(v | 128);
    b[n++] = (uint8_t)v;
    put(s, b, n);
}

static size_t
open_message(scan *s, uint32_t id)
{
    put_varint(s, (uint64_t)id << 3 | BYTES);
    put(s, (uint8_t[5]){0}, 5);
    return s->n;
}

static void
close_message(scan *s, size_t start)
{
    size_t n = s->n - start;
    for (int i = 0; i < 5; i++)
        s->out[start - 5 + i] = (uint8_t)((n >> (7 * i) & 127) | (i < 4 ? 128 : 0));
}

/* ---- input -------------------------------------------------------------------------- */

static bool
get_varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    uint64_t v = 0;
    const uint8_t *q = *p;
    for (int shift = 0; q < end && shift < 70; shift += 7) {
        uint8_t b = *q++;
        if (shift == 63 && b > 1)
            return false;
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128) {
            *p = q;
            *out = v;
            return true;
        }
    }
    return false;
}

static bool
next_field(scan *s, const uint8_t **p, const uint8_t *end, field *f)
{
    uint64_t tag, n;
    f->tag = *p;
    if (!get_varint(p, end, &tag))
        return bad(s, f->tag, "broken field tag");
    if (tag >> 32 || tag >> 3 == 0)
        return bad(s, f->tag, "field number out of range");
    f->id = (uint32_t)(tag >> 3);
    f->wire = (int)(tag & 7);
    f->data = *p;
    switch (f->wire) {
    case VARINT:
        if (!get_varint(p, end, &n))
            return bad(s, f->data, "broken number");
        break;
    case FIXED64:
    case FIXED32:
        n = f->wire == FIXED64 ? 8 : 4;
        if ((size_t)(end - *p) < n)
            return bad(s, f->data, "number cut short");
        *p += n;
        break;
    case BYTES:
        if (!get_varint(p, end, &n))
            return bad(s, f->data, "broken length");
        if (n > (size_t)(end - *p))
            return bad(s, f->data, "length past the end");
        f->data = *p;
        *p += n;
        break;
    default:
        return bad(s, f->tag, "groups are not part of ONNX");
    }
    f->size = (size_t)(*p - f->data);
    return true;
}

/* ---- scalars, strings ----------------------------------------------------------------- */

static int
wire_of(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return BYTES;
    case PROTOBUF_C_TYPE_FLOAT:
        return FIXED32;
    case PROTOBUF_C_TYPE_DOUBLE:
        return FIXED64;
    default:
        return VARINT;
    }
}

static bool
count_packed(scan *s, const field *f, int wire, size_t *n)
{
    if (wire != VARINT) {
        size_t width = wire == FIXED32 ? 4 : 8;
        if (f->size % width)
            return bad(s, f->data, "packed numbers cut short");
        *n = f->size / width;
        return true;
    }
    const uint8_t *p = f->data, *end = f->data + f->size;
    uint64_t v;
    for (*n = 0; p < end; ++*n)
        if (!get_varint(&p, end, &v))
            return bad(s, p, "broken packed number");
    return true;
}

static bool
copy_plain(scan *s, const ProtobufCFieldDescriptor *d, const field *f)
{
    int wire = wire_of(d->type);
    size_t n = 1;
    bool packed =
        f->wire == BYTES && wire != BYTES && d->label == PROTOBUF_C_LABEL_REPEATED;
    if (f->wire != wire && !packed)
        return bad(s, f->tag, "field of the wrong kind");
    if (packed && !count_packed(s, f, wire, &n))
        return false;
    if (wire == BYTES) {
        if (d->type == PROTOBUF_C_TYPE_STRING && memchr(f->data, 0, f->size))
            return bad(s, f->data, "name with a NUL byte");
        s->strings++;
    } else {
        s->scalars += n;
    }
    if (s->strings > FG_MAX_STRINGS)
        return too_much(s, "names");
    if (s->scalars > FG_MAX_SCALARS)
        return too_much(s, "numbers outside of tensors");
    put_varint(s, (uint64_t)f->id << 3 | (unsigned)f->wire);
    if (f->wire == BYTES)
        put_varint(s, f->size);
    put(s, f->data, f->size);
    if (s->n > FG_MAX_SLIM)
        return too_much(s, "bytes besides its weights");
    return true;
}

/* ---- tensor data ---------------------------------------------------------------------- */

typedef struct chunks { /* of the TensorProto being scanned */
    uint32_t run;       /* field number of the open run of single elements; 0: none */
    const uint8_t *from, *to;
    int n;
} chunks;

static bool
put_chunk(scan *s, chunks *c, uint32_t id, bool packed, const uint8_t *from,
          const uint8_t *to)
{
    if (++c->n > FG_MAX_CHUNKS)
        return bad(s, from, "tensor data in too many pieces");
    if (++s->messages > FG_MAX_MESSAGES)
        return too_much(s, "parts");
    size_t start = open_message(s, CHUNK);
    put_varint(s, 1 << 3 | VARINT);
    put_varint(s, id);
    put_varint(s, 2 << 3 | VARINT);
    put_varint(s, packed);
    put_varint(s, 3 << 3 | VARINT);
    put_varint(s, (uint64_t)(from - s->f->map.data));
    put_varint(s, 4 << 3 | VARINT);
    put_varint(s, (uint64_t)(to - from));
    close_message(s, start);
    return true;
}

static bool
end_run(scan *s, chunks *c)
{
    uint32_t id = c->run;
    c->run = 0;
    return !id || put_chunk(s, c, id, false, c->from, c->to);
}

/* *taken: the field was element data. */
static bool
tensor_field(scan *s, chunks *c, const field *f, bool *taken)
{
    *taken = true;
    if (f->id == SEGMENT) {
        put_varint(s, (uint64_t)SEGMENTED << 3 | VARINT);
        put_varint(s, 1);
        return true;
    }
    for (size_t i = 0; i < sizeof data_fields / sizeof *data_fields; i++) {
        if (data_fields[i].id != f->id)
            continue;
        const uint8_t *end = f->data + f->size;
        if (f->wire == BYTES) {
            if (data_fields[i].width && f->size % data_fields[i].width)
                return bad(s, f->data, "packed numbers cut short");
            if (f->size == 0 && data_fields[i].wire != BYTES)
                return true;
            return end_run(s, c) && put_chunk(s, c, f->id, true, f->data, end);
        }
        if (f->wire != data_fields[i].wire)
            return bad(s, f->tag, "field of the wrong kind");
        if (c->run == f->id && c->to == f->tag) {
            c->to = end;
            return true;
        }
        if (!end_run(s, c))
            return false;
        c->run = f->id;
        c->from = f->tag;
        c->to = end;
        return true;
    }
    *taken = false;
    return true;
}

/* ---- messages ------------------------------------------------------------------------- */

static bool
scan_message(scan *s, const ProtobufCMessageDescriptor *kind, const uint8_t *p,
             const uint8_t *end, int depth)
{
    bool tensor = kind == &onnx__tensor_proto__descriptor, taken;
    chunks c = {0};
    if (depth > FG_MAX_DEPTH)
        return bad(s, p, "nesting too deep");
    if (++s->messages > FG_MAX_MESSAGES)
        return too_much(s, "parts");
    while (p < end) {
        field f = {0};
        if (!next_field(s, &p, end, &f))
            return false;
        if (tensor) {
            if (!tensor_field(s, &c, &f, &taken))
                return false;
            if (taken)
                continue;
        }
        const ProtobufCFieldDescriptor *d =
            f.id < FIRST_PRIVATE ? protobuf_c_message_descriptor_get_field(kind, f.id)
                                 : NULL;
        if (!d)
            continue;
        if (d->type != PROTOBUF_C_TYPE_MESSAGE) {
            if (!copy_plain(s, d, &f))
                return false;
            continue;
        }
        if (f.wire != BYTES)
            return bad(s, f.tag, "field of the wrong kind");
        size_t start = open_message(s, f.id);
        if (!scan_message(s, d->descriptor, f.data, f.data + f.size, depth + 1))
            return false;
        close_message(s, start);
    }
    return end_run(s, &c);
}

bool
fg_onnx_scan(fg_onnx_file *f, fg_arena *a, const ProtobufCMessageDescriptor *kind,
             const uint8_t **slim, size_t *nslim)
{
    scan s = {.f = f, .a = a};
    if (!scan_message(&s, kind, f->map.data, f->map.data + f->map.size, 0))
        return false;
    *slim = s.out;
    *nslim = s.n;
    return true;
}
