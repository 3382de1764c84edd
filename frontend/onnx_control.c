/* onnx_control.c - If, and what it shares with loops.
 *
 *     %h = if %c : f32[u0,8] {  !"/If"
 *       yield %a                      ; f32[4,8]
 *     } else {
 *       yield %b                      ; f32[S,8]
 *     }
 *
 * A condition that is known picks its branch now; otherwise both branches become regions, and
 * where their results differ in size, the result's size is a run-time symbol.
 *
 * Branches whose results differ in rank under a condition about sizes are how exporters write a
 * squeeze of an axis that they know no size of: what follows was traced with the axis gone. The
 * branch of the lower rank is taken, and a run whose sizes ask for the other is refused.
 */
#include "frontend/model.h"

enum { MAX_VALUES = 4096 };

/* ---- attempts ------------------------------------------------------------------------- */

fg_attempt
fg_attempt_begin(fg_import *im)
{
    return (fg_attempt){im->cx->last_diag, im->cx->nerror, im->f->nbad, im->m->onnx_nodes,
                        im->m->nrelied};
}

void
fg_attempt_undo(fg_import *im, fg_attempt t)
{
    if (t.last)
        t.last->next = NULL;
    else
        im->cx->diags = NULL;
    im->cx->last_diag = t.last;
    im->cx->nerror = t.nerror;
    im->f->nbad = t.nbad;
    im->m->onnx_nodes = t.nodes;
    im->m->nrelied = t.nrelied;
    im->m->nunsolved = 0;
    im->failed = im->unsupported = false;
}

/* ---- values --------------------------------------------------------------------------- */

bool
fg_any_poison(int n, const fg_reg *r)
{
    for (int i = 0; i < n; i++)
        if (r[i] == FG_POISON)
            return true;
    return false;
}

bool
fg_all_poison(fg_node *n)
{
    for (int k = 0; k < n->nout; k++)
        n->out[k] = FG_POISON;
    return true;
}

/* A bool or integer scalar whose value is known. */
bool
fg_known_scalar(fg_node *n, fg_reg r, int64_t *v)
{
    const fg_reginfo *ri = fg_ri(n->m, r);
    if (ri->sym && ri->nsym == 1)
        return fg_e_const(n->ex, ri->sym[0], v);
    return fg_const_i64(n->m, r, 0, v);
}

/* Operand as rank 0; one element is what counts. */
fg_reg
fg_one_element(fg_node *n, fg_build *b, fg_reg r, fg_dtype d, const char *what)
{
    const fg_type *t = fg_rt(n->m, r);
    if (t->dtype != d || !fg_e_is(n->ex, fg_type_count(n->ex, t), 1)) {
        fg_node_error(n, "%s must be one %s, not %s", what, fg_dtypes[d].name,
                      fg_type_text(n->m, t));
        return 0;
    }
    return fg_emit_reshape(b, r, 0, NULL);
}

fg_expr
fg_fresh_dim(fg_node *n, int64_t lo, int64_t hi, int64_t *syms, int *nsym)
{
    fg_sym s = fg_sym_new(n->ex, NULL, FG_SYM_RUN, lo, hi);
    syms[(*nsym)++] = s;
    return fg_es(n->ex, s);
}

/* ---- If ------------------------------------------------------------------------------- */

static bool
merge_types(fg_node *n, const fg_reg *then_r, const fg_reg *else_r, int nout,
            fg_type *out, int64_t *syms, int *nsym)
{
    for (int k = 0; k < nout; k++) {
        const fg_type *a = fg_rt(n->m, then_r[k]), *b = fg_rt(n->m, else_r[k]);
        if (a->dtype == FG_NODTYPE || b->dtype == FG_NODTYPE)
            return fg_node_unsupported(n, "output %d is a sequence of tensors", k);
        if (a->dtype != b->dtype)
            return fg_node_error(n, "output %d is %s in one branch and %s in the other",
                                 k, fg_type_text(n->m, a), fg_type_text(n->m, b));
        if (a->rank != b->rank)
            return fg_node_unsupported(
                n, "output %d has rank %d in one branch and %d in the other", k, a->rank,
                b->rank);
        out[k] = *a;
        for (int d = 0; d < a->rank; d++) {
            fg_expr x = a->dim[d], y = b->dim[d];
            int64_t xl = fg_e_lo(n->ex, x), yl = fg_e_lo(n->ex, y),
                    lo = xl < yl ? xl : yl;
            int64_t xh = fg_e_hi(n->ex, x), yh = fg_e_hi(n->ex, y),
                    hi = xh > yh ? xh : yh;
            if (x != y)
                out[k].dim[d] = fg_fresh_dim(n, lo < 0 ? 0 : lo, hi, syms, nsym);
        }
    }
    return true;
}

bool
fg_import_yield(fg_build *b, int n, const fg_reg *r)
{
    return fg_inst_finish(b, fg_inst_begin(b, FG_OP_yield, n, r), NULL, 0) != NULL;
}

/* The branch whose results are never of a higher rank than the other's, and once of a lower. */
static int
lower_rank(fg_node *n, fg_reg *const res[2], int nout)
{
    bool lower[2] = {false, false};
    for (int k = 0; k < nout; k++) {
        int a = fg_rt(n->m, res[0][k])->rank, b = fg_rt(n->m, res[1][k])->rank;
        if (a != b)
            lower[a > b] = true;
    }
    return lower[0] == lower[1] ? -1 : lower[1];
}

/* One branch in place of both. */
static bool
only_branch(fg_node *n, fg_scope *s, const Onnx__GraphProto *const g[2], int taken)
{
    fg_reg *res = FG_NEWN(n->im->tmp, fg_reg, g[0]->n_output);
    if (!fg_import_subgraph(s, n->b, g[taken], 0, NULL, res))
        return false;
    n->m->onnx_nodes += fg_graph_nodes(g[!taken]);
    for (int k = 0; k < n->nout; k++)
        n->out[k] = res[k];
    return true;
}

/* The branch that squeezes. It is imported first: most often it says itself, of a size and
 * not of a comparison, what the condition does. */
static bool
squeezing_branch(fg_node *n, fg_scope *s, fg_reg cond, const Onnx__GraphProto *const g[2],
                 int taken)
{
    if (!only_branch(n, s, g, taken))
        return false;
    if (fg_require(n->b, fg_ri(n->m, cond)->sym[0], fg_ec(n->ex, !taken)))
        return true;
    return fg_node_error(n,
                         "its branches differ in rank, and the sizes that the branch of "
                         "the lower rank implies contradict the condition");
}

/* *lower: the branch to take alone, where ranks differ and a condition about sizes decides. */
static bool
branches(fg_node *n, fg_scope *s, fg_reg cond, const Onnx__GraphProto *const g[2],
         int *lower)
{
    fg_module *m = n->m;
    int nout = (int)g[0]->n_output, nsym = 0;
    fg_reg *res[2];
    bool poison = false;
    if (!(cond = fg_one_element(n, n->b, cond, FG_bool, "the condition")))
        return false;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_if, 1, &cond);
    i->region = FG_NEWN(m->a, fg_block *, 2);
    i->nregion = 2;
    i->block = n->b->block;
    for (int k = 0; k < 2; k++) {
        res[k] = FG_NEWN(n->im->tmp, fg_reg, (size_t)nout);
        i->region[k] = fg_block_new(m, i, n->b->block);
        fg_build rb = fg_build_end(i->region[k]);
        rb.node = n->b->node;
        rb.nnode = n->b->nnode;
        m->conditional++;
        bool ok = fg_import_subgraph(s, &rb, g[k], 0, NULL, res[k]);
        m->conditional--;
        if (!ok)
            return false;
        if (fg_any_poison(nout, res[k]))
            poison = true;
        else if (!fg_import_yield(&rb, nout, res[k]))
            return false;
    }
    if (poison)
        return fg_all_poison(n);
    const fg_reginfo *about = fg_ri(m, cond);
    if (about->sym && about->nsym == 1 && (*lower = lower_rank(n, res, nout)) >= 0)
        return false;
    fg_type *types = FG_NEWN(m->a, fg_type, (size_t)nout);
    int64_t *syms = FG_NEWN(m->a, int64_t, (size_t)nout *FG_MAXRANK);
    if (!merge_types(n, res[0], res[1], nout, types, syms, &nsym))
        return false;
    fg_set_ints(m, &FG_SET(i, if, syms), nsym, syms);
    if (!fg_inst_finish(n->b, i, types, nout))
        return false;
    for (int k = 0; k < n->nout && k < nout; k++)
        n->out[k] = i->out[k];
    return true;
}

bool
fg_import_if(fg_node *n, fg_scope *s)
{
    fg_reg cond = fg_need(n, 0);
    const Onnx__GraphProto *g[2] = {fg_attr_graph(n, "then_branch"),
                                    fg_attr_graph(n, "else_branch")};
    int64_t v;
    int lower = -1;
    if (!cond || !g[0] || !g[1])
        return false;
    if (g[0]->n_output != g[1]->n_output || g[0]->n_output > MAX_VALUES ||
        (size_t)n->nout > g[0]->n_output)
        return fg_node_error(n, "has %d outputs, its branches %zu and %zu", n->nout,
                             g[0]->n_output, g[1]->n_output);
    if (fg_known_scalar(n, cond, &v))
        return only_branch(n, s, g, v ? 0 : 1);
    fg_attempt start = fg_attempt_begin(n->im);
    if (branches(n, s, cond, g, &lower))
        return true;
    if (lower < 0)
        return false;
    fg_attempt_undo(n->im, start);
    return squeezing_branch(n, s, cond, g, lower);
}
