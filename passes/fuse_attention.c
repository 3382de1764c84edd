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

static bool
try_fuse(fg_attwalk *w, const fg_passctx *cx)
{
    w->step = w->softmax;
    double alpha = cx->param[FG_PARAM_fuse_attention_alpha];
    if (alpha <= 0)
        return fg_att_miss(w, "alpha is %g", alpha);
    return fg_att_walk_up(w) && fg_att_walk_down(w) && fg_att_emit(w);
}

/* Fuses what it can in b and below; how many it did, and *missed. */
static int
fuse_block(fg_block *b, const fg_attuses *u, fg_passctx *cx, int *missed)
{
    fg_module *m = b->m;
    int fused = 0;
    for (fg_inst *i = b->first; i; i = i->next) {
        for (int k = 0; k < i->nregion; k++)
            fused += fuse_block(i->region[k], u, cx, missed);
        if (i->op != FG_OP_softmax || u->count[i->out[0]] == 0 ||
            !fg_rt(m, i->out[0])->rank)
            continue;
        fg_attwalk w = {.m = m, .softmax = i, .uses = u};
        if (!fg_att_leads_to_product(&w, i->in[0]))
            continue;
        if (try_fuse(&w, cx)) {
            fg_report_fusion(cx->report, "attention");
            fg_inst_remove(w.pv); /* lies behind i; the rest is dce's */
            fused++;
        } else {
            const char *step =
                w.step == i ? NULL : fg_strdup(cx->scratch, fg_inst_where(m, w.step));
            fg_report_miss_at(cx->report, "fuse_attention", fg_inst_where(m, i), step,
                              w.reason);
            ++*missed;
        }
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
    int fused = fuse_block(m->body, &u, cx, &missed);
    cx->report->attention_fused = count_fused(m->body);
    cx->report->attention_candidates = cx->report->attention_fused + missed;
    return fused || changed ? FG_CHANGED : FG_SAME;
}
