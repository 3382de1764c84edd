/* onnx_sequence.c - sequences of tensors, and optional values. Neither exists in the IR: a sequence
 * is a list of registers that the importer keeps, an optional value is a register or nothing.
 *
 *     SequenceConstruct a b -> s;  SequenceAt s 1 -> y          y means b
 *     SplitToSequence x -> s;  ConcatFromSequence s -> y        slices, then a concat
 *
 * So lengths and positions must be known now. Exporters write sequences where a program kept
 * tensors in a list, which is nearly always so.
 */
#include "frontend/model.h"

enum { LONGEST = 4096 };

static bool
items(fg_node *n, int k, const fg_reg **r, int *count)
{
    fg_reg seq = fg_need(n, k);
    if (!seq)
        return false;
    *count = fg_seq_items(n, seq, r);
    return *count >= 0 || fg_node_error(n, "operand %d is not a sequence", k);
}

/* Position operand k among `count` things; `dflt` when omitted. */
static bool
position(fg_node *n, int k, int count, int dflt, int *at)
{
    const int64_t *v;
    int len;
    *at = dflt;
    if (!fg_in(n, k))
        return true;
    if (!fg_in_ints(n, k, &v, &len))
        return false;
    if (len != 1 || v[0] < -count || v[0] >= count)
        return fg_node_error(n, "position is out of range for %d places", count);
    *at = (int)(v[0] < 0 ? v[0] + count : v[0]);
    return true;
}

static bool
give(fg_node *n, int count, const fg_reg *r)
{
    n->out[0] = fg_seq_new(n, count, r);
    return true;
}

bool
fg_onnx_sequence_empty(fg_node *n)
{
    return give(n, 0, NULL);
}

bool
fg_onnx_sequence_construct(fg_node *n)
{
    for (int k = 0; k < n->nin; k++)
        if (!fg_need(n, k))
            return false;
    return give(n, n->nin, n->in);
}

bool
fg_onnx_sequence_insert(fg_node *n)
{
    const fg_reg *r = NULL;
    int count = 0, at = 0;
    fg_reg x = fg_need(n, 1);
    if (!x || !items(n, 0, &r, &count) || !position(n, 2, count + 1, count, &at))
        return false;
    if (count == LONGEST)
        return fg_node_unsupported(n, "a sequence of more than %d tensors", LONGEST);
    fg_reg *all = FG_NEWN(n->im->tmp, fg_reg, (size_t)count + 1);
    for (int i = 0; i <= count; i++)
        all[i] = i < at ? r[i] : i == at ? x : r[i - 1];
    return give(n, count + 1, all);
}

bool
fg_onnx_sequence_erase(fg_node *n)
{
    const fg_reg *r = NULL;
    int count = 0, at = 0;
    if (!items(n, 0, &r, &count) || !position(n, 1, count, count - 1, &at))
        return false;
    if (!count)
        return fg_node_error(n, "the sequence is empty");
    fg_reg *rest = FG_NEWN(n->im->tmp, fg_reg, (size_t)count);
    for (int i = 0; i < count - 1; i++)
        rest[i] = r[i < at ? i : i + 1];
    return give(n, count - 1, rest);
}

bool
fg_onnx_sequence_at(fg_node *n)
{
    const fg_reg *r = NULL;
    int count = 0, at = 0;
    if (!items(n, 0, &r, &count) || !fg_need(n, 1) || !position(n, 1, count, 0, &at))
        return false;
    n->out[0] = r[at];
    return true;
}

bool
fg_onnx_sequence_length(fg_node *n)
{
    const fg_reg *r = NULL;
    int count = 0;
    if (!items(n, 0, &r, &count))
        return false;
    int64_t v = count;
    n->out[0] = fg_emit_const(n->b, FG_i64, 0, NULL, &v);
    return n->out[0] != 0;
}

bool
fg_onnx_concat_from_sequence(fg_node *n)
{
    const fg_reg *r = NULL;
    int count = 0, axis = 0;
    bool fresh = fg_attr_int(n, "new_axis", 0) == 1;
    if (!items(n, 0, &r, &count))
        return false;
    if (!count)
        return fg_node_error(n, "the sequence is empty");
    fg_reg *x = FG_NEWN(n->im->tmp, fg_reg, (size_t)count);
    fg_type t = *fg_rt(n->m, r[0]);
    if (!fg_attr_has(n, "axis"))
        return fg_node_error(n, "attribute axis is missing");
    if (t.rank + fresh > FG_MAXRANK ||
        !fg_axis(n, fg_attr_int(n, "axis", 0), t.rank + fresh, &axis))
        return fg_node_error(n, "the axis does not fit");
    for (int i = 0; i < count; i++) {
        x[i] = r[i];
        if (!fresh)
            continue;
        t = *fg_rt(n->m, r[i]);
        if (axis > t.rank)
            return fg_node_error(n, "the items have different ranks");
        memmove(t.dim + axis + 1, t.dim + axis, (size_t)(t.rank - axis) * sizeof *t.dim);
        t.dim[axis] = fg_ec(n->ex, 1);
        x[i] = fg_emit_reshape(n->b, r[i], t.rank + 1, t.dim);
    }
    n->out[0] = fg_emit_concat(n->b, count, x, axis);
    return n->out[0] != 0;
}

/* Sizes of the pieces: a list, one size for all (the last may be smaller), or 1 each. */
static bool
piece_sizes(fg_node *n, int64_t len, const int64_t **sizes, int *count)
{
    const int64_t *v = NULL;
    int nv = 0;
    int64_t each = 1, sum = 0;
    bool list = fg_in(n, 1) && fg_in_type(n, 1)->rank == 1;
    if (fg_in(n, 1) && !fg_in_ints(n, 1, &v, &nv))
        return false;
    if (list) {
        for (int i = 0; i < nv; i++)
            if (v[i] < 0 || (sum += v[i]) > len)
                return fg_node_error(n, "the pieces do not add up to %lld",
                                     (long long)len);
        *sizes = v;
        *count = nv;
        return sum == len ||
               fg_node_error(n, "the pieces do not add up to %lld", (long long)len);
    }
    if (nv && (each = v[0]) < 1)
        return fg_node_error(n, "pieces of size %lld", (long long)each);
    if (len / each >= LONGEST)
        return fg_node_unsupported(n, "a sequence of more than %d tensors", LONGEST);
    *count = (int)((len + each - 1) / each);
    int64_t *all = FG_NEWN(n->im->tmp, int64_t, (size_t)*count);
    for (int i = 0; i < *count; i++, len -= each)
        all[i] = len < each ? len : each;
    *sizes = all;
    return true;
}

bool
fg_onnx_split_to_sequence(fg_node *n)
{
    const int64_t *sizes = NULL;
    int count = 0, axis = 0;
    int64_t len, at = 0;
    fg_reg x = fg_need(n, 0);
    if (!x || !fg_axis(n, fg_attr_int(n, "axis", 0), fg_rt(n->m, x)->rank, &axis))
        return false;
    bool drop = !fg_in(n, 1) && fg_attr_int(n, "keepdims", 1) == 0;
    if (!fg_e_const(n->ex, fg_rt(n->m, x)->dim[axis], &len))
        return fg_node_unsupported(n, "the length of axis %d is not known", axis);
    if (!piece_sizes(n, len, &sizes, &count))
        return false;
    fg_reg *r = FG_NEWN(n->im->tmp, fg_reg, (size_t)count);
    for (int i = 0; i < count; at += sizes[i++]) {
        r[i] =
            fg_emit_slice_axis(n->b, x, axis, fg_ec(n->ex, at), fg_ec(n->ex, sizes[i]));
        if (r[i] && drop) {
            fg_type t = *fg_rt(n->m, r[i]);
            memmove(t.dim + axis, t.dim + axis + 1,
                    (size_t)(t.rank - axis - 1) * sizeof *t.dim);
            r[i] = fg_emit_reshape(n->b, r[i], t.rank - 1, t.dim);
        }
        if (!r[i])
            return false;
    }
    return give(n, count, r);
}

/* ---- optional values ------------------------------------------------------------------ */

bool
fg_onnx_optional(fg_node *n)
{
    n->out[0] = fg_in(n, 0);
    return n->out[0] || fg_node_unsupported(n, "an optional value that is absent");
}

bool
fg_onnx_optional_has_element(fg_node *n)
{
    n->out[0] = fg_emit_f(n->b, FG_bool, fg_in(n, 0) != 0);
    return n->out[0] != 0;
}

bool
fg_onnx_optional_get_element(fg_node *n)
{
    n->out[0] = fg_need(n, 0);
    return n->out[0] != 0;
}
