/* ops_attention.c - Attention and RotaryEmbedding of ONNX, and their parts for other
 * domains.
 *
 *     Attention q, k, v, mask, pk, pv   ->  %k = concat pk, k {axis=2}
 *       {is_causal=1}                       %v = concat pv, v {axis=2}
 *                                 %y = attention q, %k, %v, mask {causal=1, offset=P}
 *     RotaryEmbedding x, cos, sin, pos  ->  rope x, gather(cos, pos), gather(sin, pos)
 *
 * Where the scores themselves are wanted, the same formula is spelled out: scale, cap,
 * mask, softmax, product.
 */
#include "frontend/ops.h"

#include <math.h>

/* ---- heads ----------------------------------------------------------------------- */

fg_reg
fg_heads_apart(fg_node *n, fg_reg x, int64_t heads)
{
    if (!x)
        return 0;
    if (fg_rank(n, x) != 3 || heads < 1 || !fg_e_divides(n->ex, heads, fg_dim(n, x, 2))) {
        fg_node_error(n, "%lld heads do not divide %s", (long long)heads,
                      fg_type_text(n->m, fg_rt(n->m, x)));
        return 0;
    }
    fg_expr h = fg_c(n, heads);
    fg_expr dim[4] = {fg_dim(n, x, 0), fg_dim(n, x, 1), h,
                      fg_ediv(n->ex, fg_dim(n, x, 2), h)};
    return fg_emit_reshape(n->b, x, 4, dim);
}

fg_reg
fg_heads_split(fg_node *n, fg_reg x, int64_t heads)
{
    x = fg_heads_apart(n, x, heads);
    return x ? fg_emit_transpose(n->b, x, (int64_t[]){0, 2, 1, 3}) : 0;
}

fg_reg
fg_heads_merge(fg_node *n, fg_reg x)
{
    if (!x)
        return 0;
    fg_expr dim[3] = {fg_dim(n, x, 0), fg_dim(n, x, 2),
                      fg_emul(n->ex, fg_dim(n, x, 1), fg_dim(n, x, 3))};
    x = fg_emit_transpose(n->b, x, (int64_t[]){0, 2, 1, 3});
    return x ? fg_emit_reshape(n->b, x, 3, dim) : 0;
}

fg_reg
fg_repeat_heads(fg_node *n, fg_reg x, fg_expr heads)
{
    if (!x || fg_dim(n, x, 1) == heads)
        return x;
    fg_expr g = fg_dim(n, x, 1), t = fg_dim(n, x, 2), d = fg_dim(n, x, 3);
    fg_expr wide[5] = {fg_dim(n, x, 0), g, fg_ediv(n->ex, heads, g), t, d};
    fg_expr out[4] = {wide[0], heads, t, d};
    return fg_emit_reshape(n->b, fg_emit_expand(n->b, fg_insert1(n, x, 2, 1), 5, wide), 4,
                           out);
}

/* ---- attention ------------------------------------------------------------------- */

fg_reg
fg_attention_emit(fg_node *n, const fg_attention *a)
{
    fg_reg in[6] = {a->q, a->k, a->v, a->mask, a->sink, a->lengths};
    int nin = 6;

    if (!a->q || !a->k || !a->v)
        return 0;
    while (nin > 3 && !in[nin - 1])
        nin--;
    fg_expr rest = fg_esub(n->ex, fg_dim(n, a->k, 2), fg_dim(n, a->q, 2));
    fg_inst *i = fg_inst_begin(n->b, FG_OP_attention, nin, in);
    FG_SET(i, attention, scale).f = a->scale;
    FG_SET(i, attention, softcap).f = a->softcap;
    FG_SET(i, attention, causal).i = a->causal;
    bool placed = a->causal || a->left >= 0 || a->right >= 0;
    if (placed && !(a->offset == rest && !a->lengths))
        FG_SET(i, attention, offset).e = a->offset;
    FG_SET(i, attention, left).i = a->left;
    FG_SET(i, attention, right).i = a->right;
    fg_set_word(n->m, &FG_SET(i, attention, empty), a->empty_nan ? "nan" : "zero");
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* True where query i may see key j: [S,T], or [B,1,S,T] with lengths; 0: everywhere. */
static fg_reg
visible(fg_node *n, const fg_attention *a)
{
    fg_expr s = fg_dim(n, a->q, 2), t = fg_dim(n, a->k, 2);
    int rank = a->lengths ? 4 : 2;
    fg_reg len = a->lengths ? fg_along(n, a->lengths, 0, 4) : 0, ok = 0, part[4] = {0};
    fg_reg j = fg_iota_along(n, t, rank - 1, rank, FG_i64);
    fg_reg at = fg_iota_along(n, s, rank - 2, rank, FG_i64);

    if (a->lengths && a->offset == FG_E_BAD)
        at = E2(add, at, E2(sub, len, fg_sym_scalar(n, s, FG_i64)));
    else
        at = E2(add, at,
                fg_sym_scalar(n, a->offset == FG_E_BAD ? fg_esub(n->ex, t, s) : a->offset,
                              FG_i64));
    if (a->lengths)
        part[0] = E2(lt, j, len);
    if (a->causal)
        part[1] = E2(le, j, at);
    if (a->left >= 0)
        part[2] = E2(ge, j, E2(sub, at, fg_emit_f(n->b, FG_i64, (double)a->left)));
    if (a->right >= 0)
        part[3] = E2(le, j, E2(add, at, fg_emit_f(n->b, FG_i64, (double)a->right)));
    for (int k = 0; k < 4; k++)
        if (part[k])
            ok = ok ? E2(and, ok, part[k]) : part[k];
    return ok;
}

/* The mask with its last axis as long as the keys: what is missing is masked. */
static fg_reg
whole_mask(fg_node *n, fg_reg mask, fg_expr keys)
{
    fg_expr before[FG_MAXRANK], after[FG_MAXRANK];
    int rank = fg_rank(n, mask);

    if (fg_dim(n, mask, rank - 1) == keys)
        return mask;
    for (int k = 0; k < rank; k++)
        before[k] = after[k] = fg_c(n, 0);
    after[rank - 1] = fg_esub(n->ex, keys, fg_dim(n, mask, rank - 1));
    bool boolean = fg_elem(n, mask) == FG_bool;
    fg_inst *i = fg_inst_begin(
        n->b, FG_OP_pad, 2, (fg_reg[]){mask, fg_num(n, mask, boolean ? 0 : -INFINITY)});
    fg_set_exprs(n->m, &FG_SET(i, pad, before), rank, before);
    fg_set_exprs(n->m, &FG_SET(i, pad, after), rank, after);
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* Softmax over the keys, with the sink's logit beside them. */
static fg_reg
weights(fg_node *n, const fg_attention *a, fg_reg s)
{
    int64_t last = 3;
    fg_expr dim[4], t = fg_dim(n, s, 3);

    if (a->sink) {
        for (int k = 0; k < 4; k++)
            dim[k] = k == 3 ? fg_c(n, 1) : fg_dim(n, s, k);
        fg_reg sink = fg_along(n, fg_narrow(n, a->sink, s), 1, 4);
        sink = sink ? fg_emit_expand(n->b, sink, 4, dim) : 0;
        if (!sink)
            return 0;
        s = fg_emit_softmax(n->b, fg_emit_concat(n->b, 2, (fg_reg[]){s, sink}, 3), 3);
        return s ? fg_emit_slice_axis(n->b, s, 3, fg_c(n, 0), t) : 0;
    }
    fg_reg p = fg_emit_softmax(n->b, s, 3);
    if (a->empty_nan || !p)
        return p;
    fg_reg max = fg_emit_reduce(n->b, FG_OP_reduce_max, s, 1, &last, true);
    return E3(where, E2(eq, max, fg_num(n, s, -INFINITY)), fg_num(n, s, 0), p);
}

fg_reg
fg_attention_open(fg_node *n, const fg_attention *a, int stage, fg_reg *scores)
{
    fg_reg q = fg_widen(n, a->q), s[4];

    if (!q || !a->k || !a->v)
        return 0;
    fg_expr heads = fg_dim(n, q, 1), keys = fg_dim(n, a->k, 2);
    fg_reg k = fg_repeat_heads(n, fg_widen(n, a->k), heads);
    fg_reg v = fg_repeat_heads(n, fg_widen(n, a->v), heads);
    s[0] = fg_emit_matmul(n->b, q, k, false, true);
    s[0] = E2(mul, s[0], fg_num(n, q, a->scale));
    s[1] = s[0];
    if (a->softcap != 0) {
        fg_reg cap = fg_num(n, q, a->softcap);
        s[1] = E2(mul, E1(tanh, E2(div, s[0], cap)), cap);
    }
    s[2] = s[1];
    fg_reg none = fg_num(n, q, -INFINITY), ok = visible(n, a);
    fg_reg mask = a->mask ? whole_mask(n, a->mask, keys) : 0;
    if (a->mask && !mask)
        return 0;
    if (mask && fg_elem(n, mask) == FG_bool)
        s[2] = E3(where, mask, s[2], none);
    else if (mask)
        s[2] = E2(add, s[2], fg_narrow(n, mask, q));
    if (ok)
        s[2] = E3(where, ok, s[2], none);
    s[3] = s[2] ? weights(n, a, s[2]) : 0;
    *scores = fg_narrow(n, s[stage], a->q);
    return fg_narrow(n, fg_emit_matmul(n->b, s[3], v, false, false), a->q);
}

/* Operand k as [B,H,S,D]. */
static fg_reg
heads_of(fg_node *n, int k, const char *attr, int rank)
{
    fg_reg x = fg_need(n, k);

    if (!x)
        return 0;
    if (fg_rank(n, x) != rank || (rank != 3 && rank != 4)) {
        fg_node_error(n, "%s has not the rank of the query, 3 or 4",
                      fg_type_text(n->m, fg_rt(n->m, x)));
        return 0;
    }
    if (rank == 4)
        return x;
    if (!fg_attr_has(n, attr)) {
        fg_node_error(n, "operands of rank 3 need attribute %s", attr);
        return 0;
    }
    return fg_heads_split(n, x, fg_attr_int(n, attr, 0));
}

static bool
check_heads(fg_node *n, const fg_attention *a)
{
    int64_t h, g, gv;

    if (!fg_e_const(n->ex, fg_dim(n, a->q, 1), &h) ||
        !fg_e_const(n->ex, fg_dim(n, a->k, 1), &g) ||
        !fg_e_const(n->ex, fg_dim(n, a->v, 1), &gv))
        return true;
    return (g > 0 && h % g == 0 && g == gv) ||
           fg_node_error(n, "%lld query heads, %lld key heads and %lld value heads",
                         (long long)h, (long long)g, (long long)gv);
}

/* Past and new keys (or values) side by side, as [B,H,T,D]. */
static fg_reg
join_past(fg_node *n, fg_reg past, fg_reg x)
{
    if (!past || !x)
        return x;
    if (fg_rank(n, past) != 4) {
        fg_node_error(n, "past %s is not of rank 4",
                      fg_type_text(n->m, fg_rt(n->m, past)));
        return 0;
    }
    return fg_emit_concat(n->b, 2, (fg_reg[]){past, x}, 2);
}

static bool
attention_operands(fg_node *n, fg_attention *a)
{
    fg_reg q = fg_need(n, 0), mask = fg_in(n, 3), past = fg_in(n, 4),
           past_v = fg_in(n, 5);
    int64_t v;

    if (!q)
        return false;
    int rank = fg_rank(n, q);
    if (!(a->q = heads_of(n, 0, "q_num_heads", rank)) ||
        !(a->k = heads_of(n, 1, "kv_num_heads", rank)) ||
        !(a->v = heads_of(n, 2, "kv_num_heads", rank)))
        return false;
    if (!past != !past_v)
        return fg_node_error(n, "past key and past value come together");
    if (past && fg_in(n, 6))
        return fg_node_error(n, "past tensors and nonpad_kv_seqlen exclude each other");
    a->offset = past ? fg_dim(n, past, fg_rank(n, past) > 2 ? 2 : 0) : fg_c(n, 0);
    if (!(a->k = join_past(n, past, a->k)) || !(a->v = join_past(n, past_v, a->v)) ||
        !check_heads(n, a))
        return false;
    if (fg_in(n, 6)) {
        a->lengths = fg_emit_cast(n->b, n->in[6], FG_i64);
        a->offset = FG_E_BAD;
    }
    if (mask && (fg_rank(n, mask) < 1 || fg_rank(n, mask) > 4))
        return fg_node_error(n, "mask %s", fg_type_text(n->m, fg_rt(n->m, mask)));
    if (mask && fg_is_int(fg_elem(n, mask)))
        mask = fg_narrow(n, mask, a->q);
    a->mask = mask;
    a->scale = fg_attr_float(n, "scale", NAN);
    if (isnan(a->scale)) {
        if (!fg_e_const(n->ex, fg_dim(n, a->q, 3), &v) || v < 1)
            return fg_node_unsupported(n, "a head size that is not constant");
        a->scale = 1 / sqrt((double)v);
    }
    return true;
}

bool
fg_onnx_attention(fg_node *n)
{
    fg_attention a = {0};
    int64_t mode = fg_attr_int(n, "qk_matmul_output_mode", 0);
    fg_reg y, qk = 0;

    if (!attention_operands(n, &a))
        return false;
    a.softcap = fg_attr_float(n, "softcap", 0);
    a.causal = fg_attr_int(n, "is_causal", 0) != 0;
    a.left = fg_attr_int(n, "left_window_size", -1);
    a.right = fg_attr_int(n, "right_window_size", -1);
    if (mode < 0 || mode > 3)
        return fg_node_error(n, "qk_matmul_output_mode %lld", (long long)mode);
    y = fg_wants(n, 3) ? fg_attention_open(n, &a, (int)mode, &qk)
                       : fg_attention_emit(n, &a);
    if (y && fg_rank(n, fg_in(n, 0)) == 3)
        y = fg_heads_merge(n, y);
    fg_yield_at(n, 1, a.k);
    fg_yield_at(n, 2, a.v);
    fg_yield_at(n, 3, qk);
    return fg_yield(n, y);
}

/* ---- rotary embedding ------------------------------------------------------------ */

fg_reg
fg_rope(fg_node *n, fg_reg x, fg_reg cos, fg_reg sin, bool interleaved, int64_t dim)
{
    int64_t all;

    if (!x || !cos || !sin)
        return 0;
    if (fg_e_const(n->ex, fg_dim(n, x, fg_rank(n, x) - 1), &all) && dim == all)
        dim = 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_rope, 3,
                               (fg_reg[]){x, fg_narrow(n, cos, x), fg_narrow(n, sin, x)});
    FG_SET(i, rope, interleaved).i = interleaved;
    FG_SET(i, rope, dim).i = dim;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* The rotated columns are twice the columns of the cache. */
static bool
rope_width(fg_node *n, fg_reg cache, int64_t *dim)
{
    if (!fg_e_const(n->ex, fg_dim(n, cache, fg_rank(n, cache) - 1), dim))
        return fg_node_unsupported(n, "a cache of unknown width");
    *dim *= 2;
    return true;
}

fg_reg
fg_rope_cached(fg_node *n, fg_reg x, fg_reg position, fg_reg cos, fg_reg sin,
               bool interleaved)
{
    int64_t dim;

    if (!x || !position || !cos || !sin || !rope_width(n, cos, &dim))
        return 0;
    cos = fg_insert1(n, fg_emit_gather(n->b, cos, position, 0), 1, 1);
    sin = fg_insert1(n, fg_emit_gather(n->b, sin, position, 0), 1, 1);
    return fg_rope(n, x, cos, sin, interleaved, dim);
}

bool
fg_onnx_rotary_embedding(fg_node *n)
{
    fg_reg x = fg_need(n, 0), cos = fg_need(n, 1), sin = fg_need(n, 2),
           position = fg_in(n, 3), y;
    bool interleaved = fg_attr_int(n, "interleaved", 0) != 0;
    int64_t dim, want = fg_attr_int(n, "rotary_embedding_dim", 0), all;

    if (!x || !cos || !sin)
        return false;
    int rank = fg_rank(n, x);
    if (rank != 3 && rank != 4)
        return fg_node_error(n, "%s is not of rank 3 or 4",
                             fg_type_text(n->m, fg_rt(n->m, x)));
    if (fg_rank(n, cos) != (position ? 2 : 3) || fg_rank(n, sin) != fg_rank(n, cos))
        return fg_node_error(n, "caches %s and %s", fg_type_text(n->m, fg_rt(n->m, cos)),
                             fg_type_text(n->m, fg_rt(n->m, sin)));
    x = rank == 3 ? fg_heads_split(n, x, fg_attr_int(n, "num_heads", 0)) : x;
    if (!x || !rope_width(n, cos, &dim))
        return false;
    if (want == 0 && fg_e_const(n->ex, fg_dim(n, x, 3), &all))
        want = all;
    if (dim != want)
        return fg_node_error(n, "caches of %lld columns for %lld rotated ones",
                             (long long)dim / 2, (long long)want);
    y = position ? fg_rope_cached(n, x, position, cos, sin, interleaved)
                 : fg_rope(n, x, fg_insert1(n, cos, 1, 1), fg_insert1(n, sin, 1, 1),
                           interleaved, dim);
    return fg_yield(n, rank == 3 ? fg_heads_merge(n, y) : y);
}
