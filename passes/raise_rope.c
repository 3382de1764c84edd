/* raise_rope.c - the rotary embeddings of exporters become one instruction.
 *
 *     %n = neg (slice %x [h..2h))
 *     %r = concat %n, (slice %x [0..h)) {axis=3}      =>   %c2 = slice %c [0..h)
 *     %a = mul %x, %c                                      %s2 = slice %s [0..h)
 *     %b = mul %r, %s                                      %y = rope %x, %c2, %s2
 *     %y = add %a, %b
 *
 * The instruction takes half tables, so both halves of %c and of %s must be provably equal: they
 * come, through elementwise operations and views that keep the last axis, from a concat of
 * one register with itself, or from a constant whose halves are. Two more spellings have
 * half tables as they are: both rotated halves, concatenated; or pairs of neighbours,
 * rotated and put side by side again.
 *
 *     %y0 = sub (mul %x0, %c), (mul %x1, %s)      =>   %y = rope %x, %c, %s
 *     %y1 = add (mul %x1, %c), (mul %x0, %s)
 *     %y = concat %y0, %y1 {axis=3}
 */
#include "passes/raise.h"

/* `looks` are those left: one value may be above r in very many ways. */
static bool halves_equal(const fg_module *m, fg_reg r, int *looks);

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
operands_halve(const fg_module *m, const fg_inst *d, int *looks)
{
    for (int k = 0; k < d->nin; k++) {
        const fg_type *t = fg_rt(m, d->in[k]);
        if (t->rank && !fg_e_is(m->ex, t->dim[t->rank - 1], 1) &&
            !halves_equal(m, d->in[k], looks))
            return false;
    }
    return true;
}

static bool
halves_equal(const fg_module *m, fg_reg r, int *looks)
{
    const fg_inst *d = fg_def(m, r);
    const fg_type *t = fg_rt(m, r);
    int last = t->rank - 1;
    if (!d || --*looks < 0 || last < 0)
        return false;
    if (d->op == FG_OP_const)
        return constant_halves(fg_reg_weight(m, r));
    if (d->op == FG_OP_concat)
        return FG_GET(d, concat, axis).i == last && d->nin == 2 && d->in[0] == d->in[1];
    if (fg_op_is(d->op, FG_T_ELEM))
        return operands_halve(m, d, looks);
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
    return keeps && halves_equal(m, d->in[0], looks);
}

static bool
has_equal_halves(const fg_module *m, fg_reg r)
{
    int looks = 200;
    return halves_equal(m, r, &looks);
}

/* r is elements from, from + step, .. of x along the last axis, h of them; gives x. */
static fg_reg
strided_part(const fg_module *m, fg_reg r, int64_t from, int64_t step, int64_t h)
{
    const fg_inst *d = fg_def(m, r);
    const fg_type *t = fg_rt(m, r);
    if (!fg_is_op(d, FG_OP_slice))
        return 0;
    const fg_type *tx = fg_rt(m, d->in[0]);
    for (int k = 0; k < t->rank; k++) {
        bool last = k == t->rank - 1;
        if (FG_GET(d, slice, step).is[k] != (last ? step : 1) ||
            !fg_e_is(m->ex, FG_GET(d, slice, start).es[k], last ? from : 0) ||
            (last ? !fg_e_is(m->ex, t->dim[k], h) : t->dim[k] != tx->dim[k]))
            return 0;
    }
    return d->in[0];
}

static bool
last_is(const fg_module *m, fg_reg x, int64_t n)
{
    const fg_type *t = fg_rt(m, x);
    return t->rank && fg_e_is(m->ex, t->dim[t->rank - 1], n);
}

/* r is half of x[.., 2h): the first or second, or the elements at even or odd places. */
static fg_reg
half_of(const fg_module *m, fg_reg r, bool second, bool pairs, int64_t h)
{
    const fg_inst *d = fg_def(m, r);
    fg_reg x = pairs ? strided_part(m, r, second, 2, h)
                     : strided_part(m, r, second ? h : 0, 1, h);
    if (pairs && fg_is_op(d, FG_OP_reshape) && last_is(m, r, h)) {
        /* [.., 2h] as [.., h, 2], one column of it, as [.., h] */
        const fg_type *t = fg_rt(m, r);
        x = last_is(m, d->in[0], 1) ? strided_part(m, d->in[0], second, 1, 1) : 0;
        const fg_type *two = x ? fg_rt(m, x) : NULL;
        d = x && two->rank == t->rank + 1 && last_is(m, x, 2) ? fg_def(m, x) : NULL;
        for (int k = 0; d && k < t->rank; k++)
            if (two->dim[k] != t->dim[k])
                return 0;
        x = fg_is_op(d, FG_OP_reshape) && fg_rt(m, d->in[0])->rank == t->rank ? d->in[0]
                                                                              : 0;
    }
    if (!x || !last_is(m, x, 2 * h))
        return 0;
    for (int k = 0; k < fg_rt(m, x)->rank - 1; k++)
        if (fg_rt(m, x)->dim[k] != fg_rt(m, r)->dim[k])
            return 0;
    return x;
}

/* ---- x cos + turned(x) sin ----------------------------------------------------------------- */

/* r is the first or second half of x, also when both are slices of something wider. */
static bool
is_half(const fg_module *m, fg_reg r, fg_reg x, bool second, int64_t h)
{
    const fg_inst *d = fg_def(m, r), *dx = fg_def(m, x);
    if (half_of(m, r, second, false, h) == x)
        return true;
    if (!fg_is_op(d, FG_OP_slice) || !fg_is_op(dx, FG_OP_slice) || d->in[0] != dx->in[0])
        return false;
    const fg_type *t = fg_rt(m, r), *tx = fg_rt(m, x);
    for (int k = 0; k < t->rank; k++) {
        bool last = k == t->rank - 1;
        fg_expr from = fg_eadd(m->ex, FG_GET(dx, slice, start).es[k],
                               fg_ec(m->ex, last && second ? h : 0));
        if (FG_GET(d, slice, step).is[k] != 1 || FG_GET(dx, slice, step).is[k] != 1 ||
            FG_GET(d, slice, start).es[k] != from ||
            (last ? !fg_e_is(m->ex, t->dim[k], h) || !fg_e_is(m->ex, tx->dim[k], 2 * h)
                  : t->dim[k] != tx->dim[k]))
            return false;
    }
    return true;
}

/* d is concat(-b, a) along the last axis: gives a and b. */
static bool
is_turned(fg_raiser *r, const fg_inst *d, fg_reg *a, fg_reg *b, int64_t *width)
{
    fg_module *m = r->m;
    if (!fg_is_op(d, FG_OP_concat) || d->nin != 2)
        return false;
    const fg_type *t = fg_rt(m, d->out[0]);
    const fg_inst *first = fg_def(m, d->in[0]), *second = fg_def(m, d->in[1]);
    bool turned = fg_is_op(first, FG_OP_neg), back = fg_is_op(second, FG_OP_neg);
    if (turned == back || FG_GET(d, concat, axis).i != t->rank - 1 ||
        !fg_e_const(m->ex, t->dim[t->rank - 1], width))
        return false;
    if (back)
        return fg_raise_miss(r, d, "rope", 1,
                             "the second half is negated, not the first");
    *a = d->in[1];
    *b = first->in[0];
    return true;
}

/* other = x * *cos, where a and b are the halves of that x; 0: not so, with the reason. */
static fg_reg
turned_register(fg_raiser *r, const fg_inst *core, const fg_inst *other, fg_reg a,
                fg_reg b, int64_t width, fg_reg *cos)
{
    fg_module *m = r->m;
    if (!fg_is_op(other, FG_OP_mul)) {
        fg_raise_miss(r, core, "rope", 2, "the other term is not a product");
        return 0;
    }
    for (int k = 0; k < 2; k++) {
        fg_reg x = other->in[k];
        *cos = other->in[1 - k];
        if (width % 2 == 0 && is_half(m, a, x, false, width / 2) &&
            is_half(m, b, x, true, width / 2) &&
            fg_type_equal(fg_rt(m, x), fg_rt(m, core->out[0])))
            return x;
    }
    fg_raise_miss(r, core, "rope", 3,
                  "%s and %s are not the two halves of a factor of the other term",
                  fg_type_text(m, fg_rt(m, a)), fg_type_text(m, fg_rt(m, b)));
    return 0;
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

/* A table must be n wide and broadcast to x otherwise. */
static bool
table_fits(const fg_module *m, fg_reg table, fg_reg x, int64_t n)
{
    const fg_type *t = fg_rt(m, table), *tx = fg_rt(m, x);
    if (!t->rank || t->rank > tx->rank || t->dtype != tx->dtype || !last_is(m, table, n))
        return false;
    for (int k = 0; k < t->rank - 1; k++)
        if (!fg_e_is(m->ex, t->dim[k], 1) && t->dim[k] != tx->dim[tx->rank - t->rank + k])
            return false;
    return true;
}

static bool
replace(fg_raiser *r, fg_inst *root, fg_reg x, fg_reg cos, fg_reg sin, int64_t half,
        bool pairs)
{
    fg_build b = fg_raise_begin(r, root);
    fg_reg in[3] = {x, half_table(&b, cos, half), half_table(&b, sin, half)};
    if (!in[1] || !in[2])
        return false;
    fg_inst *i = fg_inst_begin(&b, FG_OP_rope, 3, in);
    FG_SET(i, rope, interleaved).i = pairs;
    if (!fg_inst_finish(&b, i, NULL, 0))
        return false;
    fg_raise_replace(r, root, i->out[0], "rope");
    return true;
}

bool
fg_raise_rope_sum(fg_raiser *r, fg_inst *root)
{
    fg_module *m = r->m;
    for (int k = 0; k < 2; k++) {
        const fg_inst *turned = fg_def(m, root->in[k]);
        for (int j = 0; fg_is_op(turned, FG_OP_mul) && j < 2; j++) {
            const fg_inst *core = fg_def(m, turned->in[j]);
            fg_reg a = 0, b = 0, cos, sin = turned->in[1 - j];
            int64_t n;
            if (!is_turned(r, core, &a, &b, &n))
                continue;
            fg_reg x =
                turned_register(r, core, fg_def(m, root->in[1 - k]), a, b, n, &cos);
            if (!x)
                continue;
            if (!table_fits(m, cos, x, n) || !table_fits(m, sin, x, n) ||
                !has_equal_halves(m, cos) || !has_equal_halves(m, sin)) {
                fg_raise_miss(r, core, "rope", 4,
                              "the halves of %s and of %s cannot be shown to be equal",
                              fg_type_text(m, fg_rt(m, cos)),
                              fg_type_text(m, fg_rt(m, sin)));
                continue;
            }
            fg_raise_part(r, turned->in[j]);
            fg_raise_part(r, root->in[k]);
            fg_raise_part(r, root->in[1 - k]);
            return replace(r, root, x, cos, sin, n / 2, false);
        }
    }
    return false;
}

/* ---- both halves on their own --------------------------------------------------------------- */

/* One reading of y0 = a cos - b sin and y1 = b cos + a sin. */
typedef struct reading {
    fg_reg a, b, cos, sin, x;
} reading;

/* Reads y0 and y1 as the rotated halves of an x; with x 0, of something else. Which
 * factor is the table shows only in what the halves are halves of. */
static bool
rotation(fg_raiser *r, fg_reg y0, fg_reg y1, bool pairs, int64_t h, reading *found)
{
    fg_module *m = r->m;
    const fg_inst *d0 = fg_def(m, y0), *d1 = fg_def(m, y1);
    bool any = false;
    if (!fg_is_op(d0, FG_OP_sub) || !fg_is_op(d1, FG_OP_add))
        return false;
    const fg_inst *ac = fg_def(m, d0->in[0]), *bs = fg_def(m, d0->in[1]);
    if (!fg_is_op(ac, FG_OP_mul) || !fg_is_op(bs, FG_OP_mul))
        return false;
    for (int k = 0; k < 8; k++) {
        fg_reg c2, s2;
        reading t = {.a = ac->in[k & 1],
                     .cos = ac->in[!(k & 1)],
                     .b = bs->in[k >> 1 & 1],
                     .sin = bs->in[!(k >> 1 & 1)]};
        if (!times(m, d1->in[k >> 2], t.b, &c2) ||
            !times(m, d1->in[!(k >> 2)], t.a, &s2) || c2 != t.cos || s2 != t.sin)
            continue;
        t.x = half_of(m, t.a, false, pairs, h);
        if (t.x && t.x != half_of(m, t.b, true, pairs, h))
            t.x = 0;
        if (!any || t.x)
            *found = t;
        any = true;
        if (t.x)
            break;
    }
    return any;
}

/* y0 and y1 are rotated halves of one x, whose type is that of root. */
static bool
rotate_parts(fg_raiser *r, fg_inst *root, fg_reg y0, fg_reg y1, bool pairs)
{
    fg_module *m = r->m;
    reading t;
    int64_t h;
    const fg_type *ty = fg_rt(m, y0);
    if (!ty->rank || !fg_e_const(m->ex, ty->dim[ty->rank - 1], &h) ||
        !rotation(r, y0, y1, pairs, h, &t))
        return false;
    if (!t.x || !fg_type_equal(fg_rt(m, t.x), fg_rt(m, root->out[0])))
        return fg_raise_miss(
            r, root, "rope", 3, "%s and %s are not the two halves of one register",
            fg_type_text(m, fg_rt(m, t.a)), fg_type_text(m, fg_rt(m, t.b)));
    if (!table_fits(m, t.cos, t.x, h) || !table_fits(m, t.sin, t.x, h))
        return fg_raise_miss(r, root, "rope", 4, "the tables %s and %s do not fit %s",
                             fg_type_text(m, fg_rt(m, t.cos)),
                             fg_type_text(m, fg_rt(m, t.sin)),
                             fg_type_text(m, fg_rt(m, t.x)));
    fg_raise_part(r, y0);
    fg_raise_part(r, y1);
    for (int k = 0; k < 2; k++) {
        fg_raise_part(r, fg_def(m, y0)->in[k]);
        fg_raise_part(r, fg_def(m, y1)->in[k]);
    }
    return replace(r, root, t.x, t.cos, t.sin, h, pairs);
}

bool
fg_raise_rope_halves(fg_raiser *r, fg_inst *root)
{
    return root->nin == 2 &&
           FG_GET(root, concat, axis).i == fg_rt(r->m, root->out[0])->rank - 1 &&
           rotate_parts(r, root, root->in[0], root->in[1], false);
}

/* x[.., h] as [.., h, 1]. */
static fg_reg
column(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    const fg_type *t = fg_rt(m, r);
    if (!fg_is_op(d, FG_OP_reshape) || !last_is(m, r, 1) ||
        fg_rt(m, d->in[0])->rank != t->rank - 1)
        return 0;
    for (int k = 0; k < t->rank - 1; k++)
        if (fg_rt(m, d->in[0])->dim[k] != t->dim[k])
            return 0;
    return d->in[0];
}

bool
fg_raise_rope_pairs(fg_raiser *r, fg_inst *root)
{
    fg_module *m = r->m;
    fg_inst *both = fg_def(m, root->in[0]);
    if (!fg_is_op(both, FG_OP_concat) || both->nin != 2 ||
        FG_GET(both, concat, axis).i != fg_rt(m, both->out[0])->rank - 1)
        return false;
    fg_reg y0 = column(m, both->in[0]), y1 = column(m, both->in[1]);
    if (!y0 || !y1)
        return false;
    fg_raise_part(r, root->in[0]);
    return rotate_parts(r, root, y0, y1, true);
}
