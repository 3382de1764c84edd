/* ops_ms.c - com.microsoft: fused normalisations, activations and products.
 *
 *     SkipLayerNormalization x, skip, g, b   ->  %s = add x, skip      (is result 3)
 *                                                %y = layernorm %s, g, b
 *     FastGelu x, b                          ->  gelu_tanh(add x, b)
 *     FusedMatMul a, b {transB=1 alpha=.5}   ->  mul(matmul(a, b) {trans_b=1}, .5)
 *
 * Written by graph optimisers around operators that already exist, so each comes apart
 * into the same operations as the graph it was made from.
 */
#include "frontend/ops.h"

#include <math.h>

/* The ONNX operator of the same name; the domain's version 1 is as new as `opset`. */
static bool
as_onnx(fg_node *n, int64_t opset)
{
    return fg_import_as(n, "", n->op, opset, n->nin, n->in, n->nout, n->out);
}

bool
fg_onnx_ms_alias(fg_node *n)
{
    return as_onnx(n, 17);
}

/* ---- normalisations -------------------------------------------------------------- */

/* Results of a skip normalisation: y, mean, inverse deviation, sum. */
static bool
skip_results(fg_node *n, fg_reg y, fg_reg sum, bool centred, double eps)
{
    int last = sum ? fg_rank(n, sum) - 1 : 0;
    fg_reg mean = 0;

    if (!y)
        return false;
    if (fg_wants(n, 1) || fg_wants(n, 2)) {
        fg_reg dev = fg_inverse_deviation(n, sum, last, eps, centred ? &mean : NULL);
        if (!centred && fg_wants(n, 1))
            return fg_node_unsupported(n, "the mean of an RMS normalisation");
        fg_yield_at(n, 1, mean);
        if (!fg_yield_at(n, 2, dev))
            return false;
    }
    return fg_yield_at(n, 3, sum) && fg_yield(n, y);
}

static fg_reg
skip_sum(fg_node *n, fg_reg bias)
{
    fg_reg x = fg_need(n, 0), skip = fg_need(n, 1);

    if (!x || !skip)
        return 0;
    /* Skips of lower rank, or with batch 1, belong to every batch entry. */
    fg_reg s = E2(add, x, skip);
    return bias ? E2(add, s, bias) : s;
}

bool
fg_onnx_ms_skip_layer_norm(fg_node *n)
{
    double eps = fg_attr_float(n, "epsilon", 1e-12);
    fg_reg s = skip_sum(n, fg_in(n, 4)), gamma = fg_need(n, 2);

    if (!s || !gamma)
        return false;
    return skip_results(n, fg_layernorm(n, s, gamma, fg_in(n, 3), fg_rank(n, s) - 1, eps),
                        s, true, eps);
}

bool
fg_onnx_ms_skip_rms_norm(fg_node *n)
{
    double eps = fg_attr_float(n, "epsilon", 1e-12);
    fg_reg s = skip_sum(n, fg_in(n, 3)), gamma = fg_need(n, 2);

    if (!s || !gamma)
        return false;
    return skip_results(n, fg_rmsnorm(n, s, gamma, fg_rank(n, s) - 1, eps), s, false,
                        eps);
}

/* Word, position and segment rows added and normalised; result 1 counts the valid
 * tokens. */
bool
fg_onnx_ms_embed_layer_norm(fg_node *n)
{
    fg_reg ids = fg_need(n, 0), word = fg_need(n, 2), pos = fg_need(n, 3),
           gamma = fg_need(n, 5);
    fg_reg segment = fg_in(n, 1), table = fg_in(n, 4), mask = fg_in(n, 7),
           where_at = fg_in(n, 8), count;
    int64_t last = 1;

    if (!ids || !word || !pos || !gamma)
        return false;
    if (fg_rank(n, ids) != 2 || fg_rank(n, word) != 2 || fg_rank(n, pos) != 2)
        return fg_node_error(n, "ids, word and position tables must be of rank 2");
    fg_reg rows = where_at
                      ? fg_emit_gather(n->b, pos, where_at, 0)
                      : fg_emit_slice_axis(n->b, pos, 0, fg_c(n, 0), fg_dim(n, ids, 1));
    fg_reg sum = E2(add, fg_emit_gather(n->b, word, ids, 0), rows);
    if (segment && table)
        sum = E2(add, sum, fg_emit_gather(n->b, table, segment, 0));
    if (fg_wants(n, 1)) {
        if (mask)
            count = fg_emit_reduce(n->b, FG_OP_reduce_sum,
                                   fg_emit_cast(n->b, mask, FG_i32), 1, &last, false);
        else
            count = fg_emit_expand(n->b, fg_emit_f(n->b, FG_i32, 0), 1,
                                   (fg_expr[]){fg_dim(n, ids, 0)});
        if (!fg_yield_at(n, 1, count))
            return false;
    }
    if (!sum || !fg_yield_at(n, 2, sum))
        return false;
    return fg_yield(n, fg_layernorm(n, sum, gamma, fg_in(n, 6), 2,
                                    fg_attr_float(n, "epsilon", 1e-12)));
}

/* x / sqrt(mean x^2 + eps) scale silu(gate); a scale shorter than the last axis makes
 * groups of its length. */
bool
fg_onnx_ms_gated_rms_norm(fg_node *n)
{
    fg_reg x = fg_need(n, 0), gate = fg_need(n, 1), scale = fg_need(n, 2), y;
    double eps = fg_attr_float(n, "epsilon", 1e-5);
    fg_expr dim[FG_MAXRANK];
    int64_t group, all;

    if (!x || !gate || !scale)
        return false;
    int rank = fg_rank(n, x);
    if (rank < 1 || rank == FG_MAXRANK || fg_rank(n, scale) != 1)
        return fg_node_error(n, "scale %s for %s", fg_type_text(n->m, fg_rt(n->m, scale)),
                             fg_type_text(n->m, fg_rt(n->m, x)));
    fg_reg parts = x;
    if (fg_e_const(n->ex, fg_dim(n, scale, 0), &group) &&
        fg_e_const(n->ex, fg_dim(n, x, rank - 1), &all) && group != all) {
        if (group < 1 || all % group)
            return fg_node_error(n, "groups of %lld do not divide %lld columns",
                                 (long long)group, (long long)all);
        for (int a = 0; a < rank - 1; a++)
            dim[a] = fg_dim(n, x, a);
        dim[rank - 1] = fg_c(n, all / group);
        dim[rank] = fg_c(n, group);
        parts = fg_emit_reshape(n->b, x, rank + 1, dim);
    }
    y = parts ? fg_rmsnorm(n, parts, scale, fg_rank(n, parts) - 1, eps) : 0;
    y = fg_like_shape(n, y, x);
    return fg_yield(
        n, fg_narrow(n, E2(mul, fg_widen(n, y), E1(silu, fg_widen(n, gate))), x));
}

/* ---- activations ----------------------------------------------------------------- */

static const struct {
    const char *name;
    fg_op op;
} bias_gelus[] = {
    {"BiasGelu", FG_OP_gelu},
    {"FastGelu", FG_OP_gelu_tanh},
    {"GemmFastGelu", FG_OP_gelu_tanh},
};

bool
fg_onnx_ms_gelu(fg_node *n)
{
    bool product = !strcmp(n->op, "GemmFastGelu");
    fg_reg x = product ? fg_matmul_any(n, fg_need(n, 0), fg_need(n, 1)) : fg_need(n, 0);
    fg_reg bias = fg_in(n, product ? 2 : 1);
    int k = 0;

    while (strcmp(bias_gelus[k].name, n->op))
        k++;
    if (bias)
        x = E2(add, x, bias);
    return fg_yield(n, fg_emit1(n->b, bias_gelus[k].op, x));
}

bool
fg_onnx_ms_quick_gelu(fg_node *n)
{
    double alpha = fg_attr_float(n, "alpha", 1.702);

    return fg_yield(n, fg_activation(n, "QuickGelu", fg_need(n, 0), alpha, NAN));
}

/* Left half times the gelu of the right half, bias added before. */
bool
fg_onnx_ms_bias_split_gelu(fg_node *n)
{
    fg_reg x = E2(add, fg_need(n, 0), fg_need(n, 1));

    if (!x)
        return false;
    int last = fg_rank(n, x) - 1;
    if (last < 0 || !fg_e_divides(n->ex, 2, fg_dim(n, x, last)))
        return fg_node_error(n, "the last axis of %s is odd",
                             fg_type_text(n->m, fg_rt(n->m, x)));
    fg_expr half = fg_ediv(n->ex, fg_dim(n, x, last), fg_c(n, 2));
    fg_reg left = fg_emit_slice_axis(n->b, x, last, fg_c(n, 0), half);
    fg_reg right = fg_emit_slice_axis(n->b, x, last, half, half);
    return fg_yield(n, E2(mul, left, E1(gelu, right)));
}

bool
fg_onnx_ms_bias_add(fg_node *n)
{
    return fg_yield(n, E2(add, E2(add, fg_need(n, 0), fg_need(n, 1)), fg_need(n, 2)));
}

/* ---- products -------------------------------------------------------------------- */

/* Axes as op(x) of FusedMatMul: batch first, then rows and columns. */
static fg_reg
batch_first(fg_node *n, fg_reg x, bool batch_last)
{
    int64_t perm[FG_MAXRANK];
    int rank = x ? fg_rank(n, x) : 0;

    if (!batch_last || rank < 3)
        return x;
    for (int a = 0; a < rank - 2; a++)
        perm[a] = a + 1;
    perm[rank - 2] = 0;
    perm[rank - 1] = rank - 1;
    return fg_emit_transpose(n->b, x, perm);
}

static fg_reg
fused_matmul(fg_node *n)
{
    fg_reg x = fg_need(n, 0), y = fg_need(n, 1), z;
    double alpha = fg_attr_float(n, "alpha", 1);
    bool ta = fg_attr_int(n, "transA", 0) != 0, tb = fg_attr_int(n, "transB", 0) != 0;

    x = batch_first(n, x, fg_attr_int(n, "transBatchA", 0) != 0);
    y = batch_first(n, y, fg_attr_int(n, "transBatchB", 0) != 0);
    if (!x || !y)
        return 0;
    /* Vectors have nothing to transpose. */
    if (fg_rank(n, x) < 2 || fg_rank(n, y) < 2)
        z = fg_matmul_any(n, x, y);
    else
        z = fg_emit_matmul(n->b, x, y, ta, tb);
    return alpha == 1 ? z : E2(mul, z, fg_num(n, z, alpha));
}

bool
fg_onnx_ms_fused_matmul(fg_node *n)
{
    return fg_yield(n, fused_matmul(n));
}

/* Attribute `name` of a fused activation; NaN, the activation's default, when absent. */
static double
param(fg_node *n, const char *name)
{
    return fg_attr_has(n, name) ? fg_attr_float(n, name, 0) : NAN;
}

bool
fg_onnx_ms_fused_matmul_activation(fg_node *n)
{
    fg_reg z = fused_matmul(n);
    const char *name = fg_attr_str(n, "activation", "");

    if (!strcmp(name, "Softmax")) {
        int axis;
        return z &&
               fg_axis(n, fg_attr_int(n, "activation_axis", -1), fg_rank(n, z), &axis) &&
               fg_yield(n, fg_emit_softmax(n->b, z, axis));
    }
    double beta = param(n, "activation_beta"), gamma = param(n, "activation_gamma");
    return fg_yield(n, fg_activation(n, name, z, param(n, "activation_alpha"),
                                     isnan(beta) ? gamma : beta));
}

bool
fg_onnx_ms_fused_gemm(fg_node *n)
{
    fg_reg y = fg_gemm(n);
    const char *name = fg_attr_str(n, "activation", "");
    double beta = param(n, "activation_beta"), gamma = param(n, "activation_gamma");

    if (name[0])
        y = fg_activation(n, name, y, param(n, "activation_alpha"),
                          isnan(beta) ? gamma : beta);
    return fg_yield(n, y);
}

/* Convolution, operand 3 added, then the activation. */
bool
fg_onnx_ms_fused_conv(fg_node *n)
{
    fg_reg y = fg_conv(n, fg_need(n, 0), fg_need(n, 1), fg_in(n, 2));
    const char *name = fg_attr_str(n, "activation", "");
    const float *p;
    int count = fg_attr_floats(n, "activation_params", &p);
    double v[2];

    for (int k = 0; k < 2; k++)
        v[k] = k < count ? (double)p[k] : NAN;
    if (fg_in(n, 3))
        y = E2(add, y, n->in[3]);
    if (y && !strcmp(name, "Clip"))
        y = E2(min, E2(max, y, fg_num(n, y, v[0])), fg_num(n, y, v[1]));
    else if (name[0])
        y = fg_activation(n, name, y, v[0], v[1]);
    return fg_yield(n, y);
}

/* ---- mixture of experts ---------------------------------------------------------- */

/* Weight of every expert for every row, [T,E]: softmax over all, the k largest kept. */
static fg_reg
expert_weights(fg_node *n, fg_reg logits, int64_t k)
{
    int64_t last = 1;
    fg_reg p = fg_emit_softmax(n->b, logits, 1);

    if (!p)
        return 0;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_topk, 1, &p);
    FG_SET(i, topk, axis).i = 1;
    FG_SET(i, topk, k).e = fg_c(n, k);
    if (!fg_inst_finish(n->b, i, NULL, 0))
        return 0;
    fg_reg best = i->out[0], at = i->out[1];
    if (fg_attr_int(n, "normalize_routing_weights", 0))
        best =
            E2(div, best, fg_emit_reduce(n->b, FG_OP_reduce_sum, best, 1, &last, true));
    fg_reg in[3] = {fg_expand_like(n, fg_num(n, p, 0), p), at, best};
    if (!in[0] || !best)
        return 0;
    i = fg_inst_begin(n->b, FG_OP_scatter_elements, 3, in);
    FG_SET(i, scatter_elements, axis).i = 1;
    return fg_inst_finish(n->b, i, NULL, 0) ? i->out[0] : 0;
}

/* g sigmoid(alpha g) (l + beta), with g cut above and l on both sides. */
static fg_reg
expert_swiglu(fg_node *n, fg_reg g, fg_reg l)
{
    double alpha = fg_attr_float(n, "activation_alpha", 1),
           beta = fg_attr_float(n, "activation_beta", 0);
    double limit = fg_attr_float(n, "swiglu_limit", INFINITY);

    if (!g || !l)
        return 0;
    if (limit < INFINITY) {
        g = E2(min, g, fg_num(n, g, limit));
        l = E2(min, E2(max, l, fg_num(n, l, -limit)), fg_num(n, l, limit));
    }
    g = fg_activation(n, "Swish", g, alpha, NAN);
    return E2(mul, g, beta == 0 ? l : E2(add, l, fg_num(n, l, beta)));
}

/* The two halves of the last axis, or its even and odd columns. */
static fg_reg
expert_half(fg_node *n, fg_reg h, bool pairs, int which)
{
    fg_expr start[3] = {fg_c(n, 0), fg_c(n, 0), fg_c(n, 0)}, size[3];
    int64_t step[3] = {1, 1, pairs ? 2 : 1};

    if (!h)
        return 0;
    for (int a = 0; a < 3; a++)
        size[a] = fg_dim(n, h, a);
    size[2] = fg_ediv(n->ex, size[2], fg_c(n, 2));
    if (which)
        start[2] = pairs ? fg_c(n, 1) : size[2];
    return fg_emit_slice(n->b, h, start, step, size);
}

/* x[T,H] through every expert's layer: x w^T + b, [E,T,I]. */
static fg_reg
expert_layer(fg_node *n, fg_reg x, fg_reg w, fg_reg bias)
{
    fg_reg h = fg_emit_matmul(n->b, x, fg_narrow(n, w, x), false, true);

    return h && bias ? E2(add, h, fg_insert1(n, fg_narrow(n, bias, x), 1, 1)) : h;
}

static const struct {
    const char *word, *name;
} expert_activations[] = {
    {"relu", "Relu"},
    {"silu", "Swish"},
    {NULL, NULL},
};

static fg_reg
expert_hidden(fg_node *n, fg_reg x, const fg_experts *e)
{
    const char *act = fg_attr_str(n, "activation_type", "relu");
    int64_t fusion = fg_attr_int(n, "swiglu_fusion", 0);
    fg_reg h = expert_layer(n, x, e->w[0], e->bias[0]);
    fg_reg gate = e->w[2] ? expert_layer(n, x, e->w[2], e->bias[2]) : 0;
    int k = 0;

    if (!strcmp(act, "swiglu") && fusion)
        return expert_swiglu(n, expert_half(n, h, fusion == 1, 0),
                             expert_half(n, h, fusion == 1, 1));
    if (!strcmp(act, "swiglu"))
        return gate ? expert_swiglu(n, h, gate) : 0;
    while (expert_activations[k].word && strcmp(expert_activations[k].word, act))
        k++;
    if (expert_activations[k].word)
        h = fg_activation(n, expert_activations[k].name, h, NAN, NAN);
    else if (!strcmp(act, "gelu"))
        h = E1(gelu_tanh, h);
    else if (strcmp(act, "identity") != 0) {
        fg_node_unsupported(n, "activation_type \"%s\"", act);
        return 0;
    }
    return gate ? E2(mul, h, gate) : h;
}

/* Every expert on every row, weighted; an expert that was not chosen has weight 0. */
fg_reg
fg_mixture(fg_node *n, fg_reg x, fg_reg logits, const fg_experts *e)
{
    int64_t k = fg_attr_int(n, "k", 1), count, first = 0;

    if (!x || !logits || !e->w[0] || !e->w[1])
        return 0;
    if (fg_attr_int(n, "use_sparse_mixer", 0)) {
        fg_node_unsupported(n, "use_sparse_mixer");
        return 0;
    }
    if (fg_rank(n, logits) != 2 || fg_rank(n, e->w[0]) != 3 || fg_rank(n, e->w[1]) != 3 ||
        k < 1 || (fg_e_const(n->ex, fg_dim(n, logits, 1), &count) && k > count)) {
        fg_node_error(n, "%lld experts of %s", (long long)k,
                      fg_type_text(n->m, fg_rt(n->m, logits)));
        return 0;
    }
    int rank = fg_rank(n, x);
    fg_expr flat[2] = {fg_dims_product(n, x, 0, rank - 1), fg_dim(n, x, rank - 1)};
    fg_reg rows = fg_emit_reshape(n->b, fg_widen(n, x), 2, flat);
    fg_reg p = expert_weights(n, fg_widen(n, logits), k);
    fg_reg h = expert_hidden(n, fg_insert1(n, rows, 0, 1), e);
    fg_reg y = h ? expert_layer(n, h, e->w[1], e->bias[1]) : 0;
    if (!p || !y)
        return 0;
    p = fg_insert1(n, fg_emit_transpose(n->b, p, (int64_t[]){1, 0}), 2, 1);
    y = fg_emit_reduce(n->b, FG_OP_reduce_sum, E2(mul, y, fg_narrow(n, p, y)), 1, &first,
                       false);
    return fg_narrow(n, fg_like_shape(n, y, x), x);
}

bool
fg_onnx_ms_moe(fg_node *n)
{
    fg_experts e = {.w = {fg_need(n, 2), fg_need(n, 4), fg_in(n, 6)},
                    .bias = {fg_in(n, 3), fg_in(n, 5), fg_in(n, 7)}};

    return fg_yield(n, fg_mixture(n, fg_need(n, 0), fg_need(n, 1), &e));
}
