/* ops_ms_attention.c - attention operators of com.microsoft.
 *
 *     Attention x, w, b, mask            ->  matmul, add, three slices, heads, attention
 *     MultiHeadAttention q, k, v         ->  heads, attention; new rows written into caches
 *                                            of one size, if past_sequence_length is given
 *     GroupQueryAttention q, k, v,       ->  rope on q and k, new rows written into the
 *       past_k, past_v, seqlens_k, ..        cache at start[b], attention with lengths
 *
 * Padding is not cut off but adds mask_filter_value to the scores. Group query
 * attention keeps caches of a fixed or of a growing length: both are a buffer of
 * max(P, total) rows whose new rows begin at start[b] = max(0, seqlens_k[b] + 1 - S).
 * In a padded first prompt start is 0, and a row's keys are then told by causality
 * alone: lengths max(., S).
 */
#include "frontend/ops.h"

#include <math.h>

static fg_reg
int_scalar(fg_node *n, int64_t v)
{
    return fg_emit_f(n->b, FG_i64, (double)v);
}

/* 0 where ok, mask_filter_value elsewhere. */
static fg_reg
filter(fg_node *n, fg_reg ok)
{
    double v = fg_attr_float(n, "mask_filter_value", -10000);

    return E3(where, ok, fg_emit_f(n->b, FG_f32, 0), fg_emit_f(n->b, FG_f32, v));
}

/* Entries [from, from + batch) of a mask index as [B,1,1,1]. */
static fg_reg
bound(fg_node *n, fg_reg mask, fg_expr from, fg_expr batch)
{
    fg_reg v = fg_emit_slice_axis(n->b, mask, 0, from, batch);

    return v ? fg_along(n, fg_emit_cast(n->b, v, FG_i64), 0, 4) : 0;
}

/* A mask operand as something added to scores [B,N,S,T]; keys = T, query = S:
 * [B] lengths; [2B] ends, then starts; [3B+2] lengths first; [B,T]; [B,S,T];
 * [B,1,M,M]. */
static fg_reg
padding_mask(fg_node *n, fg_reg mask, fg_expr batch, fg_expr query, fg_expr keys)
{
    fg_exprs *t = n->ex;
    fg_reg ok;

    if (!mask)
        return 0;
    if (fg_rank(n, mask) == 1) {
        fg_reg j = fg_iota_along(n, keys, 3, 4, FG_i64);
        ok = E2(lt, j, bound(n, mask, fg_c(n, 0), batch));
        if (fg_dim(n, mask, 0) == fg_emul(t, fg_c(n, 2), batch))
            ok = E2(and, ok, E2(ge, j, bound(n, mask, batch, batch)));
        return filter(n, ok);
    }
    ok = E2(gt, mask, fg_num(n, mask, 0));
    if (!ok)
        return 0;
    if (fg_rank(n, mask) == 2)
        return filter(n, fg_insert1(n, ok, 1, 2));
    if (fg_rank(n, mask) == 3)
        return filter(n, fg_insert1(n, ok, 1, 1));
    if (fg_rank(n, mask) == 4) {
        ok = fg_emit_slice_axis(n->b, ok, 2, fg_esub(t, keys, query), query);
        ok = ok ? fg_emit_slice_axis(n->b, ok, 3, fg_c(n, 0), keys) : 0;
        return filter(n, ok);
    }
    fg_node_error(n, "mask %s", fg_type_text(n->m, fg_rt(n->m, mask)));
    return 0;
}

/* attribute scale, where 0 stands for 1 / sqrt(head size). */
static bool
scale_of(fg_node *n, fg_reg q, double *scale)
{
    int64_t d;

    *scale = fg_attr_float(n, "scale", 0);
    if (*scale != 0)
        return true;
    if (!fg_e_const(n->ex, fg_dim(n, q, 3), &d) || d < 1)
        return fg_node_unsupported(n, "a head size that is not constant");
    *scale = 1 / sqrt((double)d);
    return true;
}

/* Padding and bias both add to the scores, and broadcast to them. */
static bool
add_masks(fg_node *n, fg_attention *a, fg_reg mask, fg_reg bias)
{
    if (mask) {
        fg_reg m = padding_mask(n, mask, fg_dim(n, a->q, 0), fg_dim(n, a->q, 2),
                                fg_dim(n, a->k, 2));
        if (!m)
            return false;
        a->mask = bias ? E2(add, m, fg_emit_cast(n->b, bias, FG_f32)) : m;
    } else {
        a->mask = bias;
    }
    return a->mask || (!mask && !bias);
}

static fg_reg
stack2(fg_node *n, fg_reg k, fg_reg v)
{
    k = fg_insert1(n, k, 0, 1);
    v = fg_insert1(n, v, 0, 1);
    return k && v ? fg_emit_concat(n->b, 2, (fg_reg[]){k, v}, 0) : 0;
}

/* Element i of axis 0. */
static fg_reg
pick(fg_node *n, fg_reg x, int axis, int64_t i)
{
    fg_expr dim[FG_MAXRANK];
    int r = 0;

    x = fg_part(n, x, axis, i, 1);
    if (!x)
        return 0;
    for (int a = 0; a < fg_rank(n, x); a++)
        if (a != axis)
            dim[r++] = fg_dim(n, x, a);
    return fg_emit_reshape(n->b, x, r, dim);
}

/* ---- Attention and QAttention ---------------------------------------------------- */

/* From the projected [B,S,Hq+Hk+Hv] on. */
static bool
attention_of(fg_node *n, fg_reg qkv, fg_reg mask, fg_reg past, fg_reg bias)
{
    fg_attention a = {.left = -1, .right = -1};
    int64_t heads = fg_attr_int(n, "num_heads", 0), total, size[3];
    const int64_t *given;
    int count = fg_attr_ints(n, "qkv_hidden_sizes", &given);
    fg_reg part[3];

    if (!qkv)
        return false;
    if (fg_rank(n, qkv) != 3 || !fg_e_const(n->ex, fg_dim(n, qkv, 2), &total))
        return fg_node_error(n, "input %s", fg_type_text(n->m, fg_in_type(n, 0)));
    if (fg_attr_int(n, "do_rotary", 0))
        return fg_node_unsupported(n, "do_rotary");
    for (int k = 0; k < 3; k++)
        size[k] = count == 3 ? given[k] : total / 3;
    if (size[0] < 1 || size[0] != size[1] || size[2] < 1 || size[0] > total ||
        size[2] != total - 2 * size[0])
        return fg_node_error(n, "%lld columns are not those of query, key and value",
                             (long long)total);
    for (int k = 0, at = 0; k < 3; at += (int)size[k++]) {
        part[k] = fg_part(n, qkv, 2, at, size[k]);
        if (!(part[k] = part[k] ? fg_heads_split(n, part[k], heads) : 0))
            return false;
    }
    a.q = part[0];
    a.offset = fg_c(n, 0);
    if (past) {
        if (fg_rank(n, past) != 5)
            return fg_node_error(n, "past %s", fg_type_text(n->m, fg_rt(n->m, past)));
        a.offset = fg_dim(n, past, 3);
        part[1] = fg_emit_concat(n->b, 2, (fg_reg[]){pick(n, past, 0, 0), part[1]}, 2);
        part[2] = fg_emit_concat(n->b, 2, (fg_reg[]){pick(n, past, 0, 1), part[2]}, 2);
    }
    a.k = part[1];
    a.v = part[2];
    if (!a.k || !a.v || !add_masks(n, &a, mask, bias) || !scale_of(n, a.q, &a.scale))
        return false;
    a.causal = fg_attr_int(n, "unidirectional", 0) != 0;
    if (fg_wants(n, 1) && !fg_yield_at(n, 1, stack2(n, a.k, a.v)))
        return false;
    return fg_yield(n, fg_heads_merge(n, fg_attention_emit(n, &a)));
}

bool
fg_onnx_ms_attention(fg_node *n)
{
    fg_reg qkv = fg_matmul_any(n, fg_need(n, 0), fg_need(n, 1));

    if (fg_in(n, 6))
        return fg_node_unsupported(n, "a past that shares its buffer with the present");
    if (fg_in(n, 2))
        qkv = E2(add, qkv, n->in[2]);
    return attention_of(n, qkv, fg_in(n, 3), fg_in(n, 4), fg_in(n, 5));
}

bool
fg_onnx_ms_qattention(fg_node *n)
{
    fg_reg bias = fg_need(n, 2), sx = fg_need(n, 3), sw = fg_need(n, 4);
    fg_reg sum = fg_matmul_int(n, fg_need(n, 0), fg_need(n, 1), fg_in(n, 6), fg_in(n, 7));

    if (!bias || !sx || !sw || !sum)
        return false;
    fg_reg qkv = E2(mul, fg_emit_cast(n->b, sum, fg_elem(n, sx)),
                    E2(mul, fg_scalar(n, sx, "input scale"), sw));
    return attention_of(n, E2(add, qkv, bias), fg_in(n, 5), fg_in(n, 8), 0);
}

/* ---- MultiHeadAttention ---------------------------------------------------------- */

/* [B,S,N,c,D] to c tensors [B,N,S,D]. */
static bool
unpack(fg_node *n, fg_reg x, int64_t c, fg_reg *out)
{
    if (!fg_e_is(n->ex, fg_dim(n, x, 3), c))
        return fg_node_error(n, "packed %s", fg_type_text(n->m, fg_rt(n->m, x)));
    for (int64_t i = 0; i < c; i++) {
        fg_reg part = pick(n, x, 3, i);
        out[i] = part ? fg_emit_transpose(n->b, part, (int64_t[]){0, 2, 1, 3}) : 0;
        if (!out[i])
            return false;
    }
    return true;
}

/* Columns [*at, *at + heads D) of the bias added to x [B,N,S,D]. */
static fg_reg
add_bias(fg_node *n, fg_reg x, fg_reg bias, fg_expr *at)
{
    if (!bias || !x)
        return x;
    if (fg_rank(n, bias) != 1) {
        fg_node_error(n, "bias %s", fg_type_text(n->m, fg_rt(n->m, bias)));
        return 0;
    }
    fg_expr h = fg_dim(n, x, 1), d = fg_dim(n, x, 3), size = fg_emul(n->ex, h, d);
    fg_expr dim[4] = {fg_c(n, 1), h, fg_c(n, 1), d};
    fg_reg part = fg_emit_slice_axis(n->b, bias, 0, *at, size);
    *at = fg_eadd(n->ex, *at, size);
    return part ? E2(add, x, fg_emit_reshape(n->b, part, 4, dim)) : 0;
}

/* Query, key and value of any of the four forms as [B,N,S,D]; cross: keys came ready. */
static bool
mha_operands(fg_node *n, fg_attention *a, bool *cross)
{
    int64_t heads = fg_attr_int(n, "num_heads", 0);
    fg_reg q = fg_need(n, 0), k = fg_in(n, 1), v = fg_in(n, 2), part[3] = {0};

    *cross = false;
    if (!q)
        return false;
    if (fg_rank(n, q) == 5) {
        if (!unpack(n, q, 3, part))
            return false;
    } else {
        part[0] = fg_heads_split(n, q, heads);
        if (!k)
            return fg_node_error(n, "key is missing");
        if (fg_rank(n, k) == 5) {
            if (!unpack(n, k, 2, part + 1))
                return false;
        } else if (fg_rank(n, k) == 4) {
            *cross = true;
            part[1] = k;
            part[2] = fg_need(n, 2);
        } else {
            part[1] = fg_heads_split(n, k, heads);
            part[2] = v ? fg_heads_split(n, v, heads) : 0;
        }
    }
    a->q = part[0];
    a->k = part[1];
    a->v = part[2];
    return (a->q && a->k && a->v) || fg_node_error(n, "value is missing");
}

/* Operands beyond query, key and value, by where an operator has them. */
typedef struct extras {
    fg_reg bias, mask, scores, past_k, past_v,
        rows; /* rows: of a buffer, that are valid */
} extras;

/* Caches of one size: new rows are written behind those that are valid, and what is further
 * back is masked. */
static bool
write_buffer(fg_node *n, fg_attention *a, const extras *e)
{
    fg_expr batch = fg_dim(n, a->q, 0);
    fg_reg past =
        fg_emit_cast(n->b, fg_scalar(n, e->rows, "past_sequence_length"), FG_i64);

    if (!e->past_k || !e->past_v)
        return fg_node_error(n, "past_sequence_length without a past");
    past = past ? fg_emit_expand(n->b, past, 1, &batch) : 0;
    a->lengths = E2(add, past, fg_sym_scalar(n, fg_dim(n, a->k, 2), FG_i64));
    a->k = fg_cache_write(n, e->past_k, a->k, past, 2, false);
    a->v = fg_cache_write(n, e->past_v, a->v, past, 2, false);
    a->offset = FG_E_BAD;
    return a->lengths && a->k && a->v;
}

static bool
join_past(fg_node *n, fg_attention *a, const extras *e)
{
    if (fg_rank(n, e->past_k) != 4 || fg_rank(n, e->past_v) != 4)
        return fg_node_error(n, "past %s", fg_type_text(n->m, fg_rt(n->m, e->past_k)));
    if (e->rows)
        return write_buffer(n, a, e);
    a->offset = fg_dim(n, e->past_k, 2);
    a->k = fg_emit_concat(n->b, 2, (fg_reg[]){e->past_k, a->k}, 2);
    a->v = fg_emit_concat(n->b, 2, (fg_reg[]){e->past_v, a->v}, 2);
    return a->k && a->v;
}

static bool
multi_head(fg_node *n, const extras *e, bool causal)
{
    fg_attention a = {.left = -1, .right = -1};
    fg_expr at = fg_c(n, 0);
    fg_reg y, qk = 0;
    bool cross;

    if (!mha_operands(n, &a, &cross))
        return false;
    a.q = add_bias(n, a.q, e->bias, &at);
    if (a.q && !cross) {
        a.k = add_bias(n, a.k, e->bias, &at);
        a.v = a.k ? add_bias(n, a.v, e->bias, &at) : 0;
    }
    if (!a.q || !a.k || !a.v)
        return false;
    a.offset = fg_c(n, 0);
    if (e->past_k && e->past_v && !cross && !join_past(n, &a, e))
        return false;
    if (e->rows && fg_wants(n, 3))
        return fg_node_unsupported(n, "scores of a past that shares its buffer");
    if (!add_masks(n, &a, e->mask, e->scores) || !scale_of(n, a.q, &a.scale))
        return false;
    a.causal = causal;
    y = fg_wants(n, 3) ? fg_attention_open(n, &a, 0, &qk) : fg_attention_emit(n, &a);
    fg_yield_at(n, 1, a.k);
    fg_yield_at(n, 2, a.v);
    fg_yield_at(n, 3, qk);
    return fg_yield(n, fg_heads_merge(n, y));
}

bool
fg_onnx_ms_multi_head_attention(fg_node *n)
{
    const extras e = {fg_in(n, 3), fg_in(n, 4), fg_in(n, 5),
                      fg_in(n, 6), fg_in(n, 7), fg_in(n, 8)};

    if (fg_in(n, 9))
        return fg_node_unsupported(n, "beams");
    return multi_head(n, &e, fg_attr_int(n, "unidirectional", 0) != 0);
}

/* One query a call. */
bool
fg_onnx_ms_decoder_masked_attention(fg_node *n)
{
    const extras e = {fg_in(n, 10), fg_in(n, 3), fg_in(n, 4),
                      fg_in(n, 5),  fg_in(n, 6), fg_in(n, 7)};

    if (fg_in(n, 8) || fg_in(n, 9))
        return fg_node_unsupported(n, "beams");
    return multi_head(n, &e, e.past_k != 0);
}

/* ---- GroupQueryAttention --------------------------------------------------------- */

typedef struct gqa {
    int64_t heads, groups;
    fg_reg start;   /* i64[B]: first row of the cache that this call writes */
    fg_reg lengths; /* i64[B] */
} gqa;

static bool
gqa_refuse(fg_node *n)
{
    static const char *const quant[] = {"k_quant_type", "v_quant_type"};

    for (int k = 0; k < 2; k++)
        if (strcmp(fg_attr_str(n, quant[k], "NONE"), "NONE") != 0)
            return fg_node_unsupported(n, "a quantised cache");
    if (fg_in(n, 12) || fg_in(n, 13))
        return fg_node_unsupported(n, "a quantised cache");
    if (fg_attr_int(n, "sliding_window_cache", 0))
        return fg_node_unsupported(n, "sliding_window_cache");
    return true;
}

static bool
gqa_operands(fg_node *n, const gqa *g, fg_attention *a)
{
    fg_reg q = fg_need(n, 0), k = fg_in(n, 1), v = fg_in(n, 2);
    int64_t width;

    if (!q)
        return false;
    if (g->heads < 1 || g->groups < 1 || g->heads % g->groups)
        return fg_node_error(n, "%lld heads share %lld key heads", (long long)g->heads,
                             (long long)g->groups);
    if (!k) {
        if (fg_rank(n, q) != 3 || !fg_e_const(n->ex, fg_dim(n, q, 2), &width) ||
            width % (g->heads + 2 * g->groups))
            return fg_node_error(n, "packed %s", fg_type_text(n->m, fg_rt(n->m, q)));
        int64_t d = width / (g->heads + 2 * g->groups);
        k = fg_part(n, q, 2, g->heads * d, g->groups * d);
        v = fg_part(n, q, 2, (g->heads + g->groups) * d, g->groups * d);
        q = fg_part(n, q, 2, 0, g->heads * d);
    }
    if (!v)
        return fg_node_error(n, "value is missing");
    return (a->q = fg_heads_split(n, q, g->heads)) &&
           (a->k = fg_heads_split(n, k, g->groups)) &&
           (a->v = fg_heads_split(n, v, g->groups));
}

/* start and lengths from seqlens_k = total length - 1 of every batch entry. */
static bool
gqa_positions(fg_node *n, gqa *g, fg_reg q)
{
    fg_reg seqlens = fg_need(n, 5);
    fg_expr batch = fg_dim(n, q, 0);

    if (!seqlens)
        return false;
    seqlens = fg_emit_reshape(n->b, fg_emit_cast(n->b, seqlens, FG_i64), 1, &batch);
    fg_reg s = fg_sym_scalar(n, fg_dim(n, q, 2), FG_i64);
    g->lengths = E2(max, E2(add, seqlens, int_scalar(n, 1)), s);
    g->start = E2(sub, g->lengths, s);
    return g->start != 0;
}

static bool
gqa_rotate(fg_node *n, const gqa *g, fg_attention *a)
{
    fg_reg cos = fg_need(n, 7), sin = cos ? fg_need(n, 8) : 0, position = fg_in(n, 9);
    bool interleaved = fg_attr_int(n, "rotary_interleaved", 0) != 0;

    if (!sin)
        return false;
    if (!position)
        position = E2(add, fg_insert1(n, g->start, 1, 1),
                      fg_iota_along(n, fg_dim(n, a->q, 2), 1, 2, FG_i64));
    a->q = fg_rope_cached(n, a->q, position, cos, sin, interleaved);
    a->k = fg_rope_cached(n, a->k, position, cos, sin, interleaved);
    return a->q && a->k;
}

/* The cache with the new rows in place: max(P, total) rows. When the total is the sum
 * of the past and the new rows, they lie side by side. */
static fg_reg
gqa_cache(fg_node *n, const gqa *g, fg_reg past, fg_reg x, fg_expr total)
{
    fg_expr zero = fg_c(n, 0), before[4] = {zero, zero, zero, zero},
            after[4] = {zero, zero, zero, zero};

    if (!past || !x)
        return x;
    if (fg_rank(n, past) != 4) {
        fg_node_error(n, "past %s is not of rank 4",
                      fg_type_text(n->m, fg_rt(n->m, past)));
        return 0;
    }
    fg_expr p = fg_dim(n, past, 2);
    if (fg_eadd(n->ex, p, fg_dim(n, x, 2)) == total)
        return fg_emit_concat(n->b, 2, (fg_reg[]){past, x}, 2);
    after[2] = fg_esub(n->ex, fg_emax(n->ex, p, total), p);
    if (!fg_e_is(n->ex, after[2], 0))
        past = fg_pad_zero(n, past, before, after);
    return fg_cache_write(n, past, x, g->start, 2, false);
}

bool
fg_onnx_ms_group_query_attention(fg_node *n)
{
    gqa g = {.heads = fg_attr_int(n, "num_heads", 0),
             .groups = fg_attr_int(n, "kv_num_heads", 0)};
    fg_attention a = {.left = -1, .right = -1};
    int64_t window = fg_attr_int(n, "local_window_size", -1);
    double eps = fg_attr_float(n, "qk_norm_epsilon", 1e-6);
    const fg_expr *total;
    int count;
    fg_reg y, qk = 0;

    if (!gqa_refuse(n) || !gqa_operands(n, &g, &a) || !gqa_positions(n, &g, a.q) ||
        !fg_in_clamped(n, 6, 0, INT64_MAX, &total, &count))
        return false;
    if (count != 1)
        return fg_node_error(n, "total_sequence_length has %d elements", count);
    a.lengths = g.lengths;
    if (fg_in(n, 14))
        a.q = fg_rmsnorm(n, a.q, n->in[14], 3, eps);
    if (fg_in(n, 15))
        a.k = fg_rmsnorm(n, a.k, n->in[15], 3, eps);
    if (fg_attr_int(n, "do_rotary", 0) && !gqa_rotate(n, &g, &a))
        return false;
    a.k = gqa_cache(n, &g, fg_in(n, 3), a.k, total[0]);
    a.v = gqa_cache(n, &g, fg_in(n, 4), a.v, total[0]);
    if (!a.q || !a.k || !a.v || !scale_of(n, a.q, &a.scale))
        return false;
    a.mask = fg_in(n, 10);
    a.softcap = fg_attr_float(n, "softcap", 0);
    a.causal = fg_attr_int(n, "causal", fg_attr_int(n, "unidirectional", 1)) != 0;
    a.left = window > 0 ? window - 1 : -1;
    a.sink = fg_in(n, 11);
    if (!a.sink && fg_attr_int(n, "smooth_softmax", 0) > 0)
        a.sink =
            fg_emit_expand(n->b, fg_num(n, a.q, 0), 1, (fg_expr[]){fg_c(n, g.heads)});
    bool weights = fg_attr_int(n, "qk_output", 0) == 2;
    y = fg_wants(n, 3) ? fg_attention_open(n, &a, weights ? 3 : 2, &qk)
                       : fg_attention_emit(n, &a);
    if (qk && !weights) /* hidden keys show as 0 */
        qk = E3(where, E2(eq, qk, fg_num(n, qk, -INFINITY)), fg_num(n, qk, 0), qk);
    fg_yield_at(n, 1, a.k);
    fg_yield_at(n, 2, a.v);
    fg_yield_at(n, 3, qk);
    return fg_yield(n, fg_heads_merge(n, y));
}

/* ---- RotaryEmbedding ------------------------------------------------------------- */

/* position_ids of one element is the position of the first token. */
bool
fg_onnx_ms_rotary_embedding(fg_node *n)
{
    fg_reg x = fg_need(n, 0), position = fg_need(n, 1), cos = fg_need(n, 2),
           sin = fg_need(n, 3), y;
    int64_t heads = fg_attr_int(n, "num_heads", 0), hidden, half;

    if (!x || !position || !cos || !sin)
        return false;
    int rank = fg_rank(n, x);
    if ((rank != 3 && rank != 4) || fg_rank(n, cos) != 2 || fg_rank(n, sin) != 2)
        return fg_node_error(n, "operands %s and %s", fg_type_text(n->m, fg_rt(n->m, x)),
                             fg_type_text(n->m, fg_rt(n->m, cos)));
    if (fg_attr_int(n, "is_packed_batching", 0) || fg_attr_float(n, "scale", 1) != 1)
        return fg_node_unsupported(n, "packed batches or a scale");
    if (rank == 3 && heads == 0) {
        if (!fg_e_const(n->ex, fg_dim(n, x, 2), &hidden) ||
            !fg_e_const(n->ex, fg_dim(n, cos, 1), &half) || half < 1)
            return fg_node_unsupported(n, "a number of heads that is not constant");
        heads = hidden / (2 * half);
    }
    if (rank == 3)
        x = fg_heads_split(n, x, heads);
    if (!x)
        return false;
    if (fg_rank(n, position) < 2)
        position = E2(add,
                      fg_emit_reshape(n->b, fg_emit_cast(n->b, position, FG_i64), 2,
                                      (fg_expr[]){fg_c(n, 1), fg_c(n, 1)}),
                      fg_iota_along(n, fg_dim(n, x, 2), 1, 2, FG_i64));
    y = fg_rope_cached(n, x, position, cos, sin, fg_attr_int(n, "interleaved", 0) != 0);
    return fg_yield(n, rank == 3 ? fg_heads_merge(n, y) : y);
}
