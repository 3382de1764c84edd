/* ops_recurrent.c - operators with a state that runs along the sequence.
 *
 *     CausalConvWithState x, w, b, past  ->  %p = concat past, x {axis=2}
 *                                            %y = conv %p, w, b {group=C}
 *                                            state = last k-1 of %p
 *     LinearAttention q, k, v, past      ->  loop over the sequence, carrying the state
 *
 * One step of LinearAttention, per batch entry and head, with S[dk,dv]:
 *
 *     S = exp(g) S                     gated rules
 *     v = beta (v - S' k)              delta rules
 *     S = S + k v'
 *     o = scale S' q
 */
#include "frontend/ops.h"

#include <math.h>

/* ---- loops ----------------------------------------------------------------------- */

bool
fg_steps(fg_node *n, fg_expr count, int nstate, const fg_reg *start, fg_step *f,
         void *arg, fg_reg *state, fg_reg *out)
{
    fg_module *m = n->m;
    fg_reg in[2 + FG_MAXSTATE] = {fg_sym_scalar(n, count, FG_i64),
                                  fg_emit_f(n->b, FG_bool, 1)};
    fg_reg carried[FG_MAXSTATE], yield[2 + FG_MAXSTATE];
    fg_type type[1 + FG_MAXSTATE];
    fg_expr dim[FG_MAXRANK];
    fg_build *outer = n->b;

    for (int k = 0; k < nstate; k++)
        if (!(in[2 + k] = start[k]))
            return false;
    if (!in[0] || !in[1])
        return false;
    fg_inst *loop = fg_inst_begin(outer, FG_OP_loop, 2 + nstate, in);
    loop->region = FG_NEW(m->a, fg_block *);
    loop->nregion = 1;
    fg_block *body = loop->region[0] = fg_block_new(m, loop, outer->block);
    fg_reg t = fg_param(m, body, fg_type_scalar(FG_i64), NULL);
    yield[0] = fg_param(m, body, fg_type_scalar(FG_bool), NULL);
    for (int k = 0; k < nstate; k++) {
        type[k] = *fg_rt(m, start[k]);
        carried[k] = fg_param(m, body, type[k], NULL);
    }
    fg_build inner = fg_build_end(body);
    inner.node = outer->node;
    inner.nnode = outer->nnode;
    n->b = &inner;
    bool ok = f(n, arg, t, carried, yield + 1, &yield[1 + nstate]);
    if (ok) {
        fg_inst *y = fg_inst_begin(&inner, FG_OP_yield, 2 + nstate, yield);
        ok = fg_inst_finish(&inner, y, NULL, 0) != NULL;
    }
    n->b = outer;
    if (!ok)
        return false;
    const fg_type each = *fg_rt(m, yield[1 + nstate]);
    dim[0] = count;
    for (int a = 0; a < each.rank; a++)
        dim[a + 1] = each.dim[a];
    type[nstate] = fg_type_make((fg_dtype)each.dtype, each.rank + 1, dim);
    FG_SET(loop, loop, carried).i = nstate;
    if (!fg_inst_finish(outer, loop, type, nstate + 1))
        return false;
    for (int k = 0; k < nstate; k++)
        state[k] = loop->out[k];
    *out = loop->out[nstate];
    return true;
}

static fg_reg
zeros(fg_node *n, fg_dtype d, int rank, const fg_expr *dim)
{
    return fg_emit_expand(n->b, fg_emit_f(n->b, d, 0), rank, dim);
}

bool
fg_onnx_causal_conv(fg_node *n)
{
    fg_reg x = fg_need(n, 0), w = fg_need(n, 1), bias = fg_in(n, 2), past = fg_in(n, 3),
           y;
    const char *act = fg_attr_str(n, "activation", "none");
    bool silu = !strcmp(act, "silu") || !strcmp(act, "swish");
    int64_t k, c;

    if (!silu && strcmp(act, "none"))
        return fg_node_unsupported(n, "activation \"%s\"", act);
    if (fg_attr_int(n, "channels_last", 0) || fg_attr_int(n, "ndim", 1) != 1 ||
        fg_attr_int(n, "state_window", 0))
        return fg_node_unsupported(n, "channels_last, ndim or state_window");
    if (!x || !w)
        return false;
    if (fg_rank(n, x) != 3 || fg_rank(n, w) != 3 || (past && fg_rank(n, past) != 3))
        return fg_node_error(n, "operands %s and %s are not of rank 3",
                             fg_type_text(n->m, fg_rt(n->m, x)),
                             fg_type_text(n->m, fg_rt(n->m, w)));
    if (!fg_e_const(n->ex, fg_dim(n, w, 2), &k) ||
        !fg_e_const(n->ex, fg_dim(n, w, 0), &c) || k < 1 || c < 1)
        return fg_node_unsupported(n, "a kernel of unknown size");
    fg_expr dim[3] = {fg_dim(n, x, 0), fg_dim(n, x, 1), fg_c(n, k - 1)};
    past = past ? past : zeros(n, fg_elem(n, x), 3, dim);
    fg_reg whole = past ? fg_emit_concat(n->b, 2, (fg_reg[]){past, x}, 2) : 0;
    if (!whole)
        return false;
    if (fg_wants(n, 1)) {
        fg_expr start = fg_esub(n->ex, fg_dim(n, whole, 2), fg_c(n, k - 1));
        if (!fg_yield_at(n, 1, fg_emit_slice_axis(n->b, whole, 2, start, fg_c(n, k - 1))))
            return false;
    }
    fg_inst *i =
        fg_inst_begin(n->b, FG_OP_conv, bias ? 3 : 2, (fg_reg[]){whole, w, bias});
    const int64_t one = 1, zero = 0;
    fg_set_ints(n->m, &FG_SET(i, conv, stride), 1, &one);
    fg_set_ints(n->m, &FG_SET(i, conv, dilation), 1, &one);
    fg_set_ints(n->m, &FG_SET(i, conv, before), 1, &zero);
    fg_set_ints(n->m, &FG_SET(i, conv, after), 1, &zero);
    FG_SET(i, conv, group).i = c;
    if (!fg_inst_finish(n->b, i, NULL, 0))
        return false;
    y = i->out[0];
    return fg_yield(n, silu ? E1(silu, y) : y);
}

/* ---- LinearAttention ------------------------------------------------------------- */

typedef struct recurrence {
    fg_reg q, k, v;     /* [T,B,H,D], f32; q with its own heads, the others grouped */
    fg_reg decay, beta; /* [T,B,H,dk or 1], [T,B,H or 1,1]; 0: none */
    double scale;
    fg_expr heads; /* of q */
} recurrence;

/* [B,T,H*D] as [T,B,H,D] in f32. */
static fg_reg
by_time(fg_node *n, fg_reg x, int64_t heads)
{
    x = fg_heads_apart(n, x ? fg_widen(n, x) : 0, heads);
    return x ? fg_emit_transpose(n->b, x, (int64_t[]){1, 0, 2, 3}) : 0;
}

static bool
rule_operands(fg_node *n, recurrence *r, int64_t groups)
{
    const char *rule = fg_attr_str(n, "update_rule", "gated_delta");
    bool gated = !strncmp(rule, "gated", 5),
         delta = strlen(rule) >= 5 && !strcmp(rule + strlen(rule) - 5, "delta");
    fg_reg decay = fg_in(n, 4), beta = fg_in(n, 5);
    int64_t columns;

    if (strcmp(rule, "linear") && strcmp(rule, "gated") && strcmp(rule, "delta") &&
        strcmp(rule, "gated_delta"))
        return fg_node_unsupported(n, "update_rule \"%s\"", rule);
    if (gated != (decay != 0) || delta != (beta != 0))
        return fg_node_error(n, "update_rule \"%s\" does not fit the operands", rule);
    if (decay) {
        r->decay = by_time(n, decay, groups);
        if (!r->decay)
            return false;
    }
    if (beta) {
        if (!fg_e_const(n->ex, fg_dim(n, beta, fg_rank(n, beta) - 1), &columns))
            return fg_node_unsupported(n, "a beta of unknown size");
        r->beta = by_time(n, beta, columns);
        if (!r->beta)
            return false;
    }
    return true;
}

/* Row t of x [T,..], the axis dropped. */
static fg_reg
row(fg_node *n, fg_reg x, fg_reg t)
{
    return x ? fg_emit_gather(n->b, x, t, 0) : 0;
}

/* The state after step t and the step's output, in the loop's body. */
static bool
step(fg_node *n, void *arg, fg_reg t, const fg_reg *state, fg_reg *next, fg_reg *out)
{
    const recurrence *r = arg;
    fg_reg k = row(n, r->k, t), v = row(n, r->v, t), q = row(n, r->q, t), s = state[0];
    fg_reg column = fg_insert1(n, k, 3, 1); /* [B,H,dk,1] */

    v = fg_insert1(n, v, 2, 1); /* [B,H,1,dv] */
    if (r->decay)
        s = E2(mul, s, fg_insert1(n, E1(exp, row(n, r->decay, t)), 3, 1));
    if (r->beta) {
        fg_reg seen = fg_emit_matmul(n->b, column, s, true, false);
        v = E2(mul, fg_insert1(n, row(n, r->beta, t), 3, 1), E2(sub, v, seen));
    }
    next[0] = E2(add, s, E2(mul, column, v));
    fg_reg each = fg_repeat_heads(n, next[0], r->heads);
    fg_reg o = fg_emit_matmul(n->b, fg_insert1(n, q, 2, 1), each, false, false);
    o = E2(mul, o, fg_emit_f(n->b, FG_f32, r->scale));
    if (!o)
        return false;
    fg_expr dim[3] = {fg_dim(n, o, 0), fg_dim(n, o, 1), fg_dim(n, o, 3)};
    *out = fg_emit_reshape(n->b, o, 3, dim);
    return *out != 0;
}

bool
fg_onnx_linear_attention(fg_node *n)
{
    int64_t heads = fg_attr_int(n, "q_num_heads", 0),
            groups = fg_attr_int(n, "kv_num_heads", 0), dk;
    fg_reg q = fg_need(n, 0), k = fg_need(n, 1), v = fg_need(n, 2), past = fg_in(n, 3),
           state, out;
    recurrence r = {.scale = fg_attr_float(n, "scale", 0), .heads = fg_c(n, heads)};

    if (!q || !k || !v)
        return false;
    if (heads < 1 || groups < 1 || heads % groups)
        return fg_node_error(n, "%lld heads share %lld key heads", (long long)heads,
                             (long long)groups);
    r.q = by_time(n, q, heads);
    r.k = by_time(n, k, groups);
    r.v = by_time(n, v, groups);
    if (!r.q || !r.k || !r.v || !rule_operands(n, &r, groups))
        return false;
    if (!fg_e_const(n->ex, fg_dim(n, r.k, 3), &dk) || dk < 1)
        return fg_node_unsupported(n, "a head size that is not constant");
    if (r.scale == 0)
        r.scale = 1 / sqrt((double)dk);
    fg_expr dim[4] = {fg_dim(n, k, 0), fg_c(n, groups), fg_c(n, dk), fg_dim(n, r.v, 3)};
    fg_dtype kept = past ? fg_elem(n, past) : fg_elem(n, q);
    fg_reg start = past ? fg_emit_cast(n->b, past, FG_f32) : zeros(n, FG_f32, 4, dim);
    if (!fg_steps(n, fg_dim(n, r.k, 0), 1, &start, step, &r, &state, &out))
        return false;
    out = fg_emit_transpose(n->b, out, (int64_t[]){1, 0, 2, 3});
    fg_expr flat[3] = {fg_dim(n, q, 0), fg_dim(n, q, 1), fg_emul(n->ex, r.heads, dim[3])};
    out = out ? fg_narrow(n, fg_emit_reshape(n->b, out, 3, flat), q) : 0;
    return fg_yield_at(n, 1, fg_emit_cast(n->b, state, kept)) && fg_yield(n, out);
}
