/* bind.c - from the shapes of the inputs to numbers: symbols, values, sizes, addresses.
 *
 *     input_ids [2,7], past [2,4,9,64]     B = 2, S = 7, P = 9; then every dim of every
 *     declared  [B,S],      [B,4,P,64]     input is compared with its value
 *
 * The solve rows come in an order in which each needs only symbols found before. Nothing
 * is trusted after that: a symbol found from one input is checked against all of them.
 */
#include "runtime/state.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int bits;
} dtypes[] = {{"none", 0},  {"f32", 32}, {"f64", 64}, {"f16", 16},
              {"bf16", 16}, {"i64", 64}, {"i32", 32}, {"i16", 16},
              {"i8", 8},    {"i4", 4},   {"u64", 64}, {"u32", 32},
              {"u16", 16},  {"u8", 8},   {"u4", 4},   {"bool", 8}};

const char *
fg_dtype_text(int dtype)
{
    return (unsigned)dtype < sizeof dtypes / sizeof *dtypes ? dtypes[dtype].name
                                                            : "unknown";
}

int64_t
fg_packed_bytes(int dtype, int64_t count)
{
    int64_t bits;

    if (count < 0 || __builtin_mul_overflow(count, (int64_t)dtypes[dtype].bits, &bits) ||
        bits > INT64_MAX - 7)
        return FG_UNKNOWN;
    return (bits + 7) / 8;
}

/* The text of a dim when it says more than the number: ` ("batch")`. */
static const char *
dim_label(const fg_portdef *d, int axis, char *buf, size_t n)
{
    const char *s = d->dim_text[axis];

    buf[0] = '\0';
    if (s && (*s < '0' || *s > '9') && *s != '-')
        snprintf(buf, n, " (\"%.80s\")", s);
    return buf;
}

static forge_status
bad_dim(forge_run *r, uint32_t input, int axis, int64_t got, const char *fmt, int64_t a,
        int64_t b)
{
    const fg_portdef *d = &r->p->input[input];
    char label[100], want[120];

    snprintf(want, sizeof want, fmt, (long long)a, (long long)b);
    return fg_fail(r->cx, FORGE_USAGE,
                   "input \"%s\": dimension %d%s is %lld, expected %s", d->name, axis,
                   dim_label(d, axis, label, sizeof label), (long long)got, want);
}

static int64_t
input_dim(const forge_run *r, uint32_t i, int axis)
{
    if (fg_state_of(r, i))
        return fg_state_dim(r, i, axis);
    return r->in[i].bound ? r->in[i].dim[axis] : r->p->input[i].dflt_dim[axis];
}

/* Storage that grows in place is as large as the attached state says; without one it is
 * the present that the host gets. */
static forge_status
set_capacities(forge_run *r)
{
    const fg_program *p = r->p;

    for (uint32_t k = 0; k < p->nstate; k++) {
        const fg_statedef *s = &p->state[k];
        int64_t next = fg_state_next(r, s);
        forge_status e = FORGE_OK;
        if (next == FG_UNKNOWN ||
            (s->axis >= 0 && !fg_is_window(s) && next < input_dim(r, s->input, s->axis)))
            return fg_fail(r->cx, FORGE_USAGE, "output \"%s\": the size is out of range",
                           p->output[s->output].name);
        if (r->state && (e = fg_state_room(r, s, next)))
            return e;
    }
    for (uint32_t k = 0; k < p->nstate; k++)
        fg_state_symbols(r, k);
    fg_values(p, r->sym, r->value, 0, p->nvalue);
    return FORGE_OK;
}

static forge_status
solve(forge_run *r)
{
    const fg_program *p = r->p;

    for (uint32_t i = 0; i < p->nsymbol; i++)
        r->sym[i] = FG_UNKNOWN;
    for (uint32_t i = 0; i < p->nsolve; i++) {
        const fg_solve *s = &p->solve[i];
        int64_t got = input_dim(r, s->input, (int)s->axis), rest, n;
        fg_values(p, r->sym, r->value, 0, s->rest + 1);
        rest = r->value[s->rest];
        if (rest == FG_UNKNOWN || __builtin_sub_overflow(got, rest, &n))
            return fg_fail(r->cx, FORGE_USAGE,
                           "input \"%s\": dimension %u is out of range",
                           p->input[s->input].name, s->axis);
        if (n % s->coef)
            return bad_dim(r, s->input, (int)s->axis, got,
                           "%lld more than a multiple of %lld", rest, s->coef);
        n /= s->coef;
        const fg_symbol *y = &p->symbol[s->sym];
        if (n < y->lo || n > y->hi) {
            int64_t lo = y->lo, hi = y->hi;
            if (__builtin_mul_overflow(lo, s->coef, &lo) ||
                __builtin_add_overflow(lo, rest, &lo))
                lo = 0;
            if (__builtin_mul_overflow(hi, s->coef, &hi) ||
                __builtin_add_overflow(hi, rest, &hi))
                hi = INT64_MAX;
            return bad_dim(r, s->input, (int)s->axis, got,
                           hi == INT64_MAX ? "at least %lld" : "%lld..%lld",
                           lo < hi ? lo : hi, lo < hi ? hi : lo);
        }
        r->sym[s->sym] = n;
    }
    fg_values(p, r->sym, r->value, 0, p->nvalue);
    return p->nstate ? set_capacities(r) : FORGE_OK;
}

static forge_status
check_inputs(forge_run *r)
{
    const fg_program *p = r->p;

    for (uint32_t i = 0; i < p->ninput; i++) {
        const fg_tensordef *x = &p->tensor[p->input[i].tensor];
        for (int k = 0; k < x->rank; k++) {
            int64_t got = input_dim(r, i, k), want = r->value[x->dim[k]];
            if (got != want && want == FG_UNKNOWN)
                return fg_fail(r->cx, FORGE_USAGE,
                               "input \"%s\": dimension %d is out of range",
                               p->input[i].name, k);
            if (got != want)
                return bad_dim(r, i, k, got, "%lld", want, 0);
        }
    }
    return FORGE_OK;
}

/* A tensor may be impossible for shapes that are fine one by one: a slice past the end,
 * a product that overflows. Sizes that depend on run-time symbols are checked when known. */
static forge_status
check_tensor(forge_run *r, uint32_t t)
{
    const fg_tensordef *x = &r->p->tensor[t];

    for (int k = 0; k < x->rank; k++) {
        int64_t d = r->value[x->dim[k]];
        if (d < 0)
            return fg_fail(r->cx, FORGE_INVALID,
                           d == FG_UNKNOWN
                               ? "tensor \"%s\": dimension %d overflows"
                               : "tensor \"%s\": dimension %d would be negative",
                           x->name, k);
    }
    if (r->value[x->bytes] < 0)
        return fg_fail(r->cx, FORGE_INVALID, "tensor \"%s\": the size overflows",
                       x->name);
    return FORGE_OK;
}

static int
known_before(const fg_program *p, uint32_t t)
{
    return !p->value[p->tensor[t].bytes].run;
}

forge_status
fg_tensor_room(forge_run *r, uint32_t t, int64_t bytes, size_t keep)
{
    const fg_tensordef *x = &r->p->tensor[t];
    const fg_statedef *s = x->storage == FG_ST_STATE ? &r->p->state[x->port] : NULL;
    uint32_t port = x->storage == FG_ST_OUTPUT ? x->port
                    : s && !fg_is_cut(r->p, s) ? s->output
                                               : FG_NONE;

    if (port != FG_NONE && r->out[port].bound) {
        if ((uint64_t)bytes > r->out[port].capacity)
            return fg_fail(r->cx, FORGE_USAGE,
                           "output \"%s\": %lld bytes do not fit into the %zu bound",
                           r->p->output[port].name, (long long)bytes,
                           r->out[port].capacity);
        r->addr[t] = (void *)(uintptr_t)r->out[port].data;
        return FORGE_OK;
    }
    size_t had = r->own[t].cap;
    if (r->grows[t] && bytes > 0 && (uint64_t)bytes > had &&
        (uint64_t)bytes - had > r->budget - r->grown)
        return fg_fail(
            r->cx, FORGE_INVALID,
            "tensor \"%s\": %lld bytes, found while running, exceed the memory "
            "budget of %zu",
            x->name, (long long)bytes, r->budget);
    if (!fg_memory_reserve(r->cx, &r->own[t], bytes, keep))
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY,
                       "out of memory: tensor \"%s\" needs %lld bytes", x->name,
                       (long long)bytes);
    if (r->own[t].cap != had)
        fg_large_pages(r->own[t].p, bytes);
    r->grown += r->grows[t] ? r->own[t].cap - had : 0;
    r->addr[t] = r->own[t].p;
    return FORGE_OK;
}

forge_status
fg_tensor_grow(forge_run *r, uint32_t t)
{
    forge_status s = check_tensor(r, t);

    return s ? s : fg_tensor_room(r, t, r->value[r->p->tensor[t].bytes], 0);
}

/* Offsets of intermediate tensors and scratch per worker, for the sizes as they are. */
static forge_status
plan_memory(forge_run *r, int64_t *scratch)
{
    const fg_program *p = r->p;

    for (uint32_t i = 0; i < r->nitem; i++) {
        const fg_tensordef *x = &p->tensor[r->item_tensor[i]];
        r->item[i] = (fg_planitem){r->value[x->bytes], x->first, x->last, 0};
    }
    if (!fg_plan(r->item, (int)r->nitem, r->plan_scratch, &r->plan))
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY,
                       "out of memory: intermediate tensors of that size");
    *scratch = 0;
    for (uint32_t i = 0; i < p->nstep; i++) {
        const fg_step *s = &p->step[i];
        int64_t n = s->kind == FG_STEP_KERNEL ? fg_val(r, fg_form_of(r, s)->scratch) : 0;
        *scratch = n > *scratch ? n : *scratch;
    }
    if (*scratch > INT64_MAX - FG_ALIGN)
        *scratch = INT64_MAX - FG_ALIGN;
    *scratch = (*scratch + FG_ALIGN - 1) & -(int64_t)FG_ALIGN;
    return FORGE_OK;
}

static forge_status
reserve(forge_run *r, int64_t scratch)
{
    int64_t bytes;
    const void *before = r->arena.raw;

    if (!fg_memory_reserve(r->cx, &r->arena, r->plan.planned, 0))
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY,
                       "out of memory: %lld bytes for intermediate tensors",
                       (long long)r->plan.planned);
    if (r->arena.raw != before)
        fg_large_pages(r->arena.p, r->plan.planned);
    if (__builtin_mul_overflow(scratch, (int64_t)r->threads, &bytes) ||
        !fg_memory_reserve(r->cx, &r->scratch, bytes, 0))
        return fg_fail(r->cx, FORGE_OUT_OF_MEMORY, "out of memory: %lld bytes per thread",
                       (long long)scratch);
    return FORGE_OK;
}

/* Memory that grows with the length of an attached state grows at once to what its
 * capacity will need, so that the steps to come allocate nothing. There being less
 * is no failure: then it grows as it must. */
static forge_status
reserve_ahead(forge_run *r, int64_t *scratch)
{
    forge_status s;

    if (r->ahead == r->state->capacity && r->plan.planned <= (int64_t)r->arena.cap &&
        *scratch <= (int64_t)r->scratch.cap / r->threads)
        return FORGE_OK;
    r->ahead = r->state->capacity;
    fg_state_stretch(r);
    if (!plan_memory(r, scratch))
        reserve(r, *scratch);
    if ((s = solve(r)))
        return s;
    return plan_memory(r, scratch);
}

static forge_status
place(forge_run *r)
{
    const fg_program *p = r->p;
    int64_t scratch;
    forge_status s = plan_memory(r, &scratch);

    if (s || (r->state && (s = reserve_ahead(r, &scratch))) || (s = reserve(r, scratch)))
        return s;
    r->scratch_each = (size_t)scratch;
    for (uint32_t i = 0; i < r->nitem; i++)
        r->addr[r->item_tensor[i]] = (char *)r->arena.p + r->item[i].offset;
    for (uint32_t t = 0; t < p->ntensor; t++)
        if (p->tensor[t].storage == FG_ST_CONST)
            r->addr[t] = (void *)(uintptr_t)p->tensor[t].data;
    return FORGE_OK;
}

static void
choose_special(forge_run *r)
{
    const fg_program *p = r->p;

    r->special = 0;
    for (uint32_t i = 0; i < p->nspecial && !r->special; i++) {
        const fg_special *s = &p->special[i];
        uint32_t k = 0;
        while (k < s->n && r->sym[s->fixed[k].sym] == s->fixed[k].size)
            k++;
        if (k == s->n)
            r->special = i + 1;
    }
}

forge_status
fg_prepare(forge_run *r)
{
    const fg_program *p = r->p;
    forge_status s;

    for (uint32_t i = 0; i < p->ninput; i++)
        if (!r->in[i].bound && !p->input[i].dflt && !fg_state_of(r, i))
            return fg_fail(r->cx, FORGE_USAGE, "input \"%s\" is not bound",
                           p->input[i].name);
    if ((s = solve(r)) || (s = check_inputs(r)))
        return s;
    choose_special(r);
    for (uint32_t t = 0; t < p->ntensor; t++)
        if (known_before(p, t) && (s = check_tensor(r, t)))
            return s;
    if ((s = place(r)) || (s = fg_once_place(r)))
        return s;
    r->parallel = 0;
    for (uint32_t i = 0; i < p->nstep; i++)
        r->parallel |=
            p->step[i].kind == FG_STEP_KERNEL && !fg_step_small(r, &p->step[i]);
    r->stale = 0;
    return FORGE_OK;
}
