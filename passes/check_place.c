/* check_place.c - proves a placement right without knowing how it was found.
 *
 * Walks the program as it runs and remembers which registers still hold their value. A
 * write takes the value from every other register that shares a byte with it; a read
 * of a register that lost its value is an error. Loop bodies are walked twice, so that
 * what the second iteration misses is seen; what both branches of an if left intact is
 * intact after it. Liveness is not used: a mistake there shows here.
 *
 * A kernel with work to do whose result is an alias writes in place: the storage has the
 * result's value from then on and nobody else's. Whether each element is read before it
 * is written is looked up from the result, going to the operands with the index. A kernel
 * that appends to a state may read the state in no other way.
 */
#include "passes/place.h"

typedef struct check {
    fg_module *m;
    fg_arena *a;
    fg_bits holds;  /* by register: its storage has its value */
    fg_reg *placed; /* registers with an offset */
    uint32_t nplaced;
    int64_t *bytes;  /* of such a register */
    fg_reg *version; /* of a storage: one that is written in place; of that: the next */
} check;

/* ---- in place ---------------------------------------------------------------------- */

static bool
is_written(const check *c, fg_reg r)
{
    fg_inst *i = fg_def(c->m, r);
    return fg_is_op(i, FG_OP_kernel) && !fg_kernel_alias(c->m, i);
}

/* The register whose value the bytes of r are: aliases that nobody wrote are behind it. */
static fg_reg
version_of(const check *c, fg_reg r)
{
    while (c->m->reg[r].mem == FG_MEM_ALIAS && !is_written(c, r))
        r = c->m->reg[r].alias;
    return r;
}

/* No register's value is in the storage of s any more. */
static void
lose(check *c, fg_reg s)
{
    for (; s; s = c->version[s])
        fg_bits_del(c->holds, s);
}

static void
store_version(check *c, fg_reg r)
{
    lose(c, fg_storage_of(c->m, r));
    fg_bits_add(c->holds, r);
}

typedef struct lookup {
    fg_module *m;
    fg_bits here, there; /* done: read at the result's own index, at others */
    const fg_type *t;    /* of the result */
    fg_bits bad;         /* what must not be read at others */
} lookup;

/* Reading r at the index of the result (own), or anywhere, touches bad elements. */
static bool
reads_elsewhere(lookup *w, fg_reg r, bool own)
{
    fg_inst *i = fg_def(w->m, r);
    fg_bits *done = own ? &w->here : &w->there;
    const fg_type *t = r ? fg_rt(w->m, r) : NULL;
    if (!r || fg_bits_has(*done, r))
        return false;
    fg_bits_add(*done, r);
    own = own && t->rank == w->t->rank &&
          !memcmp(t->dim, w->t->dim, t->rank * sizeof *t->dim);
    if (!i)
        return !own && fg_bits_has(w->bad, r);
    for (int k = 0; k < i->nin; k++) {
        bool keeps = fg_op_is(i->op, FG_T_ELEM) || i->op == FG_OP_copy ||
                     (fg_keeps_rows(i->op) && k == 0);
        if (reads_elsewhere(w, i->in[k], own && keeps))
            return true;
    }
    return false;
}

/* Result k of the kernel shares bytes with operands that are only read, for this result
 * alone, at the element being written. */
static bool
check_in_place(check *c, const fg_inst *kernel, int k)
{
    const fg_block *b = kernel->region[0];
    uint32_t n = c->m->nreg;
    fg_reg s = fg_storage_of(c->m, kernel->out[k]);
    lookup w = {c->m, fg_bits_new(c->a, n), fg_bits_new(c->a, n),
                fg_rt(c->m, kernel->out[k]), fg_bits_new(c->a, n)};
    int shared = 0;
    for (int j = 0; j < kernel->nin; j++)
        if (kernel->in[j] && fg_storage_of(c->m, kernel->in[j]) == s) {
            fg_bits_add(w.bad, b->param[j]);
            shared++;
        }
    bool ok = shared <= 1;
    for (int j = 0; j < b->last->nin && ok; j++)
        ok = !reads_elsewhere(&w, b->last->in[j], j == k);
    return ok || fg_error(c->m->cx, "%s: overwrites what it still reads",
                          fg_inst_where(c->m, kernel));
}

static bool
reads_state_once(check *c, const fg_inst *kernel, fg_reg out)
{
    const fg_block *b = kernel->region[0];
    fg_reg state = fg_storage_of(c->m, out);
    int reads = 0;

    for (int k = 0; k < kernel->nin; k++)
        if (kernel->in[k] && fg_storage_of(c->m, kernel->in[k]) == state)
            fg_each_inst(b, i)
                for (int j = 0; j < i->nin; j++)
                    reads += i->in[j] == b->param[k];
    return reads == 1 || fg_error(c->m->cx, "%s: reads the state that it appends to",
                                  fg_inst_where(c->m, kernel));
}

/* ---- the walk ---------------------------------------------------------------------- */

static void
store(check *c, fg_reg r)
{
    const fg_module *m = c->m;
    fg_reg s = fg_storage_of(m, r);

    for (uint32_t k = 0; k < c->nplaced && m->reg[s].mem == FG_MEM_ARENA; k++) {
        fg_reg other = c->placed[k];
        int64_t a = m->reg[s].offset, b = m->reg[other].offset;
        if (a < b + c->bytes[other] && b < a + c->bytes[s])
            lose(c, other);
    }
    fg_bits_add(c->holds, s);
}

/* An alias holds its value as long as the storage was not written since. */
static bool
load(check *c, fg_reg r, const fg_inst *by)
{
    if (!r || fg_bits_has(c->holds, version_of(c, r)))
        return true;
    return fg_error(c->m->cx, "%s: reads %%%s, whose storage was overwritten",
                    fg_inst_where(c->m, by), c->m->reg[r].name);
}

static bool check_block(check *c, fg_block *b);

static bool
check_if(check *c, fg_inst *i)
{
    fg_bits before = c->holds, after = fg_bits_new(c->a, before.n);
    uint32_t words = (before.n + 63) / 64;

    for (int k = 0; k < 2; k++) {
        c->holds = fg_bits_new(c->a, before.n);
        memcpy(c->holds.w, before.w, words * sizeof *before.w);
        if (!check_block(c, i->region[k]))
            return false;
        for (int j = 0; j < i->nout; j++)
            store(c, i->out[j]);
        for (uint32_t w = 0; w < words; w++)
            after.w[w] = k ? after.w[w] & c->holds.w[w] : c->holds.w[w];
    }
    c->holds = after;
    return true;
}

static bool
is_param(const fg_block *b, fg_reg r)
{
    for (int k = 0; k < b->nparam; k++)
        if (b->param[k] == r)
            return true;
    return false;
}

static bool
check_loop(check *c, fg_inst *i)
{
    fg_block *b = i->region[0];
    const fg_inst *yield = b->last;
    int carried = (int)FG_GET(i, loop, carried).i;

    for (int j = carried; j < i->nout; j++) /* filled while the loop runs */
        store(c, i->out[j]);
    for (int k = 0; k < b->nparam; k++)
        store(c, b->param[k]);
    for (int round = 0; round < 2; round++) {
        if (!check_block(c, b))
            return false;
        for (int k = 0; k < b->nparam; k++) {
            store(c, b->param[k]);
            /* Values that are parameters themselves go through a copy. */
            for (int j = k; j < yield->nin; j++)
                if (!is_param(b, fg_storage_of(c->m, yield->in[j])) &&
                    !load(c, yield->in[j], yield))
                    return false;
        }
        for (int j = carried; j < i->nout; j++)
            if (!load(c, i->out[j], i))
                return false;
    }
    for (int j = 0; j < carried; j++) {
        if (!load(c, b->param[j + 2], i))
            return false;
        store(c, i->out[j]);
    }
    return true;
}

static bool
check_block(check *c, fg_block *b)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nin; k++)
            if (!load(c, i->in[k], i))
                return false;
        if (i->op == FG_OP_if) {
            if (!check_if(c, i))
                return false;
        } else if (i->op == FG_OP_loop) {
            if (!check_loop(c, i))
                return false;
        } else {
            for (int k = 0; k < i->nout; k++) {
                fg_reg r = i->out[k];
                if (c->m->reg[r].mem != FG_MEM_ALIAS) {
                    store(c, r);
                } else if (is_written(c, r)) {
                    if (!(fg_in_state(c->m, r) ? reads_state_once(c, i, r)
                                               : check_in_place(c, i, k)))
                        return false;
                    store_version(c, r);
                }
            }
        }
    }
    return true;
}

bool
fg_check_place(fg_module *m, fg_arena *a)
{
    check c = {.m = m,
               .a = a,
               .holds = fg_bits_new(a, m->nreg),
               .placed = FG_NEWN(a, fg_reg, m->nreg),
               .bytes = FG_NEWN(a, int64_t, m->nreg),
               .version = FG_NEWN(a, fg_reg, m->nreg)};
    int64_t *sym = fg_nominal_symbols(m, a);

    for (fg_reg r = 1; r < m->nreg; r++) {
        if (m->reg[r].mem == FG_MEM_ALIAS && is_written(&c, r)) {
            fg_reg s = fg_storage_of(m, r);
            c.version[r] = c.version[s];
            c.version[s] = r;
        }
        if (m->reg[r].mem != FG_MEM_ARENA)
            continue;
        int64_t bytes = fg_reg_bytes(m, r, sym);
        c.bytes[r] = bytes < 0 ? 0 : bytes;
        c.placed[c.nplaced++] = r;
    }
    for (int k = 0; k < m->body->nparam; k++)
        fg_bits_add(c.holds, m->body->param[k]);
    return check_block(&c, m->body);
}
