/* value.c - one element of a register, pulled through views and arithmetic, as C.
 *
 *     %5 = reshape %a : f32[B,4,8]          a0[i0 * 32 + i1 * 8 + i2]
 *     %6 = add %5, %b                       const float v1 = a0[..] + a1[i2];
 *
 * A statement per elementwise instruction, none per view. What was named at the same index
 * in an enclosing scope is used again.
 */
#include "codegen/c/c.h"

/* ---- arithmetic -------------------------------------------------------------------------- */

/* clang-format off */
/* Of floats, of signed and of unsigned integers; NULL: the operation takes none. Operands
 * are one word each; the result is converted by being named. */
static const struct {
    fg_op op;
    const char *flt, *sgn, *uns;
} rows[] = {
    {FG_OP_neg, "-%s", "-(uint64_t)%s", "-(uint64_t)%s"},
    {FG_OP_abs, "fabs(%s)", "int_abs(%s)", "%s"},
    {FG_OP_sign, "sign(%s)", "(int)sign((double)%s)", "%s != 0"},
    {FG_OP_sqrt, "sqrt(%s)"}, {FG_OP_rsqrt, "1 / sqrt(%s)"}, {FG_OP_recip, "1 / %s"},
    {FG_OP_exp, "exp(%s)"}, {FG_OP_log, "log(%s)"},
    {FG_OP_sin, "sin(%s)"}, {FG_OP_cos, "cos(%s)"}, {FG_OP_tan, "tan(%s)"},
    {FG_OP_asin, "asin(%s)"}, {FG_OP_acos, "acos(%s)"}, {FG_OP_atan, "atan(%s)"},
    {FG_OP_sinh, "sinh(%s)"}, {FG_OP_cosh, "cosh(%s)"}, {FG_OP_tanh, "tanh(%s)"},
    {FG_OP_asinh, "asinh(%s)"}, {FG_OP_acosh, "acosh(%s)"}, {FG_OP_atanh, "atanh(%s)"},
    {FG_OP_sigmoid, "sigmoid(%s)"}, {FG_OP_erf, "erf(%s)"}, {FG_OP_gelu, "gelu(%s)"},
    {FG_OP_gelu_tanh, "gelu_tanh(%s)"}, {FG_OP_silu, "silu(%s)"},
    {FG_OP_softplus, "softplus(%s)"}, {FG_OP_relu, "relu(%s)", "most(%s, 0)", "%s"},
    {FG_OP_floor, "floor(%s)"}, {FG_OP_ceil, "ceil(%s)"}, {FG_OP_round, "nearbyint(%s)"},
    {FG_OP_isnan, "isnan(%s) != 0"}, {FG_OP_isinf, ""},
    {FG_OP_not, NULL, NULL, "!%s"}, {FG_OP_bitnot, NULL, "~%s", "~%s"},
    {FG_OP_add, "%s + %s", "(uint64_t)%s + (uint64_t)%s", "%s + %s"},
    {FG_OP_sub, "%s - %s", "(uint64_t)%s - (uint64_t)%s", "%s - %s"},
    {FG_OP_mul, "%s * %s", "(uint64_t)%s * (uint64_t)%s", "(uint64_t)%s * %s"},
    {FG_OP_div, "%s / %s", "int_div(%s, %s)", "uint_div(%s, %s)"},
    {FG_OP_mod, "float_mod(%s, %s)", "int_mod(%s, %s)", "uint_rem(%s, %s)"},
    {FG_OP_fmod, "fmod(%s, %s)", "int_rem(%s, %s)", "uint_rem(%s, %s)"},
    {FG_OP_min, "smaller(%s, %s)", "least(%s, %s)", "uint_least(%s, %s)"},
    {FG_OP_max, "larger(%s, %s)", "most(%s, %s)", "uint_most(%s, %s)"},
    {FG_OP_eq, "%s == %s", "%s == %s", "%s == %s"}, {FG_OP_ne, "%s != %s", "%s != %s", "%s != %s"},
    {FG_OP_lt, "%s < %s", "%s < %s", "%s < %s"}, {FG_OP_le, "%s <= %s", "%s <= %s", "%s <= %s"},
    {FG_OP_gt, "%s > %s", "%s > %s", "%s > %s"}, {FG_OP_ge, "%s >= %s", "%s >= %s", "%s >= %s"},
    {FG_OP_and, NULL, NULL, "%s && %s"}, {FG_OP_or, NULL, NULL, "%s || %s"},
    {FG_OP_xor, NULL, NULL, "%s != %s"},
    {FG_OP_bitand, NULL, "%s & %s", "%s & %s"}, {FG_OP_bitor, NULL, "%s | %s", "%s | %s"},
    {FG_OP_bitxor, NULL, "%s ^ %s", "%s ^ %s"},
    {FG_OP_where, "%s ? %s : %s", "%s ? %s : %s", "%s ? %s : %s"},
};
/* clang-format on */

static const char *
form_of(const cc *c, const fg_inst *i)
{
    fg_dtype d = fg_rt(c->m, i->in[i->op == FG_OP_where])->dtype;

    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        if (rows[k].op == i->op)
            return fg_is_float(d)                      ? rows[k].flt
                   : fg_dtypes[d].cls == FG_CLASS_SINT ? rows[k].sgn
                                                       : rows[k].uns;
    return NULL;
}

/* Names a value of type d; what is computed in f32 for a narrower type is rounded once. */
static const char *
named(cc *c, fg_dtype d, const char *expr)
{
    const char *v = fg_format(c->a, "v%d", ++c->nvalue);

    if (d == FG_f16 || d == FG_bf16)
        expr = fg_format(c->a, "%s(to_%s((float)(%s)))", fg_dtypes[d].name,
                         fg_dtypes[d].name, expr);
    if (fg_dtypes[d].bits < 8)
        expr = fg_format(c->a, "wrap_%s((int)(%s))", fg_dtypes[d].name, expr);
    cc_line(c, "const %s %s = %s;", cc_type(d), v, expr);
    return v;
}

static const char *
cast(cc *c, const fg_inst *i, const char *x)
{
    fg_dtype from = fg_rt(c->m, i->in[0])->dtype, to = fg_rt(c->m, i->out[0])->dtype;

    if (to == FG_bool)
        return fg_format(c->a, "%s != 0", x);
    if (!fg_is_float(from) || fg_is_float(to))
        return fg_format(c->a, "(%s)%s", cc_type(to), x);
    return cc_from_double(c, to, x);
}

/* The same bits. Of 16 bits, those of floats are what arrays hold. */
static const char *
bitcast(cc *c, const fg_inst *i, const char *x)
{
    fg_dtype from = fg_rt(c->m, i->in[0])->dtype, to = fg_rt(c->m, i->out[0])->dtype;
    const char *name = fg_dtypes[fg_is_float(to) ? to : from].name;
    bool short_from = from == FG_f16 || from == FG_bf16,
         short_to = to == FG_f16 || to == FG_bf16;

    if (fg_is_float(from))
        x = short_from        ? fg_format(c->a, "to_%s(%s)", fg_dtypes[from].name, x)
            : fg_is_float(to) ? x
                              : fg_format(c->a, "bits_of_%s(%s)", name, x);
    if (fg_is_float(to) && (short_to || !fg_is_float(from)))
        x = short_to ? fg_format(c->a, "%s((uint16_t)%s)", name, x)
                     : fg_format(c->a, "%s_of_bits((uint%d_t)%s)", name,
                                 fg_dtypes[to].bits, x);
    return x;
}

static const char *
isinf_form(const fg_inst *i)
{
    bool neg = FG_GET(i, isinf, neg).i, pos = FG_GET(i, isinf, pos).i;

    return neg && pos ? "isinf(%s) != 0"
           : neg      ? "%s == -INFINITY"
           : pos      ? "%s == INFINITY"
                      : "((void)%s, 0)";
}

/* The exponent has a type of its own. */
static const char *
power(cc *c, const fg_inst *i, const char *x, const char *y)
{
    fg_dtype d = fg_rt(c->m, i->in[0])->dtype, e = fg_rt(c->m, i->in[1])->dtype;

    if (fg_is_float(d))
        return fg_format(c->a, "pow(%s, (double)%s)", x, y);
    if (fg_is_float(e))
        return cc_from_double(c, d, fg_format(c->a, "pow((double)%s, %s)", x, y));
    return fg_format(c->a, "%s((uint64_t)%s, %s)",
                     fg_dtypes[e].cls == FG_CLASS_SINT ? "int_pow" : "uint_pow", x, y);
}

static const char *
shift(cc *c, const fg_inst *i, const char *x, const char *n)
{
    fg_dtype d = fg_rt(c->m, i->in[0])->dtype;
    bool left = i->op == FG_OP_shl, sgn = fg_dtypes[d].cls == FG_CLASS_SINT;

    return fg_format(c->a, "%s(%s, (uint64_t)%s, %d)",
                     left  ? "shift_left"
                     : sgn ? "shift_signed"
                           : "shift_right",
                     left ? fg_format(c->a, "(uint64_t)%s", x) : x, n, fg_dtypes[d].bits);
}

static const char *
arithmetic(cc *c, const fg_inst *i, const char *const *at)
{
    const fg_type *t = fg_rt(c->m, i->out[0]);
    const char *x[3] = {"", "", ""}, *form = form_of(c, i);

    for (int k = 0; k < i->nin && k < 3; k++)
        x[k] = cc_value_in(c, i->in[k], t->rank, at);
    switch (i->op) {
    case FG_OP_cast:
        return named(c, t->dtype, cast(c, i, x[0]));
    case FG_OP_bitcast:
        return named(c, t->dtype, bitcast(c, i, x[0]));
    case FG_OP_pow:
        return named(c, t->dtype, power(c, i, x[0], x[1]));
    case FG_OP_shl:
    case FG_OP_shr:
        return named(c, t->dtype, shift(c, i, x[0], x[1]));
    case FG_OP_isinf:
        form = isinf_form(i);
        break;
    default:
        break;
    }
    if (!form) {
        cc_refuse(c, i, "of this type");
        return "0";
    }
    return named(c, t->dtype, fg_format(c->a, form, x[0], x[1], x[2]));
}

/* ---- constants ---------------------------------------------------------------------------- */

static const char *
literal(cc *c, fg_reg r)
{
    const fg_type *t = fg_rt(c->m, r);
    fg_text s = fg_text_new(c->a);
    double f;
    int64_t i;

    if (fg_is_float(t->dtype) && fg_const_f64(c->m, r, 0, &f)) {
        if (f - f != 0)
            return f != f ? "NAN" : f > 0 ? "INFINITY" : "(-INFINITY)";
        fg_put_double(&s, f, t->dtype != FG_f64);
        return fg_format(c->a, f < 0 ? "(%s%s)" : "%s%s", s.s,
                         t->dtype == FG_f64 ? "" : "f");
    }
    if (fg_is_float(t->dtype) || !fg_const_i64(c->m, r, 0, &i)) {
        cc_refuse(c, c->kernel, "a constant has no data");
        return "0";
    }
    if (i == INT64_MIN)
        return "INT64_MIN";
    bool wide = i > INT32_MAX || i < INT32_MIN;
    return fg_format(c->a,
                     wide    ? i < 0 ? "(-INT64_C(%lld))" : "INT64_C(%lld)"
                     : i < 0 ? "(-%lld)"
                             : "%lld",
                     i < 0 ? -(long long)i : (long long)i);
}

static const char *
symvec(cc *c, const fg_inst *i, const char *const *at)
{
    const fg_attr *v = &FG_GET(i, symvec, v);
    fg_dtype d = fg_rt(c->m, i->out[0])->dtype;
    fg_text s = fg_text_new(c->a);

    if (v->n == 1)
        return named(c, d, cc_expr(c, v->es[0]));
    for (int k = 0; k < v->n; k++)
        fg_putf(&s, "%s%s", k ? ", " : "", cc_expr(c, v->es[k]));
    return named(c, d, fg_format(c->a, "(const int64_t[]){%s}[%s]", s.s, at[0]));
}

static const char *
iota(cc *c, const fg_inst *i, const char *const *at)
{
    fg_expr start = FG_GET(i, iota, start).e;
    const char *by = fg_format(c->a, "%lld", (long long)FG_GET(i, iota, step).i);
    const char *from = start == FG_E_BAD ? "0" : cc_expr(c, start);

    return named(c, fg_rt(c->m, i->out[0])->dtype,
                 cc_plus(c, from, cc_times(c, at[0], by)));
}

/* ---- views --------------------------------------------------------------------------------- */

static const char *
as_word(cc *c, const char *s)
{
    if (!strchr(s, ' '))
        return s;
    const char *n = fg_format(c->a, "n%d", ++c->nvalue);
    cc_line(c, "const int64_t %s = %s;", n, s);
    return n;
}

/* Axes [k, end) of the operand are axes [j, to) of the result, elements in the same order. */
static void
regroup(cc *c, const fg_type *out, int j, int to, const fg_type *in, int k, int end,
        const char *const *at, cc_index from)
{
    const char *off = "0";

    for (; j < to; j++)
        off = cc_plus(c, cc_times(c, off, cc_expr(c, out->dim[j])), at[j]);
    int real = 0;
    for (int x = k; x < end; x++)
        real += !fg_e_is(c->m->ex, in->dim[x], 1);
    if (real > 1)
        off = as_word(c, off);
    const char *below = "1";
    int seen = 0;
    for (int x = end - 1; x >= k; x--) {
        if (fg_e_is(c->m->ex, in->dim[x], 1)) {
            from[x] = "0";
            continue;
        }
        const char *n = off;
        if (strcmp(below, "1") != 0)
            n = fg_format(c->a, "%s / (%s)", n, below);
        if (++seen < real)
            n = fg_format(c->a, "%s %% (%s)", n, cc_expr(c, in->dim[x]));
        from[x] = n;
        below = cc_times(c, cc_expr(c, in->dim[x]), below);
    }
}

/* Groups of axes with the same number of elements on both sides, as short as can be. */
static void
reshape(cc *c, const fg_type *out, const fg_type *in, const char *const *at,
        cc_index from)
{
    fg_exprs *x = c->m->ex;
    int j = 0, k = 0;

    while (j < out->rank || k < in->rank) {
        int to = j, end = k;
        fg_expr a = fg_ec(x, 1), b = a;
        do {
            /* The shorter side grows; at the end, the rest of both. */
            bool left = to < out->rank &&
                        (end >= in->rank || fg_e_le(x, a, b) || !fg_e_le(x, b, a));
            if (left && to > j && end < in->rank && end == k)
                left = false;
            if (left)
                a = fg_emul(x, a, out->dim[to++]);
            else
                b = fg_emul(x, b, in->dim[end++]);
        } while ((a != b || to == j || end == k) && (to < out->rank || end < in->rank));
        /* Not provably equal from here, or too long to tell: all that is left is one group. */
        if (a != b || a == FG_E_BAD) {
            to = out->rank;
            end = in->rank;
        }
        regroup(c, out, j, to, in, k, end, at, from);
        j = to;
        k = end;
    }
}

static const char *
view(cc *c, const fg_inst *i, const char *const *at)
{
    const fg_type *out = fg_rt(c->m, i->out[0]), *in = fg_rt(c->m, i->in[0]);
    cc_index from;

    if (i->op == FG_OP_expand)
        return cc_value_in(c, i->in[0], out->rank, at);
    if (i->op == FG_OP_copy)
        return cc_value(c, i->in[0], at);
    if (i->op == FG_OP_reshape) {
        reshape(c, out, in, at, from);
        return cc_value(c, i->in[0], from);
    }
    for (int k = 0; k < in->rank; k++)
        if (i->op == FG_OP_transpose) {
            from[FG_GET(i, transpose, perm).is[k]] = at[k];
        } else {
            int64_t step = FG_GET(i, slice, step).is[k];
            const char *s = fg_format(c->a, "%lld", (long long)step);
            const char *by = step < 0 ? fg_format(c->a, "-%s", cc_times(c, at[k], s + 1))
                                      : cc_times(c, at[k], s);
            from[k] = cc_plus(c, cc_expr(c, FG_GET(i, slice, start).es[k]),
                              strcmp(by, "-0") ? by : "0");
        }
    return cc_value(c, i->in[0], from);
}

/* ---- gathers, grids ------------------------------------------------------------------------ */

static const char *
gather(cc *c, const fg_inst *i, const char *const *at)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *n = fg_rt(c->m, i->in[1]);
    bool each = i->op == FG_OP_gather_elements;
    int axis =
        (int)(each ? FG_GET(i, gather_elements, axis).i : FG_GET(i, gather, axis).i);
    cc_index from;
    const char *which = cc_value(c, i->in[1], each ? at : at + axis);

    which = as_word(c, fg_format(c->a, "place(%s, %s)", which, cc_expr(c, x->dim[axis])));
    for (int k = 0; k < x->rank; k++)
        from[k] = k == axis ? which : each || k < axis ? at[k] : at[k - 1 + n->rank];
    return cc_value(c, i->in[0], from);
}

static const char *
gather_nd(cc *c, const fg_inst *i, const char *const *at)
{
    const fg_type *x = fg_rt(c->m, i->in[0]), *n = fg_rt(c->m, i->in[1]);
    int batch = (int)FG_GET(i, gather_nd, batch).i, lead = n->rank - 1;
    int64_t depth = 0;
    cc_index tuple, from;

    fg_e_const(c->m->ex, n->dim[lead], &depth);
    for (int k = 0; k < lead; k++)
        tuple[k] = at[k];
    for (int k = 0; k < x->rank; k++) {
        if (k < batch || k >= batch + depth) {
            from[k] = at[k < batch ? k : lead + k - batch - (int)depth];
            continue;
        }
        tuple[lead] = fg_format(c->a, "%d", k - batch);
        from[k] =
            as_word(c, fg_format(c->a, "place(%s, %s)", cc_value(c, i->in[1], tuple),
                                 cc_expr(c, x->dim[k])));
    }
    return cc_value(c, i->in[0], from);
}

static const char *
scale_of(cc *c, const fg_inst *i, int operand, int64_t axis, int64_t block,
         const char *const *at)
{
    const fg_type *s = fg_rt(c->m, i->in[operand]);
    cc_index from;

    for (int k = 0; k < s->rank; k++)
        from[k] = fg_e_is(c->m->ex, s->dim[k], 1) ? "0"
                  : block && k == axis
                      ? fg_format(c->a, "(%s) / %lld", at[k], (long long)block)
                  : block ? at[k]
                          : at[axis];
    return cc_value(c, i->in[operand], from);
}

static const char *
grid(cc *c, const fg_inst *i, const char *const *at)
{
    bool to = i->op == FG_OP_quantize;
    int64_t axis = to ? FG_GET(i, quantize, axis).i : FG_GET(i, dequantize, axis).i,
            block = to ? FG_GET(i, quantize, block).i : FG_GET(i, dequantize, block).i;
    fg_dtype d = fg_rt(c->m, i->out[0])->dtype;
    const char *x = cc_value(c, i->in[0], at),
               *scale = scale_of(c, i, 1, axis, block, at),
               *zero = i->nin > 2 && i->in[2] ? scale_of(c, i, 2, axis, block, at) : "0";

    if (!to)
        return named(c, d, fg_format(c->a, "((double)%s - %s) * %s", x, zero, scale));
    return named(
        c, d,
        cc_from_double(c, d, fg_format(c->a, "nearbyint(%s / %s) + %s", x, scale, zero)));
}

/* ---- the element --------------------------------------------------------------------------- */

static bool
is_arithmetic(fg_op op)
{
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        if (rows[k].op == op)
            return true;
    return op == FG_OP_cast || op == FG_OP_bitcast || op == FG_OP_pow ||
           op == FG_OP_shl || op == FG_OP_shr;
}

bool
cc_pulled(fg_op op)
{
    return is_arithmetic(op) || fg_op_is(op, FG_T_VIEW) || op == FG_OP_iota ||
           op == FG_OP_symvec || op == FG_OP_const || op == FG_OP_gather ||
           op == FG_OP_gather_elements || op == FG_OP_gather_nd || op == FG_OP_quantize ||
           op == FG_OP_dequantize;
}

bool
cc_is_cheap(const cc *c, fg_reg r)
{
    const fg_inst *i;

    while (!c->array[r] && (i = fg_def(c->m, r)) && fg_op_is(i->op, FG_T_VIEW))
        r = i->in[0];
    i = fg_def(c->m, r);
    return c->array[r] || fg_is_op(i, FG_OP_const) || fg_is_op(i, FG_OP_iota);
}

static const char *
pull(cc *c, const fg_inst *i, const char *const *at)
{
    switch (i->op) {
    case FG_OP_const:
        return literal(c, i->out[0]);
    case FG_OP_symvec:
        return symvec(c, i, at);
    case FG_OP_iota:
        return iota(c, i, at);
    case FG_OP_gather:
    case FG_OP_gather_elements:
        return gather(c, i, at);
    case FG_OP_gather_nd:
        return gather_nd(c, i, at);
    case FG_OP_quantize:
    case FG_OP_dequantize:
        return grid(c, i, at);
    default:
        return fg_op_is(i->op, FG_T_VIEW) ? view(c, i, at) : arithmetic(c, i, at);
    }
}

const char *
cc_value(cc *c, fg_reg r, const char *const *at)
{
    const fg_inst *i = fg_def(c->m, r);
    fg_text key = fg_text_new(c->a);

    if (c->array[r])
        return cc_load(c, c->array[r], fg_rt(c->m, r), at);
    if (!i || !cc_pulled(i->op)) {
        cc_refuse(c, i ? i : c->kernel, "");
        return "0";
    }
    for (int k = 0; k < fg_rt(c->m, r)->rank; k++)
        fg_putf(&key, "%s,", at[k]);
    for (size_t k = 0; k < c->nmemo; k++)
        if (c->memo[k].reg == r && !strcmp(c->memo[k].at, key.n ? key.s : ""))
            return c->memo[k].value;
    const char *v = pull(c, i, at);
    FG_PUSH(c->a, c->memo, c->nmemo, c->capmemo) = (cc_memo){r, key.n ? key.s : "", v};
    return v;
}

const char *
cc_value_in(cc *c, fg_reg r, int rank, const char *const *at)
{
    const fg_type *t = fg_rt(c->m, r);
    cc_index from;

    for (int k = 0; k < t->rank; k++)
        from[k] = fg_e_is(c->m->ex, t->dim[k], 1) ? "0" : at[rank - t->rank + k];
    return cc_value(c, r, from);
}
