/* dump_dot.c - the graph of a FUSED module for Graphviz: a cluster per kernel, an edge per
 * value; constants are left out, they would hide the rest. */
#include "tools/dump.h"

const char *
dump_kernel_name(const fg_inst *kernel)
{
    return *FG_GET(kernel, kernel, name).s ? FG_GET(kernel, kernel, name).s : "kernel";
}

static void
put_escaped(fg_text *o, const char *s)
{
    for (; *s; s++)
        fg_putf(o, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
}

static void
put_node(fg_text *o, fg_module *m, const fg_inst *i)
{
    fg_text type = fg_text_new(o->a);

    fg_putf(o, "n%u [label=\"%s", i->mark, fg_op_info(i->op)->name);
    if (i->nout) {
        fg_put_type(&type, m->ex, fg_rt(m, i->out[0]));
        fg_puts(o, "\\n");
        put_escaped(o, type.s);
    }
    fg_puts(o, "\"];\n");
}

/* Instructions are numbered in `mark`; those with blocks are clusters around themselves. */
static void
put_block(fg_text *o, fg_module *m, const fg_block *b, uint32_t *number, int depth)
{
    fg_each_inst(b, i) {
        i->mark = ++*number;
        if (i->op == FG_OP_const || i->op == FG_OP_yield)
            continue;
        fg_putf(o, "%*s", 2 * depth, "");
        if (!i->nregion) {
            put_node(o, m, i);
            continue;
        }
        fg_putf(o, "subgraph cluster_%u {\n%*slabel=\"", i->mark, 2 * depth + 2, "");
        put_escaped(o, i->op == FG_OP_kernel ? dump_kernel_name(i)
                                             : fg_op_info(i->op)->name);
        for (int k = 0; k < i->nnode && k < 2; k++) {
            fg_puts(o, "\\n");
            put_escaped(o, i->node[k]);
        }
        fg_puts(o, i->nnode > 2 ? "\\n..\";\n" : "\";\n");
        if (i->op != FG_OP_kernel) {
            fg_putf(o, "%*s", 2 * depth + 2, "");
            put_node(o, m, i);
        }
        for (int k = 0; k < i->nregion; k++)
            put_block(o, m, i->region[k], number, depth + 1);
        fg_putf(o, "%*s}\n", 2 * depth, "");
    }
}

/* What r is outside of kernels: a parameter of one is its operand. */
static fg_reg
outside(fg_module *m, fg_reg r)
{
    for (;;) {
        const fg_block *b = m->reg[r].block;
        int k = 0;
        if (m->reg[r].def || !b->owner || b->owner->op != FG_OP_kernel)
            return r;
        while (b->param[k] != r)
            k++;
        r = b->owner->in[k];
    }
}

/* The instruction that computes r: inside the kernel when a kernel does. NULL: a parameter of
 * @main. */
static const fg_inst *
maker(fg_module *m, fg_reg r)
{
    for (;;) {
        r = outside(m, r);
        const fg_inst *i = fg_def(m, r);
        if (!i)
            return m->reg[r].block->owner;
        if (i->op != FG_OP_kernel)
            return i;
        int k = 0;
        while (i->out[k] != r)
            k++;
        r = i->region[0]->last->in[k];
    }
}

static void
put_edges(fg_text *o, fg_module *m, const fg_block *b)
{
    fg_each_inst(b, i) {
        uint32_t to = i->op == FG_OP_yield ? b->owner->mark : i->mark;
        bool drawn = i->op != FG_OP_kernel && i->op != FG_OP_const &&
                     (i->op != FG_OP_yield || b->owner->op != FG_OP_kernel);
        for (int k = 0; k < i->nin && drawn; k++) {
            if (!i->in[k])
                continue;
            const fg_inst *from = maker(m, i->in[k]);
            if (from && from->op != FG_OP_const)
                fg_putf(o, "  n%u -> n%u;\n", from->mark, to);
            else if (!from)
                fg_putf(o, "  p%u -> n%u;\n", outside(m, i->in[k]), to);
        }
        for (int k = 0; k < i->nregion; k++)
            put_edges(o, m, i->region[k]);
    }
}

void
dump_dot(fg_text *o, fg_module *m)
{
    uint32_t number = 0;

    fg_puts(o, "digraph main {\n  node [shape=box, fontname=\"monospace\"];\n"
               "  graph [fontname=\"monospace\", style=filled, color=\"#e8eef7\"];\n");
    for (int k = 0; k < m->body->nparam; k++) {
        fg_putf(o, "  p%u [shape=ellipse, label=\"", m->body->param[k]);
        put_escaped(o, fg_ri(m, m->body->param[k])->name);
        fg_puts(o, "\"];\n");
    }
    put_block(o, m, m->body, &number, 1);
    put_edges(o, m, m->body);
    fg_puts(o, "}\n");
}
