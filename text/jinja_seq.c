/* jinja_seq.c - filters that order, count and choose among what a loop would walk.
 *
 *     ['b', 'A', 'b'] | sort      A b b
 *     ['b', 'A', 'b'] | unique    b A
 */
#include <stdlib.h>

#include "text/jinja.h"

typedef struct entry {
    val v, key;
    size_t at;
} entry;

typedef struct order {
    jinja *j;
    bool reverse, unordered;
} order;

/* attribute='a.b' */
static val
attribute_of(jinja *j, const node *n, val v, fg_str path)
{
    while (path.n && !j->failed) {
        const char *dot = memchr(path.s, '.', path.n);
        size_t len = dot ? (size_t)(dot - path.s) : path.n;
        v = jinja_attr(j, n, v, (fg_str){path.s, len});
        path = (fg_str){path.s + len + (dot != NULL), path.n - len - (dot != NULL)};
    }
    return v;
}

/* What a value is compared by: its attribute, letters as small ones unless told not to. */
static val
key_of(jinja *j, const node *n, val v, const val *attribute, const val *sensitive)
{
    if (attribute && attribute->kind == V_STR)
        v = attribute_of(j, n, v, attribute->s);
    if (v.kind != V_STR || (sensitive && val_true(*sensitive)))
        return v;
    fg_text t = fg_text_new(j->a);
    for (size_t at = 0; at < v.s.n;)
        fg_put_lower(&t, fg_utf8_next(v.s, &at));
    return val_of_str((fg_str){t.s, t.n});
}

static entry *
entries(jinja *j, const node *n, val v, const val *attribute, const val *sensitive,
        size_t *count)
{
    val all = jinja_items_of(j, n, v);
    entry *e = FG_NEWN(j->a, entry, all.list->n + 1);

    *count = j->failed ? 0 : all.list->n;
    for (size_t i = 0; i < *count; i++)
        e[i] = (entry){all.list->v[i], key_of(j, n, all.list->v[i], attribute, sensitive),
                       i};
    return e;
}

static int
by_key(const void *x, const void *y, void *user)
{
    const entry *a = x, *b = y;
    order *o = user;
    int c = 0;

    o->unordered = o->unordered || !val_compare(o->j, a->key, b->key, &c);
    c = o->reverse ? -c : c;
    return c ? c : (a->at > b->at) - (a->at < b->at);
}

/* Equal ones keep their places. */
static void
sort_entries(jinja *j, const node *n, entry *e, size_t count, bool reverse)
{
    order o = {j, reverse, false};

    qsort_r(e, count, sizeof *e, by_key, &o);
    if (o.unordered)
        jinja_fail(j, n->line, "values that have no order are sorted");
}

static bool
flag(const args *a, size_t k, const char *name)
{
    const val *v = args_get(a, k, name);

    return v && val_true(*v);
}

static val
values(jinja *j, const entry *e, size_t count)
{
    val out = val_new_list(j);

    for (size_t i = 0; i < count; i++)
        val_push(j, out, e[i].v);
    return out;
}

val
jinja_sort(jinja *j, const node *n, val v, const args *a)
{
    size_t count;
    entry *e = entries(j, n, v, args_get(a, 2, "attribute"),
                       args_get(a, 1, "case_sensitive"), &count);

    sort_entries(j, n, e, count, flag(a, 0, "reverse"));
    return values(j, e, count);
}

/* Pairs by key, or by='value'. */
val
jinja_dictsort(jinja *j, const node *n, val v, const args *a)
{
    const val *by = args_get(a, 1, "by"), *sensitive = args_get(a, 0, "case_sensitive");
    bool value = by && by->kind == V_STR && fg_str_same(by->s, fg_str_of("value"));

    if (v.kind != V_DICT && v.kind != V_SPACE)
        return jinja_fail(j, n->line, "%s has no items", val_type(v));
    entry *e = FG_NEWN(j->a, entry, v.dict->n + 1);
    for (size_t i = 0; i < v.dict->n; i++) {
        val pair = val_new_list(j), key = val_of_str(v.dict->v[i].key);
        pair.list->tuple = true;
        val_push(j, pair, key);
        val_push(j, pair, v.dict->v[i].v);
        e[i] =
            (entry){pair, key_of(j, n, value ? v.dict->v[i].v : key, NULL, sensitive), i};
    }
    sort_entries(j, n, e, v.dict->n, flag(a, 2, "reverse"));
    return values(j, e, v.dict->n);
}

val
jinja_unique(jinja *j, const node *n, val v, const args *a)
{
    size_t count, kept = 0;
    entry *e = entries(j, n, v, args_get(a, 1, "attribute"),
                       args_get(a, 0, "case_sensitive"), &count);

    for (size_t i = 0; i < count && !j->failed; i++) {
        size_t k = 0;
        while (k < kept && jinja_step(j, n->line) && !val_same(j, e[k].key, e[i].key))
            k++;
        if (k == kept)
            e[kept++] = e[i];
    }
    return values(j, e, kept);
}

static val
extreme(jinja *j, const node *n, val v, const args *a, bool greatest)
{
    size_t count;
    entry *e = entries(j, n, v, args_get(a, 1, "attribute"),
                       args_get(a, 0, "case_sensitive"), &count);

    sort_entries(j, n, e, count, greatest);
    return count ? e[0].v : (val){0};
}

val
jinja_min(jinja *j, const node *n, val v, const args *a)
{
    return extreme(j, n, v, a, false);
}

val
jinja_max(jinja *j, const node *n, val v, const args *a)
{
    return extreme(j, n, v, a, true);
}

val
jinja_sum(jinja *j, const node *n, val v, const args *a)
{
    const val *attribute = args_get(a, 0, "attribute"), *first = args_get(a, 1, "start");
    val all = jinja_items_of(j, n, v), sum = first ? *first : val_of_int(0);

    for (size_t i = 0; i < all.list->n && !j->failed; i++) {
        val x = all.list->v[i];
        if (attribute && attribute->kind == V_STR)
            x = attribute_of(j, n, x, attribute->s);
        sum = jinja_add(j, n, sum, x);
    }
    return sum;
}
