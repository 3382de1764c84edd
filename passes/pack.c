/* pack.c - weights of products in the form their kernels read.
 *
 *     %y = matmul %x, %w           =>    %p = panels %w {width=64}
 *                                        %y = matmul_panels %x, %p {n=3072}
 *
 * A panel is as many columns as a register tile, all rows of them one after the other: a
 * product reads it front to back, whether it has one row or a thousand. Read in place, the
 * rows of such columns are pages apart, and every run would gather them anew. Panels of a
 * constant are made once, before the first run, and take the place of what they were made
 * from, whose pages are given back. Sums over k keep their order.
 */
#include "codegen/target.h"
#include "passes/pass.h"
#include "passes/rewrite.h"

typedef struct pack {
    fg_module *m;
    fg_rewrite w;
    fg_reg *panels[2]; /* by weight register, plain and transposed */
    int64_t least;     /* elements: fewer stay in the cache whatever their form */
    int64_t waste;
} pack;

static bool
worth_it(const pack *p, const fg_inst *i, int64_t *n)
{
    fg_module *m = p->m;
    const fg_type *w = fg_rt(m, i->in[1]);
    bool trans = FG_GET(i, matmul, trans_b).i;
    int64_t k;

    if (!fg_is_op(fg_def(m, i->in[1]), FG_OP_const) || w->rank != 2 ||
        w->dtype != FG_f32 || FG_GET(i, matmul, trans_a).i ||
        FG_GET(i, matmul, round).i || !fg_e_const(m->ex, w->dim[trans], &k) ||
        !fg_e_const(m->ex, w->dim[!trans], n))
        return false;
    int64_t padded = (*n + FG_PANEL - 1) / FG_PANEL * FG_PANEL;
    return k * *n >= p->least && (padded - *n) * p->waste <= *n;
}

static fg_reg
panels_of(pack *p, fg_inst *i)
{
    fg_inst *w = fg_def(p->m, i->in[1]);
    bool trans = FG_GET(i, matmul, trans_b).i;
    fg_reg *known = &p->panels[trans][i->in[1]];

    if (*known)
        return *known;
    fg_build b = fg_build_before(w->next);
    b.nnode = w->nnode;
    b.node = w->node;
    fg_inst *cut = fg_inst_begin(&b, FG_OP_panels, 1, &i->in[1]);
    FG_SET(cut, panels, width).i = FG_PANEL;
    FG_SET(cut, panels, trans).i = trans;
    cut = fg_inst_finish(&b, cut, NULL, 0);
    return *known = cut ? cut->out[0] : 0;
}

static bool
pack_product(pack *p, fg_inst *i, int64_t n)
{
    fg_reg fresh = p->m->nreg, in[2] = {i->in[0], panels_of(p, i)};

    if (!in[1])
        return false;
    fg_build b = fg_build_before(i);
    fg_inst *y = fg_inst_begin(&b, FG_OP_matmul_panels, 2, in);
    FG_SET(y, matmul_panels, n).e = fg_ec(p->m->ex, n);
    if (!(y = fg_inst_finish(&b, y, NULL, 0)))
        return false;
    fg_rewrite_replace(&p->w, i, y->out[0], fresh);
    return true;
}

/* Only what every run runs: a branch that is not taken needs no panels. */
fg_progress
fg_pass_pack(fg_module *m, fg_passctx *cx)
{
    pack p = {.m = m,
              .w = fg_rewrite_new(m, cx->scratch),
              .least = (int64_t)cx->param[FG_PARAM_pack_least],
              .waste = (int64_t)cx->param[FG_PARAM_pack_waste]};
    int64_t n;

    for (int k = 0; k < 2; k++)
        p.panels[k] = FG_NEWN(cx->scratch, fg_reg, m->nreg);
    fg_each_inst(m->body, i) {
        fg_rewrite_operands(&p.w, i);
        if (i->op == FG_OP_matmul && worth_it(&p, i, &n) && !pack_product(&p, i, n))
            return FG_FAILED;
    }
    fg_rewrite_done(&p.w);
    return p.w.changed ? FG_CHANGED : FG_SAME;
}
