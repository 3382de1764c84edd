/* compile.c - the only file that knows the whole way: read, import, passes, machine code,
 * placement, tables; and forge.h's part of it.
 */
#include "codegen/compile.h"

#include <sys/stat.h>

#include "codegen/cache.h"
#include "codegen/knobs.h"
#include "codegen/program.h"
#include "codegen/special.h"
#include "passes/place.h"
#include "runtime/names.h"
#include "runtime/rt.h"

/* ---- options ---------------------------------------------------------------------- */

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
    fg_pipeline p;
    int knob[FG_NKNOBS];
    const char *why = fg_parse_precision(o, &p);
    if (!why)
        why = fg_specials_wrong(o->variants);
    if (why)
        return fg_error(cx, "%s", why);
    return fg_knobs_read(cx, "codegen", o->codegen, knob);
}

const char *
fg_parse_precision(const forge_options *o, fg_pipeline *p)
{
    static const struct {
        const char *name;
        int bits, group;
    } known[] = {
        {"f32", 0, 32},     {"bf16", 16, 32},     {"int8", 8, 32}, {"int8:32", 8, 32},
        {"int8:64", 8, 64}, {"int8:128", 8, 128}, {"int4", 4, 32}, {"int4:32", 4, 32},
        {"int4:64", 4, 64}, {"int4:128", 4, 128},
    };
    static const struct {
        const char *name;
        int round;
    } how[] = {{"model", -1}, {"strict", 0}, {"fast", 1}};
    const char *precision = o->precision ? o->precision : "f32";
    const char *accuracy = o->accuracy ? o->accuracy : "model";
    size_t k = 0, j = 0;

    while (k < sizeof known / sizeof *known && strcmp(precision, known[k].name) != 0)
        k++;
    while (j < sizeof how / sizeof *how && strcmp(accuracy, how[j].name) != 0)
        j++;
    if (k == sizeof known / sizeof *known)
        return "precision: expected f32, bf16, int8 or int4, or with a group int4:64 "
               "(32, 64, 128)";
    if (j == sizeof how / sizeof *how)
        return "accuracy: expected strict, model or fast";
    p->bits = known[k].bits;
    p->group = known[k].group;
    p->round = how[j].round;
    return NULL;
}

/* ---- the way ---------------------------------------------------------------------- */

static fg_kernel_fn *
lookup(const void *code, int fn)
{
    return fg_cpu_fn(code, fn);
}

/* The options of the command line that compile the same program again. */
static const char *
knobs(const fg_compiled *c, const forge_options *o)
{
    fg_text t = fg_text_new(c->a);

    fg_putf(&t, "-O%d --passes=%s", o->opt, c->report.passes ? c->report.passes : "");
    if (o->rounds > 0)
        fg_putf(&t, " --rounds=%d", o->rounds);
    if (o->codegen && *o->codegen)
        fg_putf(&t, " --codegen=%s", o->codegen);
    if (o->dims && *o->dims)
        fg_putf(&t, " --dim=%s", o->dims);
    if (o->variants && *o->variants)
        fg_putf(&t, " --variants=%s", o->variants);
    fg_putf(&t, " --cpu=%s", o->cpu ? o->cpu : "native");
    return t.s;
}

bool
fg_compile_passes(fg_compiled *c, const forge_options *o)
{
    fg_pipeline p = {.passes = o->passes,
                     .skip = o->skip,
                     .opt = o->opt,
                     .check = o->check,
                     .rounds = o->rounds,
                     .alpha = o->alpha,
                     .observe = c->observe,
                     .user = c->user};

    fg_parse_precision(o, &p);
    c->report.nodes_imported = fg_inst_count(c->m->body);
    if ((c->m->stage == FG_STAGE_TENSOR || o->passes) &&
        !fg_run_passes(c->m, &p, &c->report))
        return false;
    /* A pipeline given by hand may leave stage TENSOR, which has no kernels yet. */
    p.passes = "fuse_ops";
    p.skip = NULL;
    if (c->m->stage == FG_STAGE_TENSOR && !fg_run_passes(c->m, &p, &c->report))
        return false;
    if (!fg_specials_read(c->m, c->a, o->variants, &c->specials))
        return false;
    c->report.instructions = fg_inst_count(c->m->body);
    c->report.knobs = knobs(c, o);
    fg_report_phase(&c->report, "passes");
    return true;
}

bool
fg_compile_code(fg_compiled *c, const forge_options *o, bool keep_text)
{
    /* Text is one module, so that other tools can read it. */
    fg_cpu_options cpu = {.specials = c->specials,
                          .knobs = o->codegen,
                          .cpu = o->cpu,
                          .threads = keep_text,
                          .keep_text = keep_text,
                          .keep_objects = c->keep_objects,
                          .no_link = c->no_link};

    c->code = fg_cpu_compile(c->m, c->a, &cpu, &c->kc, &c->nkc);
    fg_report_phase(&c->report, "codegen");
    return c->code;
}

bool
fg_compile_place(fg_compiled *c, const forge_options *o)
{
    fg_pipeline p = {.passes = "place",
                     .opt = o->opt,
                     .check = o->check,
                     .alpha = o->alpha,
                     .observe = c->observe,
                     .user = c->user};

    /* Text may say where everything lives; what it says is proved, and then planned again,
     * which gives the report its numbers. */
    if (c->m->stage == FG_STAGE_PLACED) {
        if (!fg_check_place(c->m, c->a))
            return false;
        c->m->stage = FG_STAGE_FUSED;
    }
    const char *passes = c->report.passes;
    bool ok = fg_run_passes(c->m, &p, &c->report);
    c->report.passes = passes;
    fg_report_phase(&c->report, "place");
    return ok;
}

bool
fg_compile_program(fg_compiled *c)
{
    c->program =
        fg_program_make(c->m, c->a, c->kc, c->nkc, &c->specials, lookup, c->code);
    if (c->program)
        c->program->shares = fg_cpu_shares(c->code);
    fg_report_phase(&c->report, "lower");
    return c->program != NULL;
}

bool
fg_compile_module(fg_compiled *c, const forge_options *o)
{
    if (!c->report.a)
        c->report = fg_report_new(c->a);
    return fg_compile_passes(c, o) && fg_compile_code(c, o, false) &&
           fg_compile_place(c, o) && fg_compile_program(c);
}

bool
fg_compile_load(fg_compiled *c, const char *path, const forge_options *o)
{
    c->a = fg_arena_new(c->cx);
    c->report = fg_report_new(c->a);
    return check_options(c->cx, o) && (c->m = fg_load(c, path, o->dims));
}

static void *
open_llvm(void *cpu)
{
    fg_cpu_open(cpu);
    return NULL;
}

/* LLVM takes as long to load as the model and its passes do: one beside the other. */
bool
fg_compile(fg_compiled *c, const char *path, const forge_options *o)
{
    c->opens = !pthread_create(&c->opening, NULL, open_llvm, (void *)o->cpu);
    return fg_compile_load(c, path, o) && fg_compile_module(c, o);
}

void
fg_compiled_release(fg_compiled *c)
{
    if (c->opens)
        pthread_join(c->opening, NULL);
    fg_cpu_free(c->code);
    fg_arena_free(c->a);
    fg_onnx_close(c->file);
}

void
fg_compiled_free(fg_compiled *c)
{
    fg_compiled_release(c);
    fg_ctx_free(c->cx);
}

forge_status
fg_compile_failure(const fg_compiled *c, const char *path, fg_raise raise)
{
    struct stat st;
    int n = 0;

    if (raise == FG_RAISE_MEMORY)
        return FORGE_OUT_OF_MEMORY;
    if (raise == FG_RAISE_BUG)
        return FORGE_INTERNAL;
    if (stat(path, &st))
        return FORGE_IO;
    if (c && c->file)
        fg_onnx_unsupported(c->file, &n);
    return n ? FORGE_UNSUPPORTED : FORGE_INVALID;
}

/* ---- forge.h ------------------------------------------------------------------------ */

typedef struct job {
    forge_model base; /* first: a forge_model is one of these */
    fg_compiled c;
    const char *path;
    const forge_options *o;
    fg_cache *cache; /* NULL: none */
    bool done;
    void (*release)(void *user, void *p);
    void *user;
} job;

static void
destroy(forge_model *m)
{
    job *j = (job *)m;

    fg_model_done(m);
    fg_compiled_free(&j->c);
    j->release(j->user, j);
}

static void
compile_job(void *arg)
{
    job *j = arg;

    j->c.keep_objects = j->cache != NULL;
    if (!fg_compile(&j->c, j->path, j->o))
        return;
    fg_report_cost(&j->c);
    j->base.program = j->c.program;
    j->base.report = fg_report_json(&j->c);
    if (j->cache)
        fg_cache_store(j->cache, &j->c);
    fg_cpu_drop_objects(j->c.code);
    j->done = true;
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
    fg_cache cache;

    forge_options_init(&own);
    if (o)
        memcpy(&own, o, o->size < sizeof own ? o->size : sizeof own);
    bool cached = fg_cache_open(&cache, cx, path, &own);
    if (cached && fg_cache_find(&cache, out))
        return FORGE_OK;
    if (own.no_compile)
        return fg_fail(cx, FORGE_UNSUPPORTED,
                       "%.400s: not in the cache, and compiling is ruled out", path);
    job *j = cx->alloc(cx->user, sizeof *j);
    if (!j)
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    *j = (job){.base.destroy = destroy,
               .path = path,
               .o = &own,
               .cache = cached ? &cache : NULL,
               .release = cx->release,
               .user = cx->user};
    fg_model_init(&j->base, cx);
    j->c.cx = fg_ctx_new(&host);
    if (!j->c.cx) {
        cx->release(cx->user, j);
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    }
    fg_raise raise = fg_protect(j->c.cx, compile_job, j);
    if (raise == FG_RAISE_NONE && j->done) {
        j->o = NULL;
        j->path = NULL;
        j->cache = NULL;
        if (cx->names)
            fg_names_add(cx, &j->base, fg_cpu_image(j->c.code));
        *out = &j->base;
        return FORGE_OK;
    }
    forge_status s = fg_compile_failure(&j->c, j->path, raise);
    const char *text = fg_first_error(j->c.cx);
    fg_fail(cx, s, "%s", *text ? text : forge_status_text(s));
    destroy(&j->base);
    return s;
}
