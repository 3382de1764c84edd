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
 *
 * An embedding that is tied to the logits is looked up in the panels too, so that a file
 * that holds them needs no second copy:
 *
 *     %e = gather %w, %ids            =>    %t = transpose %p {perm=[0,2,1]}
 *     %y = matmul %x, %w {trans_b=1}        %r = reshape %t          all rows, and padding
 *                                           %s = slice %r
 *                                           %e = gather %s, %ids     one kernel, no copy
 *
 * Activations are brought into the form that packed weights meet: see round_rows.c.
 */
#include "codegen/target.h"
#include "passes/pass.h"
#include "passes/rewrite.h"
#include "passes/round_rows.h"

typedef struct pack {
    fg_module *m;
    fg_rewrite w;
    fg_reg *panels[2]; /* by weight register, plain and transposed */
    uint32_t
        *other; /* by weight register: readers that transposed panels would not serve */
    bool *product; /* by weight register: one that they serve is a product */
    int64_t least; /* elements: fewer stay in the cache whatever their form */
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
panels_of(pack *p, fg_reg weight, bool trans)
{
    fg_inst *w = fg_def(p->m, weight);
    fg_reg *known = &p->panels[trans][weight];

    if (*known)
        return *known;
    fg_build b = fg_build_before(w->next);
    b.nnode = w->nnode;
    b.node = w->node;
    fg_inst *cut = fg_inst_begin(&b, FG_OP_panels, 1, &weight);
    FG_SET(cut, panels, width).i = FG_PANEL;
    FG_SET(cut, panels, trans).i = trans;
    cut = fg_inst_finish(&b, cut, NULL, 0);
    return *known = cut ? cut->out[0] : 0;
}

static bool
pack_product(pack *p, fg_inst *i, int64_t n)
{
    fg_reg fresh = p->m->nreg,
           in[2] = {i->in[0], panels_of(p, i->in[1], FG_GET(i, matmul, trans_b).i)};

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

/* ---- lookups ---------------------------------------------------------------------------- */

static bool
looks_up_rows(const fg_module *m, const fg_inst *i)
{
    return i->op == FG_OP_gather && FG_GET(i, gather, axis).i == 0 &&
           fg_is_op(fg_def(m, i->in[0]), FG_OP_const);
}

static void
count_readers(pack *p, fg_arena *a)
{
    int64_t n;

    p->other = fg_count_uses(p->m, a);
    p->product = FG_NEWN(a, bool, p->m->nreg);
    fg_each_inst(p->m->body, i) {
        if (looks_up_rows(p->m, i)) {
            p->other[i->in[0]]--;
        } else if (i->op == FG_OP_matmul && FG_GET(i, matmul, trans_b).i &&
                   worth_it(p, i, &n)) {
            p->other[i->in[1]]--;
            p->product[i->in[1]] = true;
        }
    }
}

static bool
pack_lookup(pack *p, fg_inst *i)
{
    static const int64_t perm[] = {0, 2, 1};
    fg_exprs *x = p->m->ex;
    const fg_type *w = fg_rt(p->m, i->in[0]);
    fg_expr rows = w->dim[0], columns = w->dim[1];
    fg_reg fresh = p->m->nreg, panels = panels_of(p, i->in[0], true);
    fg_build b = fg_build_before(i);
    fg_reg t = fg_emit_transpose(&b, panels, perm);

    if (!t)
        return false;
    fg_expr all = fg_emul(x, fg_rt(p->m, panels)->dim[0], fg_ec(x, FG_PANEL));
    t = fg_emit_reshape(&b, t, 2, (fg_expr[]){all, columns});
    t = fg_emit_slice_axis(&b, t, 0, fg_ec(x, 0), rows);
    t = fg_emit_gather(&b, t, i->in[1], 0);
    if (!t)
        return false;
    fg_rewrite_replace(&p->w, i, t, fresh);
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

    if (!fg_round_rows(m, cx->scratch, &p.w.changed))
        return FG_FAILED;
    for (int k = 0; k < 2; k++)
        p.panels[k] = FG_NEWN(cx->scratch, fg_reg, m->nreg);
    count_readers(&p, cx->scratch);
    fg_each_inst(m->body, i) {
        bool ok = true;
        fg_rewrite_operands(&p.w, i);
        if (i->op == FG_OP_matmul && worth_it(&p, i, &n))
            ok = pack_product(&p, i, n);
        else if (looks_up_rows(m, i) && p.product[i->in[0]] && !p.other[i->in[0]])
            ok = pack_lookup(&p, i);
        if (!ok)
            return FG_FAILED;
    }
    fg_rewrite_done(&p.w);
    return p.w.changed ? FG_CHANGED : FG_SAME;
}
