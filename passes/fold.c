/* fold.c - evaluate constants and shape arithmetic, simplify by the rules of algebra*.c.
 *
 *     %s = symvec {v=[B,S]} : i64[2]
 *     %n = gather %s, %one : i64[]           =>    %n = symvec {v=[S], scalar=1} : i64[]
 *     %k = mul %two, %three : f32[]          =>    %k = const {w=$4} : f32[]
 *     if %true { .. } { .. }                 =>    the first region
 *
 * One forward walk. Operands are renamed first, so a rule sees what earlier rules made of
 * them; an instruction is tried again until nothing applies, and what a rule emits is
 * visited as well. Each step replaces an instruction by an equal value of the same type.
 * Memory is bounded: an evaluated result has at most fold{bytes}, or no larger than the
 * operands it comes from, and views of weights stay views.
 */
#include "ir/eval.h"
#include "passes/algebra.h"
#include "passes/pass.h"
#include "passes/rewrite.h"

enum {
    VIEW_BYTES =
        1 << 16, /* rearranged constants; larger ones are read through the view */
    DEQUANTIZED_BYTES = 1 << 10,
    INPUT_BYTES = 1 << 26, /* operands of elementwise operations worth evaluating */
    STEPS_EACH = 64        /* rule applications, on average over the instructions */
};

typedef struct folder {
    fg_module *m;
    fg_arena *scratch;
    fg_rewrite w;
    int64_t steps; /* left: a pair of rules that undo each other must end */
    size_t bytes;  /* the parameter */
    bool failed;
} folder;

/* ---- known values ------------------------------------------------------------------ */

/* A register with the given elements: a constant, or expressions as a vector. */
static fg_reg
emit_values(fg_build *b, const fg_type *t, const fg_expr *v, int n)
{
    int64_t dim[FG_MAXRANK], x;
    int bytes = fg_dtypes[t->dtype].bits / 8;
    char data[FG_MAXSYM * 8];
    bool fixed = true;
    for (int k = 0; k < n; k++) {
        fixed = fixed && fg_e_const(b->m->ex, v[k], &x);
        if (fixed) /* little endian: the low bytes are the narrow value */
            memcpy(data + k * bytes, &x, (size_t)bytes);
    }
    if (fixed && fg_type_static(b->m->ex, t, dim))
        return fg_emit_const(b, (fg_dtype)t->dtype, t->rank, dim, data);
    fg_reg r = fg_emit_symvec(b, n, v, (fg_dtype)t->dtype, t->rank == 0);
    return r ? fg_emit_reshape(b, r, t->rank, t->dim) : 0;
}

static fg_reg
known_value(folder *f, fg_inst *i)
{
    if (i->nout != 1 || i->op == FG_OP_const || i->op == FG_OP_symvec ||
        i->op == FG_OP_copy)
        return 0;
    if (!fg_ri(f->m, i->out[0])->sym)
        fg_symval(f->m, i);
    const fg_reginfo ri = *fg_ri(f->m, i->out[0]);
    if (!ri.sym || fg_is_float((fg_dtype)ri.type.dtype) ||
        fg_dtypes[ri.type.dtype].bits < 8)
        return 0;
    int64_t v;
    bool fixed = true;
    for (int k = 0; k < ri.nsym; k++)
        fixed = fixed && fg_e_const(f->m->ex, ri.sym[k], &v);
    /* These two are how a vector of expressions is spelled. */
    if (!fixed &&
        (i->op == FG_OP_iota ||
         (i->op == FG_OP_reshape && fg_is_op(fg_def(f->m, i->in[0]), FG_OP_symvec))))
        return 0;
    fg_build b = fg_build_before(i);
    return emit_values(&b, &ri.type, ri.sym, ri.nsym);
}

/* What a run-time symbol is read from turned out to be known: it is no longer needed. */
static bool
known_symbol(folder *f, fg_inst *i)
{
    if (i->op != FG_OP_readsym)
        return false;
    fg_expr v = fg_sym_at(f->m, i->in[0], FG_GET(i, readsym, at).i);
    fg_expr s = fg_es(f->m->ex, (fg_sym)FG_GET(i, readsym, sym).i);
    bool equals = fg_sym_info(f->m->ex, (fg_sym)FG_GET(i, readsym, sym).i)->is != 0;
    if (v == FG_E_BAD || (v == s && !equals))
        return false;
    if (!fg_unify(f->m, s, v)) {
        f->failed = true;
        return fg_error(f->m->cx, "%s: a size has an impossible value",
                        fg_inst_where(f->m, i));
    }
    fg_inst_remove(i);
    f->w.changed = true;
    return true;
}

/* ---- constants --------------------------------------------------------------------- */

static bool
static_attributes(const fg_module *m, const fg_inst *i)
{
    const fg_opinfo *info = fg_op_info(i->op);
    int64_t v;
    for (int k = 0; k < info->nattr; k++) {
        fg_attrkind kind = fg_attrs[info->attr0 + k].kind;
        if (kind == FG_AK_expr && i->attr[k].e != FG_E_BAD &&
            !fg_e_const(m->ex, i->attr[k].e, &v))
            return false;
        for (int j = 0; kind == FG_AK_exprs && j < i->attr[k].n; j++)
            if (!fg_e_const(m->ex, i->attr[k].es[j], &v))
                return false;
    }
    return true;
}

/* Bytes of a register of constant size; false for anything else. */
static bool
static_bytes(const fg_module *m, fg_reg r, int64_t *count, size_t *bytes)
{
    int64_t dim[FG_MAXRANK];
    const fg_type *t = fg_rt(m, r);
    if (!fg_type_static(m->ex, t, dim))
        return false;
    *count = 1;
    for (int k = 0; k < t->rank; k++)
        if (__builtin_mul_overflow(*count, dim[k], count))
            return false;
    return fg_dtype_bytes((fg_dtype)t->dtype, *count, bytes);
}

/* Is evaluating i cheap, and its result small enough to keep? */
static bool
worth_evaluating(const folder *f, const fg_inst *i)
{
    const fg_module *m = f->m;
    size_t in = 0, out = 0, bytes;
    int64_t count, elements = 0, largest = 0;
    for (int k = 0; k < i->nout; k++) {
        if (!static_bytes(m, i->out[k], &count, &bytes) || !fg_add_size(out, bytes, &out))
            return false;
        elements = count > elements ? count : elements;
    }
    for (int k = 0; k < i->nin; k++) {
        if (!i->in[k])
            continue;
        if (!static_bytes(m, i->in[k], &count, &bytes) || !fg_add_size(in, bytes, &in))
            return false;
        largest = count > largest ? count : largest;
    }
    if (fg_op_is(i->op, FG_T_VIEW))
        return out <= VIEW_BYTES && (i->op != FG_OP_expand || out <= in || out <= 64);
    if (out > f->bytes && out > in)
        return false;
    /* Numbers in few bits are widened where they are used: that is what they are for. */
    if ((i->op == FG_OP_dequantize && out > DEQUANTIZED_BYTES) ||
        (i->op == FG_OP_cast && out > in && out > VIEW_BYTES))
        return false;
    if (!fg_op_is(i->op, FG_T_ANCHOR))
        return in <= INPUT_BYTES;
    /* A product visits, for each result element, at worst all of one operand. */
    int64_t work;
    return !__builtin_mul_overflow(elements, largest, &work) && work <= (int64_t)1 << 24;
}

static fg_reg
emit_weight(fg_build *b, const fg_weight *w)
{
    fg_module *m = b->m;
    fg_weightcount counted = m->initializers;
    fg_inst *i = fg_inst_begin(b, FG_OP_const, 0, NULL);
    FG_SET(i, const, w).i = fg_weight_add(m, w);
    m->initializers = counted;
    return fg_inst_finish(b, i, NULL, 0) ? i->out[0] : 0;
}

/* A reshaped constant, or whole rows of one, is the same bytes under another shape. */
static fg_reg
aliased_weight(folder *f, fg_inst *i)
{
    const fg_weight *w = i->nin == 1 ? fg_reg_weight(f->m, i->in[0]) : NULL;
    int64_t dim[FG_MAXRANK], count, offset = 0, stride = 1;
    size_t bytes, skip;
    if (!w || (i->op != FG_OP_reshape && i->op != FG_OP_slice) ||
        !fg_type_static(f->m->ex, fg_rt(f->m, i->out[0]), dim) ||
        !static_bytes(f->m, i->out[0], &count, &bytes))
        return 0;
    for (int k = w->rank - 1; k >= 0 && i->op == FG_OP_slice; k--) {
        int64_t start;
        if (!fg_e_const(f->m->ex, FG_GET(i, slice, start).es[k], &start) ||
            (dim[k] > 1 && FG_GET(i, slice, step).is[k] != 1))
            return 0;
        /* Outside the first axis that is cut, every axis must have one row. */
        int64_t outer = 1;
        for (int j = 0; j < k; j++)
            outer *= dim[j];
        if (dim[k] != w->dim[k] && outer != 1)
            return 0;
        offset += start * stride;
        stride *= w->dim[k];
    }
    if (fg_dtypes[w->dtype].bits < 8 || count == 0 ||
        !fg_mul_size((size_t)offset, (size_t)fg_dtypes[w->dtype].bits / 8, &skip))
        return 0;
    fg_weight alias = *w;
    alias.rank = fg_rt(f->m, i->out[0])->rank;
    memcpy(alias.dim, dim, sizeof dim);
    alias.data = w->data ? (const char *)w->data + skip : NULL;
    alias.bytes = bytes;
    alias.file_offset += skip;
    fg_build b = fg_build_before(i);
    return emit_weight(&b, &alias);
}

static fg_reg
evaluated(folder *f, fg_inst *i)
{
    fg_tensor *in = FG_NEWN(f->scratch, fg_tensor, (size_t)i->nin + 1), out;
    if (!fg_op_is(i->op, FG_T_PURE) || i->nregion || i->nout != 1 ||
        i->op == FG_OP_const || i->op == FG_OP_symvec || i->op == FG_OP_copy ||
        !static_attributes(f->m, i))
        return 0;
    for (int k = 0; k < i->nin; k++) {
        const fg_weight *w = fg_reg_weight(f->m, i->in[k]);
        if (i->in[k] && (!w || !w->data))
            return 0;
        if (!w)
            continue;
        in[k] = (fg_tensor){.dtype = w->dtype, .rank = w->rank, .data = (void *)w->data};
        memcpy(in[k].dim, w->dim, sizeof in[k].dim);
        in[k].count = 1;
        for (int d = 0; d < w->rank; d++)
            in[k].count *= w->dim[d];
    }
    if (!worth_evaluating(f, i))
        return 0;
    if (!fg_eval_inst(f->m, i, f->scratch, in, &out)) {
        f->failed = true;
        return 0;
    }
    fg_build b = fg_build_before(i);
    return fg_emit_const(&b, out.dtype, out.rank, out.dim, out.data);
}

/* ---- rules ------------------------------------------------------------------------- */

static fg_reg
simplified(folder *f, fg_inst *i)
{
    static const fg_rule *const tables[] = {fg_rules_cast, fg_rules_view, fg_rules_index,
                                            fg_rules_quant, fg_rules_arith};
    if (i->nout != 1)
        return 0;
    fg_build b = fg_build_before(i);
    int errors = f->m->cx->nerror;
    fg_reg x = 0;
    for (size_t t = 0; !x && t < sizeof tables / sizeof *tables; t++)
        x = fg_rules_apply(&b, i, tables[t]);
    f->failed |= f->m->cx->nerror > errors;
    return x;
}

/* ---- conditions known -------------------------------------------------------------- */

static void
adopt_regions(fg_inst *i, fg_block *b)
{
    for (int k = 0; k < i->nregion; k++)
        i->region[k]->parent = b;
}

/* Puts the chosen region in place of the `if`; the first instruction to visit next. */
static fg_inst *
inlined_if(folder *f, fg_inst *i)
{
    fg_expr c = i->op == FG_OP_if ? fg_sym_at(f->m, i->in[0], 0) : FG_E_BAD;
    int64_t v;
    if (c == FG_E_BAD || !fg_e_const(f->m->ex, c, &v))
        return NULL;
    fg_block *r = i->region[v ? 0 : 1];
    fg_inst *yield = r->last, *first = r->first == yield ? NULL : r->first;
    while (r->first != yield) {
        fg_inst *x = r->first;
        fg_inst_move_before(x, i);
        adopt_regions(x, i->block);
    }
    fg_rewrite_operands(&f->w, yield);
    for (int k = 0; k < i->nout; k++) {
        const fg_type *a = fg_rt(f->m, i->out[k]), *b = fg_rt(f->m, yield->in[k]);
        for (int d = 0; d < a->rank; d++)
            if (!fg_unify(f->m, a->dim[d], b->dim[d])) {
                f->failed = true;
                fg_error(f->m->cx, "%s: sizes of result %d contradict each other",
                         fg_inst_where(f->m, i), k);
            }
    }
    /* Renamed only now, but first..i are visited before any reader of the results. */
    fg_inst *next = first ? first : i->next;
    for (int k = 0; k < i->nout; k++)
        fg_rewrite_set(&f->w, i->out[k], yield->in[k]);
    fg_inst_remove(i);
    f->w.changed = true;
    return next;
}

/* ---- the walk ---------------------------------------------------------------------- */

static void walk(folder *f, fg_block *b);

/* Replaces i once if anything applies. What was emitted stands between `before` and i. */
static bool
step(folder *f, fg_inst *i)
{
    fg_reg fresh = f->m->nreg, x = known_value(f, i);
    if (!x)
        x = aliased_weight(f, i);
    if (!x)
        x = evaluated(f, i);
    if (!x)
        x = simplified(f, i);
    if (!x || f->failed)
        return false;
    fg_rewrite_replace(&f->w, i, x, fresh);
    return true;
}

static void
walk(folder *f, fg_block *b)
{
    for (fg_inst *i = b->first, *next; i && !f->failed; i = next) {
        fg_inst *before = i->prev;
        next = i->next;
        fg_rewrite_operands(&f->w, i);
        if (known_symbol(f, i))
            continue;
        fg_inst *inner = inlined_if(f, i);
        if (inner) {
            next = inner;
            continue;
        }
        if (f->steps > 0 && step(f, i)) {
            f->steps--; /* visit what took its place */
            next = before ? before->next : b->first;
            continue;
        }
        for (int k = 0; k < i->nregion; k++)
            walk(f, i->region[k]);
    }
}

fg_progress
fg_pass_fold(fg_module *m, fg_passctx *cx)
{
    folder f = {.m = m, .scratch = cx->scratch, .w = fg_rewrite_new(m, cx->scratch)};
    f.bytes = (size_t)cx->param[FG_PARAM_fold_bytes];
    f.steps = STEPS_EACH * ((int64_t)fg_inst_count(m->body) + STEPS_EACH);
    walk(&f, m->body);
    fg_rewrite_done(&f.w);
    return f.failed ? FG_FAILED : f.w.changed ? FG_CHANGED : FG_SAME;
}
