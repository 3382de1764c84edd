/* find.c - loops of the instructions that look for elements: arg, topk, nonzero. */
#include "codegen/c/c.h"

static bool
arg(cc *c, const fg_inst *i, const char *target)
{
    bool most = i->op == FG_OP_argmax;
    int axis = (int)(most ? FG_GET(i, argmax, axis).i : FG_GET(i, argmin, axis).i);
    bool last = most ? FG_GET(i, argmax, last).i : FG_GET(i, argmin, last).i,
         keep = most ? FG_GET(i, argmax, keep).i : FG_GET(i, argmin, keep).i;
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    bool flt = fg_is_float(x->dtype);
    cc_index at, from;
    int open = cc_for_all(c, o, 0, at);

    for (int k = 0; k < x->rank; k++)
        from[k] = k == axis ? "r" : at[keep || k < axis ? k : k - 1];
    cc_line(c, "%s best = 0;", cc_type(x->dtype));
    cc_line(c, "int64_t where = 0;");
    cc_open(c, "for (int64_t r = 0; r < %s; r++)", cc_expr(c, x->dim[axis]));
    const char *v = cc_value(c, i->in[0], from);
    /* NaN, which is found first either way, is above all for `below` as well. */
    const char *how = flt    ? last ? "!%s(best, %s)" : "%s(%s, best)"
                      : most ? last ? "%s%s >= best" : "%s%s > best"
                      : last ? "%s%s <= best"
                             : "%s%s < best";
    const char *better = fg_format(c->a, how, flt ? most ? "above" : "below" : "", v);
    cc_open(c, "if (r == 0 || %s)", better);
    cc_line(c, "best = %s;", v);
    cc_line(c, "where = r;");
    cc_close(c);
    cc_close(c);
    cc_store(c, target, o, at, "where");
    cc_close_all(c, open);
    return true;
}

/* An integer that orders values of a type as topk does. */
static const char *
rank_of(cc *c, fg_dtype d, const char *v)
{
    if (fg_is_float(d))
        return fg_format(c->a, "rank_of(%s)", v);
    if (d == FG_u64)
        return fg_format(c->a, "(int64_t)(%s ^ (uint64_t)1 << 63)", v);
    return fg_format(c->a, "(int64_t)%s", v);
}

static bool
topk(cc *c, const fg_inst *i, const char *const *target)
{
    int axis = (int)FG_GET(i, topk, axis).i;
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    const char *n = cc_expr(c, x->dim[axis]);
    fg_expr room = fg_emul(c->m->ex, fg_ec(c->m->ex, 2), x->dim[axis]);
    fg_type pairs = fg_type_make(FG_i64, 1, &room);
    const char *p = cc_temp(c, &pairs);
    cc_index at;
    int open = cc_for_all(c, o, 1u << axis, at);

    cc_open(c, "for (int64_t r = 0; r < %s; r++)", n);
    at[axis] = "r";
    const char *rank = rank_of(c, x->dtype, cc_value(c, i->in[0], at));
    cc_line(c, "%s[2 * r] = %s%s;", p, FG_GET(i, topk, largest).i ? "" : "~", rank);
    cc_line(c, "%s[2 * r + 1] = r;", p);
    cc_close(c);
    cc_line(c, "sort_pairs(%s, %s);", p, n);
    cc_open(c, "for (int64_t r = 0; r < %s; r++)", cc_expr(c, o->dim[axis]));
    cc_line(c, "const int64_t p = %s[2 * r + 1];", p);
    at[axis] = "p";
    const char *v = cc_value(c, i->in[0], at);
    at[axis] = "r";
    cc_store(c, target[0], o, at, v);
    cc_store(c, target[1], fg_rt(c->m, i->out[1]), at, "p");
    cc_close(c);
    cc_close_all(c, open);
    return true;
}

static bool
nonzero(cc *c, const fg_inst *i, const char *target)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *o = fg_rt(c->m, i->out[0]);
    bool count = i->op == FG_OP_nonzero_count;
    const char *most = count ? NULL : cc_expr(c, o->dim[1]);
    cc_index at;

    cc_open(c, "%s", "");
    cc_line(c, "int64_t found = 0;");
    int open = cc_for_all(c, x, 0, at);
    const char *v = cc_value(c, i->in[0], at);
    if (count) {
        cc_line(c, "found += %s != 0;", v);
    } else {
        cc_open(c, "if (%s != 0 && found < %s)", v, most);
        for (int k = 0; k < x->rank; k++)
            cc_store(c, target, o,
                     (const char *const[]){fg_format(c->a, "%d", k), "found"}, at[k]);
        cc_line(c, "found++;");
        cc_close(c);
    }
    cc_close_all(c, open);
    if (count)
        cc_store(c, target, o, NULL, "found");
    cc_close(c);
    return true;
}

bool
cc_nest_find(cc *c, const fg_inst *i, const char *const *target)
{
    switch (i->op) {
    case FG_OP_argmax:
    case FG_OP_argmin:
        return arg(c, i, target[0]);
    case FG_OP_topk:
        return topk(c, i, target);
    case FG_OP_nonzero:
    case FG_OP_nonzero_count:
        return nonzero(c, i, target[0]);
    default:
        return cc_nest_nn(c, i, target[0]);
    }
}
