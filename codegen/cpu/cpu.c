/* cpu.c - the CPU target: every `kernel` instruction of a module to machine code.
 *
 * Kernels whose regions say the same share one function; each distinct one is emitted
 * into one of two LLVM modules, which two threads turn into objects; the loader makes
 * them executable. No IR pass runs: the emitters build what the optimiser would.
 */
#include "codegen/cpu/pull.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <llvm-c/Analysis.h>

#include "codegen/special.h"
#include "runtime/isa.h"
#include "runtime/link.h"

#define MAXPART 2 /* LLVM modules, and threads */

struct fg_cpu_code {
    fg_machine *machine;
    fg_image image;
    fg_kernel_fn **fn;
    int nfn;
    char *text[2]; /* IR, assembly */
    LLVMMemoryBufferRef object[MAXPART];
};

/* ---- choosing the emitter
 * -------------------------------------------------------------------- */

typedef bool takes_fn(fg_module *m, const fg_inst *anchor);

/* The first row that takes an instruction of a part makes it; with none, loops do.
 * Cost: what code generation takes, in units of an elementwise kernel. */
static const struct {
    fg_op op;
    takes_fn *takes; /* NULL: always */
    fg_genfn *gen;
    int cost;
} emitters[] = {
    {FG_OP_attention, fg_attention_takes, fg_gen_attention, 16},
    {FG_OP_matmul, fg_matmul_takes, fg_gen_matmul, 8},
    {FG_OP_matmul_int, fg_matmul_takes, fg_gen_matmul, 8},
    {FG_OP_matmul_panels, NULL, fg_gen_matmul, 8},
    {FG_OP_panels, NULL, fg_gen_panels, 4},
    {FG_OP_quantize_rows, NULL, fg_gen_quantize_rows, 2},
    {FG_OP_conv, fg_conv_takes, fg_gen_conv, 8},
    {FG_OP_append, fg_rows_append, fg_gen_append, 2},
    {FG_OP_append, fg_appends_in_place, fg_gen_loops, 1},
    {FG_OP_softmax, NULL, fg_gen_rows, 3},
    {FG_OP_layernorm, NULL, fg_gen_rows, 3},
    {FG_OP_rmsnorm, NULL, fg_gen_rows, 3},
    {FG_OP_reduce_sum, fg_rows_takes, fg_gen_rows, 2},
    {FG_OP_reduce_mean, fg_rows_takes, fg_gen_rows, 2},
    {FG_OP_reduce_prod, fg_rows_takes, fg_gen_rows, 2},
    {FG_OP_reduce_max, fg_rows_takes, fg_gen_rows, 2},
    {FG_OP_reduce_min, fg_rows_takes, fg_gen_rows, 2},
    {FG_OP_argmax, fg_rows_takes, fg_gen_rows, 2},
    {FG_OP_argmin, fg_rows_takes, fg_gen_rows, 2},
    {FG_OP_cumsum, NULL, fg_gen_library, 2},
    {FG_OP_topk, NULL, fg_gen_library, 2},
    {FG_OP_scatter_elements, NULL, fg_gen_library, 2},
    {FG_OP_scatter_nd, NULL, fg_gen_library, 2},
    {FG_OP_nonzero_count, NULL, fg_gen_library, 2},
    {FG_OP_nonzero, NULL, fg_gen_library, 2},
};

typedef struct plan {
    int n;
    fg_part *part;
    int cost;
} plan;

/* The cost of what is chosen. */
static int
choose_part(fg_module *m, fg_block *region, fg_part *p, uint32_t label)
{
    for (size_t k = 0; k < sizeof emitters / sizeof *emitters; k++)
        fg_each_inst(region, i)
            if (i->mark == label && i->op == emitters[k].op &&
                (!emitters[k].takes || emitters[k].takes(m, i))) {
                p->gen = emitters[k].gen;
                p->anchor = i;
                return emitters[k].cost;
            }
    p->gen = fg_gen_loops;
    return 1;
}

static plan
choose(fg_module *m, fg_arena *a, fg_block *region)
{
    plan p = {0};
    p.n = fg_parts_of(m, a, region, &p.part);
    for (int k = 0; k < p.n; k++)
        p.cost += choose_part(m, region, &p.part[k], (uint32_t)k + 1);
    return p;
}

static bool
same_space(const fg_type *a, const fg_type *b)
{
    if (a->rank != b->rank)
        return false;
    for (int k = 0; k < a->rank; k++)
        if (a->dim[k] != b->dim[k])
            return false;
    return true;
}

/* Modules may come as text: a kernel nobody would have formed is refused. */
static bool
expressible(fg_module *m, const fg_inst *kernel, const plan *p)
{
    fg_block *r = kernel->region[0];
    fg_each_inst(r, i)
        if (i->mark && i != p->part[i->mark - 1].anchor && !fg_pull_can(i->op))
            return fg_error(m->cx, "%s: %s needs a kernel of its own",
                            fg_inst_where(m, kernel), fg_op_info(i->op)->name);
    for (int k = 0; k < p->n; k++)
        for (int j = 1; p->part[k].gen == fg_gen_loops && j < p->part[k].nresult; j++)
            if (!same_space(fg_rt(m, r->last->in[p->part[k].result[0]]),
                            fg_rt(m, r->last->in[p->part[k].result[j]])))
                return fg_error(m->cx, "%s: results of different shapes",
                                fg_inst_where(m, kernel));
    return true;
}

/* What an instruction alone would get. */
static fg_genfn *
emitter_of(fg_module *m, const fg_inst *i)
{
    for (size_t k = 0; k < sizeof emitters / sizeof *emitters; k++)
        if (i->op == emitters[k].op && (!emitters[k].takes || emitters[k].takes(m, i)))
            return emitters[k].gen;
    return fg_gen_loops;
}

/* A run of panels of something in memory: they are where they were. */
static bool
whole_panels(fg_module *m, fg_reg r)
{
    const fg_inst *i = fg_def(m, r);
    if (!fg_is_op(i, FG_OP_slice))
        return false;
    const fg_inst *d = fg_def(m, i->in[0]);
    const fg_type *from = fg_rt(m, i->in[0]), *to = fg_rt(m, r);
    return (!d || fg_is_op(d, FG_OP_panels) || fg_is_op(d, FG_OP_const)) &&
           FG_GET(i, slice, step).is[0] == 1 && to->dim[1] == from->dim[1] &&
           to->dim[2] == from->dim[2];
}

/* Both operands of a product are bytes, or both are bf16, before they are widened. */
static bool
narrow_rows(fg_module *m, const fg_inst *matmul)
{
    const fg_inst *x = fg_def(m, matmul->in[0]), *w = fg_def(m, matmul->in[1]);
    while (w && fg_op_is(w->op, FG_T_VIEW))
        w = fg_def(m, w->in[0]);
    return x && w && x->op == w->op &&
           (x->op == FG_OP_dequantize ||
            (x->op == FG_OP_cast && fg_rt(m, x->in[0])->dtype == FG_bf16 &&
             fg_rt(m, w->in[0])->dtype == FG_bf16));
}

fg_fuse
fg_cpu_before(fg_module *m, const fg_inst *anchor, int operand)
{
    fg_genfn *gen = emitter_of(m, anchor);
    if (gen == fg_gen_library || gen == fg_gen_panels)
        return FG_FUSE_NONE;
    if (anchor->op == FG_OP_append) /* a state is read by nobody while it is written */
        return operand == 0 ? FG_FUSE_NONE : FG_FUSE_ALL;
    if (anchor->op == FG_OP_matmul_panels)
        return operand == 0 || whole_panels(m, anchor->in[1]) ? FG_FUSE_VIEWS
                                                              : FG_FUSE_NONE;
    if (gen == fg_gen_rows)
        return operand == 0 ? FG_FUSE_ALL : FG_FUSE_CHEAP;
    /* The second operand of a product is packed once; the first is read for every panel of
     * columns, as it lies in memory. */
    if (gen == fg_gen_matmul && anchor->op == FG_OP_matmul)
        return operand                  ? FG_FUSE_CHEAP
               : narrow_rows(m, anchor) ? FG_FUSE_WIDEN
                                        : FG_FUSE_VIEWS;
    if (gen == fg_gen_attention)
        return operand == 3 ? FG_FUSE_CHEAP : FG_FUSE_VIEWS;
    return gen == fg_gen_loops && fg_op_info(anchor->op)->traits & FG_T_ANCHOR &&
                   anchor->op >= FG_OP_reduce_sum && anchor->op <= FG_OP_reduce_min
               ? FG_FUSE_ALL
               : FG_FUSE_VIEWS;
}

fg_fuse
fg_cpu_after(fg_module *m, const fg_inst *anchor)
{
    fg_genfn *gen = emitter_of(m, anchor);
    if (gen == fg_gen_library || gen == fg_gen_panels || gen == fg_gen_quantize_rows ||
        anchor->op == FG_OP_append)
        return FG_FUSE_NONE;
    return gen == fg_gen_rows ? FG_FUSE_ELEM : FG_FUSE_FORWARD;
}

bool
fg_cpu_twins(fg_module *m, const fg_inst *a, const fg_inst *b)
{
    return emitter_of(m, a) == fg_gen_matmul && fg_matmul_twins(m, a, b);
}

/* ---- equal kernels
 * ------------------------------------------------------------------------------ */

/* A region written as numbers, registers counted in order of appearance: equal
 * numbers, equal code. */
typedef struct words {
    fg_arena *a;
    uint64_t *w;
    size_t n, cap;
    uint32_t *local; /* by register */
    uint32_t nlocal;
} words;

static void
word(words *s, uint64_t v)
{
    FG_PUSH(s->a, s->w, s->n, s->cap) = v;
}

static void
write_register(words *s, fg_module *m, fg_reg r)
{
    const fg_type *t = fg_rt(m, r);
    s->local[r] = ++s->nlocal;
    word(s, (uint64_t)t->dtype << 32 | t->rank);
    for (int a = 0; a < t->rank; a++)
        word(s, t->dim[a]);
}

static void
write_attr(words *s, const fg_attr *a, fg_attrkind kind)
{
    uint64_t bits = 0;
    switch (kind) {
    case FG_AK_expr:
        word(s, a->e);
        break;
    case FG_AK_exprs:
        word(s, (uint64_t)a->n);
        for (int k = 0; k < a->n; k++)
            word(s, a->es[k]);
        break;
    case FG_AK_ints:
    case FG_AK_syms:
        word(s, (uint64_t)a->n);
        for (int k = 0; k < a->n; k++)
            word(s, (uint64_t)a->is[k]);
        break;
    case FG_AK_flt:
        memcpy(&bits, &a->f, sizeof bits);
        word(s, bits);
        break;
    case FG_AK_word:
        word(s, (uint64_t)(uintptr_t)a->s);
        break;
    default:
        word(s, (uint64_t)a->i);
    }
}

static void
write_kernel(words *s, fg_module *m, fg_inst *kernel)
{
    fg_block *r = kernel->region[0];
    s->n = 0;
    s->nlocal = 0;
    for (int k = 0; k < r->nparam; k++)
        write_register(s, m, r->param[k]);
    fg_each_inst(r, i) {
        const fg_opinfo *o = fg_op_info(i->op);
        word(s, (uint64_t)i->op << 32 | (uint64_t)i->nin << 16 | (uint64_t)i->nout |
                    (uint64_t)fg_appends_in_place(m, i) << 8);
        for (int k = 0; k < i->nin; k++)
            word(s, i->in[k] ? s->local[i->in[k]] : 0);
        for (int k = 0; k < o->nattr; k++)
            write_attr(s, &i->attr[k], fg_attrs[o->attr0 + k].kind);
        for (int k = 0; k < i->nout; k++)
            write_register(s, m, i->out[k]);
    }
}

/* One function to be emitted. */
typedef struct function {
    uint64_t *words, hash;
    size_t nword;
    fg_inst *kernel; /* the first that wants it */
    plan plan;
    int part;
    fg_kcode code; /* arguments, chunks, scratch: the same for all */
} function;

typedef struct compile {
    fg_module *m;
    fg_arena *a;
    const fg_cpu_options *o;
    fg_cpu_code *out;
    fg_inst *
        *kernel; /* the module's; then all of them for the first special, and so on */
    size_t capkernel;
    int nkernel, ninst; /* all; those of the module */
    int *fn_of;         /* by kernel */
    function *fn;
    size_t capfn;
    int nfn;
    int32_t *table; /* hash -> fn + 1 */
    size_t tablesize;
    fg_ll *part[MAXPART];
    int nparts;
} compile;

static void
collect(compile *c, fg_block *b)
{
    fg_each_inst(b, i) {
        if (i->op == FG_OP_kernel)
            FG_PUSH(c->a, c->kernel, c->nkernel, c->capkernel) = i;
        else
            for (int k = 0; k < i->nregion; k++)
                collect(c, i->region[k]);
    }
}

/* A region that was formed for any sizes need not be one that an emitter takes for these. */
static fg_inst *
specialise(compile *c, fg_inst *kernel, const fg_special *s)
{
    fg_inst *own = fg_special_kernel(c->m, kernel, s);
    fg_diagmark mark = fg_diag_mark(c->m->cx);
    plan p = choose(c->m, c->a, own->region[0]);
    if (own == kernel || expressible(c->m, own, &p))
        return own;
    fg_diag_forget(c->m->cx, mark);
    return kernel;
}

static void
add_specials(compile *c)
{
    c->ninst = c->nkernel;
    for (uint32_t s = 0; s < c->o->specials.n; s++)
        for (int k = 0; k < c->ninst; k++) {
            fg_inst *own = specialise(c, c->kernel[k], &c->o->specials.list[s]);
            FG_PUSH(c->a, c->kernel, c->nkernel, c->capkernel) = own;
        }
}

static int
find_or_add(compile *c, words *s, fg_inst *kernel)
{
    uint64_t h = fg_hash(s->w, s->n * sizeof *s->w, 0);
    size_t at = h & (c->tablesize - 1);
    for (; c->table[at]; at = (at + 1) & (c->tablesize - 1)) {
        function *f = &c->fn[c->table[at] - 1];
        if (f->hash == h && f->nword == s->n &&
            !memcmp(f->words, s->w, s->n * sizeof *s->w))
            return c->table[at] - 1;
    }
    function f = {.hash = h, .nword = s->n, .kernel = kernel};
    f.words = fg_dup(c->a, s->w, s->n * sizeof *s->w);
    f.plan = choose(c->m, c->a, kernel->region[0]);
    FG_PUSH(c->a, c->fn, c->nfn, c->capfn) = f;
    c->table[at] = c->nfn;
    return c->nfn - 1;
}

static void
share(compile *c)
{
    words s = {.a = c->a, .local = FG_NEWN(c->a, uint32_t, c->m->nreg)};
    for (c->tablesize = 16; c->tablesize < (size_t)c->nkernel * 2;)
        c->tablesize *= 2;
    c->table = FG_NEWN(c->a, int32_t, c->tablesize);
    c->fn_of = FG_NEWN(c->a, int, (size_t)c->nkernel);
    for (int k = 0; k < c->nkernel; k++) {
        write_kernel(&s, c->m, c->kernel[k]);
        c->fn_of[k] = find_or_add(c, &s, c->kernel[k]);
    }
}

/* ---- emission
 * ----------------------------------------------------------------------------------- */

/* Elements of a region's parameter, or of a view of it, that are read: of a table that is
 * only looked up, as many as are found. */
static fg_expr
elements_read(fg_em *e, fg_reg r)
{
    fg_exprs *x = e->m->ex;
    fg_expr whole = fg_type_count(x, fg_rt(e->m, r)), found = fg_ec(x, 0);
    fg_each_inst(e->region, i)
        for (int k = 0; k < i->nin; k++) {
            if (i->in[k] != r || (k == 0 && fg_appends_in_place(e->m, i)))
                continue;
            if (k == 0 && fg_op_is(i->op, FG_T_VIEW))
                found = fg_eadd(x, found, elements_read(e, i->out[0]));
            else if (k == 0 && (i->op == FG_OP_gather || i->op == FG_OP_gather_nd ||
                                i->op == FG_OP_gather_elements))
                found = fg_eadd(x, found, fg_type_count(x, fg_rt(e->m, i->out[0])));
            else
                return whole;
        }
    return fg_emin(x, whole, found);
}

/* Elements of a result that are written: of a state, those appended. */
static fg_expr
elements_written(fg_em *e, int result)
{
    fg_inst *i = fg_def(e->m, e->region->last->in[result]);
    bool in_place = i && fg_appends_in_place(e->m, i);
    return fg_type_count(e->m->ex,
                         fg_rt(e->m, in_place ? i->in[1] : e->kernel->out[result]));
}

/* Bytes that move if every operand is read and every result written once; operations:
 * one per element and instruction. Emitters that know better have said so. */
static void
estimate(fg_em *e)
{
    fg_exprs *x = e->m->ex;
    fg_expr bytes = fg_ec(x, 0), flops = bytes;
    for (int k = 0; k < e->kernel->nin + e->kernel->nout; k++) {
        fg_reg r =
            k < e->kernel->nin ? e->kernel->in[k] : e->kernel->out[k - e->kernel->nin];
        if (!r)
            continue;
        const fg_type *t = fg_rt(e->m, r);
        fg_expr count = k < e->kernel->nin ? elements_read(e, e->region->param[k])
                                           : elements_written(e, k - e->kernel->nin);
        fg_expr bits = fg_emul(x, count, fg_ec(x, fg_dtypes[t->dtype].bits));
        bytes = fg_eadd(x, bytes, fg_ediv(x, bits, fg_ec(x, 8)));
    }
    fg_each_inst(e->region, i)
        if (i->nout && i->op != FG_OP_const && !fg_op_is(i->op, FG_T_VIEW))
            flops = fg_eadd(x, flops, fg_type_count(x, fg_rt(e->m, i->out[0])));
    if (e->bytes == FG_E_BAD)
        e->bytes = bytes;
    if (e->flops == FG_E_BAD)
        e->flops = flops;
}

static bool
emit(compile *c, fg_em *e, int k)
{
    function *f = &c->fn[k];
    char name[32];
    snprintf(name, sizeof name, "fg_k%d", k);
    if (!expressible(c->m, f->kernel, &f->plan))
        return false;
    e->g = c->part[f->part];
    fg_em_begin(e, f->kernel, name);
    const fg_part *only = f->plan.part;
    fg_em_part(e, only, 0);
    if (!(f->plan.n == 1 ? only->gen(e, only->anchor)
                         : fg_gen_parts(e, f->plan.n, only)) ||
        e->failed)
        return false;
    fg_em_end(e);
    estimate(e);
    f->code = (fg_kcode){.fn = k,
                         .narg = e->narg,
                         .arg = e->arg,
                         .chunks = e->chunks,
                         .scratch = e->scratch_bytes,
                         .flops = e->flops,
                         .bytes = e->bytes};
    return true;
}

static int
dearest_first(const void *a, const void *b)
{
    const function *x = *(function *const *)a, *y = *(function *const *)b;
    return x->plan.cost != y->plan.cost ? y->plan.cost - x->plan.cost
                                        : x->code.fn - y->code.fn;
}

/* Helper functions go with the first kernel that calls them. What the dearest kernel calls
 * and others call too should not be beside it: the next in price goes before it. */
static void
order_functions(compile *c, function **order)
{
    int next = 0;
    for (int k = 0; k < c->nfn; k++) {
        c->fn[k].code.fn = k;
        order[k] = &c->fn[k];
    }
    qsort(order, (size_t)c->nfn, sizeof *order, dearest_first);
    while (next < c->nfn && order[next]->plan.cost == order[0]->plan.cost)
        next++;
    if (next < c->nfn) {
        function *f = order[next];
        memmove(order + 1, order, (size_t)next * sizeof *order);
        order[0] = f;
    }
}

/* Each into the module that is smaller so far. */
static bool
emit_all(compile *c)
{
    fg_em e = {.m = c->m, .a = c->a, .source = fg_em_sources(c->a, c->m)};
    int threads = c->o->threads ? c->o->threads : MAXPART;
    function **order = FG_NEWN(c->a, function *, (size_t)c->nfn);
    c->nparts = threads > 1 && c->nfn > 3 ? MAXPART : 1;
    for (int p = 0; p < c->nparts; p++)
        if (!(c->part[p] = ll_new(c->out->machine, c->m->name ? c->m->name : "model")))
            fg_raise_memory(c->m->cx);
    if (c->nparts > 1) {
        c->part[0]->peer = c->part[1];
        c->part[1]->peer = c->part[0];
    }
    order_functions(c, order);
    for (int k = 0; k < c->nfn; k++) {
        order[k]->part = c->nparts > 1 && c->part[1]->size < c->part[0]->size;
        if (!emit(c, &e, order[k]->code.fn))
            return false;
        ll_sweep(c->part[order[k]->part]);
    }
    return true;
}

/* ---- machine code
 * --------------------------------------------------------------------------------- */

typedef struct job {
    const fg_machine *machine;
    fg_ll *g;
    LLVMMemoryBufferRef object;
    char *message;
} job;

static void *
make_object(void *arg)
{
    job *j = arg;
    LLVMTargetMachineRef tm = ll_target_machine(j->machine);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(tm);
    LLVMSetModuleDataLayout(j->g->m, layout);
    if (LLVMTargetMachineEmitToMemoryBuffer(tm, j->g->m, LLVMObjectFile, &j->message,
                                            &j->object))
        j->object = NULL;
    LLVMDisposeTargetData(layout);
    LLVMDisposeTargetMachine(tm);
    return NULL;
}

/* Appends LLVM's text to one of ours. */
static void
keep(char **text, const char *more, size_t n)
{
    size_t old = *text ? strlen(*text) : 0;
    char *t = realloc(*text, old + n + 1);
    if (!t)
        return;
    memcpy(t + old, more, n);
    t[old + n] = 0;
    *text = t;
}

static void
keep_text(compile *c)
{
    for (int p = 0; p < c->nparts; p++) {
        char *ir = LLVMPrintModuleToString(c->part[p]->m), *message = NULL;
        keep(&c->out->text[0], ir, strlen(ir));
        LLVMDisposeMessage(ir);
        LLVMTargetMachineRef tm = ll_target_machine(c->out->machine);
        LLVMModuleRef copy = LLVMCloneModule(c->part[p]->m);
        LLVMMemoryBufferRef b = NULL;
        if (!LLVMTargetMachineEmitToMemoryBuffer(tm, copy, LLVMAssemblyFile, &message,
                                                 &b)) {
            keep(&c->out->text[1], LLVMGetBufferStart(b), LLVMGetBufferSize(b));
            LLVMDisposeMemoryBuffer(b);
        } else {
            LLVMDisposeMessage(message);
        }
        LLVMDisposeModule(copy);
        LLVMDisposeTargetMachine(tm);
    }
}

static void
found(void *user, const char *name, void *address)
{
    fg_cpu_code *code = user;
    int k;
    if (sscanf(name, "fg_k%d", &k) == 1 && k >= 0 && k < code->nfn)
        code->fn[k] = (fg_kernel_fn *)address;
}

static bool
verify(compile *c)
{
#ifndef NDEBUG
    for (int p = 0; p < c->nparts; p++) {
        char *message = NULL;
        bool bad = LLVMVerifyModule(c->part[p]->m, LLVMReturnStatusAction, &message);
        if (bad)
            fg_error(c->m->cx, "generated code is not valid: %.600s", message);
        LLVMDisposeMessage(message);
        if (bad)
            return false;
    }
#else
    (void)c;
#endif
    return true;
}

static bool
generate(compile *c)
{
    job j[MAXPART] = {{0}};
    pthread_t other;
    bool beside = false, ok = true;
    for (int p = 0; p < c->nparts; p++)
        j[p] = (job){.machine = c->out->machine, .g = c->part[p]};
    if (c->nparts > 1)
        beside = !pthread_create(&other, NULL, make_object, &j[1]);
    make_object(&j[0]);
    if (beside)
        pthread_join(other, NULL);
    else if (c->nparts > 1)
        make_object(&j[1]);
    fg_object object[MAXPART] = {{0}};
    const char *why = NULL;
    for (int p = 0; p < c->nparts; p++) {
        if (!j[p].object)
            ok = fg_error(c->m->cx, "LLVM: %.500s",
                          j[p].message ? j[p].message : "no object");
        else
            object[p] = (fg_object){LLVMGetBufferStart(j[p].object),
                                    LLVMGetBufferSize(j[p].object)};
    }
    if (ok && !c->o->no_link &&
        !fg_link(&c->out->image, object, c->nparts, found, c->out, &why))
        ok = fg_error(c->m->cx, "%s", why);
    for (int p = 0; p < c->nparts; p++) {
        if (ok && c->o->keep_objects)
            c->out->object[p] = j[p].object;
        else if (j[p].object)
            LLVMDisposeMemoryBuffer(j[p].object);
        LLVMDisposeMessage(j[p].message);
    }
    return ok;
}

/* ---- the target
 * ------------------------------------------------------------------------------------ */

static void
describe_kernels(compile *c, fg_kcode **kc, int *nkc)
{
    *kc = FG_NEWN(c->a, fg_kcode, (size_t)c->nkernel);
    *nkc = c->ninst;
    for (int k = 0; k < c->nkernel; k++) {
        (*kc)[k] = c->fn[c->fn_of[k]].code;
        (*kc)[k].inst = c->kernel[k % c->ninst];
    }
}

typedef struct attempt {
    compile *c;
    bool ok;
} attempt;

static void
compile_all(void *arg)
{
    attempt *t = arg;
    compile *c = t->c;
    collect(c, c->m->body);
    add_specials(c);
    share(c);
    c->out->nfn = c->nfn;
    c->out->fn = calloc((size_t)c->nfn + 1, sizeof *c->out->fn);
    if (!c->out->fn)
        fg_raise_memory(c->m->cx);
    if (!emit_all(c) || !verify(c))
        return;
    if (c->o->keep_text)
        keep_text(c);
    t->ok = c->nfn == 0 || generate(c);
}

void
fg_cpu_open(const char *cpu)
{
    const char *why;
    fg_machine *t = ll_machine_new(cpu, &why);
    if (t) {
        LLVMDisposeTargetMachine(ll_target_machine(t));
        ll_machine_free(t);
    }
}

fg_cpu_code *
fg_cpu_compile(fg_module *m, fg_arena *a, const fg_cpu_options *o, fg_kcode **kc,
               int *nkc)
{
    fg_cpu_code *out = calloc(1, sizeof *out);
    const char *why = NULL;
    compile c = {.m = m, .a = a, .o = o, .out = out};
    attempt t = {.c = &c};
    uint32_t nreg = m->nreg;
    if (!out)
        fg_raise_memory(m->cx);
    if (!(out->machine = ll_machine_new(o->cpu, &why))) {
        fg_error(m->cx, "cpu \"%.60s\": %s", o->cpu ? o->cpu : "native", why);
        fg_cpu_free(out);
        return NULL;
    }
    if (!fg_knobs_read(m->cx, "codegen", o->knobs, out->machine->knob)) {
        fg_cpu_free(out);
        return NULL;
    }
    /* LLVM's memory is its own: whatever unwinds past here must give it back first. */
    fg_raise how = fg_protect(m->cx, compile_all, &t);
    for (int p = 0; p < c.nparts; p++)
        ll_free(c.part[p]);
    fg_cpu_trim();
    m->nreg = nreg; /* nobody reads those of specialised kernels any more */
    if (how == FG_RAISE_NONE && t.ok) {
        describe_kernels(&c, kc, nkc);
        return out;
    }
    fg_cpu_free(out);
    if (how == FG_RAISE_MEMORY)
        fg_raise_memory(m->cx);
    return NULL;
}

fg_kernel_fn *
fg_cpu_fn(const fg_cpu_code *c, int fn)
{
    return c->fn[fn];
}

const fg_image *
fg_cpu_image(const fg_cpu_code *c)
{
    return &c->image;
}

uint32_t
fg_cpu_shares(const fg_cpu_code *c)
{
    return (uint32_t)c->machine->knob[FG_KNOB_shares];
}

int
fg_cpu_functions(const fg_cpu_code *c)
{
    return c->nfn;
}

const void *
fg_cpu_object(const fg_cpu_code *c, int k, size_t *bytes)
{
    if (k >= MAXPART || !c->object[k])
        return NULL;
    *bytes = LLVMGetBufferSize(c->object[k]);
    return LLVMGetBufferStart(c->object[k]);
}

void
fg_cpu_drop_objects(fg_cpu_code *c)
{
    for (int p = 0; p < MAXPART; p++) {
        if (c->object[p])
            LLVMDisposeMemoryBuffer(c->object[p]);
        c->object[p] = NULL;
    }
}

bool
fg_cpu_isa(const fg_cpu_code *c, char *out, size_t n)
{
    const fg_machine *t = c->machine;

    return t->isa ? snprintf(out, n, "%s", t->isa) < (int)n
                  : fg_isa_text(fg_isa_of_list(t->features), out, n);
}

const char *
fg_cpu_platform(const fg_cpu_code *c)
{
    return c->machine->arm ? "aarch64-linux" : "x86_64-linux";
}

const char *
fg_cpu_text(const fg_cpu_code *c, bool asm_text)
{
    return c->text[asm_text];
}

const char *
fg_cpu_name(const fg_cpu_code *c)
{
    return c->machine->cpu;
}

void
fg_cpu_free(fg_cpu_code *c)
{
    if (!c)
        return;
    fg_unlink(&c->image);
    fg_cpu_drop_objects(c);
    ll_machine_free(c->machine);
    free(c->fn);
    free(c->text[0]);
    free(c->text[1]);
    free(c);
}
