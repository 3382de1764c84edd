/* jinja_text.c - what Python's text knows besides what is in jinja_call.c: cutting,
 * counting, kinds of characters, and "%s of %05.1f" filled in.
 */
#include <stdio.h>
#include <stdlib.h>

#include "text/jinja.h"

#define MAX_WIDTH 1000

/* ---- cutting -------------------------------------------------------------------------- */

/* The last place of what in s; NULL. */
static const char *
last_of(fg_str s, fg_str what)
{
    for (size_t at = s.n >= what.n ? s.n - what.n + 1 : 0; at-- > 0;)
        if (fg_str_begins((fg_str){s.s + at, s.n - at}, what))
            return s.s + at;
    return NULL;
}

static val
characters(fg_str s, const char *hit)
{
    int64_t n = 0;

    for (size_t at = 0; hit && s.s + at < hit; n++)
        fg_utf8_next(s, &at);
    return val_of_int(hit ? n : -1);
}

static val
rsplit(jinja *j, const node *n, fg_str s, fg_str what, const args *a)
{
    const val *limit = args_get(a, 1, "maxsplit");
    int64_t most = limit && limit->kind == V_INT ? limit->i : -1;
    val parts = val_new_list(j), out = val_new_list(j);
    const char *hit;

    if (!what.n)
        return jinja_fail(j, n->line, "rsplit wants a separator");
    while (most-- && jinja_step(j, n->line) && (hit = last_of(s, what))) {
        size_t from = (size_t)(hit - s.s) + what.n;
        val_push(j, parts, val_of_str((fg_str){s.s + from, s.n - from}));
        s.n = (size_t)(hit - s.s);
    }
    val_push(j, out, val_of_str(s));
    for (size_t i = parts.list->n; i-- > 0;)
        val_push(j, out, parts.list->v[i]);
    return out;
}

static val
partition(jinja *j, fg_str s, fg_str what, bool last)
{
    const char *hit = !what.n ? NULL
                      : last  ? last_of(s, what)
                              : memmem(s.s, s.n, what.s, what.n);
    size_t at = hit ? (size_t)(hit - s.s) : last ? 0 : s.n;
    size_t behind = hit ? at + what.n : at;
    val out = val_new_list(j);

    out.list->tuple = true;
    val_push(j, out, val_of_str((fg_str){s.s, at}));
    val_push(j, out, val_of_str(hit ? what : (fg_str){"", 0}));
    val_push(j, out, val_of_str((fg_str){s.s + behind, s.n - behind}));
    return out;
}

static val
splitlines(jinja *j, fg_str s)
{
    val out = val_new_list(j);

    for (size_t at = 0; at < s.n;) {
        size_t end = at;
        while (end < s.n && s.s[end] != '\n' && s.s[end] != '\r')
            end++;
        val_push(j, out, val_of_str((fg_str){s.s + at, end - at}));
        at = end + 1 + (end + 1 < s.n && s.s[end] == '\r' && s.s[end + 1] == '\n');
    }
    return out;
}

static val
count(fg_str s, fg_str what)
{
    int64_t n = 0;
    const char *hit;

    for (size_t at = 0; what.n && at < s.n; n++) {
        if (!(hit = memmem(s.s + at, s.n - at, what.s, what.n)))
            break;
        at = (size_t)(hit - s.s) + what.n;
    }
    return val_of_int(n);
}

/* ---- kinds of characters ------------------------------------------------------------------ */

static bool
letter(int32_t c)
{
    return fg_char_word(c) && !fg_char_numeric(c) && !fg_char_mark(c) && c != '_';
}

static bool
letter_or_digit(int32_t c)
{
    return letter(c) || fg_char_numeric(c);
}

static val
all_are(fg_str s, fg_char_test is)
{
    for (size_t at = 0; at < s.n;)
        if (!is(fg_utf8_next(s, &at)))
            return val_of_bool(false);
    return val_of_bool(s.n > 0);
}

bool
jinja_in_case(jinja *j, fg_str s, bool upper)
{
    fg_text t = fg_text_new(j->a), other = fg_text_new(j->a);

    for (size_t at = 0; at < s.n;) {
        int32_t c = fg_utf8_next(s, &at);
        (upper ? fg_put_upper : fg_put_lower)(&t, c);
        (upper ? fg_put_lower : fg_put_upper)(&other, c);
    }
    return fg_str_same(s, (fg_str){t.s, t.n}) &&
           !fg_str_same(s, (fg_str){other.s, other.n});
}

bool
jinja_text_method(jinja *j, const node *n, fg_str s, const args *a, val *out)
{
    static const char *const names[] = {
        "rsplit",       "count",        "index",   "rfind",     "splitlines",
        "removeprefix", "removesuffix", "isdigit", "isalpha",   "isalnum",
        "isspace",      "islower",      "isupper", "partition", "rpartition"};
    enum {
        RSPLIT,
        COUNT,
        INDEX,
        RFIND,
        SPLITLINES,
        REMOVEPREFIX,
        REMOVESUFFIX,
        ISDIGIT,
        ISALPHA,
        ISALNUM,
        ISSPACE,
        ISLOWER,
        ISUPPER,
        PARTITION,
        RPARTITION,
        NNAMES
    };
    const val *given = args_get(a, 0, "sep");
    fg_str what = given && given->kind == V_STR ? given->s : (fg_str){0};
    int k = 0;

    while (k < NNAMES && !fg_str_same(n->name, fg_str_of(names[k])))
        k++;
    switch (k) {
    case RSPLIT:
        *out = rsplit(j, n, s, what, a);
        break;
    case COUNT:
        *out = count(s, what);
        break;
    case INDEX:
        *out = characters(s, s.n ? memmem(s.s, s.n, what.s, what.n) : NULL);
        if (out->i < 0)
            jinja_fail(j, n->line, "the text has no such part");
        break;
    case RFIND:
        *out = characters(s, last_of(s, what));
        break;
    case SPLITLINES:
        *out = splitlines(j, s);
        break;
    case REMOVEPREFIX:
        *out =
            val_of_str(fg_str_begins(s, what) ? (fg_str){s.s + what.n, s.n - what.n} : s);
        break;
    case REMOVESUFFIX:
        *out = val_of_str(
            last_of(s, what) == s.s + (s.n - what.n) ? (fg_str){s.s, s.n - what.n} : s);
        break;
    case ISDIGIT:
        *out = all_are(s, fg_char_numeric);
        break;
    case ISALPHA:
        *out = all_are(s, letter);
        break;
    case ISALNUM:
        *out = all_are(s, letter_or_digit);
        break;
    case ISSPACE:
        *out = all_are(s, fg_char_space);
        break;
    case ISLOWER:
    case ISUPPER:
        *out = val_of_bool(jinja_in_case(j, s, k == ISUPPER));
        break;
    case PARTITION:
    case RPARTITION:
        *out = partition(j, s, what, k == RPARTITION);
        break;
    default:
        return false;
    }
    return true;
}

/* ---- filling in ----------------------------------------------------------------------- */

typedef struct directive {
    char flags[6];
    int width, precision; /* precision -1: none */
    char kind;
} directive;

static int
take_number(fg_str s, size_t *at)
{
    int n = 0;

    while (*at < s.n && s.s[*at] >= '0' && s.s[*at] <= '9') {
        n = n * 10 + (s.s[*at] - '0');
        n = n > MAX_WIDTH ? MAX_WIDTH : n;
        ++*at;
    }
    return n;
}

static directive
take_directive(fg_str s, size_t *at)
{
    directive d = {.precision = -1};
    size_t n = 0;

    while (*at < s.n && s.s[*at] && strchr("-+ 0#", s.s[*at])) {
        if (n < sizeof d.flags - 1 && !strchr(d.flags, s.s[*at]))
            d.flags[n++] = s.s[*at];
        ++*at;
    }
    d.width = take_number(s, at);
    if (*at < s.n && s.s[*at] == '.') {
        ++*at;
        d.precision = take_number(s, at);
    }
    d.kind = *at < s.n ? s.s[(*at)++] : '\0';
    return d;
}

static void
put_padded(fg_text *t, fg_str s, const directive *d)
{
    bool left = strchr(d->flags, '-') != NULL;
    int chars = 0;

    for (size_t at = 0; at < s.n; chars++) {
        if (chars == d->precision) {
            s.n = at;
            break;
        }
        fg_utf8_next(s, &at);
    }
    for (int k = chars; !left && k < d->width; k++)
        fg_putc(t, ' ');
    fg_put_str(t, s);
    for (int k = chars; left && k < d->width; k++)
        fg_putc(t, ' ');
}

/* False when v is not what the directive takes. */
static bool
put_directive(jinja *j, fg_text *t, const directive *d, val v)
{
    char how[40], text[2 * MAX_WIDTH];
    double f = 0;

    if (d->kind == 's' || d->kind == 'r') {
        fg_text quoted = fg_text_new(j->a);
        val_write(j, &quoted, v, d->kind == 'r');
        put_padded(t, (fg_str){quoted.s, quoted.n}, d);
        return true;
    }
    if (!d->kind || !strchr("dixXofFeEgG", d->kind) || !val_number(v, &f))
        return false;
    bool whole = strchr("dixXo", d->kind) != NULL;
    if (whole && v.kind == V_FLOAT && !(f > -9e18 && f < 9e18))
        return false;
    char width[16] = "", precision[16] = "";
    if (d->width)
        snprintf(width, sizeof width, "%d", d->width);
    if (d->precision >= 0)
        snprintf(precision, sizeof precision, ".%d", d->precision);
    snprintf(how, sizeof how, "%%%s%s%s%s%c", d->flags, width, precision,
             whole ? "ll" : "", d->kind);
    if (whole)
        snprintf(text, sizeof text, how,
                 (long long)(v.kind == V_FLOAT ? (int64_t)f : v.i));
    else
        snprintf(text, sizeof text, how, f);
    fg_puts(t, text);
    return true;
}

val
jinja_format(jinja *j, const node *n, fg_str s, const val *v, size_t nv)
{
    fg_text t = fg_text_new(j->a);
    size_t used = 0;

    for (size_t at = 0; at < s.n && !j->failed;) {
        if (s.s[at] != '%') {
            fg_putc(&t, s.s[at++]);
            continue;
        }
        const val *x = NULL;
        at++;
        if (at < s.n && s.s[at] == '(' && nv == 1 && v->kind == V_DICT) {
            const char *end = memchr(s.s + at, ')', s.n - at);
            fg_str name = {s.s + at + 1, end ? (size_t)(end - s.s) - at - 1 : 0};
            x = val_find(v->dict, name);
            at = end ? (size_t)(end - s.s) + 1 : s.n;
        }
        directive d = take_directive(s, &at);
        if (d.kind == '%') {
            fg_putc(&t, '%');
            continue;
        }
        x = x ? x : used < nv ? &v[used++] : NULL;
        if (!x || !put_directive(j, &t, &d, *x) || t.n > JINJA_BYTES)
            return jinja_fail(j, n->line, "a format does not fit its values");
    }
    return val_of_str((fg_str){t.s, t.n});
}
