/* kernel.c - a kernel as a C function, and the line that calls it.
 *
 *     static void
 *     k0_gather_add(int64_t batch, const float *restrict a0, ..)
 *
 * What the region computes is pulled into the loops of its results; instructions with loops of their
 * own, and what they read again and again, are arrays.
 */
#include "codegen/c/module.h"

/* Has to be in an array: its consumer reads it again and again, or in loops of its own. */
static bool
is_kept(cc_module *x, const fg_block *b, const fg_inst *i)
{
    fg_reg r = i->out[0];

    if (!cc_pulled(i->op))
        return true;
    if (cc_is_cheap(&x->c, r) || i->op == FG_OP_symvec)
        return false;
    fg_each_inst(b, u) {
        for (int k = 0; k < u->nin; k++) {
            fg_reg in = u->in[k];
            const fg_inst *d = fg_def(x->c.m, in);
            /* Through views: what counts is who computes it. */
            while (in != r && d && fg_op_is(d->op, FG_T_VIEW) && d->block == b) {
                in = d->in[0];
                d = fg_def(x->c.m, in);
            }
            if (in == r && !cc_pulled(u->op) && u->op != FG_OP_yield &&
                !fg_e_is(x->c.m->ex, fg_type_count(x->c.m->ex, fg_rt(x->c.m, r)), 1))
                return true;
        }
    }
    return false;
}

static void
store_all(cc_module *x, fg_reg r, const char *target)
{
    cc *c = &x->c;
    const fg_type *t = fg_rt(c->m, r);
    cc_index at;
    int open = cc_for_all(c, t, 0, at);

    if (!open)
        cc_open(c, "%s", "");
    cc_store(c, target, t, at, cc_value(c, r, at));
    cc_close_all(c, open ? open : 1);
}

/* The first output of the kernel that is register r; -1: none. */
static int
output_of(const fg_block *b, fg_reg r)
{
    for (int k = 0; k < b->last->nin; k++)
        if (b->last->in[k] == r)
            return k;
    return -1;
}

static const char *
output_name(cc_module *x, int k)
{
    return fg_format(x->c.a, "y%d", k);
}

/* A constant of one element is a literal where it is used; others are parameters. */
static bool
weight_parameter(cc_module *x, const fg_inst *i)
{
    cc *c = &x->c;
    const fg_type *t = fg_rt(c->m, i->out[0]);

    if (fg_e_is(c->m->ex, fg_type_count(c->m->ex, t), 1))
        return false;
    const char *w = cc_new_weight(x, FG_GET(i, const, w).i, t);
    c->array[i->out[0]] = cc_add_param(
        c, fg_format(c->a, "const %s *restrict ", cc_store_type(t->dtype)), w, w);
    return true;
}

/* The results of an instruction to arrays, outputs of the kernel where they are. */
static bool
print_inst(cc_module *x, const fg_block *b, const fg_inst *i, bool *stored)
{
    cc *c = &x->c;
    const char **target = FG_NEWN(c->a, const char *, (size_t)i->nout);

    for (int k = 0; k < i->nout; k++) {
        int y = output_of(b, i->out[k]);
        target[k] = y < 0 ? cc_temp(c, fg_rt(c->m, i->out[k])) : output_name(x, y);
        if (y >= 0)
            stored[y] = true;
    }
    if (cc_pulled(i->op))
        store_all(x, i->out[0], target[0]);
    else if (!cc_nest(c, i, target))
        return false;
    for (int k = 0; k < i->nout; k++)
        c->array[i->out[k]] = target[k];
    return true;
}

static void
print_region(cc_module *x, const fg_inst *kernel)
{
    cc *c = &x->c;
    const fg_block *b = kernel->region[0];
    bool *stored = FG_NEWN(c->a, bool, (size_t)kernel->nout + 1);

    fg_each_inst(b, i) {
        if (i->op == FG_OP_yield || c->failed)
            break;
        if (i->op == FG_OP_const && weight_parameter(x, i))
            continue;
        if (output_of(b, i->out[0]) < 0 && !is_kept(x, b, i))
            continue;
        if (!print_inst(x, b, i, stored))
            return;
    }
    for (int k = 0; k < b->last->nin && !c->failed; k++)
        if (!stored[k])
            store_all(x, b->last->in[k], output_name(x, k));
}

static const char *
array_type(cc_module *x, fg_reg r, bool read)
{
    return fg_format(x->c.a, "%s%s *restrict ", read ? "const " : "",
                     cc_store_type(fg_rt(x->c.m, r)->dtype));
}

/* The sizes that a text mentions, as parameters or arguments in front of others. */
static void
put_sizes(cc_module *x, fg_text *o, const char *text, const char *type)
{
    for (uint32_t s = 0; s < fg_sym_count(x->c.m->ex); s++)
        if (x->c.symbol[s] && cc_mentions(text, x->c.symbol[s]))
            fg_putf(o, "%s%s, ", type, x->c.symbol[s]);
}

static void
put_function(cc_module *x, const fg_inst *k, const char *name)
{
    cc *c = &x->c;
    fg_text *o = &x->kernels, args = fg_text_new(c->a);

    fg_puts(o, "/* ");
    for (int n = 0; n < k->nnode; n++) {
        fg_puts(o, n ? ",\n * " : "");
        cc_put_comment(o, k->node[n]);
    }
    fg_putf(o, "%s */\nstatic void\n%s(", k->nnode ? "" : "made by the compiler", name);
    put_sizes(x, o, c->body.s, "int64_t ");
    put_sizes(x, &args, c->body.s, "");
    for (size_t p = 0; p < c->nparam; p++) {
        fg_putf(o, "%s%s%s", p ? ", " : "", c->param[p].type, c->param[p].name);
        fg_putf(&args, "%s%s", p ? ", " : "", c->param[p].actual);
    }
    fg_putf(o, ")\n{\n%s}\n\n", c->body.s);
    cc_call(x, "%s(%s);", name, args.s);
}

void
cc_put_kernel(cc_module *x, const fg_inst *k)
{
    cc *c = &x->c;
    const fg_block *b = k->region[0];

    c->kernel = k;
    c->body = fg_text_new(c->a);
    c->depth = 1;
    c->nvalue = 0;
    c->nmemo = c->nparam = 0;
    for (int p = 0; p < k->nin; p++) {
        c->array[b->param[p]] = fg_format(c->a, "a%d", p);
        cc_add_param(c, array_type(x, b->param[p], true), c->array[b->param[p]],
                     x->place[k->in[p]]);
    }
    for (int p = 0; p < k->nout; p++) {
        cc_declare(x, k->out[p], k->nnode ? k->node[0] : "");
        if (x->slot[k->out[p]])
            cc_fit(x, k->out[p], cc_bytes(x, fg_rt(c->m, k->out[p])));
        cc_add_param(c, array_type(x, k->out[p], false), output_name(x, p),
                     x->place[k->out[p]]);
    }
    print_region(x, k);
    if (!c->failed)
        put_function(x, k,
                     fg_format(c->a, "k%d_%s", x->nkernel++,
                               cc_clean(x, FG_GET(k, kernel, name).s)));
}
