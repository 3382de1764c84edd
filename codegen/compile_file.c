/* compile_file.c - from a model file to a .forge file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "codegen/outfile.h"
#include "codegen/save.h"

enum { MAXVARIANT = 16 };

typedef struct job {
    fg_ctx *cx;
    fg_arena *a;
    const char *path, *out;
    forge_options o;
    const forge_save_options *s;
    fg_compiled *c[MAXVARIANT];
    int n;
    bool done;
} job;

/* The n-th name of a comma list; NULL: there are fewer. */
static const char *
nth_name(fg_arena *a, const char *list, int n)
{
    for (;; n--) {
        size_t len = strcspn(list, ",");
        if (!n)
            return len ? fg_format(a, "%.*s", (int)len, list) : NULL;
        if (!list[len])
            return NULL;
        list += len + 1;
    }
}

static const char *
folder_of(fg_arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *real =
        realpath(slash ? fg_format(a, "%.*s", (int)(slash - path) + 1, path) : ".", NULL);
    const char *kept = real ? fg_strdup(a, real) : "";

    free(real);
    return kept;
}

/* Where weights go that are not in the file. */
static bool
place_weights(job *j, fg_save_options *so)
{
    const char *out = folder_of(j->a, j->out), *store = j->s->weights;

    if (so->borrow && strcmp(folder_of(j->a, j->path), out))
        return fg_error(j->cx,
                        "%.400s: to borrow the model's weights it must be in its folder",
                        j->out);
    if (!store)
        return true;
    if (so->borrow)
        return fg_error(j->cx, "weights stay in the model's files, or go to %.400s",
                        store);
    if (mkdir(store, 0777) && errno != EEXIST)
        return fg_error(j->cx, "%.400s: %s", store, strerror(errno));
    const char *real = folder_of(j->a, fg_format(j->a, "%s/", store));
    size_t n = strlen(out) - !strcmp(out, "/");
    if (strncmp(real, out, n) || real[n] != '/' || !real[n + 1])
        return fg_error(j->cx, "%.400s: a folder of weights must be below that of %.400s",
                        store, j->out);
    so->store = real + n + 1;
    return true;
}

static bool
write_report(job *j)
{
    const char *text = fg_report_json(j->c[j->n - 1]);
    fg_outfile f;

    if (fg_outfile_open(&f, j->s->report, false))
        fg_outfile_put(&f, text, strlen(text));
    return (!f.error && fg_outfile_commit(&f)) ||
           fg_error(j->cx, "%.400s: %s", j->s->report, strerror(f.error));
}

static void
compile_job(void *arg)
{
    job *j = arg;
    const char *cpu;
    fg_save_options so = {.path = j->out, .borrow = j->s->borrow};

    j->a = fg_arena_new(j->cx);
    if (!place_weights(j, &so))
        return;
    while ((cpu = nth_name(j->a, j->s->cpus, j->n))) {
        if (j->n == MAXVARIANT) {
            fg_error(j->cx, "more than %d CPUs for one file", MAXVARIANT);
            return;
        }
        fg_compiled *c = j->c[j->n++] = FG_NEW(j->a, fg_compiled);
        *c = (fg_compiled){.cx = j->cx, .keep_objects = true, .no_link = true};
        j->o.cpu = cpu;
        if (!fg_compile(c, j->path, &j->o))
            return;
        fg_report_cost(c);
    }
    if (!j->n) {
        fg_error(j->cx, "cpus \"%.60s\": expected a comma list of names", j->s->cpus);
        return;
    }
    j->done = fg_save(j->cx, j->c, j->n, &so) && (!j->s->report || write_report(j));
}

static const char usual[] = "x86-64-v3,x86-64-v4";

void
forge_save_options_init(forge_save_options *s)
{
    *s = (forge_save_options){.size = sizeof *s, .cpus = usual};
}

forge_status
forge_compile_to_file(forge_ctx *cx, const char *path, const forge_options *o,
                      const forge_save_options *s, const char *out)
{
    forge_save_options so;
    fg_allocator host = {cx->alloc, cx->release, cx->user};
    job j = {.path = path, .out = out, .s = &so};
    forge_status status = FORGE_OK;

    forge_options_init(&j.o);
    if (o)
        memcpy(&j.o, o, o->size < sizeof j.o ? o->size : sizeof j.o);
    forge_save_options_init(&so);
    if (s)
        memcpy(&so, s, s->size < sizeof so ? s->size : sizeof so);
    if (!so.cpus)
        so.cpus = usual;
    if (!(j.cx = fg_ctx_new(&host)))
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    fg_raise raise = fg_protect(j.cx, compile_job, &j);
    if (raise != FG_RAISE_NONE || !j.done) {
        status = fg_compile_failure(j.n ? j.c[j.n - 1] : NULL, path, raise);
        const char *text = fg_first_error(j.cx);
        fg_fail(cx, status, "%s", *text ? text : forge_status_text(status));
    }
    for (int k = 0; k < j.n; k++)
        fg_compiled_release(j.c[k]);
    fg_arena_free(j.a);
    fg_ctx_free(j.cx);
    return status;
}
