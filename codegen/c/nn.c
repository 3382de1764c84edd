/* nn.c - loops of softmax, the norms, rotary embedding and attention. */
#include <float.h>

#include "codegen/c/c.h"

static const char *
real(cc *c, double v)
{
    fg_text s = fg_text_new(c->a);

    fg_put_double(&s, v, false);
    return s.s;
}

static bool
softmax(cc *c, const fg_inst *i, const char *target)
{
    int axis = (int)FG_GET(i, softmax, axis).i;
    const fg_type *o = fg_rt(c->m, i->out[0]);
    const char *loop =
        fg_format(c->a, "for (int64_t r = 0; r < %s; r++)", cc_expr(c, o->dim[axis]));
    cc_index at;
    int open = cc_for_all(c, o, 1u << axis, at);

    at[axis] = "r";
    cc_line(c, "double top = -INFINITY, sum = 0;");
    cc_open(c, "%s", loop);
    cc_line(c, "top = fmax(top, %s);", cc_value(c, i->in[0], at));
    cc_close(c);
    cc_open(c, "%s", loop);
    cc_line(c, "sum += exp(%s - top);", cc_value(c, i->in[0], at));
    cc_close(c);
    cc_open(c, "%s", loop);
    cc_store(c, target, o, at,
             fg_format(c->a, "(%s)(exp(%s - top) / sum)", cc_type(o->dtype),
                       cc_value(c, i->in[0], at)));
    cc_close(c);
    cc_close_all(c, open);
    return true;
}

/* Loops over axes from `axis` on; how many are open. */
static int
row_loops(cc *c, const fg_type *t, int axis, cc_index at)
{
    int from = c->depth;

    for (int k = axis; k < t->rank; k++)
        at[k] = cc_for(c, 'r', k, t->dim[k]);
    return c->depth - from;
}

static bool
norm(cc *c, const fg_inst *i, const char *target)
{
    bool centred = i->op == FG_OP_layernorm;
    int axis = (int)(centred ? FG_GET(i, layernorm, axis).i : FG_GET(i, rmsnorm, axis).i);
    double eps = centred ? FG_GET(i, layernorm, eps).f : FG_GET(i, rmsnorm, eps).f;
    const fg_type *o = fg_rt(c->m, i->out[0]);
    unsigned row = 0;
    cc_index at;

    for (int k = axis; k < o->rank; k++)
        row |= 1u << k;
    const char *count = cc_count(c, o, axis);
    int open = cc_for_all(c, o, row, at);
    cc_line(c, "double mean = 0, square = 0;");
    if (centred) {
        int inner = row_loops(c, o, axis, at);
        cc_line(c, "mean += %s;", cc_value(c, i->in[0], at));
        cc_close_all(c, inner);
        cc_line(c, "mean /= (double)(%s);", count);
    }
    int inner = row_loops(c, o, axis, at);
    const char *x = cc_value(c, i->in[0], at);
    cc_line(c, "square += (%s - mean) * (%s - mean);", x, x);
    cc_close_all(c, inner);
    cc_line(c, "const double scale = 1 / sqrt(square / (double)(%s) + %s);", count,
            real(c, eps));
    inner = row_loops(c, o, axis, at);
    const char *y = fg_format(c->a, "(%s - mean) * scale", cc_value(c, i->in[0], at));
    if (i->nin > 1 && i->in[1])
        y = fg_format(c->a, "%s * %s", y, cc_value_in(c, i->in[1], o->rank, at));
    if (i->nin > 2 && i->in[2])
        y = fg_format(c->a, "%s + %s", y, cc_value_in(c, i->in[2], o->rank, at));
    cc_store(c, target, o, at, fg_format(c->a, "(%s)(%s)", cc_type(o->dtype), y));
    cc_close_all(c, inner);
    cc_close_all(c, open);
    return true;
}

static bool
rope(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *o = fg_rt(c->m, i->out[0]);
    int last = o->rank - 1;
    int64_t d = FG_GET(i, rope, dim).i;
    bool pairs = FG_GET(i, rope, interleaved).i;
    const char *n = cc_expr(c, o->dim[last]);
    const char *half =
        d ? fg_format(c->a, "%lld", (long long)d / 2)
          : cc_expr(c, fg_ediv(c->m->ex, o->dim[last], fg_ec(c->m->ex, 2)));
    cc_index at, one, two;
    int open = cc_for_all(c, o, 1u << last, at);

    cc_open(c, "for (int64_t r = 0; r < %s; r++)", half);
    memcpy(one, at, sizeof one);
    memcpy(two, at, sizeof two);
    one[last] = pairs ? "2 * r" : "r";
    two[last] = pairs ? "2 * r + 1" : cc_plus(c, "r", half);
    at[last] = "r";
    const char *x = cc_value(c, i->in[0], one), *y = cc_value(c, i->in[0], two),
               *cs = cc_value_in(c, i->in[1], o->rank, at),
               *sn = cc_value_in(c, i->in[2], o->rank, at), *t = cc_type(o->dtype);
    cc_line(c, "const double x = %s, y = %s, cosine = %s, sine = %s;", x, y, cs, sn);
    cc_store(c, target, o, one, fg_format(c->a, "(%s)(x * cosine - y * sine)", t));
    cc_store(c, target, o, two, fg_format(c->a, "(%s)(y * cosine + x * sine)", t));
    cc_close(c);
    if (d && !fg_e_is(c->m->ex, o->dim[last], d)) {
        cc_open(c, "for (int64_t r = %lld; r < %s; r++)", (long long)d / 2 * 2, n);
        cc_store(c, target, o, at, cc_value(c, i->in[0], at));
        cc_close(c);
    }
    cc_close_all(c, open);
    return true;
}

/* ---- attention ----------------------------------------------------------------------------- */

static fg_reg
operand(const fg_inst *i, int k)
{
    return k < i->nin ? i->in[k] : 0;
}

/* A variable through quantize and dequantize, wherever the instruction asks for it. */
static void
put_rounding(cc *c, const fg_inst *i, fg_roundat where, const char *v)
{
    fg_rounding round[FG_MAXROUND];
    int n = fg_attention_rounds(i, round);

    for (int k = 0; k < n; k++) {
        const fg_type *t = fg_rt(c->m, round[k].zero);
        bool wide = fg_rt(c->m, round[k].scale)->dtype == FG_f64;
        if (round[k].at != where)
            continue;
        const char *s = cc_value_in(c, round[k].scale, 0, NULL),
                   *z = cc_value_in(c, round[k].zero, 0, NULL);
        cc_line(c, "%s = ((double)%s - %s) * %s;", v,
                cc_from_double(c, t->dtype,
                               fg_format(c->a, "nearbyint(%s(%s / %s)) + %s",
                                         wide ? "" : "(float)", v, s, z)),
                z, s);
    }
}

/* Why key j is not attended, before its score is known; "" when every key may be. */
static const char *
hidden(cc *c, const fg_inst *i, const char *keys)
{
    int64_t left = FG_GET(i, attention, left).i, right = FG_GET(i, attention, right).i;
    fg_reg mask = operand(i, 3);
    fg_text s = fg_text_new(c->a);

    if (operand(i, 5))
        fg_putf(&s, "j >= length || ");
    if (FG_GET(i, attention, causal).i)
        fg_putf(&s, "j > s + offset || ");
    if (left >= 0)
        fg_putf(&s, "j < s + offset - %lld || ", (long long)left);
    if (right >= 0)
        fg_putf(&s, "j > s + offset + %lld || ", (long long)right);
    const fg_type *t = mask ? fg_rt(c->m, mask) : NULL;
    if (t && t->rank && !fg_e_is(c->m->ex, t->dim[t->rank - 1], 1)) {
        const char *n = cc_expr(c, t->dim[t->rank - 1]);
        if (strcmp(n, keys))
            fg_putf(&s, "j >= %s || ", n);
    }
    if (s.n)
        s.s[s.n - 4] = '\0';
    return s.n ? s.s : "";
}

/* Scores of one query against all keys, to w. */
static void
scores(cc *c, const fg_inst *i, const char *w, const char *const *q)
{
    bool mean = !strcmp(FG_GET(i, attention, empty).s, "mean");
    const char *none = mean ? real(c, -FLT_MAX) : "-INFINITY";
    const fg_type *k = fg_rt(c->m, i->in[1]);
    const char *keys = cc_expr(c, k->dim[2]), *why = hidden(c, i, keys);
    double cap = FG_GET(i, attention, softcap).f;
    fg_reg mask = operand(i, 3);

    cc_open(c, "for (int64_t j = 0; j < %s; j++)", keys);
    if (*why) {
        cc_open(c, "if (%s)", why);
        cc_line(c, "%s[j] = %s;", w, none);
        if (mean)
            cc_line(c, "top = fmax(top, %s[j]);", w);
        cc_line(c, "continue;");
        cc_close(c);
    }
    cc_line(c, "double score = 0;");
    cc_open(c, "for (int64_t r = 0; r < %s; r++)", cc_expr(c, k->dim[3]));
    const char *x = cc_value(c, i->in[0], (const char *const[]){q[0], q[1], q[2], "r"}),
               *y = cc_value(c, i->in[1], (const char *const[]){q[0], "group", "j", "r"});
    cc_line(c, "score += (double)%s * %s;", x, y);
    cc_close(c);
    cc_line(c, "score *= %s;", real(c, FG_GET(i, attention, scale).f));
    put_rounding(c, i, FG_ROUND_SCORES, "score");
    if (cap != 0)
        cc_line(c, "score = %s * tanh(score / %s);", real(c, cap), real(c, cap));
    if (mask) {
        const char *m =
            cc_value_in(c, mask, 4, (const char *const[]){q[0], q[1], q[2], "j"});
        if (fg_rt(c->m, mask)->dtype == FG_bool)
            cc_line(c, "score = %s ? score : %s;", m, none);
        else
            cc_line(c, "score += %s;", m);
    }
    put_rounding(c, i, FG_ROUND_MASKED, "score");
    cc_line(c, "%s[j] = score;", w);
    cc_line(c, "top = fmax(top, score);");
    cc_close(c);
}

static bool
attention(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *q = fg_rt(c->m, i->in[0]), *k = fg_rt(c->m, i->in[1]),
                  *v = fg_rt(c->m, i->in[2]), *o = fg_rt(c->m, i->out[0]);
    fg_expr offset = FG_GET(i, attention, offset).e;
    fg_reg sink = operand(i, 4), lengths = operand(i, 5);
    bool zero = strcmp(FG_GET(i, attention, empty).s, "nan") != 0;
    const char *keys = cc_expr(c, k->dim[2]);
    cc_index at;

    fg_type row = fg_type_make(FG_f64, 1, &k->dim[2]);
    const char *w = cc_temp(c, &row);
    int open = cc_for_all(c, o, 1u << 2 | 1u << 3, at);
    cc_open(c, "for (int64_t s = 0; s < %s; s++)", cc_expr(c, q->dim[2]));
    at[2] = "s";
    cc_line(c, "const int64_t group = %s / (%s / %s);", at[1], cc_expr(c, q->dim[1]),
            cc_expr(c, k->dim[1]));
    cc_line(c, "(void)group;"); /* without keys nothing is read */
    if (lengths)
        cc_line(c, "const int64_t length = %s;", cc_value(c, lengths, at));
    if (FG_GET(i, attention, causal).i || FG_GET(i, attention, left).i >= 0 ||
        FG_GET(i, attention, right).i >= 0)
        cc_line(c, "const int64_t offset = %s;",
                offset != FG_E_BAD
                    ? cc_expr(c, offset)
                    : fg_format(c->a, "%s - (%s)", lengths ? "length" : keys,
                                cc_expr(c, q->dim[2])));
    cc_line(c, "double top = -INFINITY, sum = 0;");
    scores(c, i, w, at);
    if (sink) {
        const char *x = cc_value(c, sink, &at[1]);
        cc_line(c, "const double sink = %s;", x);
        cc_line(c, "const int empty = top == -INFINITY;");
        cc_line(c, "top = fmax(top, sink);");
        cc_line(c, "sum = exp(sink - top);");
    }
    cc_open(c, "for (int64_t j = 0; j < %s; j++)", keys);
    cc_line(c, "%s[j] = %s[j] == -INFINITY ? 0 : exp(%s[j] - top);", w, w, w);
    cc_line(c, "sum += %s[j];", w);
    cc_close(c);
    if (*FG_GET(i, attention, round).s) {
        cc_open(c, "for (int64_t j = 0; sum > 0 && j < %s; j++)", keys);
        cc_line(c, "%s[j] /= sum;", w);
        put_rounding(c, i, FG_ROUND_WEIGHTS, fg_format(c->a, "%s[j]", w));
        cc_close(c);
        cc_line(c, "sum = sum > 0;");
    }
    cc_open(c, "for (int64_t e = 0; e < %s; e++)", cc_expr(c, v->dim[3]));
    at[3] = "e";
    cc_line(c, "double x = 0;");
    cc_open(c, "for (int64_t j = 0; j < %s; j++)", keys);
    const char *x =
        cc_value(c, i->in[2], (const char *const[]){at[0], "group", "j", "e"});
    cc_line(c, "if (%s[j] != 0)", w);
    cc_line(c, "    x += %s[j] * %s;", w, x);
    cc_close(c);
    /* A query that attends no key at all. */
    cc_line(c, "x = %s ? %s : x / sum;", sink ? "empty" : "top == -INFINITY",
            zero || sink ? "0" : "NAN");
    cc_store(c, target, o, at, fg_format(c->a, "(%s)x", cc_type(o->dtype)));
    cc_close(c);
    cc_close(c);
    cc_close_all(c, open);
    return true;
}

bool
cc_nest_nn(cc *c, const fg_inst *i, const char *target)
{
    switch (i->op) {
    case FG_OP_softmax:
        return softmax(c, i, target);
    case FG_OP_layernorm:
    case FG_OP_rmsnorm:
        return norm(c, i, target);
    case FG_OP_rope:
        return rope(c, i, target);
    case FG_OP_attention:
        return attention(c, i, target);
    default:
        return cc_nest_window(c, i, target);
    }
}
