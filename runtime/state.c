/* state.c - caches that stay between runs: what the host keeps for one sequence, or for a
 * batch of them, and how a run finds it.
 *
 *     [B,H,C,D], 3 of C valid     x x x . . . . .     one row per batch and head
 *     the run appends 1           x x x y . . . .     length 4; nothing else moved
 *
 * A tensor that grows in place has room for the capacity along its axis; the runs write
 * behind what is valid. (store.c has the memory, and what forks share of it.) Where only the
 * last rows are ever read, a window, those before them may be gone; a past that is never longer
 * than its window may have that length from the beginning, as zeros at positions before 0. What
 * does not grow, or is made anew by the model (the last inputs of a convolution), has two places: the run reads
 * one and writes the other, then they change. Lengths advance only when a run succeeded, so
 * a failed one leaves no trace.
 *
 * Without an attached state the host binds pasts and reads presents. A tensor that
 * grows in place then is the present, and the past is copied into it first.
 */
#include "runtime/state.h"

#include <string.h>

/* ---- making and freeing ---------------------------------------------------------------- */

/* Of what has no positions only the beginning can come back: zeros. */
static int
starts_anew(const fg_program *p, const fg_statedef *d)
{
    return d->axis < 0 || fg_keeps_size(p, d);
}

static int
zeros_at_first(const fg_program *p, const fg_statedef *d)
{
    return starts_anew(p, d) || fg_starts_full(p, d);
}

/* No position but zeros before the first, if it has those. */
static void
begin_rows(forge_state *s, uint32_t k)
{
    const fg_statedef *d = &s->p->state[k];
    int64_t n = fg_starts_full(s->p, d) ? d->keep : 0;

    s->buf[k].gone = -n;
    fg_set_rows(s, k, n);
}

/* The past before the first token: nothing along the axis, or the whole of what keeps its
 * size; what else is not fixed is the batch. */
static int
empty_dims(forge_state *s, uint32_t state, int64_t batch, int64_t capacity)
{
    const fg_program *p = s->p;
    const fg_statedef *d = &p->state[state];
    const fg_tensordef *x = &p->tensor[p->input[d->input].tensor];
    int64_t *dim = s->buf[state].dim;

    for (int k = 0; k < x->rank; k++) {
        const fg_value *v = &p->value[x->dim[k]];
        int grows = k == d->axis && !fg_keeps_size(p, d);
        dim[k] = grows ? 0 : v->op == FG_V_CONST ? v->k : k == d->axis ? capacity : batch;
        if (!grows && v->op != FG_V_CONST && v->op != FG_V_SYM)
            return 0;
    }
    if (!starts_anew(p, d))
        begin_rows(s, state);
    else if (d->axis >= 0)
        fg_set_rows(s, state, dim[d->axis]);
    return 1;
}

/* Storage of all has the same room: as much as the largest of those that keep their size. */
static int64_t
room_for_all(const forge_state *s, int64_t capacity)
{
    for (uint32_t k = 0; k < s->p->nstate; k++) {
        const fg_statedef *d = &s->p->state[k];
        if (fg_keeps_size(s->p, d) && s->buf[k].dim[d->axis] > capacity)
            capacity = s->buf[k].dim[d->axis];
    }
    return capacity;
}

static forge_state *
new_state(forge_ctx *cx, const fg_program *p)
{
    size_t head = (sizeof(forge_state) + 15) & ~(size_t)15;
    size_t each = sizeof(fg_statebuf) + sizeof(fg_store *[2]);
    forge_state *s = cx->alloc(cx->user, head + p->nstate * each);

    if (!s)
        return NULL;
    memset(s, 0, head + p->nstate * each);
    s->cx = cx;
    s->p = p;
    s->buf = (fg_statebuf *)((char *)s + head);
    s->fresh = (fg_store * (*)[2])(s->buf + p->nstate);
    return s;
}

forge_status
forge_state_new(forge_ctx *cx, const forge_model *m, int64_t batch, int64_t capacity,
                int64_t limit, forge_state **out)
{
    const fg_program *p = m->program;
    forge_status e = FORGE_OK;

    if (!p->nstate)
        return fg_fail(cx, FORGE_USAGE,
                       "the model has no state: no output is the next value of an input");
    if (batch < 1 || capacity < 1 || limit < 0 || (limit && capacity > limit))
        return fg_fail(cx, FORGE_USAGE,
                       "a state for %lld sequences of %lld positions, at most %lld",
                       (long long)batch, (long long)capacity, (long long)limit);
    forge_state *s = new_state(cx, p);
    if (!s)
        return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory");
    s->batch = batch;
    s->limit = limit ? limit : INT64_MAX;
    for (uint32_t k = 0; k < p->nstate && !e; k++)
        if (!empty_dims(s, k, batch, capacity))
            e = fg_fail(cx, FORGE_UNSUPPORTED,
                        "input \"%s\": its shape does not follow from the batch",
                        p->input[p->state[k].input].name);
    if (e || (e = fg_state_grow(s, cx, room_for_all(s, capacity)))) {
        forge_state_free(s);
        return e;
    }
    *out = s;
    return FORGE_OK;
}

void
forge_state_free(forge_state *s)
{
    if (!s)
        return;
    if (s->run && s->run->state == s)
        forge_run_attach(s->run, NULL);
    for (uint32_t k = 0; k < s->p->nstate; k++)
        for (int j = 0; j < 2; j++)
            fg_store_drop(s->cx, &s->buf[k].mem[j]);
    if (s->counts)
        s->cx->release(s->cx->user, s->counts);
    s->cx->release(s->cx->user, s);
}

/* The axis of sequences: the one that is neither fixed nor grows, with nothing but 1 before
 * it; -1 when there is no such. */
static int
batch_axis(const fg_program *p, const fg_statedef *s, const int64_t *dim)
{
    const fg_tensordef *x = &p->tensor[p->input[s->input].tensor];
    int found = -1;

    for (int k = 0; k < x->rank; k++) {
        int symbolic = k != s->axis && p->value[x->dim[k]].op != FG_V_CONST;
        if (symbolic && found >= 0)
            return -1;
        found = symbolic ? k : found;
    }
    for (int k = 0; k < found; k++)
        if (dim[k] != 1)
            return -1;
    return found;
}

/* Sizes of t are those of s for `batch` sequences. */
static forge_status
widen(forge_state *t, const forge_state *s, int64_t batch)
{
    const fg_program *p = s->p;

    for (uint32_t k = 0; k < p->nstate; k++) {
        const fg_statedef *d = &p->state[k];
        memcpy(t->buf[k].dim, s->buf[k].dim, sizeof t->buf[k].dim);
        t->buf[k].rows = s->buf[k].rows;
        t->buf[k].gone = s->buf[k].gone;
        int axis = batch_axis(p, d, s->buf[k].dim);
        if (axis < 0 || s->buf[k].dim[axis] != 1)
            return fg_fail(
                fg_state_context(s), FORGE_UNSUPPORTED,
                "input \"%s\": its state is not that of one sequence of a batch",
                p->input[d->input].name);
        t->buf[k].dim[axis] = batch;
    }
    return FORGE_OK;
}

forge_status
forge_state_repeat(const forge_state *s, int64_t batch, forge_state **out)
{
    const fg_program *p = s->p;
    forge_state *t;
    forge_status e;

    if (batch == 1)
        return forge_state_fork(s, out);
    if (batch < 1)
        return fg_fail(fg_state_context(s), FORGE_USAGE, "a state for %lld sequences",
                       (long long)batch);
    if (!(t = new_state(s->cx, p)))
        return fg_fail(fg_state_context(s), FORGE_OUT_OF_MEMORY, "out of memory");
    t->limit = s->limit;
    t->batch = batch;
    t->length = s->length;
    if ((e = widen(t, s, batch)) ||
        (e = fg_state_grow(t, fg_state_context(s), s->capacity)) ||
        (e = fg_sequences_copy(t, s))) {
        forge_state_free(t);
        return e;
    }
    for (uint32_t k = 0; k < p->nstate; k++) {
        const fg_statedef *d = &p->state[k];
        const fg_statebuf *b = &s->buf[k];
        fg_rows r = fg_rows_of(p, d, b->dim);
        int64_t n = d->axis < 0 ? 1 : b->rows, have = fg_is_in_place(d) ? b->room : n,
                room = fg_is_in_place(d) ? t->buf[k].room : n;
        char *to = t->buf[k].mem[0]->mem.p;
        for (int64_t i = 0; i < batch; i++, to += r.outer * room * r.bytes)
            fg_copy_rows(r, to, room, b->mem[b->now]->mem.p, have, n);
    }
    *out = t;
    return FORGE_OK;
}

forge_status
forge_state_fork(const forge_state *s, forge_state **out)
{
    forge_state *t = new_state(s->cx, s->p);

    if (!t)
        return fg_fail(fg_state_context(s), FORGE_OUT_OF_MEMORY, "out of memory");
    t->limit = s->limit;
    t->batch = s->batch;
    t->length = s->length;
    fg_store_share(t, s);
    forge_status e = fg_sequences_copy(t, s);
    if (e) {
        forge_state_free(t);
        return e;
    }
    *out = t;
    return FORGE_OK;
}

forge_ctx *
fg_state_context(const forge_state *s)
{
    return s->run ? s->run->cx : s->cx;
}

/* ---- questions and lengths ------------------------------------------------------------- */

int64_t
forge_state_length(const forge_state *s)
{
    return s->length;
}

int64_t
forge_state_capacity(const forge_state *s)
{
    return s->capacity;
}

forge_status
fg_state_has_history(const forge_state *s)
{
    for (uint32_t k = 0; k < s->p->nstate; k++) {
        const fg_statedef *d = &s->p->state[k];
        const fg_statebuf *b = &s->buf[k]; /* some windows count other rows than tokens */
        if (d->axis < 0 || (fg_is_window(d) && b->gone + b->rows != s->length))
            return fg_fail(fg_state_context(s), FORGE_UNSUPPORTED,
                           "input \"%s\" has no history: its state is only cut to 0",
                           s->p->input[d->input].name);
    }
    return FORGE_OK;
}

forge_status
fg_state_holds(const forge_state *s, int64_t length)
{
    for (uint32_t k = 0; k < s->p->nstate; k++) {
        const fg_statedef *d = &s->p->state[k];
        const fg_statebuf *b = &s->buf[k];
        if (fg_is_window(d) && length - fg_window_rows(s->p, d, length) < b->gone)
            return fg_fail(fg_state_context(s), FORGE_UNSUPPORTED,
                           "input \"%s\" is a window of %lld positions: those before "
                           "%lld are gone, and with them the way back to %lld",
                           s->p->input[d->input].name, (long long)d->keep,
                           (long long)b->gone, (long long)length);
    }
    return FORGE_OK;
}

static void
cut(forge_state *s, uint32_t k, int64_t length)
{
    const fg_program *p = s->p;
    const fg_statedef *d = &p->state[k];
    fg_statebuf *b = &s->buf[k];
    char *now = b->mem[b->now]->mem.p;
    int64_t had = b->rows;

    if (!length && zeros_at_first(p, d))
        memset(now, 0, (size_t)fg_state_bytes(p, d, b->dim, b->room));
    if (starts_anew(p, d))
        return;
    if (!length)
        begin_rows(s, k);
    else if (fg_is_window(d) || length < b->rows)
        fg_set_rows(s, k, length - b->gone);
    if (!fg_is_in_place(d))
        fg_copy_rows(fg_rows_of(p, d, b->dim), now, b->rows, now, had, b->rows);
    fg_store_cut(b->mem[b->now], b->rows);
}

forge_status
forge_state_truncate(forge_state *s, int64_t length)
{
    const fg_program *p = s->p;

    if (length < 0 || length > s->length)
        return fg_fail(fg_state_context(s), FORGE_USAGE,
                       "a state of length %lld cut to %lld", (long long)s->length,
                       (long long)length);
    forge_status e;
    if (length && length < s->length &&
        ((e = fg_state_has_history(s)) || (e = fg_state_holds(s, length))))
        return e;
    for (uint32_t k = 0; k < p->nstate; k++) { /* before anything is cut */
        const fg_statedef *d = &p->state[k];
        e = FORGE_OK;
        if (zeros_at_first(p, d) ? !length : !fg_is_in_place(d) && length < s->length)
            e = fg_store_own(s, k, zeros_at_first(p, d) ? 0 : s->buf[k].rows);
        if (e)
            return e;
    }
    for (uint32_t k = 0; k < p->nstate && (length < s->length || !length); k++)
        cut(s, k, length);
    s->length = length;
    return FORGE_OK;
}

forge_status
forge_state_read(const forge_state *s, const char *name, const int64_t **dims, void *data,
                 size_t capacity)
{
    const fg_program *p = s->p;
    uint32_t k = 0;

    while (k < p->nstate && strcmp(p->input[p->state[k].input].name, name) &&
           strcmp(p->output[p->state[k].output].name, name))
        k++;
    if (k == p->nstate)
        return fg_fail(fg_state_context(s), FORGE_USAGE, "the state has no \"%.200s\"",
                       name);
    const fg_statedef *d = &p->state[k];
    const fg_statebuf *b = &s->buf[k];
    int64_t n = d->axis < 0 ? 1 : b->dim[d->axis],
            bytes = fg_state_bytes(p, d, b->dim, n);
    const char *from = b->mem[b->now]->mem.p;
    if (dims)
        *dims = b->dim;
    if (!data)
        return FORGE_OK;
    if ((uint64_t)bytes > capacity)
        return fg_fail(fg_state_context(s), FORGE_USAGE,
                       "\"%.200s\": %lld bytes do not fit into %zu", name,
                       (long long)bytes, capacity);
    const fg_rows r = fg_rows_of(p, d, b->dim);
    if (fg_is_in_place(d))
        from += (b->rows - n) * r.bytes;
    fg_copy_rows(r, data, n, from, fg_is_in_place(d) ? b->room : n, n);
    return FORGE_OK;
}

int
forge_model_states(const forge_model *m)
{
    return (int)m->program->nstate;
}

const char *
forge_model_state(const forge_model *m, int i, const char **output)
{
    const fg_program *p = m->program;

    if (i < 0 || (uint32_t)i >= p->nstate)
        return NULL;
    if (output)
        *output = p->output[p->state[i].output].name;
    return p->input[p->state[i].input].name;
}

/* ---- in a run -------------------------------------------------------------------------- */

forge_status
forge_run_attach(forge_run *r, forge_state *s)
{
    if (s && s->p != r->p)
        return fg_fail(r->cx, FORGE_USAGE, "the state is of another model");
    if (r->state && r->state->run == r)
        r->state->run = NULL;
    if (s)
        s->run = r;
    r->state = s;
    r->ahead = 0;
    r->stale = 1;
    r->ran = 0;
    return FORGE_OK;
}

const fg_statebuf *
fg_state_of(const forge_run *r, uint32_t input)
{
    uint32_t k = r->p->input[input].state;

    return r->state && k != FG_NONE ? &r->state->buf[k] : NULL;
}

int64_t
fg_state_dim(const forge_run *r, uint32_t input, int axis)
{
    const fg_statebuf *b = fg_state_of(r, input);
    const fg_statedef *d = &r->p->state[r->p->input[input].state];
    int whole = axis == d->axis && fg_is_window(d) && !fg_is_cut(r->p, d);

    return b->dim[axis] + (whole ? b->gone : 0);
}

void
fg_state_symbols(forge_run *r, uint32_t state)
{
    const fg_statedef *s = &r->p->state[state];
    const fg_statebuf *b = r->state ? &r->state->buf[state] : NULL;

    if (fg_is_window(s))
        r->sym[s->at] = b ? b->rows : r->in[s->input].dim[s->axis];
    if (fg_is_in_place(s))
        r->sym[s->capacity] = b ? b->room : fg_state_next(r, s);
}

int64_t
fg_state_next(const forge_run *r, const fg_statedef *s)
{
    const fg_tensordef *x = &r->p->tensor[r->p->output[s->output].tensor];
    const fg_statebuf *b = fg_state_of(r, s->input);

    if (fg_is_window(s)) {
        int64_t past = b ? b->gone + b->rows : r->in[s->input].dim[s->axis],
                more = r->value[s->more], next;
        return more < 0 || __builtin_add_overflow(past, more, &next) ? FG_UNKNOWN : next;
    }
    if (fg_is_in_place(s))
        return r->value[s->next];
    return s->axis < 0 ? 0 : r->value[x->dim[s->axis]];
}

forge_status
fg_state_room(forge_run *r, const fg_statedef *d, int64_t next)
{
    forge_state *s = r->state;
    int64_t capacity = s->capacity;

    if (fg_keeps_size(r->p, d))
        return FORGE_OK;
    if (fg_starts_full(r->p, d))
        return fg_state_slide(r);
    if (next > s->limit)
        return fg_fail(r->cx, FORGE_USAGE,
                       "the state holds at most %lld positions, this run needs %lld",
                       (long long)s->limit, (long long)next);
    if (next > capacity) {
        capacity = capacity > s->limit / 2 ? s->limit : capacity * 2;
        forge_status e = fg_state_grow(s, r->cx, next > capacity ? next : capacity);
        if (e)
            return e;
    }
    return fg_is_window(d) ? fg_state_slide(r) : FORGE_OK;
}

/* Of max(past, total) the total grows as well. */
static void
stretch_total(forge_run *r, const fg_statedef *s, int64_t next)
{
    const fg_program *p = r->p;
    const uint32_t side[] = {p->value[s->next].a, p->value[s->next].b};

    for (int k = 0; k < 2; k++) {
        const fg_value *v = &p->value[side[k]];
        if (v->op == FG_V_SYM && r->sym[v->a] == next &&
            r->state->capacity <= p->symbol[v->a].hi)
            r->sym[v->a] = r->state->capacity;
    }
}

void
fg_state_stretch(forge_run *r)
{
    const fg_program *p = r->p;

    for (uint32_t k = 0; k < p->nstate; k++) {
        const fg_statedef *s = &p->state[k];
        const fg_tensordef *x = &p->tensor[p->input[s->input].tensor];
        const fg_value *v = s->axis < 0 ? NULL : &p->value[x->dim[s->axis]];
        if (!v || v->op != FG_V_SYM)
            continue;
        if (fg_keeps_size(p, s))
            continue;
        int64_t next = fg_state_next(r, s),
                more = fg_is_window(s) ? r->value[s->more]
                                       : next - fg_state_dim(r, s->input, s->axis);
        int64_t full = r->state->capacity - more, hi = p->symbol[v->a].hi;
        if (fg_is_cut(p, s) && hi > s->keep)
            hi = s->keep;
        r->sym[v->a] = full < hi ? full : hi;
        if (fg_is_in_place(s) && p->value[s->next].op == FG_V_MAX)
            stretch_total(r, s, next);
    }
    fg_values(p, r->sym, r->value, 0, p->nvalue);
}

/* Of a window that the model cuts. */
static int64_t
present_rows(const forge_run *r, const fg_statedef *s)
{
    return r->value[r->p->tensor[r->p->output[s->output].tensor].dim[s->axis]];
}

/* Without a state the host gets the last rows of what the model cuts. */
static void
give_last(const forge_run *r, const fg_statedef *s)
{
    const fg_program *p = r->p;
    const int64_t *dim = r->in[s->input].dim;
    int64_t n = present_rows(r, s), all = fg_state_next(r, s);
    fg_rows rows = fg_rows_of(p, s, dim);

    fg_copy_rows(rows, r->addr[p->output[s->output].tensor], n,
                 (char *)r->addr[s->tensor] + (all - n) * rows.bytes, all, n);
}

forge_status
fg_state_place(forge_run *r)
{
    const fg_program *p = r->p;

    for (uint32_t k = 0; k < p->nstate; k++) {
        const fg_statedef *s = &p->state[k];
        uint32_t in = p->input[s->input].tensor,
                 out = r->root[p->output[s->output].tensor];
        if (r->state) {
            const fg_statebuf *b = &r->state->buf[k];
            forge_status e =
                fg_store_claim(r->state, r->cx, k, fg_state_next(r, s) - b->gone);
            if (e)
                return e;
            r->addr[in] = b->mem[b->now]->mem.p;
            r->addr[fg_is_in_place(s) ? s->tensor : out] =
                b->mem[fg_is_in_place(s) ? 0 : !b->now]->mem.p;
            continue;
        }
        if (!fg_is_in_place(s))
            continue;
        const int64_t *dim = r->in[s->input].dim;
        int64_t next = fg_state_next(r, s), bytes = fg_state_bytes(p, s, dim, next);
        forge_status e = fg_tensor_room(r, s->tensor, bytes, 0);
        if (e)
            return e;
        if (fg_is_cut(p, s) && present_rows(r, s) > next)
            return fg_fail(r->cx, FORGE_INVALID, "output \"%s\": has no such rows",
                           p->output[s->output].name);
        if (r->addr[s->tensor] != r->addr[in] || next != dim[s->axis])
            fg_copy_rows(fg_rows_of(p, s, dim), r->addr[s->tensor], next, r->addr[in],
                         dim[s->axis], dim[s->axis]);
    }
    return FORGE_OK;
}

void
fg_state_advance(forge_run *r)
{
    const fg_program *p = r->p;
    int64_t length = r->state ? r->state->length : 0;

    for (uint32_t k = 0; k < p->nstate; k++) {
        const fg_statedef *s = &p->state[k];
        fg_statebuf *b = r->state ? &r->state->buf[k] : NULL;
        if (!b && fg_is_cut(p, s))
            give_last(r, s);
        if (b && s->axis >= 0 && !fg_keeps_size(p, s)) {
            int64_t next = fg_state_next(r, s);
            fg_set_rows(r->state, k, next - b->gone);
            length = fg_starts_full(p, s) ? length : next;
        }
        if (b && !fg_is_in_place(s))
            b->now = !b->now;
    }
    if (r->state) {
        fg_sequences_append(r->state, length);
        r->state->length = length;
    }
}
