/* unfuse_attention.c - attention on f64 as the products, mask and softmax it stands for.
 *
 *     %y = attention %q, %k, %v {scale=0.5, causal=1} : f64[B,4,S,8]     ; k, v: [B,2,T,8]
 *  =>
 *     %s = matmul %q5, %k5 {trans_b=1} : f64[B,2,2,S,T]                  ; heads in groups
 *     %t = where %keep, %scaled, %-inf : f64[B,4,S,T]                    ; j <= i + T - S
 *     %p = softmax %t {axis=3}
 *     %z = where %dead, 0, %p                                            ; no key at all
 *     %y5 = matmul %p5, %v5 : f64[B,2,2,S,8]
 *
 * The kernel for attention computes in f32 and is worth its code for the types that
 * models use; f64 only has to be right. Each line is one phrase of the operation's meaning
 * in ops.def.
 */
#include "passes/unfuse.h"

#include <float.h>
#include <math.h>

typedef struct attention {
    fg_build *b;
    fg_inst *i;
    fg_exprs *ex;
    fg_dtype dtype;
    fg_expr batch, heads, groups, queries, keys;
} attention;

static fg_reg
operand(const attention *a, int k)
{
    return k < a->i->nin ? a->i->in[k] : 0;
}

static fg_reg
number(const attention *a, double v)
{
    return fg_emit_f(a->b, a->dtype, v);
}

static fg_reg
integer(const attention *a, fg_expr e)
{
    return fg_emit_symvec(a->b, 1, &e, FG_i64, true);
}

/* [B, H, m, n] as [B, G, H/G, m, n] and back; keys and values have one head a group. */
static fg_reg
grouped(const attention *a, fg_reg x, bool shared, fg_expr m, fg_expr n)
{
    fg_expr each = shared ? fg_ec(a->ex, 1) : fg_ediv(a->ex, a->heads, a->groups);

    return fg_emit_reshape(a->b, x, 5, (fg_expr[]){a->batch, a->groups, each, m, n});
}

static fg_reg
ungrouped(const attention *a, fg_reg x, fg_expr m, fg_expr n)
{
    return fg_emit_reshape(a->b, x, 4, (fg_expr[]){a->batch, a->heads, m, n});
}

/* x through quantize and dequantize. */
static fg_reg
on_grid(const attention *a, fg_reg x, const fg_rounding *r)
{
    fg_module *m = a->b->m;
    fg_inst *q, *d;

    if (!x)
        return 0;
    q = fg_inst_begin(a->b, FG_OP_quantize, 3, (fg_reg[]){x, r->scale, r->zero});
    FG_SET(q, quantize, to).i = fg_rt(m, r->zero)->dtype;
    if (!fg_inst_finish(a->b, q, NULL, 0))
        return 0;
    d = fg_inst_begin(a->b, FG_OP_dequantize, 3,
                      (fg_reg[]){q->out[0], r->scale, r->zero});
    FG_SET(d, dequantize, to).i = a->dtype;
    return fg_inst_finish(a->b, d, NULL, 0) ? d->out[0] : 0;
}

static fg_reg
rounded(const attention *a, fg_roundat at, fg_reg x)
{
    fg_rounding round[FG_MAXROUND];
    int n = fg_attention_rounds(a->i, round);

    for (int k = 0; k < n; k++)
        if (round[k].at == at)
            x = on_grid(a, x, &round[k]);
    return x;
}

static fg_reg
scores(const attention *a)
{
    const fg_inst *i = a->i;
    fg_expr columns = fg_rt(a->b->m, i->in[0])->dim[3];
    double cap = FG_GET(i, attention, softcap).f;
    fg_reg q = grouped(a, i->in[0], false, a->queries, columns);
    fg_reg k = grouped(a, i->in[1], true, a->keys, columns);
    fg_reg s = fg_emit_matmul(a->b, q, k, false, true);

    s = ungrouped(a, s, a->queries, a->keys);
    s = fg_emit2(a->b, FG_OP_mul, s, number(a, FG_GET(i, attention, scale).f));
    s = rounded(a, FG_ROUND_SCORES, s);
    if (cap == 0)
        return s;
    s = fg_emit1(a->b, FG_OP_tanh, fg_emit2(a->b, FG_OP_div, s, number(a, cap)));
    return fg_emit2(a->b, FG_OP_mul, s, number(a, cap));
}

/* ---- masks ------------------------------------------------------------------------- */

/* Keys past a mask that is too short are masked. */
static fg_reg
full_mask(const attention *a, fg_reg mask)
{
    fg_module *m = a->b->m;
    fg_type t = *fg_rt(m, mask);
    fg_expr zero = fg_ec(a->ex, 0), none[FG_MAXRANK], more[FG_MAXRANK];
    fg_reg fill = fg_emit_f(a->b, (fg_dtype)t.dtype, t.dtype == FG_bool ? 0 : -INFINITY);
    fg_inst *pad;

    if (!t.rank || fg_e_is(a->ex, t.dim[t.rank - 1], 1) || t.dim[t.rank - 1] == a->keys)
        return mask;
    for (int k = 0; k < t.rank; k++)
        none[k] = more[k] = zero;
    more[t.rank - 1] = fg_esub(a->ex, a->keys, t.dim[t.rank - 1]);
    pad = fg_inst_begin(a->b, FG_OP_pad, 2, (fg_reg[]){mask, fill});
    fg_set_exprs(m, &FG_SET(pad, pad, before), t.rank, none);
    fg_set_exprs(m, &FG_SET(pad, pad, after), t.rank, more);
    return fg_inst_finish(a->b, pad, NULL, 0) ? pad->out[0] : 0;
}

static fg_reg
both(const attention *a, fg_reg x, fg_reg y)
{
    return x ? fg_emit2(a->b, FG_OP_and, x, y) : y;
}

/* The key position at which query 0 stands, to broadcast with [B, H, S, T]. */
static fg_reg
offset(const attention *a, fg_reg length)
{
    fg_expr given = FG_GET(a->i, attention, offset).e;

    if (given != FG_E_BAD)
        return integer(a, given);
    if (length)
        return fg_emit2(a->b, FG_OP_sub, length, integer(a, a->queries));
    return integer(a, fg_esub(a->ex, a->keys, a->queries));
}

/* Which keys a query sees by position; 0: all. */
static fg_reg
seen(const attention *a)
{
    fg_build *b = a->b;
    fg_exprs *ex = a->ex;
    fg_expr one = fg_ec(ex, 1), zero = fg_ec(ex, 0);
    int64_t left = FG_GET(a->i, attention, left).i;
    int64_t right = FG_GET(a->i, attention, right).i;
    bool causal = FG_GET(a->i, attention, causal).i;
    fg_reg key = fg_emit_iota(b, a->keys, zero, 1, FG_i64), keep = 0, length = 0, at;

    if (operand(a, 5)) {
        length =
            fg_emit_reshape(b, operand(a, 5), 4, (fg_expr[]){a->batch, one, one, one});
        keep = fg_emit2(b, FG_OP_lt, key, length);
    }
    if (!causal && left < 0 && right < 0)
        return keep;
    at = fg_emit_reshape(b, fg_emit_iota(b, a->queries, zero, 1, FG_i64), 2,
                         (fg_expr[]){a->queries, one});
    at = fg_emit2(b, FG_OP_add, at, offset(a, length));
    if (causal)
        keep = both(a, keep, fg_emit2(b, FG_OP_le, key, at));
    if (left >= 0)
        keep = both(a, keep,
                    fg_emit2(b, FG_OP_ge, key,
                             fg_emit2(b, FG_OP_sub, at, integer(a, fg_ec(ex, left)))));
    if (right >= 0)
        keep = both(a, keep,
                    fg_emit2(b, FG_OP_le, key,
                             fg_emit2(b, FG_OP_add, at, integer(a, fg_ec(ex, right)))));
    return keep;
}

static fg_reg
masked(const attention *a, fg_reg s)
{
    fg_reg mask = operand(a, 3), keep = seen(a);

    if (mask) {
        mask = full_mask(a, mask);
        if (mask && fg_rt(a->b->m, mask)->dtype == FG_bool)
            keep = both(a, keep, mask);
        else
            s = fg_emit2(a->b, FG_OP_add, s, fg_emit_cast(a->b, mask, a->dtype));
    }
    s = rounded(a, FG_ROUND_MASKED, s);
    bool mean = !strcmp(FG_GET(a->i, attention, empty).s, "mean");
    double none = mean ? -FLT_MAX : -INFINITY;
    return keep ? fg_emit3(a->b, FG_OP_where, keep, s, number(a, none)) : s;
}

/* ---- weights ----------------------------------------------------------------------- */

/* The sink is one more key, whose weight is then left out. */
static fg_reg
with_sink(const attention *a, fg_reg s, fg_reg sink)
{
    fg_expr one = fg_ec(a->ex, 1), zero = fg_ec(a->ex, 0);

    sink = fg_emit_reshape(a->b, sink, 4, (fg_expr[]){one, a->heads, one, one});
    sink = fg_emit_expand(a->b, fg_emit_cast(a->b, sink, a->dtype), 4,
                          (fg_expr[]){a->batch, a->heads, a->queries, one});
    s = fg_emit_concat(a->b, 2, (fg_reg[]){s, sink}, 3);
    return fg_emit_slice_axis(a->b, fg_emit_softmax(a->b, s, 3), 3, zero, a->keys);
}

static fg_reg
weights(const attention *a, fg_reg s)
{
    bool zero = strcmp(FG_GET(a->i, attention, empty).s, "nan") != 0;
    fg_reg p, top, dead;

    if (operand(a, 4))
        return with_sink(a, s, operand(a, 4));
    p = fg_emit_softmax(a->b, s, 3);
    if (!zero)
        return p;
    top = fg_emit_reduce(a->b, FG_OP_reduce_max, s, 1, (int64_t[]){3}, true);
    dead = fg_emit2(a->b, FG_OP_eq, top, number(a, -INFINITY));
    return fg_emit3(a->b, FG_OP_where, dead, number(a, 0), p);
}

static bool
unfuse(fg_module *m, fg_inst *i)
{
    fg_build b = fg_build_before(i);
    const fg_type *q = fg_rt(m, i->in[0]), *k = fg_rt(m, i->in[1]);
    attention a = {&b,        i,         m->ex,     (fg_dtype)q->dtype, q->dim[0],
                   q->dim[1], k->dim[1], q->dim[2], k->dim[2]};
    fg_expr columns = fg_rt(m, i->in[2])->dim[3];
    fg_reg p = rounded(&a, FG_ROUND_WEIGHTS, weights(&a, masked(&a, scores(&a))));
    fg_reg y = fg_emit_matmul(&b, grouped(&a, p, false, a.queries, a.keys),
                              grouped(&a, i->in[2], true, a.keys, columns), false, false);

    y = ungrouped(&a, y, a.queries, columns);
    if (!y)
        return false;
    fg_replace_uses(m->body, i->out[0], y);
    fg_inst_remove(i);
    return true;
}

static bool
unfuse_block(fg_module *m, fg_block *b)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nregion; k++)
            if (!unfuse_block(m, i->region[k]))
                return false;
        if (i->op == FG_OP_attention && fg_rt(m, i->in[0])->dtype == FG_f64 &&
            !unfuse(m, i))
            return false;
    }
    return true;
}

bool
fg_unfuse_attention(fg_module *m)
{
    return unfuse_block(m, m->body);
}
