/* eval.c - the evaluator's walk: instructions in order, regions, symbols.
 *
 *     loop %n, %true, %h {carried=1, syms=[P]} : f32[B,P,64]
 *
 * Registers hold tensors and symbols hold integers. An instruction sees concrete shapes:
 * its result types under the symbols of that moment. Input symbols come from the shapes of
 * the inputs before anything runs; run-time symbols from readsym, or from the shape
 * of what flows into a region or out of it. A kernel is its region, run in place.
 */
#include "ir/eval_impl.h"

#include <stdio.h>

#define UNBOUND INT64_MIN /* value of a symbol that has none yet */

enum { MAX_STEPS = 1000000 }; /* loop iterations of one evaluation */

typedef struct env { /* what symbols are worth */
    fg_module *m;
    int64_t *sym;
    fg_bits used; /* scratch: symbols of one expression */
} env;

typedef struct run {
    fg_module *m;
    fg_arena *a;
    env env;
    fg_tensor *reg; /* [nreg] */
    int64_t steps;  /* loop iterations left */
} run;

/* ---- symbols ----------------------------------------------------------------------- */

static env
env_new(fg_module *m, fg_arena *a)
{
    uint32_t n = fg_sym_count(m->ex);
    env v = {m, FG_NEWN(a, int64_t, n), fg_bits_new(a, n)};

    for (fg_sym s = 0; s < n; s++)
        v.sym[s] = UNBOUND;
    return v;
}

static void
use_symbols(const env *v, fg_expr e)
{
    for (uint32_t s = 0; s < v->used.n; s++)
        fg_bits_del(v->used, s);
    fg_e_symbols(v->m->ex, e, v->used);
}

/* How many symbols of e are unbound; *which is one of them. */
static int
count_unbound(const env *v, fg_expr e, fg_sym *which)
{
    int n = 0;

    use_symbols(v, e);
    for (fg_sym s = 0; s < v->used.n; s++)
        if (fg_bits_has(v->used, s) && v->sym[s] == UNBOUND) {
            *which = s;
            n++;
        }
    return n;
}

static bool
value_of(const env *v, fg_expr e, int64_t *value)
{
    fg_sym which;

    return fg_e_const(v->m->ex, e, value) ||
           (count_unbound(v, e, &which) == 0 && fg_e_eval(v->m->ex, e, v->sym, value));
}

static bool
mentions(const env *v, fg_expr e, fg_sym s)
{
    use_symbols(v, e);
    return fg_bits_has(v->used, s);
}

/* e is a sum with s in it only as c s, c not depending on s. */
static bool
linear_in(const env *v, fg_expr e, fg_sym s)
{
    const fg_exprs *t = v->m->ex;

    for (int k = 0; k < fg_e_nterms(t, e); k++) {
        const uint32_t *atoms;
        int natoms, degree = 0;

        fg_e_term(t, e, k, &atoms, &natoms);
        for (int j = 0; j < natoms; j++) {
            fg_atom at = fg_atom_get(t, atoms[j]);

            if (at.kind == FG_ATOM_SYM)
                degree += at.sym == s;
            else if (mentions(v, at.a, s) || mentions(v, at.b, s))
                return false;
        }
        if (degree > 1)
            return false;
    }
    return true;
}

/* Binds the one unbound symbol of e so that e is `value`; false when there is not exactly
 * one or it cannot be found. A remainder is dropped: the check that follows sees it. */
static bool
solve(const env *v, fg_expr e, int64_t value)
{
    fg_sym s;
    int64_t rest, one, coef;
    bool ok;

    if (count_unbound(v, e, &s) != 1 || !linear_in(v, e, s))
        return false;
    v->sym[s] = 0;
    ok = fg_e_eval(v->m->ex, e, v->sym, &rest);
    v->sym[s] = 1;
    ok = ok && fg_e_eval(v->m->ex, e, v->sym, &one);
    v->sym[s] = UNBOUND;
    if (!ok || __builtin_sub_overflow(one, rest, &coef) || coef == 0 ||
        __builtin_sub_overflow(value, rest, &value) || (value == INT64_MIN && coef == -1))
        return false;
    v->sym[s] = value / coef;
    return v->sym[s] != UNBOUND;
}

/* Binds what the shapes of n tensors determine; absent tensors say nothing. */
static void
solve_shapes(const env *v, int n, const fg_tensor *t, const fg_type *const *type)
{
    for (bool progress = true; progress;) {
        progress = false;
        for (int k = 0; k < n; k++)
            for (int d = 0; d < t[k].rank && d < type[k]->rank; d++)
                progress |= solve(v, type[k]->dim[d], t[k].dim[d]);
    }
}

static const char *
expr_text(fg_module *m, fg_expr e)
{
    fg_text o = fg_text_new(m->a);

    fg_put_expr(&o, m->ex, e);
    return o.s;
}

/* Dimension d of t is what its type says, and inside the bounds of a bare symbol. */
static bool
dim_fits(const env *v, const fg_tensor *t, const fg_type *type, int d)
{
    int64_t want;
    fg_sym s;

    if (!value_of(v, type->dim[d], &want) || t->dim[d] != want)
        return false;
    if (!fg_e_single(v->m->ex, type->dim[d], &s))
        return true;
    return want >= fg_sym_info(v->m->ex, s)->lo && want <= fg_sym_info(v->m->ex, s)->hi;
}

static bool
blame_dim(const env *v, const char *who, const fg_tensor *t, const fg_type *type, int d)
{
    fg_module *m = v->m;
    long long have = t->dim[d];
    const char *text = expr_text(m, type->dim[d]);
    int64_t want;
    fg_sym s;

    if (fg_e_const(m->ex, type->dim[d], &want))
        return fg_error(m->cx, "%s: dimension %d is %lld, expected %lld", who, d, have,
                        (long long)want);
    if (!value_of(v, type->dim[d], &want))
        return fg_error(m->cx, "%s: dimension %d is %lld, which does not determine %s",
                        who, d, have, text);
    if (want == have && fg_e_single(m->ex, type->dim[d], &s))
        return fg_error(m->cx, "%s: dimension %d is %lld, outside %lld..%lld of %s", who,
                        d, have, (long long)fg_sym_info(m->ex, s)->lo,
                        (long long)fg_sym_info(m->ex, s)->hi, text);
    return fg_error(m->cx, "%s: dimension %d is %lld, expected %s = %lld", who, d, have,
                    text, (long long)want);
}

/* The first dimension of t that is not its type's; rank when all are, -1 when type or rank
 * already differ. */
static int
first_misfit(const env *v, const fg_tensor *t, const fg_type *type)
{
    int d = 0;

    if (t->dtype != type->dtype || t->rank != type->rank)
        return -1;
    while (d < t->rank && dim_fits(v, t, type, d))
        d++;
    return d;
}

static bool
blame(const env *v, const char *who, const fg_tensor *t, const fg_type *type, int d)
{
    if (t->dtype != type->dtype)
        return fg_error(v->m->cx, "%s is %s, expected %s", who, fg_dtypes[t->dtype].name,
                        fg_dtypes[type->dtype].name);
    if (t->rank != type->rank)
        return fg_error(v->m->cx, "%s has %d dimensions, expected %d", who, t->rank,
                        type->rank);
    return blame_dim(v, who, t, type, d);
}

static bool
bind_inputs(const env *v, const fg_tensor *in)
{
    fg_module *m = v->m;
    const fg_type **type = FG_NEWN(m->a, const fg_type *, (size_t)m->ninput);
    fg_type *own = FG_NEWN(m->a, fg_type, (size_t)m->ninput);

    for (int p = 0; p < m->ninput; p++) {
        own[p] = fg_input_type(m, p);
        type[p] = &own[p];
    }
    solve_shapes(v, m->ninput, in, type);
    for (int k = 0; k < m->nstate; k++) { /* storage as large as what comes out of it */
        const fg_state *s = &m->state[k];
        int64_t length, rows;
        if (s->at != FG_E_BAD && value_of(v, s->length, &length))
            solve(v, s->at, length);
        if (s->length != FG_E_BAD && value_of(v, fg_state_rows(m, s), &rows))
            solve(v, fg_state_capacity(m, s), rows);
    }
    for (int p = 0; p < m->ninput; p++) {
        const char *name = m->input[p].name;
        bool absent = in[p].dtype == FG_NODTYPE;
        int d = absent ? 0 : first_misfit(v, &in[p], type[p]);

        if (absent ? m->input[p].weight >= 0 : d == type[p]->rank)
            continue;
        name =
            fg_format(m->a, "input \"%s\"", fg_printable(m->a, name, strlen(name), 200));
        return absent ? fg_error(m->cx, "%s is not given", name)
                      : blame(v, name, &in[p], type[p], d);
    }
    for (fg_sym s = 0; s < v->used.n; s++) { /* those replaced by unification */
        fg_expr is = fg_sym_info(m->ex, s)->is;

        if (is != FG_E_BAD && !value_of(v, is, &v->sym[s]))
            v->sym[s] = UNBOUND;
    }
    return true;
}

bool
fg_bind_symbols(fg_module *m, const fg_tensor *in, int64_t *sym)
{
    env v = env_new(m, m->a);

    if (!bind_inputs(&v, in))
        return false;
    memcpy(sym, v.sym, v.used.n * sizeof *sym);
    return true;
}

/* ---- one instruction --------------------------------------------------------------- */

bool
fg_eval_error(fg_evalcall *c, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fg_error(c->m->cx, "%s: %s", fg_inst_where(c->m, c->i), text);
}

bool
fg_eval_expr(fg_evalcall *c, fg_expr e, int64_t *v)
{
    env now = {c->m, (int64_t *)c->sym, fg_bits_new(c->scratch, fg_sym_count(c->m->ex))};

    return value_of(&now, e, v) ||
           fg_eval_error(c, "%s has no value", expr_text(c->m, e));
}

static bool
call_op(fg_evalcall *c)
{
    for (int k = 0; k < c->i->nout; k++) {
        const fg_type *type = fg_rt(c->m, c->i->out[k]);
        int64_t dim[FG_MAXRANK];

        for (int d = 0; d < type->rank; d++)
            if (!fg_eval_expr(c, type->dim[d], &dim[d]))
                return false;
        if (c->i->op == FG_OP_const) { /* borrows its data */
            c->out[k] = (fg_tensor){.dtype = type->dtype, .rank = type->rank};
            memcpy(c->out[k].dim, dim, sizeof dim);
            c->out[k].count = fg_span(&c->out[k], 0, type->rank);
        } else if (!fg_tensor_new(c->a, &c->out[k], type->dtype, type->rank, dim)) {
            fg_note(c->m->cx, "while evaluating %s", fg_inst_where(c->m, c->i));
            return false;
        }
    }
    return fg_op_info(c->i->op)->eval(c);
}

typedef struct protected_call {
    fg_evalcall *c;
    bool ok;
} protected_call;

static void
protected_op(void *arg)
{
    protected_call *p = arg;

    p->ok = call_op(p->c);
}

/* The scratch arena goes even when memory runs out inside. */
static bool
run_op(fg_evalcall *c)
{
    protected_call p = {c, false};
    fg_raise why;

    c->scratch = fg_arena_new(c->m->cx);
    why = fg_protect(c->m->cx, protected_op, &p);
    fg_arena_free(c->scratch);
    if (why != FG_RAISE_NONE)
        fg_raise_again(c->m->cx, why);
    return p.ok;
}

bool
fg_eval_inst(fg_module *m, fg_inst *i, fg_arena *a, const fg_tensor *in, fg_tensor *out)
{
    fg_evalcall c = {.m = m, .i = i, .a = a, .in = in, .out = out};

    if (!fg_op_info(i->op)->eval)
        return fg_error(m->cx, "%s: cannot be evaluated alone", fg_inst_where(m, i));
    c.sym = env_new(m, a).sym;
    return run_op(&c);
}

/* ---- regions ----------------------------------------------------------------------- */

/* The terminator it ended with; NULL on failure. */
static const fg_inst *run_block(run *r, const fg_block *b);

static fg_tensor *
values_of(run *r, int n, const fg_reg *reg)
{
    fg_tensor *t = FG_NEWN(r->a, fg_tensor, (size_t)n);

    for (int k = 0; k < n; k++)
        if (reg[k])
            t[k] = r->reg[reg[k]];
    return t;
}

static void
unbind(run *r, const fg_attr *syms)
{
    for (int k = 0; k < syms->n; k++)
        r->env.sym[syms->is[k]] = UNBOUND;
}

/* Values enter registers: binds the symbols that their shapes determine and checks that
 * each shape is its register's type. */
static bool
flow(run *r, const fg_inst *i, int n, const fg_tensor *t, const fg_reg *to)
{
    const fg_type **type = FG_NEWN(r->a, const fg_type *, (size_t)n);

    for (int k = 0; k < n; k++)
        type[k] = fg_rt(r->m, to[k]);
    solve_shapes(&r->env, n, t, type);
    for (int k = 0; k < n; k++) {
        int d = first_misfit(&r->env, &t[k], type[k]);

        if (d != type[k]->rank)
            return blame(&r->env,
                         fg_format(r->m->a, "%s: %%%s", fg_inst_where(r->m, i),
                                   fg_ri(r->m, to[k])->name),
                         &t[k], type[k], d);
        r->reg[to[k]] = t[k];
    }
    return true;
}

static bool
run_readsym(run *r, const fg_inst *i)
{
    const fg_tensor *x = &r->reg[i->in[0]];
    fg_sym s = (fg_sym)FG_GET(i, readsym, sym).i;
    const fg_syminfo *si = fg_sym_info(r->m->ex, s);
    int64_t at = FG_GET(i, readsym, at).i, v;

    if (at < 0 || at >= x->count)
        return fg_error(r->m->cx, "%s: no element %lld", fg_inst_where(r->m, i),
                        (long long)at);
    v = fg_tensor_i64(x, at);
    if (v < si->lo || v > si->hi)
        return fg_error(r->m->cx, "%s: %s is %lld, outside %lld..%lld",
                        fg_inst_where(r->m, i), si->name, (long long)v, (long long)si->lo,
                        (long long)si->hi);
    int64_t want = v;
    if (si->is && (!fg_e_eval(r->m->ex, si->is, r->env.sym, &want) || want != v))
        return fg_error(r->m->cx, "%s: sizes %lld and %lld must be equal",
                        fg_inst_where(r->m, i), (long long)v, (long long)want);
    r->env.sym[s] = v;
    return true;
}

static bool
run_if(run *r, const fg_inst *i)
{
    int which = fg_tensor_i64(&r->reg[i->in[0]], 0) ? 0 : 1;
    const fg_inst *end = run_block(r, i->region[which]);

    if (!end)
        return false;
    unbind(r, &FG_GET(i, if, syms));
    return flow(r, i, i->nout, values_of(r, i->nout, end->in), i->out);
}

static bool
run_kernel(run *r, const fg_inst *i)
{
    const fg_block *b = i->region[0];
    const fg_inst *end;

    for (int k = 0; k < b->nparam; k++)
        r->reg[b->param[k]] = r->reg[i->in[k]];
    end = run_block(r, b);
    if (!end)
        return false;
    for (int k = 0; k < i->nout; k++)
        r->reg[i->out[k]] = r->reg[end->in[k]];
    return true;
}

typedef struct stack { /* the values of one scan output so far */
    fg_tensor *item;
    size_t n, cap;
} stack;

/* One tensor of n items on a new axis 0; without items the type says the rest. */
static bool
stacked(run *r, const stack *s, const fg_type *type, fg_tensor *out)
{
    int64_t dim[FG_MAXRANK] = {(int64_t)s->n};

    for (int d = 1; d < type->rank; d++)
        if (s->n && d <= s->item[0].rank)
            dim[d] = s->item[0].dim[d - 1];
        else if (!value_of(&r->env, type->dim[d], &dim[d]))
            dim[d] = 0;
    if (!fg_tensor_new(r->a, out, type->dtype, type->rank, dim))
        return false;
    for (size_t k = 0; k < s->n; k++) {
        const fg_tensor *item = &s->item[k];

        if (item->rank != s->item[0].rank ||
            memcmp(item->dim, s->item[0].dim, (size_t)item->rank * sizeof *item->dim))
            return fg_error(r->m->cx, "a scan output changes its shape");
        for (int64_t j = 0; j < item->count; j++)
            fg_tensor_move(out, (int64_t)k * item->count + j, item, j);
    }
    return true;
}

/* Runs the body until the trip count or the condition ends it; v holds the iteration, the
 * condition and what is carried, as the region's parameters want them. */
static bool
iterate(run *r, const fg_inst *i, int64_t trips, fg_tensor *v, stack *scan)
{
    const fg_block *body = i->region[0];
    int ncarried = body->nparam - 2;
    const fg_inst *end;

    for (int64_t n = 0; n < trips && fg_tensor_i64(&v[1], 0); n++) {
        if (--r->steps < 0)
            return fg_error(r->m->cx, "%s: more than %d iterations",
                            fg_inst_where(r->m, i), MAX_STEPS);
        if (!fg_tensor_new(r->a, &v[0], FG_i64, 0, NULL))
            return false;
        fg_tensor_set_i64(&v[0], 0, n);
        unbind(r, &FG_GET(i, loop, syms));
        if (!flow(r, i, body->nparam, v, body->param))
            return false;
        end = run_block(r, body);
        if (!end)
            return false;
        if (end->in[0])
            v[1] = r->reg[end->in[0]];
        for (int k = 0; k < ncarried; k++)
            v[2 + k] = r->reg[end->in[1 + k]];
        for (int k = 1 + ncarried; k < end->nin; k++) {
            stack *s = &scan[k - 1 - ncarried];

            FG_PUSH(r->a, s->item, s->n, s->cap) = r->reg[end->in[k]];
        }
    }
    return true;
}

static bool
run_loop(run *r, const fg_inst *i)
{
    int ncarried = i->region[0]->nparam - 2;
    int64_t trips = i->in[0] ? fg_tensor_i64(&r->reg[i->in[0]], 0) : INT64_MAX;
    fg_tensor *v = FG_NEWN(r->a, fg_tensor, (size_t)i->region[0]->nparam);
    fg_tensor *result = FG_NEWN(r->a, fg_tensor, (size_t)i->nout);
    stack *scan = FG_NEWN(r->a, stack, (size_t)i->nout);

    if (i->nin > 1 && i->in[1]) {
        v[1] = r->reg[i->in[1]];
    } else {
        if (!fg_tensor_new(r->a, &v[1], FG_bool, 0, NULL))
            return false;
        fg_tensor_set_i64(&v[1], 0, 1);
    }
    for (int k = 0; k < ncarried; k++)
        v[2 + k] = r->reg[i->in[2 + k]];
    if (!iterate(r, i, trips, v, scan))
        return false;
    unbind(r, &FG_GET(i, loop, syms));
    for (int k = 0; k < i->nout; k++) {
        if (k < ncarried)
            result[k] = v[2 + k];
        else if (!stacked(r, &scan[k - ncarried], fg_rt(r->m, i->out[k]), &result[k]))
            return false;
    }
    return flow(r, i, i->nout, result, i->out);
}

/* ---- the walk ---------------------------------------------------------------------- */

static bool
run_inst(run *r, fg_inst *i)
{
    fg_evalcall c = {.m = r->m, .i = i, .a = r->a, .sym = r->env.sym};
    fg_tensor out[FG_MAXOPERANDS];

    switch (i->op) {
    case FG_OP_readsym:
        return run_readsym(r, i);
    case FG_OP_if:
        return run_if(r, i);
    case FG_OP_loop:
        return run_loop(r, i);
    case FG_OP_kernel:
        return run_kernel(r, i);
    default:
        break;
    }
    if (!fg_op_info(i->op)->eval || i->nout > FG_MAXOPERANDS)
        FG_BUG(r->m->cx, "%s cannot be evaluated", fg_op_info(i->op)->name);
    c.in = values_of(r, i->nin, i->in);
    c.out = out;
    if (!run_op(&c))
        return false;
    for (int k = 0; k < i->nout; k++)
        r->reg[i->out[k]] = out[k];
    return true;
}

static const fg_inst *
run_block(run *r, const fg_block *b)
{
    for (fg_inst *i = b->first; i; i = i->next) {
        if (fg_op_is(i->op, FG_T_TERM))
            return i;
        if (!run_inst(r, i))
            return NULL;
    }
    FG_BUG(r->m->cx, "a block has no end");
}

static fg_tensor
weight_tensor(const fg_weight *w)
{
    fg_tensor t = {.dtype = w->dtype, .rank = w->rank, .data = (void *)w->data};

    memcpy(t.dim, w->dim, sizeof t.dim);
    t.count = fg_span(&t, 0, t.rank);
    return t;
}

/* What the host binds for a state in place, in storage of the register's shape. */
static bool
widen(run *r, int input, fg_tensor *t)
{
    const fg_state *s = fg_state_of_input(r->m, input);
    fg_walk w = fg_walk_new(t->rank, t->dim);
    int64_t dim[FG_MAXRANK], to[FG_MAXRANK];
    fg_tensor narrow = *t;

    if (!s || s->length == FG_E_BAD)
        return true;
    memcpy(dim, t->dim, sizeof dim);
    if (!value_of(&r->env, fg_state_capacity(r->m, s), &dim[s->axis]) ||
        dim[s->axis] < t->dim[s->axis])
        return fg_error(r->m->cx, "input \"%s\": no capacity", r->m->input[input].name);
    if (!fg_tensor_new(r->a, t, narrow.dtype, narrow.rank, dim))
        return false;
    fg_tensor_strides(t, to);
    memcpy(w.stride[w.n++], to, sizeof to);
    for (int64_t k = 0; k < narrow.count; k++, fg_walk_next(&w))
        fg_tensor_move(t, w.off[0], &narrow, k);
    return true;
}

/* What the host gets of an output: of a window that the model cuts, the last rows. */
static bool
present(run *r, int output, const fg_tensor *t, fg_tensor *out)
{
    const fg_state *s = fg_state_of_output(r->m, output);
    int64_t stride[FG_MAXRANK], dim[FG_MAXRANK];

    *out = *t;
    if (!s || !fg_state_cut(r->m, s))
        return true;
    memcpy(dim, t->dim, sizeof dim);
    if (!value_of(&r->env, s->next, &dim[s->axis]) || dim[s->axis] > t->dim[s->axis])
        return fg_error(r->m->cx, "output \"%s\": no rows", r->m->output[output].name);
    if (!fg_tensor_new(r->a, out, t->dtype, t->rank, dim))
        return false;
    fg_walk w = fg_walk_new(t->rank, dim);
    fg_tensor_strides(t, stride);
    memcpy(w.stride[w.n++], stride, sizeof stride);
    int64_t first = (t->dim[s->axis] - dim[s->axis]) * stride[s->axis];
    for (int64_t k = 0; k < out->count; k++, fg_walk_next(&w))
        fg_tensor_move(out, k, t, first + w.off[0]);
    return true;
}

bool
fg_eval(fg_module *m, fg_arena *a, const fg_tensor *in, fg_tensor *out, fg_tensor *regs)
{
    run r = {m, a, env_new(m, a), regs, MAX_STEPS};
    const fg_inst *ret;

    for (int k = 0; k < m->nweight; k++)
        if (!m->weight[k].data && m->weight[k].bytes)
            return fg_error(m->cx, "weight $%d: its file \"%s\" is not here", k,
                            m->weight[k].file);

    if (!r.reg)
        r.reg = FG_NEWN(a, fg_tensor, m->nreg);
    if (!bind_inputs(&r.env, in))
        return false;
    for (int p = 0; p < m->ninput; p++) {
        const fg_port *port = &m->input[p];

        r.reg[port->reg] = in[p].dtype ? in[p] : weight_tensor(&m->weight[port->weight]);
        if (!widen(&r, p, &r.reg[port->reg]))
            return false;
    }
    ret = run_block(&r, m->body);
    if (!ret)
        return false;
    for (int k = 0; k < m->noutput; k++)
        if (!present(&r, k, &r.reg[ret->in[k]], &out[k]))
            return false;
    return true;
}
