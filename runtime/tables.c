/* tables.c - the one description of a program's tables in a file. */
#include "runtime/tables.h"

#include <string.h>

#include "runtime/rt.h"

/* ---- memory ------------------------------------------------------------------------ */

typedef struct fg_pileblock {
    struct fg_pileblock *next;
    size_t used, size; /* of what follows, 16-byte aligned */
} pileblock;

enum { PILE_BLOCK = 32 << 10, PILE_HEAD = (sizeof(pileblock) + 15) & ~15 };

void *
fg_pile_get(fg_pile *p, size_t n, size_t each)
{
    pileblock *b = p->block;
    size_t bytes;

    if (__builtin_mul_overflow(n, each, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    if (!b || b->size - b->used < bytes) {
        size_t size = bytes > PILE_BLOCK ? bytes : PILE_BLOCK;
        if (!(b = p->alloc(p->user, PILE_HEAD + size)))
            return NULL;
        *b = (pileblock){p->block, 0, size};
        p->block = b;
    }
    void *at = (char *)b + PILE_HEAD + b->used;
    b->used += bytes;
    return memset(at, 0, bytes);
}

void
fg_pile_free(fg_pile *p)
{
    while (p->block) {
        pileblock *b = p->block;
        p->block = b->next;
        p->release(p->user, b);
    }
}

/* ---- numbers, text, lists ------------------------------------------------------------ */

static void
fail(fg_tables *x, fg_tables_state why)
{
    if (x->state == FG_TABLES_OK)
        x->state = why;
}

/* Room for n bytes at the end; NULL after a failure. */
static uint8_t *
room(fg_tables *x, size_t n)
{
    if (x->state != FG_TABLES_OK)
        return NULL;
    if (x->cap - x->n < n) {
        size_t cap = (x->cap + n) * 2 + 4096;
        uint8_t *more = fg_pile_get(x->pile, cap, 1);
        if (!more) {
            fail(x, FG_TABLES_MEMORY);
            return NULL;
        }
        if (x->n)
            memcpy(more, x->out, x->n);
        x->out = more;
        x->cap = cap;
    }
    x->n += n;
    return x->out + x->n - n;
}

/* The next n bytes; NULL when there are not as many. */
static const uint8_t *
take(fg_tables *x, size_t n)
{
    if (x->state == FG_TABLES_OK && (size_t)(x->end - x->at) < n)
        fail(x, FG_TABLES_BROKEN);
    if (x->state != FG_TABLES_OK)
        return NULL;
    x->at += n;
    return x->at - n;
}

void
fg_io_bytes(fg_tables *x, void *data, size_t n)
{
    if (x->writing) {
        uint8_t *to = room(x, n);
        if (to && n)
            memcpy(to, data, n);
    } else {
        const uint8_t *from = take(x, n);
        if (from && n)
            memcpy(data, from, n);
    }
}

static uint64_t
number(fg_tables *x, uint64_t v, int bytes)
{
    uint8_t b[8] = {0};

    for (int k = 0; k < bytes; k++)
        b[k] = (uint8_t)(v >> 8 * k);
    fg_io_bytes(x, b, (size_t)bytes);
    v = 0;
    for (int k = 0; k < bytes; k++)
        v |= (uint64_t)b[k] << 8 * k;
    return v;
}

void
fg_io_u8(fg_tables *x, uint8_t *v)
{
    *v = (uint8_t)number(x, *v, 1);
}

void
fg_io_u32(fg_tables *x, uint32_t *v)
{
    *v = (uint32_t)number(x, *v, 4);
}

void
fg_io_u64(fg_tables *x, uint64_t *v)
{
    *v = number(x, *v, 8);
}

static void
io_i32(fg_tables *x, int32_t *v)
{
    *v = (int32_t)number(x, (uint32_t)*v, 4);
}

static void
io_i64(fg_tables *x, int64_t *v)
{
    *v = (int64_t)number(x, (uint64_t)*v, 8);
}

void
fg_io_text(fg_tables *x, const char **s)
{
    size_t n = x->writing && *s ? strlen(*s) : 0;

    n = number(x, n, 4);
    if (x->writing) {
        if (n)
            fg_io_bytes(x, (void *)(uintptr_t)*s, n);
        number(x, 0, 1);
        return;
    }
    const uint8_t *from = take(x, n + 1);
    if (from && (from[n] || memchr(from, 0, n)))
        fail(x, FG_TABLES_BROKEN);
    *s = x->state == FG_TABLES_OK ? (const char *)from : "";
}

void *
fg_io_list(fg_tables *x, const void *have, uint32_t *n, size_t each)
{
    static uint64_t none[1]; /* of an empty list: never read, but not NULL */

    *n = (uint32_t)number(x, *n, 4);
    if (x->writing)
        return (void *)(uintptr_t)have;
    /* An element takes at least a byte, so memory stays in proportion to the file. */
    if (x->state == FG_TABLES_OK && *n > (size_t)(x->end - x->at))
        fail(x, FG_TABLES_BROKEN);
    if (x->state != FG_TABLES_OK)
        *n = 0;
    void *list = *n ? fg_pile_get(x->pile, *n, each) : none;
    if (!list) {
        fail(x, FG_TABLES_MEMORY);
        *n = 0;
    }
    return list;
}

/* ---- the tables ---------------------------------------------------------------------- */

/* For each element of a list of the program; `e` is the element, not const. */
#define EACH(list, count, type, e)                                                       \
    type *e = fg_io_list(x, (list), &(count), sizeof(type)), *e##_end = e + (count);     \
    for ((list) = e; e < e##_end; e++)

static void
io_indices(fg_tables *x, const uint32_t **list, uint32_t n)
{
    uint32_t *v = (uint32_t *)(uintptr_t)*list;

    if (!x->writing && !(*list = v = fg_pile_get(x->pile, n + (size_t)1, sizeof *v)))
        fail(x, FG_TABLES_MEMORY);
    for (uint32_t k = 0; v && k < n; k++)
        fg_io_u32(x, &v[k]);
}

static void
io_flows(fg_tables *x, const fg_flow **list, uint32_t *n)
{
    EACH(*list, *n, fg_flow, f)
    {
        fg_io_u32(x, &f->src);
        fg_io_u32(x, &f->dst);
        fg_io_u8(x, &f->stack);
        f->sym = fg_io_list(x, f->sym, &f->nsym, sizeof *f->sym);
        for (uint32_t k = 0; k < f->nsym; k++)
            fg_io_u32(x, (uint32_t *)(uintptr_t)&f->sym[k]);
        io_indices(x, &f->dim, f->nsym);
    }
}

static void
io_forms(fg_tables *x, const fg_form **list, uint32_t n)
{
    fg_form *f = (fg_form *)(uintptr_t)*list;

    if (!x->writing && x->state == FG_TABLES_OK &&
        !(*list = f = fg_pile_get(x->pile, n, sizeof *f)))
        fail(x, FG_TABLES_MEMORY);
    for (; f && n; n--, f++) {
        fg_io_u32(x, &f->code);
        f->arg = fg_io_list(x, f->arg, &f->narg, sizeof *f->arg);
        for (uint32_t k = 0; k < f->narg; k++)
            fg_io_u32(x, (uint32_t *)(uintptr_t)&f->arg[k]);
        fg_io_u32(x, &f->chunks);
        fg_io_u32(x, &f->scratch);
    }
}

static void
io_step(fg_tables *x, fg_step *s, uint32_t nform)
{
    fg_io_u8(x, &s->kind);
    if (s->kind == FG_STEP_KERNEL)
        io_forms(x, &s->form, nform);
    s->buf = fg_io_list(x, s->buf, &s->nbuf, sizeof *s->buf);
    for (uint32_t k = 0; k < s->nbuf; k++)
        fg_io_u32(x, (uint32_t *)(uintptr_t)&s->buf[k]);
    fg_io_u32(x, &s->equal[0]);
    fg_io_u32(x, &s->equal[1]);
    fg_io_u32(x, &s->flops);
    fg_io_u32(x, &s->bytes);
    fg_io_u32(x, &s->sym);
    io_i64(x, &s->at);
    fg_io_u32(x, &s->block[0]);
    fg_io_u32(x, &s->block[1]);
    fg_io_u32(x, &s->iter);
    fg_io_u32(x, &s->cond_in);
    fg_io_u32(x, &s->cond_out);
    io_flows(x, &s->flow_in, &s->nflow_in);
    io_flows(x, &s->flow_next, &s->nflow_next);
    io_flows(x, &s->flow_out[0], &s->nflow_out[0]);
    io_flows(x, &s->flow_out[1], &s->nflow_out[1]);
    fg_io_text(x, &s->name);
    fg_io_text(x, &s->nodes);
}

/* FG_NONE when there is none. */
static uint32_t
io_weight(fg_tables *x, const void **data, bool present, uint32_t tensor)
{
    uint32_t w = x->writing && present ? x->weight_at(x->user, *data, tensor) : FG_NONE;

    fg_io_u32(x, &w);
    if (!x->writing && w != FG_NONE) {
        if (w >= x->nweight)
            fail(x, FG_TABLES_BROKEN);
        else
            *data = x->weight[w].data;
    }
    return w;
}

static void
io_tensor(fg_tables *x, fg_tensordef *t, uint32_t index)
{
    fg_io_text(x, &t->name);
    fg_io_u8(x, &t->dtype);
    fg_io_u8(x, &t->storage);
    fg_io_u8(x, &t->rank);
    if (t->rank > sizeof t->dim / sizeof *t->dim) {
        fail(x, FG_TABLES_BROKEN);
        t->rank = 0;
    }
    for (int k = 0; k < t->rank; k++)
        fg_io_u32(x, &t->dim[k]);
    fg_io_u32(x, &t->bytes);
    /* A constant has no port: the place holds its weight once read. */
    uint32_t w = io_weight(x, &t->data, t->storage == FG_ST_CONST, index);
    fg_io_u32(x, &t->port);
    if (!x->writing && t->storage == FG_ST_CONST) {
        t->port = w;
        t->mapped = w < x->nweight && x->weight[w].mapped;
    }
    io_i32(x, &t->first);
    io_i32(x, &t->last);
}

/* A list of the port's rank; its elements are next. */
static void *
port_list(fg_tables *x, const void *have, uint32_t rank, size_t each, bool *present)
{
    uint8_t is = have != NULL;

    fg_io_u8(x, &is);
    *present = is && x->state == FG_TABLES_OK;
    if (x->writing || !*present)
        return (void *)(uintptr_t)have;
    void *list = fg_pile_get(x->pile, rank + (size_t)1, each);
    if (!list)
        fail(x, FG_TABLES_MEMORY);
    *present = list != NULL;
    return list;
}

static void
io_port(fg_tables *x, fg_portdef *d, const fg_program *p)
{
    int64_t count = 1, bytes;
    bool has;

    fg_io_text(x, &d->name);
    fg_io_u32(x, &d->tensor);
    fg_io_u32(x, &d->state);
    if (d->tensor >= p->ntensor) {
        fail(x, FG_TABLES_BROKEN);
        return;
    }
    const fg_tensordef *t = &p->tensor[d->tensor];
    const char **text = port_list(x, d->dim_text, t->rank, sizeof *text, &has);
    for (uint32_t k = 0; has && k < t->rank; k++)
        fg_io_text(x, &text[k]);
    int64_t *dim = port_list(x, d->dflt_dim, t->rank, sizeof *dim, &has);
    d->dim_text = text;
    d->dflt_dim = dim;
    for (uint32_t k = 0; has && k < t->rank; k++) {
        io_i64(x, &dim[k]);
        if (dim[k] < 0 || __builtin_mul_overflow(count, dim[k], &count))
            fail(x, FG_TABLES_BROKEN);
    }
    uint32_t w = io_weight(x, &d->dflt, has, d->tensor);
    if (x->writing || x->state != FG_TABLES_OK || w == FG_NONE)
        return;
    bytes = t->dtype <= FORGE_BOOL ? fg_packed_bytes(t->dtype, count) : -1;
    if (!has || bytes < 0 || (uint64_t)bytes > x->weight[w].bytes)
        fail(x, FG_TABLES_BROKEN);
}

void
fg_io_program(fg_tables *x, fg_program *p)
{
    EACH(p->symbol, p->nsymbol, fg_symbol, y)
    {
        fg_io_text(x, &y->name);
        io_i64(x, &y->lo);
        io_i64(x, &y->hi);
        fg_io_u8(x, &y->run);
    }
    EACH(p->value, p->nvalue, fg_value, v)
    {
        fg_io_u8(x, &v->op);
        fg_io_u8(x, &v->run);
        fg_io_u32(x, &v->a);
        fg_io_u32(x, &v->b);
        io_i64(x, &v->k);
    }
    EACH(p->tensor, p->ntensor, fg_tensordef, t)
    {
        io_tensor(x, t, (uint32_t)(t - p->tensor));
    }
    EACH(p->special, p->nspecial, fg_special, z)
    {
        EACH(z->fixed, z->n, fg_fixed, d)
        {
            fg_io_u32(x, &d->sym);
            io_i64(x, &d->size);
        }
    }
    EACH(p->step, p->nstep, fg_step, s)
    {
        io_step(x, s, p->nspecial + 1);
    }
    EACH(p->block, p->nblock, fg_blockdef, b)
    {
        fg_io_u32(x, &b->first);
        fg_io_u32(x, &b->count);
    }
    fg_io_u32(x, &p->once);
    fg_io_u32(x, &p->shares);
    EACH(p->input, p->ninput, fg_portdef, i)
    {
        io_port(x, i, p);
    }
    EACH(p->output, p->noutput, fg_portdef, o)
    {
        io_port(x, o, p);
    }
    EACH(p->solve, p->nsolve, fg_solve, r)
    {
        fg_io_u32(x, &r->sym);
        fg_io_u32(x, &r->input);
        fg_io_u32(x, &r->axis);
        fg_io_u32(x, &r->rest);
        io_i64(x, &r->coef);
    }
    EACH(p->state, p->nstate, fg_statedef, c)
    {
        fg_io_u32(x, &c->input);
        fg_io_u32(x, &c->output);
        io_i32(x, &c->axis);
        fg_io_u32(x, &c->tensor);
        fg_io_u32(x, &c->capacity);
        fg_io_u32(x, &c->next);
        fg_io_u8(x, &c->anywhere);
        fg_io_u32(x, &c->at);
        fg_io_u32(x, &c->more);
        io_i64(x, &c->keep);
    }
    if (!x->writing && x->state == FG_TABLES_OK && x->at != x->end)
        fail(x, FG_TABLES_BROKEN);
}
