/* parse_type.c - the parts of an instruction's line: names, types, attributes. */
#include "ir/parse.h"

/* ---- names of registers, symbols and weights -------------------------------------- */

static size_t
reg_slot(const fg_parser *p, const char *interned)
{
    size_t h = fg_hash(&interned, sizeof interned, 0) & (p->capreg - 1);
    while (p->reg[h].name && p->reg[h].name != interned)
        h = (h + 1) & (p->capreg - 1);
    return h;
}

fg_reg
fg_parse_reg(const fg_parser *p, const char *interned)
{
    return p->capreg ? p->reg[reg_slot(p, interned)].reg : 0;
}

void
fg_parse_bind(fg_parser *p, const char *interned, fg_reg r)
{
    if (p->nreg * 2 >= p->capreg) {
        struct named *old = p->reg;
        size_t n = p->capreg;
        p->capreg = n ? n * 2 : 256;
        p->reg = FG_NEWN(p->a, struct named, p->capreg);
        for (size_t k = 0; k < n; k++)
            if (old[k].name)
                p->reg[reg_slot(p, old[k].name)] = old[k];
    }
    p->nreg++;
    p->reg[reg_slot(p, interned)] = (struct named){interned, r};
}

/* The name of a register about to be defined. */
const char *
fg_parse_new_name(fg_parser *p)
{
    fg_lex_blank(p);
    const char *at = p->s;
    if (!fg_lex_expect(p, '%'))
        return NULL;
    const char *s = fg_lex_name(p, "a register's name");
    if (s && fg_parse_reg(p, s)) {
        fg_lex_fail(p, at, "%%%s is defined twice", s);
        return NULL;
    }
    return s;
}

/* Whether a region's instructions may read what block b defines: b is around them, and
 * no kernel in between. */
static bool
visible(const fg_block *from, const fg_block *b)
{
    for (; from; from = from->parent) {
        if (from == b)
            return true;
        if (from->owner && from->owner->op == FG_OP_kernel)
            return false;
    }
    return false;
}

bool
fg_parse_operand(fg_parser *p, const fg_block *b, fg_reg *r)
{
    fg_lex_blank(p);
    const char *at = p->s;
    *r = 0;
    if (*at == '_') {
        p->s++;
        return true;
    }
    if (!fg_lex_expect(p, '%'))
        return false;
    const char *s = fg_lex_name(p, "a register's name");
    if (!s)
        return false;
    *r = fg_parse_reg(p, s);
    if (!*r)
        return fg_lex_fail(p, at, "%%%s is not defined above", s);
    if (!visible(b, fg_ri(p->m, *r)->block))
        return fg_lex_fail(p, at, "%%%s cannot be read in this region", s);
    return true;
}

bool
fg_parse_weight(fg_parser *p, int64_t *w)
{
    fg_lex_blank(p);
    const char *at = p->s;
    if (!fg_lex_expect(p, '$') || !fg_lex_int(p, w))
        return false;
    if (*w < 0 || *w >= (int64_t)p->nweight)
        return fg_lex_fail(p, at, "no such weight");
    *w = p->weight[*w];
    return true;
}

static bool
symbol_ref(fg_parser *p, int64_t *s)
{
    fg_lex_blank(p);
    const char *at = p->s, *name = fg_parse_symbol(p->m->ex, &p->s);
    *s = name ? fg_sym_find(p->m->ex, name) : -1;
    return *s >= 0 || fg_lex_fail(p, at, "expected a declared symbol");
}

/* ---- types ------------------------------------------------------------------------ */

static bool
type(fg_parser *p, fg_type *t)
{
    fg_lex_blank(p);
    const char *at = p->s;
    size_t n = 0;
    while (fg_is_bare(at[n]))
        n++;
    *t = (fg_type){.dtype = (uint8_t)fg_dtype_by_name(at, n)};
    if (!t->dtype)
        return fg_lex_fail(p, at, "expected a type");
    p->s += n;
    if (!fg_lex_expect(p, '['))
        return false;
    while (!fg_lex_take(p, ']')) {
        if (t->rank && !fg_lex_expect(p, ','))
            return false;
        if (t->rank == FG_MAXRANK)
            return fg_lex_fail(p, p->s, "more than %d dimensions", FG_MAXRANK);
        fg_lex_blank(p);
        const char *dim = p->s;
        if (!fg_lex_expr(p, &t->dim[t->rank]))
            return false;
        if (fg_e_hi(p->m->ex, t->dim[t->rank++]) < 0)
            return fg_lex_fail(p, dim, "a size below 0");
    }
    return true;
}

static bool
storage(fg_parser *p, fg_typed *t)
{
    fg_lex_blank(p);
    const char *at = p->s;
    if (*at != '@')
        return true;
    size_t n = 1;
    while (at[n] >= 'a' && at[n] <= 'z')
        n++;
    for (int k = FG_MEM_INPUT; k <= FG_MEM_ONCE; k++)
        if (strlen(fg_mem_text[k]) == n && !strncmp(at, fg_mem_text[k], n))
            t->mem = (fg_memkind)k;
    if (t->mem == FG_MEM_NONE)
        return fg_lex_fail(p, at, "expected a storage");
    p->s += n;
    if (t->mem == FG_MEM_ARENA)
        return fg_lex_expect(p, '+') && fg_lex_int(p, &t->offset);
    if (t->mem != FG_MEM_ALIAS)
        return true;
    fg_lex_blank(p);
    t->alias_at = p->s;
    return fg_lex_expect(p, '%') && (t->alias = fg_lex_name(p, "a register's name"));
}

bool
fg_parse_typed(fg_parser *p, fg_typed *t)
{
    fg_lex_blank(p);
    *t = (fg_typed){.at = p->s};
    return type(p, &t->type) && storage(p, t);
}

/* Aliases may point forward, so they are resolved at the end. */
void
fg_parse_storage(fg_parser *p, fg_reg r, const fg_typed *t)
{
    fg_reginfo *ri = fg_ri(p->m, r);
    ri->mem = t->mem;
    ri->offset = t->offset;
    if (t->alias)
        FG_PUSH(p->a, p->alias, p->nalias, p->capalias) =
            (struct alias){r, t->alias, t->alias_at};
}

bool
fg_parse_params(fg_parser *p, fg_block *b)
{
    if (!fg_lex_expect(p, '('))
        return false;
    fg_lex_space(p);
    while (!fg_lex_take(p, ')')) {
        fg_typed t;
        if (b->nparam && !fg_lex_expect(p, ','))
            return false;
        fg_lex_space(p);
        const char *s = fg_parse_new_name(p);
        if (!s || !fg_lex_expect(p, ':') || !fg_parse_typed(p, &t))
            return false;
        fg_reg r = fg_param(p->m, b, t.type, s);
        fg_parse_bind(p, s, r);
        fg_parse_storage(p, r, &t);
        fg_lex_space(p);
    }
    return true;
}

/* ---- attributes ------------------------------------------------------------------- */

static bool
list(fg_parser *p, fg_attrkind kind, fg_attr *a)
{
    int64_t *is = NULL;
    fg_expr *es = NULL;
    size_t cap = 0, n = 0;
    if (!fg_lex_expect(p, '['))
        return false;
    while (!fg_lex_take(p, ']')) {
        int64_t i = 0;
        fg_expr e = FG_E_BAD;
        if (n && !fg_lex_expect(p, ','))
            return false;
        fg_lex_blank(p);
        if (!(kind == FG_AK_ints   ? fg_lex_int(p, &i)
              : kind == FG_AK_syms ? symbol_ref(p, &i)
                                   : fg_lex_expr(p, &e)))
            return false;
        if (kind == FG_AK_exprs)
            FG_PUSH(p->a, es, n, cap) = e;
        else
            FG_PUSH(p->a, is, n, cap) = i;
    }
    a->n = (int)n;
    if (kind == FG_AK_exprs)
        a->es = es;
    else
        a->is = is;
    return true;
}

static bool
dtype(fg_parser *p, int64_t *d)
{
    fg_lex_blank(p);
    const char *at = p->s;
    while (fg_is_bare(*p->s))
        p->s++;
    *d = fg_dtype_by_name(at, (size_t)(p->s - at));
    return *d || fg_lex_fail(p, at, "expected an element type");
}

static bool
value(fg_parser *p, fg_attrkind kind, fg_attr *a)
{
    fg_lex_blank(p);
    const char *at = p->s;
    switch (kind) {
    case FG_AK_int:
        return fg_lex_int(p, &a->i);
    case FG_AK_flag:
        return fg_lex_int(p, &a->i) &&
               (a->i == 0 || a->i == 1 || fg_lex_fail(p, at, "expected 0 or 1"));
    case FG_AK_flt:
        return fg_parse_double(&p->s, false, &a->f) ||
               fg_lex_fail(p, at, "expected a number");
    case FG_AK_dtype:
        return dtype(p, &a->i);
    case FG_AK_expr:
        return fg_lex_expr(p, &a->e);
    case FG_AK_word:
        return (a->s = fg_lex_name(p, "a word"));
    case FG_AK_weight:
        return fg_parse_weight(p, &a->i);
    case FG_AK_sym:
        return symbol_ref(p, &a->i);
    default:
        return list(p, kind, a);
    }
}

static int
attr_index(const fg_opinfo *info, const char *s, size_t n)
{
    for (int k = 0; k < info->nattr; k++) {
        const char *known = fg_attrs[info->attr0 + k].name;
        if (strlen(known) == n && !memcmp(known, s, n))
            return k;
    }
    return -1;
}

/* `{axis=0, keep=1}`; behind the opening brace. */
bool
fg_parse_attrs(fg_parser *p, fg_inst *i)
{
    const fg_opinfo *info = fg_op_info(i->op);
    uint64_t seen = 0;
    do {
        fg_lex_blank(p);
        const char *at = p->s;
        while (fg_is_bare(*p->s))
            p->s++;
        size_t n = (size_t)(p->s - at);
        int k = attr_index(info, at, n);
        if (k < 0)
            return fg_lex_fail(p, at, "%s has no attribute \"%.*s\"", info->name,
                               n > 40 ? 40 : (int)n, at);
        if (seen >> k & 1)
            return fg_lex_fail(p, at, "%s is given twice",
                               fg_attrs[info->attr0 + k].name);
        seen |= (uint64_t)1 << k;
        if (!fg_lex_expect(p, '=') ||
            !value(p, fg_attrs[info->attr0 + k].kind, &i->attr[k]))
            return false;
    } while (fg_lex_take(p, ','));
    return fg_lex_expect(p, '}');
}
