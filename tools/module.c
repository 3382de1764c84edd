/* module.c - a module to look at: imported from a model, or read as text. */
#include "tools/tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "codegen/compile.h"

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

fg_module *
tool_load(fg_ctx *cx, fg_arena *a, const tool_common *c, fg_onnx_file **file)
{
    fg_import_options o = {0};
    const char *slash = strrchr(c->model, '/');

    if (ends_in(c->model, ".fir")) {
        const char *dir =
            slash ? fg_format(a, "%.*s", (int)(slash - c->model) + 1, c->model) : NULL;
        const char *text = read_text(cx, a, c->model);
        fg_module *m = text ? fg_parse(cx, a, c->model, text, dir) : NULL;
        return m && fg_verify(m) ? m : NULL;
    }
    if (!fg_parse_dims(a, c->o.dims, &o) || !(*file = fg_onnx_open(cx, c->model)))
        return NULL;
    return fg_onnx_import(*file, a, &o);
}

bool
tool_known_passes(const char *list)
{
    for (const char *s = list; s && *s; s += *s == ',') {
        size_t n = strcspn(s, ",");
        if (!fg_pass_by_name(s, n)) {
            tool_fail(TOOL_USAGE,
                      "no pass is called \"%.*s\"; forge dump --list-passes shows them",
                      n > 100 ? 100 : (int)n, s);
            return false;
        }
        s += n;
    }
    return true;
}
