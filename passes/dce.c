/* dce.c - drop instructions whose result nobody reads.
 *
 *     %a = exp %x                            ; no reader
 *     readsym %x {sym=u0}                    ; no type or attribute mentions u0
 *     %y = neg %x                      =>    %y = neg %x
 *     ret %y                                 ret %y
 *
 * One walk from the end meets every reader of a register, and every mention of a run-time
 * symbol, before its definition; a region is walked where its owner stands, so what it
 * reads from outside is live above. `if` and `loop` have no effect but their results and
 * symbols, so they go when neither is used.
 */
#include "passes/pass.h"

typedef struct live {
    fg_module *m;
    fg_bits reg, sym;
    fg_progress did;
} live;

static void
mark_exprs(live *l, const fg_expr *e, int n)
{
    for (int k = 0; k < n; k++)
        if (e[k] != FG_E_BAD)
            fg_e_symbols(l->m->ex, e[k], l->sym);
}

static void
mark_type(live *l, fg_reg r)
{
    const fg_type *t = fg_rt(l->m, r);
    mark_exprs(l, t->dim, t->rank);
}

static void
mark(live *l, const fg_inst *i)
{
    const fg_opinfo *info = fg_op_info(i->op);
    for (int k = 0; k < info->nattr; k++) {
        fg_attrkind kind = fg_attrs[info->attr0 + k].kind;
        if (kind == FG_AK_expr)
            mark_exprs(l, &i->attr[k].e, 1);
        else if (kind == FG_AK_exprs)
            mark_exprs(l, i->attr[k].es, i->attr[k].n);
    }
    for (int k = 0; k < i->nin; k++)
        if (i->in[k])
            fg_bits_add(l->reg, i->in[k]);
    for (int k = 0; k < i->nout; k++)
        mark_type(l, i->out[k]);
}

static bool
is_live(const live *l, const fg_inst *i)
{
    for (int k = 0; k < i->nout; k++)
        if (fg_bits_has(l->reg, i->out[k]))
            return true;
    if (i->op == FG_OP_require)
        return FG_GET(i, require, a).e != FG_GET(i, require, b).e;
    /* A symbol that was found to equal others is not mentioned, but what the data says of it
     * is still to be compared. */
    if (i->op == FG_OP_readsym)
        return fg_bits_has(l->sym, (uint32_t)FG_GET(i, readsym, sym).i) ||
               fg_sym_info(l->m->ex, (fg_sym)FG_GET(i, readsym, sym).i)->is;
    const fg_attr *syms = i->op == FG_OP_if     ? &FG_GET(i, if, syms)
                          : i->op == FG_OP_loop ? &FG_GET(i, loop, syms)
                                                : NULL;
    for (int k = 0; syms && k < syms->n; k++)
        if (fg_bits_has(l->sym, (uint32_t)syms->is[k]))
            return true;
    return !syms && fg_has_effect(i);
}

static void
walk(live *l, fg_block *b)
{
    fg_each_inst_back(b, i) {
        if (!is_live(l, i)) {
            fg_inst_remove(i);
            l->did = FG_CHANGED;
            continue;
        }
        mark(l, i);
        for (int k = 0; k < i->nregion; k++)
            walk(l, i->region[k]);
    }
    for (int k = 0; k < b->nparam; k++)
        mark_type(l, b->param[k]);
}

fg_progress
fg_pass_dce(fg_module *m, fg_passctx *cx)
{
    live l = {
        .m = m,
        .reg = fg_bits_new(cx->scratch, m->nreg),
        .sym = fg_bits_new(cx->scratch, fg_sym_count(m->ex) + 1),
        .did = FG_SAME,
    };
    walk(&l, m->body);
    return l.did;
}
