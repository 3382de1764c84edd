/* compile.c - the only file that knows the whole way: read, import, passes, machine code,
 * placement, tables; and forge.h's part of it.
 */
#include "codegen/compile.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "codegen/program.h"
#include "passes/place.h"
#include "runtime/rt.h"

static double
now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Ends the phase that began at *start. */
static void
phase(fg_report *r, const char *name, double *start)
{
    double now = now_ms();

    r->phase[r->nphase].name = name;
    r->phase[r->nphase++].ms = now - *start;
    *start = now;
}

/* ---- options ---------------------------------------------------------------------- */

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
    return fg_error(
        fg_arena_ctx(a),
        "dims \"%.200s\": expected NAME=SIZE or NAME=MIN..MAX, comma separated", text);
}

bool
fg_parse_dims(fg_arena *a, const char *text, fg_import_options *o)
{
    size_t n = 1;
    const char **name;
    int64_t *value, *lo, *hi;

    if (!text || !*text)
        return true;
    for (const char *s = text; *s; s++)
        n += *s == ',';
    o->dim_name = name = FG_NEWN(a, const char *, n);
    o->dim_value = value = FG_NEWN(a, int64_t, n);
    o->dim_lo = lo = FG_NEWN(a, int64_t, n);
    o->dim_hi = hi = FG_NEWN(a, int64_t, n);
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
        if ((*s && *s != ',') || (k > 1 && v[0] > v[k - 1]))
            return bad_dims(a, text);
        value[o->ndim] = k == 1 ? v[0] : -1;
        lo[o->ndim] = v[0];
        hi[o->ndim++] = v[k - 1];
    }
    return true;
}

static bool
check_options(fg_ctx *cx, const forge_options *o)
{
    if (o->target && strcmp(o->target, "cpu"))
        return fg_error(cx, "target \"%.100s\" is not available: this build has cpu",
                        o->target);
    if (o->opt < 0 || o->opt > 3)
        return fg_error(cx, "optimisation level %d: expected 0 to 3", o->opt);
    if (!(o->alpha >= 0 && o->alpha <= 1))
        return fg_error(cx, "alpha %g: expected 0 to 1", o->alpha);
    return true;
}

/* ---- the way ---------------------------------------------------------------------- */

static fg_kernel_fn *
lookup(const void *code, int fn)
{
    return fg_cpu_fn(code, fn);
}

/* A pipeline given by hand may leave the module in TENSOR form, which has no kernels yet. */
static bool
run_passes(fg_compiled *c, const forge_options *o)
{
    fg_pipeline p = {.passes = o->passes,
                     .skip = o->skip,
                     .opt = o->opt,
                     .check = o->check,
                     .alpha = o->alpha};

    if (!fg_run_passes(c->m, &p, &c->report))
        return false;
    p.passes = "fuse_ops";
    p.skip = NULL;
    return c->m->stage != FG_STAGE_TENSOR || fg_run_passes(c->m, &p, &c->report);
}

static bool
place(fg_compiled *c, const forge_options *o)
{
    fg_pipeline p = {
        .passes = "place", .opt = o->opt, .check = o->check, .alpha = o->alpha};

    return c->m->stage == FG_STAGE_PLACED || fg_run_passes(c->m, &p, &c->report);
}

bool
fg_compile_module(fg_compiled *c, const forge_options *o)
{
    fg_cpu_options cpu = {.cpu = o->cpu};
    double start = now_ms();

    c->report.a = c->a;
    c->report.nodes_imported = fg_inst_count(c->m->body);
    if (!run_passes(c, o))
        return false;
    c->report.instructions = fg_inst_count(c->m->body);
    phase(&c->report, "passes", &start);
    if (!(c->code = fg_cpu_compile(c->m, c->a, &cpu, &c->kc, &c->nkc)))
        return false;
    phase(&c->report, "codegen", &start);
    if (!place(c, o))
        return false;
    phase(&c->report, "place", &start);
    c->program = fg_program_make(c->m, c->a, c->kc, c->nkc, lookup, c->code);
    phase(&c->report, "lower", &start);
    return c->program != NULL;
}

bool
fg_compile(fg_compiled *c, const char *path, const forge_options *o)
{
    fg_import_options import = {0};
    double start = now_ms();

    c->a = fg_arena_new(c->cx);
    if (!check_options(c->cx, o) || !fg_parse_dims(c->a, o->dims, &import))
        return false;
    if (!(c->file = fg_onnx_open(c->cx, path)))
        return false;
    phase(&c->report, "read", &start);
    if (!(c->m = fg_onnx_import(c->file, c->a, &import)))
        return false;
    phase(&c->report, "import", &start);
    return fg_compile_module(c, o);
}

void
fg_compiled_free(fg_compiled *c)
{
    fg_cpu_free(c->code);
    fg_arena_free(c->a);
    fg_onnx_close(c->file);
    fg_ctx_free(c->cx);
}

/* ---- forge.h ------------------------------------------------------------------------ */

typedef struct job {
    forge_model base; /* first: a forge_model is one of these */
    fg_compiled c;
    const char *path;
    const forge_options *o;
    bool done;
    void (*release)(void *user, void *p);
    void *user;
} job;

static void
destroy(forge_model *m)
{
    job *j = (job *)m;

    fg_compiled_free(&j->c);
    j->release(j->user, j);
}

static void
compile_job(void *arg)
{
    job *j = arg;

    if (!fg_compile(&j->c, j->path, j->o))
        return;
    fg_report_cost(&j->c);
    j->base.program = j->c.program;
    j->base.report = fg_report_json(&j->c);
    j->done = true;
}

static forge_status
failure(const job *j, fg_raise raise)
{
    struct stat st;
    int n = 0;

    if (raise == FG_RAISE_MEMORY)
        return FORGE_OUT_OF_MEMORY;
    if (raise == FG_RAISE_BUG)
        return FORGE_INTERNAL;
    if (stat(j->path, &st))
        return FORGE_IO;
    if (j->c.file)
        fg_onnx_unsupported(j->c.file, &n);
    return n ? FORGE_UNSUPPORTED : FORGE_INVALID;
}

void
forge_options_init(forge_options *o)
{
    *o = (forge_options){.size = sizeof *o, .target = "cpu", .opt = 1, .alpha = 1};
}

forge_status
forge_compile_file(forge_ctx *cx, const char *path, const forge_options *o,
                   forge_model **out)
{
    forge_options own;
    fg_allocator host = {cx->alloc, cx->release, cx->user};
    job *j = cx->alloc(cx->user, sizeof *j);

    forge_options_init(&own);
    if (o)
        memcpy(&own, o, o->size < sizeof own ? o->size : sizeof own);
    if (!j)
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    *j = (job){.base.destroy = destroy,
               .path = path,
               .o = &own,
               .release = cx->release,
               .user = cx->user};
    j->c.cx = fg_ctx_new(&host);
    if (!j->c.cx) {
        cx->release(cx->user, j);
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    }
    fg_raise raise = fg_protect(j->c.cx, compile_job, j);
    if (raise == FG_RAISE_NONE && j->done) {
        j->o = NULL;
        j->path = NULL;
        *out = &j->base;
        return FORGE_OK;
    }
    forge_status s = failure(j, raise);
    const char *text = fg_first_error(j->c.cx);
    fg_fail(cx, s, "%s", *text ? text : forge_status_text(s));
    destroy(&j->base);
    return s;
}
