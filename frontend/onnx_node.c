/* onnx_node.c - what operator importers call: diagnostics, operands, attributes, and sequences
 * that exist only while importing. */
#include "frontend/model.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- diagnostics ---------------------------------------------------------------------- */

static char *
format_list(fg_arena *a, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *s = fg_alloc(a, (size_t)(n > 0 ? n : 0) + 1);
    if (n > 0)
        vsnprintf(s, (size_t)n + 1, fmt, ap);
    return s;
}

bool
fg_node_error(fg_node *n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *text = format_list(n->im->tmp, fmt, ap);
    va_end(ap);
    n->im->failed = true;
    return fg_error(n->m->cx, "%s \"%s\": %s", n->op, n->name, text);
}

/* While checking, an unsupported node is an entry in a list; else it ends the import. */
bool
fg_node_unsupported(fg_node *n, const char *fmt, ...)
{
    fg_onnx_file *f = n->im->f;
    va_list ap;
    va_start(ap, fmt);
    const char *text = format_list(f->a, fmt, ap);
    va_end(ap);
    n->im->unsupported = true;
    if (!n->im->o || !n->im->o->check_only)
        return fg_error(n->m->cx, "%s \"%s\" is not supported: %s", n->op, n->name, text);
    FG_PUSH(f->a, f->bad, f->nbad, f->capbad) = (fg_unsupported){n->name, n->op, text};
    return false;
}

/* ---- attributes ----------------------------------------------------------------------- */

typedef Onnx__AttributeProto attribute;
#define KIND(k) ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__##k

static const char *const kind_names[] = {
    "of no kind", "a float",         "an integer",     "a string", "a tensor",
    "a graph",    "floats",          "integers",       "strings",  "tensors",
    "graphs",     "a sparse tensor", "sparse tensors", "a type",   "types",
};

/* Which payloads are there: bit k for attribute kind k. */
static unsigned
payloads(const attribute *a)
{
    return (unsigned)(a->has_f << KIND(FLOAT) | a->has_i << KIND(INT) |
                      a->has_s << KIND(STRING) | (a->t != NULL) << KIND(TENSOR) |
                      (a->g != NULL) << KIND(GRAPH) | (a->n_floats > 0) << KIND(FLOATS) |
                      (a->n_ints > 0) << KIND(INTS) |
                      (a->n_strings > 0) << KIND(STRINGS) |
                      (a->n_tensors > 0) << KIND(TENSORS) |
                      (a->n_graphs > 0) << KIND(GRAPHS) |
                      (a->sparse_tensor != NULL) << KIND(SPARSE_TENSOR) |
                      (a->n_sparse_tensors > 0) << KIND(SPARSE_TENSORS) |
                      (a->tp != NULL) << KIND(TYPE_PROTO) |
                      (a->n_type_protos > 0) << KIND(TYPE_PROTOS));
}

/* The declared kind, or what the only payload says: the first files did not declare it. */
static int
kind_of(const attribute *a)
{
    unsigned have = payloads(a);
    if (a->type != KIND(UNDEFINED))
        return (int)a->type;
    return have && !(have & (have - 1)) ? __builtin_ctz(have) : 0;
}

bool
fg_node_attributes_ok(fg_node *n)
{
    enum { MOST = 1024 };
    const Onnx__NodeProto *pb = n->pb;
    if (pb->n_attribute > MOST)
        return fg_node_error(n, "has %zu attributes", pb->n_attribute);
    for (size_t i = 0; i < pb->n_attribute; i++) {
        const attribute *a = pb->attribute[i];
        if (!a->name || !*a->name)
            return fg_node_error(n, "an attribute has no name");
        const char *name = fg_show(n->im, a->name);
        int kind = kind_of(a);
        if (kind <= 0 || (size_t)kind >= sizeof kind_names / sizeof *kind_names)
            return fg_node_error(n, "attribute %s has no known kind", name);
        if (payloads(a) & ~(1u << kind))
            return fg_node_error(
                n, "attribute %s is declared as %s but holds something else", name,
                kind_names[kind]);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(a->name, pb->attribute[k]->name))
                return fg_node_error(n, "attribute %s is given twice", name);
    }
    return true;
}

static const attribute *
find(const fg_node *n, const char *name)
{
    for (size_t i = 0; i < n->pb->n_attribute; i++)
        if (!strcmp(n->pb->attribute[i]->name, name))
            return n->pb->attribute[i];
    return NULL;
}

static const attribute *
find_kind(fg_node *n, const char *name, int kind)
{
    const attribute *a = find(n, name);
    if (!a || kind_of(a) == kind)
        return a;
    fg_node_error(n, "attribute %s is %s, but it must be %s", name,
                  kind_names[kind_of(a)], kind_names[kind]);
    return NULL;
}

bool
fg_attr_has(const fg_node *n, const char *name)
{
    return find(n, name) != NULL;
}

int64_t
fg_attr_int(fg_node *n, const char *name, int64_t dflt)
{
    const attribute *a = find_kind(n, name, KIND(INT));
    return a ? a->i : dflt;
}

double
fg_attr_float(fg_node *n, const char *name, double dflt)
{
    const attribute *a = find_kind(n, name, KIND(FLOAT));
    return a ? (double)a->f : dflt;
}

/* Bytes that are not text are escaped, so the result can be shown and equals no known word. */
const char *
fg_attr_str(fg_node *n, const char *name, const char *dflt)
{
    const attribute *a = find_kind(n, name, KIND(STRING));
    return a ? fg_intern(n->m->cx, fg_printable(n->im->tmp, (const char *)a->s.data,
                                                a->s.len, 4000))
             : dflt;
}

int
fg_attr_ints(fg_node *n, const char *name, const int64_t **v)
{
    const attribute *a = find_kind(n, name, KIND(INTS));
    *v = a ? a->ints : NULL;
    if (a && a->n_ints > INT32_MAX)
        fg_node_error(n, "attribute %s is too long", name);
    return a ? (int)a->n_ints : -1;
}

int
fg_attr_floats(fg_node *n, const char *name, const float **v)
{
    const attribute *a = find_kind(n, name, KIND(FLOATS));
    *v = a ? a->floats : NULL;
    return a ? (int)a->n_floats : -1;
}

const Onnx__GraphProto *
fg_attr_graph(fg_node *n, const char *name)
{
    const attribute *a = find_kind(n, name, KIND(GRAPH));
    if (!a || !a->g)
        fg_node_error(n, "attribute %s, a graph, is missing", name);
    return a ? a->g : NULL;
}

/* ---- constants ------------------------------------------------------------------------ */

fg_reg
fg_import_weight(fg_build *b, const fg_weight *w)
{
    fg_inst *i = fg_inst_begin(b, FG_OP_const, 0, NULL);
    FG_SET(i, const, w).i = fg_weight_add(b->m, w);
    i = fg_inst_finish(b, i, NULL, 0);
    return i ? i->out[0] : 0;
}

static fg_reg
failed(fg_node *n)
{
    n->im->failed = true;
    return 0;
}

fg_reg
fg_attr_tensor(fg_node *n, const char *name)
{
    const attribute *a = find(n, name);
    bool sparse = a && kind_of(a) == KIND(SPARSE_TENSOR);
    if (!a || (!sparse && !find_kind(n, name, KIND(TENSOR))))
        return 0;
    fg_weight w = {0};
    const char *what =
        fg_format(n->im->tmp, "%s \"%s\": attribute %s", n->op, n->name, name);
    if (sparse ? !a->sparse_tensor : !a->t) {
        fg_error(n->m->cx, "%s: holds no tensor", what);
        return failed(n);
    }
    if (sparse ? !fg_onnx_sparse(n->im->f, n->m->a, what, a->sparse_tensor, &w)
               : !fg_onnx_tensor(n->im->f, n->m->a, what, a->t, &w))
        return failed(n);
    fg_weightcount counted = n->m->initializers; /* this is an attribute */
    fg_reg r = fg_import_weight(n->b, &w);
    n->m->initializers = counted;
    return r;
}

/* ---- operands ------------------------------------------------------------------------- */

fg_reg
fg_need(fg_node *n, int k)
{
    fg_reg r = fg_in(n, k);
    if (!r)
        fg_node_error(n, "operand %d is missing", k);
    return r;
}

bool
fg_in_exprs_opt(fg_node *n, int k, const fg_expr **v, int *count)
{
    enum { LONGEST = 65536 };
    fg_reg r = fg_in(n, k);
    if (!r)
        return false;
    const fg_reginfo *ri = fg_ri(n->m, r);
    if (ri->sym) {
        for (int i = 0; i < ri->nsym; i++)
            if (ri->sym[i] == FG_E_BAD)
                return false;
        *v = ri->sym;
        *count = ri->nsym;
        return true;
    }
    const fg_weight *w = fg_reg_weight(n->m, r);
    int64_t len = 1, x;
    if (!w || fg_is_float(w->dtype) || w->rank > 1)
        return false;
    if (w->rank)
        len = w->dim[0];
    if (len > LONGEST)
        return false;
    fg_expr *e = FG_NEWN(n->m->a, fg_expr, (size_t)len);
    for (int64_t i = 0; i < len; i++) {
        if (!fg_const_i64(n->m, r, i, &x))
            return false;
        e[i] = fg_ec(n->ex, x);
    }
    *v = e;
    *count = (int)len;
    return true;
}

bool
fg_in_exprs(fg_node *n, int k, int64_t lo, int64_t hi, const fg_expr **v, int *count)
{
    enum { LONGEST = 64 }; /* elements worth a run-time symbol each */
    if (fg_in_exprs_opt(n, k, v, count))
        return true;
    fg_reg r = fg_need(n, k);
    int64_t len;
    if (!r)
        return false;
    fg_type t = *fg_in_type(n, k);
    if (fg_is_float(t.dtype))
        return fg_node_error(n, "operand %d must be of an integer type", k);
    if (!fg_e_const(n->ex, fg_type_count(n->ex, &t), &len) || len > LONGEST)
        return fg_node_unsupported(n, "operand %d has a length that is not known", k);
    const fg_expr *have = fg_ri(n->m, r)->sym;
    fg_expr *e = FG_NEWN(n->m->a, fg_expr, (size_t)len);
    for (int64_t i = 0; i < len; i++) {
        e[i] = have ? have[i] : FG_E_BAD;
        if (!e[i])
            e[i] = fg_emit_readsym(n->b, r, i, lo, hi);
        if (!e[i])
            return false;
    }
    *v = e;
    *count = (int)len;
    return true;
}

bool
fg_in_ints(fg_node *n, int k, const int64_t **v, int *count)
{
    const fg_expr *e;
    if (!fg_need(n, k))
        return false;
    bool ok = fg_in_exprs_opt(n, k, &e, count);
    int64_t *x = FG_NEWN(n->m->a, int64_t, (size_t)(ok ? *count : 0));
    for (int i = 0; ok && i < *count; i++)
        ok = fg_e_const(n->ex, e[i], &x[i]);
    *v = x;
    return ok || fg_node_unsupported(n, "operand %d must be constant", k);
}

bool
fg_in_scalar_f(fg_node *n, int k, double *v)
{
    const fg_expr *e;
    int count;
    int64_t x;
    fg_reg r = fg_need(n, k);
    if (!r)
        return false;
    if (!fg_e_is(n->ex, fg_type_count(n->ex, fg_in_type(n, k)), 1))
        return fg_node_error(n, "operand %d must have one element", k);
    if (fg_const_splat(n->m, r, v))
        return true;
    if (fg_in_exprs_opt(n, k, &e, &count) && fg_e_const(n->ex, e[0], &x)) {
        *v = (double)x;
        return true;
    }
    return fg_node_unsupported(n, "operand %d must be constant", k);
}

bool
fg_axis(fg_node *n, int64_t axis, int rank, int *out)
{
    if (axis < -rank || axis >= rank)
        return fg_node_error(n, "axis %lld is out of range for rank %d", (long long)axis,
                             rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return true;
}

static int
by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

bool
fg_axes(fg_node *n, int k, int rank, int64_t *axes, int *count)
{
    const int64_t *v;
    int one = 0;
    *count = fg_attr_ints(n, "axes", &v);
    if (n->im->failed)
        return false;
    if (*count < 0 && fg_in(n, k) && !fg_in_ints(n, k, &v, count))
        return false;
    if (*count > rank)
        return fg_node_error(n, "%d axes for rank %d", *count, rank);
    for (int i = 0; i < *count; i++) {
        if (!fg_axis(n, v[i], rank, &one))
            return false;
        axes[i] = one;
    }
    if (*count > 0)
        qsort(axes, (size_t)*count, sizeof *axes, by_value);
    for (int i = 1; i < *count; i++)
        if (axes[i] == axes[i - 1])
            return fg_node_error(n, "axis %lld is given twice", (long long)axes[i]);
    return true;
}

/* ---- sequences ------------------------------------------------------------------------ */

fg_reg
fg_seq_new(fg_node *n, int count, const fg_reg *items)
{
    fg_import *im = n->im;
    fg_seq s = {.n = count};
    s.item = fg_dup(im->tmp, items, (size_t)count * sizeof *items);
    s.reg = fg_reg_new(n->m, n->b->block, (fg_type){0}, NULL);
    FG_PUSH(im->tmp, im->seq, im->nseq, im->capseq) = s;
    return s.reg;
}

static const fg_seq *
find_seq(const fg_import *im, fg_reg r)
{
    for (int i = im->nseq - 1; i >= 0; i--)
        if (im->seq[i].reg == r)
            return &im->seq[i];
    return NULL;
}

int
fg_seq_items(fg_node *n, fg_reg seq, const fg_reg **items)
{
    const fg_seq *s = fg_seq_is(n->im, seq) ? find_seq(n->im, seq) : NULL;
    *items = s ? s->item : NULL;
    return s ? s->n : -1;
}

bool
fg_seq_is(const fg_import *im, fg_reg r)
{
    return r && r != FG_POISON && fg_rt(im->m, r)->dtype == FG_NODTYPE;
}
