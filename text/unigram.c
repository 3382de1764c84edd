/* unigram.c - the most probable way to cut a piece into tokens (Viterbi).
 *
 * best[i] is the best way to spell the first i bytes; every token that the text from i
 * on begins with offers one for its end. A character that is no token itself may be
 * unknown, at a price below every token's.
 */
#include "text/tok.h"

#define UNKNOWN_PRICE 10.0

typedef struct node {
    double score;
    size_t from;
    int32_t id; /* -1: not reached */
} node;

typedef struct unigram {
    fg_model base;
    fg_trie trie;
    double *score; /* by id */
    double lowest;
} unigram;

static void
offer(node *to, double score, size_t from, int32_t id)
{
    if (to->id < 0 || score > to->score)
        *to = (node){score, from, id};
}

static void
walk(const unigram *m, fg_str s, node *best)
{
    for (size_t i = 0; i <= s.n; i++)
        best[i].id = -1;
    best[0] = (node){0};
    for (size_t at = 0; at < s.n;) {
        size_t next = at;
        bool single = false;
        uint32_t state = 0;
        fg_utf8_next(s, &next);
        for (size_t end = at; end < s.n;) {
            if (!fg_trie_step(&m->trie, &state, (unsigned char)s.s[end++]))
                break;
            int32_t id = m->trie.value[state];
            if (id < 0)
                continue;
            offer(&best[end], best[at].score + m->score[id], at, id);
            single = single || end == next;
        }
        if (!single)
            offer(&best[next], best[at].score + m->lowest - UNKNOWN_PRICE, at,
                  m->base.unk);
        at = next;
    }
}

/* Unknown characters in a row are one stretch of text; it is looked up whole, then
 * spelled in bytes if the model does that. */
static void
put_unknown(const unigram *m, fg_arena *a, fg_str s, fg_ids *out)
{
    int32_t id = fg_strmap_get(&m->base.vocab.ids, s);

    if (id < 0 && m->base.byte_fallback && fg_vocab_spell(&m->base.vocab, a, s, out))
        return;
    fg_id_add(out, a, id < 0 ? m->base.unk : id);
}

static bool
unigram_encode(const fg_model *model, fg_work *w, fg_str s, fg_ids *out)
{
    const unigram *m = (const unigram *)model;
    size_t n = 0;

    if (s.n + 1 > w->cap[0]) {
        w->cap[0] = (s.n + 1) * 2;
        w->v[0] = FG_NEWN(w->a, node, w->cap[0]);
        w->v[1] = FG_NEWN(w->a, size_t, w->cap[0]);
    }
    node *best = w->v[0];
    size_t *cut = w->v[1]; /* ends of tokens, last first */
    walk(m, s, best);
    for (size_t at = s.n; at; at = best[at].from)
        cut[n++] = at;
    for (size_t from = 0; n;) {
        size_t end = cut[--n];
        if (best[end].id != m->base.unk) {
            fg_id_add(out, w->a, best[end].id);
            from = end;
            continue;
        }
        while (n && best[cut[n - 1]].id == m->base.unk)
            end = cut[--n];
        put_unknown(m, w->a, (fg_str){s.s + from, end - from}, out);
        from = end;
    }
    return true;
}

static bool
load_pieces(fg_load *l, unigram *m, const cJSON *list)
{
    const cJSON *e;
    fg_vocab *v = &m->base.vocab;
    size_t n = (size_t)cJSON_GetArraySize(list);

    v->ids = fg_strmap_new(l->a, n);
    v->content = FG_NEWN(l->a, fg_str, n + 1);
    m->score = FG_NEWN(l->a, double, n + 1);
    m->trie = fg_trie_new(l->a, n * 2);
    cJSON_ArrayForEach(e, list)
    {
        const cJSON *score = cJSON_GetArrayItem(e, 1);
        fg_str s = fg_json_str(l, cJSON_GetArrayItem(e, 0));
        if (!cJSON_IsNumber(score) || !(score->valuedouble <= 1e30))
            return fg_load_fail(l, "token %d is not a text and a score", v->n);
        v->content[v->n] = s;
        m->score[v->n] = score->valuedouble;
        m->lowest =
            score->valuedouble < m->lowest || !v->n ? score->valuedouble : m->lowest;
        fg_strmap_set(&v->ids, s, v->n);
        fg_trie_add(&m->trie, s, v->n);
        v->n++;
    }
    return true;
}

bool
fg_unigram_load(fg_load *l, fg_model **out, const cJSON *o)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(o, "vocab");
    unigram *m = FG_NEW(l->a, unigram);

    *out = &m->base;
    m->base.encode = unigram_encode;
    m->base.byte_fallback = fg_json_flag(o, "byte_fallback", false);
    if (!cJSON_IsArray(list) || !list->child)
        return fg_load_fail(l, "the model has no vocabulary");
    if (!load_pieces(l, m, list))
        return false;
    fg_vocab_find_bytes(&m->base.vocab);
    int64_t unk = fg_json_int(o, "unk_id", -1);
    m->base.unk = (int32_t)unk;
    if (unk < 0 || unk >= m->base.vocab.n)
        return fg_load_fail(l, "a Unigram model without a token for what is unknown");
    return true;
}
