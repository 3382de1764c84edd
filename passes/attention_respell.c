/* attention_respell.c - attention that is written in another way, as the walk knows it.
 *
 *     %m = reduce_max %x {axes=[3], keep=1}
 *     %e = exp (sub %x, %m)                        =>  %p = softmax %x {axis=3}
 *     %p = div %e, (reduce_sum %e {axes=[3], keep=1})
 *
 *     %p = sub %p1, (mul %p2, %lambda)             =>  %y1 = matmul %p1, %v
 *     %y = matmul %p, %v                               %y2 = matmul (mul %p2, %lambda), %v
 *                                                      %y = sub %y1, %y2
 *
 * The second spends a product to keep two maps of probabilities out of memory: it is done
 * when both sides would fuse.
 */
#include "passes/attention.h"

enum { FIRST_RULE = FG_SPELL_respell_div_softmax_of_parts };

typedef struct respeller {
    fg_module *m;
    fg_passctx *cx;
    fg_attuses uses;
    bool changed;
} respeller;

static uint32_t
readers(const respeller *r, fg_reg x)
{
    return x < r->uses.n ? r->uses.count[x] : 0;
}

static bool
over_axis(const fg_inst *i, fg_op op, fg_reg x, int64_t axis)
{
    /* All reductions begin with the attributes axes, keep. */
    return fg_is_op(i, op) && i->in[0] == x && i->attr[1].i && i->attr[0].n == 1 &&
           (axis < 0 || i->attr[0].is[0] == axis);
}

typedef enum { OTHER, REFUSED, TAKEN } verdict;

static verdict
put_in_place(respeller *r, fg_inst *i, fg_reg y, const char *rule)
{
    if (!y)
        return REFUSED;
    fg_report_fusion(r->cx->report, rule);
    fg_replace_uses(i->block, i->out[0], y);
    r->changed = true;
    return TAKEN;
}

static verdict
softmax_of_parts(respeller *r, fg_inst *i)
{
    fg_module *m = r->m;
    const fg_inst *e = fg_def(m, i->in[0]), *sum = fg_def(m, i->in[1]);
    if (!fg_is_op(e, FG_OP_exp) || !fg_is_op(sum, FG_OP_reduce_sum))
        return OTHER;
    if (!over_axis(sum, FG_OP_reduce_sum, i->in[0], -1) || readers(r, i->in[0]) != 2)
        return REFUSED;
    int64_t axis = FG_GET(sum, reduce_sum, axes).is[0];
    const fg_inst *less = fg_def(m, e->in[0]);
    if (!fg_is_op(less, FG_OP_sub) ||
        !over_axis(fg_def(m, less->in[1]), FG_OP_reduce_max, less->in[0], axis))
        return REFUSED;
    fg_build b = fg_build_before2(i, (fg_inst *)less, (fg_inst *)e);
    fg_build_add_nodes(&b, i);
    return put_in_place(r, i, fg_emit_softmax(&b, less->in[0], (int)axis), "softmax");
}

/* The softmax whose result, scaled, x is, when nobody else reads it on the way. */
static fg_inst *
softmax_below(const respeller *r, fg_reg x)
{
    for (int depth = 0; depth < 6; depth++) {
        fg_inst *d = fg_def(r->m, x);
        if (!d || readers(r, x) != 1 || d->op == FG_OP_softmax)
            return d && readers(r, x) == 1 ? d : NULL;
        if (d->op == FG_OP_mul && !fg_type_equal(fg_rt(r->m, d->in[0]), fg_rt(r->m, x)))
            x = d->in[1];
        else if (d->op == FG_OP_mul || d->op == FG_OP_cast)
            x = d->in[0];
        else
            return NULL;
    }
    return NULL;
}

static bool
would_fuse(respeller *r, fg_inst *softmax, const fg_inst *product)
{
    fg_attwalk w = {
        .m = r->m, .report = r->cx->report, .softmax = softmax, .uses = &r->uses};
    return softmax && softmax->block == product->block && fg_att_walk_up(&w);
}

static verdict
difference_of_maps(respeller *r, fg_inst *i)
{
    fg_module *m = r->m;
    fg_inst *d = fg_def(m, i->in[0]);
    if ((!fg_is_op(d, FG_OP_sub) && !fg_is_op(d, FG_OP_add)) ||
        r->cx->param[FG_PARAM_fuse_attention_alpha] <= 0)
        return OTHER;
    fg_inst *map[2] = {softmax_below(r, d->in[0]), softmax_below(r, d->in[1])};
    if (!map[0] || !map[1])
        return OTHER;
    for (int k = 0; k < 2; k++)
        if (readers(r, i->in[0]) != 1 ||
            !fg_type_equal(fg_rt(m, d->in[k]), fg_rt(m, d->out[0])) ||
            !would_fuse(r, map[k], i))
            return REFUSED;
    bool ta = FG_GET(i, matmul, trans_a).i, tb = FG_GET(i, matmul, trans_b).i;
    fg_build b = fg_build_before(i);
    fg_reg y0 = fg_emit_matmul(&b, d->in[0], i->in[1], ta, tb);
    fg_reg y1 = fg_emit_matmul(&b, d->in[1], i->in[1], ta, tb);
    fg_build_add_nodes(&b, d);
    return put_in_place(r, i, fg_emit2(&b, d->op, y0, y1), "attention-difference");
}

static const struct {
    fg_op op;
    verdict (*run)(respeller *, fg_inst *);
} rules[] = {
#define RESPELL(op, rule, kind) {FG_OP_##op, rule},
#include "passes/spellings.def"
};

static void
respell_block(respeller *r, fg_block *b, int rule)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nregion; k++)
            respell_block(r, i->region[k], rule);
        verdict v = i->op == rules[rule].op ? rules[rule].run(r, i) : OTHER;
        if (v != OTHER)
            fg_report_spelled(r->cx->report, FIRST_RULE + rule, v == TAKEN);
    }
}

bool
fg_att_respell(fg_module *m, fg_passctx *cx)
{
    bool changed = false;
    for (int k = 0; k < (int)(sizeof rules / sizeof *rules); k++) {
        respeller r = {m, cx, fg_att_uses(m, cx->scratch), false};
        respell_block(&r, m->body, k);
        /* What was replaced still reads its operands. */
        if (r.changed)
            fg_pass_dce(m, cx);
        changed |= r.changed;
    }
    return changed;
}
