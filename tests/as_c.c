/* as_c.c - what forge compile --emit=c writes, run in this process.
 *
 * A function behind the module's own takes sizes and pointers as arrays:
 *
 *     int call(const int64_t *n, void *const *p) { return m_run(n[0], p[0], p[1], ..); }
 *
 * $CC compiles; $AS_C_FLAGS are its options besides -shared -fPIC.
 */
#include "tests/as_c.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "codegen/source.h"

enum { MAXPOINTER = 4096 };

typedef int call_fn(const int64_t *n, void *const *p);
typedef size_t room_fn(const int64_t *n);

typedef struct call { /* what is handed over */
    int64_t size[256], shape[256][FG_MAXRANK];
    void *p[MAXPOINTER];
    void *found[256]; /* outputs of sizes that were found while running */
    int nsize, np;
} call;

static bool
is_open(fg_module *m, const fg_type *t)
{
    for (int k = 0; k < t->rank; k++)
        if (fg_e_mentions(m->ex, t->dim[k], FG_SYM_RUN))
            return true;
    return false;
}

static void
put_list(fg_text *o, const char *letter, int n)
{
    for (int k = 0; k < n; k++)
        fg_putf(o, "%s%s[%d]", k ? ", " : "", letter, k);
}

/* An output of the size its type says, or whose size will be told. */
static bool
new_output(fg_compiled *c, call *x, int k, fg_tensor *t)
{
    const fg_type *type = fg_rt(c->m, c->m->output[k].reg);
    int64_t dim[FG_MAXRANK], sym[256];

    for (fg_sym s = 0; s < fg_sym_count(c->m->ex); s++)
        sym[s] = atoi(fg_sym_info(c->m->ex, s)->name + 1);
    if (is_open(c->m, type)) {
        x->p[x->np++] = &x->found[k];
        x->p[x->np++] = x->shape[k];
        return true;
    }
    for (int d = 0; d < type->rank; d++)
        if (!fg_e_eval(c->m->ex, type->dim[d], sym, &dim[d]))
            return false;
    if (!fg_tensor_new(c->a, t, type->dtype, type->rank, dim))
        return false;
    x->p[x->np++] = t->data;
    return true;
}

static bool
take_open(fg_compiled *c, call *x, int k, fg_tensor *t)
{
    const fg_type *type = fg_rt(c->m, c->m->output[k].reg);
    size_t bytes;

    if (!is_open(c->m, type))
        return true;
    bool ok = fg_tensor_new(c->a, t, type->dtype, type->rank, x->shape[k]) &&
              fg_dtype_bytes(type->dtype, t->count, &bytes);
    if (ok)
        memcpy(t->data, x->found[k], bytes);
    free(x->found[k]);
    return ok;
}

static bool
write_file(const char *path, const char *head, const char *tail)
{
    FILE *f = fopen(path, "w");

    if (!f)
        return false;
    fputs(head, f);
    fputs(tail, f);
    return !fclose(f);
}

/* The library of a module that was written to `folder`; NULL with the compiler's words. */
static void *
build(fg_compiled *c, const fg_source_text *text, const call *x, const char *folder,
      char *why, size_t n)
{
    fg_text tail = fg_text_new(c->a);
    const char *cc = getenv("CC"), *flags = getenv("AS_C_FLAGS");

    fg_putf(&tail, "\nsize_t bytes(const int64_t *n)\n{\n    (void)n;\n    return "
                   "m_work_bytes(");
    put_list(&tail, "n", x->nsize);
    fg_putf(&tail,
            ");\n}\n\nint call(const int64_t *n, void *const *p)\n{\n    (void)n;\n"
            "    return m_run(");
    put_list(&tail, "n", x->nsize);
    fg_puts(&tail, x->nsize ? ", " : "");
    put_list(&tail, "p", x->np);
    fg_puts(&tail, ");\n}\n");
    if (!write_file(fg_format(c->a, "%s/m.h", folder), text->header, "") ||
        !write_file(fg_format(c->a, "%s/m.c", folder), text->source, tail.s))
        return NULL;
    if (system(fg_format(c->a,
                         "%s -std=c11 -Wall -Wextra -Werror %s -shared -fPIC "
                         "-o %s/m.so %s/m.c -lm > %s/log 2>&1",
                         cc ? cc : "gcc", flags ? flags : "-O0", folder, folder,
                         folder))) {
        FILE *f = fopen(fg_format(c->a, "%s/log", folder), "r");
        size_t got = f ? fread(why, 1, n - 1, f) : 0;
        why[got] = '\0';
        if (f)
            fclose(f);
        return NULL;
    }
    return dlopen(fg_format(c->a, "%s/m.so", folder), RTLD_NOW | RTLD_LOCAL);
}

static bool
run(fg_compiled *c, const fg_source_text *text, call *x, const char *folder,
    fg_tensor *got, char *why, size_t n)
{
    void *lib = build(c, text, x, folder, why, n);

    if (!lib)
        return false;
    room_fn *room = (room_fn *)(uintptr_t)dlsym(lib, "bytes");
    call_fn *fn = (call_fn *)(uintptr_t)dlsym(lib, "call");
    /* Exactly what was asked for, so that address sanitizer sees what lies beyond. */
    x->p[1] = malloc(room(x->size) + 1);
    int answer = x->p[1] ? fn(x->size, x->p) : -1;
    free(x->p[1]);
    bool ok = !answer;
    for (int k = 0; ok && k < c->m->noutput; k++)
        ok = take_open(c, x, k, &got[k]);
    dlclose(lib);
    if (!ok)
        snprintf(why, n, "the answer is %d", answer);
    return ok;
}

static void
clean(fg_arena *a, const char *folder)
{
    static const char *const files[] = {"m.h", "m.c", "m.so", "log"};

    if (getenv("AS_C_KEEP"))
        return;
    for (size_t k = 0; k < sizeof files / sizeof *files; k++)
        unlink(fg_format(a, "%s/%s", folder, files[k]));
    rmdir(folder);
}

bool
as_c_run(fg_compiled *c, const fg_tensor *in, fg_tensor *got, char *why, size_t n)
{
    call *x = FG_NEW(c->a, call);
    fg_source_text text;
    char folder[] = "/tmp/as-c-XXXXXX";

    if (!fg_source_make(c->m, c->a, "m", &c->specials, &text) || !mkdtemp(folder))
        return false;
    for (fg_sym s = 0; s < fg_sym_count(c->m->ex); s++) {
        const fg_syminfo *i = fg_sym_info(c->m->ex, s);
        if (i->kind == FG_SYM_INPUT && i->is == FG_E_BAD)
            x->size[x->nsize++] = atoi(i->name + 1);
    }
    char *weights = fg_alloc(c->a, text.bytes + 64);
    weights += -(uintptr_t)weights & 63;
    for (int k = 0; k < text.nweight; k++)
        if (text.weight[k].bytes)
            memcpy(weights + text.weight[k].offset, text.weight[k].data,
                   text.weight[k].bytes);
    x->p[x->np++] = weights;
    x->p[x->np++] = NULL;
    for (int k = 0; k < c->m->ninput; k++)
        x->p[x->np++] = in[k].data;
    bool ok = true;
    for (int k = 0; k < c->m->noutput; k++)
        ok = ok && new_output(c, x, k, &got[k]);
    ok = ok && run(c, &text, x, folder, got, why, n);
    clean(c->a, folder);
    return ok;
}
