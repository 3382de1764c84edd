/* ops_index.c - ONNX operators that pick, place and count: gather, scatter, one-hot,
 * triangles, ranges, shapes.
 *
 *     Shape x                 ->  symvec {v=[B,S]}
 *     Trilu x                 ->  where(row + k >= column, x, 0)
 *     OneHot i, depth, v      ->  where(i == iota(depth), v[1], v[0])
 *     NonZero x               ->  nonzero_count, readsym, nonzero
 */
#include "frontend/ops.h"

#include <math.h>

/* ---- shapes and constants -------------------------------------------------------- */

static int
clamp_axis(int64_t a, int rank)
{
    a = a < 0 ? a + rank : a;
    return (int)(a < 0 ? 0 : a > rank ? rank : a);
}

bool
fg_onnx_shape(fg_node *n)
{
    fg_reg x = fg_need(n, 0);

    if (!x)
        return false;
    int rank = fg_rank(n, x), start = clamp_axis(fg_attr_int(n, "start", 0), rank);
    int end = clamp_axis(fg_attr_int(n, "end", rank), rank);
    const fg_type t = *fg_rt(n->m, x);
    return fg_yield(n, fg_emit_symvec(n->b, end > start ? end - start : 0, t.dim + start,
                                      FG_i64, false));
}

bool
fg_onnx_size(fg_node *n)
{
    fg_reg x = fg_need(n, 0);

    return x &&
           fg_yield(n, fg_sym_scalar(n, fg_dims_product(n, x, 0, fg_rank(n, x)), FG_i64));
}

bool
fg_onnx_constant(fg_node *n)
{
    const int64_t *is;
    const float *fs;
    int count;

    if (fg_attr_has(n, "value"))
        return fg_yield(n, fg_attr_tensor(n, "value"));
    if (fg_attr_has(n, "sparse_value"))
        return fg_yield(n, fg_attr_tensor(n, "sparse_value"));
    if (fg_attr_has(n, "value_float")) {
        float f = (float)fg_attr_float(n, "value_float", 0);
        return fg_yield(n, fg_emit_const(n->b, FG_f32, 0, NULL, &f));
    }
    if (fg_attr_has(n, "value_int")) {
        int64_t i = fg_attr_int(n, "value_int", 0);
        return fg_yield(n, fg_emit_const(n->b, FG_i64, 0, NULL, &i));
    }
    if ((count = fg_attr_floats(n, "value_floats", &fs)) >= 0)
        return fg_yield(n, fg_emit_const(n->b, FG_f32, 1, (int64_t[]){count}, fs));
    if ((count = fg_attr_ints(n, "value_ints", &is)) >= 0)
        return fg_yield(n, fg_emit_const(n->b, FG_i64, 1, (int64_t[]){count}, is));
    return fg_node_unsupported(n, "a constant that is not a dense tensor of numbers");
}

bool
fg_onnx_constant_of_shape(fg_node *n)
{
    const fg_expr *e;
    int count;
    int64_t v;

    if (!fg_in_clamped(n, 0, 0, INT64_MAX, &e, &count))
        return false;
    if (count > FG_MAXRANK)
        return fg_node_error(n, "rank %d is above the limit of %d", count, FG_MAXRANK);
    for (int a = 0; a < count; a++)
        if (fg_e_const(n->ex, e[a], &v) && v < 0)
            return fg_node_error(n, "size %lld is negative", (long long)v);
    fg_reg value = fg_attr_has(n, "value")
                       ? fg_scalar(n, fg_attr_tensor(n, "value"), "value")
                       : fg_emit_f(n->b, FG_f32, 0);
    return fg_yield(n, value ? fg_emit_expand(n->b, value, count, e) : 0);
}

/* ---- ranges ---------------------------------------------------------------------- */

/* Elements of start, start+delta, .. before limit: max(0, ceil((limit - start) /
 * delta)). */
static bool
range_exprs(fg_node *n, fg_dtype d)
{
    const fg_expr *e;
    fg_expr v[3];
    int64_t step = 0;
    int count;

    for (int k = 0; k < 3; k++) {
        if (!fg_in_clamped(n, k, INT64_MIN, INT64_MAX, &e, &count))
            return false;
        if (count != 1)
            return fg_node_error(n, "operand %d has %d elements", k, count);
        v[k] = e[0];
    }
    if (fg_e_is(n->ex, v[2], 0))
        return fg_node_error(n, "delta is 0");
    fg_expr len = fg_ediv(n->ex, fg_esub(n->ex, v[0], v[1]), v[2]);
    len = fg_emax(n->ex, fg_esub(n->ex, fg_c(n, 0), len), fg_c(n, 0));
    if (fg_e_const(n->ex, v[2], &step))
        return fg_yield(
            n, fg_emit_cast(n->b, fg_emit_iota(n->b, len, v[0], step, FG_i64), d));
    fg_reg i = fg_emit_iota(n->b, len, fg_c(n, 0), 1, FG_i64);
    i = E2(add, E2(mul, i, fg_sym_scalar(n, v[2], FG_i64)),
           fg_sym_scalar(n, v[0], FG_i64));
    return fg_yield(n, fg_emit_cast(n->b, i, d));
}

bool
fg_onnx_range(fg_node *n)
{
    const fg_expr *e;
    fg_reg v[3];
    double f[3];
    bool exprs = true, constant = true;
    int count;

    for (int k = 0; k < 3; k++) {
        if (!(v[k] = fg_scalar(n, fg_need(n, k), "start, limit or delta")))
            return false;
        exprs = exprs && fg_in_exprs_opt(n, k, &e, &count);
        constant = constant && fg_const_f64(n->m, n->in[k], 0, &f[k]);
    }
    fg_dtype d = fg_elem(n, v[0]);
    if (!fg_is_float(d) || exprs)
        return range_exprs(n, d);
    fg_expr len;
    if (constant) {
        double c = ceil((f[1] - f[0]) / f[2]);
        if (!(c < (double)(INT64_MAX / 2)))
            return fg_node_error(n, "the range has no end");
        len = fg_c(n, c > 0 ? (int64_t)c : 0);
    } else {
        fg_reg c = E1(ceil, E2(div, E2(sub, v[1], v[0]), v[2]));
        c = E2(max, fg_emit_cast(n->b, c, FG_i64), fg_emit_f(n->b, FG_i64, 0));
        len = c ? fg_emit_readsym(n->b, c, 0, 0, INT64_MAX) : FG_E_BAD;
    }
    if (len == FG_E_BAD)
        return false;
    fg_reg start = fg_widen(n, v[0]), delta = fg_widen(n, v[2]);
    fg_reg i = fg_emit_cast(n->b, fg_emit_iota(n->b, len, fg_c(n, 0), 1, FG_i64),
                            fg_elem(n, start));
    return fg_yield(n, fg_narrow(n, E2(add, start, E2(mul, i, delta)), v[0]));
}

/* ---- masks from positions -------------------------------------------------------- */

bool
fg_onnx_trilu(fg_node *n)
{
    fg_reg x = fg_need(n, 0), k = fg_in(n, 1);

    if (!x)
        return false;
    int rank = fg_rank(n, x);
    if (rank < 2)
        return fg_node_error(n, "%s has no last two axes",
                             fg_type_text(n->m, fg_rt(n->m, x)));
    fg_reg row = fg_iota_along(n, fg_dim(n, x, rank - 2), 0, 2, FG_i64);
    fg_reg col = fg_iota_along(n, fg_dim(n, x, rank - 1), 1, 2, FG_i64);
    if (k)
        row = E2(add, row, fg_scalar(n, k, "k"));
    fg_reg keep = fg_attr_int(n, "upper", 1) ? E2(le, row, col) : E2(ge, row, col);
    return fg_yield(n, E3(where, keep, x, fg_num(n, x, 0)));
}

bool
fg_onnx_eye_like(fg_node *n)
{
    fg_reg x = fg_need(n, 0);

    if (!x)
        return false;
    if (fg_rank(n, x) != 2)
        return fg_node_error(n, "%s is not a matrix", fg_type_text(n->m, fg_rt(n->m, x)));
    fg_dtype d = fg_attr_has(n, "dtype")
                     ? fg_dtype_by_onnx((int)fg_attr_int(n, "dtype", 0))
                     : fg_elem(n, x);
    if (!d)
        return fg_node_unsupported(n, "element type %lld",
                                   (long long)fg_attr_int(n, "dtype", 0));
    fg_reg row = fg_iota_along(n, fg_dim(n, x, 0), 0, 2, FG_i64);
    fg_reg col = fg_iota_along(n, fg_dim(n, x, 1), 1, 2, FG_i64);
    row = E2(add, row, fg_emit_f(n->b, FG_i64, (double)fg_attr_int(n, "k", 0)));
    return fg_yield(n, fg_emit_cast(n->b, E2(eq, row, col), d));
}

bool
fg_onnx_one_hot(fg_node *n)
{
    fg_reg x = fg_need(n, 0), values = fg_need(n, 2);
    const fg_expr *depth;
    int axis, count;
    int64_t v;

    if (!x || !values || !fg_in_clamped(n, 1, 0, INT64_MAX, &depth, &count) ||
        !fg_axis(n, fg_attr_int(n, "axis", -1), fg_rank(n, x) + 1, &axis))
        return false;
    if (count != 1 || (fg_e_const(n->ex, depth[0], &v) && v < 0))
        return fg_node_error(n, "depth must be one number, not negative");
    if (fg_rank(n, values) != 1)
        return fg_node_error(n, "values must be [off, on]");
    fg_reg i = fg_insert1(n, fg_emit_cast(n->b, x, FG_i64), axis, 1);
    i = E3(where, E2(lt, i, fg_emit_f(n->b, FG_i64, 0)),
           E2(add, i, fg_sym_scalar(n, depth[0], FG_i64)), i);
    fg_reg at = i ? fg_iota_along(n, depth[0], axis, fg_rank(n, i), FG_i64) : 0;
    fg_reg off = fg_scalar(n, fg_part(n, values, 0, 0, 1), "off");
    fg_reg on = fg_scalar(n, fg_part(n, values, 0, 1, 1), "on");
    return fg_yield(n, E3(where, E2(eq, i, at), on, off));
}

/* ---- gather ---------------------------------------------------------------------- */

bool
fg_onnx_gather(fg_node *n)
{
    fg_reg x = fg_need(n, 0), index = fg_need(n, 1);
    int axis;

    if (!x || !index || !fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, x), &axis))
        return false;
    if (fg_rank(n, x) - 1 + fg_rank(n, index) > FG_MAXRANK)
        return fg_node_error(n, "rank %d is above the limit of %d",
                             fg_rank(n, x) - 1 + fg_rank(n, index), FG_MAXRANK);
    return fg_yield(n, fg_emit_gather(n->b, x, index, axis));
}

bool
fg_onnx_gather_elements(fg_node *n)
{
    fg_reg in[2] = {fg_need(n, 0), fg_need(n, 1)};
    int axis;

    if (!in[0] || !in[1] ||
        !fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, in[0]), &axis))
        return false;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_gather_elements, 2, in);
    FG_SET(i, gather_elements, axis).i = axis;
    return fg_inst_finish(n->b, i, NULL, 0) && fg_yield(n, i->out[0]);
}

bool
fg_onnx_gather_nd(fg_node *n)
{
    fg_reg in[2] = {fg_need(n, 0), fg_need(n, 1)};
    int64_t batch = fg_attr_int(n, "batch_dims", 0);

    if (!in[0] || !in[1])
        return false;
    if (batch < 0 || batch >= fg_rank(n, in[0]) || batch >= fg_rank(n, in[1]))
        return fg_node_error(n, "batch_dims %lld does not fit the ranks",
                             (long long)batch);
    fg_inst *i = fg_inst_begin(n->b, FG_OP_gather_nd, 2, in);
    FG_SET(i, gather_nd, batch).i = batch;
    return fg_inst_finish(n->b, i, NULL, 0) && fg_yield(n, i->out[0]);
}

/* Rows whose condition holds. */
bool
fg_onnx_compress(fg_node *n)
{
    fg_reg x = fg_need(n, 0), cond = fg_need(n, 1);
    int axis = 0;

    if (!x || !cond)
        return false;
    fg_expr all = fg_dims_product(n, x, 0, fg_rank(n, x));
    if (!fg_attr_has(n, "axis"))
        x = fg_emit_reshape(n->b, x, 1, &all);
    else if (!fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, x), &axis))
        return false;
    fg_reg at = fg_nonzero(n, cond);
    if (!at)
        return false;
    at = fg_emit_reshape(n->b, at, 1, (fg_expr[]){fg_dim(n, at, 1)});
    return fg_yield(n, fg_emit_gather(n->b, x, at, axis));
}

fg_reg
fg_nonzero(fg_node *n, fg_reg x)
{
    if (x && fg_rank(n, x) == 0)
        x = fg_insert1(n, x, 0, 1);
    fg_reg count = E1(nonzero_count, x);
    if (!count)
        return 0;
    int64_t max;
    if (!fg_e_const(n->ex, fg_dims_product(n, x, 0, fg_rank(n, x)), &max))
        max = INT64_MAX;
    fg_expr dim[2] = {fg_c(n, fg_rank(n, x)), fg_emit_readsym(n->b, count, 0, 0, max)};
    fg_type type = fg_type_make(FG_i64, 2, dim);
    fg_inst *i = fg_inst_begin(n->b, FG_OP_nonzero, 1, &x);
    return fg_inst_finish(n->b, i, &type, 1) ? i->out[0] : 0;
}

bool
fg_onnx_nonzero(fg_node *n)
{
    return fg_yield(n, fg_nonzero(n, fg_need(n, 0)));
}

/* ---- scatter --------------------------------------------------------------------- */

static bool
scatter_how(fg_node *n, const char **how)
{
    static const char *const words[] = {"none", "add", "mul", "min", "max"};

    *how = fg_attr_str(n, "reduction", "none");
    for (int k = 0; k < 5; k++)
        if (!strcmp(*how, words[k]))
            return true;
    return fg_node_unsupported(n, "reduction \"%s\"", *how);
}

bool
fg_onnx_scatter_elements(fg_node *n)
{
    fg_reg in[3] = {fg_need(n, 0), fg_need(n, 1), fg_need(n, 2)};
    const char *how;
    int axis;

    if (!in[0] || !in[1] || !in[2] || !scatter_how(n, &how) ||
        !fg_axis(n, fg_attr_int(n, "axis", 0), fg_rank(n, in[0]), &axis))
        return false;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_scatter_elements, 3, in);
    FG_SET(i, scatter_elements, axis).i = axis;
    fg_set_word(n->m, &FG_SET(i, scatter_elements, how), how);
    return fg_inst_finish(n->b, i, NULL, 0) && fg_yield(n, i->out[0]);
}

static fg_reg
scatter_nd(fg_node *n, fg_reg x, fg_reg index, fg_reg update, const char *how)
{
    if (!x || !index || !update)
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_scatter_nd, 3, (fg_reg[]){x, index, update});
    fg_set_word(n->m, &FG_SET(i, scatter_nd, how), how);
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

bool
fg_onnx_scatter_nd(fg_node *n)
{
    const char *how;

    return scatter_how(n, &how) &&
           fg_yield(n, scatter_nd(n, fg_need(n, 0), fg_need(n, 1), fg_need(n, 2), how));
}

/* Rows start[b] + s of axis `axis` become row s of update. */
fg_reg
fg_cache_write(fg_node *n, fg_reg cache, fg_reg update, fg_reg start, int axis,
               bool circular)
{
    if (!cache || !update)
        return 0;
    fg_reg rows =
        fg_iota_along(n, fg_dim(n, update, axis), start ? 1 : 0, start ? 2 : 1, FG_i64);
    if (start)
        rows = E2(add, rows, fg_along(n, fg_emit_cast(n->b, start, FG_i64), 0, 2));
    if (circular)
        rows = E2(mod, rows, fg_sym_scalar(n, fg_dim(n, cache, axis), FG_i64));
    if (!rows)
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_append, 3, (fg_reg[]){cache, update, rows});
    FG_SET(i, append, axis).i = axis;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

bool
fg_onnx_tensor_scatter(fg_node *n)
{
    fg_reg cache = fg_need(n, 0), update = fg_need(n, 1);
    const char *mode = fg_attr_str(n, "mode", "linear");
    bool circular = !strcmp(mode, "circular");
    int axis;

    if (!circular && strcmp(mode, "linear"))
        return fg_node_error(n, "mode \"%s\" is neither linear nor circular", mode);
    if (!cache || !update ||
        !fg_axis(n, fg_attr_int(n, "axis", -2), fg_rank(n, cache), &axis))
        return false;
    if (axis == 0)
        return fg_node_error(n, "axis 0 is the batch");
    if (fg_rank(n, update) != fg_rank(n, cache))
        return fg_node_error(n, "ranks of cache and update differ");
    return fg_yield(n, fg_cache_write(n, cache, update, fg_in(n, 2), axis, circular));
}

/* Element t of batch b comes from length[b] - 1 - t while t < length[b]. */
bool
fg_onnx_reverse_sequence(fg_node *n)
{
    fg_reg x = fg_need(n, 0), length = fg_need(n, 1);
    int64_t batch = fg_attr_int(n, "batch_axis", 1),
            time = fg_attr_int(n, "time_axis", 0);

    if (!x || !length)
        return false;
    int rank = fg_rank(n, x);
    if (rank < 2 || batch + time != 1 || batch * time != 0 || fg_rank(n, length) != 1)
        return fg_node_error(n, "batch and time must be the first two axes");
    fg_reg t = fg_iota_along(n, fg_dim(n, x, (int)time), (int)time, rank, FG_i64);
    fg_reg len = fg_along(n, fg_emit_cast(n->b, length, FG_i64), (int)batch, rank);
    fg_reg back = E2(sub, E2(sub, len, fg_emit_f(n->b, FG_i64, 1)), t);
    fg_reg in[2] = {x, fg_expand_like(n, E3(where, E2(lt, t, len), back, t), x)};
    if (!in[1])
        return false;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_gather_elements, 2, in);
    FG_SET(i, gather_elements, axis).i = time;
    return fg_inst_finish(n->b, i, NULL, 0) && fg_yield(n, i->out[0]);
}

/* ---- optional values, which are tensors or absent -------------------------------- */

bool
fg_onnx_optional_has(fg_node *n)
{
    return fg_yield(n, fg_emit_f(n->b, FG_bool, fg_in(n, 0) != 0));
}

bool
fg_onnx_optional_get(fg_node *n)
{
    return fg_yield(n, fg_need(n, 0));
}
