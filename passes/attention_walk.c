/* attention_walk.c - what lies between a softmax and the two products around it.
 *
 *     %s = matmul %q, %k {trans_b=1}       ^  product: q and k
 *     %t = mul %s, 0.125                   |  outer = 0.125
 *     %u = add %t, %mask                   |  a term of the mask
 *     %p = softmax %u {axis=3}             *  the walk begins
 *     %w = mul %p, %lambda                 |  a factor of the result
 *     %y = matmul %w, %v                   v  product: v
 *
 * One table row per operation says how to step over it. Every step checks what makes it
 * right: constants are scalars, factors are the same for all keys of a query, reshapes
 * and transposes keep queries and keys apart, and nobody else reads what disappears.
 */
#include "passes/attention.h"

#include <math.h>
#include <stdio.h>

bool
fg_att_miss(fg_attwalk *w, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->reason = fg_strdup(w->m->a, text);
    return false;
}

static const char *
type_of(const fg_attwalk *w, fg_reg r)
{
    return fg_type_text(w->m, fg_rt(w->m, r));
}

static uint32_t
readers(const fg_attwalk *w, fg_reg r)
{
    return r < w->uses->n ? w->uses->count[r] : 0;
}

bool
fg_att_scalar(const fg_attwalk *w, fg_reg r, double *v)
{
    fg_exprs *ex = w->m->ex;
    return fg_is_float(fg_rt(w->m, r)->dtype) && fg_const_splat(w->m, r, v) &&
           fg_e_is(ex, fg_type_count(ex, fg_rt(w->m, r)), 1);
}

bool
fg_att_scaled(const fg_attwalk *w, const fg_inst *d, fg_reg *in, double *c)
{
    if (fg_is_op(d, FG_OP_mul))
        for (int k = 0; k < 2; k++)
            if (fg_att_scalar(w, d->in[k], c)) {
                *in = d->in[1 - k];
                return true;
            }
    if (fg_is_op(d, FG_OP_div) && fg_att_scalar(w, d->in[1], c) && *c != 0) {
        *in = d->in[0];
        *c = 1 / *c;
        return true;
    }
    return false;
}

static bool
is_weight(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    while (d && (fg_op_is(d->op, FG_T_VIEW) || d->op == FG_OP_cast ||
                 d->op == FG_OP_dequantize))
        d = fg_def(m, d->in[0]);
    return fg_is_op(d, FG_OP_const);
}

/* `looks` are those left: one value may be above r in very many ways. */
static bool
leads_to_product(const fg_attwalk *w, fg_reg r, int depth, int *looks)
{
    const fg_inst *d = fg_def(w->m, r);
    if (!d || depth > 14 || --*looks < 0 || !fg_is_float(fg_rt(w->m, d->out[0])->dtype))
        return false;
    if (d->op == FG_OP_matmul)
        return !is_weight(w->m, d->in[0]) && !is_weight(w->m, d->in[1]);
    if (d->op == FG_OP_dequantize && fg_is_op(fg_def(w->m, d->in[0]), FG_OP_quantize))
        return leads_to_product(w, fg_def(w->m, d->in[0])->in[0], depth + 1, looks);
    bool first = d->op == FG_OP_reshape || d->op == FG_OP_transpose;
    if (!first && d->op != FG_OP_concat && !fg_op_is(d->op, FG_T_ELEM))
        return false;
    for (int k = 0; k < (first ? 1 : d->nin); k++)
        if (leads_to_product(w, d->in[k], depth + 1, looks))
            return true;
    return false;
}

bool
fg_att_leads_to_product(const fg_attwalk *w, fg_reg r)
{
    int looks = 1000;
    return leads_to_product(w, r, 0, &looks);
}

/* ---- places ------------------------------------------------------------------------- */

static fg_attplace
place_of(const fg_attwalk *w, fg_reg r)
{
    fg_attplace p = {.type = *fg_rt(w->m, r)};
    for (int k = 0; k < p.type.rank; k++)
        p.label[k] = (int8_t)(p.type.rank - 1 - k);
    return p;
}

static bool
in_order(const fg_attplace *p)
{
    for (int k = 0; k < p->type.rank; k++)
        if (p->label[k] != p->type.rank - 1 - k)
            return false;
    return true;
}

static int8_t
key_label(const fg_attwalk *w)
{
    int rank = fg_rt(w->m, w->softmax->in[0])->rank;
    return (int8_t)(rank - 1 - FG_GET(w->softmax, softmax, axis).i);
}

/* The axis of the keys; -1: a reshape took it in. */
static int
key_axis(const fg_attwalk *w, const fg_attplace *p)
{
    for (int k = 0; k < p->type.rank; k++)
        if (p->label[k] == key_label(w))
            return k;
    return -1;
}

/* A reshape is about leading axes: the last two stay what they are. */
static bool
over_reshape(fg_attwalk *w, const fg_inst *d, fg_reg to, fg_attplace *p)
{
    const fg_type *a = fg_rt(w->m, d->in[0]), *b = fg_rt(w->m, d->out[0]);
    if (a->rank < 2 || b->rank < 2 || a->dim[a->rank - 1] != b->dim[b->rank - 1] ||
        a->dim[a->rank - 2] != b->dim[b->rank - 2])
        return fg_att_miss(w, "a reshape of %s to %s mixes queries, keys and heads",
                           type_of(w, d->in[0]), type_of(w, d->out[0]));
    if (!in_order(p) || key_label(w) > 1)
        return fg_att_miss(w, "a reshape of transposed scores %s", type_of(w, d->in[0]));
    *p = place_of(w, to);
    if (p->type.rank > w->wide.type.rank)
        w->wide = *p;
    return true;
}

/* Out axis k is in axis perm[k]. */
static void
over_transpose(fg_attwalk *w, const fg_inst *d, bool up, fg_attplace *p)
{
    const int64_t *perm = FG_GET(d, transpose, perm).is;
    fg_attplace q = {.type = *fg_rt(w->m, up ? d->in[0] : d->out[0])};
    for (int k = 0; k < q.type.rank; k++)
        if (up)
            q.label[perm[k]] = p->label[k];
        else
            q.label[k] = p->label[perm[k]];
    *p = q;
}

/* Is f, broadcast to a place, the same for all keys of a query? */
static bool
same_for_keys(const fg_attwalk *w, fg_reg f, const fg_attplace *p)
{
    const fg_type *t = fg_rt(w->m, f);
    int at = key_axis(w, p) - (p->type.rank - t->rank);
    return t->rank <= p->type.rank && (at < 0 || fg_e_is(w->m->ex, t->dim[at], 1));
}

static bool
push_factor(fg_attwalk *w, fg_attfactor *list, int *n, fg_reg f, bool divides,
            const fg_attplace *p)
{
    if (!same_for_keys(w, f, p))
        return fg_att_miss(w, "%s by %s, which is not the same for all keys of a query",
                           divides ? "divided" : "multiplied", type_of(w, f));
    if (*n == FG_ATT_FACTORS)
        return fg_att_miss(w, "more than %d factors", FG_ATT_FACTORS);
    list[(*n)++] = (fg_attfactor){f, divides, *p};
    return true;
}

/* d dequantizes what q quantized, on one scalar grid. */
static bool
on_grid(fg_attwalk *w, const fg_inst *q, const fg_inst *d)
{
    double s[2], z[2] = {0, 0};
    const fg_inst *both[2] = {q, d};
    for (int k = 0; k < 2; k++) {
        const fg_inst *i = both[k];
        if (!fg_att_scalar(w, i->in[1], &s[k]) ||
            (i->nin > 2 && i->in[2] &&
             (!fg_const_splat(w->m, i->in[2], &z[k]) ||
              !fg_e_is(w->m->ex, fg_type_count(w->m->ex, fg_rt(w->m, i->in[2])), 1))))
            return fg_att_miss(w, "%s with a scale %s that is not one constant",
                               fg_op_info(i->op)->name, type_of(w, i->in[1]));
    }
    if (s[0] != s[1] || z[0] != z[1] || !(s[0] > 0))
        return fg_att_miss(w, "quantized by %g, %g but dequantized by %g, %g", s[0], z[0],
                           s[1], z[1]);
    fg_dtype type = fg_rt(w->m, q->out[0])->dtype;
    if (fg_dtypes[type].bits > 16)
        return fg_att_miss(w, "quantized to %s", fg_dtypes[type].name);
    if (w->nround == FG_MAXROUND)
        return fg_att_miss(w, "rounded more than %d times", FG_MAXROUND);
    w->round[w->nround].scale = s[0];
    w->round[w->nround].zero = z[0];
    w->round[w->nround].type = type;
    return true;
}

static void
pass_by(fg_attwalk *w, fg_inst *i)
{
    if (w->nextra < FG_ATT_EXTRA)
        w->extra[w->nextra++] = i;
}

/* Rows of tables are counted as those of spellings.def. */
enum { FIRST_UP = FG_SPELL_up_mul_scale, FIRST_DOWN = FG_SPELL_down_mul_scale };

/* ---- up ------------------------------------------------------------------------------- */

/* The walk stands at a register: *r and its place. */
typedef struct stand {
    fg_reg r;
    fg_attplace at;
    bool shared; /* r has one more reader, which has been looked at */
} stand;

typedef bool step_fn(fg_attwalk *w, fg_inst *d, stand *s);

static void
move_on(fg_attwalk *w, stand *s, fg_reg r)
{
    s->r = r;
    s->at.type = *fg_rt(w->m, r);
}

static bool
push_term(fg_attwalk *w, fg_attterm t)
{
    if (w->softcap != 0)
        return fg_att_miss(w, "a mask inside the softcap of %g", w->softcap);
    if (w->npre)
        return fg_att_miss(w, "a mask below a scale %s that is not a number",
                           type_of(w, w->pre[w->npre - 1].value));
    if (w->nterm == FG_ATT_TERMS)
        return fg_att_miss(w, "more than %d masks", FG_ATT_TERMS);
    w->term[w->nterm++] = t;
    return true;
}

/* The side of a sum or product that goes on: made by a product, read by nobody else. */
static int
side(fg_attwalk *w, const fg_inst *d)
{
    for (int k = 0; k < 2; k++)
        if (fg_att_leads_to_product(w, d->in[k]) && readers(w, d->in[k]) == 1 &&
            fg_type_equal(fg_rt(w->m, d->in[k]), fg_rt(w->m, d->out[0])))
            return k;
    const char *why = "neither comes from a product";
    for (int k = 0; k < 2; k++)
        if (fg_att_leads_to_product(w, d->in[k]))
            why = readers(w, d->in[k]) == 1
                      ? "the other operand is larger than the scores"
                      : "the scores are also read elsewhere";
    fg_att_miss(w, "operands %s and %s: %s", type_of(w, d->in[0]), type_of(w, d->in[1]),
                why);
    return -1;
}

/* x - max(x) is x to a softmax over the same axis; so is max(x) - x, but for the sign. */
static fg_reg
row_maximum(fg_attwalk *w, const fg_inst *d, const stand *s, bool *negated)
{
    for (int k = 0; k < 2; k++) {
        const fg_inst *top = fg_def(w->m, d->in[k]);
        fg_reg x = d->in[1 - k];
        if (fg_is_op(top, FG_OP_expand))
            top = fg_def(w->m, top->in[0]);
        if (!fg_is_op(top, FG_OP_reduce_max) || top->in[0] != x || readers(w, x) != 2 ||
            !FG_GET(top, reduce_max, keep).i || FG_GET(top, reduce_max, axes).n != 1 ||
            FG_GET(top, reduce_max, axes).is[0] != key_axis(w, &s->at))
            continue;
        *negated = k == 0;
        return x;
    }
    return 0;
}

static bool
up_add(fg_attwalk *w, fg_inst *d, stand *s)
{
    int k = side(w, d);
    if (k < 0 || !push_term(w, (fg_attterm){d->in[1 - k], 0, false, 0, w->outer, s->at}))
        return false;
    move_on(w, s, d->in[k]);
    return true;
}

static bool
up_sub(fg_attwalk *w, fg_inst *d, stand *s)
{
    bool negated;
    fg_reg x = row_maximum(w, d, s, &negated);
    if (x) {
        s->shared = true;
        if (negated)
            w->outer = -w->outer;
        move_on(w, s, x);
        return true;
    }
    int k = side(w, d);
    double sign = k == 0 ? -1 : 1;
    if (k < 0 ||
        !push_term(w, (fg_attterm){d->in[1 - k], 0, false, 0, sign * w->outer, s->at}))
        return false;
    if (k == 1)
        w->outer = -w->outer;
    move_on(w, s, d->in[k]);
    return true;
}

static bool
up_neg(fg_attwalk *w, fg_inst *d, stand *s)
{
    w->outer = -w->outer;
    move_on(w, s, d->in[0]);
    return true;
}

/* A constant goes into the scale; a tensor that is one number per query, into q. */
static bool
up_scale(fg_attwalk *w, fg_inst *d, stand *s)
{
    fg_reg in;
    double c;
    if (fg_att_scaled(w, d, &in, &c)) {
        w->outer *= c;
        move_on(w, s, in);
        return true;
    }
    int k = d->op == FG_OP_div ? 0 : side(w, d);
    if (k < 0)
        return false;
    if (!fg_type_equal(fg_rt(w->m, d->in[k]), fg_rt(w->m, d->out[0])))
        return fg_att_miss(w, "the scale %s is larger than the scores",
                           type_of(w, d->in[1 - k]));
    if (!push_factor(w, w->pre, &w->npre, d->in[1 - k], d->op == FG_OP_div, &s->at))
        return false;
    move_on(w, s, d->in[k]);
    return true;
}

static bool
up_where(fg_attwalk *w, fg_inst *d, stand *s)
{
    double fill;
    int k = fg_att_scalar(w, d->in[2], &fill) ? 1 : 2;
    if (k == 2 && !fg_att_scalar(w, d->in[1], &fill))
        return fg_att_miss(w, "where chooses between %s and %s, neither a number",
                           type_of(w, d->in[1]), type_of(w, d->in[2]));
    if (!(fill <= -1e4))
        return fg_att_miss(w, "where fills with %g, which is not a mask", fill);
    if (!(w->outer > 0))
        return fg_att_miss(w, "where fills below a scale of %g", w->outer);
    if (!fg_type_equal(fg_rt(w->m, d->in[k]), fg_rt(w->m, d->out[0])))
        return fg_att_miss(w, "the condition %s of where is larger than the scores %s",
                           type_of(w, d->in[0]), type_of(w, d->in[k]));
    if (!push_term(w, (fg_attterm){0, d->in[0], k == 2, fill, w->outer, s->at}))
        return false;
    move_on(w, s, d->in[k]);
    return true;
}

/* max(x, lowest): what the masks made smaller comes back to a finite number. */
static bool
up_max(fg_attwalk *w, fg_inst *d, stand *s)
{
    double fill;
    int k = fg_att_scalar(w, d->in[1], &fill) ? 0 : 1;
    if (k == 1 && !fg_att_scalar(w, d->in[0], &fill))
        return fg_att_miss(w, "the larger of two tensors");
    if (!(fill <= -65504) || !(w->outer > 0))
        return fg_att_miss(w, "scores are bounded by %g", fill);
    if (w->nterm || w->floor > -INFINITY)
        return fg_att_miss(w, "a bound between two masks");
    w->floor = fill * w->outer;
    move_on(w, s, d->in[k]);
    return true;
}

/* c * tanh(x / c): the walk stands at x / c afterwards, softcap is c and the scale counts
 * as 1 there; the emission multiplies by c again. */
static bool
up_tanh(fg_attwalk *w, fg_inst *d, stand *s)
{
    if (w->softcap != 0 || !(w->outer > 0))
        return fg_att_miss(w, "%g tanh() is not a softcap", w->outer);
    if (w->npre || w->nround)
        return fg_att_miss(w, "a softcap that is %s afterwards",
                           w->npre ? "scaled by a tensor" : "rounded");
    w->softcap = w->outer;
    w->outer = 1;
    move_on(w, s, d->in[0]);
    return true;
}

static bool
up_reshape(fg_attwalk *w, fg_inst *d, stand *s)
{
    s->r = d->in[0];
    return over_reshape(w, d, s->r, &s->at);
}

static bool
up_transpose(fg_attwalk *w, fg_inst *d, stand *s)
{
    over_transpose(w, d, true, &s->at);
    s->r = d->in[0];
    return true;
}

/* From a float: a product that is no float is none. */
static bool
up_cast(fg_attwalk *w, fg_inst *d, stand *s)
{
    move_on(w, s, d->in[0]);
    return true;
}

static bool
up_dequantize(fg_attwalk *w, fg_inst *d, stand *s)
{
    fg_inst *q = fg_def(w->m, d->in[0]);
    if (!fg_is_op(q, FG_OP_quantize))
        return fg_att_miss(w, "scores in integers");
    if (readers(w, q->out[0]) != 1)
        return fg_att_miss(w, "the quantized scores are also read elsewhere");
    if (w->softcap != 0 || w->npre || !(w->outer > 0))
        return fg_att_miss(w, "scores are rounded below a %s",
                           w->softcap != 0 ? "softcap"
                           : w->npre       ? "scale that is a tensor"
                                           : "negative scale");
    if (!on_grid(w, q, d))
        return false;
    w->round[w->nround].scale *= w->outer;
    w->round[w->nround].at = FG_ROUND_SCORES;
    w->round[w->nround++].terms = w->nterm;
    pass_by(w, q);
    move_on(w, s, q->in[0]);
    return true;
}

/* One more key with a logit of its own, which has no value: a sink. */
static bool
up_concat(fg_attwalk *w, fg_inst *d, stand *s)
{
    int axis = key_axis(w, &s->at);
    if (FG_GET(d, concat, axis).i != axis || axis != s->at.type.rank - 1 || d->nin != 2)
        return fg_att_miss(w, "scores are concatenated along axis %d",
                           (int)FG_GET(d, concat, axis).i);
    if (w->nterm || w->npre || w->nround || w->softcap != 0 || w->outer != 1 || w->sink ||
        !in_order(&s->at))
        return fg_att_miss(w, "a sink that is scaled, masked or rounded");
    int k = fg_att_leads_to_product(w, d->in[0]) ? 0 : 1;
    if (!fg_e_is(w->m->ex, fg_rt(w->m, d->in[1 - k])->dim[axis], 1))
        return fg_att_miss(w, "%s is more than one sink", type_of(w, d->in[1 - k]));
    w->sink = d->in[1 - k];
    w->sink_first = k == 1;
    move_on(w, s, d->in[k]);
    w->sink_at = w->wide = s->at;
    return true;
}

static const struct {
    fg_op op;
    step_fn *step;
} up_steps[] = {
#define UP(op, step, kind) {FG_OP_##op, up_##step},
#include "passes/spellings.def"
};

/* A rounding with every mask further out than itself rounds what is masked. */
static bool
place_rounds(fg_attwalk *w)
{
    for (int k = 0; k < w->nround; k++) {
        if (w->round[k].at == FG_ROUND_WEIGHTS || w->round[k].terms == w->nterm)
            continue;
        if (w->round[k].terms)
            return fg_att_miss(w, "scores are rounded between two masks");
        w->round[k].at = FG_ROUND_MASKED;
    }
    return true;
}

/* The product, which has the keys in its last axis, or the one before: then its operands
 * change places. */
static bool
reach_product(fg_attwalk *w, fg_inst *d, const stand *s)
{
    int axis = key_axis(w, &s->at), n = s->at.type.rank;
    w->qk = d;
    w->qk_at = s->at;
    w->flip = axis == n - 2;
    if (axis < n - 2)
        return fg_att_miss(w, "the softmax runs over axis %d of the product %s", axis,
                           type_of(w, d->out[0]));
    return place_rounds(w);
}

bool
fg_att_walk_up(fg_attwalk *w)
{
    stand s = {.r = w->softmax->in[0], .at = place_of(w, w->softmax->in[0])};
    w->wide = s.at;
    w->outer = 1;
    w->floor = -INFINITY;
    for (;;) {
        fg_inst *d = fg_def(w->m, s.r);
        if (!d || d->block != w->softmax->block)
            return fg_att_miss(w, "the scores come from outside");
        w->step = d;
        if (readers(w, s.r) != (s.shared ? 2 : 1))
            return fg_att_miss(w, "%%%s is also read elsewhere", w->m->reg[s.r].name);
        s.shared = false;
        if (d->op == FG_OP_matmul)
            return reach_product(w, d, &s);
        pass_by(w, d);
        size_t k = 0, n = sizeof up_steps / sizeof *up_steps;
        while (k < n && up_steps[k].op != d->op)
            k++;
        if (k == n)
            return fg_att_miss(w, "%s between the product and the softmax",
                               fg_op_info(d->op)->name);
        if (!fg_report_spelled(w->report, FIRST_UP + k, up_steps[k].step(w, d, &s)))
            return false;
    }
}

/* ---- down ----------------------------------------------------------------------------- */

/* where(isnan(p), 0, p): rows without keys become zero. */
static bool
down_guard(fg_attwalk *w, fg_inst *u, stand *s)
{
    fg_inst *g = w->uses->first[u->out[0]];
    double zero;
    if (!fg_is_op(g, FG_OP_where) || g->in[0] != u->out[0] || g->in[2] != s->r ||
        !fg_att_scalar(w, g->in[1], &zero) || zero != 0 || readers(w, u->out[0]) != 1)
        return fg_att_miss(w, "the probabilities are tested for NaN but not guarded");
    w->guarded = true;
    move_on(w, s, g->out[0]);
    return true;
}

static bool
down_scale(fg_attwalk *w, fg_inst *u, stand *s)
{
    int k = u->in[0] == s->r ? 0 : 1;
    if (k == 1 && u->op == FG_OP_div)
        return fg_att_miss(w, "divided by the probabilities");
    if (!fg_type_equal(fg_rt(w->m, s->r), fg_rt(w->m, u->out[0])) || u->in[0] == u->in[1])
        return fg_att_miss(w, "the probabilities times %s", type_of(w, u->in[1 - k]));
    if (!push_factor(w, w->post, &w->npost, u->in[1 - k], u->op == FG_OP_div, &s->at))
        return false;
    move_on(w, s, u->out[0]);
    return true;
}

static bool
down_quantize(fg_attwalk *w, fg_inst *u, stand *s)
{
    fg_inst *d = readers(w, u->out[0]) == 1 ? w->uses->first[u->out[0]] : NULL;
    if (u->in[0] != s->r || !fg_is_op(d, FG_OP_dequantize) || d->in[0] != u->out[0])
        return fg_att_miss(w, "the probabilities go on as integers");
    if (w->npost)
        return fg_att_miss(w, "the probabilities are scaled, then rounded");
    if (!on_grid(w, u, d))
        return false;
    w->round[w->nround++].at = FG_ROUND_WEIGHTS;
    pass_by(w, d);
    move_on(w, s, d->out[0]);
    return true;
}

static bool
down_cast(fg_attwalk *w, fg_inst *u, stand *s)
{
    if (!fg_is_float(fg_rt(w->m, u->out[0])->dtype))
        return fg_att_miss(w, "the probabilities are cast to %s", type_of(w, u->out[0]));
    move_on(w, s, u->out[0]);
    return true;
}

static bool
down_reshape(fg_attwalk *w, fg_inst *u, stand *s)
{
    s->r = u->out[0];
    return over_reshape(w, u, s->r, &s->at);
}

static bool
down_transpose(fg_attwalk *w, fg_inst *u, stand *s)
{
    over_transpose(w, u, false, &s->at);
    s->r = u->out[0];
    return true;
}

/* The sink's own probability is left out. */
static bool
down_slice(fg_attwalk *w, fg_inst *u, stand *s)
{
    fg_module *m = w->m;
    const fg_type *in = fg_rt(m, s->r), *out = fg_rt(m, u->out[0]);
    int last = in->rank - 1;
    bool fits = w->sink && !w->sliced && in_order(&s->at) &&
                out->dim[last] == fg_esub(m->ex, in->dim[last], fg_ec(m->ex, 1));
    for (int k = 0; k <= last; k++)
        fits &=
            FG_GET(u, slice, step).is[k] == 1 &&
            fg_e_is(m->ex, FG_GET(u, slice, start).es[k], k == last && w->sink_first) &&
            (k == last || in->dim[k] == out->dim[k]);
    if (!fits)
        return fg_att_miss(w, "a slice of the probabilities %s to %s", type_of(w, s->r),
                           type_of(w, u->out[0]));
    w->sliced = true;
    move_on(w, s, u->out[0]);
    return true;
}

static const struct {
    fg_op op;
    step_fn *step;
} down_steps[] = {
#define DOWN(op, step, kind) {FG_OP_##op, down_##step},
#include "passes/spellings.def"
};

/* The product with V sums over keys, and has the leading axes the scores had. */
static bool
reach_values(fg_attwalk *w, fg_inst *u, const stand *s)
{
    const fg_attplace *p = &s->at, *q = &w->qk_at;
    int n = p->type.rank;
    w->pv = u;
    w->pv_at = *p;
    w->right = u->in[0] != s->r;
    if (u->in[0] == u->in[1])
        return fg_att_miss(w, "the probabilities are multiplied by themselves");
    bool rows = w->right ? !FG_GET(u, matmul, trans_b).i : FG_GET(u, matmul, trans_a).i;
    if (key_axis(w, p) != (rows ? n - 2 : n - 1))
        return fg_att_miss(w, "the product with %s does not sum over keys",
                           type_of(w, u->in[!w->right]));
    bool same = n == q->type.rank || (in_order(p) && in_order(q));
    for (int k = 0; k < n - 2 && same && n == q->type.rank; k++)
        same = p->label[k] == q->label[k];
    if (!same)
        return fg_att_miss(w, "batch and heads are in another order than in the scores");
    return true;
}

/* Needs the way up: the axes of the scores, and the sink. */
/* One softmax may weigh several values, as in differential attention: each product becomes
 * an instruction of its own. */
static bool
read_by_products(const fg_attwalk *w, fg_reg r)
{
    uint32_t found = 0;
    for (const fg_inst *i = w->uses->first[r]; i && found < readers(w, r);
         i = fg_att_next_reader(i, r)) {
        if (i->op != FG_OP_matmul || i->in[0] == i->in[1])
            return false;
        found++;
    }
    return found == readers(w, r);
}

bool
fg_att_walk_down(fg_attwalk *w)
{
    stand s = {.r = w->softmax->out[0], .at = place_of(w, w->softmax->out[0])};
    for (;;) {
        fg_inst *u = w->uses->first[s.r];
        bool tested = readers(w, s.r) == 2 && fg_is_op(u, FG_OP_isnan);
        if (readers(w, s.r) == 0)
            return fg_att_miss(w, "nobody reads the probabilities");
        w->step = fg_def(w->m, s.r);
        if (readers(w, s.r) != 1 && !tested && !read_by_products(w, s.r))
            return fg_att_miss(w, "the probabilities are also read elsewhere");
        if (u->block != w->softmax->block)
            return fg_att_miss(w, "the probabilities are read in another region");
        w->step = u;
        if (u->op == FG_OP_matmul) {
            w->probabilities = s.r;
            if (!w->sink || w->sliced)
                return reach_values(w, u, &s);
            return fg_att_miss(w, "the sink has a value");
        }
        pass_by(w, u);
        size_t k = 0, n = sizeof down_steps / sizeof *down_steps;
        while (k < n && down_steps[k].op != u->op)
            k++;
        if (k == n)
            return fg_att_miss(w, "%s between the softmax and the product",
                               fg_op_info(u->op)->name);
        if (!fg_report_spelled(w->report, FIRST_DOWN + k, down_steps[k].step(w, u, &s)))
            return false;
    }
}
