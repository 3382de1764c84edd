/* api.c - contexts, models and runs as the host sees them; forge.h has the contract. */
#include "runtime/names.h"
#include "runtime/rt.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *
host_alloc(void *user, size_t bytes)
{
    (void)user;
    return malloc(bytes);
}

static void
host_release(void *user, void *p)
{
    (void)user;
    free(p);
}

forge_status
fg_fail(forge_ctx *cx, forge_status s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(cx->message, sizeof cx->message, fmt, ap);
    va_end(ap);
    return s;
}

void
fg_log(forge_ctx *cx, const char *fmt, ...)
{
    char line[1024];
    va_list ap;

    if (!cx->log)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    cx->log(cx->user, line);
}

int
fg_memory_reserve(forge_ctx *cx, fg_memory *m, int64_t bytes, size_t keep)
{
    if (bytes < 0 || (uint64_t)bytes > SIZE_MAX - FG_ALIGN)
        return 0;
    if ((size_t)bytes <= m->cap && m->p)
        return 1;
    if (!keep) /* old and new together may be more than there is */
        fg_memory_free(cx, m);
    void *raw = cx->alloc(cx->user, (size_t)bytes + FG_ALIGN);
    if (!raw)
        return 0;
    void *p = (void *)(((uintptr_t)raw + FG_ALIGN - 1) & -(uintptr_t)FG_ALIGN);
    if (keep)
        memcpy(p, m->p, keep);
    if (m->raw)
        cx->release(cx->user, m->raw);
    *m = (fg_memory){p, raw, (size_t)bytes};
    return 1;
}

/* Faults of small pages cost more than a short run does. */
void
fg_large_pages(void *p, int64_t bytes)
{
#ifdef MADV_HUGEPAGE
    uintptr_t from = ((uintptr_t)p + FG_LARGE_PAGE - 1) & -(uintptr_t)FG_LARGE_PAGE;
    uintptr_t to = ((uintptr_t)p + (uintptr_t)bytes) & -(uintptr_t)FG_LARGE_PAGE;

    if (bytes >= FG_LARGE_PAGE && from < to)
        madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)p;
    (void)bytes;
#endif
}

void
fg_memory_free(forge_ctx *cx, fg_memory *m)
{
    if (m->raw)
        cx->release(cx->user, m->raw);
    *m = (fg_memory){0};
}

/* ---- open ------------------------------------------------------------------------- */

forge_status
forge_open(const forge_config *c, forge_ctx **out)
{
    forge_config own = {.size = sizeof own};

    if (c)
        memcpy(&own, c, c->size < sizeof own ? c->size : sizeof own);
    if (!own.alloc != !own.release)
        return FORGE_USAGE;
    if (!own.alloc) {
        own.alloc = host_alloc;
        own.release = host_release;
    }
    bool unknown;
    int names = fg_names_read(
        own.code_names ? own.code_names : secure_getenv("FORGE_CODE_NAMES"), &unknown);
    if (unknown && own.code_names)
        return FORGE_USAGE;
    forge_ctx *cx = own.alloc(own.user, sizeof *cx);
    if (!cx)
        return FORGE_OUT_OF_MEMORY;
    *cx = (forge_ctx){.alloc = own.alloc,
                      .release = own.release,
                      .user = own.user,
                      .log = own.log,
                      .names = names};
    *out = cx;
    return FORGE_OK;
}

void
forge_close(forge_ctx *cx)
{
    if (cx)
        cx->release(cx->user, cx);
}

const char *
forge_message(const forge_ctx *cx)
{
    return cx->message;
}

const char *
forge_status_text(forge_status s)
{
    static const char *const text[] = {
#define X(id, t) t,
        FORGE_STATUSES(X)
#undef X
    };
    return (unsigned)s < sizeof text / sizeof *text ? text[s] : "unknown status";
}

const char *
forge_version(void)
{
    return FORGE_VERSION;
}

/* ---- model ------------------------------------------------------------------------ */

void
forge_model_free(forge_model *m)
{
    if (m)
        m->destroy(m);
}

const char *
forge_model_report(const forge_model *m)
{
    return m->report;
}

int
forge_model_inputs(const forge_model *m)
{
    return (int)m->program->ninput;
}

int
forge_model_outputs(const forge_model *m)
{
    return (int)m->program->noutput;
}

static const char *
port(const fg_program *p, const fg_portdef *d, uint32_t n, int i, forge_dtype *t,
     int *rank)
{
    if (i < 0 || (uint32_t)i >= n)
        return NULL;
    const fg_tensordef *x = &p->tensor[d[i].tensor];
    if (t)
        *t = (forge_dtype)x->dtype;
    if (rank)
        *rank = x->rank;
    return d[i].name;
}

const char *
forge_model_input(const forge_model *m, int i, forge_dtype *t, int *rank)
{
    return port(m->program, m->program->input, m->program->ninput, i, t, rank);
}

const char *
forge_model_output(const forge_model *m, int i, forge_dtype *t, int *rank)
{
    return port(m->program, m->program->output, m->program->noutput, i, t, rank);
}

int64_t
forge_model_input_dim(const forge_model *m, int i, int axis, const char **name)
{
    const fg_program *p = m->program;

    if (i < 0 || (uint32_t)i >= p->ninput)
        return -1;
    const fg_tensordef *x = &p->tensor[p->input[i].tensor];
    if (axis < 0 || axis >= x->rank)
        return -1;
    if (name)
        *name = p->input[i].dim_text[axis];
    const fg_value *v = &p->value[x->dim[axis]];
    return v->op == FG_V_CONST ? v->k : -1;
}

/* ---- run -------------------------------------------------------------------------- */

/* Everything of a run whose size never changes comes from one block, cut by the second of
 * two identical walks; the first, with base NULL, measures. */
static size_t
carve(forge_run *r, const fg_program *p, char *base)
{
    size_t at = 0;
    uint32_t nbuf = 0, narg = 0, nflow = 0;

    for (uint32_t i = 0; i < p->nstep; i++) {
        const fg_step *s = &p->step[i];
        nbuf = s->nbuf > nbuf ? s->nbuf : nbuf;
        for (uint32_t k = 0; s->kind == FG_STEP_KERNEL && k <= p->nspecial; k++)
            narg = s->form[k].narg > narg ? s->form[k].narg : narg;
        const struct {
            uint32_t n;
            const fg_flow *f;
        } list[] = {{s->nflow_in, s->flow_in},
                    {s->nflow_next, s->flow_next},
                    {s->nflow_out[0], s->flow_out[0]},
                    {s->nflow_out[1], s->flow_out[1]}};
        for (int k = 0; k < 4; k++) {
            uint32_t n = list[k].n;
            for (uint32_t j = 0; j < list[k].n; j++)
                n += list[k].f[j].nsym;
            nflow = n > nflow ? n : nflow;
        }
    }
#define TAKE(field, n)                                                                   \
    do {                                                                                 \
        r->field = base ? (void *)(base + at) : NULL;                                    \
        at += ((size_t)(n) * sizeof *r->field + 15) & ~(size_t)15;                       \
    } while (0)
    TAKE(sym, p->nsymbol);
    TAKE(value, p->nvalue);
    TAKE(run_value, p->nvalue);
    TAKE(addr, p->ntensor);
    TAKE(root, p->ntensor);
    TAKE(grows, p->ntensor);
    TAKE(own, p->ntensor);
    TAKE(dims, p->noutput);
    TAKE(in, p->ninput);
    TAKE(out, p->noutput);
    TAKE(item, p->ntensor);
    TAKE(item_tensor, p->ntensor);
    TAKE(plan_scratch, FG_PLAN_SCRATCH(p->ntensor));
    TAKE(buf, nbuf);
    TAKE(arg, narg);
    TAKE(flow, nflow);
#undef TAKE
    return at;
}

forge_status
forge_run_new(forge_ctx *cx, const forge_model *m, forge_run **out)
{
    const fg_program *p = m->program;
    forge_run size;
    size_t head = (sizeof(forge_run) + 15) & ~(size_t)15;
    size_t bytes = head + carve(&size, p, NULL);
    forge_run *r = cx->alloc(cx->user, bytes);

    if (!r)
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    memset(r, 0, bytes);
    carve(r, p, (char *)r + head);
    r->cx = cx;
    r->p = p;
    r->model = (forge_model *)(uintptr_t)m;
    r->budget = (size_t)512 << 20;
    r->stale = 1;
    for (uint32_t i = 0; i < p->nsymbol; i++)
        r->sym[i] = FG_UNKNOWN;
    for (uint32_t i = 0; i < p->nvalue; i++)
        if (p->value[i].run)
            r->run_value[r->nrun_value++] = i;
    for (uint32_t t = 0; t < p->ntensor; t++) {
        r->root[t] = t;
        while (p->tensor[r->root[t]].storage == FG_ST_ALIAS)
            r->root[t] = p->tensor[r->root[t]].port;
        r->grows[t] =
            p->tensor[t].storage == FG_ST_DYNAMIC ||
            (p->tensor[t].storage == FG_ST_OUTPUT && p->value[p->tensor[t].bytes].run);
        if (p->tensor[t].storage == FG_ST_ARENA)
            r->item_tensor[r->nitem++] = t;
    }
    *out = r;
    return FORGE_OK;
}

void
forge_run_free(forge_run *r)
{
    if (!r)
        return;
    fg_async_free(r);
    forge_run_attach(r, NULL);
    fg_pool_free(r->pool);
    for (uint32_t t = 0; t < r->p->ntensor; t++)
        fg_memory_free(r->cx, &r->own[t]);
    fg_memory_free(r->cx, &r->arena);
    fg_memory_free(r->cx, &r->scratch);
    if (r->record)
        r->cx->release(r->cx->user, r->record);
    r->cx->release(r->cx->user, r);
}

static int
cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);

    return n < 1 ? 1 : n;
}

forge_status
forge_run_memory(forge_run *r, size_t bytes)
{
    if (bytes < r->grown)
        return fg_fail(r->cx, FORGE_USAGE, "%zu bytes of budget: %zu are in use", bytes,
                       r->grown);
    r->budget = bytes;
    return FORGE_OK;
}

static void
take_pool(forge_run *r, fg_pool *p)
{
    fg_pool_free(r->pool);
    r->pool = p;
    fg_pool_shares(p, r->p->shares);
    r->threads = fg_pool_threads(p);
    r->stale = 1; /* scratch is one block per thread */
}

forge_status
forge_run_threads(forge_run *r, int n)
{
    if (n < 0 || n > 4096)
        return fg_fail(r->cx, FORGE_USAGE,
                       "%d threads: expected 0 (one per core) to 4096", n);
    if (n == 0)
        n = cores();
    if (n == fg_pool_threads(r->pool) && r->threads && !fg_pool_borrowed(r->pool))
        return FORGE_OK;
    take_pool(r, fg_pool_new(n, r->cx->alloc, r->cx->release, r->cx->user));
    return FORGE_OK;
}

forge_status
forge_run_parallel(forge_run *r, int n, forge_parallel *parallel, void *host)
{
    if (n < 1 || n > 4096 || !parallel)
        return fg_fail(r->cx, FORGE_USAGE, "%d threads of the host: expected 1 to 4096",
                       n);
    fg_pool *p =
        fg_pool_borrow(n, parallel, host, r->cx->alloc, r->cx->release, r->cx->user);
    if (!p)
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY, "out of memory");
    take_pool(r, p);
    return FORGE_OK;
}

static int
find_port(const fg_portdef *d, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(d[i].name, name))
            return (int)i;
    return -1;
}

forge_status
forge_bind_input(forge_run *r, const char *name, forge_dtype t, int rank,
                 const int64_t *dims, const void *data)
{
    const fg_program *p = r->p;
    int i = find_port(p->input, p->ninput, name);

    if (i < 0)
        return fg_fail(r->cx, FORGE_USAGE, "the model has no input \"%.200s\"", name);
    const fg_tensordef *x = &p->tensor[p->input[i].tensor];
    if (t != (forge_dtype)x->dtype)
        return fg_fail(r->cx, FORGE_USAGE, "input \"%s\": the type is %s, expected %s",
                       p->input[i].name, fg_dtype_text((int)t), fg_dtype_text(x->dtype));
    if (rank != x->rank)
        return fg_fail(r->cx, FORGE_USAGE, "input \"%s\": %d dimensions, expected %d",
                       p->input[i].name, rank, x->rank);
    fg_binding *b = &r->in[i];
    int64_t count = 1;
    for (int k = 0; k < rank; k++)
        if (dims[k] < 0 || __builtin_mul_overflow(count, dims[k], &count))
            return fg_fail(r->cx, FORGE_USAGE,
                           "input \"%s\": dimension %d is %lld, which cannot be",
                           p->input[i].name, k, (long long)dims[k]);
    if (!data && count)
        return fg_fail(r->cx, FORGE_USAGE, "input \"%s\": no data", p->input[i].name);
    if (!b->bound || memcmp(b->dim, dims, (size_t)rank * sizeof *dims))
        r->stale = 1;
    if (rank)
        memcpy(b->dim, dims, (size_t)rank * sizeof *dims);
    b->data = data;
    b->bound = 1;
    return FORGE_OK;
}

forge_status
forge_bind_output(forge_run *r, const char *name, void *data, size_t capacity)
{
    int i = find_port(r->p->output, r->p->noutput, name);

    if (i < 0)
        return fg_fail(r->cx, FORGE_USAGE, "the model has no output \"%.200s\"", name);
    r->out[i].data = data;
    r->out[i].capacity = capacity;
    r->out[i].bound = data != NULL;
    return FORGE_OK;
}

const void *
forge_output(const forge_run *r, const char *name, forge_dtype *t, int *rank,
             const int64_t **dims)
{
    int i = find_port(r->p->output, r->p->noutput, name);

    if (i < 0 || !r->ran || (r->state && r->p->output[i].state != FG_NONE))
        return NULL;
    const fg_tensordef *x = &r->p->tensor[r->p->output[i].tensor];
    if (t)
        *t = (forge_dtype)x->dtype;
    if (rank)
        *rank = x->rank;
    if (dims)
        *dims = r->dims[i];
    return r->addr[r->root[r->p->output[i].tensor]];
}
