/* expr_bounds.c - intervals, values and text of expressions. */
#include "ir/expr_impl.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

/* ---- intervals -------------------------------------------------------------------------- */

typedef struct range {
    int64_t lo, hi;
} range; /* INT64_MIN / INT64_MAX: open */

static int64_t
clamp(__int128 v)
{
    return v > INT64_MAX ? INT64_MAX : v < INT64_MIN ? INT64_MIN : (int64_t)v;
}

static bool
open_end(int64_t v)
{
    return v == INT64_MAX || v == INT64_MIN;
}

/* Product of interval ends, where an open end times zero is zero. */
static int64_t
mul_end(int64_t a, int64_t b)
{
    if (a == 0 || b == 0)
        return 0;
    if (open_end(a) || open_end(b))
        return (a < 0) != (b < 0) ? INT64_MIN : INT64_MAX;
    return clamp((__int128)a * b);
}

static range
mul_range(range x, range y)
{
    int64_t p[4] = {mul_end(x.lo, y.lo), mul_end(x.lo, y.hi), mul_end(x.hi, y.lo),
                    mul_end(x.hi, y.hi)};
    range r = {p[0], p[0]};
    for (int i = 1; i < 4; i++) {
        r.lo = p[i] < r.lo ? p[i] : r.lo;
        r.hi = p[i] > r.hi ? p[i] : r.hi;
    }
    return r;
}

static range
add_range(range x, range y)
{
    return (range){x.lo == INT64_MIN || y.lo == INT64_MIN ? INT64_MIN
                                                          : clamp((__int128)x.lo + y.lo),
                   x.hi == INT64_MAX || y.hi == INT64_MAX ? INT64_MAX
                                                          : clamp((__int128)x.hi + y.hi)};
}

static range
atom_range(const fg_exprs *t, fg_atom at)
{
    if (at.kind == FG_ATOM_SYM)
        return (range){t->sym[at.sym].lo, t->sym[at.sym].hi};
    if (at.kind == FG_ATOM_EQ || at.kind == FG_ATOM_LT)
        return (range){0, 1};
    const poly *pa = &t->poly[at.a], *pb = &t->poly[at.b];
    range a = {pa->lo, pa->hi}, b = {pb->lo, pb->hi};
    switch (at.kind) {
    case FG_ATOM_MIN:
        return (range){a.lo < b.lo ? a.lo : b.lo, a.hi < b.hi ? a.hi : b.hi};
    case FG_ATOM_MAX:
        return (range){a.lo > b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi};
    case FG_ATOM_MOD:
        return b.lo > 0 ? (range){0, b.hi == INT64_MAX ? INT64_MAX : b.hi - 1}
                        : (range){INT64_MIN, INT64_MAX};
    default: /* floor division by something positive shrinks towards 0 */
        if (b.lo <= 0)
            return (range){INT64_MIN, INT64_MAX};
        return (range){a.lo >= 0 ? (open_end(b.hi) ? 0 : a.lo / b.hi) : a.lo,
                       a.hi >= 0 ? (a.hi == INT64_MAX ? INT64_MAX : a.hi / b.lo) : -1};
    }
}

static range
range_of(const fg_exprs *t, const poly *p)
{
    range sum = {0, 0};
    for (int i = 0; i < p->n; i++) {
        const term *tm = &p->t[i];
        range r = {tm->coef, tm->coef};
        for (int j = 0; j < tm->natom; j++)
            r = mul_range(r, atom_range(t, t->atom[tm->atom[j]]));
        sum = add_range(sum, r);
    }
    return sum;
}

void
fg_poly_bounds(fg_exprs *t, const poly *p, int64_t *lo, int64_t *hi)
{
    range r = range_of(t, p);
    *lo = r.lo;
    *hi = r.hi;
}

int64_t
fg_e_lo(fg_exprs *t, fg_expr e)
{
    return e ? range_of(t, &t->poly[e]).lo : INT64_MIN;
}

int64_t
fg_e_hi(fg_exprs *t, fg_expr e)
{
    return e ? range_of(t, &t->poly[e]).hi : INT64_MAX;
}

bool
fg_e_le(fg_exprs *t, fg_expr a, fg_expr b)
{
    fg_expr d = fg_esub(t, b, a);
    if (d && fg_e_lo(t, d) >= 0)
        return true;
    /* min(x, ..) <= x and x <= max(x, ..), the usual clamps. */
    const poly *pa = &t->poly[a], *pb = &t->poly[b];
    if (a && pa->n == 1 && pa->t[0].coef == 1 && pa->t[0].natom == 1) {
        fg_atom at = t->atom[pa->t[0].atom[0]];
        if (at.kind == FG_ATOM_MIN && (at.a == b || at.b == b))
            return true;
    }
    if (b && pb->n == 1 && pb->t[0].coef == 1 && pb->t[0].natom == 1) {
        fg_atom at = t->atom[pb->t[0].atom[0]];
        if (at.kind == FG_ATOM_MAX && (at.a == a || at.b == a))
            return true;
    }
    return false;
}

bool
fg_e_divides(fg_exprs *t, int64_t k, fg_expr e)
{
    if (!e || k == 0)
        return false;
    for (int i = 0; i < t->poly[e].n; i++)
        if (k != -1 && t->poly[e].t[i].coef % k)
            return false;
    return true;
}

/* ---- values -------------------------------------------------------------------------------- */

static bool
atom_eval(const fg_exprs *t, fg_atom at, const int64_t *sym, int64_t *out)
{
    int64_t a, b;
    if (at.kind == FG_ATOM_SYM && !t->sym[at.sym].is) {
        *out = sym[at.sym];
        return true;
    }
    if (at.kind == FG_ATOM_SYM)
        return fg_e_eval(t, t->sym[at.sym].is, sym, out);
    if (!fg_e_eval(t, at.a, sym, &a) || !fg_e_eval(t, at.b, sym, &b))
        return false;
    if ((at.kind == FG_ATOM_DIV || at.kind == FG_ATOM_MOD) &&
        (b == 0 || (b == -1 && a == INT64_MIN)))
        return false;
    int64_t q = b ? a / b - (b != 0 && a % b && (a < 0) != (b < 0)) : 0;
    switch (at.kind) {
    case FG_ATOM_DIV:
        *out = q;
        break;
    case FG_ATOM_MOD:
        *out = a - q * b;
        break;
    case FG_ATOM_MIN:
        *out = a < b ? a : b;
        break;
    case FG_ATOM_MAX:
        *out = a > b ? a : b;
        break;
    case FG_ATOM_EQ:
        *out = a == b;
        break;
    default:
        *out = a < b;
        break;
    }
    return true;
}

bool
fg_e_eval(const fg_exprs *t, fg_expr e, const int64_t *sym, int64_t *out)
{
    int64_t sum = 0;
    if (!e)
        return false;
    for (int i = 0; i < t->poly[e].n; i++) {
        const term *tm = &t->poly[e].t[i];
        int64_t prod = tm->coef, v;
        for (int j = 0; j < tm->natom; j++)
            if (!atom_eval(t, t->atom[tm->atom[j]], sym, &v) ||
                __builtin_mul_overflow(prod, v, &prod))
                return false;
        if (__builtin_add_overflow(sum, prod, &sum))
            return false;
    }
    *out = sum;
    return true;
}

/* ---- text ------------------------------------------------------------------------------------ */

static const struct {
    const char *word;
    fg_atomkind kind;
} functions[] = {
    {"min", FG_ATOM_MIN}, {"max", FG_ATOM_MAX}, {"eq", FG_ATOM_EQ},
    {"lt", FG_ATOM_LT},   {"Min", FG_ATOM_MIN}, {"Max", FG_ATOM_MAX},
};

static bool
name_char(char c, bool first)
{
    return isalpha((unsigned char)c) || c == '_' || c == '.' || c == '$' ||
           (!first && isdigit((unsigned char)c));
}

static void
put_name(fg_text *o, const char *s)
{
    bool plain = *s != 0 && strcmp(s, "floor") != 0;
    for (size_t i = 0; s[i]; i++)
        plain &= name_char(s[i], i == 0);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        plain &= strcmp(s, functions[i].word) != 0;
    if (plain) {
        fg_puts(o, s);
        return;
    }
    fg_putc(o, '\'');
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\' || (unsigned char)*s < 32)
            fg_putf(o, "\\x%02x", (unsigned char)*s);
        else
            fg_putc(o, *s);
    }
    fg_putc(o, '\'');
}

static void
put_atom(fg_text *o, const fg_exprs *t, fg_atom at)
{
    if (at.kind == FG_ATOM_SYM) {
        put_name(o, t->sym[at.sym].name);
    } else if (at.kind == FG_ATOM_DIV || at.kind == FG_ATOM_MOD) {
        fg_puts(o, "((");
        fg_put_expr(o, t, at.a);
        fg_puts(o, at.kind == FG_ATOM_DIV ? ")/(" : ")%(");
        fg_put_expr(o, t, at.b);
        fg_puts(o, "))");
    } else {
        for (size_t i = 0; i < 4; i++)
            if (functions[i].kind == at.kind)
                fg_puts(o, functions[i].word);
        fg_putc(o, '(');
        fg_put_expr(o, t, at.a);
        fg_putc(o, ',');
        fg_put_expr(o, t, at.b);
        fg_putc(o, ')');
    }
}

void
fg_put_expr(fg_text *o, const fg_exprs *t, fg_expr e)
{
    if (!e) {
        fg_putc(o, '?');
        return;
    }
    if (t->poly[e].n == 0)
        fg_putc(o, '0');
    for (int i = 0; i < t->poly[e].n; i++) {
        const term *tm = &t->poly[e].t[i];
        if (i && tm->coef > 0)
            fg_putc(o, '+');
        if (tm->natom == 0)
            fg_putf(o, "%lld", (long long)tm->coef);
        else if (tm->coef == -1)
            fg_putc(o, '-');
        else if (tm->coef != 1)
            fg_putf(o, "%lld*", (long long)tm->coef);
        for (int j = 0; j < tm->natom; j++) {
            if (j)
                fg_putc(o, '*');
            put_atom(o, t, t->atom[tm->atom[j]]);
        }
    }
}

typedef struct reader {
    fg_exprs *t;
    const char *s;
    bool make;
    int depth;
} reader;

static fg_expr read_sum(reader *r);

static void
skip_space(reader *r)
{
    while (*r->s == ' ' || *r->s == '\t')
        r->s++;
}

static bool
eat(reader *r, char c)
{
    skip_space(r);
    if (*r->s != c)
        return false;
    r->s++;
    return true;
}

static int
hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A plain or quoted name; NULL when there is none. */
static const char *
read_name(reader *r)
{
    fg_text o = fg_text_new(r->t->a);
    if (*r->s == '\'') {
        for (r->s++; *r->s && *r->s != '\''; r->s++) {
            if (*r->s == '\\' && r->s[1] == 'x' && hex_digit(r->s[2]) >= 0 &&
                hex_digit(r->s[3]) >= 0) {
                fg_putc(&o, (char)(hex_digit(r->s[2]) * 16 + hex_digit(r->s[3])));
                r->s += 3;
            } else {
                fg_putc(&o, *r->s);
            }
        }
        if (*r->s != '\'')
            return NULL;
        r->s++;
        return o.s;
    }
    for (bool first = true; name_char(*r->s, first); first = false)
        fg_putc(&o, *r->s++);
    return o.n ? o.s : NULL;
}

static fg_expr
read_call(reader *r, const char *name)
{
    fg_expr a = read_sum(r);
    if (strcmp(name, "floor") == 0)
        return eat(r, ')') ? a : FG_E_BAD;
    if (!a || !eat(r, ','))
        return FG_E_BAD;
    fg_expr b = read_sum(r);
    if (!b || !eat(r, ')'))
        return FG_E_BAD;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].word, name) == 0)
            switch (functions[i].kind) {
            case FG_ATOM_MIN:
                return fg_emin(r->t, a, b);
            case FG_ATOM_MAX:
                return fg_emax(r->t, a, b);
            case FG_ATOM_EQ:
                return fg_eeq(r->t, a, b);
            default:
                return fg_elt(r->t, a, b);
            }
    return FG_E_BAD;
}

static fg_expr
read_factor(reader *r)
{
    skip_space(r);
    if (eat(r, '-')) {
        int64_t sign = -1;
        while (eat(r, '-')) /* a loop: text may hold any number of them */
            sign = -sign;
        return fg_emul(r->t, fg_ec(r->t, sign), read_factor(r));
    }
    if (eat(r, '(')) {
        fg_expr e = read_sum(r);
        return eat(r, ')') ? e : FG_E_BAD;
    }
    if (isdigit((unsigned char)*r->s)) {
        char *end;
        errno = 0;
        long long v = strtoll(r->s, &end, 10);
        if (errno)
            return FG_E_BAD;
        r->s = end;
        return fg_ec(r->t, v);
    }
    bool quoted = *r->s == '\'';
    const char *start = r->s, *name = read_name(r);
    if (!name)
        return FG_E_BAD;
    if (!quoted && eat(r, '('))
        return read_call(r, name);
    int64_t s = fg_sym_find(r->t, name);
    if (s < 0 && !r->make) {
        r->s = start;
        return FG_E_BAD;
    }
    return fg_es(r->t,
                 s >= 0 ? (fg_sym)s : fg_sym_new(r->t, name, FG_SYM_INPUT, 0, INT64_MAX));
}

static fg_expr
read_product(reader *r)
{
    fg_expr e = read_factor(r);
    for (skip_space(r); e && (*r->s == '*' || *r->s == '/' || *r->s == '%');
         skip_space(r)) {
        char op = *r->s++;
        if (op == '/' && *r->s == '/')
            r->s++;
        fg_expr f = read_factor(r);
        e = op == '*'   ? fg_emul(r->t, e, f)
            : op == '/' ? fg_ediv(r->t, e, f)
                        : fg_emod(r->t, e, f);
    }
    return e;
}

static fg_expr
read_sum(reader *r)
{
    if (++r->depth > 64)
        return FG_E_BAD;
    fg_expr e = read_product(r);
    for (skip_space(r); e && (*r->s == '+' || *r->s == '-'); skip_space(r)) {
        bool plus = *r->s++ == '+';
        fg_expr f = read_product(r);
        e = plus ? fg_eadd(r->t, e, f) : fg_esub(r->t, e, f);
    }
    r->depth--;
    return e;
}

fg_expr
fg_parse_expr(fg_exprs *t, const char **s, bool make)
{
    reader r = {t, *s, make, 0};
    fg_expr e = read_sum(&r);
    *s = r.s;
    return e;
}

void
fg_put_symbol(fg_text *o, const fg_exprs *t, fg_sym s)
{
    put_name(o, t->sym[s].name);
}

const char *
fg_parse_symbol(fg_exprs *t, const char **s)
{
    reader r = {t, *s, false, 0};
    const char *name = read_name(&r);
    *s = r.s;
    return name;
}
