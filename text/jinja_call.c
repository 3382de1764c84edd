/* jinja_call.c - filters, methods and functions of templates: tables of names. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "text/jinja.h"

const val *
args_get(const args *a, size_t k, const char *name)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->names && a->names[i].n && fg_str_same(a->names[i], fg_str_of(name)))
            return &a->v[i];
    return k < a->n && (!a->names || !a->names[k].n) ? &a->v[k] : NULL;
}

static fg_str
text_arg(jinja *j, const args *a, size_t k, const char *name, const char *missing)
{
    const val *v = args_get(a, k, name);

    return v ? val_text(j, *v) : fg_str_of(missing);
}

static int64_t
int_arg(const args *a, size_t k, const char *name, int64_t missing)
{
    const val *v = args_get(a, k, name);

    return v && (v->kind == V_INT || v->kind == V_BOOL) ? v->i : missing;
}

/* ---- what several need ------------------------------------------------------------------ */

/* Characters of `set`; white space when it is empty. */
static bool
in_set(fg_str set, int32_t c)
{
    for (size_t at = 0; at < set.n;)
        if (fg_utf8_next(set, &at) == c)
            return true;
    return !set.n && (fg_char_space(c) || (c >= 0x1c && c <= 0x1f));
}

static fg_str
strip(fg_str s, fg_str set, bool left, bool right)
{
    size_t from = 0, to = s.n;

    while (left && from < to) {
        size_t next = from;
        if (!in_set(set, fg_utf8_next(s, &next)))
            break;
        from = next;
    }
    while (right && to > from) {
        size_t last = fg_utf8_back(s, to), next = last;
        if (!in_set(set, fg_utf8_next(s, &next)))
            break;
        to = last;
    }
    return (fg_str){s.s + from, to - from};
}

/* First letter (of each word) to upper case, others to lower case. */
typedef enum { UPPER, LOWER, CAPITAL, TITLE } letter_case;

/* What filter or method `name` makes of the text; false when it is not about case. They
 * differ in where a word begins. */
static bool
change_case(jinja *j, fg_str name, val *v, bool filter)
{
    static const char *const names[] = {[UPPER] = "upper",
                                        [LOWER] = "lower",
                                        [CAPITAL] = "capitalize",
                                        [TITLE] = "title"};
    bool begins = true;
    size_t how = 0, count = sizeof names / sizeof *names;

    while (how < count && !fg_str_same(name, fg_str_of(names[how])))
        how++;
    if (how == count)
        return false;
    fg_str s = val_text(j, *v);
    fg_text t = fg_text_new(j->a);
    for (size_t at = 0; at < s.n;) {
        int32_t c = fg_utf8_next(s, &at);
        bool up = how == UPPER || (begins && how != LOWER);
        if (up)
            fg_put_upper(&t, c);
        else
            fg_put_lower(&t, c);
        begins = how != TITLE ? false
                 : filter     ? fg_char_space(c) || (c < 0x80 && strchr("-({[<", c))
                              : !(fg_char_word(c) && !fg_char_numeric(c) && c != '_');
    }
    *v = val_of_str((fg_str){t.s, t.n});
    return true;
}

static val
replace(jinja *j, fg_str s, fg_str from, fg_str to, int64_t most)
{
    fg_text t = fg_text_new(j->a);
    size_t at = 0;

    while (most-- && at < s.n && from.n) {
        const char *hit = memmem(s.s + at, s.n - at, from.s, from.n);
        if (!hit || t.n > JINJA_BYTES)
            break;
        fg_put_str(&t, (fg_str){s.s + at, (size_t)(hit - s.s) - at});
        fg_put_str(&t, to);
        at = (size_t)(hit - s.s) + from.n;
    }
    fg_put_str(&t, (fg_str){s.s + at, s.n - at});
    return val_of_str((fg_str){t.s, t.n});
}

static val
split(jinja *j, fg_str s, const args *a)
{
    const val *sep = args_get(a, 0, "sep");
    int64_t most = int_arg(a, 1, "maxsplit", -1);
    val out = val_new_list(j);
    size_t at = 0;

    if (sep && sep->kind == V_STR && sep->s.n) {
        const char *hit;
        while (most-- && (hit = memmem(s.s + at, s.n - at, sep->s.s, sep->s.n))) {
            val_push(j, out, val_of_str((fg_str){s.s + at, (size_t)(hit - s.s) - at}));
            at = (size_t)(hit - s.s) + sep->s.n;
        }
        val_push(j, out, val_of_str((fg_str){s.s + at, s.n - at}));
        return out;
    }
    for (s = strip(s, (fg_str){0}, true, false); s.n;) {
        size_t end = 0, next = 0;
        while (end < s.n && !in_set((fg_str){0}, fg_utf8_next(s, &next)))
            end = next;
        if (!most--)
            end = strip(s, (fg_str){0}, false, true).n;
        val_push(j, out, val_of_str((fg_str){s.s, end}));
        s = strip((fg_str){s.s + end, s.n - end}, (fg_str){0}, true, false);
    }
    return out;
}

val
jinja_items_of(jinja *j, const node *n, val v)
{
    val out = val_new_list(j);

    if (v.kind == V_LIST)
        return v;
    if (v.kind == V_STR) {
        for (size_t at = 0, from = 0; at < v.s.n; from = at) {
            fg_utf8_next(v.s, &at);
            val_push(j, out, val_of_str((fg_str){v.s.s + from, at - from}));
        }
    } else if (v.kind == V_DICT || v.kind == V_SPACE) {
        for (size_t i = 0; i < v.dict->n; i++)
            val_push(j, out, val_of_str(v.dict->v[i].key));
    } else if (v.kind != V_UNDEFINED) /* what is undefined has none */
        jinja_fail(j, n->line, "%s has no members to go through", val_type(v));
    return out;
}

static val
pairs(jinja *j, val v, bool keys, bool values)
{
    val out = val_new_list(j);

    for (size_t i = 0; i < v.dict->n; i++) {
        val key = val_of_str(v.dict->v[i].key), pair = val_new_list(j);
        val_push(j, pair, key);
        val_push(j, pair, v.dict->v[i].v);
        pair.list->tuple = true;
        val_push(j, out, keys && values ? pair : keys ? key : v.dict->v[i].v);
    }
    return out;
}

val
jinja_attr(jinja *j, const node *n, val v, fg_str name)
{
    if (v.kind == V_DICT || v.kind == V_SPACE) {
        val *member = val_find(v.dict, name);
        return member ? *member : (val){V_UNDEFINED, {.s = name}};
    }
    if (v.kind == V_UNDEFINED)
        return jinja_fail(j, n->line, "\"%.*s\" is undefined", (int)v.s.n,
                          v.s.n ? v.s.s : "");
    return (val){V_UNDEFINED, {.s = name}};
}

/* ---- filters -------------------------------------------------------------------------- */

static val
f_length(jinja *j, const node *n, val v, const args *a)
{
    (void)a;
    return val_of_int((int64_t)jinja_items_of(j, n, v).list->n);
}

static val
f_trim(jinja *j, const node *n, val v, const args *a)
{
    (void)n;
    return val_of_str(strip(val_text(j, v), text_arg(j, a, 0, "chars", ""), true, true));
}

/* tojson(ensure_ascii, indent, separators, sort_keys), as transformers defines it. */
static val
f_json(jinja *j, const node *n, val v, const args *a)
{
    fg_text t = fg_text_new(j->a);
    const val *ascii = args_get(a, 0, "ensure_ascii"),
              *separators = args_get(a, 2, "separators"),
              *sorted = args_get(a, 3, "sort_keys");
    int64_t indent = int_arg(a, 1, "indent", -1);
    json_style s = {.indent = indent < 40 ? (int)indent : 40,
                    .ascii = ascii && val_true(*ascii),
                    .sorted = sorted && val_true(*sorted),
                    .item = fg_str_of(indent < 0 ? ", " : ","),
                    .pair = fg_str_of(": ")};

    if (separators && separators->kind != V_NONE) {
        if (separators->kind != V_LIST || separators->list->n != 2)
            return jinja_fail(j, n->line, "%s is not two separators",
                              val_type(*separators));
        s.item = val_text(j, separators->list->v[0]);
        s.pair = val_text(j, separators->list->v[1]);
    }
    val_write_json(j, &t, v, &s, 0);
    return val_of_str((fg_str){t.s, t.n});
}

static val
f_join(jinja *j, const node *n, val v, const args *a)
{
    fg_str with = text_arg(j, a, 0, "d", "");
    const val *attribute = args_get(a, 1, "attribute");
    val all = jinja_items_of(j, n, v);
    fg_text t = fg_text_new(j->a);

    for (size_t i = 0; i < all.list->n && !j->failed; i++) {
        val x = all.list->v[i];
        if (attribute)
            x = jinja_attr(j, n, x, val_text(j, *attribute));
        fg_put_str(&t, i ? with : (fg_str){0});
        val_write(j, &t, x, false);
    }
    return val_of_str((fg_str){t.s, t.n});
}

static val
f_first(jinja *j, const node *n, val v, const args *a)
{
    val all = jinja_items_of(j, n, v);

    (void)a;
    return all.list->n ? all.list->v[0] : (val){0};
}

static val
f_last(jinja *j, const node *n, val v, const args *a)
{
    val all = jinja_items_of(j, n, v);

    (void)a;
    return all.list->n ? all.list->v[all.list->n - 1] : (val){0};
}

static val
f_list(jinja *j, const node *n, val v, const args *a)
{
    (void)a;
    return jinja_items_of(j, n, v);
}

static val
f_reverse(jinja *j, const node *n, val v, const args *a)
{
    val all = jinja_items_of(j, n, v), out = val_new_list(j);
    fg_text t = fg_text_new(j->a);

    (void)a;
    for (size_t i = all.list->n; i-- > 0;)
        if (v.kind == V_STR)
            fg_put_str(&t, all.list->v[i].s);
        else
            val_push(j, out, all.list->v[i]);
    return v.kind == V_STR ? val_of_str((fg_str){t.s, t.n}) : out;
}

static val
f_default(jinja *j, const node *n, val v, const args *a)
{
    const val *instead = args_get(a, 0, "default_value");
    const val *falsy = args_get(a, 1, "boolean");
    bool missing = v.kind == V_UNDEFINED || (falsy && val_true(*falsy) && !val_true(v));

    (void)j;
    (void)n;
    return !missing ? v : instead ? *instead : val_of_text("");
}

static val
f_string(jinja *j, const node *n, val v, const args *a)
{
    (void)n;
    (void)a;
    return val_of_str(val_text(j, v));
}

/* Text as Python reads it: all of it is the number, white space around it apart. */
static bool
number_in(jinja *j, fg_str s, int64_t *whole, double *f, int base)
{
    fg_text t = fg_text_new(j->a);
    char *end;

    fg_put_str(&t, strip(s, (fg_str){0}, true, true));
    if (whole)
        *whole = strtoll(t.s, &end, base);
    else
        *f = strtod(t.s, &end);
    return end != t.s && !*end;
}

static val
f_float(jinja *j, const node *n, val v, const args *a)
{
    const val *missing = args_get(a, 0, "default");
    double f = 0;

    (void)n;
    bool ok = v.kind == V_STR ? number_in(j, v.s, NULL, &f, 0) : val_number(v, &f);
    return !ok && missing ? *missing : (val){V_FLOAT, {.f = ok ? f : 0}};
}

static val
f_int(jinja *j, const node *n, val v, const args *a)
{
    int64_t base = int_arg(a, 1, "base", 10), i;
    double f;

    (void)n;
    base = base == 0 || (base >= 2 && base <= 36) ? base : 10;
    if (v.kind == V_STR && number_in(j, v.s, &i, NULL, (int)base))
        return val_of_int(i);
    if (v.kind == V_STR ? number_in(j, v.s, NULL, &f, 0) : val_number(v, &f))
        if (f > -9e18 && f < 9e18)
            return v.kind == V_INT ? v : val_of_int((int64_t)f);
    return val_of_int(int_arg(a, 0, "default", 0));
}

static val
f_abs(jinja *j, const node *n, val v, const args *a)
{
    (void)a;
    if (v.kind == V_INT || v.kind == V_BOOL)
        return val_of_int(v.i < 0 && v.i > INT64_MIN ? -v.i : v.i);
    if (v.kind == V_FLOAT)
        return (val){V_FLOAT, {.f = fabs(v.f)}};
    return jinja_fail(j, n->line, "%s has no amount", val_type(v));
}

/* To even digits at the middle, as Python does; 'ceil' and 'floor' otherwise. */
static val
f_round(jinja *j, const node *n, val v, const args *a)
{
    int64_t digits = int_arg(a, 0, "precision", 0);
    fg_str how = text_arg(j, a, 1, "method", "common");
    double f, scale = pow(10, (double)(digits < -20 ? -20 : digits > 20 ? 20 : digits));

    if (!val_number(v, &f))
        return jinja_fail(j, n->line, "%s is not rounded", val_type(v));
    if (v.kind != V_FLOAT && digits >= 0 && fg_str_same(how, fg_str_of("common")))
        return val_of_int(v.i);
    if (fg_str_same(how, fg_str_of("ceil")))
        f = ceil(f * scale) / scale;
    else if (fg_str_same(how, fg_str_of("floor")))
        f = floor(f * scale) / scale;
    else if (digits > 0 && digits <= 20)
        f = strtod(fg_format(j->a, "%.*f", (int)digits, f), NULL);
    else
        f = rint(f * scale) / scale;
    return v.kind != V_FLOAT && fg_str_same(how, fg_str_of("common"))
               ? val_of_int((int64_t)f)
               : (val){V_FLOAT, {.f = f}};
}

static val
f_format(jinja *j, const node *n, val v, const args *a)
{
    return jinja_format(j, n, val_text(j, v), a->v, a->n);
}

static val
f_escape(jinja *j, const node *n, val v, const args *a)
{
    static const char *const to[] = {['&'] = "&amp;",
                                     ['<'] = "&lt;",
                                     ['>'] = "&gt;",
                                     ['"'] = "&#34;",
                                     ['\''] = "&#39;"};
    fg_str s = val_text(j, v);
    fg_text t = fg_text_new(j->a);

    (void)n;
    (void)a;
    for (size_t i = 0; i < s.n; i++) {
        size_t c = (unsigned char)s.s[i];
        if (c < sizeof to / sizeof *to && to[c])
            fg_puts(&t, to[c]);
        else
            fg_putc(&t, s.s[i]);
    }
    return val_of_str((fg_str){t.s, t.n});
}

static val
f_replace(jinja *j, const node *n, val v, const args *a)
{
    (void)n;
    return replace(j, val_text(j, v), text_arg(j, a, 0, "old", ""),
                   text_arg(j, a, 1, "new", ""), int_arg(a, 2, "count", -1));
}

static val
f_items(jinja *j, const node *n, val v, const args *a)
{
    (void)a;
    if (v.kind == V_UNDEFINED)
        return val_new_list(j);
    if (v.kind != V_DICT && v.kind != V_SPACE)
        return jinja_fail(j, n->line, "%s has no items", val_type(v));
    return pairs(j, v, true, true);
}

static val
f_indent(jinja *j, const node *n, val v, const args *a)
{
    fg_str s = val_text(j, v);
    const val *first = args_get(a, 1, "first"), *blank = args_get(a, 2, "blank");
    const val *width = args_get(a, 0, "width");
    fg_str by = width && width->kind == V_STR ? width->s : (fg_str){0};
    int64_t spaces = by.s ? 0 : int_arg(a, 0, "width", 4);
    fg_text t = fg_text_new(j->a);

    (void)n;
    for (size_t at = 0, line = 0; at <= s.n; line++) {
        const char *end = at < s.n ? memchr(s.s + at, '\n', s.n - at) : NULL;
        size_t len = end ? (size_t)(end - s.s) - at : s.n - at;
        bool in = line ? len || (blank && val_true(*blank)) : first && val_true(*first);
        for (int64_t k = 0; in && k < spaces && k < 1000; k++)
            fg_putc(&t, ' ');
        if (in)
            fg_put_str(&t, by);
        fg_put_str(&t, (fg_str){s.s + at, len});
        if (!end)
            break;
        fg_putc(&t, '\n');
        at += len + 1;
    }
    return val_of_str((fg_str){t.s, t.n});
}

static val
f_same(jinja *j, const node *n, val v, const args *a)
{
    (void)j;
    (void)n;
    (void)a;
    return v;
}

static args
rest(const args *a, size_t k)
{
    k = k < a->n ? k : a->n;
    return (args){a->v + k, a->names ? a->names + k : NULL, a->n - k};
}

/* select(test, ..), selectattr(name, test, ..) and their opposites. */
static val
choose(jinja *j, const node *n, val v, const args *a, bool attribute, bool keep)
{
    val all = jinja_items_of(j, n, v), out = val_new_list(j);
    args more = rest(a, attribute ? 1 : 0), test_args = rest(&more, 1);
    fg_str name = attribute ? text_arg(j, a, 0, "", "") : (fg_str){0};

    for (size_t i = 0; i < all.list->n && !j->failed; i++) {
        val x = all.list->v[i];
        if (attribute)
            x = jinja_attr(j, n, x, name);
        bool is = more.n ? jinja_test(j, n, val_text(j, more.v[0]), x, &test_args)
                         : val_true(x);
        if (is == keep)
            val_push(j, out, all.list->v[i]);
    }
    return out;
}

static val
f_select(jinja *j, const node *n, val v, const args *a)
{
    return choose(j, n, v, a, false, true);
}

static val
f_reject(jinja *j, const node *n, val v, const args *a)
{
    return choose(j, n, v, a, false, false);
}

static val
f_selectattr(jinja *j, const node *n, val v, const args *a)
{
    return choose(j, n, v, a, true, true);
}

static val
f_rejectattr(jinja *j, const node *n, val v, const args *a)
{
    return choose(j, n, v, a, true, false);
}

/* map(attribute="x"), map("filter", ..) */
static val
f_map(jinja *j, const node *n, val v, const args *a)
{
    val all = jinja_items_of(j, n, v), out = val_new_list(j);
    const val *attribute = args_get(a, SIZE_MAX, "attribute");
    const val *filter = args_get(a, 0, "filter");
    const val *missing = args_get(a, SIZE_MAX, "default");
    args more = rest(a, 1);

    for (size_t i = 0; i < all.list->n && !j->failed; i++) {
        val x = all.list->v[i];
        if (attribute) {
            x = jinja_attr(j, n, x, val_text(j, *attribute));
            x = x.kind == V_UNDEFINED && missing ? *missing : x;
        } else if (filter)
            x = jinja_filter(j, n, val_text(j, *filter), x, &more);
        val_push(j, out, x);
    }
    return out;
}

val
jinja_filter(jinja *j, const node *n, fg_str name, val v, const args *a)
{
    static const struct {
        const char *name;
        val (*run)(jinja *j, const node *n, val v, const args *a);
    } known[] = {{"length", f_length},
                 {"count", f_length},
                 {"trim", f_trim},
                 {"tojson", f_json},
                 {"join", f_join},
                 {"first", f_first},
                 {"last", f_last},
                 {"list", f_list},
                 {"reverse", f_reverse},
                 {"default", f_default},
                 {"d", f_default},
                 {"string", f_string},
                 {"int", f_int},
                 {"replace", f_replace},
                 {"items", f_items},
                 {"indent", f_indent},
                 {"safe", f_same},
                 {"select", f_select},
                 {"reject", f_reject},
                 {"selectattr", f_selectattr},
                 {"rejectattr", f_rejectattr},
                 {"map", f_map},
                 {"sort", jinja_sort},
                 {"dictsort", jinja_dictsort},
                 {"unique", jinja_unique},
                 {"min", jinja_min},
                 {"max", jinja_max},
                 {"sum", jinja_sum},
                 {"abs", f_abs},
                 {"float", f_float},
                 {"round", f_round},
                 {"format", f_format},
                 {"escape", f_escape},
                 {"e", f_escape}};

    if (!jinja_step(j, n->line) || change_case(j, name, &v, true))
        return v;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (fg_str_same(name, fg_str_of(known[k].name)))
            return known[k].run(j, n, v, a);
    return jinja_fail(j, n->line, "filter \"%.*s\" is not supported",
                      (int)(name.n < 50 ? name.n : 50), name.s);
}

/* ---- methods -------------------------------------------------------------------------- */

static bool
ends_with(fg_str s, fg_str tail)
{
    return s.n >= tail.n && fg_str_same((fg_str){s.s + s.n - tail.n, tail.n}, tail);
}

/* startswith and endswith: a text, or any of a list. */
static val
at_end(const args *a, fg_str s, bool end)
{
    const val *v = args_get(a, 0, "");
    size_t n = !v ? 0 : v->kind == V_LIST ? v->list->n : 1, from = 0;

    for (int64_t k = int_arg(a, 1, "", 0); k > 0 && from < s.n; k--)
        fg_utf8_next(s, &from);
    s = (fg_str){s.s + from, s.n - from};
    for (size_t i = 0; i < n; i++) {
        val x = v->kind == V_LIST ? v->list->v[i] : *v;
        if (x.kind == V_STR && (end ? ends_with(s, x.s) : fg_str_begins(s, x.s)))
            return val_of_bool(true);
    }
    return val_of_bool(false);
}

static val
find(const args *a, fg_str s)
{
    const val *v = args_get(a, 0, "");
    const char *hit = NULL;
    int64_t chars = 0;

    if (v && v->kind == V_STR)
        hit = v->s.n ? memmem(s.s, s.n, v->s.s, v->s.n) : s.s;
    for (size_t at = 0; hit && s.s + at < hit; chars++)
        fg_utf8_next(s, &at);
    return val_of_int(hit ? chars : -1);
}

static val
method_of_text(jinja *j, const node *n, val v, const args *a, bool *known)
{
    fg_str s = v.s, name = n->name;
    bool left = fg_str_same(name, fg_str_of("lstrip"));
    bool right = fg_str_same(name, fg_str_of("rstrip"));

    *known = true;
    if (left || right || fg_str_same(name, fg_str_of("strip"))) {
        const val *set = args_get(a, 0, "");
        fg_str chars = set && set->kind == V_STR ? set->s : (fg_str){0};
        return val_of_str(strip(s, chars, !right, !left));
    }
    if (fg_str_same(name, fg_str_of("split")))
        return split(j, s, a);
    if (fg_str_same(name, fg_str_of("startswith")))
        return at_end(a, s, false);
    if (fg_str_same(name, fg_str_of("endswith")))
        return at_end(a, s, true);
    if (fg_str_same(name, fg_str_of("replace")))
        return f_replace(j, n, v, a);
    if (fg_str_same(name, fg_str_of("find")))
        return find(a, s);
    if (fg_str_same(name, fg_str_of("join"))) {
        const val *list = args_get(a, 0, "");
        args with = {&v, NULL, 1};
        return f_join(j, n, list ? *list : (val){0}, &with);
    }
    *known = change_case(j, name, &v, false) || jinja_text_method(j, n, s, a, &v);
    return v;
}

static val
method_of_dict(jinja *j, const node *n, val v, const args *a, bool *known)
{
    fg_str name = n->name;
    bool items = fg_str_same(name, fg_str_of("items"));
    bool keys = fg_str_same(name, fg_str_of("keys"));

    *known = true;
    if (items || keys || fg_str_same(name, fg_str_of("values")))
        return pairs(j, v, items || keys, items || !keys);
    if (fg_str_same(name, fg_str_of("get"))) {
        const val *instead = args_get(a, 1, "default");
        val *member = val_find(v.dict, text_arg(j, a, 0, "key", ""));
        return member ? *member : instead ? *instead : (val){V_NONE, {0}};
    }
    *known = false;
    return v;
}

val
jinja_method(jinja *j, const node *n, val v, const args *a)
{
    bool known = false;
    val out = {0};

    if (v.kind == V_STR)
        out = method_of_text(j, n, v, a, &known);
    else if (v.kind == V_DICT || v.kind == V_SPACE)
        out = method_of_dict(j, n, v, a, &known);
    else if (v.kind == V_UNDEFINED)
        return jinja_fail(j, n->line, "\"%.*s\" is undefined", (int)v.s.n,
                          v.s.n ? v.s.s : "");
    if (!known)
        jinja_fail(j, n->line, "%s has no method \"%.*s\"", val_type(v),
                   (int)(n->name.n < 50 ? n->name.n : 50), n->name.s);
    return out;
}

/* ---- functions ------------------------------------------------------------------------ */

static val
b_raise(jinja *j, const node *n, const args *a)
{
    fg_str text = text_arg(j, a, 0, "message", "");

    return jinja_fail(j, n->line, "%.*s", (int)(text.n < 500 ? text.n : 500), text.s);
}

/* Templates have text as keys; others would need to be told from the text of the same look. */
void
jinja_set(jinja *j, const node *n, val_dict *d, val key, val v)
{
    if (key.kind == V_STR)
        val_set(j, d, key.s, v);
    else
        jinja_fail(j, n->line, "%s as the key of a dict is not supported", val_type(key));
}

/* As Python's dict(): another dict, or pairs, and then names. */
static val
with_members(jinja *j, const node *n, const args *a, val_kind kind)
{
    val out = val_new_dict(j, kind);
    const val *first = args_get(a, 0, "");
    bool dict = first && (first->kind == V_DICT || first->kind == V_SPACE);
    val list = !first ? val_new_list(j)
               : dict ? pairs(j, *first, true, true)
                      : jinja_items_of(j, n, *first);

    for (size_t i = 0; i < list.list->n && !j->failed; i++) {
        val pair = jinja_items_of(j, n, list.list->v[i]);
        if (pair.list->n == 2)
            jinja_set(j, n, out.dict, pair.list->v[0], pair.list->v[1]);
        else
            jinja_fail(j, n->line, "a key and its value are two, not %zu", pair.list->n);
    }
    for (size_t i = 0; i < a->n; i++)
        if (a->names && a->names[i].n)
            val_set(j, out.dict, a->names[i], a->v[i]);
    return out;
}

static val
b_namespace(jinja *j, const node *n, const args *a)
{
    return with_members(j, n, a, V_SPACE);
}

static val
b_dict(jinja *j, const node *n, const args *a)
{
    return with_members(j, n, a, V_DICT);
}

static val
b_range(jinja *j, const node *n, const args *a)
{
    int64_t from = a->n > 1 ? int_arg(a, 0, "", 0) : 0;
    int64_t to = int_arg(a, a->n > 1 ? 1 : 0, "", 0), step = int_arg(a, 2, "", 1);
    val out = val_new_list(j);

    if (!step)
        return jinja_fail(j, n->line, "a range with step 0");
    while ((step > 0 ? from < to : from > to) && jinja_step(j, n->line)) {
        val_push(j, out, val_of_int(from));
        if (__builtin_add_overflow(from, step, &from))
            break;
    }
    return out;
}

static val
b_now(jinja *j, const node *n, const args *a)
{
    fg_str format = text_arg(j, a, 0, "format", "");
    fg_text t = fg_text_new(j->a);
    char text[200];
    time_t now = time(NULL);
    struct tm parts;

    (void)n;
    fg_put_str(&t, format);
    size_t len = localtime_r(&now, &parts) ? strftime(text, sizeof text, t.s, &parts) : 0;
    return val_of_str((fg_str){fg_dup(j->a, text, len + 1), len});
}

static const struct {
    const char *name;
    val (*run)(jinja *j, const node *n, const args *a);
} builtins[] = {{"raise_exception", b_raise},
                {"namespace", b_namespace},
                {"dict", b_dict},
                {"range", b_range},
                {"strftime_now", b_now}};

bool
jinja_is_builtin(fg_str name)
{
    for (size_t k = 0; k < sizeof builtins / sizeof *builtins; k++)
        if (fg_str_same(name, fg_str_of(builtins[k].name)))
            return true;
    return false;
}

val
jinja_builtin(jinja *j, const node *n, fg_str name, const args *a)
{
    for (size_t k = 0; k < sizeof builtins / sizeof *builtins; k++)
        if (fg_str_same(name, fg_str_of(builtins[k].name)))
            return builtins[k].run(j, n, a);
    return (val){0};
}
