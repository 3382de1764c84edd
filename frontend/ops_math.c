/* ops_math.c - ONNX arithmetic, comparisons, activations and casts.
 *
 *     Gelu {approximate="tanh"}   ->  gelu_tanh
 *     Clip x, lo, hi              ->  min(max(x, lo), hi)
 *     HardSwish x                 ->  x max(0, min(1, x/6 + 1/2))
 *
 * What has an operation of the same meaning is a row of a table; the rest is a formula.
 * Formulas on f16 and bf16 run in f32 and round once, as single operations do.
 */
#include "frontend/ops.h"

#include <math.h>

typedef struct {
    const char *onnx;
    fg_op op;
} pair;

static fg_op
find(const pair *p, const char *name)
{
    while (p->onnx && strcmp(p->onnx, name))
        p++;
    return p->op;
}

/* ---- one operand ----------------------------------------------------------------- */

static const pair unary_ops[] = {
    {"Abs", FG_OP_abs},          {"Acos", FG_OP_acos},         {"Acosh", FG_OP_acosh},
    {"Asin", FG_OP_asin},        {"Asinh", FG_OP_asinh},       {"Atan", FG_OP_atan},
    {"Atanh", FG_OP_atanh},      {"BitwiseNot", FG_OP_bitnot}, {"Ceil", FG_OP_ceil},
    {"Cos", FG_OP_cos},          {"Cosh", FG_OP_cosh},         {"Erf", FG_OP_erf},
    {"Exp", FG_OP_exp},          {"Floor", FG_OP_floor},       {"IsNaN", FG_OP_isnan},
    {"Log", FG_OP_log},          {"Neg", FG_OP_neg},           {"Not", FG_OP_not},
    {"Reciprocal", FG_OP_recip}, {"Relu", FG_OP_relu},         {"Round", FG_OP_round},
    {"Sigmoid", FG_OP_sigmoid},  {"Sign", FG_OP_sign},         {"Sin", FG_OP_sin},
    {"Sinh", FG_OP_sinh},        {"Softplus", FG_OP_softplus}, {"Sqrt", FG_OP_sqrt},
    {"Tan", FG_OP_tan},          {"Tanh", FG_OP_tanh},         {NULL, FG_OP_NONE},
};

bool
fg_onnx_unary(fg_node *n)
{
    return fg_yield(n, fg_emit1(n->b, find(unary_ops, n->op), fg_need(n, 0)));
}

bool
fg_onnx_identity(fg_node *n)
{
    return fg_yield(n, fg_need(n, 0));
}

bool
fg_onnx_isinf(fg_node *n)
{
    fg_reg x = fg_need(n, 0);

    if (!x)
        return false;
    fg_inst *i = fg_inst_begin(n->b, FG_OP_isinf, 1, &x);
    FG_SET(i, isinf, neg).i = fg_attr_int(n, "detect_negative", 1) != 0;
    FG_SET(i, isinf, pos).i = fg_attr_int(n, "detect_positive", 1) != 0;
    return fg_inst_finish(n->b, i, NULL, 0) && fg_yield(n, i->out[0]);
}

/* Inference; a ratio of 0 in training is the identity too. */
bool
fg_onnx_dropout(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    double ratio = 0;

    if (!x)
        return false;
    if (fg_in(n, 2)) {
        int64_t train;
        bool zero =
            fg_in(n, 1) && fg_const_splat(n->m, fg_in(n, 1), &ratio) && ratio == 0;
        if (!zero && (!fg_const_i64(n->m, fg_in(n, 2), 0, &train) || train))
            return fg_node_unsupported(n, "training mode draws random numbers");
    }
    if (fg_wants(n, 1)) {
        fg_dtype d = n->opset >= 10 ? FG_bool : fg_elem(n, x);
        if (!fg_yield_at(n, 1, fg_expand_like(n, fg_emit_f(n->b, d, 1), x)))
            return false;
    }
    return fg_yield(n, x);
}

/* ---- two operands ---------------------------------------------------------------- */

static const pair binary_ops[] = {
    {"Add", FG_OP_add},
    {"And", FG_OP_and},
    {"BitwiseAnd", FG_OP_bitand},
    {"BitwiseOr", FG_OP_bitor},
    {"BitwiseXor", FG_OP_bitxor},
    {"Div", FG_OP_div},
    {"Equal", FG_OP_eq},
    {"Greater", FG_OP_gt},
    {"GreaterOrEqual", FG_OP_ge},
    {"Less", FG_OP_lt},
    {"LessOrEqual", FG_OP_le},
    {"Mul", FG_OP_mul},
    {"Or", FG_OP_or},
    {"Pow", FG_OP_pow},
    {"Sub", FG_OP_sub},
    {"Xor", FG_OP_xor},
    {NULL, FG_OP_NONE},
};

bool
fg_onnx_binary(fg_node *n)
{
    return fg_yield(
        n, fg_emit2(n->b, find(binary_ops, n->op), fg_need(n, 0), fg_need(n, 1)));
}

bool
fg_onnx_mod(fg_node *n)
{
    bool f = fg_attr_int(n, "fmod", 0) != 0;

    return fg_yield(
        n, fg_emit2(n->b, f ? FG_OP_fmod : FG_OP_mod, fg_need(n, 0), fg_need(n, 1)));
}

bool
fg_onnx_bitshift(fg_node *n)
{
    const char *dir = fg_attr_str(n, "direction", "");
    bool left = !strcmp(dir, "LEFT");

    if (!left && strcmp(dir, "RIGHT"))
        return fg_node_error(n, "direction \"%s\" is neither LEFT nor RIGHT", dir);
    return fg_yield(
        n, fg_emit2(n->b, left ? FG_OP_shl : FG_OP_shr, fg_need(n, 0), fg_need(n, 1)));
}

static const pair nary_ops[] = {
    {"Max", FG_OP_max}, {"Mean", FG_OP_add}, {"Min", FG_OP_min},
    {"Sum", FG_OP_add}, {NULL, FG_OP_NONE},
};

bool
fg_onnx_nary(fg_node *n)
{
    fg_reg x = fg_need(n, 0), y = x;
    bool mean = !strcmp(n->op, "Mean");

    if (mean)
        y = fg_widen(n, y);
    for (int k = 1; y && k < n->nin; k++) {
        fg_reg z = fg_need(n, k);
        y = fg_emit2(n->b, find(nary_ops, n->op), y, mean ? fg_widen(n, z) : z);
    }
    if (mean && y)
        y = fg_narrow(n, E2(div, y, fg_num(n, y, n->nin)), x);
    return fg_yield(n, y);
}

bool
fg_onnx_where(fg_node *n)
{
    return fg_yield(n, E3(where, fg_need(n, 0), fg_need(n, 1), fg_need(n, 2)));
}

bool
fg_onnx_clip(fg_node *n)
{
    fg_reg x = fg_need(n, 0);

    if (!x)
        return false;
    fg_reg lo = fg_in(n, 1), hi = fg_in(n, 2);
    if (n->opset < 11) {
        lo = fg_attr_has(n, "min") ? fg_num(n, x, fg_attr_float(n, "min", 0)) : 0;
        hi = fg_attr_has(n, "max") ? fg_num(n, x, fg_attr_float(n, "max", 0)) : 0;
    }
    if (lo)
        x = E2(max, x, fg_scalar(n, lo, "min"));
    if (hi)
        x = E2(min, x, fg_scalar(n, hi, "max"));
    return fg_yield(n, x);
}

/* ---- conversions ----------------------------------------------------------------- */

static bool
element_type(fg_node *n, int64_t code, fg_dtype *d)
{
    *d = code >= 0 && code < 1000 ? fg_dtype_by_onnx((int)code) : FG_NODTYPE;
    return *d || fg_node_unsupported(n, "element type %lld", (long long)code);
}

/* Four bits wrap, also from floats; wider integers saturate, as cast itself does. */
static fg_reg
convert(fg_node *n, fg_reg x, fg_dtype to)
{
    if (x && fg_dtypes[to].bits < 8 && fg_is_float(fg_elem(n, x)))
        x = fg_emit_cast(n->b, x, FG_i64);
    return x ? fg_emit_cast(n->b, x, to) : 0;
}

bool
fg_onnx_cast(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    fg_dtype to;

    if (!fg_attr_has(n, "to"))
        return fg_node_error(n, "attribute to is missing");
    return x && element_type(n, fg_attr_int(n, "to", 0), &to) &&
           fg_yield(n, convert(n, x, to));
}

bool
fg_onnx_cast_like(fg_node *n)
{
    fg_reg x = fg_need(n, 0), y = fg_need(n, 1);

    return x && y && fg_yield(n, convert(n, x, fg_elem(n, y)));
}

bool
fg_onnx_bitcast(fg_node *n)
{
    fg_reg x = fg_need(n, 0);
    fg_dtype to;

    if (!x || !element_type(n, fg_attr_int(n, "to", 0), &to))
        return false;
    if (fg_dtypes[to].bits != fg_dtypes[fg_elem(n, x)].bits)
        return fg_node_error(n, "%s and %s have different sizes",
                             fg_dtypes[fg_elem(n, x)].name, fg_dtypes[to].name);
    if (to == fg_elem(n, x))
        return fg_yield(n, x);
    fg_inst *i = fg_inst_begin(n->b, FG_OP_bitcast, 1, &x);
    FG_SET(i, bitcast, to).i = to;
    return fg_inst_finish(n->b, i, NULL, 0) && fg_yield(n, i->out[0]);
}

/* ---- activations ----------------------------------------------------------------- */

/* Each takes x in f32 or f64 and the operator's two numbers. */
typedef fg_reg formula(fg_node *n, fg_reg x, double alpha, double beta);

/* where(x < 0, y, x): NaN and both zeros stay. */
static fg_reg
below_zero(fg_node *n, fg_reg x, fg_reg y)
{
    return E3(where, E2(lt, x, fg_num(n, x, 0)), y, x);
}

static fg_reg
expm1_times(fg_node *n, fg_reg x, double by)
{
    fg_reg e = E2(sub, E1(exp, x), fg_num(n, x, 1));

    return by == 1 ? e : E2(mul, e, fg_num(n, x, by));
}

static fg_reg
clamp(fg_node *n, fg_reg x, double lo, double hi)
{
    return E2(min, E2(max, x, fg_num(n, x, lo)), fg_num(n, x, hi));
}

static fg_reg
leaky_relu(fg_node *n, fg_reg x, double alpha, double beta)
{
    (void)beta;
    return below_zero(n, x, E2(mul, x, fg_num(n, x, alpha)));
}

static fg_reg
elu(fg_node *n, fg_reg x, double alpha, double beta)
{
    (void)beta;
    return below_zero(n, x, expm1_times(n, x, alpha));
}

static fg_reg
celu(fg_node *n, fg_reg x, double alpha, double beta)
{
    (void)beta;
    return below_zero(n, x, expm1_times(n, E2(div, x, fg_num(n, x, alpha)), alpha));
}

static fg_reg
selu(fg_node *n, fg_reg x, double alpha, double gamma)
{
    return E2(mul, below_zero(n, x, expm1_times(n, x, alpha)), fg_num(n, x, gamma));
}

static fg_reg
hard_sigmoid(fg_node *n, fg_reg x, double alpha, double beta)
{
    return clamp(n, E2(add, E2(mul, x, fg_num(n, x, alpha)), fg_num(n, x, beta)), 0, 1);
}

static fg_reg
hard_swish(fg_node *n, fg_reg x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    return E2(mul, x, hard_sigmoid(n, x, 1.0 / 6, 0.5));
}

static fg_reg
swish(fg_node *n, fg_reg x, double alpha, double beta)
{
    (void)beta;
    if (alpha == 1)
        return E1(silu, x);
    return E2(mul, x, E1(sigmoid, E2(mul, x, fg_num(n, x, alpha))));
}

static fg_reg
mish(fg_node *n, fg_reg x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    return E2(mul, x, E1(tanh, E1(softplus, x)));
}

static fg_reg
softsign(fg_node *n, fg_reg x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    return E2(div, x, E2(add, E1(abs, x), fg_num(n, x, 1)));
}

static fg_reg
thresholded_relu(fg_node *n, fg_reg x, double alpha, double beta)
{
    (void)beta;
    return E3(where, E2(gt, x, fg_num(n, x, alpha)), x, fg_num(n, x, 0));
}

static fg_reg
shrink(fg_node *n, fg_reg x, double bias, double lambd)
{
    fg_reg down = E2(sub, x, fg_num(n, x, bias)), up = E2(add, x, fg_num(n, x, bias));
    fg_reg above = E3(where, E2(gt, x, fg_num(n, x, lambd)), down, fg_num(n, x, 0));

    return E3(where, E2(lt, x, fg_num(n, x, -lambd)), up, above);
}

static fg_reg
affine(fg_node *n, fg_reg x, double alpha, double beta)
{
    return E2(add, E2(mul, x, fg_num(n, x, alpha)), fg_num(n, x, beta));
}

static fg_reg
scaled_tanh(fg_node *n, fg_reg x, double alpha, double beta)
{
    return E2(mul, E1(tanh, E2(mul, x, fg_num(n, x, beta))), fg_num(n, x, alpha));
}

#define SELU_ALPHA 1.67326319217681884765625
#define SELU_GAMMA 1.05070102214813232421875

static const struct {
    const char *name;
    formula *f; /* NULL: the operation op */
    fg_op op;
    const char *first, *second; /* attributes and their defaults */
    double alpha, beta;
} activations[] = {
    {"Affine", affine, FG_OP_NONE, "alpha", "beta", 1, 0},
    {"Celu", celu, FG_OP_NONE, "alpha", NULL, 1, 0},
    {"Elu", elu, FG_OP_NONE, "alpha", NULL, 1, 0},
    {"HardSigmoid", hard_sigmoid, FG_OP_NONE, "alpha", "beta", 0.2, 0.5},
    {"HardSwish", hard_swish, FG_OP_NONE, NULL, NULL, 0, 0},
    {"LeakyRelu", leaky_relu, FG_OP_NONE, "alpha", NULL, 0.01, 0},
    {"Mish", mish, FG_OP_NONE, NULL, NULL, 0, 0},
    {"QuickGelu", swish, FG_OP_NONE, "alpha", NULL, 1.702, 0},
    {"Relu", NULL, FG_OP_relu, NULL, NULL, 0, 0},
    {"ScaledTanh", scaled_tanh, FG_OP_NONE, "alpha", "beta", 1, 1},
    {"Selu", selu, FG_OP_NONE, "alpha", "gamma", SELU_ALPHA, SELU_GAMMA},
    {"Shrink", shrink, FG_OP_NONE, "bias", "lambd", 0, 0.5},
    {"Sigmoid", NULL, FG_OP_sigmoid, NULL, NULL, 0, 0},
    {"Softplus", NULL, FG_OP_softplus, NULL, NULL, 0, 0},
    {"Softsign", softsign, FG_OP_NONE, NULL, NULL, 0, 0},
    {"Swish", swish, FG_OP_NONE, "alpha", NULL, 1, 0},
    {"Tanh", NULL, FG_OP_tanh, NULL, NULL, 0, 0},
    {"ThresholdedRelu", thresholded_relu, FG_OP_NONE, "alpha", NULL, 1, 0},
};

/* alpha and beta NaN: the operator's defaults. */
fg_reg
fg_activation(fg_node *n, const char *name, fg_reg x, double alpha, double beta)
{
    size_t k = 0, count = sizeof activations / sizeof *activations;

    while (k < count && strcmp(activations[k].name, name))
        k++;
    if (k == count) {
        fg_node_unsupported(n, "activation \"%s\"", name);
        return 0;
    }
    if (!activations[k].f)
        return fg_emit1(n->b, activations[k].op, x);
    fg_reg wide = fg_is_float(x ? fg_elem(n, x) : FG_f32) ? fg_widen(n, x)
                                                          : fg_emit_cast(n->b, x, FG_f64);
    alpha = isnan(alpha) ? activations[k].alpha : alpha;
    beta = isnan(beta) ? activations[k].beta : beta;
    return fg_narrow(n, activations[k].f(n, wide, alpha, beta), x);
}

bool
fg_onnx_activation(fg_node *n)
{
    double v[2] = {NAN, NAN};

    for (size_t k = 0; k < sizeof activations / sizeof *activations; k++)
        if (!strcmp(activations[k].name, n->op)) {
            if (activations[k].first)
                v[0] = fg_attr_float(n, activations[k].first, activations[k].alpha);
            if (activations[k].second)
                v[1] = fg_attr_float(n, activations[k].second, activations[k].beta);
        }
    return fg_yield(n, fg_activation(n, n->op, fg_need(n, 0), v[0], v[1]));
}

bool
fg_onnx_gelu(fg_node *n)
{
    const char *how = fg_attr_str(n, "approximate", "none");
    bool tanh_form = !strcmp(how, "tanh");

    if (!tanh_form && strcmp(how, "none"))
        return fg_node_error(n, "approximate \"%s\" is neither none nor tanh", how);
    return fg_yield(
        n, fg_emit1(n->b, tanh_form ? FG_OP_gelu_tanh : FG_OP_gelu, fg_need(n, 0)));
}

bool
fg_onnx_prelu(fg_node *n)
{
    fg_reg x = fg_need(n, 0), slope = fg_need(n, 1);

    if (!x || !slope)
        return false;
    /* Before opset 7 a vector of slopes belonged to axis 1. */
    if (n->opset < 7 && fg_rank(n, slope) == 1 && fg_rank(n, x) > 1)
        slope = fg_along(n, slope, 1, fg_rank(n, x));
    return fg_yield(n, below_zero(n, x, E2(mul, x, slope)));
}

bool
fg_onnx_swiglu(fg_node *n)
{
    fg_reg x = fg_need(n, 0), y = fg_need(n, 1);
    fg_reg g = swish(n, fg_widen(n, x), fg_attr_float(n, "alpha", 1), 0);

    return fg_yield(n, fg_narrow(n, E2(mul, g, fg_widen(n, y)), x));
}
