/* fuse_ops.c - group instructions into kernels: TENSOR to FUSED.
 *
 *     %a = matmul %x, %w                     %y = kernel %x, %w, %b {
 *     %c = add %a, %b                  =>      %a = matmul %x, %w
 *     %y = gelu %c                             %c = add %a, %b
 *                                              %y = gelu %c
 *                                              yield %y
 *                                            }
 *
 * Every instruction that computes belongs to one cluster; a cluster becomes one kernel with
 * one result. Walking forwards, an instruction joins the clusters of its operands when nobody
 * else reads what they make, so no value is computed twice and the only thing that changes is that
 * a value stays in registers. A cluster has at most one anchor (a product, a reduction
 * over rows, ...), with arithmetic before it (rows) or after it (products, rows).
 *
 * What costs nothing is not grouped but copied into every kernel that reads it: views, shape
 * numbers, scalars, and conversions of weights, which are thereby never expanded in memory.
 *
 * A cluster is placed where its last member stood. That is after all its operands, and
 * before every reader, since only the last member's result leaves it.
 *
 * At -O0 nothing joins and nothing is copied: one instruction, one kernel.
 */
#include "passes/raise.h"

typedef enum { LOOPS, ROWS, PRODUCT, ATTENTION, ALONE } kind;

typedef struct cluster {
    kind      kind;
    fg_inst **member;           /* in order */
    int       n;
    fg_reg    out;              /* what the last member makes */
    int       into;             /* merged into that cluster; else -1 */
} cluster;

typedef struct fuser {
    fg_module  *m;
    fg_passctx *cx;
    fg_arena   *a;              /* scratch */
    uint32_t   *uses;           /* by register */
    bool       *needed;         /* free, but some instruction outside kernels reads it */
    int        *of;             /* cluster of the instruction that defines a register; -1 */
    uint32_t    nreg;           /* the arrays' length */
    cluster    *c;
    int         nc;
    size_t      capc;
    fg_reg     *now;            /* what a register became; 0: itself */
} fuser;

/* ---- classes -------------------------------------------------------------------------- */

static bool
structural(const fg_inst *i)
{
    return i->op == FG_OP_const || i->op == FG_OP_kernel || fg_has_effect(i);
}

/* A weight, or a view or conversion of one. */
static bool
from_weight(const fg_module *m, fg_reg r)
{
    const fg_inst *d = fg_def(m, r);
    while (d && (fg_op_is(d->op, FG_T_VIEW) || d->op == FG_OP_cast || d->op == FG_OP_dequantize))
        d = fg_def(m, d->in[0]);
    return fg_is_op(d, FG_OP_const);
}

/* Costs nothing to repeat in each kernel that reads it. */
static bool
costless(const fuser *f, const fg_inst *i)
{
    if (f->cx->opt == 0 || i->op == FG_OP_copy)
        return false;
    if (fg_op_is(i->op, FG_T_VIEW) || i->op == FG_OP_symvec || i->op == FG_OP_iota)
        return true;
    return (i->op == FG_OP_cast || i->op == FG_OP_dequantize) && from_weight(f->m, i->in[0]);
}

static bool
is_free(const fuser *f, const fg_inst *i)
{
    return costless(f, i) && !f->needed[i->out[0]];
}

static kind
kind_of(const fg_inst *i)
{
    switch (i->op) {
    case FG_OP_softmax: case FG_OP_layernorm: case FG_OP_rmsnorm: case FG_OP_reduce_sum:
    case FG_OP_reduce_mean: case FG_OP_reduce_prod: case FG_OP_reduce_max: case FG_OP_reduce_min:
    case FG_OP_argmax: case FG_OP_argmin:
        return ROWS;
    case FG_OP_matmul: case FG_OP_matmul_int: case FG_OP_conv:
        return PRODUCT;
    case FG_OP_attention:
        return ATTENTION;
    case FG_OP_rope:
        return LOOPS;
    default:
        return fg_op_is(i->op, FG_T_ANCHOR) ? ALONE : LOOPS;
    }
}

static fg_expr
count(const fuser *f, fg_reg r)
{
    return fg_type_count(f->m->ex, fg_rt(f->m, r));
}

/* ---- joining -------------------------------------------------------------------------- */

static int
root(const fuser *f, int c)
{
    while (f->c[c].into >= 0)
        c = f->c[c].into;
    return c;
}

/* The cluster whose result reaches operand r through views, with no other reader on the
 * way; -1 when there is none. *straight: no view in between; *moves: only reshapes and
 * transposes, so every element passes. */
static int
feeding_cluster(const fuser *f, const fg_inst *reader, fg_reg r, bool *straight, bool *moves)
{
    *straight = *moves = true;
    for (;;) {
        const fg_inst *d = fg_def(f->m, r);
        if (!d || r >= f->nreg || d->block != reader->block || f->uses[r] != 1)
            return -1;
        if (f->of[r] >= 0) {
            int c = root(f, f->of[r]);
            return f->c[c].out == r ? c : -1;
        }
        if (!is_free(f, d) || !fg_op_is(d->op, FG_T_VIEW) || d->op == FG_OP_expand)
            return -1;
        *straight = false;
        *moves &= d->op == FG_OP_reshape || d->op == FG_OP_transpose;
        r = d->in[0];
    }
}

/* Each element of operand k is read about once per result element it matters to. */
static bool
reads_once(const fuser *f, const fg_inst *i, int k)
{
    switch (i->op) {
    case FG_OP_concat:
    case FG_OP_pad:
        return true;
    case FG_OP_gather: case FG_OP_gather_elements: case FG_OP_gather_nd: case FG_OP_rope:
        return false;
    default:
        break;
    }
    if (kind_of(i) == ROWS)
        return k == 0;
    return count(f, i->in[k]) == count(f, i->out[0]);
}

/* May i follow the anchor of such a cluster in one kernel? */
static bool
may_follow(kind k, const fg_inst *i, bool straight, bool moves)
{
    bool elementwise = fg_op_is(i->op, FG_T_ELEM) && i->op != FG_OP_bitcast;
    bool moving = i->op == FG_OP_reshape || i->op == FG_OP_transpose || i->op == FG_OP_copy;
    switch (k) {
    case LOOPS: return true;
    case ROWS: return elementwise && straight;
    case PRODUCT: return (elementwise || moving) && moves;
    case ATTENTION: return moving && moves;
    default: return false;
    }
}

static void
append(fuser *f, cluster *to, const cluster *from)
{
    fg_inst **all = FG_NEWN(f->a, fg_inst *, (size_t)(to->n + from->n));
    int       n = 0, i = 0, j = 0;
    /* By position: marks number the block's instructions. */
    while (i < from->n || j < to->n)
        all[n++] = j == to->n || (i < from->n && from->member[i]->mark < to->member[j]->mark)
                       ? from->member[i++] : to->member[j++];
    to->member = all;
    to->n = n;
}

/* Lets the cluster of i take in those that feed it. */
static void
join_operands(fuser *f, int self, const fg_inst *i)
{
    for (int k = 0; k < i->nin; k++) {
        bool straight, moves;
        int  c = i->in[k] ? feeding_cluster(f, i, i->in[k], &straight, &moves) : -1;
        if (c < 0 || c == self || !reads_once(f, i, k))
            continue;
        cluster *from = &f->c[c], *to = &f->c[self];
        bool     anchored = from->kind != LOOPS;
        /* In front of an anchor only arithmetic; and one anchor to a kernel. */
        if (anchored ? to->kind != LOOPS || !may_follow(from->kind, i, straight, moves)
                     : kind_of(i) != LOOPS && kind_of(i) != ROWS)
            continue;
        if (anchored && count(f, from->out) != count(f, i->out[0]))
            continue;
        append(f, to, from);
        from->into = self;
        to->kind = anchored ? from->kind : to->kind;
    }
}

/* A view of attention's result is stored that way: its rows are what the next product
 * reads, and only there they lie side by side. */
static bool
stored_so(const fuser *f, const fg_inst *i)
{
    bool straight, moves;
    if (i->op != FG_OP_reshape && i->op != FG_OP_transpose)
        return false;
    int c = feeding_cluster(f, i, i->in[0], &straight, &moves);
    return c >= 0 && f->c[c].kind == ATTENTION && straight;
}

static void
cluster_block(fuser *f, fg_block *b)
{
    uint32_t at = 0;
    fg_each_inst(b, i) {
        i->mark = at++;
        if (structural(i))
            continue;
        if (is_free(f, i) && !(f->needed[i->out[0]] = stored_so(f, i)))
            continue;
        cluster c = {.kind = kind_of(i), .n = 1, .out = i->nout ? i->out[0] : 0, .into = -1};
        c.member = fg_dup(f->a, &i, sizeof i);
        int self = f->nc;
        FG_PUSH(f->a, f->c, f->nc, f->capc) = c;
        for (int k = 0; k < i->nout; k++)
            f->of[i->out[k]] = self;
        if (f->cx->opt > 0 && c.kind != ALONE && c.kind != PRODUCT && c.kind != ATTENTION)
            join_operands(f, self, i);
    }
}

/* ---- making kernels --------------------------------------------------------------------- */

typedef struct maker {
    fuser    *f;
    fg_inst  *kernel;
    fg_block *region;
    fg_build  in;               /* at the region's end */
    fg_reg   *map;              /* outside -> region, cleared after each kernel */
    fg_reg   *touched;
    int       ntouched;
    size_t    captouched;
    fg_reg   *operand;
    int       noperand;
    size_t    capoperand;
} maker;

static void
enter(maker *k, fg_reg outside, fg_reg inside)
{
    k->map[outside] = inside;
    FG_PUSH(k->f->a, k->touched, k->ntouched, k->captouched) = outside;
}

static bool
is_scalar_const(const fuser *f, const fg_inst *d)
{
    return f->cx->opt > 0 && fg_is_op(d, FG_OP_const) && fg_e_is(f->m->ex, count(f, d->out[0]), 1);
}

static void copy_in(maker *k, const fg_inst *i);

/* Register r as the region sees it. */
static void
bring(maker *k, fg_reg r)
{
    fuser *f = k->f;
    if (!r || k->map[r])
        return;
    const fg_inst *d = fg_def(f->m, r);
    if (is_scalar_const(f, d) || (d && !structural(d) && is_free(f, d))) {
        copy_in(k, d);
        return;
    }
    fg_reg outside = f->now[r] ? f->now[r] : r;
    FG_PUSH(f->a, k->operand, k->noperand, k->capoperand) = outside;
    enter(k, r, fg_param(f->m, k->region, *fg_rt(f->m, r), NULL));
}

static void
copy_in(maker *k, const fg_inst *i)
{
    for (int n = 0; n < i->nin; n++)
        bring(k, i->in[n]);
    fg_inst *c = fg_inst_clone(&k->in, i, k->map);
    for (int n = 0; n < i->nout; n++)
        enter(k, i->out[n], c->out[n]);
}

/* "matmul add gelu": what a person wants to see. */
static const char *
kernel_name(const fuser *f, const cluster *c)
{
    fg_text t = fg_text_new(f->a);
    for (int n = 0; n < c->n && t.n < 48; n++) {
        if (n)
            fg_putc(&t, '_');
        fg_puts(&t, fg_op_info(c->member[n]->op)->name);
    }
    return t.s;
}

static bool
make_kernel(maker *k, const cluster *c)
{
    fuser    *f = k->f;
    fg_inst  *last = c->member[c->n - 1];
    fg_build  b = {.m = f->m, .block = last->block, .at = last};
    for (int n = 0; n < c->n; n++)
        fg_build_add_nodes(&b, c->member[n]);
    k->noperand = k->ntouched = 0;
    k->region = fg_block_new(f->m, NULL, last->block);
    k->in = fg_build_end(k->region);
    for (int n = 0; n < c->n; n++)
        copy_in(k, c->member[n]);
    fg_type *types = FG_NEWN(f->a, fg_type, (size_t)last->nout);
    fg_reg  *result = FG_NEWN(f->a, fg_reg, (size_t)last->nout);
    for (int n = 0; n < last->nout; n++) {
        types[n] = *fg_rt(f->m, last->out[n]);
        result[n] = k->map[last->out[n]];
    }
    if (!fg_inst_finish(&k->in, fg_inst_begin(&k->in, FG_OP_yield, last->nout, result), NULL, 0))
        return false;
    fg_inst *i = fg_inst_begin(&b, FG_OP_kernel, k->noperand, k->operand);
    i->nregion = 1;
    i->region = fg_dup(f->m->a, &k->region, sizeof k->region);
    k->region->owner = i;
    fg_set_word(f->m, &FG_SET(i, kernel, name), kernel_name(f, c));
    if (!fg_inst_finish(&b, i, types, last->nout))
        return false;
    for (int n = 0; n < last->nout; n++)
        f->now[last->out[n]] = i->out[n];
    for (int n = 0; n < k->ntouched; n++)
        k->map[k->touched[n]] = 0;
    if (c->n > 1)
        fg_report_fusion(f->cx->report, c->kind == LOOPS ? "loops" : c->kind == ROWS ? "rows" : "epilogue");
    return true;
}

/* Operands of what stays outside follow to the kernels' results. */
static void
rename_block(fuser *f, fg_block *b)
{
    for (fg_inst *i = b->first; i; i = i->next) {
        if (i->op == FG_OP_kernel)
            continue;           /* made with the new names */
        for (int k = 0; k < i->nin; k++)
            if (i->in[k] < f->nreg && f->now[i->in[k]])
                i->in[k] = f->now[i->in[k]];
        for (int k = 0; k < i->nregion; k++)
            rename_block(f, i->region[k]);
    }
}

static bool
kernels_of_block(fuser *f, maker *k, fg_block *b)
{
    cluster_block(f, b);
    fg_each_inst(b, i) {
        if (structural(i)) {
            for (int n = 0; n < i->nregion && i->op != FG_OP_kernel; n++)
                if (!kernels_of_block(f, k, i->region[n]))
                    return false;
            continue;
        }
        int c = i->nout && !is_free(f, i) ? root(f, f->of[i->out[0]]) : -1;
        if (c >= 0 && f->c[c].member[f->c[c].n - 1] == i && !make_kernel(k, &f->c[c]))
            return false;
    }
    return true;
}

/* What became part of kernels goes, and constants that nobody reads any more. */
static void
sweep(fuser *f, fg_block *b, const uint32_t *uses)
{
    fg_each_inst_back(b, i) {
        if (i->op == FG_OP_kernel)
            continue;
        for (int n = 0; n < i->nregion; n++)
            sweep(f, i->region[n], uses);
        if (!structural(i) || (i->op == FG_OP_const && uses[i->out[0]] == 0))
            fg_inst_remove(i);
    }
}

/* ---- the pass ------------------------------------------------------------------------------ */

/* Results that something outside kernels reads must exist, whatever they cost. */
static void
note_needed(fuser *f, fg_block *b)
{
    for (fg_inst *i = b->first; i; i = i->next) {
        for (int k = 0; structural(i) && k < i->nin; k++)
            if (i->in[k])
                f->needed[i->in[k]] = true;
        for (int k = 0; k < i->nregion; k++)
            note_needed(f, i->region[k]);
    }
}

static void
rename_outputs(fuser *f)
{
    for (int k = 0; k < f->m->noutput; k++)
        if (f->now[f->m->output[k].reg])
            f->m->output[k].reg = f->now[f->m->output[k].reg];
}

/* The uses after fusion: those inside kernels do not count for what is outside. */
static void
count_outside(fg_block *b, uint32_t *uses)
{
    for (fg_inst *i = b->first; i; i = i->next) {
        bool stays = structural(i);
        for (int k = 0; stays && k < i->nin; k++)
            uses[i->in[k]]++;
        for (int k = 0; stays && i->op != FG_OP_kernel && k < i->nregion; k++)
            count_outside(i->region[k], uses);
    }
}

fg_progress
fg_pass_fuse_ops(fg_module *m, fg_passctx *cx)
{
    /* What raising left behind would count as readers. */
    if (cx->opt > 0 && fg_raise_idioms(m, cx) && fg_pass_dce(m, cx) == FG_FAILED)
        return FG_FAILED;
    fuser f = {.m = m, .cx = cx, .a = cx->scratch, .nreg = m->nreg};
    f.uses = fg_count_uses(m, cx->scratch);
    f.needed = FG_NEWN(cx->scratch, bool, m->nreg);
    f.of = FG_NEWN(cx->scratch, int, m->nreg);
    f.now = FG_NEWN(cx->scratch, fg_reg, m->nreg);
    memset(f.of, -1, m->nreg * sizeof *f.of);
    note_needed(&f, m->body);
    maker k = {.f = &f, .map = FG_NEWN(cx->scratch, fg_reg, m->nreg)};
    if (!kernels_of_block(&f, &k, m->body))
        return FG_FAILED;
    rename_block(&f, m->body);
    rename_outputs(&f);
    uint32_t *uses = FG_NEWN(cx->scratch, uint32_t, m->nreg);
    count_outside(m->body, uses);
    sweep(&f, m->body, uses);
    m->stage = FG_STAGE_FUSED;
    return FG_CHANGED;
}
