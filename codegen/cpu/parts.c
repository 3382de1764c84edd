/* parts.c - kernels whose results have nothing to do with each other.
 *
 *     kernel %x, %wq, %wk {          chunks [0, 24)    part 0: the first product
 *       %1 = matmul %x, %wq          chunks [24, 32)   part 1: the second
 *       %2 = matmul %x, %wk
 *       yield %1, %2
 *     }
 *
 * Results that share an instruction are one part. A part is emitted as if it were a
 * kernel of its own, with its own emitter and chunks; the kernel's chunks are those of
 * all parts in order, so a thread may work on one part while another is at the next. A
 * part reads only operands of the kernel, never what another part writes, so chunks stay
 * independent. Parts of one call follow each other and share scratch memory.
 */
#include "codegen/cpu/emit.h"

/* Labels of instructions that met; label l stands for to[l] when that is another. */
static int
find(const int *to, int l)
{
    while (to[l] != l)
        l = to[l];
    return l;
}

static void
label(fg_module *m, int *to, fg_reg r, int l)
{
    fg_inst *i = r ? fg_def(m, r) : NULL;
    if (!i)
        return;
    if (!i->mark)
        i->mark = (uint32_t)l;
    else
        to[find(to, (int)i->mark)] = find(to, l);
}

int
fg_parts_of(fg_module *m, fg_arena *a, const fg_block *region, fg_part **out)
{
    const fg_inst *yield = region->last;
    int n = yield->nin, nparts = 0, *to = FG_NEWN(a, int, (size_t)n + 1);
    int *number = FG_NEWN(a, int, (size_t)n + 1);
    fg_part *part = FG_NEWN(a, fg_part, (size_t)n);
    fg_each_inst(region, i)
        i->mark = 0;
    for (int k = 0; k < n; k++) {
        to[k + 1] = k + 1;
        label(m, to, yield->in[k], k + 1);
    }
    for (fg_inst *i = region->last->prev; i; i = i->prev)
        for (int k = 0; k < i->nin && i->mark; k++)
            label(m, to, i->in[k], find(to, (int)i->mark));
    for (int k = 0; k < n; k++) {
        const fg_inst *i = fg_def(m, yield->in[k]);
        int l = find(to, i ? (int)i->mark : k + 1);
        if (!number[l]) {
            part[nparts].result = FG_NEWN(a, int, (size_t)n);
            number[l] = ++nparts;
        }
        fg_part *p = &part[number[l] - 1];
        p->result[p->nresult++] = k;
    }
    fg_each_inst(region, i)
        if (i->mark)
            i->mark = (uint32_t)number[find(to, (int)i->mark)];
    *out = part;
    return nparts;
}

static fg_expr
plus(fg_exprs *x, fg_expr a, fg_expr b)
{
    return a == FG_E_BAD || b == FG_E_BAD ? FG_E_BAD : fg_eadd(x, a, b);
}

bool
fg_gen_parts(fg_em *e, int n, const fg_part *part)
{
    fg_ll *g = e->g;
    fg_exprs *x = e->m->ex;
    fg_expr base = fg_ec(x, 0), scratch = base, flops = base;
    fg_v begin = e->begin, end = e->end, zero = ll_i(g, 0);
    for (int k = 0; k < n; k++) {
        fg_v first = fg_em_expr(e, base);
        int slot;
        fg_v count = fg_em_later(e, &slot);
        ll_branch some;
        e->begin = ll_max(g, ll_sub(g, begin, first), zero);
        e->end = ll_min(g, ll_sub(g, end, first), count);
        ll_if(g, &some, ll_cmp(g, LL_LT, e->begin, e->end));
        fg_scopemark s = fg_scope(e);
        fg_em_part(e, &part[k], k);
        if (!part[k].gen(e, part[k].anchor))
            return false;
        fg_unscope(e, s);
        ll_end(g, &some, NULL, NULL);
        fg_em_settle(e, slot, e->chunks);
        base = plus(x, base, e->chunks);
        if (base == FG_E_BAD)
            return fg_error(e->m->cx, "%s: too many chunks",
                            fg_inst_where(e->m, e->kernel));
        scratch = fg_emax(x, scratch, e->scratch_bytes);
        flops = plus(x, flops, e->flops);
    }
    e->chunks = base;
    e->scratch_bytes = scratch;
    e->flops = flops;
    return true;
}
