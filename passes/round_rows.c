/* round_rows.c - activations that meet packed weights, rounded once for all of them.
 *
 *     %y = matmul %x, %d {round=32}  =>  %q, %s = quantize_rows %x {run=32}
 *                                        %r = dequantize %q, %s, 128 {axis=1, block=32}
 *                                        %y = matmul %r, %d
 *
 * where %d is dequantized, too: the product is one of bytes. Inside a product, each panel of
 * columns would round the same rows anew. What products share they read from one tensor.
 */
#include "passes/round_rows.h"

typedef struct rounding {  /* of a register */
    const fg_block *block; /* where it may be read */
    int64_t run;
    fg_reg to;
} rounding;

typedef struct rounder {
    fg_module *m;
    rounding *known; /* the last one, by register */
    uint32_t n;      /* registers that existed before */
    bool changed;
} rounder;

static bool
is_packed(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    while (d && fg_op_is(d->op, FG_T_VIEW))
        d = fg_def(m, d->in[0]);
    return fg_is_op(d, FG_OP_dequantize);
}

/* x as what quantize_rows keeps of it. */
static fg_reg
rounded(rounder *z, fg_inst *i, int64_t run)
{
    fg_reg x = i->in[0];
    rounding *known = x < z->n ? &z->known[x] : NULL;
    if (known && known->block == i->block && known->run == run)
        return known->to;
    fg_build b = fg_build_before(i);
    fg_inst *q = fg_inst_begin(&b, FG_OP_quantize_rows, 1, &x);
    FG_SET(q, quantize_rows, run).i = run;
    if (!(q = fg_inst_finish(&b, q, NULL, 0)))
        return 0;
    fg_reg zero = fg_emit_f(&b, FG_u8, 128);
    fg_inst *d =
        fg_inst_begin(&b, FG_OP_dequantize, 3, (fg_reg[]){q->out[0], q->out[1], zero});
    FG_SET(d, dequantize, axis).i = fg_rt(z->m, x)->rank - 1;
    FG_SET(d, dequantize, block).i = run;
    if (!(d = fg_inst_finish(&b, d, NULL, 0)))
        return 0;
    if (known)
        *known = (rounding){i->block, run, d->out[0]};
    return d->out[0];
}

static bool
round_product(rounder *z, fg_inst *i)
{
    fg_attr *round = &FG_SET(i, matmul, round);
    if (!round->i || FG_GET(i, matmul, trans_a).i || !is_packed(z->m, i->in[1]) ||
        fg_rt(z->m, i->in[0])->dtype != FG_f32)
        return true;
    fg_reg x = rounded(z, i, round->i);
    if (!x)
        return false;
    i->in[0] = x;
    round->i = 0;
    return z->changed = true;
}

static bool
walk(rounder *z, fg_block *b)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nregion; k++)
            if (!walk(z, i->region[k]))
                return false;
        if (i->op == FG_OP_matmul && !round_product(z, i))
            return false;
    }
    return true;
}

bool
fg_round_rows(fg_module *m, fg_arena *scratch, bool *changed)
{
    rounder z = {.m = m, .n = m->nreg};
    z.known = FG_NEWN(scratch, rounding, m->nreg);
    bool ok = walk(&z, m->body);
    *changed |= z.changed;
    return ok;
}
