/* bpe.c - byte-pair encoding: characters, then neighbours joined in the order of the
 * merges, leftmost first.
 *
 *     merges "l o", "lo w"     l o w e r  ->  lo w e r  ->  low e r
 *
 * The symbols of a piece are a linked list in an array; a heap holds the pairs that may
 * join, so a piece of n characters takes n log n. An entry of the heap may be outdated:
 * it counts only if its place still holds a pair that makes the same token.
 */
#include "text/tok.h"

typedef struct symbol {
    int32_t id; /* -1: joined to the one before */
    int32_t prev, next;
} symbol;

typedef struct pair {
    uint64_t order; /* rank of the merge, then place */
    int32_t id;     /* of the result */
} pair;

typedef struct bpe {
    fg_model base;
    fg_intmap merges; /* two ids -> rank, id of the result */
    fg_str prefix, suffix;
    bool fuse_unk, whole;
} bpe;

/* ---- the heap ----------------------------------------------------------------------- */

static void
heap_add(fg_work *w, size_t *n, pair p)
{
    pair *h = w->v[1] = fg_grow(w->a, w->v[1], *n, &w->cap[1], sizeof *h);
    size_t i = (*n)++;

    for (; i && h[(i - 1) / 2].order > p.order; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = p;
}

static pair
heap_take(pair *h, size_t *n)
{
    pair top = h[0], last = h[--*n];
    size_t i = 0, k;

    while ((k = 2 * i + 1) < *n) {
        k += k + 1 < *n && h[k + 1].order < h[k].order;
        if (h[k].order >= last.order)
            break;
        h[i] = h[k];
        i = k;
    }
    h[i] = last;
    return top;
}

/* ---- a piece -------------------------------------------------------------------------- */

static bool
joins(const bpe *m, int32_t left, int32_t right, uint64_t *merge)
{
    return fg_intmap_get(&m->merges, (uint64_t)left << 32 | (uint32_t)right, merge);
}

static void
offer(const bpe *m, fg_work *w, size_t *nheap, int32_t at)
{
    const symbol *s = w->v[0];
    uint64_t merge;

    if (at >= 0 && s[at].next >= 0 && joins(m, s[at].id, s[s[at].next].id, &merge))
        heap_add(w, nheap,
                 (pair){(merge >> 32) << 32 | (uint32_t)at, (int32_t)(uint32_t)merge});
}

static void
join_all(const bpe *m, fg_work *w, size_t n)
{
    symbol *s = w->v[0];
    size_t nheap = 0;
    uint64_t merge;

    for (size_t i = 0; i < n; i++) {
        s[i].prev = (int32_t)i - 1;
        s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        offer(m, w, &nheap, (int32_t)i);
    while (nheap) {
        pair top = heap_take(w->v[1], &nheap);
        int32_t at = (int32_t)(uint32_t)top.order, right = s[at].next;
        if (s[at].id < 0 || right < 0 || !joins(m, s[at].id, s[right].id, &merge) ||
            (int32_t)(uint32_t)merge != top.id)
            continue;
        s[at].id = top.id;
        s[at].next = s[right].next;
        if (s[right].next >= 0)
            s[s[right].next].prev = at;
        s[right].id = -1;
        offer(m, w, &nheap, s[at].prev);
        offer(m, w, &nheap, at);
    }
}

static int32_t
lookup(const bpe *m, fg_work *w, fg_str c, bool first, bool last)
{
    bool before = !first && m->prefix.n, behind = last && m->suffix.n;

    if (!before && !behind)
        return fg_strmap_get(&m->base.vocab.ids, c);
    fg_text t = fg_text_new(w->a);
    if (before)
        fg_put_str(&t, m->prefix);
    fg_put_str(&t, c);
    if (behind)
        fg_put_str(&t, m->suffix);
    return fg_strmap_get(&m->base.vocab.ids, (fg_str){t.s, t.n});
}

/* The symbols a piece begins as. A run of unknown characters is one token when they are
 * fused, and what cannot be spelled at all is left out. */
static fg_ids
symbols(const bpe *m, fg_work *w, fg_str piece)
{
    fg_ids ids = {w->v[2], 0, w->cap[2]};
    bool unknown = false; /* one is waiting to be added */

    for (size_t at = 0; at < piece.n;) {
        size_t from = at;
        fg_utf8_next(piece, &at);
        fg_str c = {piece.s + from, at - from};
        int32_t id = lookup(m, w, c, !from, at == piece.n);
        if (id < 0 && m->base.byte_fallback &&
            fg_vocab_spell(&m->base.vocab, w->a, c, &ids))
            continue;
        if (id < 0 && m->base.unk < 0)
            continue;
        if (unknown && (id >= 0 || !m->fuse_unk)) {
            fg_id_add(&ids, w->a, m->base.unk);
            unknown = false;
        }
        if (id >= 0)
            fg_id_add(&ids, w->a, id);
        else
            unknown = true;
    }
    if (unknown)
        fg_id_add(&ids, w->a, m->base.unk);
    w->v[2] = ids.v;
    w->cap[2] = ids.cap;
    return ids;
}

static bool
bpe_encode(const fg_model *model, fg_work *w, fg_str piece, fg_ids *out)
{
    const bpe *m = (const bpe *)model;
    int32_t id = m->whole ? fg_strmap_get(&m->base.vocab.ids, piece) : -1;

    if (id >= 0) {
        fg_id_add(out, w->a, id);
        return true;
    }
    fg_ids ids = symbols(m, w, piece);
    if (ids.n > INT32_MAX)
        return false;
    if (ids.n > w->cap[0]) {
        w->cap[0] = ids.n * 2;
        w->v[0] = FG_NEWN(w->a, symbol, w->cap[0]);
    }
    symbol *s = w->v[0];
    for (size_t i = 0; i < ids.n; i++)
        s[i].id = ids.v[i];
    join_all(m, w, ids.n);
    for (int32_t i = ids.n ? 0 : -1; i >= 0; i = s[i].next)
        fg_id_add(out, w->a, s[i].id);
    return true;
}

/* ---- loading ------------------------------------------------------------------------ */

/* ["a", "b"], or "a b" in older files. */
static bool
merge_parts(fg_load *l, const cJSON *e, fg_str *left, fg_str *right)
{
    if (cJSON_IsArray(e)) {
        *left = fg_json_str(l, cJSON_GetArrayItem(e, 0));
        *right = fg_json_str(l, cJSON_GetArrayItem(e, 1));
        return left->n && right->n;
    }
    fg_str s = fg_json_str(l, e);
    const char *space = s.n ? memchr(s.s, ' ', s.n) : NULL;
    if (!space)
        return false;
    *left = (fg_str){s.s, (size_t)(space - s.s)};
    *right = (fg_str){space + 1, s.n - left->n - 1};
    return left->n && right->n;
}

static bool
load_merges(fg_load *l, bpe *m, const cJSON *list)
{
    const cJSON *e;
    uint32_t rank = 0;

    m->merges = fg_intmap_new(l->a, (size_t)(list ? cJSON_GetArraySize(list) : 0));
    cJSON_ArrayForEach(e, list)
    {
        fg_str left, right, rest;
        if (!merge_parts(l, e, &left, &right))
            return fg_load_fail(l, "merge %u is not a pair of tokens", rank);
        rest = right;
        if (m->prefix.n && fg_str_begins(rest, m->prefix))
            rest = (fg_str){right.s + m->prefix.n, right.n - m->prefix.n};
        fg_text t = fg_text_new(l->a);
        fg_put_str(&t, left);
        fg_put_str(&t, rest);
        int32_t a = fg_strmap_get(&m->base.vocab.ids, left);
        int32_t b = fg_strmap_get(&m->base.vocab.ids, right);
        int32_t c = fg_strmap_get(&m->base.vocab.ids, (fg_str){t.s, t.n});
        if (a < 0 || b < 0 || c < 0)
            return fg_load_fail(l,
                                "merge %u makes \"%.100s\" of tokens that are not all "
                                "in the vocabulary",
                                rank, t.s);
        fg_intmap_set(&m->merges, (uint64_t)a << 32 | (uint32_t)b,
                      (uint64_t)rank++ << 32 | (uint32_t)c);
    }
    return true;
}

bool
fg_bpe_load(fg_load *l, fg_model **out, const cJSON *o)
{
    bpe *m = FG_NEW(l->a, bpe);

    *out = &m->base;
    m->base.encode = bpe_encode;
    m->base.byte_fallback = fg_json_flag(o, "byte_fallback", false);
    m->base.unk_token = fg_json_text(l, o, "unk_token");
    m->prefix = fg_json_text(l, o, "continuing_subword_prefix");
    m->suffix = fg_json_text(l, o, "end_of_word_suffix");
    m->fuse_unk = fg_json_flag(o, "fuse_unk", false);
    m->whole = fg_json_flag(o, "ignore_merges", false);
    if (!fg_vocab_load(l, &m->base.vocab, cJSON_GetObjectItemCaseSensitive(o, "vocab")))
        return false;
    fg_vocab_find_bytes(&m->base.vocab);
    m->base.unk =
        m->base.unk_token.n ? fg_strmap_get(&m->base.vocab.ids, m->base.unk_token) : -1;
    return load_merges(l, m, cJSON_GetObjectItemCaseSensitive(o, "merges"));
}
