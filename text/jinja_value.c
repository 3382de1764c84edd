/* jinja_value.c - what templates compute with. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja.h"

val
val_of_str(fg_str s)
{
    return (val){V_STR, {.s = s}};
}

val
val_of_text(const char *s)
{
    return val_of_str(fg_str_of(s));
}

val
val_of_int(int64_t i)
{
    return (val){V_INT, {i}};
}

val
val_of_bool(bool b)
{
    return (val){V_BOOL, {b}};
}

val
val_new_list(jinja *j)
{
    return (val){V_LIST, {.list = FG_NEW(j->a, val_list)}};
}

void
val_push(jinja *j, val list, val v)
{
    FG_PUSH(j->a, list.list->v, list.list->n, list.list->cap) = v;
}

val
val_new_dict(jinja *j, val_kind kind)
{
    return (val){kind, {.dict = FG_NEW(j->a, val_dict)}};
}

val *
val_find(const val_dict *d, fg_str key)
{
    for (size_t i = 0; i < d->n; i++)
        if (fg_str_same(d->v[i].key, key))
            return &d->v[i].v;
    return NULL;
}

void
val_set(jinja *j, val_dict *d, fg_str key, val v)
{
    val *old = val_find(d, key);

    if (old)
        *old = v;
    else
        FG_PUSH(j->a, d->v, d->n, d->cap) = (val_pair){key, v};
}

bool
val_number(val v, double *f)
{
    *f = v.kind == V_FLOAT ? v.f : (double)v.i;
    return v.kind == V_INT || v.kind == V_BOOL || v.kind == V_FLOAT;
}

bool
val_true(val v)
{
    switch (v.kind) {
    case V_BOOL:
    case V_INT:
        return v.i != 0;
    case V_FLOAT:
        return v.f != 0;
    case V_STR:
        return v.s.n != 0;
    case V_LIST:
        return v.list->n != 0;
    case V_DICT:
        return v.dict->n != 0;
    case V_UNDEFINED:
    case V_NONE:
        return false;
    default:
        return true;
    }
}

/* Lists may share parts, so that comparing can take far longer than they are large: it
 * counts as steps. */
static bool
same(jinja *j, val x, val y, int depth)
{
    double f, g;
    bool equal = depth < JINJA_DEPTH && jinja_step(j, j->line);

    if (val_number(x, &f) && val_number(y, &g))
        return f == g;
    if (x.kind != y.kind)
        return false;
    if (x.kind == V_STR)
        return fg_str_same(x.s, y.s);
    if (x.kind == V_LIST) {
        equal = equal && x.list->n == y.list->n;
        for (size_t i = 0; equal && i < x.list->n; i++)
            equal = same(j, x.list->v[i], y.list->v[i], depth + 1);
        return equal;
    }
    if (x.kind == V_DICT) {
        equal = equal && x.dict->n == y.dict->n;
        for (size_t i = 0; equal && i < x.dict->n; i++) {
            val *other = val_find(y.dict, x.dict->v[i].key);
            equal = other && same(j, x.dict->v[i].v, *other, depth + 1);
        }
        return equal;
    }
    return x.kind == V_NONE || x.kind == V_UNDEFINED || x.dict == y.dict;
}

bool
val_same(jinja *j, val x, val y)
{
    return same(j, x, y, 0);
}

static bool
compare(jinja *j, val x, val y, int depth, int *order)
{
    double f, g;

    *order = 0;
    if (val_number(x, &f) && val_number(y, &g)) {
        *order = (f > g) - (f < g);
        return true;
    }
    if (x.kind == V_STR && y.kind == V_STR) {
        size_t least = x.s.n < y.s.n ? x.s.n : y.s.n;
        *order = least ? memcmp(x.s.s, y.s.s, least) : 0;
        if (!*order)
            *order = (x.s.n > y.s.n) - (x.s.n < y.s.n);
        return true;
    }
    if (x.kind != V_LIST || y.kind != V_LIST || depth > JINJA_DEPTH)
        return false;
    for (size_t i = 0; i < x.list->n && i < y.list->n; i++) {
        if (!jinja_step(j, j->line))
            return false;
        if (!same(j, x.list->v[i], y.list->v[i], depth + 1))
            return compare(j, x.list->v[i], y.list->v[i], depth + 1, order);
    }
    *order = (x.list->n > y.list->n) - (x.list->n < y.list->n);
    return true;
}

bool
val_compare(jinja *j, val x, val y, int *order)
{
    return compare(j, x, y, 0, order);
}

const char *
val_type(val v)
{
    static const char *const names[] = {
        "undefined", "none",   "a bool",      "an integer", "a number", "text",
        "a list",    "a dict", "a namespace", "a function", "a macro"};
    return names[v.kind];
}

/* ---- as text ------------------------------------------------------------------------ */

static void
put_float(fg_text *t, double f)
{
    if (isinf(f) || isnan(f))
        fg_puts(t, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
    else
        fg_put_double(t, f, false);
}

static void
put_quoted(fg_text *t, fg_str s)
{
    char quote = memchr(s.s, '\'', s.n) && !memchr(s.s, '"', s.n) ? '"' : '\'';

    fg_putc(t, quote);
    for (size_t i = 0; i < s.n; i++) {
        char c = s.s[i];
        if (c == quote || c == '\\')
            fg_putf(t, "\\%c", c);
        else if (c == '\n' || c == '\t' || c == '\r')
            fg_puts(t, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
        else
            fg_putc(t, c);
    }
    fg_putc(t, quote);
}

static bool
too_much(jinja *j, const fg_text *t)
{
    if (t->n > JINJA_BYTES)
        jinja_fail(j, j->line, "the text is too long");
    return j->failed;
}

void
val_write(jinja *j, fg_text *t, val v, bool quoted)
{
    if (too_much(j, t))
        return;
    if (j->depth++ > JINJA_DEPTH)
        jinja_fail(j, j->line, "too deep");
    else if (v.kind == V_STR && quoted)
        put_quoted(t, v.s);
    else if (v.kind == V_STR)
        fg_put_str(t, v.s);
    else if (v.kind == V_INT)
        fg_putf(t, "%lld", (long long)v.i);
    else if (v.kind == V_FLOAT)
        put_float(t, v.f);
    else if (v.kind == V_BOOL)
        fg_puts(t, v.i ? "True" : "False");
    else if (v.kind == V_NONE)
        fg_puts(t, "None");
    else if (v.kind == V_LIST) {
        fg_putc(t, v.list->tuple ? '(' : '[');
        for (size_t i = 0; i < v.list->n && !j->failed; i++) {
            fg_puts(t, i ? ", " : "");
            val_write(j, t, v.list->v[i], true);
        }
        fg_puts(t, !v.list->tuple ? "]" : v.list->n == 1 ? ",)" : ")");
    } else if (v.kind == V_DICT) {
        for (size_t i = 0; i < v.dict->n && !j->failed; i++) {
            fg_puts(t, i ? ", " : "{");
            put_quoted(t, v.dict->v[i].key);
            fg_puts(t, ": ");
            val_write(j, t, v.dict->v[i].v, true);
        }
        fg_puts(t, v.dict->n ? "}" : "{}");
    } else if (v.kind != V_UNDEFINED)
        jinja_fail(j, j->line, "%s cannot be written", val_type(v));
    j->depth--;
}

static void
put_json_text(fg_text *t, fg_str s, bool ascii)
{
    fg_putc(t, '"');
    for (size_t i = 0; i < s.n;) {
        static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
        const char *known = s.s[i] ? strchr(from, s.s[i]) : NULL;
        size_t at = i;
        uint32_t c = (uint32_t)fg_utf8_next(s, &i);
        if (known)
            fg_putf(t, "\\%c", to[known - from]);
        else if (ascii && c > 0xffff)
            fg_putf(t, "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
        else if (c < 0x20 || (ascii && c > 0x7e))
            fg_putf(t, "\\u%04x", c);
        else
            fg_put_str(t, (fg_str){s.s + at, i - at});
    }
    fg_putc(t, '"');
}

static void
new_line(fg_text *t, const json_style *s, int depth)
{
    if (s->indent < 0)
        return;
    fg_putc(t, '\n');
    for (int i = 0; i < s->indent * depth; i++)
        fg_putc(t, ' ');
}

static int
by_key(const void *a, const void *b)
{
    fg_str x = ((const val_pair *)a)->key, y = ((const val_pair *)b)->key;
    int c = x.n && y.n ? memcmp(x.s, y.s, x.n < y.n ? x.n : y.n) : 0;

    return c ? c : (x.n > y.n) - (x.n < y.n);
}

static const val_pair *
members_of(jinja *j, const val_dict *d, bool sorted)
{
    if (!sorted || !d->n)
        return d->v;
    val_pair *v = FG_NEWN(j->a, val_pair, d->n);
    memcpy(v, d->v, d->n * sizeof *v);
    qsort(v, d->n, sizeof *v, by_key);
    return v;
}

/* As Python's json.dumps writes it. */
void
val_write_json(jinja *j, fg_text *t, val v, const json_style *s, int depth)
{
    bool list = v.kind == V_LIST, dict = v.kind == V_DICT || v.kind == V_SPACE;
    size_t n = list ? v.list->n : dict ? v.dict->n : 0;
    const val_pair *member = dict ? members_of(j, v.dict, s->sorted) : NULL;

    if (too_much(j, t))
        return;
    if (depth > JINJA_DEPTH)
        jinja_fail(j, j->line, "too deep");
    else if (v.kind == V_STR)
        put_json_text(t, v.s, s->ascii);
    else if (v.kind == V_BOOL)
        fg_puts(t, v.i ? "true" : "false");
    else if (v.kind == V_NONE)
        fg_puts(t, "null");
    else if (!list && !dict && (v.kind == V_INT || v.kind == V_FLOAT))
        val_write(j, t, v, false);
    else if (!list && !dict)
        jinja_fail(j, j->line, "%s is no JSON", val_type(v));
    else {
        fg_putc(t, list ? '[' : '{');
        for (size_t i = 0; i < n && !j->failed; i++) {
            if (i)
                fg_put_str(t, s->item);
            new_line(t, s, depth + 1);
            if (dict) {
                put_json_text(t, member[i].key, s->ascii);
                fg_put_str(t, s->pair);
            }
            val_write_json(j, t, list ? v.list->v[i] : member[i].v, s, depth + 1);
        }
        if (n)
            new_line(t, s, depth);
        fg_putc(t, list ? ']' : '}');
    }
}

fg_str
val_text(jinja *j, val v)
{
    if (v.kind == V_STR)
        return v.s;
    fg_text t = fg_text_new(j->a);
    val_write(j, &t, v, false);
    return (fg_str){t.s, t.n};
}
