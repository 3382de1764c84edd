/* in_place.c - results written over an operand that nobody reads again.
 *
 *     %h = kernel %x, %w {matmul, add %x} -> alias %x     each element of %x is read where
 *                                                         the same element is written
 *
 * Allowed when the operand dies at the kernel, has the result's shape and element size,
 * and every use of it in the region keeps the element: elementwise instructions of that
 * shape, and operations on rows, which have read a row before they write it. Chunks write
 * distinct elements and vectors are loaded before they are stored, so neither threads nor
 * lanes can tell. A product reads its own operands crosswise and may only have the
 * residual of its epilogue in place.
 */
#include "passes/place.h"

static bool
same_dims(const fg_type *a, const fg_type *b)
{
    return a->rank == b->rank && !memcmp(a->dim, b->dim, a->rank * sizeof *a->dim);
}

/* Emitters known to write an element once, after all they read of it. */
static bool
writes_last(const fg_block *region)
{
    fg_each_inst(region, i)
        if (fg_op_is(i->op, FG_T_ANCHOR) && i->op != FG_OP_rope &&
            i->op != FG_OP_matmul && i->op != FG_OP_matmul_panels &&
            !fg_keeps_rows(i->op))
            return false;
    return true;
}

bool
fg_keeps_rows(fg_op op)
{
    return op == FG_OP_softmax || op == FG_OP_layernorm || op == FG_OP_rmsnorm;
}

/* Every use of `param` keeps the element, and leads to result k and no other. Walks
 * forward: `own` holds what is made of the same element of param. */
static bool
stays_in_place(fg_module *m, fg_arena *a, const fg_block *region, fg_reg param, int k)
{
    fg_bits own = fg_bits_new(a, m->nreg);
    fg_bits_add(own, param);
    fg_each_inst(region, i) {
        for (int j = 0; j < i->nin; j++) {
            if (!fg_bits_has(own, i->in[j]))
                continue;
            if (i->op == FG_OP_yield) {
                if (j != k)
                    return false;
                continue;
            }
            bool keeps = fg_op_is(i->op, FG_T_ELEM) || i->op == FG_OP_copy ||
                         (fg_keeps_rows(i->op) && j == 0);
            if (!keeps || i->nout != 1 ||
                !same_dims(fg_rt(m, i->out[0]), fg_rt(m, param)))
                return false;
            fg_bits_add(own, i->out[0]);
        }
    }
    return true;
}

static bool
shared_with_another(const fg_module *m, const fg_inst *kernel, int operand)
{
    fg_reg s = fg_storage_of(m, kernel->in[operand]);
    for (int j = 0; j < kernel->nin; j++)
        if (j != operand && kernel->in[j] && fg_storage_of(m, kernel->in[j]) == s)
            return true;
    return false;
}

static bool
fits(fg_module *m, fg_arena *a, const fg_inst *kernel, int operand, int k)
{
    fg_reg x = kernel->in[operand], r = kernel->out[k];
    fg_reg s = x ? fg_storage_of(m, x) : 0;
    int bits = fg_dtypes[fg_rt(m, r)->dtype].bits;
    return s && m->reg[s].mem == FG_MEM_ARENA && m->reg[s].block == kernel->block &&
           fg_is_op(m->reg[s].def, FG_OP_kernel) && same_dims(fg_rt(m, x), fg_rt(m, r)) &&
           bits >= 8 && fg_dtypes[fg_rt(m, x)->dtype].bits == bits &&
           !shared_with_another(m, kernel, operand) && writes_last(kernel->region[0]) &&
           stays_in_place(m, a, kernel->region[0], kernel->region[0]->param[operand], k);
}

static void
place_kernel(fg_module *m, fg_arena *a, const fg_inst *kernel, const fg_liverange *live,
             int32_t *last)
{
    for (int k = 0; k < kernel->nout; k++) {
        fg_reg r = kernel->out[k];
        for (int j = 0; j < kernel->nin && m->reg[r].mem == FG_MEM_ARENA; j++) {
            fg_reg s = kernel->in[j] ? fg_storage_of(m, kernel->in[j]) : 0;
            if (!s || last[s] != live[r].first || !fits(m, a, kernel, j, k))
                continue;
            fg_ri(m, r)->mem = FG_MEM_ALIAS;
            fg_ri(m, r)->alias = s; /* chains stay short */
            /* Of two results only one: also when nobody reads it. */
            last[s] = live[r].last > live[r].first ? live[r].last : live[r].first + 1;
        }
    }
}

static void
place_block(fg_module *m, fg_arena *a, fg_block *b, const fg_liverange *live,
            int32_t *last)
{
    fg_each_inst(b, i) {
        if (i->op == FG_OP_kernel)
            place_kernel(m, a, i, live, last);
        for (int k = 0; k < i->nregion && i->op != FG_OP_kernel; k++)
            place_block(m, a, i->region[k], live, last);
    }
}

void
fg_place_in_place(fg_module *m, fg_arena *a, const fg_liverange *live)
{
    int32_t *last = FG_NEWN(a, int32_t, m->nreg);
    for (fg_reg r = 1; r < m->nreg; r++) {
        fg_reg s = live[r].first < 0 ? 0 : fg_storage_of(m, r);
        if (s && live[r].last > last[s])
            last[s] = live[r].last;
    }
    place_block(m, a, m->body, live, last);
}
