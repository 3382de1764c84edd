/* raise_rope.c - the rotary embedding of exporters becomes one instruction.
 *
 *     %n = neg (slice %x [h..2h))
 *     %r = concat %n, (slice %x [0..h)) {axis=3}      =>   %c2 = slice %c [0..h)
 *     %a = mul %x, %c                                      %s2 = slice %s [0..h)
 *     %b = mul %r, %s                                      %y = rope %x, %c2, %s2
 *     %y = add %a, %b
 *
 * The instruction takes half tables, so both halves of %c and of %s must be provably equal: they
 * come, through elementwise operations and views that keep the last axis, from a concat of
 * one register with itself, or from a constant whose halves are.
 */
#include "passes/raise.h"

static bool halves_equal(const fg_module *m, fg_reg r, int depth);

static bool
constant_halves(const fg_weight *w)
{
    size_t row = (size_t)(w->rank ? w->dim[w->rank - 1] : 0) *
                 (size_t)fg_dtypes[w->dtype].bits / 8;
    if (!w->data || row == 0 || row % 2 || fg_dtypes[w->dtype].bits < 8)
        return false;
    for (size_t at = 0; at < w->bytes; at += row)
        if (memcmp((const char *)w->data + at, (const char *)w->data + at + row / 2,
                   row / 2) != 0)
            return false;
    return true;
}

/* Every operand is the same along the last axis, or has equal halves there. */
static bool
operands_halve(const fg_module *m, const fg_inst *d, int depth)
{
    for (int k = 0; k < d->nin; k++) {
        const fg_type *t = fg_rt(m, d->in[k]);
        if (t->rank && !fg_e_is(m->ex, t->dim[t->rank - 1], 1) &&
            !halves_equal(m, d->in[k], depth + 1))
            return false;
    }
    return true;
}

static bool
halves_equal(const fg_module *m, fg_reg r, int depth)
{
    const fg_inst *d = fg_def(m, r);
    const fg_type *t = fg_rt(m, r);
    int last = t->rank - 1;
    if (!d || depth > 24 || last < 0)
        return false;
    if (d->op == FG_OP_const)
        return constant_halves(fg_reg_weight(m, r));
    if (d->op == FG_OP_concat)
        return FG_GET(d, concat, axis).i == last && d->nin == 2 && d->in[0] == d->in[1];
    if (fg_op_is(d->op, FG_T_ELEM))
        return operands_halve(m, d, depth);
    const fg_type *in = d->nin ? fg_rt(m, d->in[0]) : NULL;
    bool keeps = in && in->rank && in->dim[in->rank - 1] == t->dim[last];
    switch (d->op) {
    case FG_OP_transpose:
        keeps &= FG_GET(d, transpose, perm).is[last] == last;
        break;
    case FG_OP_gather:
        keeps &= FG_GET(d, gather, axis).i < in->rank - 1;
        break;
    case FG_OP_slice:
    case FG_OP_reshape:
    case FG_OP_expand:
    case FG_OP_copy:
        break;
    default:
        keeps = false;
    }
    return keeps && halves_equal(m, d->in[0], depth + 1);
}

/* r is x[.., from .. from + h). */
static bool
is_half(const fg_module *m, fg_reg r, fg_reg x, int64_t from, int64_t h)
{
    const fg_inst *d = fg_def(m, r);
    const fg_type *t = fg_rt(m, r), *tx = fg_rt(m, x);
    if (!fg_is_op(d, FG_OP_slice) || d->in[0] != x)
        return false;
    for (int k = 0; k < t->rank; k++) {
        bool last = k == t->rank - 1;
        if (FG_GET(d, slice, step).is[k] != 1 ||
            !fg_e_is(m->ex, FG_GET(d, slice, start).es[k], last ? from : 0) ||
            (last ? !fg_e_is(m->ex, t->dim[k], h) : t->dim[k] != tx->dim[k]))
            return false;
    }
    return true;
}

/* r is concat(-x[h..2h), x[0..h)) for the x it returns; else 0. */
static fg_reg
rotated(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    const fg_type *t = fg_rt(m, r);
    int64_t width;
    if (!fg_is_op(d, FG_OP_concat) || d->nin != 2 ||
        FG_GET(d, concat, axis).i != t->rank - 1 ||
        !fg_e_const(m->ex, t->dim[t->rank - 1], &width) || width % 2)
        return 0;
    const fg_inst *neg = fg_def(m, d->in[0]), *low = fg_def(m, d->in[1]);
    if (!fg_is_op(neg, FG_OP_neg) || !fg_is_op(low, FG_OP_slice))
        return 0;
    fg_reg x = low->in[0];
    return fg_type_equal(fg_rt(m, x), t) && is_half(m, d->in[1], x, 0, width / 2) &&
                   is_half(m, neg->in[0], x, width / 2, width / 2)
               ? x
               : 0;
}

/* mul(x, table) in either order. */
static bool
times(const fg_module *m, fg_reg r, fg_reg x, fg_reg *table)
{
    const fg_inst *d = fg_def(m, r);
    for (int k = 0; fg_is_op(d, FG_OP_mul) && k < 2; k++)
        if (d->in[k] == x) {
            *table = d->in[1 - k];
            return true;
        }
    return false;
}

static fg_reg
half_table(fg_build *b, fg_reg table, int64_t h)
{
    const fg_type *t = fg_rt(b->m, table);
    return fg_emit_slice_axis(b, table, t->rank - 1, fg_ec(b->m->ex, 0),
                              fg_ec(b->m->ex, h));
}

/* The table must be as wide as x and broadcast to it otherwise. */
static bool
table_fits(const fg_module *m, fg_reg table, fg_reg x)
{
    const fg_type *t = fg_rt(m, table), *tx = fg_rt(m, x);
    return t->rank && t->rank <= tx->rank && t->dtype == tx->dtype &&
           t->dim[t->rank - 1] == tx->dim[tx->rank - 1] && halves_equal(m, table, 0);
}

bool
fg_raise_rope(fg_module *m, fg_inst *root, fg_report *report)
{
    for (int k = 0; k < 2; k++) {
        const fg_inst *turned = fg_def(m, root->in[k]);
        for (int j = 0; fg_is_op(turned, FG_OP_mul) && j < 2; j++) {
            fg_reg x = rotated(m, turned->in[j]), cos, sin = turned->in[1 - j];
            int64_t width;
            if (!x || !times(m, root->in[1 - k], x, &cos) || !table_fits(m, cos, x) ||
                !table_fits(m, sin, x) ||
                !fg_e_const(m->ex, fg_rt(m, x)->dim[fg_rt(m, x)->rank - 1], &width))
                continue;
            fg_build b = fg_build_before(root);
            fg_build_add_nodes(&b, turned);
            fg_build_add_nodes(&b, fg_def(m, root->in[1 - k]));
            fg_reg y = fg_emit3(&b, FG_OP_rope, x, half_table(&b, cos, width / 2),
                                half_table(&b, sin, width / 2));
            if (!y)
                return false;
            fg_report_fusion(report, "rope");
            fg_replace_uses(root->block, root->out[0], y);
            return true;
        }
    }
    return false;
}
