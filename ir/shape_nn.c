/* shape_nn.c - result types of products, attention, convolution, pooling, quantisation.
 *
 *     %s = matmul %q, %k {trans_b=1} : f32[B,12,S,T]    ; f32[B,12,S,64], f32[B,12,T,64]
 *     %o = attention %q, %k, %v : f32[B,12,S,64]
 *
 * Inner sizes, batch sizes and head sizes are unified; everything else follows the
 * definitions in ops.def.
 */
#include "ir/shape.h"

bool
fg_infer_word(fg_infer *s, const char *word, const char *const *known, int n,
              const char *what)
{
    for (int k = 0; k < n; k++)
        if (!strcmp(word, known[k]))
            return true;
    return fg_infer_error(s, "unknown %s \"%s\"", what, word);
}

/* ---- products ---------------------------------------------------------------------- */

/* Leading axes broadcast, the last two multiply. */
static bool
product_type(fg_infer *s, bool ta, bool tb, fg_type *out)
{
    fg_type a = s->in[0], b = s->in[1];
    if (a.rank < 2 || b.rank < 2)
        return fg_infer_error(s, "%s x %s: both operands need two axes",
                              fg_type_text(s->m, &a), fg_type_text(s->m, &b));
    fg_expr m = a.dim[a.rank - 2 + ta], ka = a.dim[a.rank - 1 - ta];
    fg_expr kb = b.dim[b.rank - 2 + tb], n = b.dim[b.rank - 1 - tb];
    if (!fg_unify(s->m, ka, kb))
        return fg_infer_error(s, "inner sizes %s and %s differ in %s x %s",
                              fg_dim_text(s->m, ka), fg_dim_text(s->m, kb),
                              fg_type_text(s->m, &a), fg_type_text(s->m, &b));
    fg_type la = a, lb = b;
    la.rank = (uint8_t)(a.rank - 2);
    lb.rank = (uint8_t)(b.rank - 2);
    if (!fg_bcast_type(s->m, &la, &lb, out))
        return fg_infer_error(s, "batch axes of %s x %s do not broadcast",
                              fg_type_text(s->m, &a), fg_type_text(s->m, &b));
    out->dim[out->rank++] = m;
    out->dim[out->rank++] = n;
    return true;
}

bool
fg_shape_matmul(fg_infer *s)
{
    if (s->i->op == FG_OP_matmul) {
        if (s->in[0].dtype != s->in[1].dtype)
            return fg_infer_error(s, "operands %s and %s have different element types",
                                  fg_type_text(s->m, &s->in[0]),
                                  fg_type_text(s->m, &s->in[1]));
        int64_t round = FG_GET(s->i, matmul, round).i;
        if (round < 0 || (round && !fg_is_float((fg_dtype)s->in[0].dtype)))
            return fg_infer_error(s, "round %lld on %s", (long long)round,
                                  fg_type_text(s->m, &s->in[0]));
        return product_type(s, FG_GET(s->i, matmul, trans_a).i != 0,
                            FG_GET(s->i, matmul, trans_b).i != 0, &s->out[0]);
    }
    for (int k = 0; k < 2; k++) {
        if (fg_dtypes[s->in[k].dtype].bits > 8)
            return fg_infer_error(s, "operand %s is not of 8 bits",
                                  fg_type_text(s->m, &s->in[k]));
        if (s->i->nin > 2 + k && s->in[2 + k].dtype != FG_NODTYPE &&
            !fg_infer_rank(s, 2 + k, 0, s->in[k].rank))
            return false;
    }
    if (!product_type(s, false, false, &s->out[0]))
        return false;
    s->out[0].dtype = FG_i32;
    return true;
}

/* ---- panels ------------------------------------------------------------------------ */

enum { WIDEST_PANEL = 4096 };

bool
fg_shape_panels(fg_infer *s)
{
    fg_exprs *ex = s->m->ex;
    int64_t width = FG_GET(s->i, panels, width).i;
    int trans = FG_GET(s->i, panels, trans).i != 0;
    if (!fg_infer_rank(s, 0, 2, 2))
        return false;
    if (width < 1 || width > WIDEST_PANEL)
        return fg_infer_error(s, "panels of %lld columns", (long long)width);
    fg_expr over = fg_eadd(ex, s->in[0].dim[1 - trans], fg_ec(ex, width - 1));
    s->out[0].dtype = s->in[0].dtype;
    s->out[0].rank = 3;
    s->out[0].dim[0] = fg_ediv(ex, over, fg_ec(ex, width));
    s->out[0].dim[1] = s->in[0].dim[trans];
    s->out[0].dim[2] = fg_ec(ex, width);
    return true;
}

bool
fg_shape_matmul_panels(fg_infer *s)
{
    fg_exprs *ex = s->m->ex;
    const fg_type *x = &s->in[0], *y = &s->in[1];
    fg_expr n = FG_GET(s->i, matmul_panels, n).e;
    int64_t width;
    if (!fg_infer_rank(s, 0, 2, FG_MAXRANK) || !fg_infer_rank(s, 1, 3, 3))
        return false;
    if (!fg_e_const(ex, y->dim[2], &width) || width < 1 || n == FG_E_BAD)
        return fg_infer_error(s, "%s cannot be panels of a matrix",
                              fg_type_text(s->m, y));
    fg_expr over = fg_eadd(ex, n, fg_ec(ex, width - 1));
    if (!fg_infer_equal(s, x->dim[x->rank - 1], y->dim[1], "inner sizes") ||
        !fg_infer_equal(s, fg_ediv(ex, over, fg_ec(ex, width)), y->dim[0],
                        "numbers of panels"))
        return false;
    s->out[0] = *x;
    s->out[0].dim[x->rank - 1] = n;
    return true;
}

/* The mask broadcasts to [B,H,S,T]; only its last axis may be a constant too short. */
static bool
check_mask(fg_infer *s)
{
    const fg_type *q = &s->in[0], *k = &s->in[1], *mask = &s->in[3];
    fg_expr want[4] = {q->dim[0], q->dim[1], q->dim[2], k->dim[2]}, r;
    if (!fg_infer_rank(s, 3, 0, 4))
        return false;
    if (mask->dtype != FG_bool && !fg_is_float((fg_dtype)mask->dtype))
        return fg_infer_error(s, "the mask %s is neither bool nor float",
                              fg_type_text(s->m, mask));
    for (int d = 0; d < mask->rank; d++) {
        int axis = d + 4 - mask->rank;
        fg_sym sym;
        fg_expr have = fg_e_renew(s->m->ex, mask->dim[d]);
        if (axis == 3 && !fg_e_single(s->m->ex, have, &sym))
            continue;
        if (!fg_bcast_dim(s->m, fg_e_renew(s->m->ex, want[axis]), have, &r))
            return fg_infer_error(s, "the mask %s does not fit queries %s and keys %s",
                                  fg_type_text(s->m, mask), fg_type_text(s->m, q),
                                  fg_type_text(s->m, k));
    }
    return true;
}

const char *const fg_round_text[] = {"scores", "masked", "weights"};

int
fg_attention_rounds(const fg_inst *i, fg_rounding *out)
{
    int n = 0, first = 6, kind = 0;
    for (const char *s = FG_GET(i, attention, round).s; *s; n++) {
        size_t len = strcspn(s, ",");
        while (kind < 3 && (strlen(fg_round_text[kind]) != len ||
                            memcmp(fg_round_text[kind], s, len) != 0))
            kind++;
        if (kind == 3 || n == FG_MAXROUND || first + 2 * n + 1 >= i->nin)
            return -1;
        out[n] = (fg_rounding){(fg_roundat)kind, i->in[first + 2 * n],
                               i->in[first + 2 * n + 1]};
        s += len + (s[len] == ',');
    }
    return i->nin <= first + 2 * n ? n : -1;
}

/* A grid is two scalars; a key that the mask excludes is not rounded back in. */
static bool
check_rounds(fg_infer *s)
{
    fg_rounding round[FG_MAXROUND];
    int n = fg_attention_rounds(s->i, round);
    if (n < 0)
        return fg_infer_error(s, "\"%s\" does not name its %d operands for rounding",
                              FG_GET(s->i, attention, round).s,
                              s->i->nin > 6 ? s->i->nin - 6 : 0);
    for (int k = 0; k < n; k++) {
        const fg_type *scale = &s->in[6 + 2 * k], *zero = &s->in[7 + 2 * k];
        if (!fg_is_float((fg_dtype)scale->dtype) || !fg_is_int((fg_dtype)zero->dtype) ||
            fg_dtypes[zero->dtype].bits > 16 || scale->rank || zero->rank)
            return fg_infer_error(s, "%s and %s are no scale and zero point",
                                  fg_type_text(s->m, scale), fg_type_text(s->m, zero));
        if (round[k].at == FG_ROUND_MASKED && s->in[3].dtype == FG_bool)
            return fg_infer_error(s, "scores under a bool mask cannot be rounded");
    }
    return true;
}

/* The mean of all values needs all keys to exist. */
static bool
check_empty(fg_infer *s)
{
    static const char *const words[] = {"zero", "nan", "mean"};
    const char *empty = FG_GET(s->i, attention, empty).s;
    const fg_type *mask = s->i->nin > 3 ? &s->in[3] : NULL;
    bool lengths = s->i->nin > 5 && s->in[5].dtype != FG_NODTYPE;
    bool ends = mask && mask->dtype != FG_NODTYPE && mask->rank &&
                !fg_e_is(s->m->ex, mask->dim[mask->rank - 1], 1) &&
                mask->dim[mask->rank - 1] != s->in[1].dim[2];
    if (!fg_infer_word(s, empty, words, 3, "empty"))
        return false;
    if (!strcmp(empty, "mean") && (lengths || ends))
        return fg_infer_error(s, "empty=mean with %s",
                              lengths ? "lengths" : "a mask that ends before the keys");
    return true;
}

bool
fg_shape_attention(fg_infer *s)
{
    const fg_type *q = &s->in[0], *k = &s->in[1], *v = &s->in[2];
    for (int i = 0; i < 3; i++)
        if (!fg_infer_rank(s, i, 4, 4))
            return false;
    if (q->dtype != k->dtype || q->dtype != v->dtype)
        return fg_infer_error(s, "q, k and v have different element types");
    if (!fg_infer_equal(s, q->dim[0], k->dim[0], "batch sizes of q and k") ||
        !fg_infer_equal(s, q->dim[0], v->dim[0], "batch sizes of q and v") ||
        !fg_infer_equal(s, q->dim[3], k->dim[3], "head sizes of q and k") ||
        !fg_infer_equal(s, k->dim[1], v->dim[1], "head counts of k and v") ||
        !fg_infer_equal(s, k->dim[2], v->dim[2], "lengths of k and v"))
        return false;
    int64_t h, g;
    if (fg_e_const(s->m->ex, q->dim[1], &h) && fg_e_const(s->m->ex, k->dim[1], &g) &&
        (g <= 0 || h % g))
        return fg_infer_error(s, "%lld query heads cannot share %lld key heads",
                              (long long)h, (long long)g);
    if (s->i->nin > 3 && s->in[3].dtype != FG_NODTYPE && !check_mask(s))
        return false;
    if (s->i->nin > 4 && s->in[4].dtype != FG_NODTYPE &&
        (!fg_infer_rank(s, 4, 1, 1) ||
         !fg_infer_equal(s, s->in[4].dim[0], q->dim[1], "number of sinks and of heads")))
        return false;
    if (s->i->nin > 5 && s->in[5].dtype != FG_NODTYPE &&
        (!fg_infer_rank(s, 5, 1, 1) ||
         !fg_infer_equal(s, s->in[5].dim[0], q->dim[0],
                         "number of lengths and batch size")))
        return false;
    if (!check_empty(s) || !check_rounds(s))
        return false;
    s->out[0] = *q;
    s->out[0].dim[3] = v->dim[3];
    return true;
}

/* ---- normalisation and rotation ---------------------------------------------------- */

bool
fg_check_softmax(fg_infer *s)
{
    /* softmax and cumsum begin with the attribute axis. */
    return fg_infer_axis(s, s->i->attr[0].i, s->in[0].rank, "axis");
}

/* Operand k of op must broadcast into the first operand without enlarging it. */
static bool
broadcasts_into(fg_infer *s, int k, const char *what)
{
    fg_type r;
    if (s->i->nin <= k || s->in[k].dtype == FG_NODTYPE)
        return true;
    if (s->in[k].rank <= s->in[0].rank && fg_bcast_type(s->m, &s->in[0], &s->in[k], &r)) {
        bool same = true;
        for (int d = 0; d < r.rank; d++)
            same &= r.dim[d] == fg_e_renew(s->m->ex, s->in[0].dim[d]);
        if (same)
            return true;
    }
    return fg_infer_error(s, "%s %s does not broadcast to %s", what,
                          fg_type_text(s->m, &s->in[k]), fg_type_text(s->m, &s->in[0]));
}

bool
fg_check_norm(fg_infer *s)
{
    /* layernorm and rmsnorm begin with the attribute axis. */
    return fg_infer_axis(s, s->i->attr[0].i, s->in[0].rank, "axis") &&
           broadcasts_into(s, 1, "scale") && broadcasts_into(s, 2, "bias");
}

bool
fg_check_rope(fg_infer *s)
{
    const fg_type *x = &s->in[0];
    int64_t dim = FG_GET(s->i, rope, dim).i, last;
    if (!fg_infer_rank(s, 0, 1, FG_MAXRANK))
        return false;
    bool known = fg_e_const(s->m->ex, x->dim[x->rank - 1], &last);
    if (dim < 0 || dim % 2 || (known && (dim > last || (dim == 0 && last % 2))))
        return fg_infer_error(s, "cannot rotate %lld columns of %s", (long long)dim,
                              fg_type_text(s->m, x));
    fg_expr half = dim ? fg_ec(s->m->ex, dim / 2)
                       : fg_ediv(s->m->ex, x->dim[x->rank - 1], fg_ec(s->m->ex, 2));
    for (int k = 1; k <= 2; k++) {
        const fg_type *c = &s->in[k];
        fg_type lead = *c, whole = *x, r;
        if (!fg_infer_rank(s, k, 1, x->rank) ||
            !fg_infer_equal(s, c->dim[c->rank - 1], half, "angles and half the columns"))
            return false;
        lead.rank--;
        whole.rank--;
        if (!fg_bcast_type(s->m, &whole, &lead, &r))
            return fg_infer_error(s, "angles %s do not broadcast to %s",
                                  fg_type_text(s->m, c), fg_type_text(s->m, x));
    }
    return true;
}

/* ---- convolution and pooling ------------------------------------------------------- */

static bool
positive(fg_infer *s, const fg_attr *a, int n, const char *what)
{
    if (!fg_infer_length(s, a->n, n, what))
        return false;
    for (int k = 0; k < n; k++)
        if (a->is[k] < 1)
            return fg_infer_error(s, "%s %lld must be positive", what,
                                  (long long)a->is[k]);
    return true;
}

bool
fg_shape_conv(fg_infer *s)
{
    const fg_type *x = &s->in[0], *w = &s->in[1];
    const fg_attr *stride = &FG_GET(s->i, conv, stride),
                  *before = &FG_GET(s->i, conv, before);
    const fg_attr *dil = &FG_GET(s->i, conv, dilation),
                  *after = &FG_GET(s->i, conv, after);
    int64_t group = FG_GET(s->i, conv, group).i, m;
    fg_exprs *ex = s->m->ex;
    int spatial = x->rank - 2;
    if (!fg_infer_rank(s, 0, 3, 5) || !fg_infer_rank(s, 1, x->rank, x->rank) ||
        !positive(s, stride, spatial, "stride") ||
        !positive(s, dil, spatial, "dilation") ||
        !fg_infer_length(s, before->n, spatial, "before") ||
        !fg_infer_length(s, after->n, spatial, "after"))
        return false;
    if (x->dtype != w->dtype)
        return fg_infer_error(s, "operands %s and %s have different element types",
                              fg_type_text(s->m, x), fg_type_text(s->m, w));
    if (group < 1 || (fg_e_const(ex, w->dim[0], &m) && m % group))
        return fg_infer_error(s, "%lld groups do not divide the channels of %s",
                              (long long)group, fg_type_text(s->m, w));
    if (!fg_infer_equal(s, x->dim[1], fg_emul(ex, w->dim[1], fg_ec(ex, group)),
                        "channels"))
        return false;
    if (s->i->nin > 2 && s->in[2].dtype != FG_NODTYPE &&
        (!fg_infer_rank(s, 2, 1, 1) ||
         !fg_infer_equal(s, s->in[2].dim[0], w->dim[0], "number of biases and channels")))
        return false;
    s->out[0] = *x;
    s->out[0].dim[1] = w->dim[0];
    for (int k = 0; k < spatial; k++) {
        fg_expr kernel =
            fg_emul(ex, fg_ec(ex, dil->is[k]), fg_esub(ex, w->dim[2 + k], fg_ec(ex, 1)));
        fg_expr room =
            fg_eadd(ex, x->dim[2 + k],
                    fg_eadd(ex, fg_ec(ex, before->is[k]),
                            fg_esub(ex, fg_ec(ex, after->is[k]), fg_ec(ex, 1))));
        fg_expr n = fg_ediv(ex, fg_esub(ex, room, kernel), fg_ec(ex, stride->is[k]));
        n = fg_eadd(ex, n, fg_ec(ex, 1));
        if (n == FG_E_BAD || fg_e_hi(ex, n) < 0)
            return fg_infer_error(s, "the kernel %s is larger than %s",
                                  fg_type_text(s->m, w), fg_type_text(s->m, x));
        s->out[0].dim[2 + k] = n;
    }
    return true;
}

bool
fg_check_conv_transpose(fg_infer *s)
{
    const fg_type *x = &s->in[0], *w = &s->in[1], *y = &s->given[0];
    int64_t group = FG_GET(s->i, conv_transpose, group).i;
    fg_exprs *ex = s->m->ex;
    if (!fg_infer_rank(s, 0, 3, 5) || !fg_infer_rank(s, 1, x->rank, x->rank) ||
        !positive(s, &FG_GET(s->i, conv_transpose, stride), x->rank - 2, "stride") ||
        !positive(s, &FG_GET(s->i, conv_transpose, dilation), x->rank - 2, "dilation") ||
        !fg_infer_length(s, FG_GET(s->i, conv_transpose, before).n, x->rank - 2,
                         "before") ||
        !fg_infer_length(s, y->rank, x->rank, "the result shape"))
        return false;
    if (group < 1)
        return fg_infer_error(s, "%lld groups", (long long)group);
    return fg_infer_equal(s, x->dim[0], y->dim[0], "batch sizes") &&
           fg_infer_equal(s, x->dim[1], w->dim[0], "channels") &&
           fg_infer_equal(s, y->dim[1], fg_emul(ex, w->dim[1], fg_ec(ex, group)),
                          "result channels");
}

bool
fg_check_window(fg_infer *s)
{
    /* Both poolings begin with kernel, stride, dilation, before. */
    const fg_attr *a = s->i->attr;
    const fg_type *x = &s->in[0], *y = &s->given[0];
    int spatial = x->rank - 2;
    return fg_infer_rank(s, 0, 3, 5) && positive(s, &a[0], spatial, "kernel") &&
           positive(s, &a[1], spatial, "stride") &&
           positive(s, &a[2], spatial, "dilation") &&
           fg_infer_length(s, a[3].n, spatial, "before") &&
           fg_infer_length(s, y->rank, x->rank, "the result shape") &&
           fg_infer_equal(s, x->dim[0], y->dim[0], "batch sizes") &&
           fg_infer_equal(s, x->dim[1], y->dim[1], "channels");
}

bool
fg_check_resize(fg_infer *s)
{
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    return fg_infer_length(s, s->given[0].rank, s->in[0].rank, "the result shape") &&
           fg_infer_word(s, FG_GET(s->i, resize, mode).s, modes, 3, "mode");
}

/* ---- quantisation ------------------------------------------------------------------ */

/* Scale (and zero point) per tensor, along one axis, or per block of one axis. */
static bool
check_scale(fg_infer *s)
{
    /* quantize and dequantize begin with the attributes axis, block. */
    int64_t axis = s->i->attr[0].i, block = s->i->attr[1].i;
    const fg_type *x = &s->in[0], *scale = &s->in[1];
    fg_exprs *ex = s->m->ex;
    if (block < 0)
        return fg_infer_error(s, "block length %lld is negative", (long long)block);
    if (block) {
        if (!fg_infer_axis(s, axis, x->rank, "axis") ||
            !fg_infer_rank(s, 1, x->rank, x->rank))
            return false;
        for (int k = 0; k < x->rank; k++) {
            fg_expr up = fg_eadd(ex, x->dim[k], fg_ec(ex, block - 1));
            fg_expr want = k == axis ? fg_ediv(ex, up, fg_ec(ex, block)) : x->dim[k];
            if (!fg_infer_equal(s, scale->dim[k], want, "number of scales and of blocks"))
                return false;
        }
    } else if (!fg_e_is(ex, fg_type_count(ex, scale), 1)) {
        if (!fg_infer_rank(s, 1, 1, 1) || !fg_infer_axis(s, axis, x->rank, "axis") ||
            !fg_infer_equal(s, scale->dim[0], x->dim[axis],
                            "number of scales and axis size"))
            return false;
    }
    const fg_type *zero = s->i->nin > 2 ? &s->in[2] : NULL;
    if (!zero || zero->dtype == FG_NODTYPE || fg_e_is(ex, fg_type_count(ex, zero), 1))
        return true;
    if (!fg_infer_rank(s, 2, scale->rank, scale->rank))
        return false;
    for (int k = 0; k < zero->rank; k++)
        if (!fg_infer_equal(s, zero->dim[k], scale->dim[k], "zero point and scale sizes"))
            return false;
    return true;
}

bool
fg_shape_quantize(fg_infer *s)
{
    s->out[0] = s->in[0];
    s->out[0].dtype = (uint8_t)FG_GET(s->i, quantize, to).i;
    if (!fg_is_int((fg_dtype)s->out[0].dtype))
        return fg_infer_error(s, "cannot quantize to %s",
                              fg_dtypes[s->out[0].dtype].name);
    return check_scale(s);
}

bool
fg_shape_quantize_rows(fg_infer *s)
{
    const fg_type *x = &s->in[0];
    int64_t run = FG_GET(s->i, quantize_rows, run).i;
    fg_exprs *ex = s->m->ex;
    if (run < 1)
        return fg_infer_error(s, "run length %lld is not positive", (long long)run);
    if (x->dtype != FG_f32 || !x->rank)
        return fg_infer_error(s, "expected rows of f32, not %s", fg_type_text(s->m, x));
    s->out[0] = s->out[1] = *x;
    s->out[0].dtype = FG_u8;
    fg_expr *n = &s->out[1].dim[x->rank - 1];
    *n = fg_ediv(ex, fg_eadd(ex, *n, fg_ec(ex, run - 1)), fg_ec(ex, run));
    return true;
}

bool
fg_shape_dequantize(fg_infer *s)
{
    fg_dtype to = (fg_dtype)FG_GET(s->i, dequantize, to).i;
    s->out[0] = s->in[0];
    s->out[0].dtype = to == FG_NODTYPE ? s->in[1].dtype : (uint8_t)to;
    return check_scale(s);
}
