/* liveness.c - where each register is first written and last read.
 *
 *     0  %a = kernel %x           %a [0..3]   read in the loop, which may run again
 *     1  loop %n .. {             %p [1..3]   carried: a place of its own for all iterations
 *     2    %b = kernel %a, %p     %b [2..2]
 *     3  }
 *
 * One walk numbers instructions, a second one takes reads. A read inside a loop of
 * what was made outside counts at the loop's end, because the next iteration reads it
 * again. Results of an if or loop begin where it begins: they are written while its
 * regions are still alive.
 */
#include "passes/place.h"

typedef struct walk {
    fg_module *m;
    fg_liverange *range;
    int32_t next; /* position */
    int32_t *end; /* by i->mark: where an if or loop ends */
} walk;

static bool
has_blocks(const fg_inst *i)
{
    return i->op == FG_OP_if || i->op == FG_OP_loop;
}

static void
define(walk *w, int n, const fg_reg *r, int32_t at)
{
    for (int k = 0; k < n; k++)
        w->range[r[k]] = (fg_liverange){at, at};
}

static void
number(walk *w, fg_block *b)
{
    fg_each_inst(b, i) {
        i->mark = (uint32_t)w->next++;
        define(w, i->nout, i->out, (int32_t)i->mark);
        if (!has_blocks(i))
            continue;
        for (int k = 0; k < i->nregion; k++) {
            define(w, i->region[k]->nparam, i->region[k]->param, (int32_t)i->mark);
            number(w, i->region[k]);
        }
        w->end[i->mark] = w->next++;
        for (int k = 0; k < i->nout; k++) /* written even when nobody reads them */
            w->range[i->out[k]].last = w->end[i->mark];
        if (i->op == FG_OP_loop)
            for (int k = 0; k < i->region[0]->nparam; k++)
                w->range[i->region[0]->param[k]].last = w->end[i->mark];
    }
}

static void
read_at(walk *w, fg_reg r, const fg_inst *by)
{
    int32_t at = (int32_t)by->mark;

    for (const fg_block *b = by->block; b != w->m->reg[r].block && b->owner;
         b = b->parent)
        if (b->owner->op == FG_OP_loop)
            at = w->end[b->owner->mark];
    if (at > w->range[r].last)
        w->range[r].last = at;
}

static void
reads(walk *w, fg_block *b)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nin; k++)
            if (i->in[k])
                read_at(w, i->in[k], i);
        if (has_blocks(i))
            for (int k = 0; k < i->nregion; k++)
                reads(w, i->region[k]);
    }
}

static int32_t
count(const fg_block *b)
{
    int32_t n = 0;

    fg_each_inst(b, i) {
        n += 2;
        if (has_blocks(i))
            for (int k = 0; k < i->nregion; k++)
                n += count(i->region[k]);
    }
    return n;
}

fg_liverange *
fg_liveness(fg_module *m, fg_arena *a)
{
    walk w = {m, FG_NEWN(a, fg_liverange, m->nreg), 0,
              FG_NEWN(a, int32_t, (size_t)count(m->body) + 1)};

    for (uint32_t r = 0; r < m->nreg; r++)
        w.range[r] = (fg_liverange){-1, -1};
    define(&w, m->body->nparam, m->body->param, 0);
    number(&w, m->body);
    reads(&w, m->body);
    return w.range;
}
