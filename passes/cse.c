/* cse.c - compute each value once.
 *
 *     %a = add %x, %y                        %a = add %x, %y
 *     %b = add %y, %x                  =>    %c = mul %a, %a
 *     %c = mul %a, %b
 *
 * Two pure instructions with the same operation, operands, attributes and result types
 * yield the same value. Constants are equal by weight, and equal content is one weight.
 * A table of what was met serves the block and the regions below it; an entry made inside
 * a region is invisible outside, and a kernel's region sees only itself.
 *
 * Two run-time symbols read from one element are one symbol.
 */
#include "passes/rewrite.h"
#include "passes/pass.h"

typedef struct entry {
    struct entry *next;
    fg_inst *inst;
    uint64_t hash;
} entry;

typedef struct table {
    fg_module *m;
    fg_arena *a;
    fg_rewrite names;
    entry **slot;
    size_t mask;
} table;

static uint64_t
attr_hash(fg_attrkind kind, const fg_attr *a, uint64_t h)
{
    switch (kind) {
    case FG_AK_expr:
        return fg_hash(&a->e, sizeof a->e, h);
    case FG_AK_exprs:
        return fg_hash(a->es, sizeof *a->es * (size_t)a->n, h + (uint64_t)a->n);
    case FG_AK_ints:
    case FG_AK_syms:
        return fg_hash(a->is, sizeof *a->is * (size_t)a->n, h + (uint64_t)a->n);
    case FG_AK_word: /* interned: equal text, equal pointer */
        return fg_hash(&a->s, sizeof a->s, h);
    default: /* one 64-bit scalar */
        return fg_hash(&a->i, sizeof a->i, h);
    }
}

static bool
attr_equal(fg_attrkind kind, const fg_attr *a, const fg_attr *b)
{
    switch (kind) {
    case FG_AK_expr:
        return a->e == b->e;
    case FG_AK_exprs:
        return a->n == b->n && !memcmp(a->es, b->es, sizeof *a->es * (size_t)a->n);
    case FG_AK_ints:
    case FG_AK_syms:
        return a->n == b->n && !memcmp(a->is, b->is, sizeof *a->is * (size_t)a->n);
    case FG_AK_word:
        return a->s == b->s;
    default:
        return a->i == b->i;
    }
}

/* Only the operand order is normalised; the instruction itself keeps its order. */
static void
ordered(const fg_inst *i, fg_reg in[2])
{
    bool swap = i->nin == 2 && fg_op_is(i->op, FG_T_COMM) && i->in[0] > i->in[1];
    in[0] = i->nin > 0 ? i->in[swap] : 0;
    in[1] = i->nin > 1 ? i->in[!swap] : 0;
}

static uint64_t
inst_hash(const fg_inst *i)
{
    const fg_opinfo *info = fg_op_info(i->op);
    fg_reg in[2];
    ordered(i, in);
    uint64_t h = fg_hash(in, sizeof in, (uint64_t)i->op);
    if (i->nin > 2)
        h = fg_hash(i->in + 2, sizeof *i->in * (size_t)(i->nin - 2), h);
    for (int k = 0; k < info->nattr; k++)
        h = attr_hash(fg_attrs[info->attr0 + k].kind, &i->attr[k], h);
    return h;
}

static bool
inst_equal(const fg_module *m, const fg_inst *a, const fg_inst *b)
{
    const fg_opinfo *info = fg_op_info(a->op);
    fg_reg x[2], y[2];
    if (a->op != b->op || a->nin != b->nin || a->nout != b->nout)
        return false;
    ordered(a, x);
    ordered(b, y);
    if (x[0] != y[0] || x[1] != y[1])
        return false;
    for (int k = 2; k < a->nin; k++)
        if (a->in[k] != b->in[k])
            return false;
    for (int k = 0; k < info->nattr; k++)
        if (!attr_equal(fg_attrs[info->attr0 + k].kind, &a->attr[k], &b->attr[k]))
            return false;
    for (int k = 0; k < a->nout; k++)
        if (!fg_type_equal(fg_rt(m, a->out[k]), fg_rt(m, b->out[k])))
            return false;
    return true;
}

/* Can instructions of block `at` read what block `from` defines? */
static bool
visible(const fg_block *from, const fg_block *at)
{
    while (at != from) {
        if (!at->owner || at->owner->op == FG_OP_kernel)
            return false;
        at = at->parent;
    }
    return true;
}

static fg_inst *
find_or_add(table *t, fg_inst *i)
{
    uint64_t h = inst_hash(i);
    entry **slot = &t->slot[h & t->mask];
    for (entry *e = *slot; e; e = e->next)
        if (e->hash == h && inst_equal(t->m, e->inst, i) &&
            visible(e->inst->block, i->block))
            return e->inst;
    entry *e = FG_NEW(t->a, entry);
    *e = (entry){*slot, i, h};
    *slot = e;
    return NULL;
}

/* readsym differs from its twin only in the symbol it defines. */
static bool
same_symbol(table *t, fg_inst *i)
{
    for (const fg_inst *p = i->prev; p; p = p->prev) {
        if (p->op != FG_OP_readsym || p->in[0] != i->in[0] ||
            FG_GET(p, readsym, at).i != FG_GET(i, readsym, at).i)
            continue;
        fg_sym a = (fg_sym)FG_GET(p, readsym, sym).i,
               b = (fg_sym)FG_GET(i, readsym, sym).i;
        return fg_unify(t->m, fg_es(t->m->ex, a), fg_es(t->m->ex, b)) &&
               fg_es(t->m->ex, a) == fg_es(t->m->ex, b);
    }
    return false;
}

static void
walk(table *t, fg_block *b)
{
    fg_each_inst(b, i) {
        fg_rewrite_operands(&t->names, i);
        for (int k = 0; k < i->nregion; k++)
            walk(t, i->region[k]);
        if (i->op == FG_OP_readsym && same_symbol(t, i)) {
            fg_inst_remove(i);
            t->names.changed = true;
            continue;
        }
        if (!fg_op_is(i->op, FG_T_PURE) || i->nregion)
            continue;
        fg_inst *first = find_or_add(t, i);
        if (!first)
            continue;
        for (int k = 0; k < i->nout; k++)
            fg_rewrite_set(&t->names, i->out[k], first->out[k]);
        fg_inst_remove(i);
    }
}

fg_progress
fg_pass_cse(fg_module *m, fg_passctx *cx)
{
    table t = {.m = m, .a = cx->scratch, .names = fg_rewrite_new(m, cx->scratch)};
    size_t n = 64;
    while (n < m->nreg)
        n *= 2;
    t.slot = FG_NEWN(t.a, entry *, n);
    t.mask = n - 1;
    walk(&t, m->body);
    fg_rewrite_done(&t.names);
    return t.names.changed ? FG_CHANGED : FG_SAME;
}
