/* fuse_ops.c - group instructions into kernels.
 *
 *     %1 = matmul %x, %w                     %4 = kernel %x, %w, %b {
 *     %2 = add %1, %b                  =>      matmul, add, gelu, yield
 *     %3 = gelu %2                           }
 *     %4 = transpose %3
 *
 * One walk from the end of each block. A register that somebody reads from memory (an
 * output, control flow, another kernel) becomes the root of a kernel; the walk up its
 * operands takes in what the kernel may as well compute itself, and whatever it leaves
 * out is read from memory, so becomes a root in turn. Operands come before their readers,
 * so when a register is looked at, all readers it will have in this kernel are known.
 *
 * Taken in: views, and arithmetic where that is cheaper than to store it and read it back.
 * What a kernel computes once, and nobody else wants, always is; what it would compute again
 * for every row, head or place it is wanted at, or what other kernels would compute as well,
 * is for the cost model to say. Then one instruction with a code generator of its own, below
 * arithmetic that keeps its index; or a pair of such products (gate and value of a gated
 * unit), which one kernel computes in step.
 */
#include <stdlib.h>

#include "codegen/target.h"
#include "passes/cost.h"
#include "passes/fuse_siblings.h"
#include "passes/place.h"
#include "passes/raise.h"
#include "passes/split_gates.h"
#include "passes/unfuse.h"

#define MAXREGION 64 /* instructions of one kernel */
#define MAXPLACES 8  /* indices one of them may be read at */
#define MAXLOOKS 64  /* instructions looked at to tell what a value is made of */
#define REPACKED 2   /* times that a product reads its right side, in blocks of rows */

/* How the root's index relates to that of a register above it. */
typedef enum { PATH_NONE, PATH_OTHER, PATH_VIEWS, PATH_SAME } path;

typedef struct member { /* by register, while a kernel is built */
    uint32_t uses;      /* readers inside it */
    uint8_t limit;      /* fg_fuse: what its readers let stand before them */
    uint8_t way;        /* path */
    int same;           /* indices it is read at by arithmetic */
    int moved;          /* and through what moves elements */
    double wanted;      /* elements read by arithmetic, */
    double elsewhere;   /* and through what moves them, one as often as it is read */
    double kernels;     /* that compute it, this one included */
} member;

typedef struct fuser {
    fg_module *m;
    fg_passctx *cx;
    fg_costs cost;
    uint32_t *uses; /* of each register, in the whole module */
    fg_inst **def;  /* its definition before any kernel was made */
    fg_bits needed; /* read from memory */
    fg_bits stored; /* will be: a reader can have it in no other way */
    member *member;
    fg_reg *map; /* to the register inside the kernel */
    fg_block *block;
    fg_inst *in[MAXREGION]; /* taken in so far, unordered */
    int nin, most;          /* and how many may be */
    const char *why;        /* the last one was not taken in, when it is to be told */
    fg_reg *seen;           /* registers whose member is set */
    int nseen;
    size_t capseen;
    fg_inst *anchor;
    bool twins;          /* a second one goes with it */
    double flops, bytes; /* of the kernel so far */
} fuser;

/* ---- what instructions are
 * ------------------------------------------------------------------- */

static bool
stays_outside(const fg_inst *i)
{
    return fg_has_effect(i) || i->nregion || i->op == FG_OP_const;
}

static bool
is_anchor(const fg_inst *i)
{
    return fg_op_is(i->op, FG_T_ANCHOR) && i->op != FG_OP_rope;
}

static bool
is_lookup(const fg_inst *i)
{
    return i->op == FG_OP_gather || i->op == FG_OP_gather_elements ||
           i->op == FG_OP_gather_nd;
}

static bool
is_source(const fg_inst *i)
{
    return i->op == FG_OP_iota || i->op == FG_OP_symvec;
}

/* Reads fewer bytes than it makes. */
static bool
widens(const fg_module *m, const fg_inst *i)
{
    return (i->op == FG_OP_cast || i->op == FG_OP_dequantize) &&
           fg_dtypes[fg_rt(m, i->in[0])->dtype].bits <
               fg_dtypes[fg_rt(m, i->out[0])->dtype].bits;
}

static bool
same_count(fg_module *m, fg_reg a, fg_reg b)
{
    return fg_type_count(m->ex, fg_rt(m, a)) == fg_type_count(m->ex, fg_rt(m, b));
}

/* Keeps the index of its first operand, whatever its scale and zero point are by. */
static bool
is_grid(const fg_inst *i)
{
    return i->op == FG_OP_quantize || i->op == FG_OP_dequantize;
}

/* Constants a kernel holds as immediates. */
static bool
is_immediate(fuser *f, fg_reg r)
{
    const fg_weight *w = fg_reg_weight(f->m, r);
    int64_t n = 1;
    for (int a = 0; w && a < w->rank; a++)
        n *= w->dim[a];
    return w && n == 1;
}

/* ---- growing a kernel
 * -------------------------------------------------------------------------- */

/* What reader `i` lets stand before its operand k, at most `limit`. */
static fg_fuse
limit_for(fuser *f, const fg_inst *i, int k, fg_fuse limit)
{
    fg_fuse own = FG_FUSE_ALL;
    if (is_anchor(i))
        own = fg_cpu_before(f->m, i, k);
    else if (is_lookup(i))
        own = k == 0 ? FG_FUSE_VIEWS : FG_FUSE_CHEAP;
    else if (i->op == FG_OP_rope || (i->op == FG_OP_dequantize && k > 0))
        own = FG_FUSE_CHEAP;
    else if (!same_count(f->m, i->in[k], i->out[0]) && !fg_op_is(i->op, FG_T_VIEW) &&
             i->op != FG_OP_concat && i->op != FG_OP_pad)
        own = FG_FUSE_CHEAP; /* read again and again */
    else if (i->op == FG_OP_expand)
        own = FG_FUSE_CHEAP;
    return own < limit ? own : limit;
}

static path
path_for(fuser *f, const fg_inst *i, int k, path way)
{
    const fg_type *a = fg_rt(f->m, i->in[k]), *b = fg_rt(f->m, i->out[0]);
    bool same = a->rank == b->rank;
    for (int d = 0; same && d < a->rank; d++)
        same = a->dim[d] == b->dim[d];
    if (way < PATH_VIEWS)
        return PATH_OTHER;
    if (same &&
        (fg_op_is(i->op, FG_T_ELEM) || i->op == FG_OP_copy || (k == 0 && is_grid(i))))
        return way;
    if (i->op == FG_OP_reshape || i->op == FG_OP_transpose)
        return PATH_VIEWS;
    return PATH_OTHER;
}

/* At how many places of operand k one element of i's result looks. */
static int
places_read(const fg_inst *i)
{
    bool moves = (fg_op_is(i->op, FG_T_VIEW) && i->op != FG_OP_copy) ||
                 i->op == FG_OP_concat || i->op == FG_OP_pad || is_lookup(i);
    return i->op == FG_OP_rope ? 2 : moves;
}

/* Kernels that compute r if this one does, and all do as it does. */
static double
kernels_alike(const fuser *f, fg_reg r)
{
    const member *p = &f->member[r];
    double kernels = p->kernels > 1 ? p->kernels : 1;
    return p->uses ? kernels * f->uses[r] / p->uses : kernels;
}

/* Elements of operand k that are read for n of i's result. What stays the same along the
 * innermost loop is read before it. */
static double
elements_read(fuser *f, const fg_inst *i, int k, double n)
{
    fg_module *m = f->m;
    const fg_type *t = fg_rt(m, i->in[k]), *out = fg_rt(m, i->out[0]);
    double whole = fg_cost_count(&f->cost, i->out[0]);
    double all = fg_cost_count(&f->cost, i->in[k]), share = whole > 0 ? n / whole : 1;
    int64_t last = 1;
    if (i->op == FG_OP_attention && k == 3)
        return fg_cost_scores(&f->cost, i);
    if (i->op == FG_OP_matmul && k == 1)
        return REPACKED * all;
    if (fg_keeps_rows(i->op) && k > 0)
        return n;
    if (is_anchor(i) || i->op == FG_OP_concat || i->op == FG_OP_pad)
        return all * share;
    if (i->op == FG_OP_rope)
        return k ? n : 2 * n;
    bool inner = t->rank && t->dim[t->rank - 1] == out->dim[out->rank - 1];
    if (i->op == FG_OP_gather)
        inner = k == 0 || FG_GET(i, gather, axis).i == fg_rt(m, i->in[0])->rank - 1;
    if (!inner && out->rank && (fg_op_is(i->op, FG_T_ELEM) || i->op == FG_OP_gather))
        last = fg_cost_size(&f->cost, out->dim[out->rank - 1]);
    return last > 1 ? n / last : n;
}

/* i joins the kernel: its operands have one reader more in it. */
static void
take_in(fuser *f, fg_inst *i, fg_fuse limit, path way)
{
    const member *at = &f->member[i->out[0]];
    int places = at->same + at->moved, more = places_read(i);
    double elements = at->wanted + at->elsewhere, kernels = kernels_alike(f, i->out[0]);
    f->in[f->nin++] = i;
    if (is_anchor(i)) {
        f->twins = f->anchor != NULL;
        f->anchor = i;
        f->flops += fg_cost_anchor(&f->cost, i);
    } else if (!fg_op_is(i->op, FG_T_VIEW)) {
        f->flops += elements * fg_cost_element(i->op);
    }
    places = places ? places : 1;
    for (int k = 0; k < i->nin; k++) {
        fg_reg r = i->in[k];
        if (!r)
            continue;
        member *p = &f->member[r];
        fg_fuse own = limit_for(f, i, k, limit);
        path next = is_anchor(i) ? PATH_OTHER : path_for(f, i, k, way);
        if (!p->uses++) {
            FG_PUSH(f->cx->scratch, f->seen, f->nseen, f->capseen) = r;
            p->limit = (uint8_t)own;
            p->way = (uint8_t)next;
        }
        p->limit = own < p->limit ? (uint8_t)own : p->limit;
        p->way = next < p->way ? (uint8_t)next : p->way;
        double wanted = elements_read(f, i, k, elements);
        if (more) {
            p->moved += more * places;
            p->elsewhere += wanted;
        } else {
            p->same = places > p->same ? places : p->same;
            p->wanted = wanted > p->wanted ? wanted : p->wanted;
        }
        p->kernels = kernels > p->kernels ? kernels : p->kernels;
    }
}

/* The operand of i whose elements are read where those of the result are, the only one of
 * its size; -1: none. */
static int
main_operand(fuser *f, const fg_inst *i)
{
    int at = -1;
    for (int k = 0; k < i->nin; k++)
        if (i->in[k] && same_count(f->m, i->in[k], i->out[0])) {
            if (at >= 0)
                return -1;
            at = k;
        }
    return at;
}

/* A chain of views, nobody else's, above an instruction that could store its result through
 * them: better its kernel does than this one reads crosswise. What is rounded to bytes on the
 * way would be gathered one by one, so arithmetic before that does not matter. */
static bool
is_forwarded(fuser *f, fg_reg r)
{
    fg_inst *i = f->def[r];
    bool bytes = false;
    while (i && i->block == f->block && !is_anchor(i)) {
        bool view =
            i->op == FG_OP_reshape || i->op == FG_OP_transpose || i->op == FG_OP_copy;
        bytes |= i->op == FG_OP_quantize;
        int k = view || is_grid(i)                    ? 0
                : bytes && fg_op_is(i->op, FG_T_ELEM) ? main_operand(f, i)
                                                      : -1;
        r = k < 0 ? 0 : i->in[k];
        if (!r || f->uses[r] != 1 || fg_bits_has(f->needed, r))
            return false;
        i = f->def[r];
    }
    return i && i->block == f->block && fg_cpu_after(f->m, i) == FG_FUSE_FORWARD;
}

static bool
anchor_fits(fuser *f, const fg_inst *i, const member *p)
{
    if (f->anchor)
        return !f->twins && p->way == PATH_SAME &&
               f->member[f->anchor->out[0]].way == PATH_SAME &&
               fg_cpu_twins(f->m, f->anchor, i);
    if (i->nout != 1)
        return false;
    fg_fuse after = fg_cpu_after(f->m, i);
    return (after == FG_FUSE_ELEM && p->way == PATH_SAME) ||
           (after == FG_FUSE_FORWARD && p->way >= PATH_VIEWS);
}

/* Why the kernel ends here, kept when somebody asked. */
static bool
refuse(fuser *f, const char *fmt, ...)
{
    if (f->cx->report->explain) {
        fg_text t = fg_text_new(f->cx->scratch);
        va_list ap;
        va_start(ap, fmt);
        fg_vputf(&t, fmt, ap);
        va_end(ap);
        f->why = t.s;
    }
    return false;
}

static bool
wants_anchor(fuser *f, const fg_inst *i, const member *p, bool alone)
{
    static const char *const way[] = {"", "at other places", "through views", "as it is"};
    if (alone && kernels_alike(f, i->out[0]) > 1)
        return refuse(f, "other kernels read what the views behind it make");
    if (!alone)
        return refuse(f, "%u of its %u readers are in this kernel",
                      fg_bits_has(f->needed, i->out[0]) ? 0 : p->uses,
                      f->uses[i->out[0]]);
    if (anchor_fits(f, i, p))
        return true;
    if (f->anchor)
        return refuse(f,
                      "%s has a code generator of its own, like %s that is in the kernel",
                      fg_op_info(i->op)->name, fg_op_info(f->anchor->op)->name);
    return refuse(f, "the kernel reads the result of %s %s, which it cannot hand on so",
                  fg_op_info(i->op)->name, way[p->way]);
}

static void add_steps(fuser *f, const fg_inst *i, double n, fg_making *v, int *looks);

/* Adds what it takes to compute r, n elements of it, from what is in memory or will be. */
static void
add_making(fuser *f, fg_reg r, double n, fg_making *v, int *looks)
{
    const fg_inst *i = f->def[r];
    double count = fg_cost_count(&f->cost, r), bytes = fg_cost_bytes(&f->cost, r);
    double looked_at = n < count ? bytes / count * n : bytes;
    /* One of several results is in memory in any case. */
    bool own = i && i->block == f->block && !stays_outside(i) && i->nout == 1 &&
               !fg_bits_has(f->needed, r) && f->uses[r] == 1;
    if (is_immediate(f, r))
        return;
    if (i && is_source(i)) {
        v->flops += n;
        v->once += count;
    } else if (own && !is_anchor(i) && !is_lookup(i) && --*looks > 0) {
        add_steps(f, i, n, v, looks);
    } else {
        *(own ? &v->made : &v->read) += own ? bytes : looked_at;
        v->more += f->member[r].uses ? 0 : looked_at;
    }
}

static void
add_steps(fuser *f, const fg_inst *i, double n, fg_making *v, int *looks)
{
    double each = fg_op_is(i->op, FG_T_VIEW) ? 0 : fg_cost_element(i->op);
    v->flops += each * n;
    v->once += each * fg_cost_count(&f->cost, i->out[0]);
    for (int k = 0; k < i->nin; k++)
        if (i->in[k])
            add_making(f, i->in[k], elements_read(f, i, k, n), v, looks);
}

/* Whether the kernel may as well compute r by i, an arithmetic instruction. */
static bool
pays(fuser *f, fg_reg r, const fg_inst *i, bool alone)
{
    const member *p = &f->member[r];
    int looks = MAXLOOKS;
    double here, memory, wanted = p->wanted + p->elsewhere;
    fg_making v = {.kernel_flops = f->flops,
                   .kernel_bytes = f->bytes,
                   .elements = fg_cost_count(&f->cost, r),
                   .bytes = fg_cost_bytes(&f->cost, r),
                   .kernels = kernels_alike(f, r)};
    if (alone && v.kernels <= 1 && wanted <= v.elements)
        return true; /* computed once, and never in memory */
    if (v.kernels > 1 && is_lookup(i))
        return refuse(f, "other kernels want it too, and tables are looked up once");
    v.store = fg_bits_has(f->needed, r) || fg_bits_has(f->stored, r) ? 0 : v.bytes;
    if (wanted < v.elements)
        v.bytes *= wanted / v.elements;
    add_steps(f, i, wanted, &v, &looks);
    if (fg_gain_computed(&v, &here, &memory) > 0)
        return true;
    return refuse(f,
                  "computing %s here, %.3g times each element%s, takes %.3g us, reading "
                  "it from memory %.3g us",
                  fg_op_info(i->op)->name, v.elements > 0 ? wanted / v.elements : 0,
                  alone ? "" : " and in other kernels too", here, memory);
}

static bool
wants(fuser *f, fg_reg r)
{
    fg_inst *i = f->def[r];
    const member *p = &f->member[r];
    bool needed = fg_bits_has(f->needed, r), alone = p->uses == f->uses[r] && !needed;
    f->why = NULL;
    if (!i || i->block != f->block || stays_outside(i))
        return false;
    if (f->nin >= f->most)
        return refuse(f, "the kernel has %d instructions, the most it may", f->nin);
    if (p->limit == FG_FUSE_NONE)
        return refuse(f, "its reader wants this operand in memory");
    if (is_source(i))
        return true;
    /* Code is emitted once per index: chains that look aside twice at each step would
     * explode. */
    if (p->same + p->moved > MAXPLACES)
        return refuse(f, "read at %d places, more than %d", p->same + p->moved,
                      MAXPLACES);
    if (fg_op_is(i->op, FG_T_VIEW) && needed)
        return refuse(f, "it is in memory anyway, for another reader");
    if (fg_op_is(i->op, FG_T_VIEW) && (f->anchor || p->way < PATH_VIEWS) &&
        is_forwarded(f, r))
        return refuse(f, "the kernel above stores through it");
    if (fg_op_is(i->op, FG_T_VIEW))
        return true;
    if (is_anchor(i))
        return wants_anchor(f, i, p, alone);
    if (i->nout != 1)
        return refuse(f, "it has %d results", i->nout);
    if (p->limit == FG_FUSE_WIDEN && widens(f->m, i))
        return true;
    if (p->limit <= FG_FUSE_WIDEN)
        return refuse(f, "only views may stand before this operand of its reader");
    return pays(f, r, i, alone);
}

/* The operand that stands last in the block among those not yet decided. */
static fg_reg
next_candidate(fuser *f, uint32_t below)
{
    fg_reg best = 0;
    for (int k = 0; k < f->nseen; k++) {
        fg_inst *i = f->def[f->seen[k]];
        if (i && i->block == f->block && i->mark < below &&
            (!best || i->mark > f->def[best]->mark))
            best = f->seen[k];
    }
    return best;
}

static void
grow(fuser *f, fg_inst *root)
{
    f->nin = f->nseen = 0;
    f->anchor = NULL;
    f->twins = false;
    f->flops = f->bytes = 0;
    for (int k = 0; k < root->nout; k++)
        f->bytes += fg_cost_bytes(&f->cost, root->out[k]);
    f->member[root->out[0]].wanted = fg_cost_count(&f->cost, root->out[0]);
    take_in(f, root, FG_FUSE_ALL, PATH_SAME);
    if (f->cx->opt < 1)
        return;
    uint32_t below = root->mark;
    for (fg_reg r; (r = next_candidate(f, below));) {
        below = f->def[r]->mark;
        if (wants(f, r)) {
            take_in(f, f->def[r], f->member[r].limit, f->member[r].way);
            continue;
        }
        f->bytes += fg_cost_bytes(&f->cost, r);
        if (f->why)
            fg_report_miss(f->cx->report, "fuse_ops", fg_inst_where(f->m, f->def[r]),
                           fg_format(f->cx->scratch, "not in the kernel of %s: %s",
                                     fg_inst_where(f->m, root), f->why));
    }
}

/* ---- making it
 * ------------------------------------------------------------------------------------ */

static int
by_place(const void *a, const void *b)
{
    const fg_inst *x = *(fg_inst *const *)a, *y = *(fg_inst *const *)b;
    return x->mark < y->mark ? -1 : x->mark > y->mark;
}

/* The kernel's operand for an outside register. */
static void
read_from_memory(fuser *f, fg_inst *kernel, fg_reg r)
{
    fg_block *region = kernel->region[0];
    fg_build b = fg_build_end(region);
    if (f->def[r] && f->def[r]->op == FG_OP_const && is_immediate(f, r)) {
        f->map[r] = fg_inst_clone(&b, f->def[r], NULL)->out[0];
        return;
    }
    kernel->in[kernel->nin++] = r;
    f->map[r] = fg_param(f->m, region, *fg_rt(f->m, r), NULL);
    fg_bits_add(f->needed, r);
}

static const char *
kernel_name(fuser *f)
{
    fg_text t = fg_text_new(f->cx->scratch);
    for (int k = 0; k < f->nin && t.n < 40; k++)
        if (f->nin == 1 || !fg_op_is(f->in[k]->op, FG_T_VIEW))
            fg_putf(&t, "%s%s", t.n ? "_" : "", fg_op_info(f->in[k]->op)->name);
    return t.n ? t.s : fg_op_info(f->in[0]->op)->name;
}

/* The root's registers become the kernel's: nobody outside has to be told. */
static void
make_kernel(fuser *f, fg_inst *root)
{
    fg_module *m = f->m;
    fg_build at = fg_build_before(root);
    qsort(f->in, (size_t)f->nin, sizeof *f->in, by_place);
    for (int k = 0; k + 1 < f->nin; k++)
        fg_build_add_nodes(&at, f->in[k]);
    fg_inst *kernel = fg_inst_begin(&at, FG_OP_kernel, 0, NULL);
    kernel->in = FG_NEWN(m->a, fg_reg, (size_t)f->nseen + 1);
    kernel->nregion = 1;
    kernel->region = FG_NEW(m->a, fg_block *);
    kernel->region[0] = fg_block_new(m, kernel, root->block);
    fg_set_word(m, &FG_SET(kernel, kernel, name), kernel_name(f));
    fg_build b = fg_build_end(kernel->region[0]);
    for (int k = 0; k < f->nin; k++) {
        fg_inst *i = f->in[k];
        for (int j = 0; j < i->nin; j++)
            if (i->in[j] && !f->map[i->in[j]])
                read_from_memory(f, kernel, i->in[j]);
        fg_inst *c = fg_inst_clone(&b, i, f->map);
        for (int j = 0; j < i->nout; j++) {
            f->map[i->out[j]] = c->out[j];
            FG_PUSH(f->cx->scratch, f->seen, f->nseen, f->capseen) = i->out[j];
        }
    }
    fg_reg *result = FG_NEWN(m->a, fg_reg, (size_t)root->nout);
    for (int j = 0; j < root->nout; j++)
        result[j] = f->map[root->out[j]];
    fg_inst_finish(&b, fg_inst_begin(&b, FG_OP_yield, root->nout, result), NULL, 0);
    kernel->nout = root->nout;
    kernel->out = fg_dup(m->a, root->out, (size_t)root->nout * sizeof *root->out);
    fg_inst_link(&at, kernel);
    for (int j = 0; j < root->nout; j++)
        m->reg[root->out[j]].def = kernel;
    if (f->nin > 1)
        fg_report_fusion(f->cx->report, f->twins    ? "kernels around a pair of products"
                                        : f->anchor ? "kernels around an anchor"
                                                    : "kernels of loops");
    for (int k = 0; k < f->nseen; k++) {
        f->member[f->seen[k]] = (member){0};
        f->map[f->seen[k]] = 0;
    }
}

/* ---- the walk ----------------------------------------------------------------------
 * ------------------- */

static void
need_operands(fuser *f, const fg_inst *i)
{
    for (int k = 0; k < i->nin; k++)
        if (i->in[k])
            fg_bits_add(f->needed, i->in[k]);
}

static void
fuse_block(fuser *f, fg_block *b)
{
    uint32_t place = 0;
    fg_each_inst(b, i)
        i->mark = ++place;
    fg_each_inst_back(b, i) {
        if (stays_outside(i)) {
            need_operands(f, i);
            for (int k = 0; k < i->nregion; k++)
                fuse_block(f, i->region[k]);
            f->block = b;
            continue;
        }
        f->block = b;
        bool root = false;
        for (int k = 0; k < i->nout; k++)
            root |= fg_bits_has(f->needed, i->out[k]);
        if (root) {
            grow(f, i);
            make_kernel(f, i);
        } else {
            for (int k = 0; k < i->nout; k++)
                f->m->reg[i->out[k]].def = NULL;
        }
        fg_inst_remove(i);
    }
}

static void
note_definitions(fuser *f, fg_block *b)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nout; k++)
            f->def[i->out[k]] = i;
        for (int k = 0; k < i->nregion; k++)
            note_definitions(f, i->region[k]);
    }
}

/* What arithmetic gives to readers that allow only views before them. */
static void
note_stored(fuser *f, const fg_block *b)
{
    fg_each_inst(b, i) {
        for (int k = 0; k < i->nin; k++) {
            fg_reg r = i->in[k];
            if (!r ||
                (!stays_outside(i) && limit_for(f, i, k, FG_FUSE_ALL) > FG_FUSE_VIEWS))
                continue;
            while (f->def[r] && fg_op_is(f->def[r]->op, FG_T_VIEW))
                r = f->def[r]->in[0];
            fg_bits_add(f->stored, r);
        }
        for (int k = 0; k < i->nregion; k++)
            note_stored(f, i->region[k]);
    }
}

/* Constants that went into kernels as immediates have no reader left. */
static void
drop_unread(fuser *f, fg_block *b)
{
    fg_each_inst_back(b, i) {
        for (int k = 0; k < i->nregion && i->op != FG_OP_kernel; k++)
            drop_unread(f, i->region[k]);
        if (i->op == FG_OP_const && !fg_bits_has(f->needed, i->out[0]))
            fg_inst_remove(i);
    }
}

fg_progress
fg_pass_fuse_ops(fg_module *m, fg_passctx *cx)
{
    fuser f = {.m = m,
               .cx = cx,
               .cost = fg_costs_new(m, cx->scratch),
               .most = (int)cx->param[FG_PARAM_fuse_ops_size]};
    /* What instructions were made from still reads their operands, and a dead reader is
     * a reader. */
    if (cx->opt >= 1 && fg_raise_idioms(m, cx))
        fg_pass_dce(m, cx);
    if (cx->opt >= 1 && fg_split_gates(m, cx))
        fg_pass_dce(m, cx);
    if (!fg_unfuse_attention(m))
        return FG_FAILED;
    f.uses = fg_count_uses(m, cx->scratch);
    f.def = FG_NEWN(cx->scratch, fg_inst *, m->nreg);
    f.member = FG_NEWN(cx->scratch, member, m->nreg);
    f.map = FG_NEWN(cx->scratch, fg_reg, m->nreg);
    f.needed = fg_bits_new(cx->scratch, m->nreg);
    f.stored = fg_bits_new(cx->scratch, m->nreg);
    note_definitions(&f, m->body);
    note_stored(&f, m->body);
    fuse_block(&f, m->body);
    drop_unread(&f, m->body);
    if (cx->opt >= 1)
        fg_fuse_siblings(m, cx);
    m->stage = FG_STAGE_FUSED;
    return FG_CHANGED;
}
