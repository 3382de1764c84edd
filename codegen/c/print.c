/* print.c - lines and scopes, integer expressions, and elements of arrays as C. */
#include "codegen/c/c.h"

/* ---- lines ------------------------------------------------------------------------------ */

static void
put_line(cc *c, const char *fmt, va_list ap)
{
    for (int k = 0; k < c->depth; k++)
        fg_puts(&c->body, "    ");
    fg_vputf(&c->body, fmt, ap);
}

void
cc_line(cc *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    put_line(c, fmt, ap);
    va_end(ap);
    fg_putc(&c->body, '\n');
}

/* What is named inside a scope is forgotten behind it. */
void
cc_open(cc *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    put_line(c, fmt, ap);
    va_end(ap);
    fg_puts(&c->body, *fmt ? " {\n" : "{\n");
    if (++c->depth >= CC_DEPTH)
        FG_BUG(c->m->cx, "loops are nested too deep");
    c->mark[c->depth] = c->nmemo;
}

void
cc_close(cc *c)
{
    c->nmemo = c->mark[c->depth--];
    cc_line(c, "}");
}

void
cc_close_all(cc *c, int n)
{
    while (n--)
        cc_close(c);
}

bool
cc_refuse(cc *c, const fg_inst *i, const char *why)
{
    if (!c->failed)
        fg_error(c->m->cx, "%s: %s cannot be written as C%s%s", fg_inst_where(c->m, i),
                 fg_op_info(i->op)->name, *why ? ": " : "", why);
    c->failed = true;
    return false;
}

/* ---- integers ---------------------------------------------------------------------------- */

/* In parentheses if it is more than one word. */
static const char *
closed(cc *c, const char *s)
{
    return strchr(s, ' ') ? fg_format(c->a, "(%s)", s) : s;
}

const char *
cc_plus(cc *c, const char *a, const char *b)
{
    if (!strcmp(a, "0"))
        return b;
    if (!strcmp(b, "0"))
        return a;
    if (*b == '-')
        return fg_format(c->a, "%s - %s", a, b + 1);
    return fg_format(c->a, "%s + %s", a, b);
}

const char *
cc_times(cc *c, const char *a, const char *b)
{
    if (!strcmp(a, "0") || !strcmp(b, "0"))
        return "0";
    if (!strcmp(a, "1"))
        return b;
    if (!strcmp(b, "1"))
        return a;
    if (c->careful)
        return fg_format(c->a, "times(%s, %s)", a, b);
    /* Products need no parentheses on the left. */
    return fg_format(c->a, "%s * %s", strpbrk(a, "+-/%?<=") ? closed(c, a) : a,
                     closed(c, b));
}

static const char *
atom(cc *c, uint32_t id)
{
    static const char *const call[] = {[FG_ATOM_DIV] = "floor_div",
                                       [FG_ATOM_MOD] = "floor_mod",
                                       [FG_ATOM_MIN] = "least",
                                       [FG_ATOM_MAX] = "most"};
    fg_atom at = fg_atom_get(c->m->ex, id);

    if (at.kind == FG_ATOM_SYM)
        return c->symbol[at.sym];
    const char *a = cc_expr(c, at.a), *b = cc_expr(c, at.b);
    if (at.kind == FG_ATOM_EQ || at.kind == FG_ATOM_LT)
        return fg_format(c->a, "(%s %s %s)", closed(c, a),
                         at.kind == FG_ATOM_EQ ? "==" : "<", closed(c, b));
    return fg_format(c->a, "%s(%s, %s)", call[at.kind], a, b);
}

const char *
cc_expr(cc *c, fg_expr e)
{
    const char *sum = "0";

    if (e == FG_E_BAD)
        cc_refuse(c, c->kernel, "a size is too complicated");
    int n = e == FG_E_BAD ? 0 : fg_e_nterms(c->m->ex, e);

    for (int k = 0; k < n; k++) {
        const uint32_t *atoms;
        int natom;
        int64_t coef = fg_e_term(c->m->ex, e, k, &atoms, &natom);
        bool minus = coef < 0 && natom;
        const char *p = natom && (coef == 1 || coef == -1)
                            ? "1"
                            : fg_format(c->a, "%lld", (long long)(minus ? -coef : coef));
        for (int j = 0; j < natom; j++) {
            const char *x = atom(c, atoms[j]);
            if (!x) {
                cc_refuse(c, c->kernel, "a size is known only while it runs");
                x = "0";
            }
            p = cc_times(c, p, x);
        }
        sum = cc_plus(c, sum, minus ? fg_format(c->a, "-%s", p) : p);
    }
    return sum;
}

const char *
cc_count(cc *c, const fg_type *t, int first)
{
    const char *n = "1";

    for (int k = first; k < t->rank; k++)
        n = cc_times(c, n, cc_expr(c, t->dim[k]));
    return n;
}

/* ---- elements ---------------------------------------------------------------------------- */

static const struct {
    const char *value, *element;
} ctypes[FG_NDTYPES] = {
    [FG_f32] = {"float", "float"},       [FG_f64] = {"double", "double"},
    [FG_f16] = {"float", "uint16_t"},    [FG_bf16] = {"float", "uint16_t"},
    [FG_i64] = {"int64_t", "int64_t"},   [FG_i32] = {"int32_t", "int32_t"},
    [FG_i16] = {"int16_t", "int16_t"},   [FG_i8] = {"int8_t", "int8_t"},
    [FG_i4] = {"int8_t", "uint8_t"},     [FG_u64] = {"uint64_t", "uint64_t"},
    [FG_u32] = {"uint32_t", "uint32_t"}, [FG_u16] = {"uint16_t", "uint16_t"},
    [FG_u8] = {"uint8_t", "uint8_t"},    [FG_u4] = {"uint8_t", "uint8_t"},
    [FG_bool] = {"uint8_t", "uint8_t"}};

const char *
cc_type(fg_dtype d)
{
    return ctypes[d].value;
}

const char *
cc_store_type(fg_dtype d)
{
    return ctypes[d].element;
}

const char *
cc_sum_type(fg_dtype d)
{
    return fg_is_float(d)                      ? "double"
           : fg_dtypes[d].cls == FG_CLASS_SINT ? "int64_t"
                                               : "uint64_t";
}

const char *
cc_bound(fg_dtype d, bool greatest)
{
    static const char *const text[FG_NDTYPES][2] = {[FG_f32] = {"-INFINITY", "INFINITY"},
                                                    [FG_f64] = {"-INFINITY", "INFINITY"},
                                                    [FG_f16] = {"-INFINITY", "INFINITY"},
                                                    [FG_bf16] = {"-INFINITY", "INFINITY"},
                                                    [FG_i64] = {"INT64_MIN", "INT64_MAX"},
                                                    [FG_i32] = {"INT32_MIN", "INT32_MAX"},
                                                    [FG_i16] = {"-32768", "32767"},
                                                    [FG_i8] = {"-128", "127"},
                                                    [FG_i4] = {"-8", "7"},
                                                    [FG_u64] = {"0", "UINT64_MAX"},
                                                    [FG_u32] = {"0", "UINT32_MAX"},
                                                    [FG_u16] = {"0", "65535"},
                                                    [FG_u8] = {"0", "255"},
                                                    [FG_u4] = {"0", "15"},
                                                    [FG_bool] = {"0", "1"}};

    return text[d][greatest];
}

const char *
cc_from_double(cc *c, fg_dtype d, const char *x)
{
    if (fg_is_float(d))
        return fg_format(c->a, "(%s)(%s)", cc_type(d), x);
    if (d == FG_bool)
        return fg_format(c->a, "(%s) != 0", x);
    if (d == FG_u64)
        return fg_format(c->a, "saturate_u64(%s)", x);
    if (d == FG_i64)
        return fg_format(c->a, "saturate(%s, -0x1p63, 0x1p63)", x);
    return fg_format(c->a, "(%s)saturate(%s, %s, %s)", cc_type(d), x, cc_bound(d, false),
                     cc_bound(d, true));
}

const char *
cc_offset(cc *c, const fg_type *t, const char *const *at)
{
    const char *off = "0";

    for (int k = 0; k < t->rank; k++)
        off = cc_plus(c, cc_times(c, off, cc_expr(c, t->dim[k])), at[k]);
    return off;
}

const char *
cc_load(cc *c, const char *array, const fg_type *t, const char *const *at)
{
    const char *off = cc_offset(c, t, at), *name = fg_dtypes[t->dtype].name;

    if (t->dtype == FG_f16 || t->dtype == FG_bf16)
        return fg_format(c->a, "%s(%s[%s])", name, array, off);
    if (fg_dtypes[t->dtype].bits < 8)
        return fg_format(c->a, "%s(%s, %s)", name, array, off);
    return fg_format(c->a, "%s[%s]", array, off);
}

const char *
cc_for(cc *c, char letter, int k, fg_expr n)
{
    if (fg_e_is(c->m->ex, n, 1))
        return "0";
    const char *i = fg_format(c->a, "%c%d", letter, k);
    cc_open(c, "for (int64_t %s = 0; %s < %s; %s++)", i, i, cc_expr(c, n), i);
    return i;
}

int
cc_for_all(cc *c, const fg_type *t, unsigned skip, cc_index at)
{
    int from = c->depth;

    for (int k = 0; k < t->rank; k++)
        at[k] = skip >> k & 1 ? "0" : cc_for(c, 'i', k, t->dim[k]);
    return c->depth - from;
}

void
cc_store(cc *c, const char *array, const fg_type *t, const char *const *at,
         const char *value)
{
    const char *off = cc_offset(c, t, at);

    if (t->dtype == FG_f16 || t->dtype == FG_bf16)
        cc_line(c, "%s[%s] = to_%s((float)(%s));", array, off, fg_dtypes[t->dtype].name,
                value);
    else if (fg_dtypes[t->dtype].bits < 8)
        cc_line(c, "put4(%s, %s, (int)(%s));", array, off, value);
    else
        cc_line(c, "%s[%s] = %s;", array, off, value);
}

const char *
cc_add_param(cc *c, const char *type, const char *name, const char *actual)
{
    FG_PUSH(c->a, c->param, c->nparam, c->capparam) = (cc_param){type, name, actual};
    return name;
}

const char *
cc_temp(cc *c, const fg_type *t)
{
    const char *name = fg_format(c->a, "t%zu", c->nparam);

    return cc_add_param(c, fg_format(c->a, "%s *", cc_store_type(t->dtype)), name,
                        c->buffer(c->user, t, "inside a kernel"));
}
