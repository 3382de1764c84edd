/* npy.c - NumPy's .npy files: a line of Python that says type and shape, then the
 * elements.
 *
 *     \x93NUMPY 1 0 <len> {'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), } <data>
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/tool.h"

static const struct {
    const char *descr;
    fg_dtype type;
} types[] = {{"<f4", FG_f32}, {"<f8", FG_f64}, {"<f2", FG_f16}, {"<i8", FG_i64},
             {"<i4", FG_i32}, {"<i2", FG_i16}, {"|i1", FG_i8},  {"<u8", FG_u64},
             {"<u4", FG_u32}, {"<u2", FG_u16}, {"|u1", FG_u8},  {"|b1", FG_bool}};

/* What follows 'key': in the header. */
static const char *
header_value(const char *header, const char *key)
{
    const char *s = strstr(header, key);

    if (!s || !(s = strchr(s, ':')))
        return NULL;
    return s + 1 + strspn(s + 1, " ");
}

static bool
parse_header(const char *header, fg_dtype *d, int *rank, int64_t *dim)
{
    const char *descr = header_value(header, "'descr'"),
               *shape = header_value(header, "'shape'");
    const char *order = header_value(header, "'fortran_order'");

    *d = FG_NODTYPE;
    *rank = 0;
    for (size_t i = 0; descr && i < sizeof types / sizeof *types; i++)
        if (!strncmp(descr + 1, types[i].descr, 3))
            *d = types[i].type;
    if (*d == FG_NODTYPE || !order || strncmp(order, "False", 5) || !shape ||
        *shape++ != '(')
        return false;
    for (;;) {
        char *end;
        shape += strspn(shape, " ,");
        if (*shape == ')')
            return true;
        errno = 0;
        long long v = strtoll(shape, &end, 10);
        if (end == shape || errno || v < 0 || *rank == FG_MAXRANK)
            return false;
        dim[(*rank)++] = v;
        shape = end;
    }
}

static bool
read_file(fg_arena *a, FILE *f, fg_tensor *out)
{
    unsigned char head[12];
    size_t n, at = 10;
    fg_dtype d;
    int rank;
    int64_t dim[FG_MAXRANK];

    if (fread(head, 1, 10, f) != 10 || memcmp(head, "\x93NUMPY", 6) || head[6] < 1 ||
        head[6] > 3)
        return false;
    n = head[8] | (size_t)head[9] << 8;
    if (head[6] > 1) {
        if (fread(head + 10, 1, 2, f) != 2)
            return false;
        n |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
        at = 12;
    }
    if (n > 65536)
        return false;
    char *text = fg_alloc(a, n + 1);
    if (fread(text, 1, n, f) != n || !parse_header(text, &d, &rank, dim))
        return false;
    long here = (long)(at + n);
    if (fseek(f, 0, SEEK_END))
        return false;
    int64_t have = ftell(f) - here, count = 1;
    size_t bytes;
    for (int k = 0; k < rank; k++)
        if (__builtin_mul_overflow(count, dim[k], &count))
            return false;
    if (!fg_dtype_bytes(d, count, &bytes) || have < 0 || bytes > (uint64_t)have ||
        fseek(f, here, SEEK_SET))
        return false;
    *out = (fg_tensor){
        .dtype = d, .rank = rank, .count = count, .data = fg_alloc(a, bytes + 1)};
    for (int k = 0; k < rank; k++)
        out->dim[k] = dim[k];
    return fread(out->data, 1, bytes, f) == bytes;
}

bool
tool_npy_read(fg_ctx *cx, fg_arena *a, const char *path, fg_tensor *out)
{
    FILE *f = fopen(path, "rb");

    if (!f)
        return fg_error(cx, "%s: %s", path, strerror(errno));
    bool ok = read_file(a, f, out);
    fclose(f);
    return ok || fg_error(cx, "%s: not a .npy file of numbers in C order", path);
}

int64_t
tool_bytes(const fg_tensor *t)
{
    size_t n;

    return fg_dtype_bytes(t->dtype, t->count, &n) ? (int64_t)n : 0;
}

/* Types NumPy does not have are written as what holds them: bf16 as <u2 bits, 4 bits
 * as numbers. */
int
tool_npy_write(const char *path, const fg_tensor *t)
{
    const char *descr = t->dtype == FG_bf16 ? "<u2" : t->dtype == FG_i4 ? "|i1" : "|u1";
    size_t bytes = (size_t)tool_bytes(t), n = 0;
    bool packed = t->dtype == FG_i4 || t->dtype == FG_u4;
    char text[512];

    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == t->dtype)
            descr = types[i].descr;
    n += (size_t)snprintf(text + n, sizeof text - n,
                          "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int k = 0; k < t->rank; k++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%lld,%s", (long long)t->dim[k],
                              k + 1 < t->rank ? " " : "");
    n += (size_t)snprintf(text + n, sizeof text - n, "), }");
    while ((10 + n + 1) % 64)
        text[n++] = ' ';
    text[n++] = '\n';
    char head[10 + sizeof text] = "\x93NUMPY\x01\x00";
    head[8] = (char)(n & 255);
    head[9] = (char)(n >> 8);
    memcpy(head + 10, text, n);
    if (!packed) /* large ones exist: no copy */
        return tool_write(path, head, 10 + n, t->data, bytes);
    char *each = malloc((size_t)t->count + 1);
    if (!each)
        return tool_fail(TOOL_FAILED, "%s: out of memory", path);
    for (int64_t i = 0; i < t->count; i++)
        each[i] = (char)fg_tensor_i64(t, i);
    int code = tool_write(path, head, 10 + n, each, (size_t)t->count);
    free(each);
    return code;
}
