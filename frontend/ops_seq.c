/* ops_seq.c - ONNX sequences of tensors, which exist only while importing.
 *
 *     SplitToSequence x; SequenceAt ., 1   ->  one slice of x
 *     ConcatFromSequence [a, b]            ->  concat a, b
 *
 * Positions and lengths must therefore be known; exporters use sequences for unrolled code,
 * where they are.
 */
#include "frontend/ops.h"

enum { LONGEST = 4096 };        /* items of a sequence that may be made */

static int
items_of(fg_node *n, int k, const fg_reg **items)
{
    fg_reg seq = fg_need(n, k);
    int count = seq ? fg_seq_items(n, seq, items) : -1;

    if (seq && count < 0)
        fg_node_error(n, "operand %d is not a sequence", k);
    return count;
}

/* Operand k as a position in 0..limit; absent: dflt. */
static bool
position(fg_node *n, int k, int limit, int dflt, int *at)
{
    const int64_t *v;
    int count, length = limit < 0 ? 0 : limit;

    *at = dflt;
    if (!fg_in(n, k))
        return true;
    if (!fg_in_ints(n, k, &v, &count))
        return false;
    if (count != 1 || v[0] < -length || v[0] > length)
        return fg_node_error(n, "the position is outside the sequence");
    *at = (int)(v[0] < 0 ? v[0] + length : v[0]);
    return true;
}

bool
fg_onnx_sequence_empty(fg_node *n)
{
    return fg_yield(n, fg_seq_new(n, 0, NULL));
}

bool
fg_onnx_sequence_construct(fg_node *n)
{
    for (int k = 0; k < n->nin; k++)
        if (!fg_need(n, k))
            return false;
    return fg_yield(n, fg_seq_new(n, n->nin, n->in));
}

/* An item chosen when the program runs: a row of all items, which must have one type. */
static fg_reg
computed_item(fg_node *n, int count, const fg_reg *items)
{
    fg_reg *list = FG_NEWN(n->m->a, fg_reg, (size_t)count + 1);

    for (int i = 0; i < count; i++) {
        if (!fg_type_equal(fg_rt(n->m, items[i]), fg_rt(n->m, items[0]))) {
            fg_node_unsupported(n, "a computed position among tensors of several shapes");
            return 0;
        }
        list[i] = fg_insert1(n, items[i], 0, 1);
    }
    fg_reg all = count == 1 ? list[0] : fg_emit_concat(n->b, count, list, 0);
    return all ? fg_emit_gather(n->b, all, fg_scalar(n, fg_need(n, 1), "the position"), 0) : 0;
}

bool
fg_onnx_sequence_at(fg_node *n)
{
    const fg_reg *items;
    const fg_expr *known;
    int count = items_of(n, 0, &items), at;

    if (count > 0 && fg_in(n, 1) && !fg_in_exprs_opt(n, 1, &known, &at))
        return fg_yield(n, computed_item(n, count, items));
    if (count < 0 || !position(n, 1, count, 0, &at))
        return false;
    if (at >= count)
        return fg_node_error(n, "the position is outside the sequence");
    return fg_yield(n, items[at]);
}

bool
fg_onnx_sequence_length(fg_node *n)
{
    const fg_reg *items;
    int count = items_of(n, 0, &items);

    return count >= 0 && fg_yield(n, fg_emit_f(n->b, FG_i64, count));
}

bool
fg_onnx_sequence_insert(fg_node *n)
{
    const fg_reg *items;
    int count = items_of(n, 0, &items), at;
    fg_reg x = fg_need(n, 1);

    if (count < 0 || !x || !position(n, 2, count, count, &at))
        return false;
    if (count >= LONGEST)
        return fg_node_unsupported(n, "a sequence of more than %d tensors", LONGEST);
    fg_reg *list = FG_NEWN(n->m->a, fg_reg, (size_t)count + 1);
    for (int i = 0; i <= count; i++)
        list[i] = i < at ? items[i] : i == at ? x : items[i - 1];
    return fg_yield(n, fg_seq_new(n, count + 1, list));
}

bool
fg_onnx_sequence_erase(fg_node *n)
{
    const fg_reg *items;
    int count = items_of(n, 0, &items), at;

    if (count < 0 || !position(n, 1, count, count - 1, &at))
        return false;
    if (at < 0 || at >= count)
        return fg_node_error(n, "the position is outside the sequence");
    fg_reg *list = FG_NEWN(n->m->a, fg_reg, (size_t)count);
    for (int i = 0; i + 1 < count; i++)
        list[i] = items[i < at ? i : i + 1];
    return fg_yield(n, fg_seq_new(n, count - 1, list));
}

/* Sizes of the parts: 1 each, a number that repeats, or a list. */
static bool
part_sizes(fg_node *n, fg_expr d, const int64_t **size, int *parts)
{
    const int64_t *v = NULL;
    int64_t total, each = 1;
    int count = 0;

    if (fg_in(n, 1) && !fg_in_ints(n, 1, &v, &count))
        return false;
    if (!fg_e_const(n->ex, d, &total))
        return fg_node_unsupported(n, "splitting an axis of unknown size");
    if (v && fg_rank(n, n->in[1]) == 1) {
        for (int i = 0; i < count; i++) {
            if (v[i] < 0 || v[i] > total)
                return fg_node_error(n, "part of size %lld", (long long)v[i]);
            total -= v[i];
        }
        *size = v;
        *parts = count;
        return total == 0 || fg_node_error(n, "the sizes do not add up");
    }
    if (v)
        each = count ? v[0] : 0;
    if (each < 1)
        return fg_node_error(n, "part of size %lld", (long long)each);
    int64_t number = total / each + (total % each != 0);
    if (number > LONGEST)
        return fg_node_unsupported(n, "a sequence of more than %d tensors", LONGEST);
    int64_t *list = FG_NEWN(n->m->a, int64_t, (size_t)number + 1);
    for (int64_t i = 0; i < number; i++)
        list[i] = i + 1 < number ? each : total - each * (number - 1);
    *size = list;
    *parts = (int)number;
    return true;
}

bool
fg_onnx_split_to_sequence(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const int64_t *size = NULL;
    fg_expr dim[FG_MAXRANK];
    int axis, parts = 0, r = 0;
    int64_t at = 0;

    if (!x || !fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, x), &axis) ||
        !part_sizes(n, fg_dim(n, x, axis), &size, &parts))
        return false;
    bool keep = fg_in(n, 1) || fg_attr_int(n, "keepdims", 1);
    for (int a = 0; a < fg_rank(n, x); a++)
        if (a != axis)
            dim[r++] = fg_dim(n, x, a);
    fg_reg *list = FG_NEWN(n->m->a, fg_reg, (size_t)parts + 1);
    for (int i = 0; i < parts; at += size[i++]) {
        list[i] = fg_part(n, x, axis, at, size[i]);
        if (list[i] && !keep)
            list[i] = fg_emit_reshape(n->b, list[i], r, dim);
        if (!list[i])
            return false;
    }
    return fg_yield(n, fg_seq_new(n, parts, list));
}

bool
fg_onnx_concat_from_sequence(fg_node *n)
{
    const fg_reg *items;
    int count = items_of(n, 0, &items), axis;
    bool new_axis = fg_attr_int(n, "new_axis", 0) != 0;

    if (count < 0)
        return false;
    if (count == 0)
        return fg_node_error(n, "the sequence is empty");
    fg_reg *list = FG_NEWN(n->m->a, fg_reg, (size_t)count);
    if (!fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, items[0]) + new_axis, &axis))
        return false;
    for (int i = 0; i < count; i++) {
        list[i] = new_axis ? fg_insert1(n, items[i], axis, 1) : items[i];
        if (!list[i])
            return false;
    }
    return fg_yield(n, count == 1 ? list[0] : fg_emit_concat(n->b, count, list, axis));
}
