/* run.c - execution: a walk over prepared steps.
 *
 * While shapes stay as they were bound, a step costs the loads that fill its buffer
 * and argument lists, and the kernel: no allocation, no lock, no text. Only tensors
 * whose size is read from data while running may grow.
 */
#include "runtime/rt.h"

#include <string.h>

#define LOOP_LIMIT ((int64_t)1 << 22) /* iterations: a model that needs more never ends */

/* What a kernel must take on one thread to be shared out; sharing costs a fraction of a
 * microsecond. The rates are those of one slow core, so the guess errs towards sharing. */
#define SMALL_NS 3000
#define FLOPS_PER_NS 16
#define BYTES_PER_NS 16

static forge_status run_block(forge_run *r, uint32_t block);

int
fg_step_small(const forge_run *r, const fg_step *s)
{
    if (fg_val(r, fg_form_of(r, s)->chunks) == 1)
        return 1;
    if (s->flops == FG_NONE && s->bytes == FG_NONE)
        return 0;
    int64_t flops = fg_val(r, s->flops), bytes = fg_val(r, s->bytes);
    if (flops < 0 || bytes < 0)
        return 0;
    return flops / FLOPS_PER_NS + bytes / BYTES_PER_NS < SMALL_NS;
}

static void *
address(const forge_run *r, uint32_t t)
{
    return r->addr[r->root[t]];
}

/* ---- kernels ---------------------------------------------------------------------- */

static forge_status
overflowed(forge_run *r, const fg_step *s)
{
    return fg_fail(r->cx, FORGE_INVALID, "%s: a size overflows",
                   *s->nodes ? s->nodes : s->name);
}

static forge_status
fill_buffers(forge_run *r, const fg_step *s)
{
    for (uint32_t k = 0; k < s->nbuf; k++) {
        if (s->buf[k] == FG_NONE) {
            r->buf[k] = NULL;
            continue;
        }
        uint32_t t = r->root[s->buf[k]];
        if (r->grows[t]) {
            forge_status e = fg_tensor_grow(r, t);
            if (e)
                return e;
        }
        r->buf[k] = r->addr[t];
    }
    return FORGE_OK;
}

/* Scratch of a kernel whose needs depend on run-time symbols. */
static forge_status
more_scratch(forge_run *r, const fg_step *s)
{
    int64_t each = fg_val(r, fg_form_of(r, s)->scratch), bytes;

    if (each <= (int64_t)r->scratch_each && each >= 0)
        return FORGE_OK;
    if (each < 0 || each > INT64_MAX - FG_ALIGN)
        return overflowed(r, s);
    each = (each + FG_ALIGN - 1) & -(int64_t)FG_ALIGN;
    if (__builtin_mul_overflow(each, (int64_t)r->threads, &bytes) ||
        !fg_memory_reserve(r->cx, &r->scratch, bytes, 0))
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY, "out of memory: %lld bytes per thread",
                       (long long)each);
    r->scratch_each = (size_t)each;
    return FORGE_OK;
}

forge_status
fg_kernel_run(forge_run *r, const fg_step *s, int64_t begin, int64_t end)
{
    const fg_form *f = fg_form_of(r, s);
    forge_status e = fill_buffers(r, s);

    if (e || (e = more_scratch(r, s)))
        return e;
    for (uint32_t k = 0; k < f->narg; k++) {
        r->arg[k] = r->value[f->arg[k]];
        if (r->arg[k] == FG_UNKNOWN)
            return overflowed(r, s);
    }
    if (!r->pool || fg_step_small(r, s))
        f->fn(r->buf, r->arg, begin, end, r->scratch.p);
    else
        fg_pool_kernel(r->pool, f->fn, r->buf, r->arg, begin, end, r->scratch.p,
                       r->scratch_each);
    return FORGE_OK;
}

static forge_status
run_kernel(forge_run *r, const fg_step *s)
{
    int64_t chunks = r->value[fg_form_of(r, s)->chunks];

    if (chunks == FG_UNKNOWN)
        return overflowed(r, s);
    /* Without work, too, results of sizes found while running get them, and are refused. */
    return chunks > 0 ? fg_kernel_run(r, s, 0, chunks) : fill_buffers(r, s);
}

static forge_status
run_copy(forge_run *r, const fg_step *s)
{
    forge_status e = fill_buffers(r, s);
    int64_t bytes = r->value[r->p->tensor[s->buf[0]].bytes];

    if (!e && bytes != r->value[r->p->tensor[s->buf[1]].bytes])
        return fg_fail(r->cx, FORGE_INTERNAL, "a copy between different sizes");
    if (!e && bytes > 0)
        memcpy(r->buf[1], r->buf[0], (size_t)bytes);
    return e;
}

/* ---- run-time symbols -------------------------------------------------------------- */

static int64_t
element(int dtype, const void *data, int64_t at)
{
    switch ((forge_dtype)dtype) {
    case FORGE_I64:
    case FORGE_U64:
        return ((const int64_t *)data)[at];
    case FORGE_I32:
        return ((const int32_t *)data)[at];
    case FORGE_U32:
        return ((const uint32_t *)data)[at];
    case FORGE_I16:
        return ((const int16_t *)data)[at];
    case FORGE_U16:
        return ((const uint16_t *)data)[at];
    case FORGE_I8:
        return ((const int8_t *)data)[at];
    default:
        return ((const uint8_t *)data)[at];
    }
}

static forge_status
run_readsym(forge_run *r, const fg_step *s)
{
    const fg_tensordef *x = &r->p->tensor[s->buf[0]];
    const fg_symbol *y = &r->p->symbol[s->sym];
    const char *who = *s->nodes ? s->nodes : s->name;

    if (s->at < 0 || s->at >= r->value[x->bytes] ||
        fg_packed_bytes(x->dtype, s->at + 1) > r->value[x->bytes])
        return fg_fail(r->cx, FORGE_INVALID, "%s: tensor \"%s\" has no element %lld", who,
                       x->name, (long long)s->at);
    int64_t v = element(x->dtype, address(r, s->buf[0]), s->at);
    if (v < y->lo || v > y->hi)
        return fg_fail(r->cx, FORGE_INVALID,
                       "%s: the size or index %lld computed by the model is not in "
                       "%lld..%lld",
                       who, (long long)v, (long long)y->lo, (long long)y->hi);
    if (r->sym[s->sym] != v) {
        r->sym[s->sym] = v;
        fg_values_run(r);
    }
    return FORGE_OK;
}

static forge_status
run_require(forge_run *r, const fg_step *s)
{
    long long a = r->value[s->equal[0]], b = r->value[s->equal[1]];

    if (a == b)
        return FORGE_OK;
    return fg_fail(r->cx, FORGE_INVALID, "%s: sizes %lld and %lld must be equal",
                   *s->nodes ? s->nodes : s->name, a, b);
}

/* ---- control flow -------------------------------------------------------------------- */

/* Appends src to what `done` earlier iterations left in dst. */
static forge_status
stack(forge_run *r, const fg_flow *f, int64_t bytes, int64_t done)
{
    const fg_tensordef *x = &r->p->tensor[f->dst];
    int64_t before, after;

    if (__builtin_mul_overflow(bytes, done, &before) ||
        __builtin_add_overflow(before, bytes, &after))
        return fg_fail(r->cx, FORGE_INVALID, "tensor \"%s\": the size overflows",
                       x->name);
    if (r->grows[f->dst]) {
        int64_t want = after;
        if ((uint64_t)after > r->own[f->dst].cap && after <= INT64_MAX / 2 &&
            !(x->storage == FG_ST_OUTPUT && r->out[x->port].bound))
            want = after * 2; /* so that n appends copy each byte twice, not n times */
        forge_status e = fg_tensor_room(r, f->dst, want, (size_t)before);
        if (e)
            return e;
    } else if (after > r->value[x->bytes]) {
        return fg_fail(r->cx, FORGE_INVALID,
                       "tensor \"%s\": the loop stacks more than its shape holds",
                       x->name);
    }
    if (bytes)
        memcpy((char *)r->addr[f->dst] + before, address(r, f->src), (size_t)bytes);
    return FORGE_OK;
}

/* Values go from src to dst as if all at once: sizes and new symbols are taken before any
 * symbol changes, then symbols are set, then bytes move. */
static forge_status
run_flows(forge_run *r, uint32_t n, const fg_flow *flow, int64_t done)
{
    int64_t *bytes = r->flow, *symbol = r->flow + n;
    int changed = 0;

    for (uint32_t k = 0; k < n; k++) {
        bytes[k] = flow[k].src == FG_NONE ? 0 : r->value[r->p->tensor[flow[k].src].bytes];
        if (bytes[k] < 0)
            return fg_fail(r->cx, FORGE_INVALID, "tensor \"%s\": the size is not known",
                           r->p->tensor[flow[k].src].name);
        for (uint32_t j = 0; j < flow[k].nsym; j++)
            *symbol++ = r->value[flow[k].dim[j]];
    }
    symbol = r->flow + n;
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t j = 0; j < flow[k].nsym; j++, symbol++)
            if (r->sym[flow[k].sym[j]] != *symbol) {
                r->sym[flow[k].sym[j]] = *symbol;
                changed = 1;
            }
    if (changed)
        fg_values_run(r);
    for (uint32_t k = 0; k < n; k++) {
        const fg_flow *f = &flow[k];
        forge_status e;
        if (f->src == FG_NONE)
            continue;
        if (f->stack) {
            if ((e = stack(r, f, bytes[k], done)))
                return e;
            continue;
        }
        if (r->grows[f->dst] && (e = fg_tensor_room(r, f->dst, bytes[k], 0)))
            return e;
        if (!r->grows[f->dst] && bytes[k] != r->value[r->p->tensor[f->dst].bytes])
            return fg_fail(r->cx, FORGE_INVALID,
                           "tensor \"%s\": %lld bytes arrive, its shape holds %lld",
                           r->p->tensor[f->dst].name, (long long)bytes[k],
                           (long long)r->value[r->p->tensor[f->dst].bytes]);
        if (bytes[k])
            memcpy(r->addr[f->dst], address(r, f->src), (size_t)bytes[k]);
    }
    return FORGE_OK;
}

static forge_status
run_if(forge_run *r, const fg_step *s)
{
    int branch = *(const uint8_t *)address(r, s->buf[0]) ? 0 : 1;
    forge_status e = run_block(r, s->block[branch]);

    return e ? e : run_flows(r, s->nflow_out[branch], s->flow_out[branch], 0);
}

/* After n iterations. When there was none the stacked results are empty, and so are
 * dims that only an iteration would tell. */
static forge_status
finish_stacks(forge_run *r, const fg_step *s, int64_t n)
{
    for (uint32_t k = 0; k < s->nflow_next; k++) {
        const fg_flow *f = &s->flow_next[k];
        const fg_tensordef *x = &r->p->tensor[f->dst];
        if (!f->stack)
            continue;
        if (!r->grows[f->dst] && r->value[x->dim[0]] != n)
            return fg_fail(r->cx, FORGE_INVALID,
                           "tensor \"%s\": the loop stacked %lld, its shape says %lld",
                           x->name, (long long)n, (long long)r->value[x->dim[0]]);
        if (n)
            continue;
        for (uint32_t j = 0; j < f->nsym; j++)
            r->sym[f->sym[j]] = 0;
        if (r->grows[f->dst]) {
            forge_status e = fg_tensor_room(r, f->dst, 0, 0);
            if (e)
                return e;
        }
    }
    return FORGE_OK;
}

static forge_status
run_loop(forge_run *r, const fg_step *s)
{
    int64_t trip = INT64_MAX, i = 0;
    int go = 1;
    forge_status e = run_flows(r, s->nflow_in, s->flow_in, 0);

    if (e)
        return e;
    if (s->buf[0] != FG_NONE)
        trip = *(const int64_t *)address(r, s->buf[0]);
    if (s->buf[1] != FG_NONE)
        go = *(const uint8_t *)address(r, s->buf[1]) != 0;
    for (; go && i < trip; i++) {
        if (i >= LOOP_LIMIT)
            return fg_fail(r->cx, FORGE_INVALID, "%s: more than %lld iterations",
                           *s->nodes ? s->nodes : s->name, (long long)LOOP_LIMIT);
        if (s->iter != FG_NONE)
            *(int64_t *)address(r, s->iter) = i;
        if (s->cond_in != FG_NONE)
            *(uint8_t *)address(r, s->cond_in) = 1;
        if ((e = run_block(r, s->block[0])))
            return e;
        if (s->cond_out != FG_NONE)
            go = *(const uint8_t *)address(r, s->cond_out) != 0;
        if ((e = run_flows(r, s->nflow_next, s->flow_next, i)))
            return e;
    }
    if ((e = finish_stacks(r, s, i)))
        return e;
    if (s->sym != FG_NONE) {
        r->sym[s->sym] = i;
        fg_values_run(r);
    }
    return run_flows(r, s->nflow_out[0], s->flow_out[0], 0);
}

/* ---- the walk ------------------------------------------------------------------------ */

static forge_status
run_step(forge_run *r, const fg_step *s)
{
    switch ((fg_stepkind)s->kind) {
    case FG_STEP_KERNEL:
        return run_kernel(r, s);
    case FG_STEP_COPY:
        return run_copy(r, s);
    case FG_STEP_READSYM:
        return run_readsym(r, s);
    case FG_STEP_REQUIRE:
        return run_require(r, s);
    case FG_STEP_IF:
        return run_if(r, s);
    case FG_STEP_LOOP:
        return run_loop(r, s);
    }
    return fg_fail(r->cx, FORGE_INTERNAL, "a step of unknown kind");
}

static forge_status
run_block(forge_run *r, uint32_t block)
{
    const fg_blockdef *b = &r->p->block[block];

    for (uint32_t i = b->first; i < b->first + b->count; i++) {
        int64_t start = r->hook ? fg_now_ns() : 0;
        forge_status e = run_step(r, &r->p->step[i]);
        if (e)
            return e;
        if (r->hook)
            r->hook(r->hook_user, i, fg_now_ns() - start);
    }
    return FORGE_OK;
}

/* Addresses the host decides; they may change without any shape changing. */
static forge_status
set_ports(forge_run *r)
{
    const fg_program *p = r->p;

    for (uint32_t i = 0; i < p->ninput; i++)
        r->addr[p->input[i].tensor] =
            (void *)(uintptr_t)(r->in[i].bound ? r->in[i].data : p->input[i].dflt);
    for (uint32_t t = 0; t < p->ntensor; t++) {
        const fg_tensordef *x = &p->tensor[t];
        forge_status e;
        if (x->storage == FG_ST_OUTPUT && !r->grows[t] &&
            !(r->state && p->output[x->port].state != FG_NONE) &&
            (e = fg_tensor_room(r, t, r->value[x->bytes], 0)))
            return e;
    }
    return fg_state_place(r);
}

forge_status
forge_execute(forge_run *r)
{
    const fg_program *p = r->p;
    forge_status e = FORGE_OK;

    if (r->record)
        return fg_record_run(r);
    r->ran = 0;
    if (!r->threads)
        e = forge_run_threads(r, 0);
    if (e || ((r->stale || r->state) && (e = fg_prepare(r))) || (e = set_ports(r)))
        return e;
    if (r->parallel)
        fg_pool_wake(r->pool);
    if (!(e = fg_once_run(r)))
        e = run_block(r, 0);
    if (e)
        return e;
    for (uint32_t i = 0; i < p->noutput; i++) {
        const fg_tensordef *x = &p->tensor[p->output[i].tensor];
        for (int k = 0; k < x->rank; k++)
            r->dims[i][k] = r->value[x->dim[k]];
    }
    fg_state_advance(r);
    r->ran = 1;
    return FORGE_OK;
}
