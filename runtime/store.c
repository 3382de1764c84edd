/* store.c - the memory of states, which forks share until they write.
 *
 *     s: length 3, store [x x x . . . .] used 3        fork t: the same store, 2 owners
 *     s appends y        [x x x y . . .] used 4        in place: row 3 was nobody's
 *     t appends z        used is 4, t ends at 3        t gets a copy of its 3 rows
 *
 * Rows that a state counts as its own are never written again, so all that owners of one
 * store must agree on is who appends at its end: the first one there. What is written
 * elsewhere, in caches of one size or at rows found while running, needs a store of its own
 * first. Of a pair that changes places the one that is written is either unshared or
 * replaced by an empty one. Counters are atomic: forks may be in different threads, and
 * forking only counts, so several threads may fork one state.
 */
#include "runtime/state.h"

#include <string.h>

/* ---- shapes ------------------------------------------------------------------------- */

fg_rows
fg_rows_of(const fg_program *p, const fg_statedef *s, const int64_t *dim)
{
    const fg_tensordef *x = &p->tensor[p->input[s->input].tensor];
    fg_rows r = {1, fg_packed_bytes(x->dtype, 1)};

    for (int k = 0; k < x->rank; k++) {
        if (k < s->axis)
            r.outer *= dim[k];
        else if (k > s->axis)
            r.bytes *= dim[k];
    }
    return r;
}

int64_t
fg_state_bytes(const fg_program *p, const fg_statedef *s, const int64_t *dim,
               int64_t capacity)
{
    const fg_tensordef *x = &p->tensor[p->input[s->input].tensor];
    int64_t n = 1;

    for (int k = 0; k < x->rank; k++)
        if (__builtin_mul_overflow(n, k == s->axis ? capacity : dim[k], &n))
            return FG_UNKNOWN;
    return fg_packed_bytes(x->dtype, n);
}

void
fg_copy_rows(fg_rows r, char *to, int64_t room, const char *from, int64_t have, int64_t n)
{
    size_t bytes = (size_t)(n * r.bytes);

    for (int64_t o = 0; bytes && o < r.outer; o++)
        memmove(to + o * room * r.bytes, from + o * have * r.bytes, bytes);
}

int
fg_is_in_place(const fg_statedef *s)
{
    return s->tensor != FG_NONE;
}

int
fg_is_window(const fg_statedef *s)
{
    return s->at != FG_NONE;
}

int
fg_is_cut(const fg_program *p, const fg_statedef *s)
{
    return fg_is_window(s) &&
           p->tensor[p->output[s->output].tensor].storage == FG_ST_OUTPUT;
}

int
fg_starts_full(const fg_program *p, const fg_statedef *s)
{
    return fg_is_cut(p, s) &&
           p->value[p->tensor[p->input[s->input].tensor].dim[s->axis]].op == FG_V_CONST;
}

void
fg_set_rows(forge_state *s, uint32_t k, int64_t rows)
{
    const fg_statedef *d = &s->p->state[k];
    int most = fg_is_cut(s->p, d) && rows > d->keep;

    s->buf[k].rows = rows;
    s->buf[k].dim[d->axis] = most ? d->keep : rows;
}

int
fg_keeps_size(const fg_program *p, const fg_statedef *s)
{
    return fg_is_in_place(s) && !fg_is_window(s) &&
           p->tensor[p->input[s->input].tensor].dim[s->axis] == s->next;
}

/* ---- stores -------------------------------------------------------------------------- */

static fg_store *
store_new(forge_ctx *cx, int64_t bytes)
{
    fg_store *s = bytes < 0 ? NULL : cx->alloc(cx->user, sizeof *s);

    if (!s)
        return NULL;
    *s = (fg_store){.refs = 1};
    if (fg_memory_reserve(cx, &s->mem, bytes, 0))
        return s;
    cx->release(cx->user, s);
    return NULL;
}

void
fg_store_drop(forge_ctx *cx, fg_store **s)
{
    if (*s && atomic_fetch_sub(&(*s)->refs, 1) == 1) {
        fg_memory_free(cx, &(*s)->mem);
        cx->release(cx->user, *s);
    }
    *s = NULL;
}

static int
is_shared(const fg_store *s)
{
    return atomic_load(&s->refs) > 1;
}

void
fg_store_cut(fg_store *s, int64_t n)
{
    if (!is_shared(s))
        atomic_store(&s->used, n);
}

/* Rows that are there, and rows from one block of them to the next. */
static int64_t
rows_valid(const fg_statedef *d, const fg_statebuf *b)
{
    return d->axis < 0 ? 1 : b->rows;
}

static int64_t
rows_apart(const fg_statedef *d, const fg_statebuf *b)
{
    return fg_is_in_place(d) ? b->room : rows_valid(d, b);
}

static forge_status
no_memory(forge_ctx *cx, int64_t capacity)
{
    return fg_fail(cx, FORGE_OUT_OF_MEMORY, "out of memory: a state of %lld positions",
                   (long long)capacity);
}

static void
drop_fresh(forge_state *s)
{
    for (uint32_t k = 0; k < s->p->nstate; k++)
        for (int j = 0; j < 2; j++)
            fg_store_drop(s->cx, &s->fresh[k][j]);
}

static int
make_fresh(forge_state *s, uint32_t k, int64_t room)
{
    const fg_statedef *d = &s->p->state[k];
    int64_t bytes = fg_state_bytes(s->p, d, s->buf[k].dim, room);

    for (int j = 0; j < (fg_is_in_place(d) ? 1 : 2); j++)
        if (!(s->fresh[k][j] = store_new(s->cx, bytes)))
            return 0;
    if (d->axis < 0 || fg_keeps_size(s->p, d) || fg_starts_full(s->p, d))
        memset(s->fresh[k][0]->mem.p, 0, (size_t)bytes);
    return 1;
}

/* The last n rows go to fresh memory, if there is any, and to its beginning. */
static void
move_in(forge_state *s, uint32_t k, int64_t room, int64_t n)
{
    const fg_statedef *d = &s->p->state[k];
    fg_statebuf *b = &s->buf[k];
    fg_rows r = fg_rows_of(s->p, d, b->dim);
    int64_t had = rows_valid(d, b);
    fg_store *from = b->mem[b->now], *to = s->fresh[k][0] ? s->fresh[k][0] : from;

    if (from)
        fg_copy_rows(r, to->mem.p, fg_is_in_place(d) ? room : n,
                     (char *)from->mem.p + (had - n) * r.bytes, rows_apart(d, b), n);
    if (to != from) {
        for (int j = 0; j < 2; j++) {
            fg_store_drop(s->cx, &b->mem[j]);
            b->mem[j] = s->fresh[k][j];
            s->fresh[k][j] = NULL;
        }
        b->now = 0;
    }
    atomic_store(&b->mem[b->now]->used, n);
    b->room = room;
}

/* A window has some rows more than it needs, so that it begins anew, at the cost of moving what
 * it keeps, only once in a quarter of its length. */
static int64_t
window_room(const fg_statedef *d, int64_t rows)
{
    enum { LEAST = 16 };
    int64_t room, spare = d->keep / 4 > LEAST ? d->keep / 4 : LEAST;

    return __builtin_add_overflow(rows, spare, &room) ? FG_UNKNOWN : room;
}

/* Rows that storage made for `capacity` positions has. */
static int64_t
first_room(const fg_program *p, const fg_statedef *d, const fg_statebuf *b,
           int64_t capacity)
{
    int64_t most = fg_is_window(d) ? window_room(d, d->keep) : capacity;
    int64_t room =
        fg_starts_full(p, d) || (most >= 0 && most < capacity) ? most : capacity;

    return fg_is_window(d) && rows_valid(d, b) > room ? rows_valid(d, b) : room;
}

/* Moves everything to memory with room for `capacity`; as it was when there is none. cx
 * gets the message: a run in the background has one of its own. */
forge_status
fg_state_grow(forge_state *s, forge_ctx *cx, int64_t capacity)
{
    const fg_program *p = s->p;
    forge_status e = FORGE_OK;

    for (uint32_t k = 0; k < p->nstate && !e; k++) {
        const fg_statedef *d = &p->state[k];
        if (!((d->axis < 0 || fg_is_window(d)) && s->buf[k].mem[0]) &&
            !make_fresh(s, k, first_room(p, d, &s->buf[k], capacity)))
            e = no_memory(cx, capacity);
    }
    if (!e && s->counts)
        e = fg_sequences_grow(s, cx, capacity);
    if (e) {
        drop_fresh(s);
        return e;
    }
    for (uint32_t k = 0; k < p->nstate; k++)
        if (s->fresh[k][0])
            move_in(s, k, first_room(p, &p->state[k], &s->buf[k], capacity),
                    rows_valid(&p->state[k], &s->buf[k]));
    s->capacity = capacity;
    return FORGE_OK;
}

/* ---- windows ------------------------------------------------------------------------- */

int64_t
fg_window_rows(const fg_program *p, const fg_statedef *d, int64_t length)
{
    return length < d->keep && !fg_starts_full(p, d) ? length : d->keep;
}

/* Rows of storage that the run needs: those kept and those that it appends. */
static int64_t
rows_needed(const forge_run *r, uint32_t k)
{
    const fg_statedef *d = &r->p->state[k];
    const fg_statebuf *b = &r->state->buf[k];
    int64_t more = fg_val(r, d->more), rows;
    int64_t n = fg_window_rows(r->p, d, b->gone + b->rows);

    return more < 0 || __builtin_add_overflow(n, more, &rows) ? FG_UNKNOWN : rows;
}

/* Storage is moved inside when it is nobody else's, suffices, and is not left from a run that
 * needed much more. */
static int
stays(const fg_statebuf *b, int64_t rows, int64_t room)
{
    return rows >= 0 && !is_shared(b->mem[0]) && rows <= b->room && b->room / 2 <= room;
}

/* Whether the run appends more to window k than there is room for. */
static int
slides(const forge_run *r, uint32_t k)
{
    const fg_statedef *d = &r->p->state[k];
    const fg_statebuf *b = &r->state->buf[k];

    return fg_is_window(d) && b->rows + fg_val(r, d->more) > b->room;
}

/* Windows of one row and capacity stay so: when some have to go to other memory, all that begin
 * anew do. Which are shared may change meanwhile, in the threads of other forks. */
forge_status
fg_state_slide(forge_run *r)
{
    forge_state *s = r->state;
    int stay = 1;

    for (uint32_t k = 0; k < s->p->nstate && stay; k++) {
        int64_t rows = slides(r, k) ? rows_needed(r, k) : 0;
        if (rows)
            stay = stays(&s->buf[k], rows, window_room(&s->p->state[k], rows));
    }
    for (uint32_t k = 0; k < s->p->nstate && !stay; k++) {
        if (!slides(r, k))
            continue;
        int64_t rows = rows_needed(r, k), room = window_room(&s->p->state[k], rows);
        if (rows < 0 || room < 0 || !make_fresh(s, k, room)) {
            drop_fresh(s);
            return no_memory(r->cx, rows);
        }
    }
    for (uint32_t k = 0; k < s->p->nstate; k++) {
        const fg_statedef *d = &s->p->state[k];
        fg_statebuf *b = &s->buf[k];
        if (!slides(r, k))
            continue;
        int64_t rows = rows_needed(r, k), had = b->rows;
        int64_t n = rows - fg_val(r, d->more);
        move_in(s, k, stay ? b->room : window_room(d, rows), n);
        fg_set_rows(s, k, n);
        b->gone += had - n;
    }
    return FORGE_OK;
}

/* ---- sharing ------------------------------------------------------------------------- */

void
fg_store_share(forge_state *t, const forge_state *s)
{
    for (uint32_t k = 0; k < s->p->nstate; k++) {
        const fg_statebuf *b = &s->buf[k];
        fg_store *now = b->mem[b->now];
        atomic_fetch_add(&now->refs, 1);
        t->buf[k].mem[0] = now;
        memcpy(t->buf[k].dim, b->dim, sizeof b->dim);
        t->buf[k].room = b->room;
        t->buf[k].rows = b->rows;
        t->buf[k].gone = b->gone;
    }
    t->capacity = s->capacity;
}

/* The store j of state k is nobody else's from here on; its first n rows are kept. */
static forge_status
make_own(forge_state *s, forge_ctx *cx, uint32_t k, int j, int64_t n)
{
    const fg_statedef *d = &s->p->state[k];
    fg_statebuf *b = &s->buf[k];

    if (b->mem[j] && !is_shared(b->mem[j]))
        return FORGE_OK;
    fg_store *own = store_new(s->cx, fg_state_bytes(s->p, d, b->dim, b->room));
    if (!own)
        return no_memory(cx, s->capacity);
    if (b->mem[j])
        fg_copy_rows(fg_rows_of(s->p, d, b->dim), own->mem.p, rows_apart(d, b),
                     b->mem[j]->mem.p, rows_apart(d, b), n);
    fg_store_drop(s->cx, &b->mem[j]);
    b->mem[j] = own;
    return FORGE_OK;
}

forge_status
fg_store_own(forge_state *s, uint32_t k, int64_t n)
{
    return make_own(s, fg_state_context(s), k, s->buf[k].now, n);
}

forge_status
fg_store_claim(forge_state *s, forge_ctx *cx, uint32_t k, int64_t rows)
{
    const fg_statedef *d = &s->p->state[k];
    fg_statebuf *b = &s->buf[k];

    if (!fg_is_in_place(d))
        return make_own(s, cx, k, !b->now, 0);
    int64_t n = rows_valid(d, b), end = n;
    if (!d->anywhere && is_shared(b->mem[0]) &&
        atomic_compare_exchange_strong(&b->mem[0]->used, &end, rows))
        return FORGE_OK;
    forge_status e = make_own(s, cx, k, 0, n);
    if (!e)
        atomic_store(&b->mem[0]->used, rows);
    return e;
}
