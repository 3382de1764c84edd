/* ops_layout.c - ONNX operators that rearrange: reshape, transpose, slice, split, pad.
 *
 *     Reshape x, [0, -1]      ->  reshape : f32[B, 12*S]
 *     Slice x, 1, INT64_MAX   ->  slice {start=[1]} : f32[S-1]
 *
 * Operands that describe a shape become expressions. Those computed from data are read
 * into run-time symbols, after the tensor arithmetic that ONNX prescribes for them.
 */
#include "frontend/ops.h"

/* ---- one shape for another ------------------------------------------------------- */

/* True when e is a size as it stands, neither a code (0, -1) nor possibly one. */
static bool
plain_size(fg_node *n, fg_expr e)
{
    int64_t v;

    return fg_e_const(n->ex, e, &v) || fg_e_lo(n->ex, e) >= 0 ||
           !fg_e_mentions(n->ex, e, FG_SYM_RUN);
}

/* Sizes from expressions; -1 is what the others leave. */
static bool
resolve_sizes(fg_node *n, fg_reg x, bool allowzero, int count, const fg_expr *e,
              fg_expr *dim)
{
    fg_exprs *t = n->ex;
    fg_expr rest = fg_c(n, 1);
    int open = -1;
    bool zero = false;

    for (int i = 0; i < count; i++) {
        dim[i] = e[i];
        if (fg_e_hi(t, e[i]) < -1)
            return fg_node_error(n, "size %d is negative", i);
        if (fg_e_is(t, e[i], 0) && allowzero)
            zero = true;
        else if (fg_e_is(t, e[i], 0)) {
            if (i >= fg_rank(n, x))
                return fg_node_error(n, "size 0 at %d has no axis of %s to copy", i,
                                     fg_type_text(n->m, fg_rt(n->m, x)));
            dim[i] = fg_dim(n, x, i);
        } else if (fg_e_is(t, e[i], -1)) {
            if (open >= 0)
                return fg_node_error(n, "more than one size is -1");
            open = i;
            continue;
        }
        rest = fg_emul(t, rest, dim[i]);
    }
    if (open >= 0 && (zero || fg_e_is(t, rest, 0)))
        return fg_node_error(n, "size -1 is not defined beside a size 0");
    if (open >= 0)
        dim[open] = fg_ediv(t, fg_dims_product(n, x, 0, fg_rank(n, x)), rest);
    return true;
}

/* The same as tensor arithmetic, for a shape computed from data. */
static bool
read_sizes(fg_node *n, fg_reg x, fg_reg shape, bool allowzero, int count, fg_expr *dim)
{
    fg_expr own[FG_MAXRANK], total = fg_dims_product(n, x, 0, fg_rank(n, x));
    fg_reg s = fg_emit_cast(n->b, shape, FG_i64), one = fg_emit_f(n->b, FG_i64, 1);
    int64_t axis = 0;

    if (!allowzero) {
        for (int i = 0; i < count; i++)
            own[i] = i < fg_rank(n, x) ? fg_dim(n, x, i) : fg_c(n, 0);
        fg_reg copy = fg_emit_symvec(n->b, count, own, FG_i64, false);
        s = E3(where, E2(eq, s, fg_emit_f(n->b, FG_i64, 0)), copy, s);
    }
    fg_reg open = E2(eq, s, fg_emit_f(n->b, FG_i64, -1));
    fg_reg rest =
        fg_emit_reduce(n->b, FG_OP_reduce_prod, E3(where, open, one, s), 1, &axis, false);
    fg_reg size = E2(div, fg_sym_scalar(n, total, FG_i64), rest);
    s = E3(where, open, size, s);
    for (int i = 0; s && i < count; i++)
        dim[i] = fg_emit_readsym(n->b, s, i, 0, INT64_MAX);
    return s != 0;
}

bool
fg_onnx_reshape(fg_node *n)
{
    fg_reg x = fg_need(n, 0), shape = 0;
    bool allowzero = fg_attr_int(n, "allowzero", 0) != 0, plain = true;
    const fg_expr *e = NULL;
    const int64_t *old;
    fg_expr dim[FG_MAXRANK];
    int64_t len;
    int count;

    if (!x)
        return false;
    if (n->opset < 5) {
        count = fg_attr_ints(n, "shape", &old);
        for (int i = 0; i < count && i < FG_MAXRANK; i++)
            dim[i] = fg_c(n, old[i]);
        e = dim;
    } else if (!(shape = fg_need(n, 1))) {
        return false;
    } else if (!fg_in_exprs_opt(n, 1, &e, &count)) {
        if (fg_rank(n, shape) != 1 || !fg_e_const(n->ex, fg_dim(n, shape, 0), &len))
            return fg_node_unsupported(n, "a shape of unknown length");
        count = len > FG_MAXRANK ? FG_MAXRANK + 1 : (int)len;
        plain = false;
    }
    if (count < 0 || count > FG_MAXRANK)
        return fg_node_error(n, "rank %d is above the limit of %d", count, FG_MAXRANK);
    for (int i = 0; plain && i < count; i++)
        plain = plain_size(n, e[i]);
    if (plain ? !resolve_sizes(n, x, allowzero, count, e, dim)
              : !read_sizes(n, x, shape, allowzero, count, dim))
        return false;
    for (int i = 0; i < count; i++)
        if (fg_e_is(n->ex, dim[i], -1) || dim[i] == FG_E_BAD)
            return fg_node_error(n, "size %d cannot be computed", i);
    return fg_yield(n, fg_emit_reshape(n->b, x, count, dim));
}

bool
fg_onnx_flatten(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    int64_t axis = fg_attr_int(n, "axis", 1);

    if (!x)
        return false;
    int rank = fg_rank(n, x);
    if (axis < -rank || axis > rank)
        return fg_node_error(n, "axis %lld is outside %s", (long long)axis,
                             fg_type_text(n->m, fg_rt(n->m, x)));
    return fg_yield(n, fg_flat2(n, x, (int)(axis < 0 ? axis + rank : axis)));
}

bool
fg_onnx_squeeze(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    fg_expr dim[FG_MAXRANK];
    fg_axisset s;

    if (!x || !fg_axisset_read(n, n->opset >= 13 ? 1 : n->nin, fg_rank(n, x), &s))
        return false;
    if (!s.given) {
        int64_t axis[FG_MAXRANK];
        int count = 0;
        for (int a = 0; a < s.rank; a++)
            if (fg_e_is(n->ex, fg_dim(n, x, a), 1))
                axis[count++] = a;
        fg_axisset_make(n, &s, s.rank, count, axis);
    }
    for (int i = 0; s.known && i < s.count; i++) {
        int64_t v;
        fg_expr d = fg_dim(n, x, (int)s.axis[i]);
        if (fg_e_const(n->ex, d, &v) && v != 1)
            return fg_node_error(n, "axis %d of %s is not 1", (int)s.axis[i],
                                 fg_type_text(n->m, fg_rt(n->m, x)));
        if (!fg_e_is(n->ex, d, 1) && !fg_unify(n->m, d, fg_c(n, 1)))
            return false;
    }
    const fg_type t = *fg_rt(n->m, x);
    return fg_axisset_drop(n, &s, t.dim, dim) &&
           fg_yield(n, fg_emit_reshape(n->b, x, s.rank - s.count, dim));
}

bool
fg_onnx_unsqueeze(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const int64_t *axes;
    const fg_expr *e;
    fg_expr dim[FG_MAXRANK];
    fg_axisset s;
    int64_t len = 1;
    int count = n->opset < 13 ? fg_attr_ints(n, "axes", &axes) : -1;

    if (!x)
        return false;
    if (count < 0) {
        fg_reg a = fg_need(n, 1);
        if (!a)
            return false;
        if (fg_in_exprs_opt(n, 1, &e, &count))
            len = count;
        else if (fg_rank(n, a) > 0 && !fg_e_const(n->ex, fg_dim(n, a, 0), &len))
            return fg_node_unsupported(n, "an unknown number of axes");
        count = len > FG_MAXRANK ? FG_MAXRANK + 1 : (int)len;
    }
    if (fg_rank(n, x) + count > FG_MAXRANK)
        return fg_node_error(n, "rank %d is above the limit of %d", fg_rank(n, x) + count,
                             FG_MAXRANK);
    if (!fg_axisset_read(n, 1, fg_rank(n, x) + count, &s))
        return false;
    if (s.count != count)
        return fg_node_error(n, "an axis is named twice");
    const fg_type t = *fg_rt(n->m, x);
    return fg_axisset_insert(n, &s, t.dim, dim) &&
           fg_yield(n, fg_emit_reshape(n->b, x, s.rank, dim));
}

bool
fg_onnx_transpose(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const int64_t *given;
    int64_t perm[FG_MAXRANK];
    unsigned seen = 0;

    if (!x)
        return false;
    int rank = fg_rank(n, x), count = fg_attr_ints(n, "perm", &given);
    if (count >= 0 && count != rank)
        return fg_node_error(n, "perm has %d entries for %s", count,
                             fg_type_text(n->m, fg_rt(n->m, x)));
    for (int a = 0; a < rank; a++) {
        int64_t p = count < 0 ? rank - 1 - a : given[a];
        if (p < 0 || p >= rank || (seen >> p & 1))
            return fg_node_error(n, "perm is not a permutation of %d axes", rank);
        seen |= 1u << p;
        perm[a] = p;
    }
    return fg_yield(n, fg_emit_transpose(n->b, x, perm));
}

/* ---- repetition ------------------------------------------------------------------ */

/* c ? a : b for sizes c that are 1 or not. */
static fg_expr
if_one(fg_node *n, fg_expr c, fg_expr a, fg_expr b)
{
    return fg_eselect(n->ex, fg_eeq(n->ex, c, fg_c(n, 1)), a, b);
}

/* One axis of Expand: either side may be 1. What a target computed from data is, only the run
 * can tell: it must be 1 or the size that is there, unless that is 1. */
static bool
expand_dim(fg_node *n, fg_expr d, fg_expr to, fg_expr *out)
{
    bool from_data = fg_e_mentions(n->ex, to, FG_SYM_RUN) && d != to;
    fg_expr fits = if_one(n, to, d, to);

    if (fg_e_is(n->ex, to, 1))
        *out = d;
    else if (fg_e_is(n->ex, d, 1))
        *out = to;
    else if (from_data && fg_e_lo(n->ex, d) > 1 && fg_require_checked(n->b, fits, d))
        *out = d;
    else if (from_data && fg_e_lo(n->ex, d) <= 1 &&
             !fg_e_mentions(n->ex, d, FG_SYM_RUN) &&
             fg_require_checked(n->b, if_one(n, d, d, fits), d))
        *out = if_one(n, d, to, d);
    else if (!fg_bcast_dim(n->m, d, to, out))
        return fg_node_error(n, "%s does not expand to the given shape",
                             fg_type_text(n->m, fg_in_type(n, 0)));
    return true;
}

/* Repeats axis a of x if its size turns out to be 1, so that it has `size` elements in
 * any case: no broadcast, which would have to know. */
static fg_reg
repeat_if_one(fg_node *n, fg_reg x, int a, fg_expr size)
{
    fg_expr step = if_one(n, fg_dim(n, x, a), fg_c(n, 0), fg_c(n, 1));
    fg_reg at = fg_emit_iota(n->b, size, fg_c(n, 0), 1, FG_i64);

    return fg_emit_gather(n->b, x, E2(mul, at, fg_sym_scalar(n, step, FG_i64)), a);
}

bool
fg_onnx_expand(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const fg_expr *e;
    fg_expr dim[FG_MAXRANK];
    int count;

    if (!x || !fg_in_clamped(n, 1, 0, INT64_MAX, &e, &count))
        return false;
    int rx = fg_rank(n, x), rank = count > rx ? count : rx;
    if (rank > FG_MAXRANK)
        return fg_node_error(n, "rank %d is above the limit of %d", rank, FG_MAXRANK);
    for (int a = 0; a < rank; a++) {
        fg_expr d = a < rank - rx ? fg_c(n, 1) : fg_dim(n, x, a - (rank - rx));
        fg_expr to = a < rank - count ? fg_c(n, 1) : e[a - (rank - count)];
        int64_t v;
        if (fg_e_const(n->ex, to, &v) && v < 0)
            return fg_node_error(n, "size %lld is negative", (long long)v);
        if (!expand_dim(n, d, to, &dim[a]))
            return false;
        if (dim[a] != fg_e_renew(n->ex, d) && !fg_e_is(n->ex, d, 1))
            x = repeat_if_one(n, x, a - (rank - rx), dim[a]);
    }
    for (int a = 0; a < rank; a++)
        dim[a] = fg_e_renew(n->ex, dim[a]);
    return fg_yield(n, fg_emit_expand(n->b, x, rank, dim));
}

/* Repeat by an axis of its own before each repeated one. */
static fg_reg
tile(fg_node *n, fg_reg x, const fg_expr *times)
{
    fg_expr split[FG_MAXRANK], wide[FG_MAXRANK], out[FG_MAXRANK];
    int rank = fg_rank(n, x), r = 0;

    for (int a = 0; a < rank; a++) {
        fg_expr d = fg_dim(n, x, a);
        bool once = fg_e_is(n->ex, times[a], 1), flat = fg_e_is(n->ex, d, 1);
        if (r + 2 > FG_MAXRANK) {
            fg_node_unsupported(n, "too many repeated axes");
            return 0;
        }
        if (!once && !flat) {
            split[r] = fg_c(n, 1);
            wide[r++] = times[a];
        }
        split[r] = d;
        wide[r++] = flat ? times[a] : d;
        out[a] = fg_emul(n->ex, times[a], d);
    }
    x = fg_emit_expand(n->b, fg_emit_reshape(n->b, x, r, split), r, wide);
    return fg_emit_reshape(n->b, x, rank, out);
}

bool
fg_onnx_tile(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const fg_expr *e;
    int count;
    int64_t v;

    if (!x || !fg_in_clamped(n, 1, 0, INT64_MAX, &e, &count))
        return false;
    if (count != fg_rank(n, x))
        return fg_node_error(n, "%d repeats for %s", count,
                             fg_type_text(n->m, fg_rt(n->m, x)));
    for (int a = 0; a < count; a++)
        if (fg_e_const(n->ex, e[a], &v) && v < 0)
            return fg_node_error(n, "repeat %lld is negative", (long long)v);
    return fg_yield(n, tile(n, x, e));
}

bool
fg_onnx_concat(fg_node *n)
{
    fg_reg *x = FG_NEWN(n->m->a, fg_reg, (size_t)n->nin);
    int axis;

    for (int k = 0; k < n->nin; k++)
        if (!(x[k] = fg_need(n, k)))
            return false;
    if (fg_rank(n, x[0]) == 0)
        return fg_node_error(n, "operands have no axis to join");
    if (!fg_axis(n, fg_attr_int(n, "axis", 1), fg_rank(n, x[0]), &axis))
        return false;
    return fg_yield(n, n->nin == 1 ? x[0] : fg_emit_concat(n->b, n->nin, x, axis));
}

/* ---- parts ----------------------------------------------------------------------- */

/* A bound of Slice as a position: counted from the end when negative, then within lo..hi.
 * Constants as large as INT32_MAX are the exporters' words for "the end". The last k, of which
 * there may be fewer, are written as that: d - min(d, k) tells more than max(0, d - k). */
static fg_expr
slice_bound(fg_node *n, fg_expr at, fg_expr d, fg_expr lo, fg_expr hi)
{
    fg_exprs *t = n->ex;
    int64_t v;

    if (fg_e_const(t, at, &v) && v >= INT32_MAX)
        return hi;
    if (fg_e_const(t, at, &v) && v <= -INT32_MAX)
        return fg_emin(t, lo, hi);
    if (fg_e_const(t, at, &v) && v < 0 && fg_e_is(t, lo, 0) && hi == d)
        return fg_esub(t, d, fg_emin(t, d, fg_c(n, -v)));
    at = fg_eselect(t, fg_elt(t, at, fg_c(n, 0)), fg_eadd(t, at, d), at);
    return fg_emin(t, fg_emax(t, at, lo), hi);
}

typedef struct slicing {
    fg_expr start[FG_MAXRANK], size[FG_MAXRANK], step[FG_MAXRANK];
} slicing;

/* Bounds of one axis of size d as ONNX says: step > 0 clamps to 0..d, step < 0 to
 * -1..d-1. */
static void
slice_axis(fg_node *n, slicing *s, int a, fg_expr d, fg_expr from, fg_expr to,
           fg_expr step)
{
    fg_exprs *t = n->ex;
    fg_expr zero = fg_c(n, 0), back = fg_elt(t, step, zero), hi = fg_esub(t, d, back);
    fg_expr start = slice_bound(n, from, d, zero, hi);
    fg_expr end = slice_bound(n, to, d, fg_esub(t, zero, back), hi);
    fg_expr size = fg_esub(t, zero, fg_ediv(t, fg_esub(t, start, end), step));

    s->start[a] = start;
    s->size[a] = fg_emax(t, size, zero);
    s->step[a] = step;
}

/* Constant steps are one view; a step known only at run time becomes an index vector. */
static fg_reg
slice_emit(fg_node *n, fg_reg x, const slicing *s)
{
    fg_expr start[FG_MAXRANK], size[FG_MAXRANK];
    int64_t step[FG_MAXRANK];
    int rank = fg_rank(n, x);

    for (int a = 0; a < rank; a++) {
        bool fixed = fg_e_const(n->ex, s->step[a], &step[a]);
        start[a] = fixed ? s->start[a] : fg_c(n, 0);
        size[a] = fixed ? s->size[a] : fg_dim(n, x, a);
        step[a] = fixed ? step[a] : 1;
    }
    x = fg_emit_slice(n->b, x, start, step, size);
    for (int a = 0; x && a < rank; a++)
        if (!fg_e_const(n->ex, s->step[a], &step[a])) {
            fg_reg at = fg_emit_iota(n->b, s->size[a], fg_c(n, 0), 1, FG_i64);
            at = E2(mul, at, fg_sym_scalar(n, s->step[a], FG_i64));
            at = E2(add, at, fg_sym_scalar(n, s->start[a], FG_i64));
            x = fg_emit_gather(n->b, x, at, a);
        }
    return x;
}

/* The operands of Slice, or the attributes of its first version. */
typedef struct bounds {
    const fg_expr *from, *to, *axis, *step;
    int count;
} bounds;

static bool
slice_attrs(fg_node *n, bounds *b)
{
    static const char *const name[3] = {"starts", "ends", "axes"};
    fg_expr *e[3];

    b->count = -1;
    for (int k = 0; k < 3; k++) {
        const int64_t *v;
        int count = fg_attr_ints(n, name[k], &v);
        if (k == 0)
            b->count = count;
        if (count != b->count && !(k == 2 && count < 0))
            return fg_node_error(n, "%s has %d entries, starts %d", name[k], count,
                                 b->count);
        e[k] = FG_NEWN(n->m->a, fg_expr, (size_t)(count > 0 ? count : 1));
        for (int i = 0; i < b->count; i++)
            e[k][i] = fg_c(n, count < 0 ? i : v[i]);
    }
    *b = (bounds){e[0], e[1], e[2], NULL, b->count};
    return b->count >= 0 || fg_node_error(n, "attribute starts is missing");
}

static bool
slice_operands(fg_node *n, int rank, bounds *b)
{
    const fg_expr **e[4] = {&b->from, &b->to, &b->axis, &b->step};

    *b = (bounds){0};
    for (int k = 1; k <= 4; k++) {
        int count;
        if (k > 2 && !fg_in(n, k))
            continue;
        if (!fg_in_clamped(n, k, k == 3 ? -rank : INT64_MIN,
                           k == 3 ? rank - 1 : INT64_MAX, e[k - 1], &count))
            return false;
        if (k == 1)
            b->count = count;
        if (count != b->count)
            return fg_node_error(n, "operand %d has %d entries, starts %d", k, count,
                                 b->count);
    }
    return true;
}

/* Entry i of the bounds is meant for axis a when flag is 1. */
static bool
slice_entry(fg_node *n, const bounds *b, int rank, int i, fg_expr *flag)
{
    int64_t v = i, step;
    int axis = i;
    bool known = !b->axis || fg_e_const(n->ex, b->axis[i], &v);

    if (known && !fg_axis(n, v, rank, &axis))
        return false;
    if (b->step && fg_e_const(n->ex, b->step[i], &step) &&
        (step == 0 || step == INT64_MIN))
        return fg_node_error(n, "step %lld", (long long)step);
    for (int a = 0; a < rank; a++)
        flag[a] =
            known ? fg_c(n, a == axis)
                  : fg_eeq(n->ex, fg_emod(n->ex, b->axis[i], fg_c(n, rank)), fg_c(n, a));
    return true;
}

bool
fg_onnx_slice(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    fg_expr from[FG_MAXRANK], to[FG_MAXRANK], step[FG_MAXRANK], flag[FG_MAXRANK];
    bool used[FG_MAXRANK] = {false};
    slicing s;
    bounds b;

    if (!x)
        return false;
    int rank = fg_rank(n, x);
    if (!(n->opset < 10 ? slice_attrs(n, &b) : slice_operands(n, rank, &b)))
        return false;
    if (b.count > rank)
        return fg_node_error(n, "%d starts for %s", b.count,
                             fg_type_text(n->m, fg_rt(n->m, x)));
    for (int a = 0; a < rank; a++) {
        from[a] = fg_c(n, 0);
        to[a] = fg_c(n, INT64_MAX);
        step[a] = fg_c(n, 1);
    }
    for (int i = 0; i < b.count; i++) {
        if (!slice_entry(n, &b, rank, i, flag))
            return false;
        for (int a = 0; a < rank; a++) {
            if (fg_e_is(n->ex, flag[a], 0))
                continue;
            if (fg_e_is(n->ex, flag[a], 1) && used[a])
                return fg_node_error(n, "axis %d is named twice", a);
            used[a] = true;
            from[a] = fg_eselect(n->ex, flag[a], b.from[i], from[a]);
            to[a] = fg_e_is(n->ex, flag[a], 1)
                        ? b.to[i]
                        : fg_eselect(n->ex, flag[a], b.to[i],
                                     fg_e_is(n->ex, to[a], INT64_MAX) ? fg_dim(n, x, a)
                                                                      : to[a]);
            if (b.step)
                step[a] = fg_eselect(n->ex, flag[a], b.step[i], step[a]);
        }
    }
    for (int a = 0; a < rank; a++)
        slice_axis(n, &s, a, fg_dim(n, x, a), from[a], to[a], step[a]);
    return fg_yield(n, slice_emit(n, x, &s));
}

/* Sizes of the parts: given, or equal with what is left in the last. */
static bool
split_sizes(fg_node *n, fg_expr d, int parts, const fg_expr **size)
{
    const int64_t *attr;
    fg_expr *e, sum = fg_c(n, 0), each;
    bool run = false;
    int64_t v;
    int count = n->opset < 13 ? fg_attr_ints(n, "split", &attr) : -1;

    if (count < 0 && fg_in(n, 1) && !fg_in_clamped(n, 1, 0, INT64_MAX, size, &count))
        return false;
    if (count >= 0) {
        if (count != parts)
            return fg_node_error(n, "%d sizes for %d outputs", count, parts);
        if (n->opset < 13) {
            *size = e = FG_NEWN(n->m->a, fg_expr, (size_t)parts);
            for (int i = 0; i < parts; i++)
                e[i] = fg_c(n, attr[i]);
        }
        for (int i = 0; i < parts; i++) {
            if (fg_e_const(n->ex, (*size)[i], &v) && v < 0)
                return fg_node_error(n, "size %lld is negative", (long long)v);
            sum = fg_eadd(n->ex, sum, (*size)[i]);
            run = run || fg_e_mentions(n->ex, (*size)[i], FG_SYM_RUN);
        }
        return run || fg_unify(n->m, sum, d) ||
               fg_node_error(n, "the sizes do not add up to axis size");
    }
    v = fg_attr_int(n, "num_outputs", parts);
    if (v != parts)
        return fg_node_error(n, "num_outputs is %lld, there are %d outputs", (long long)v,
                             parts);
    *size = e = FG_NEWN(n->m->a, fg_expr, (size_t)parts);
    each = fg_ediv(n->ex, fg_eadd(n->ex, d, fg_c(n, parts - 1)), fg_c(n, parts));
    if (fg_e_divides(n->ex, parts, d))
        each = fg_ediv(n->ex, d, fg_c(n, parts));
    for (int i = 0; i < parts; i++) {
        fg_expr left = fg_emax(n->ex, fg_esub(n->ex, d, sum), fg_c(n, 0));
        e[i] = fg_emin(n->ex, each, left);
        sum = fg_eadd(n->ex, sum, e[i]);
    }
    return true;
}

bool
fg_onnx_split(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const fg_expr *size;
    int axis;

    if (!x || !fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, x), &axis) ||
        !split_sizes(n, fg_dim(n, x, axis), n->nout, &size))
        return false;
    /* Sizes computed from data: only the run can tell whether they add up. */
    fg_expr at = fg_c(n, 0), sum = at;
    for (int k = 0; k < n->nout; k++)
        sum = fg_eadd(n->ex, sum, size[k]);
    if (!fg_require_checked(n->b, sum, fg_dim(n, x, axis)))
        return fg_node_error(n, "the parts do not add up to axis %d of %s", axis,
                             fg_type_text(n->m, fg_rt(n->m, x)));
    for (int k = 0; k < n->nout; k++) {
        if (!fg_yield_at(
                n, k, fg_emit_slice_axis(n->b, x, axis, at, fg_e_renew(n->ex, size[k]))))
            return false;
        at = fg_eadd(n->ex, at, size[k]);
    }
    return true;
}

/* ---- padding --------------------------------------------------------------------- */

static fg_reg
pad(fg_node *n, fg_reg x, fg_reg value, const fg_expr *before, const fg_expr *after,
    const char *mode)
{
    int rank = fg_rank(n, x);

    fg_inst *i = fg_inst_begin(n->b, FG_OP_pad, value ? 2 : 1, (fg_reg[]){x, value});
    fg_set_exprs(n->m, &FG_SET(i, pad, before), rank, before);
    fg_set_exprs(n->m, &FG_SET(i, pad, after), rank, after);
    fg_set_word(n->m, &FG_SET(i, pad, mode), mode);
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

fg_reg
fg_pad_zero(fg_node *n, fg_reg x, const fg_expr *before, const fg_expr *after)
{
    return x ? pad(n, x, 0, before, after, "constant") : 0;
}

/* Amounts of old opsets sit in an attribute. */
static bool
pad_amounts(fg_node *n, const fg_expr **v, int *count)
{
    const int64_t *is;

    if (n->opset >= 11)
        return fg_in_clamped(n, 1, INT64_MIN, INT64_MAX, v, count);
    *count = fg_attr_ints(n, n->opset >= 2 ? "pads" : "paddings", &is);
    if (*count < 0)
        return fg_node_error(n, "attribute pads is missing");
    fg_expr *e = FG_NEWN(n->m->a, fg_expr, (size_t)*count + 1);
    for (int i = 0; i < *count; i++)
        e[i] = fg_c(n, is[i]);
    *v = e;
    return true;
}

bool
fg_onnx_pad(fg_node *n)
{
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    fg_reg x = fg_need(n, 0), value = 0;
    const char *mode = fg_attr_str(n, "mode", "constant");
    fg_expr before[FG_MAXRANK], after[FG_MAXRANK], flag[FG_MAXRANK];
    bounds b = {0};
    int count, naxes, m = 0;

    while (m < 4 && strcmp(modes[m], mode))
        m++;
    if (m == 4)
        return fg_node_unsupported(n, "mode \"%s\"", mode);
    if (!x || !pad_amounts(n, &b.from, &count))
        return false;
    int rank = fg_rank(n, x);
    naxes = rank;
    if (n->opset >= 18 && fg_in(n, 3) &&
        !fg_in_clamped(n, 3, -rank, rank - 1, &b.axis, &naxes))
        return false;
    if (count != 2 * naxes || naxes > rank)
        return fg_node_error(n, "%d pads for %d axes of rank %d", count, naxes, rank);
    for (int a = 0; a < rank; a++)
        before[a] = after[a] = fg_c(n, 0);
    for (int i = 0; i < naxes; i++) {
        if (!slice_entry(n, &b, rank, i, flag))
            return false;
        for (int a = 0; a < rank; a++) {
            before[a] = fg_eadd(n->ex, before[a], fg_emul(n->ex, flag[a], b.from[i]));
            after[a] =
                fg_eadd(n->ex, after[a], fg_emul(n->ex, flag[a], b.from[naxes + i]));
        }
    }
    if (m == 0 && n->opset >= 11 && fg_in(n, 2))
        value = fg_scalar(n, n->in[2], "the fill value");
    else if (m == 0 && n->opset < 11 && fg_attr_float(n, "value", 0) != 0)
        value = fg_num(n, x, fg_attr_float(n, "value", 0));
    return fg_yield(n, pad(n, x, value, before, after, mode));
}

/* ---- blocks ---------------------------------------------------------------------- */

static bool
block_size(fg_node *n, fg_reg x, int64_t *bs)
{
    *bs = fg_attr_int(n, "blocksize", 0);
    if (fg_rank(n, x) != 4)
        return fg_node_error(n, "%s is not of rank 4",
                             fg_type_text(n->m, fg_rt(n->m, x)));
    if (*bs < 1 || *bs > 65536)
        return fg_node_error(n, "blocksize %lld", (long long)*bs);
    return true;
}

bool
fg_onnx_depth_to_space(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    const char *mode = fg_attr_str(n, "mode", "DCR");
    int64_t bs;

    if (!x || !block_size(n, x, &bs))
        return false;
    bool crd = !strcmp(mode, "CRD");
    if (!crd && strcmp(mode, "DCR"))
        return fg_node_error(n, "mode \"%s\" is neither DCR nor CRD", mode);
    if (!fg_e_divides(n->ex, bs * bs, fg_dim(n, x, 1)))
        return fg_node_error(n, "channels are not a multiple of blocksize squared");
    fg_expr b = fg_c(n, bs), c = fg_ediv(n->ex, fg_dim(n, x, 1), fg_c(n, bs * bs));
    fg_expr h = fg_dim(n, x, 2), w = fg_dim(n, x, 3), batch = fg_dim(n, x, 0);
    fg_expr dcr_dim[6] = {batch, b, b, c, h, w}, crd_dim[6] = {batch, c, b, b, h, w};
    fg_expr out[4] = {batch, c, fg_emul(n->ex, h, b), fg_emul(n->ex, w, b)};
    x = fg_emit_reshape(n->b, x, 6, crd ? crd_dim : dcr_dim);
    x = fg_emit_transpose(
        n->b, x, crd ? (int64_t[]){0, 1, 4, 2, 5, 3} : (int64_t[]){0, 3, 4, 1, 5, 2});
    return fg_yield(n, fg_emit_reshape(n->b, x, 4, out));
}

bool
fg_onnx_space_to_depth(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    int64_t bs;
    const char *mode = fg_attr_str(n, "mode", "DCR");
    bool crd = !strcmp(mode, "CRD");

    if (!x || !block_size(n, x, &bs))
        return false;
    if (!crd && strcmp(mode, "DCR"))
        return fg_node_error(n, "mode \"%s\" is neither DCR nor CRD", mode);
    if (!fg_e_divides(n->ex, bs, fg_dim(n, x, 2)) ||
        !fg_e_divides(n->ex, bs, fg_dim(n, x, 3)))
        return fg_node_error(n, "height and width are not multiples of blocksize");
    fg_expr b = fg_c(n, bs), c = fg_dim(n, x, 1), batch = fg_dim(n, x, 0);
    fg_expr h = fg_ediv(n->ex, fg_dim(n, x, 2), b),
            w = fg_ediv(n->ex, fg_dim(n, x, 3), b);
    fg_expr split[6] = {batch, c, h, b, w, b};
    fg_expr out[4] = {batch, fg_emul(n->ex, c, fg_c(n, bs * bs)), h, w};
    x = fg_emit_reshape(n->b, x, 6, split);
    x = fg_emit_transpose(
        n->b, x, crd ? (int64_t[]){0, 1, 3, 5, 2, 4} : (int64_t[]){0, 3, 5, 1, 2, 4});
    return fg_yield(n, fg_emit_reshape(n->b, x, 4, out));
}
