/* fuse_attention.c - raise scale, mask, softmax and the two products to one instruction.
 *
 *     %s = matmul %q, %k {trans_b=1}
 *     %t = mul %s, 0.125
 *     %u = add %t, %mask                    =>   %y = attention %q, %k, %v, %mask {scale=0.125}
 *     %p = softmax %u {axis=3}
 *     %y = matmul %p, %v
 *
 * A softmax below a product of two computed tensors is a candidate. From it the walk
 * (attention_walk.c) goes up to the product of Q and K and down to the product with V,
 * keeping what it stepped over; then the operands are brought to the shapes that the
 * instruction has (attention_emit.c). A step that does not fit ends the candidate with
 * the reason, which the report keeps. Nothing but the last product is removed: dce
 * collects what lost its reader.
 *
 * Finite fill values (finfo.min, -10000) are kept as what they are, a sum, so rows that
 * are masked throughout come out as they did.
 */
#include "passes/attention.h"
#include "passes/cost.h"

static void
note_uses(fg_attuses *u, fg_block *b)
{
    for (fg_inst *i = b->first; i; i = i->next) {
        for (int k = 0; k < i->nin; k++)
            if (u->count[i->in[k]]++ == 0 || i->op == FG_OP_isnan)
                u->first[i->in[k]] = i;
        for (int k = 0; k < i->nregion; k++)
            note_uses(u, i->region[k]);
    }
}

fg_attuses
fg_att_uses(fg_module *m, fg_arena *a)
{
    fg_attuses u = {m->nreg, FG_NEWN(a, uint32_t, m->nreg),
                    FG_NEWN(a, fg_inst *, m->nreg)};
    note_uses(&u, m->body);
    return u;
}

/* Within reach: a file must not make the search long. */
fg_inst *
fg_att_next_reader(const fg_inst *i, fg_reg r)
{
    enum { REACH = 4096 };
    int n = 0;
    for (fg_inst *u = i->next; u && n < REACH; u = u->next, n++)
        for (int k = 0; k < u->nin; k++)
            if (u->in[k] == r)
                return u;
    return NULL;
}

static int
count_fused(const fg_block *b)
{
    int n = 0;
    for (const fg_inst *i = b->first; i; i = i->next) {
        n += i->op == FG_OP_attention;
        for (int k = 0; k < i->nregion; k++)
            n += count_fused(i->region[k]);
    }
    return n;
}

/* ---- alpha -------------------------------------------------------------------------- */

/* alpha is the share of what fusing attention can gain that is taken: all candidates, and
 * what is fused already, count with the gain of the cost model; they fuse in order of the
 * program while the share lasts. */
typedef struct budget {
    fg_costs cost;
    double alpha, taken, left;
} budget;

static bool
is_candidate(fg_module *m, const fg_attuses *u, fg_inst *i)
{
    fg_attwalk w = {.m = m, .softmax = i, .uses = u};
    return i->op == FG_OP_softmax && u->count[i->out[0]] > 0 &&
           fg_rt(m, i->out[0])->rank > 0 && fg_att_leads_to_product(&w, i->in[0]);
}

static double
gain_of_softmax(const budget *b, const fg_inst *softmax)
{
    fg_reg r = softmax->out[0];
    return fg_gain_attention(fg_cost_count(&b->cost, r),
                             fg_dtypes[fg_rt(b->cost.m, r)->dtype].bits);
}

static void
count_gains(budget *b, const fg_attuses *u, fg_block *block)
{
    for (fg_inst *i = block->first; i; i = i->next) {
        if (i->op == FG_OP_attention)
            b->taken += fg_gain_attention_of(&b->cost, i);
        else if (is_candidate(b->cost.m, u, i))
            b->left += gain_of_softmax(b, i);
        for (int k = 0; k < i->nregion; k++)
            count_gains(b, u, i->region[k]);
    }
}

static bool
within(const budget *b, double gain)
{
    double most = b->alpha * (b->taken + b->left);
    return b->alpha >= 1 || b->taken + gain <= most * (1 + 1e-9);
}

/* ---- the pass ------------------------------------------------------------------------ */

static bool
try_fuse(fg_attwalk *w, budget *g, double gain)
{
    w->step = w->softmax;
    if (!within(g, gain))
        return fg_att_miss(
            w, "alpha is %g: the share of the gain that it allows is taken", g->alpha);
    if (!fg_att_walk_up(w) || !fg_att_walk_down(w) || !fg_att_emit(w))
        return false;
    g->taken += gain;
    g->left -= gain;
    return true;
}

/* The product is fused and goes; false: no other one reads the same probabilities. */
static bool
next_product(fg_attwalk *w, fg_attuses *u)
{
    fg_reg p = w->probabilities;
    u->first[p] = fg_att_next_reader(w->pv, p);
    u->count[p]--;
    fg_inst_remove(w->pv); /* lies behind the softmax; the rest is dce's */
    *w = (fg_attwalk){.m = w->m, .report = w->report, .softmax = w->softmax, .uses = u};
    return u->first[p] != NULL;
}

static void
note_miss(const fg_attwalk *w, fg_passctx *cx)
{
    const char *step = w->step == w->softmax
                           ? NULL
                           : fg_strdup(cx->scratch, fg_inst_where(w->m, w->step));
    fg_report_miss_at(cx->report, "fuse_attention", fg_inst_where(w->m, w->softmax), step,
                      w->reason);
}

/* Fuses what it can in b and below; how many it did, and *missed. */
static int
fuse_block(fg_block *b, fg_attuses *u, fg_passctx *cx, budget *g, int *missed)
{
    int fused = 0;
    for (fg_inst *i = b->first; i; i = i->next) {
        for (int k = 0; k < i->nregion; k++)
            fused += fuse_block(i->region[k], u, cx, g, missed);
        if (!is_candidate(b->m, u, i))
            continue;
        fg_attwalk w = {.m = b->m, .report = cx->report, .softmax = i, .uses = u};
        double gain = gain_of_softmax(g, i); /* of the scores, however many read them */
        do {
            if (!try_fuse(&w, g, gain)) {
                note_miss(&w, cx);
                ++*missed;
                break;
            }
            fg_report_fusion(cx->report, "attention");
            fused++;
            gain = 0;
        } while (next_product(&w, u));
    }
    return fused;
}

fg_progress
fg_pass_fuse_attention(fg_module *m, fg_passctx *cx)
{
    int missed = 0;
    fg_report_forget_misses(cx->report, "fuse_attention");
    bool changed = fg_att_respell(m, cx);
    fg_attuses u = fg_att_uses(m, cx->scratch);
    budget g = {.cost = fg_costs_new(m, cx->scratch),
                .alpha = cx->param[FG_PARAM_fuse_attention_alpha]};
    count_gains(&g, &u, m->body);
    int fused = fuse_block(m->body, &u, cx, &g, &missed);
    changed |= fg_att_limits(m, cx);
    cx->report->attention_gain = g.taken;
    cx->report->attention_gain_left = g.left;
    cx->report->attention_fused = count_fused(m->body);
    cx->report->attention_candidates = cx->report->attention_fused + missed;
    return fused || changed ? FG_CHANGED : FG_SAME;
}
