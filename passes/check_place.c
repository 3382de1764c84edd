/* check_place.c - proves a placement right without knowing how it was found.
 *
 * Walks the program as it runs and remembers which registers still hold their value. A
 * write takes the value from every other register that shares a byte with it; a read
 * of a register that lost its value is an error. Loop bodies are walked twice, so that
 * what the second iteration misses is seen; what both branches of an if left intact is
 * intact after it. Liveness is not used: a mistake there shows here.
 *
 * A kernel that appends to a state writes storage that other registers share: they
 * lose their value, and the kernel itself may not read the state in any other way.
 */
#include "passes/place.h"

typedef struct check {
    fg_module *m;
    fg_arena *a;
    fg_bits holds;  /* by register: its storage has its value */
    fg_reg *placed; /* registers with an offset */
    int64_t *bytes; /* by index in placed */
    uint32_t nplaced;
} check;

/* The register whose bytes r has: aliases are left behind as far as nothing was
 * written. */
static fg_reg
version_of(const fg_module *m, fg_reg r)
{
    fg_reg x;

    while (m->reg[r].mem == FG_MEM_ALIAS && !fg_append_of(m, r, &x))
        r = m->reg[r].alias;
    return r;
}

/* All versions of a state share its storage: the last one written has its value. */
static void
store_version(check *c, fg_reg r)
{
    for (fg_reg k = 1; k < c->m->nreg; k++)
        if (c->m->reg[k].mem && fg_storage_of(c->m, k) == fg_storage_of(c->m, r))
            fg_bits_del(c->holds, k);
    fg_bits_add(c->holds, r);
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

static void
store(check *c, fg_reg r)
{
    const fg_module *m = c->m;
    fg_reg s = fg_storage_of(m, r);

    for (uint32_t k = 0; k < c->nplaced && m->reg[s].mem == FG_MEM_ARENA; k++)
        if (c->placed[k] == s)
            for (uint32_t j = 0; j < c->nplaced; j++) {
                int64_t a = m->reg[s].offset, b = m->reg[c->placed[j]].offset;
                if (a < b + c->bytes[j] && b < a + c->bytes[k])
                    fg_bits_del(c->holds, c->placed[j]);
            }
    fg_bits_add(c->holds, s);
}

/* An alias holds its value as long as the storage was not written since. */
static bool
load(check *c, fg_reg r, const fg_inst *by)
{
    if (!r || fg_bits_has(c->holds, version_of(c->m, r)))
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
                if (fg_in_state(c->m, i->out[k])) {
                    if (!reads_state_once(c, i, i->out[k]))
                        return false;
                    store_version(c, i->out[k]);
                } else if (c->m->reg[i->out[k]].mem != FG_MEM_ALIAS) {
                    store(c, i->out[k]);
                }
            }
        }
    }
    return true;
}

bool
fg_check_place(fg_module *m, fg_arena *a)
{
    check c = {m,
               a,
               fg_bits_new(a, m->nreg),
               FG_NEWN(a, fg_reg, m->nreg),
               FG_NEWN(a, int64_t, m->nreg),
               0};
    int64_t *sym = fg_nominal_symbols(m, a);

    for (fg_reg r = 1; r < m->nreg; r++) {
        if (m->reg[r].mem != FG_MEM_ARENA)
            continue;
        int64_t bytes = fg_reg_bytes(m, r, sym);
        c.bytes[c.nplaced] = bytes < 0 ? 0 : bytes;
        c.placed[c.nplaced++] = r;
    }
    for (int k = 0; k < m->body->nparam; k++)
        fg_bits_add(c.holds, m->body->param[k]);
    return check_block(&c, m->body);
}
