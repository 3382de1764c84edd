/* cmd_bench.c - forge bench: how long a model takes to compile and to run, against
 * what the machine can do in the same minute.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "runtime/rt.h"
#include "tools/bench.h"
#include "tools/progress.h"

bool
bench_fail(bench *b, const char *fmt, ...)
{
    char text[1200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (b->code == TOOL_OK)
        b->code = tool_fail_file(TOOL_FAILED, b->c.model, "%s", text);
    return false;
}

/* ---- the process --------------------------------------------------------------------- */

static long
status_kb(const char *key)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kb = 0;

    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            kb = strtol(line + strlen(key) + 1, NULL, 10);
    if (f)
        fclose(f);
    return kb;
}

/* Makes VmHWM start again from now. */
static void
reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");

    if (f) {
        fputs("5", f);
        fclose(f);
    }
}

static double
cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* ---- measuring
 * ------------------------------------------------------------------------- */

static bool
before(bench *b)
{
    return !b->decode || bench_decode_bind(b);
}

static bool
step(bench *b)
{
    if (forge_execute(b->r))
        return bench_fail(b, "%s", forge_message(b->fcx));
    return true;
}

static void
after(bench *b)
{
    if (b->decode)
        bench_decode_next(b);
}

static void
step_hook(void *user, uint32_t i, int64_t ns)
{
    bench *b = user;

    b->step_ns[i] += ns;
    b->step_calls[i]++;
}

void
bench_watch(bench *b)
{
    b->step_ns = FG_NEWN(b->a, int64_t, b->m->program->nstep + 1);
    b->step_calls = FG_NEWN(b->a, int64_t, b->m->program->nstep + 1);
    b->r->hook = step_hook;
    b->r->hook_user = b;
}

bool
bench_warm_up(bench *b)
{
    double end = tool_now_ms() + b->duration * 1e3 * 0.2;

    for (int i = 0; i < b->warmup; i++) {
        if (!before(b) || !step(b))
            return false;
        after(b);
        if (tool_now_ms() > end)
            break;
    }
    return true;
}

bool
bench_step(bench *b)
{
    if (!b->lat)
        b->lat = FG_NEWN(b->a, double, (size_t)b->iterations + 1);
    if (!before(b))
        return false;
    double cpu = cpu_seconds(), start = tool_now_ms();
    if (!step(b))
        return false;
    b->lat[b->nlat++] = tool_now_ms() - start;
    b->cpu_s += cpu_seconds() - cpu;
    after(b);
    return true;
}

static bool
measure(bench *b)
{
    double end = tool_now_ms() + b->duration * 1e3, joules = tool_energy();

    if (b->kernels)
        bench_watch(b);
    while (b->nlat < b->iterations && (b->nlat < 3 || tool_now_ms() <= end))
        if (!bench_step(b))
            return false;
    b->cpu_s /= b->nlat ? b->nlat : 1;
    b->energy_j = tool_energy_since(joules) / (b->nlat ? b->nlat : 1);
    b->r->hook = NULL;
    return true;
}

/* Work of one run of step s with the shapes bound now. */
double
bench_step_work(const forge_run *r, const fg_step *s, bool flops)
{
    uint32_t v = flops ? s->flops : s->bytes;
    int64_t n = 0;

    if (s->kind != FG_STEP_KERNEL)
        return 0;
    if (v != FG_NONE)
        n = r->value[v];
    else
        for (uint32_t k = 0; k < s->nbuf && !flops; k++)
            if (s->buf[k] != FG_NONE)
                n += r->value[r->p->tensor[s->buf[k]].bytes];
    return n > 0 ? (double)n : 0;
}

double
tool_run_bytes(const forge_run *r)
{
    const fg_program *p = r->p;
    double sum = 0;

    for (uint32_t i = p->block[0].first; i < p->block[0].first + p->block[0].count; i++)
        sum += bench_step_work(r, &p->step[i], false);
    return sum;
}

static int
by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

double
bench_percentile(const bench *b, double p)
{
    double *v = malloc((size_t)(b->nlat + 1) * sizeof *v), r = 0;

    if (v && b->nlat) {
        memcpy(v, b->lat, (size_t)b->nlat * sizeof *v);
        qsort(v, (size_t)b->nlat, sizeof *v, by_value);
        r = v[(int)(p / 100 * (b->nlat - 1) + 0.5)];
    }
    free(v);
    return r;
}

bool
bench_compile(bench *b)
{
    b->base_kb = status_kb("VmRSS");
    double start = tool_now_ms();
    if ((b->code = tool_compile(b->fcx, &b->c, &b->m)))
        return false;
    if (forge_run_new(b->fcx, b->m, &b->r) ||
        (b->c.threads >= 0 && forge_run_threads(b->r, b->c.threads)) ||
        (b->c.mem_budget && forge_run_memory(b->r, b->c.mem_budget)))
        return bench_fail(b, "%s", forge_message(b->fcx));
    *(tool_is_artifact(b->c.model) ? &b->load_ms : &b->compile_ms) =
        tool_now_ms() - start;
    b->compile_peak_kb = status_kb("VmHWM");
    return true;
}

/* What the peers' accuracy check wants: the first output of the first timed run. */
bool
bench_first_run(bench *b)
{
    bool decode = !strcmp(b->task, "decode");

    if (decode && !bench_decode_begin(b))
        return false;
    if (!decode &&
        (b->code = tool_bind(b->cx, b->a, b->c.model, &b->in, b->fcx, b->m, b->r)))
        return false;
    if (!before(b))
        return false;
    double start = tool_now_ms();
    if (!step(b))
        return false;
    b->first_ms = tool_now_ms() - start;
    if (b->out && !bench_write_out(b, 0, decode))
        return false;
    after(b);
    return true;
}

static void
work(void *arg)
{
    bench *b = arg;

    if (b->alphas) {
        bench_alpha_sweep(b);
        return;
    }
    if (!bench_compile(b) || !strcmp(b->task, "compile"))
        return;
    reset_peak();
    tool_progress_begin("measuring", b->c.model);
    bool ran = bench_first_run(b) && bench_warm_up(b);
    b->threads = b->r->threads;
    b->run_peak_kb = status_kb("VmHWM");
    if (ran)
        bench_measure_peak(b);
    reset_peak();
    ran = ran && measure(b);
    tool_progress_end();
    if (!ran)
        return;
    b->run_peak_kb = (long)fmax((double)b->run_peak_kb, (double)status_kb("VmHWM"));
    for (int k = 0; k < 3 && (!k || bench_above_peak(b)); k++)
        bench_measure_peak(b);
}

int
cmd_bench(int argc, char **argv)
{
    bench b = {.task = "run",
               .past = 128,
               .iterations = 50,
               .warmup = 10,
               .duration = 10,
               .in.random = 0};
    const tool_option own[] = {
        {"--task", TOOL_TEXT, &b.task, "TASK",
         "compile, run (default), or decode: a token at a time with a KV cache"},
        {"--past", TOOL_INT, &b.past, "N", "decode: tokens of the prefill; default 128"},
        {"--iterations", TOOL_INT, &b.iterations, "N", "at most; default 50"},
        {"--warmup", TOOL_INT, &b.warmup, "N", "runs that do not count; default 10"},
        {"--duration", TOOL_DOUBLE, &b.duration, "S", "seconds at most; default 10"},
        {"--input", TOOL_LIST, &b.in.given, "NAME=VALUE",
         "as for forge run; decode_ids: tokens of the decode task"},
        {"--test-data", TOOL_TEXT, &b.in.test_data, "DIR", "inputs from input_i.pb"},
        {"--random", TOOL_INT, &b.in.random, "SEED", "of inputs not given; default 0"},
        {"--out", TOOL_TEXT, &b.out, "FILE",
         "first output as float32 .npy (decode: of the first token)"},
        {"--kernels", TOOL_FLAG, &b.kernels, "",
         "time and percent of peak of every kernel"},
        {"--alpha-sweep", TOOL_MAYBE, &b.alphas, "0,0.5,1",
         "compile at several alphas, compare cost and time; default 0,0.2 to 1"},
        {"--json", TOOL_FLAG, &b.json, "", "one line of JSON"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    tool_common_init(&b.c);
    int code = tool_parse(
        &b.c, own, "forge bench MODEL.onnx: measure compile time and speed", argc, argv);
    if (code)
        return code < 0 ? TOOL_OK : code;
    if (strcmp(b.task, "compile") && strcmp(b.task, "run") && strcmp(b.task, "decode"))
        return tool_fail(TOOL_USAGE, "--task=%.100s: expected compile, run or decode",
                         b.task);
    if (b.past < 1 || b.iterations < 1 || !(b.duration >= 0))
        return tool_fail(TOOL_USAGE,
                         "--past and --iterations begin at 1, --duration at 0");
    /* What is measured is compiling, unless a cache is asked for. */
    if (!b.c.cache && !b.c.o.no_compile)
        b.c.o.cache = NULL;
    if (!(b.fcx = tool_open()))
        return TOOL_FAILED;
    if (!(b.cx = fg_ctx_new(NULL)))
        return tool_fail(TOOL_FAILED, "out of memory");
    b.a = fg_arena_new(b.cx);
    if (fg_protect(b.cx, work, &b))
        bench_fail(&b, "out of memory");
    if (b.code == TOOL_OK && !b.alphas)
        (b.json ? bench_print_json : bench_print_text)(&b);
    bench_decode_end(&b);
    forge_run_free(b.r);
    forge_model_free(b.m);
    forge_close(b.fcx);
    fg_arena_free(b.a);
    fg_ctx_free(b.cx);
    free(b.in.given.v);
    return b.code;
}
