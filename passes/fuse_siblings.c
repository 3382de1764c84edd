/* fuse_siblings.c - kernels that do not depend on each other become one.
 *
 *     %q = kernel %x, %wq { matmul }
 *     %k = kernel %x, %wk { matmul }    =>    %q, %k = kernel %x, %wq, %wk {
 *                                               matmul, matmul, yield both
 *                                             }
 *
 * Query, key and value are products of one operand; their rotary embeddings and appends
 * to caches read results of one kernel. Such siblings start once, read what they share
 * while it is in the cache, and give every thread something to do: the code generator
 * deals out the chunks of all of them. Others stay apart: a kernel of strangers would be
 * code that no other layer can use.
 *
 * A kernel moves up to an earlier one when all it reads exists there. Nothing else can
 * tell the difference: kernels have no effects, and whoever reads the results comes
 * later. Instructions that are not kernels (a requirement, a run-time size, control flow)
 * are never passed, because a kernel may rely on them. Whether it pays is the cost
 * model's.
 */
#include "passes/fuse_siblings.h"

#include "passes/cost.h"
#include "passes/place.h"

enum {
    WINDOW = 12,  /* kernels looked back at */
    MOSTPARTS = 8 /* that one kernel may be made of: its code grows with them */
};

typedef enum { KIND_OTHER, KIND_LOOPS, KIND_PRODUCT } kind;

typedef struct sibling {
    fg_inst *kernel;
    kind kind;
    fg_reg shared; /* of a product: what its rows come from */
    int parts;
} sibling;

typedef struct joiner {
    fg_module *m;
    fg_passctx *cx;
    fg_costs cost;
    fg_reg *map;
    sibling at[WINDOW];
    int n;
} joiner;

/* The kernel's operand that r, through views, is of, perhaps narrower; 0: it is computed. */
static fg_reg
operand_behind(const fg_module *m, const fg_inst *kernel, fg_reg r)
{
    const fg_block *b = kernel->region[0];
    for (const fg_inst *i; (i = fg_def(m, r)); r = i->in[0])
        if ((!fg_op_is(i->op, FG_T_VIEW) || i->nin != 1) && i->op != FG_OP_dequantize &&
            i->op != FG_OP_cast)
            return 0;
    for (int k = 0; k < b->nparam; k++)
        if (b->param[k] == r)
            return kernel->in[k];
    return 0;
}

static sibling
describe(joiner *j, fg_inst *kernel)
{
    sibling s = {kernel, KIND_LOOPS, 0, 1};
    fg_each_inst(kernel->region[0], i) {
        if (!fg_op_is(i->op, FG_T_ANCHOR) || i->op == FG_OP_rope || i->op == FG_OP_append)
            continue;
        if (i->op == FG_OP_matmul || i->op == FG_OP_matmul_panels ||
            i->op == FG_OP_matmul_int) {
            s.kind = KIND_PRODUCT;
            s.shared = operand_behind(j->m, kernel, i->in[0]);
        } else if (i->op != FG_OP_rmsnorm && i->op != FG_OP_layernorm &&
                   i->op != FG_OP_softmax) {
            s.kind = KIND_OTHER;
        }
    }
    if (s.kind == KIND_PRODUCT && !s.shared)
        s.kind = KIND_OTHER;
    return s;
}

/* Everything `kernel` reads exists before `at`; constants can be had anywhere. */
static bool
could_stand_at(joiner *j, const fg_inst *kernel, const fg_inst *at)
{
    for (int k = 0; k < kernel->nin; k++) {
        const fg_inst *d = fg_def(j->m, kernel->in[k]);
        if (d && d->op != FG_OP_const && d->block == at->block && d->mark >= at->mark)
            return false;
    }
    return true;
}

static int
operand_of(const fg_inst *kernel, fg_reg r)
{
    for (int k = 0; k < kernel->nin; k++)
        if (kernel->in[k] == r)
            return k;
    return -1;
}

static void
join_operands(joiner *j, fg_inst *a, fg_inst *b)
{
    fg_block *to = a->region[0], *from = b->region[0];
    fg_reg *in = FG_NEWN(j->m->a, fg_reg, (size_t)(a->nin + b->nin));
    memcpy(in, a->in, (size_t)a->nin * sizeof *in);
    a->in = in;
    for (int k = 0; k < b->nin; k++) {
        int same = operand_of(a, b->in[k]);
        fg_inst *d = fg_def(j->m, b->in[k]);
        if (same >= 0) {
            j->map[from->param[k]] = to->param[same];
            continue;
        }
        if (d && d->op == FG_OP_const && d->block == a->block && d->mark > a->mark) {
            fg_inst_move_before(d, a);
            d->mark = a->mark;
        }
        a->in[a->nin++] = b->in[k];
        j->map[from->param[k]] = fg_param(j->m, to, *fg_rt(j->m, from->param[k]), NULL);
    }
}

/* b's instructions and results go to a; b is gone. */
static void
join(joiner *j, fg_inst *a, fg_inst *b)
{
    fg_module *m = j->m;
    fg_inst *yield = a->region[0]->last;
    fg_build at = fg_build_before(yield);
    fg_reg *in = FG_NEWN(m->a, fg_reg, (size_t)(a->nout + b->nout));
    fg_reg *out = FG_NEWN(m->a, fg_reg, (size_t)(a->nout + b->nout));
    join_operands(j, a, b);
    at.nnode = 0;
    fg_each_inst(b->region[0], i) {
        if (i->op == FG_OP_yield)
            break;
        fg_inst *c = fg_inst_clone(&at, i, j->map);
        for (int k = 0; k < i->nout; k++)
            j->map[i->out[k]] = c->out[k];
    }
    memcpy(in, yield->in, (size_t)a->nout * sizeof *in);
    memcpy(out, a->out, (size_t)a->nout * sizeof *out);
    for (int k = 0; k < b->nout; k++) {
        in[a->nout + k] = j->map[b->region[0]->last->in[k]];
        out[a->nout + k] = b->out[k];
        m->reg[b->out[k]].def = a;
    }
    yield->in = in;
    a->out = out;
    yield->nin = a->nout += b->nout;
    at = fg_build_before(a);
    fg_build_add_nodes(&at, b);
    a->node = at.node;
    a->nnode = at.nnode;
    fg_inst_remove(b);
}

static void
rename_joined(joiner *j, const sibling *a, const char *name)
{
    fg_attr *own = &FG_SET(a->kernel, kernel, name);
    size_t n = strlen(name);
    bool again = !strncmp(own->s, name, n) && (!own->s[n] || own->s[n] == '.');
    fg_set_word(j->m, own,
                again ? fg_format(j->cx->scratch, "%s.%d", name, a->parts)
                      : fg_format(j->cx->scratch, "%.60s.and.%.60s", own->s, name));
}

/* They read one tensor, or results of one kernel. */
static bool
related(joiner *j, const fg_inst *a, const fg_inst *b)
{
    for (int k = 0; k < a->nin; k++)
        for (int l = 0; l < b->nin; l++) {
            const fg_inst *d = fg_def(j->m, b->in[l]);
            if (fg_is_op(d, FG_OP_const))
                continue;
            if (a->in[k] == b->in[l] || (d && d == fg_def(j->m, a->in[k])))
                return true;
        }
    return false;
}

/* What it saves that b joins a; not positive: it does not, and why. */
static double
gain(joiner *j, const sibling *a, const sibling *b, bool between, const char **why)
{
    double shared = 0;
    if (a->kind != b->kind || a->shared != b->shared || !related(j, a->kernel, b->kernel))
        return 0;
    if (!could_stand_at(j, b->kernel, a->kernel))
        return 0;
    *why = "kernels side by side: it has as many parts as one may have";
    if (a->parts == MOSTPARTS)
        return 0;
    if (b->shared)
        shared = fg_cost_bytes(&j->cost, b->shared);
    *why =
        "kernels side by side: its results would wait in memory for longer than it saves";
    return fg_gain_beside(&j->cost, b->kernel, shared, between);
}

/* Joins k to one of the kernels before it, the nearest that pays. */
static bool
try_join(joiner *j, const sibling *b)
{
    const char *why = NULL;
    for (int k = j->n - 1; k >= 0 && b->kind != KIND_OTHER; k--) {
        sibling *a = &j->at[k];
        if (gain(j, a, b, k < j->n - 1, &why) <= 0)
            continue;
        const char *name = FG_GET(b->kernel, kernel, name).s;
        join(j, a->kernel, b->kernel);
        a->parts++;
        rename_joined(j, a, name);
        fg_report_fusion(j->cx->report, "kernels side by side");
        return true;
    }
    if (why && j->cx->report->explain)
        fg_report_miss(j->cx->report, "fuse_ops", fg_inst_where(j->m, b->kernel), why);
    return false;
}

static void
join_block(joiner *j, fg_block *b)
{
    uint32_t place = 0;
    fg_each_inst(b, i)
        i->mark = ++place;
    j->n = 0;
    for (fg_inst *i = b->first, *next; i; i = next) {
        next = i->next;
        if (i->op == FG_OP_const)
            continue;
        if (i->op != FG_OP_kernel) {
            for (int k = 0; k < i->nregion; k++)
                join_block(j, i->region[k]);
            j->n = 0;
            continue;
        }
        if (fg_kernel_alias(j->m, i))
            continue;
        sibling s = describe(j, i);
        if (try_join(j, &s))
            continue;
        if (j->n == WINDOW)
            memmove(j->at, j->at + 1, (size_t)--j->n * sizeof *j->at);
        j->at[j->n++] = s;
    }
}

void
fg_fuse_siblings(fg_module *m, fg_passctx *cx)
{
    joiner j = {.m = m, .cx = cx, .cost = fg_costs_new(m, cx->scratch)};
    j.map = FG_NEWN(cx->scratch, fg_reg, m->nreg);
    join_block(&j, m->body);
}
