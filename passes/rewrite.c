/* rewrite.c - renaming registers during one forward walk. */
#include "passes/rewrite.h"

fg_rewrite
fg_rewrite_new(fg_module *m, fg_arena *scratch)
{
    return (fg_rewrite){.m = m, .a = scratch};
}

fg_reg
fg_rewrite_find(fg_rewrite *w, fg_reg r)
{
    fg_reg top = r;
    while (top < w->n && w->to[top])
        top = w->to[top];
    for (fg_reg next; r != top; r = next) {
        next = w->to[r];
        w->to[r] = top;
    }
    return top;
}

void
fg_rewrite_set(fg_rewrite *w, fg_reg from, fg_reg to)
{
    if (from >= w->n) {
        uint32_t n = w->m->nreg + w->m->nreg / 2;
        fg_reg *bigger = FG_NEWN(w->a, fg_reg, n);
        if (w->n)
            memcpy(bigger, w->to, sizeof *bigger * w->n);
        w->to = bigger;
        w->n = n;
    }
    to = fg_rewrite_find(w, to);
    if (from == to)
        return;
    w->to[from] = to;
    w->changed = true;
}

void
fg_rewrite_operands(fg_rewrite *w, fg_inst *i)
{
    for (int k = 0; k < i->nin; k++)
        if (i->in[k])
            i->in[k] = fg_rewrite_find(w, i->in[k]);
}

void
fg_rewrite_done(fg_rewrite *w)
{
    for (int k = 0; k < w->m->noutput; k++)
        w->m->output[k].reg = fg_rewrite_find(w, w->m->output[k].reg);
}

void
fg_rewrite_replace(fg_rewrite *w, fg_inst *old, fg_reg by, fg_reg fresh)
{
    fg_inst *def = fg_def(w->m, by);
    fg_reg out = old->out[0];
    if (by >= fresh && def && def->nout == 1 && def->block == old->block) {
        /* `by` stays as a name without instruction; nothing can read it. */
        def->out[0] = out;
        fg_ri(w->m, out)->def = def;
        if (!fg_ri(w->m, out)->sym) {
            fg_ri(w->m, out)->sym = fg_ri(w->m, by)->sym;
            fg_ri(w->m, out)->nsym = fg_ri(w->m, by)->nsym;
        }
        fg_ri(w->m, by)->def = NULL;
    } else {
        fg_rewrite_set(w, out, by);
    }
    fg_inst_remove(old);
    w->changed = true;
}
