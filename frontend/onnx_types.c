/* onnx_types.c - names and types: the name table, declared types, and what dims are called.
 *
 *     dim_param "batch"           the symbol batch
 *     dim_param "past + seq"      an expression, when past and seq are dims of inputs themselves
 *     dim_param "batch-size"      else the text is just a name: 'batch-size'
 *     neither value nor param     a symbol of its own
 *
 * An expression is read as one only when its names are known as dims: nothing else could
 * ever give them a value. The same text always means the same value.
 */
#include "frontend/model.h"

#include <ctype.h>

/* ---- name table ----------------------------------------------------------------------- */

static uint32_t
name_slot(const fg_names *t, const char *key)
{
    uint32_t h = (uint32_t)fg_hash(&key, sizeof key, 0) & (t->cap - 1);
    while (t->key[h] && t->key[h] != key)
        h = (h + 1) & (t->cap - 1);
    return h;
}

int
fg_names_get(const fg_names *t, const char *key)
{
    if (!t->cap)
        return -1;
    uint32_t h = name_slot(t, key);
    return t->key[h] ? t->value[h] : -1;
}

void
fg_names_set(fg_names *t, const char *key, int value)
{
    if (t->n * 2 >= t->cap) {
        fg_names old = *t;
        t->cap = old.cap ? old.cap * 2 : 16;
        t->key = FG_NEWN(t->a, const char *, t->cap);
        t->value = FG_NEWN(t->a, int, t->cap);
        for (uint32_t i = 0; i < old.cap; i++) {
            if (!old.key[i])
                continue;
            uint32_t h = name_slot(t, old.key[i]);
            t->key[h] = old.key[i];
            t->value[h] = old.value[i];
        }
    }
    uint32_t h = name_slot(t, key);
    if (!t->key[h])
        t->n++;
    t->key[h] = key;
    t->value[h] = value;
}

const char *
fg_show(fg_import *im, const char *s)
{
    return s ? fg_printable(im->tmp, s, strlen(s), 120) : "";
}

const char *
fg_import_word(fg_import *im, const char *name)
{
    size_t n = strlen(name);
    char *w = fg_alloc(im->tmp, (n > 100 ? 100 : n) + 2);
    size_t k = 0;
    if (!isalpha((unsigned char)*name) && *name != '_')
        w[k++] = '_';
    for (size_t i = 0; i < n && i < 100; i++)
        w[k++] = isalnum((unsigned char)name[i]) ? name[i] : '_';
    return w;
}

/* ---- dims ----------------------------------------------------------------------------- */

static bool
name_char(char c, bool first)
{
    return isalpha((unsigned char)c) || c == '_' || c == '.' ||
           (!first && isdigit((unsigned char)c));
}

static size_t
name_length(const char *s)
{
    size_t n = 0;
    while (name_char(s[n], n == 0))
        n++;
    return n;
}

/* Without surrounding blanks; NULL when nothing is said ("?" is how some writers say so). */
static const char *
dim_text(fg_import *im, const Onnx__TensorShapeProto__Dimension *d)
{
    const char *s = d->dim_param;
    if (d->has_dim_value || !s)
        return NULL;
    while (*s == ' ')
        s++;
    size_t n = strlen(s);
    while (n && s[n - 1] == ' ')
        n--;
    return n == 0 || !strncmp(s, "?", n) ? NULL : fg_intern_n(im->cx, s, n);
}

/* Every name in the text is a dim of some input (or a function). */
static bool
names_known(fg_import *im, const char *s)
{
    while (*s) {
        size_t n = name_length(s);
        if (n && s[n] != '(' && fg_names_get(&im->plain, fg_intern_n(im->cx, s, n)) < 0)
            return false;
        if (!n && isdigit((unsigned char)*s))
            while (isdigit((unsigned char)s[n]))
                n++;
        s += n ? n : 1;
    }
    return true;
}

static fg_expr
make_dim(fg_import *im, const char *text)
{
    fg_exprs *ex = im->m->ex;
    int64_t fixed;
    const char *p = text;
    fg_expr e = FG_E_BAD;
    if (!text[name_length(text)]) {
        fg_names_set(&im->plain, text, 0);
    } else if (names_known(im, text)) {
        e = fg_parse_expr(ex, &p, false);
        while (*p == ' ')
            p++;
        if (*p || (fg_e_const(ex, e, &fixed) && fixed < 0) || fg_e_hi(ex, e) < 0)
            e = FG_E_BAD;
    }
    return e ? e
             : fg_es(ex, fg_sym_new(ex, fg_show(im, text), FG_SYM_INPUT, 0, INT64_MAX));
}

static fg_expr
dim_of_text(fg_import *im, const char *text)
{
    int at = fg_names_get(&im->dims, text);
    if (at < 0) {
        fg_expr e = make_dim(im, text);
        at = im->ndimexpr;
        FG_PUSH(im->tmp, im->dimexpr, im->ndimexpr, im->capdimexpr) = e;
        fg_names_set(&im->dims, text, at);
    }
    return fg_e_renew(im->m->ex, im->dimexpr[at]);
}

static const Onnx__TensorShapeProto *
shape_of(const Onnx__ValueInfoProto *v)
{
    return v->type && v->type->tensor_type ? v->type->tensor_type->shape : NULL;
}

/* Bare names first, so that expressions may come before them. */
bool
fg_import_symbols(fg_import *im, const Onnx__GraphProto *g)
{
    for (size_t i = 0; i < g->n_input; i++) {
        const Onnx__TensorShapeProto *sh = shape_of(g->input[i]);
        for (size_t d = 0; sh && d < sh->n_dim; d++) {
            const char *text = dim_text(im, sh->dim[d]);
            if (text && !text[name_length(text)])
                dim_of_text(im, text);
        }
    }
    return true;
}

/* --dim: symbols that the caller fixes or bounds. Those of dimensions that the model gives no
 * name have the input's name and the axis, and are known once the inputs are. */
bool
fg_import_dim_options(fg_import *im)
{
    fg_exprs *ex = im->m->ex;
    const fg_import_options *o = im->o;
    for (int i = 0; o && i < o->ndim; i++) {
        fg_sym s;
        int at = fg_names_get(&im->dims, fg_intern(im->cx, o->dim_name[i]));
        int64_t found = fg_sym_find(ex, o->dim_name[i]);
        if (at >= 0 && fg_e_single(ex, im->dimexpr[at], &s))
            found = s;
        if (found < 0) {
            fg_text t = fg_text_new(im->tmp);
            for (fg_sym k = 0; k < fg_sym_count(ex) && k < 20; k++)
                fg_putf(&t, "%s%s", k ? ", " : "", fg_sym_info(ex, k)->name);
            return fg_error(im->cx, "no dimension is called \"%s\"; there is: %s",
                            fg_show(im, o->dim_name[i]), t.n ? t.s : "none");
        }
        s = (fg_sym)found;
        if (o->dim_value[i] >= 0) {
            if (!fg_unify(im->m, fg_es(ex, s), fg_ec(ex, o->dim_value[i])))
                return fg_error(im->cx, "dimension \"%s\" cannot be %lld",
                                fg_show(im, o->dim_name[i]), (long long)o->dim_value[i]);
            continue;
        }
        fg_syminfo *info = fg_sym_info(ex, s);
        if (o->dim_lo[i] > info->lo)
            info->lo = o->dim_lo[i];
        if (o->dim_hi[i] < info->hi)
            info->hi = o->dim_hi[i];
        info->usual = o->dim_usual[i];
        if (info->lo > info->hi)
            return fg_error(im->cx, "dimension \"%s\" has empty bounds",
                            fg_show(im, o->dim_name[i]));
    }
    return true;
}

/* ---- types ---------------------------------------------------------------------------- */

bool
fg_import_type(fg_import *im, const Onnx__ValueInfoProto *v, fg_type *out)
{
    const char *what = fg_format(im->tmp, "input \"%s\"", fg_show(im, v->name));
    const Onnx__TypeProto *pb = v->type;
    const Onnx__TypeProto__Tensor *t = pb ? pb->tensor_type : NULL;
    if (!t)
        return fg_error(im->cx, "%s: %s", what,
                        !pb ? "has no type"
                            : "has a type that is not supported (only tensors are)");
    fg_dtype d = fg_dtype_by_onnx(t->elem_type);
    if (d == FG_NODTYPE)
        return fg_error(im->cx, "%s: element type %s is not supported", what,
                        fg_onnx_type_name(im->tmp, t->elem_type));
    if (!t->shape)
        return fg_error(im->cx, "%s: its rank is not declared", what);
    if (t->shape->n_dim > FG_MAXRANK)
        return fg_error(im->cx, "%s: %zu dimensions; %d are supported", what,
                        t->shape->n_dim, FG_MAXRANK);
    *out = fg_type_scalar(d);
    for (size_t i = 0; i < t->shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *dim = t->shape->dim[i];
        const char *text = dim_text(im, dim);
        fg_expr e;
        if (dim->has_dim_value && dim->dim_value >= 0)
            e = fg_ec(im->m->ex, dim->dim_value);
        else if (text)
            e = dim_of_text(im, text);
        else /* -1 is how some writers say "any" */
            e = fg_es(im->m->ex, fg_sym_new(im->m->ex,
                                            fg_format(im->tmp, "%s_%zu",
                                                      fg_import_word(im, v->name), i),
                                            FG_SYM_INPUT, 0, INT64_MAX));
        out->dim[out->rank++] = e;
    }
    return true;
}
