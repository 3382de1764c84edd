/* inputs.c - data for the inputs of a run: from the command line, from files, or random. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "frontend/onnx.h"
#include "runtime/rt.h"
#include "tools/tool.h"

static bool
ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return n >= k && !strcmp(s + n - k, end);
}

/* ---- literals ------------------------------------------------------------------------ */

/* "1x4xf32", "i64" (a scalar): dims, then the type. */
static bool
parse_type(fg_arena *a, const char *s, size_t n, fg_tensor *out)
{
    int64_t dim[FG_MAXRANK];
    int rank = 0;

    while (n && *s >= '0' && *s <= '9') {
        char *end;
        errno = 0;
        long long v = strtoll(s, &end, 10);
        if (errno || *end != 'x' || rank == FG_MAXRANK)
            return false;
        dim[rank++] = v;
        n -= (size_t)(end + 1 - s);
        s = end + 1;
    }
    fg_dtype d = fg_dtype_by_name(s, n);
    return d != FG_NODTYPE && fg_tensor_new(a, out, d, rank, dim);
}

/* As many numbers as elements, or one for all. */
static bool
parse_elements(const char *s, fg_tensor *t)
{
    int64_t n = 0;

    while (*s) {
        char *end;
        double f = strtod(s, &end);
        long long i = strtoll(s, NULL, 10);
        if (end == s || (*end && *end != ',') || n == t->count)
            return false;
        if (fg_is_float(t->dtype))
            fg_tensor_set_f64(t, n++, f);
        else
            fg_tensor_set_i64(t, n++, i);
        s = end + (*end == ',');
    }
    for (int64_t k = 1; n == 1 && k < t->count; k++) {
        if (fg_is_float(t->dtype))
            fg_tensor_set_f64(t, k, fg_tensor_f64(t, 0));
        else
            fg_tensor_set_i64(t, k, fg_tensor_i64(t, 0));
    }
    return n == t->count || n == 1;
}

bool
tool_read_value(fg_ctx *cx, fg_arena *a, const char *text, fg_tensor *out)
{
    if (*text == '@')
        return ends_with(text, ".npy") ? tool_npy_read(cx, a, text + 1, out)
                                       : fg_onnx_tensor_file(cx, a, text + 1, out);
    size_t n = strcspn(text, "=");
    if (!text[n] || !parse_type(a, text, n, out) || !parse_elements(text + n + 1, out))
        return fg_error(
            cx,
            "\"%.100s\": expected @FILE.npy, @FILE.pb or a value such as 1x3xf32=1,2,3",
            text);
    return true;
}

/* ---- random -------------------------------------------------------------------------- */

static uint64_t
next_random(uint64_t *s)
{
    uint64_t x = *s += 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void
tool_random_fill(const char *name, fg_tensor *t, uint64_t seed)
{
    int64_t last = t->rank ? t->dim[t->rank - 1] : 1;
    uint64_t s = seed * 0x2545f4914f6cdd1du + fg_hash(name, strlen(name), 0);

    for (int64_t i = 0; i < t->count; i++) {
        if (fg_is_float(t->dtype))
            fg_tensor_set_f64(t, i,
                              (double)(next_random(&s) >> 40) / (double)(1 << 23) - 1);
        else if (t->dtype == FG_bool || strstr(name, "mask"))
            fg_tensor_set_i64(t, i, 1);
        else if (strstr(name, "position"))
            fg_tensor_set_i64(t, i, i % last);
        else
            fg_tensor_set_i64(
                t, i, strstr(name, "type") ? 0 : (int64_t)(next_random(&s) % 100));
    }
}

/* Symbols of a first axis are batches. */
bool
tool_input_shape(const forge_model *m, int i, int length, int64_t *dims)
{
    const fg_program *p = m->program;
    int64_t *sym = calloc(p->nsymbol + 1, sizeof *sym),
            *v = calloc(p->nvalue + 1, sizeof *v);
    bool ok = sym && v;

    for (uint32_t s = 0; ok && s < p->nsymbol; s++)
        sym[s] = length ? length : 16;
    for (uint32_t k = 0; ok && k < p->nsolve; k++)
        if (p->solve[k].axis == 0)
            sym[p->solve[k].sym] = 1;
    for (uint32_t s = 0; ok && s < p->nsymbol; s++)
        sym[s] = sym[s] < p->symbol[s].lo   ? p->symbol[s].lo
                 : sym[s] > p->symbol[s].hi ? p->symbol[s].hi
                                            : sym[s];
    if (ok)
        fg_values(p, sym, v, 0, p->nvalue);
    const fg_tensordef *x = &p->tensor[p->input[i].tensor];
    for (int k = 0; ok && k < x->rank; k++)
        dims[k] = v[x->dim[k]];
    free(sym);
    free(v);
    return ok;
}

/* ---- binding ------------------------------------------------------------------------- */

typedef struct binder {
    fg_ctx *cx;
    fg_arena *a;
    const tool_inputs *in;
    forge_ctx *fcx;
    const forge_model *m;
    forge_run *r;
    bool ok;
} binder;

/* NumPy and test data write a scalar as [1] more often than not; to a scalar input
 * they are the same. */
static bool
bind(binder *b, int i, const fg_tensor *t)
{
    int rank;
    const char *name = forge_model_input(b->m, i, NULL, &rank);

    if (rank != 0 || t->count != 1)
        rank = t->rank;
    if (forge_bind_input(b->r, name, (forge_dtype)t->dtype, rank, t->dim, t->data))
        return fg_error(b->cx, "%s", forge_message(b->fcx));
    return true;
}

static const char *
given_value(const tool_list *given, const char *name)
{
    size_t n = strlen(name);

    for (int k = 0; k < given->n; k++)
        if (!strncmp(given->v[k], name, n) && given->v[k][n] == '=')
            return given->v[k] + n + 1;
    return NULL;
}

static bool
exists(const char *path)
{
    struct stat st;

    return !stat(path, &st);
}

static bool
bind_random(binder *b, int i, const char *name)
{
    forge_dtype d;
    int rank;
    int64_t dims[FG_MAXRANK];
    fg_tensor t;

    forge_model_input(b->m, i, &d, &rank);
    if (!tool_input_shape(b->m, i, b->in->length, dims))
        return fg_error(b->cx, "out of memory");
    if (!fg_tensor_new(b->a, &t, (fg_dtype)d, rank, dims))
        return false;
    tool_random_fill(name, &t, (uint64_t)b->in->random);
    return bind(b, i, &t);
}

static bool
bind_input(binder *b, int i)
{
    const char *name = forge_model_input(b->m, i, NULL, NULL);
    const char *value = given_value(&b->in->given, name), *path = NULL;
    fg_tensor t;

    if (b->in->test_data && !value) {
        path = fg_format(b->a, "%s/input_%d.pb", b->in->test_data, i);
        if (exists(path))
            return fg_onnx_tensor_file(b->cx, b->a, path, &t) && bind(b, i, &t);
    }
    if (value)
        return tool_read_value(b->cx, b->a, value, &t) && bind(b, i, &t);
    if (b->m->program->input[i].dflt)
        return true;
    if (b->in->random >= 0)
        return bind_random(b, i, name);
    if (path)
        return fg_error(b->cx, "%s: missing, and input \"%s\" has no default", path,
                        name);
    return fg_error(
        b->cx, "input \"%s\" has no data: give --input, --test-data or --random", name);
}

static void
bind_all(void *arg)
{
    binder *b = arg;
    int n = forge_model_inputs(b->m);

    for (int k = 0; k < b->in->given.n; k++) {
        size_t len = strcspn(b->in->given.v[k], "=");
        bool known = false;
        for (int i = 0; i < n && !known; i++) {
            const char *name = forge_model_input(b->m, i, NULL, NULL);
            known = strlen(name) == len && !strncmp(name, b->in->given.v[k], len);
        }
        if (!known) {
            fg_error(b->cx, "the model has no input \"%.*s\"",
                     (int)(len < 200 ? len : 200), b->in->given.v[k]);
            return;
        }
    }
    if (b->in->test_data &&
        exists(fg_format(b->a, "%s/input_%d.pb", b->in->test_data, n))) {
        fg_error(b->cx, "%s: more inputs than the model's %d", b->in->test_data, n);
        return;
    }
    for (int i = 0; i < n; i++)
        if (!bind_input(b, i))
            return;
    b->ok = true;
}

bool
tool_bind_inputs(fg_ctx *cx, fg_arena *a, const tool_inputs *in, forge_ctx *fcx,
                 const forge_model *m, forge_run *r)
{
    binder b = {cx, a, in, fcx, m, r, false};
    fg_raise raise = fg_protect(cx, bind_all, &b);

    if (raise == FG_RAISE_MEMORY && !*fg_first_error(cx))
        fg_error(cx, "out of memory");
    return b.ok;
}

int
tool_bind(fg_ctx *cx, fg_arena *a, const char *file, const tool_inputs *in,
          forge_ctx *fcx, const forge_model *m, forge_run *r)
{
    if (tool_bind_inputs(cx, a, in, fcx, m, r))
        return TOOL_OK;
    return tool_fail_file(TOOL_FAILED, file, "%s", fg_first_error(cx));
}

bool
tool_output(const forge_run *r, const forge_model *m, int i, fg_tensor *out)
{
    forge_dtype d;
    const int64_t *dims;
    const void *p =
        forge_output(r, forge_model_output(m, i, NULL, NULL), &d, &out->rank, &dims);

    if (!p)
        return false;
    out->dtype = (fg_dtype)d;
    out->data = (void *)(uintptr_t)p;
    out->count = 1;
    for (int k = 0; k < out->rank; k++) {
        out->dim[k] = dims[k];
        out->count *= dims[k];
    }
    return true;
}
