/* load.c - a module to compile: imported from an ONNX file, or read as text.
 *
 *     model.onnx     stage TENSOR, as the importer leaves it
 *     FILE.fir       whatever stage the text says: the compilation goes on from there
 */
#include "codegen/compile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- sizes of symbols --------------------------------------------------------------- */

static bool
parse_number(const char **s, int64_t *v)
{
    char *end;

    errno = 0;
    *v = strtoll(*s, &end, 10);
    if (end == *s || errno || *v < 0)
        return false;
    *s = end;
    return true;
}

static bool
bad_dims(fg_arena *a, const char *text)
{
    return fg_error(fg_arena_ctx(a),
                    "dims \"%.200s\": expected NAME=SIZE, NAME=MIN..MAX or "
                    "NAME=MIN..USUAL..MAX, comma "
                    "separated",
                    text);
}

bool
fg_parse_dims(fg_arena *a, const char *text, fg_import_options *o)
{
    size_t n = 1;
    const char **name;
    int64_t *value, *lo, *hi, *usual;

    if (!text || !*text)
        return true;
    for (const char *s = text; *s; s++)
        n += *s == ',';
    o->dim_name = name = FG_NEWN(a, const char *, n);
    o->dim_value = value = FG_NEWN(a, int64_t, n);
    o->dim_lo = lo = FG_NEWN(a, int64_t, n);
    o->dim_hi = hi = FG_NEWN(a, int64_t, n);
    o->dim_usual = usual = FG_NEWN(a, int64_t, n);
    for (const char *s = text; *s; s += *s == ',') {
        size_t len = strcspn(s, "=,");
        int64_t v[3] = {0};
        int k = 0;
        if (!len || s[len] != '=')
            return bad_dims(a, text);
        name[o->ndim] = fg_intern_n(fg_arena_ctx(a), s, len);
        s += len + 1;
        do {
            if (k == 3 || !parse_number(&s, &v[k++]))
                return bad_dims(a, text);
        } while (!strncmp(s, "..", 2) && (s += 2));
        if ((*s && *s != ',') || (k > 1 && v[0] > v[k - 1]) ||
            (k == 3 && (v[1] < v[0] || v[1] > v[2])))
            return bad_dims(a, text);
        usual[o->ndim] = k == 3 ? v[1] : 0;
        value[o->ndim] = k == 1 ? v[0] : -1;
        lo[o->ndim] = v[0];
        hi[o->ndim++] = v[k - 1];
    }
    return true;
}

/* ---- text --------------------------------------------------------------------------- */

/* The whole file, terminated; NULL with a diagnostic. */
static char *
read_text(fg_ctx *cx, fg_arena *a, const char *path)
{
    FILE *f = fopen(path, "rb");
    char *s = NULL;
    size_t n = 0, cap = 1 << 16;

    if (!f) {
        fg_error(cx, "%s: %s", path, strerror(errno));
        return NULL;
    }
    for (size_t got = 1; got; n += got) {
        if (!s || cap - n < 2) {
            char *more = fg_alloc(a, cap * 2);
            if (n)
                memcpy(more, s, n);
            s = more;
            cap *= 2;
        }
        got = fread(s + n, 1, cap - n - 1, f);
    }
    bool bad = ferror(f);
    fclose(f);
    s[n] = 0;
    if (bad)
        fg_error(cx, "%s: cannot be read", path);
    else if (strlen(s) != n)
        fg_error(cx, "%s: not text: it holds a zero byte", path);
    else
        return s;
    return NULL;
}

static bool
ends_in(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);

    return n >= k && !strcmp(s + n - k, tail);
}

static fg_module *
load_text(fg_compiled *c, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *dir =
        slash ? fg_format(c->a, "%.*s", (int)(slash - path) + 1, path) : NULL;
    const char *text = read_text(c->cx, c->a, path);
    fg_module *m = text ? fg_parse(c->cx, c->a, path, text, dir) : NULL;

    return m && fg_verify(m) ? m : NULL;
}

fg_module *
fg_load(fg_compiled *c, const char *path, const char *dims)
{
    fg_import_options import = {0};
    fg_module *m = NULL;

    if (ends_in(path, ".fir")) {
        if (dims && *dims)
            fg_error(c->cx,
                     "%s: text has the sizes it was made with; --dim is for models",
                     path);
        else
            m = load_text(c, path);
        fg_report_phase(&c->report, "read");
        return m;
    }
    if (!fg_parse_dims(c->a, dims, &import) || !(c->file = fg_onnx_open(c->cx, path)))
        return NULL;
    fg_report_phase(&c->report, "read");
    m = fg_onnx_import(c->file, c->a, &import);
    fg_report_phase(&c->report, "import");
    return m;
}
