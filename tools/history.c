/* history.c - what became of each node of the model, pass by pass.
 *
 *     import            %12 = matmul %9, %w : f32[B,S,64]
 *     fuse_ops, round 1 in kernel %14: %3 = matmul %1, %2 : f32[B,S,64]
 *
 * An instruction carries the names of the nodes it stands for. After each pass that
 * changed the module all instructions are read again; a node whose lines are not those of
 * the last time gets an event. So whatever a pass does is seen without the pass knowing.
 */
#include "tools/history.h"

#include <stdlib.h>

history
history_new(fg_arena *a)
{
    return (history){.a = a};
}

/* ---- nodes by name ------------------------------------------------------------------- */

static uint32_t *
slot_of(const history *h, const char *name)
{
    size_t k = fg_hash(&name, sizeof name, 0) & (h->nslot - 1);

    while (h->slot[k] && h->node[h->slot[k] - 1].name != name)
        k = (k + 1) & (h->nslot - 1);
    return &h->slot[k];
}

static history_node *
node_of(history *h, const char *name, const char *op)
{
    if ((size_t)h->n * 2 >= h->nslot) {
        h->nslot = h->nslot ? h->nslot * 2 : 1024;
        h->slot = FG_NEWN(h->a, uint32_t, h->nslot);
        for (int k = 0; k < h->n; k++)
            *slot_of(h, h->node[k].name) = (uint32_t)k + 1;
    }
    uint32_t *slot = slot_of(h, name);
    if (!*slot) {
        FG_PUSH(h->a, h->node, h->n, h->cap) = (history_node){.name = name, .op = op};
        *slot = (uint32_t)h->n;
    }
    return &h->node[*slot - 1];
}

const history_node *
history_find(const history *h, const char *name)
{
    return h->n && *slot_of(h, name) ? &h->node[*slot_of(h, name) - 1] : NULL;
}

/* ---- reading a module ------------------------------------------------------------------ */

static void
read_block(history *h, const fg_block *b)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nnode && i->op != FG_OP_kernel; k++) {
            history_node *n = node_of(h, i->node[k], "");
            FG_PUSH(h->a, n->now, n->nnow, n->capnow) = i;
        }
        for (int k = 0; k < i->nregion; k++)
            read_block(h, i->region[k]);
    }
}

static void
put_line(fg_text *t, fg_module *m, const fg_inst *i)
{
    const fg_inst *owner = i->block->owner;
    fg_inst bare = *i;

    bare.nnode = 0;
    bare.nregion = 0;
    if (owner && owner->nout)
        fg_putf(t, "in %s %%%s: ", fg_op_info(owner->op)->name,
                m->reg[owner->out[0]].name);
    fg_print_inst(t, m, &bare, 0);
}

/* ---- events ---------------------------------------------------------------------------- */

void
history_note(history *h, fg_module *m, const char *pass, int round)
{
    bool first = !h->n;

    for (int k = 0; k < m->norigin && first; k++)
        node_of(h, m->origin[k].name, m->origin[k].op);
    read_block(h, m->body);
    for (int k = 0; k < h->n; k++) {
        history_node *n = &h->node[k];
        fg_text t = fg_text_new(h->a);
        for (int j = 0; j < n->nnow; j++)
            put_line(&t, m, n->now[j]);
        while (t.n && t.s[t.n - 1] == '\n')
            t.s[--t.n] = 0;
        n->nnow = 0;
        if (!n->nevent || strcmp(n->event[n->nevent - 1].text, t.s))
            FG_PUSH(h->a, n->event, n->nevent, n->capevent) =
                (history_event){fg_intern(m->cx, pass), round, t.s};
    }
}

/* ---- the user's spelling ----------------------------------------------------------------- */

const history_node *
history_named(const history *h, fg_ctx *cx, const char *name)
{
    const history_node *found = NULL;
    fg_text others = fg_text_new(h->a);
    int n = 0;

    for (int k = 0; k < h->n; k++) {
        if (!strcmp(h->node[k].name, name))
            return &h->node[k];
        if (!strstr(h->node[k].name, name))
            continue;
        found = &h->node[k];
        if (n++ < 4)
            fg_putf(&others, "%s\"%s\"", others.n ? ", " : "", found->name);
    }
    if (n == 1)
        return found;
    const char *near =
        n ? NULL : fg_closest(name, strlen(name), h->node, (size_t)h->n, sizeof *h->node);
    if (n)
        fg_error(cx, "%d nodes have \"%s\" in their name: %s%s", n, name, others.s,
                 n > 4 ? ", .." : "");
    else
        fg_error(cx, "no node is called \"%s\"%s%s%s", name,
                 near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    return NULL;
}
