/* differ.c - where a compilation goes wrong.
 *
 *     imported ──> pass ──> pass ──> .. ──> PLACED ──> code
 *        │           │        │                │         │
 *     values       values   values           values   values      evaluator, but the last
 *
 * The code is compared with the evaluator's reading of the same module, each register right after
 * the step that computes it, when its storage is still its own. The passes are
 * compared by what the module computes after each. So one side of every comparison is right, and
 * what is found first is where it goes wrong. Registers of other texts are told by their names, which
 * passes keep.
 */
#include "codegen/differ.h"

#include <math.h>
#include <stdlib.h>

#include "passes/reduce.h"
#include "runtime/rt.h"

/* A module and what its registers are worth. */
typedef struct values {
    fg_module *m;
    fg_tensor *reg; /* [nreg] */
    fg_tensor *out; /* [noutput] */
    fg_reg *named;  /* those of @main's own block, ordered by name */
    int nnamed;
} values;

/* ---- values by name ---------------------------------------------------------------- */

static int
by_name(const void *x, const void *y, void *module)
{
    return strcmp(fg_ri(module, *(const fg_reg *)x)->name,
                  fg_ri(module, *(const fg_reg *)y)->name);
}

static void
name_values(values *v, fg_arena *a)
{
    v->named = FG_NEWN(a, fg_reg, v->m->nreg);
    for (fg_reg r = 1; r < v->m->nreg; r++)
        if (fg_ri(v->m, r)->block == v->m->body && fg_ri(v->m, r)->name &&
            v->reg[r].dtype)
            v->named[v->nnamed++] = r;
    qsort_r(v->named, (size_t)v->nnamed, sizeof *v->named, by_name, v->m);
}

/* The register of that name; 0 when there is none. */
static fg_reg
find(const values *v, const char *name)
{
    int lo = 0, hi = v->nnamed;
    while (lo < hi) {
        int mid = (lo + hi) / 2, c = strcmp(fg_ri(v->m, v->named[mid])->name, name);
        if (c == 0)
            return v->named[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

/* Inputs of m: those of the run by position, or what `from` has under their names. */
static bool
inputs(const fg_differ *d, fg_arena *a, const fg_module *m, const values *from,
       fg_tensor **in)
{
    *in = from ? FG_NEWN(a, fg_tensor, (size_t)m->ninput + 1) : d->in;
    for (int k = 0; from && k < m->ninput; k++) {
        fg_reg r = find(from, m->input[k].name);
        if (!r)
            return false;
        (*in)[k] = from->reg[r];
    }
    return from || m->ninput == d->nin;
}

static bool
evaluate(const fg_differ *d, fg_arena *a, fg_module *m, const values *from, values *v)
{
    fg_tensor *in;
    *v = (values){.m = m};
    if (!m || !inputs(d, a, m, from, &in))
        return false;
    v->reg = FG_NEWN(a, fg_tensor, m->nreg);
    v->out = FG_NEWN(a, fg_tensor, (size_t)m->noutput + 1);
    if (!fg_eval(m, a, in, v->out, v->reg))
        return false;
    name_values(v, a);
    return true;
}

/* ---- comparison -------------------------------------------------------------------- */

static const struct {
    double atol, rtol;
} defaults[FG_NDTYPES] = {[FG_f32] = {1e-4, 1e-3},
                          [FG_f64] = {1e-4, 1e-3},
                          [FG_f16] = {1e-2, 1e-2},
                          [FG_bf16] = {1.0 / 64, 1.0 / 64}};

static bool
same_shape(const fg_tensor *x, const fg_tensor *y)
{
    return x->dtype == y->dtype && x->rank == y->rank &&
           !memcmp(x->dim, y->dim, sizeof *x->dim * (size_t)x->rank);
}

static bool
is_wrong(const fg_differ *d, const fg_tensor *got, const fg_tensor *want,
         fg_distance *distance)
{
    double largest = 1, atol = d->atol < 0 ? defaults[want->dtype].atol : d->atol;
    double rtol = d->rtol < 0 ? defaults[want->dtype].rtol : d->rtol;
    *distance = (fg_distance){.ulp = INFINITY, .at = 0};
    if (!same_shape(got, want))
        return true;
    *distance = fg_tensor_distance(got, want);
    if (!distance->differ || !fg_is_float(want->dtype))
        return distance->differ > 0;
    for (int64_t k = 0; k < want->count; k++) {
        double w = fabs(fg_tensor_f64(want, k));
        largest = isfinite(w) && w > largest ? w : largest;
    }
    for (int64_t k = 0; k < want->count; k++) {
        double g = fg_tensor_f64(got, k), w = fg_tensor_f64(want, k);
        if (g != w && !(isnan(g) && isnan(w)) &&
            !(fabs(g - w) <= atol * largest + rtol * fabs(w)))
            return true;
    }
    return false;
}

/* The first output that differs; -1 when none does. */
static int
wrong_output(const fg_differ *d, const values *got, const values *want,
             fg_distance *distance)
{
    for (int k = 0; k < want->m->noutput; k++)
        if (k >= got->m->noutput || is_wrong(d, &got->out[k], &want->out[k], distance))
            return k;
    return -1;
}

static const char *
joined_nodes(fg_arena *a, const fg_inst *i)
{
    fg_text t = fg_text_new(a);
    for (int k = 0; i && k < i->nnode; k++)
        fg_putf(&t, "%s%s", k ? ", " : "", i->node[k]);
    return t.s;
}

static fg_differ_row
row_of(const fg_differ *d, fg_module *m, fg_reg r)
{
    return (fg_differ_row){.name = fg_ri(m, r)->name,
                           .nodes = joined_nodes(d->a, fg_def(m, r)),
                           .type = fg_type_text(m, fg_rt(m, r))};
}

/* ---- running ----------------------------------------------------------------------- */

typedef struct watch {
    fg_differ *d;
    const fg_compiled *c;
    forge_run *run;
    const values *want; /* NULL: only to spoil */
    fg_arena *a;
} watch;

static bool
tensor_now(const forge_run *r, uint32_t t, fg_tensor *out)
{
    const fg_tensordef *x = &r->p->tensor[t];
    *out = (fg_tensor){
        .dtype = (fg_dtype)x->dtype, .rank = x->rank, .count = 1, .data = r->addr[t]};
    for (int k = 0; k < x->rank; k++)
        out->count *= out->dim[k] = r->value[x->dim[k]];
    return out->data || !out->count;
}

/* Results of a kernel come last among its buffers; all have the same definition. */
static void
after_step(void *user, uint32_t step, int64_t ns)
{
    watch *w = user;
    const fg_step *s = &w->run->p->step[step];
    const fg_inst *kernel = NULL;
    (void)ns;
    if (s->kind != FG_STEP_KERNEL)
        return;
    for (uint32_t k = s->nbuf; k-- > 0;) {
        const char *name = w->run->p->tensor[s->buf[k]].name;
        fg_tensor got;
        if (!tensor_now(w->run, s->buf[k], &got))
            return;
        if (w->d->spoil_step && k + 1 == s->nbuf)
            w->d->spoil_step(w->d->user, name, &got);
        fg_reg r = w->want ? find(w->want, name) : 0;
        const fg_inst *def = r ? fg_def(w->c->m, r) : NULL;
        if (!def || (kernel && def != kernel))
            return;
        kernel = def;
        fg_differ_row row = row_of(w->d, w->c->m, r);
        row.wrong = is_wrong(w->d, &got, &w->want->reg[r], &row.d);
        if (row.wrong && w->d->first_wrong < 0)
            w->d->first_wrong = w->d->nrow;
        FG_PUSH(w->d->a, w->d->row, w->d->nrow, w->d->caprow) = row;
    }
}

static bool
copy_outputs(const fg_compiled *c, fg_arena *a, forge_run *r, fg_tensor *out)
{
    for (int p = 0; p < c->m->noutput; p++) {
        forge_dtype t;
        int rank;
        const int64_t *dims;
        size_t bytes;
        const void *data = forge_output(r, c->m->output[p].name, &t, &rank, &dims);
        if (!data || !fg_tensor_new(a, &out[p], (fg_dtype)t, rank, dims) ||
            !fg_dtype_bytes((fg_dtype)t, out[p].count, &bytes))
            return false;
        if (bytes)
            memcpy(out[p].data, data, bytes);
    }
    return true;
}

bool
fg_differ_execute(fg_differ *d, fg_compiled *c, fg_arena *a, const fg_tensor *in,
                  fg_tensor *out)
{
    forge_ctx *host;
    forge_run *r = NULL;
    forge_model model = {.program = c->program};
    if (forge_open(NULL, &host))
        return fg_error(c->cx, "out of memory");
    fg_model_init(&model, host);
    bool ok = !forge_run_new(host, &model, &r) && !forge_run_threads(r, 1);
    for (int p = 0; ok && p < c->m->ninput; p++)
        ok = !in[p].dtype ||
             !forge_bind_input(r, c->m->input[p].name, (forge_dtype)in[p].dtype,
                               in[p].rank, in[p].dim, in[p].data);
    watch w = {d, c, r, NULL, a};
    if (ok && d && d->spoil_step) {
        r->hook = after_step;
        r->hook_user = &w;
    }
    ok = ok && !forge_execute(r);
    if (!ok)
        fg_error(c->cx, "%s", forge_message(host));
    ok = ok && copy_outputs(c, a, r, out);
    forge_run_free(r);
    fg_model_done(&model);
    forge_close(host);
    return ok;
}

static void
observe(void *user, const fg_passinfo *p, int round, bool before, bool changed,
        fg_module *m)
{
    fg_differ *d = user;
    if (before)
        return;
    if (d->spoil_pass)
        d->spoil_pass(d->user, p->name, m);
    if (!changed && !d->spoil_pass)
        return;
    fg_text t = fg_text_new(d->a);
    fg_print(&t, m);
    FG_PUSH(d->a, d->change, d->nchange, d->capchange) =
        (fg_differ_change){.pass = p->name, .text = t.s, .round = round};
}

void
fg_differ_watch(fg_differ *d, fg_compiled *c)
{
    fg_text t = fg_text_new(d->a);
    fg_print(&t, c->m);
    d->imported = t.s;
    d->like = fg_parse_again(c->m, d->a, "imported", t.s);
    c->observe = observe;
    c->user = d;
}

/* What the host has bound; an input without data has its default. */
static void
take_inputs(fg_differ *d, const fg_compiled *c, const forge_run *r)
{
    d->nin = c->m->ninput;
    d->in = FG_NEWN(d->a, fg_tensor, (size_t)d->nin + 1);
    for (int k = 0; k < d->nin; k++) {
        const fg_type *t = fg_rt(c->m, c->m->input[k].reg);
        if (!r->in[k].bound)
            continue;
        d->in[k] = (fg_tensor){.dtype = (fg_dtype)t->dtype,
                               .rank = t->rank,
                               .count = 1,
                               .data = (void *)(uintptr_t)r->in[k].data};
        for (int a = 0; a < t->rank; a++)
            d->in[k].count *= d->in[k].dim[a] = r->in[k].dim[a];
    }
}

bool
fg_differ_run(fg_differ *d, fg_compiled *c, forge_run *r)
{
    values imported, placed;
    d->first_wrong = -1;
    take_inputs(d, c, r);
    if (!d->like || !evaluate(d, d->a, d->like, NULL, &imported) ||
        !evaluate(d, d->a, c->m, NULL, &placed))
        return false;
    int k = wrong_output(d, &placed, &imported, &d->passes.d);
    if (k >= 0) {
        fg_distance distance = d->passes.d;
        d->passes = row_of(d, d->like, d->like->output[k].reg);
        d->passes.name = d->like->output[k].name;
        d->passes.wrong = true;
        d->passes.d = distance;
    }
    watch w = {d, c, r, &placed, d->a};
    r->hook = after_step;
    r->hook_user = &w;
    bool ok = !forge_execute(r);
    r->hook = NULL;
    return ok || fg_error(d->cx, "%s", forge_message(r->cx));
}

/* ---- bisection --------------------------------------------------------------------- */

typedef struct bisection {
    fg_differ *d;
    const fg_differ_change *change; /* NULL: the code */
    const forge_options *o;
    values before; /* whose values inputs of reduced modules have */
} bisection;

static fg_module *
again(const fg_differ *d, fg_arena *a, const char *text)
{
    return fg_parse_again(d->like, a, "text", text);
}

static const char *
inst_text(const fg_differ *d, fg_module *m, const fg_inst *i)
{
    fg_text t = fg_text_new(d->a);
    fg_print_inst(&t, m, i, 0);
    size_t n = strcspn(t.s, "\n");
    return fg_format(d->a, "%.*s", (int)n, t.s);
}

/* The first instruction of `after` with a value that its register did not have before. */
static const fg_inst *
first_instruction(const fg_differ *d, const values *before, const values *after)
{
    fg_distance unused;
    fg_each_inst(after->m->body, i)
        for (int k = 0; k < i->nout; k++) {
            fg_reg r = find(before, fg_ri(after->m, i->out[k])->name);
            if (r && after->reg[i->out[k]].dtype &&
                same_shape(&after->reg[i->out[k]], &before->reg[r]) &&
                is_wrong(d, &after->reg[i->out[k]], &before->reg[r], &unused))
                return i;
        }
    int k = wrong_output(d, after, before, &unused);
    return k < 0 ? NULL : fg_def(after->m, after->m->output[k].reg);
}

/* Does the pass change what m computes? */
static bool
pass_spoils(void *user, fg_module *m)
{
    bisection *b = user;
    values want, got;
    fg_text t = fg_text_new(m->a);
    fg_report report = {.a = m->a};
    fg_pipeline p = {
        .passes = b->change->pass, .opt = b->o->opt, .rounds = 1, .alpha = b->o->alpha};
    fg_print(&t, m);
    fg_module *after = again(b->d, m->a, t.s);
    if (!evaluate(b->d, m->a, m, &b->before, &want) || !after ||
        !fg_run_passes(after, &p, &report))
        return false;
    if (b->d->spoil_pass)
        b->d->spoil_pass(b->d->user, b->change->pass, after);
    fg_distance unused;
    return evaluate(b->d, m->a, after, &b->before, &got) &&
           wrong_output(b->d, &got, &want, &unused) >= 0;
}

/* Does the code of m compute something else? */
static bool
code_spoils(void *user, fg_module *m)
{
    bisection *b = user;
    values want, got = {.m = m};
    fg_tensor *in;
    fg_distance unused;
    fg_text t = fg_text_new(m->a);
    fg_print(&t, m);
    fg_compiled c = {.cx = b->d->cx, .a = m->a, .m = again(b->d, m->a, t.s)};
    if (!evaluate(b->d, m->a, m, &b->before, &want) ||
        !inputs(b->d, m->a, m, &b->before, &in))
        return false;
    got.out = FG_NEWN(m->a, fg_tensor, (size_t)m->noutput + 1);
    bool ok = c.m && fg_compile_module(&c, b->o) &&
              fg_differ_execute(b->d, &c, m->a, in, got.out) &&
              wrong_output(b->d, &got, &want, &unused) >= 0;
    fg_cpu_free(c.code);
    return ok;
}

static void
put_tensor(fg_text *o, const char *what, const fg_tensor *t)
{
    fg_weight w = {.dtype = t->dtype, .rank = t->rank, .data = t->data};
    memcpy(w.dim, t->dim, sizeof w.dim);
    fg_dtype_bytes(t->dtype, t->count, &w.bytes);
    fg_putf(o, "; %s ", what);
    fg_put_literal(o, &w);
    fg_putc(o, '\n');
}

/* The reduced text with what makes it a test: a pass to run, or inputs and outputs. */
static const char *
as_test(bisection *b, const char *text)
{
    const fg_differ *d = b->d;
    fg_text o = fg_text_new(d->a);
    values v;
    fg_module *m = again(d, d->a, text);
    if (b->change) {
        fg_putf(&o, "; RUN: --pass=%s\n; Goes wrong in %s.\n%s", b->change->pass,
                b->change->pass, text);
        return o.s;
    }
    fg_puts(&o, "; RUN: --eval\n; The code goes wrong.\n");
    if (m && evaluate(d, d->a, m, &b->before, &v)) {
        for (int k = 0; k < m->ninput; k++)
            put_tensor(&o, "IN:", &v.reg[m->input[k].reg]);
        for (int k = 0; k < m->noutput; k++)
            put_tensor(&o, "OUT:", &v.out[k]);
    }
    fg_puts(&o, text);
    return o.s;
}

/* The change after which the outputs are wrong for the first time; -1: none. */
static int
first_change(fg_differ *d, const values *imported)
{
    for (int k = 0; k < d->nchange; k++) {
        fg_arena *a = fg_arena_new(d->cx);
        fg_diagmark mark = fg_diag_mark(d->cx);
        values v;
        fg_distance unused;
        bool wrong = !evaluate(d, a, again(d, a, d->change[k].text), NULL, &v) ||
                     wrong_output(d, &v, imported, &unused) >= 0;
        fg_diag_forget(d->cx, mark);
        fg_arena_free(a);
        if (wrong)
            return k;
    }
    return -1;
}

static bool
bisect_passes(fg_differ *d, bisection *b)
{
    int k = d->first_change;
    const char *text = k ? d->change[k - 1].text : d->imported;
    values after;
    b->change = &d->change[k];
    if (!evaluate(d, d->a, again(d, d->a, text), NULL, &b->before))
        return false;
    const char *focus = NULL;
    if (evaluate(d, d->a, again(d, d->a, b->change->text), NULL, &after)) {
        const fg_inst *i = first_instruction(d, &b->before, &after);
        d->instruction = i ? inst_text(d, after.m, i) : "";
        focus = i && i->nout ? fg_ri(after.m, i->out[0])->name : NULL;
    } else {
        d->instruction = fg_format(d->a, "%s", fg_last_text(d->cx));
    }
    d->test = as_test(b, fg_reduce(d->like, d->a, text, focus, pass_spoils, b));
    return true;
}

/* The module that was made into code: before it was placed. */
static bool
bisect_code(fg_differ *d, bisection *b, fg_compiled *c)
{
    const char *text = d->imported;
    for (int k = 0; k < d->nchange && strcmp(d->change[k].pass, "place"); k++)
        text = d->change[k].text;
    if (!evaluate(d, d->a, again(d, d->a, text), NULL, &b->before))
        return false;
    const char *name = d->row[d->first_wrong].name;
    for (fg_reg r = 1; r < c->m->nreg; r++)
        if (fg_ri(c->m, r)->block == c->m->body && !strcmp(fg_ri(c->m, r)->name, name))
            d->instruction = inst_text(d, c->m, fg_def(c->m, r));
    d->test = as_test(b, fg_reduce(d->like, d->a, text, name, code_spoils, b));
    return true;
}

bool
fg_differ_bisect(fg_differ *d, fg_compiled *c, const forge_options *o)
{
    bisection b = {.d = d, .o = o};
    values imported;
    if (!evaluate(d, d->a, d->like, NULL, &imported))
        return false;
    d->first_change = d->passes.name ? first_change(d, &imported) : -1;
    if (d->first_change >= 0)
        return bisect_passes(d, &b);
    return d->first_wrong < 0 || bisect_code(d, &b, c);
}
