/* special.c - sizes that are worth code of their own, and kernels as they are for them.
 *
 *     sequence=1,128               two variants: S = 1, and S = 128
 *     batch=1+sequence=1,8         B = 1 and S = 1, and S = 8
 *
 *     %y = kernel %x : f32[B,S,64] {                %y.1 = kernel %x : f32[B,1,64] {
 *       (%p: f32[B,S,32])                 S = 1       (%p.1: f32[B,1,32])
 *       %q = matmul %p, %w : f32[B,S,64]    =>        %q.1 = matmul %p.1, %w : f32[B,1,64]
 *
 * A kernel sees only its parameters, so with the sizes in its types and attributes replaced it
 * computes the same where they are what they are said to be. Nothing else of the program changes:
 * plan, weights, states and steps serve all sizes.
 */
#include "codegen/special.h"

#include <errno.h>
#include <stdlib.h>

enum { MAXSPECIAL = 16 };

/* ---- their text ------------------------------------------------------------------------ */

typedef struct size {
    const char *name;
    size_t len;
    int64_t v;
    bool together; /* with the one behind it */
} size;

/* "NAME=8", or behind a comma "8" of the name before. False: it is none. */
static bool
read_size(const char **s, size *z)
{
    size_t n = strcspn(*s, "=+,");
    char *end;

    if ((*s)[n] == '=') {
        z->name = *s;
        z->len = n;
        *s += n + 1;
    } else if (z->together) {
        return false;
    }
    if (!z->len || **s < '0' || **s > '9')
        return false;
    errno = 0;
    z->v = strtoll(*s, &end, 10);
    *s = end;
    z->together = *end == '+';
    return !errno && (!*end || ((*end == ',' || z->together) && end[1]));
}

const char *
fg_specials_wrong(const char *text)
{
    size z = {0};
    int n = 1;

    for (const char *s = text; s && *s; s += *s != '\0') {
        if (!read_size(&s, &z))
            return "variants: expected NAME=SIZE,SIZE,.. with + between sizes that go "
                   "together, as in batch=1+sequence=1,sequence=128";
        n += *s == ',';
    }
    return n > MAXSPECIAL ? "variants: more than 16 for one model" : NULL;
}

static bool
find_symbol(fg_module *m, const size *z, fg_sym *out)
{
    fg_exprs *ex = m->ex;
    const char *name = fg_intern_n(m->cx, z->name, z->len);
    int64_t found = fg_sym_find(ex, name), fixed;
    fg_text t = fg_text_new(m->a);

    for (fg_sym k = 0; found < 0 && k < fg_sym_count(ex) && k < 20; k++)
        if (fg_sym_info(ex, k)->kind == FG_SYM_INPUT)
            fg_putf(&t, "%s%s", t.n ? ", " : "", fg_sym_info(ex, k)->name);
    if (found < 0)
        return fg_error(m->cx, "variants: no size is called \"%.60s\"; there is: %s",
                        name, t.n ? t.s : "none");
    fg_expr e = fg_es(ex, (fg_sym)found);
    if (fg_e_const(ex, e, &fixed))
        return fg_error(m->cx, "variants: %.60s is %lld already", name, (long long)fixed);
    if (!fg_e_single(ex, e, out))
        return fg_error(m->cx, "variants: %.60s follows from other sizes", name);
    if (fg_sym_info(ex, *out)->kind != FG_SYM_INPUT)
        return fg_error(m->cx, "variants: %.60s is found while running", name);
    const fg_syminfo *i = fg_sym_info(ex, *out);
    return (z->v >= i->lo && z->v <= i->hi) ||
           fg_error(m->cx, "variants: %.60s=%lld is out of its bounds", name,
                    (long long)z->v);
}

/* The first that fits is taken when a model runs. */
static void
most_sizes_first(fg_special *list, uint32_t n)
{
    for (uint32_t k = 1; k < n; k++)
        for (uint32_t j = k; j && list[j].n > list[j - 1].n; j--) {
            fg_special t = list[j];
            list[j] = list[j - 1];
            list[j - 1] = t;
        }
}

bool
fg_specials_read(fg_module *m, fg_arena *a, const char *text, fg_specials *out)
{
    fg_special *list = NULL;
    fg_fixed *fixed = NULL;
    size_t cap = 0, capfixed = 0;
    uint32_t n = 0, nfixed = 0;
    size z = {0};

    for (const char *s = text; s && *s;) {
        fg_sym sym;
        read_size(&s, &z);
        if (!find_symbol(m, &z, &sym))
            return false;
        FG_PUSH(a, fixed, nfixed, capfixed) = (fg_fixed){sym, z.v};
        if (!z.together) {
            FG_PUSH(a, list, n, cap) = (fg_special){nfixed, fixed};
            fixed = NULL;
            nfixed = 0;
            capfixed = 0;
        }
        s += *s != '\0';
    }
    most_sizes_first(list, n);
    *out = (fg_specials){n, list};
    return true;
}

/* ---- kernels ----------------------------------------------------------------------------- */

typedef struct fixing {
    fg_module *m;
    const fg_expr *map; /* by symbol */
    bool changed, failed;
} fixing;

static void
fix(fixing *x, fg_expr *e)
{
    fg_expr was = *e;

    if (was == FG_E_BAD)
        return;
    *e = fg_e_subst(x->m->ex, was, x->map);
    x->changed |= *e != was;
    x->failed |= *e == FG_E_BAD;
}

static void
fix_register(fixing *x, fg_reg r)
{
    fg_reginfo *i = fg_ri(x->m, r);

    for (int k = 0; k < i->type.rank; k++)
        fix(x, &i->type.dim[k]);
    if (!i->sym)
        return;
    fg_expr *sym = fg_dup(x->m->a, i->sym, (size_t)i->nsym * sizeof *sym);
    for (int k = 0; k < i->nsym; k++)
        fix(x, &sym[k]);
    i->sym = sym;
}

static void
fix_inst(fixing *x, fg_inst *i)
{
    const fg_opinfo *info = fg_op_info(i->op);

    for (int k = 0; k < info->nattr; k++) {
        fg_attrkind kind = fg_attrs[info->attr0 + k].kind;
        if (kind == FG_AK_expr)
            fix(x, &i->attr[k].e);
        for (int j = 0; kind == FG_AK_exprs && j < i->attr[k].n; j++)
            fix(x, &i->attr[k].es[j]);
    }
    for (int k = 0; k < i->nout; k++)
        fix_register(x, i->out[k]);
}

fg_inst *
fg_special_kernel(fg_module *m, fg_inst *kernel, const fg_special *s)
{
    fg_expr *map = FG_NEWN(m->a, fg_expr, fg_sym_count(m->ex));
    fg_build b = fg_build_end(fg_block_new(m, NULL, NULL));
    fixing x = {.m = m, .map = map};

    for (uint32_t k = 0; k < s->n; k++)
        map[s->fixed[k].sym] = fg_ec(m->ex, s->fixed[k].size);
    fg_inst *own = fg_inst_clone(&b, kernel, NULL);
    for (int k = 0; k < own->region[0]->nparam; k++)
        fix_register(&x, own->region[0]->param[k]);
    fg_each_inst(own->region[0], i)
        fix_inst(&x, i);
    fix_inst(&x, own);
    return x.changed && !x.failed ? own : kernel;
}
