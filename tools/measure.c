/* measure.c - a compiled program, run and timed kernel by kernel, thread by thread. */
#include "tools/measure.h"

enum { MOST_RUNS = 20, RUN_MS = 700, MOST_EVENTS = 1 << 16 };

typedef struct timing {
    measure *x;
    int64_t *step_ns;
} timing;

static void
keep(measure_log *l, measure_event e)
{
    if (l->n < l->cap)
        l->event[l->n++] = e;
}

static void
on_step(void *user, uint32_t step, int64_t ns)
{
    timing *t = user;
    int64_t end = fg_now_ns() - t->x->run_begin;

    t->step_ns[step] += ns;
    keep(&t->x->step, (measure_event){step, 0, end - ns, end});
}

static void
on_once(void *user, uint32_t step, int64_t ns)
{
    timing *t = user;
    const fg_blockdef *b = &t->x->program->block[t->x->program->once];
    int64_t end = fg_now_ns() - t->x->run_begin;

    if (t->x->program->once && step - b->first < b->count)
        keep(&t->x->once, (measure_event){step, 0, end - ns, end});
}

static void
on_share(void *user, int thread, int64_t begin, int64_t end)
{
    timing *t = user;
    int64_t start = t->x->run_begin;

    keep(&t->x->share[thread],
         (measure_event){FG_NONE, thread, begin - start, end - start});
}

/* Shares come in order within a thread, steps in the order they ended, an if or loop after what
 * it holds: the first step that ends no earlier is the kernel a share is part of. */
void
measure_assign(measure *x)
{
    for (int t = 0; t < x->threads; t++)
        for (int k = 0, s = 0; k < x->share[t].n; k++) {
            measure_event *e = &x->share[t].event[k];
            while (s < x->step.n && x->step.event[s].end < e->end)
                s++;
            e->step = s < x->step.n ? x->step.event[s].step : FG_NONE;
        }
}

uint32_t
measure_step_of(const fg_compiled *c, int k)
{
    const fg_inst *i = c->kc[k].inst;
    const char *name = c->m->reg[i->out[0]].name;
    const fg_program *p = c->program;

    for (uint32_t s = 0; s < p->nstep; s++)
        if (p->step[s].kind == FG_STEP_KERNEL &&
            p->step[s].nbuf == (uint32_t)(i->nin + i->nout) &&
            !strcmp(p->tensor[p->step[s].buf[i->nin]].name, name))
            return s;
    return FG_NONE;
}

static double
number(const forge_run *r, uint32_t v)
{
    int64_t n = fg_val(r, v);

    return n > 0 ? (double)n : 0;
}

/* A kernel that does not say what it moves reads and writes its tensors once. */
static void
take_work(measure *x, const forge_run *r)
{
    const fg_program *p = x->program;

    for (uint32_t k = 0; k < p->nstep; k++) {
        const fg_step *s = &p->step[k];
        if (s->kind != FG_STEP_KERNEL)
            continue;
        x->step_flops[k] = number(r, s->flops);
        x->step_bytes[k] = number(r, s->bytes);
        for (uint32_t j = 0; j < s->nbuf && s->bytes == FG_NONE; j++)
            if (s->buf[j] != FG_NONE)
                x->step_bytes[k] += number(r, p->tensor[s->buf[j]].bytes);
    }
}

static const char *
input_text(fg_arena *a, const forge_run *r)
{
    fg_text t = fg_text_new(a);

    for (uint32_t i = 0; i < r->p->ninput; i++) {
        const fg_tensordef *x = &r->p->tensor[r->p->input[i].tensor];
        fg_putf(&t, "%s%s %s[", i ? ", " : "", r->p->input[i].name,
                fg_dtypes[x->dtype].name);
        for (int k = 0; k < x->rank; k++)
            fg_putf(&t, "%s%lld", k ? "," : "", (long long)fg_val(r, x->dim[k]));
        fg_putc(&t, ']');
    }
    return t.s;
}

static measure_log
new_log(fg_arena *a)
{
    return (measure_log){FG_NEWN(a, measure_event, MOST_EVENTS), 0, MOST_EVENTS};
}

/* The first run finds memory, wakes threads and makes what is made once; it does not count. */
static bool
repeat(timing *t, forge_run *r)
{
    measure *x = t->x;
    double start = tool_now_ms(), first;

    r->hook = on_once;
    r->hook_user = t;
    x->run_begin = fg_now_ns();
    if (forge_execute(r))
        return false;
    first = tool_now_ms() - start;
    x->threads = r->threads;
    r->hook = on_step;
    fg_pool_watch(r->pool, on_share, t);
    start = tool_now_ms();
    do {
        x->step.n = 0;
        for (int k = 0; k < x->threads; k++)
            x->share[k].n = 0;
        x->run_begin = fg_now_ns();
        if (forge_execute(r))
            return false;
        x->runs++;
    } while (x->runs < MOST_RUNS && tool_now_ms() - start + first < RUN_MS);
    x->run_ms = (tool_now_ms() - start) / x->runs;
    return true;
}

static void
run(measure *x, fg_compiled *c, const tool_inputs *in, int threads, size_t mem_budget,
    forge_ctx *fcx, forge_run *r, const forge_model *model)
{
    size_t n = x->program->nstep + (size_t)1;
    timing t = {x, FG_NEWN(c->a, int64_t, n)};

    if (forge_run_threads(r, threads > 0 ? threads : 0) ||
        (mem_budget && forge_run_memory(r, mem_budget))) {
        x->failure = fg_strdup(c->a, forge_message(fcx));
        return;
    }
    if (!tool_bind_inputs(c->cx, c->a, in, fcx, model, r)) {
        x->failure = fg_first_error(c->cx);
        return;
    }
    x->step = new_log(c->a);
    x->once = new_log(c->a);
    x->share = FG_NEWN(c->a, measure_log, (size_t)r->threads);
    for (int k = 0; k < r->threads; k++)
        x->share[k] = new_log(c->a);
    if (!repeat(&t, r)) {
        x->failure = fg_strdup(c->a, forge_message(fcx));
        return;
    }
    x->step_ms = FG_NEWN(c->a, double, n);
    x->step_flops = FG_NEWN(c->a, double, n);
    x->step_bytes = FG_NEWN(c->a, double, n);
    for (uint32_t k = 0; k < x->program->nstep; k++)
        x->step_ms[k] = (double)t.step_ns[k] * 1e-6 / x->runs;
    take_work(x, r);
    x->inputs = input_text(c->a, r);
    measure_assign(x);
}

measure
measure_run(fg_compiled *c, const tool_inputs *in, int threads, size_t mem_budget)
{
    measure x = {.program = c->program};
    forge_model model = {.program = c->program};
    forge_ctx *fcx = NULL;
    forge_run *r = NULL;

    if (forge_open(NULL, &fcx)) {
        x.failure = "out of memory";
        return x;
    }
    fg_model_init(&model, fcx);
    if (forge_run_new(fcx, &model, &r))
        x.failure = "out of memory";
    else
        run(&x, c, in, threads, mem_budget, fcx, r, &model);
    forge_run_free(r);
    fg_model_done(&model);
    forge_close(fcx);
    if (!x.failure)
        x.peak = tool_measure_peak(x.threads, 0);
    return x;
}
