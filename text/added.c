/* added.c - tokens that are found in the text itself, before anything else is done.
 *
 *     "<s>Hello<|end|>"  ->  <s>  "Hello"  <|end|>
 *
 * From the left, the longest; a token may ask to stand as a word of its own, and may take
 * the white space beside it along.
 */
#include "text/tok.h"

static bool
load_one(fg_load *l, fg_added_set *s, const cJSON *o, const fg_normalizer *n)
{
    fg_added t = {.content = fg_json_text(l, o, "content"),
                  .id = (int32_t)fg_json_int(o, "id", -1),
                  .single_word = fg_json_flag(o, "single_word", false),
                  .lstrip = fg_json_flag(o, "lstrip", false),
                  .rstrip = fg_json_flag(o, "rstrip", false),
                  .special = fg_json_flag(o, "special", false)};
    fg_str spelled = t.content;

    t.normalized = fg_json_flag(o, "normalized", !t.special);
    if (t.id < 0 || t.id >= 1 << 24)
        return fg_load_fail(l, "added token \"%.100s\" has no number",
                            t.content.n ? t.content.s : "");
    if (t.normalized && !fg_normalize(n, l->a, t.content, &spelled))
        return fg_load_fail(l, "added token \"%.100s\" cannot be normalized",
                            t.content.s);
    fg_trie_add(t.normalized ? &s->normal : &s->raw, spelled, (int32_t)s->n);
    fg_intmap_set(&s->by_id, (uint64_t)t.id, s->n);
    FG_PUSH(l->a, s->v, s->n, s->cap) = t;
    return true;
}

bool
fg_added_load(fg_load *l, fg_added_set *s, const cJSON *list, const fg_normalizer *n)
{
    const cJSON *o;

    s->raw = fg_trie_new(l->a, 64);
    s->normal = fg_trie_new(l->a, 64);
    s->by_id = fg_intmap_new(l->a, 64);
    cJSON_ArrayForEach(o, list)
    {
        if (!load_one(l, s, o, n))
            return false;
    }
    return true;
}

/* Longest token of the trie at `at`; its end, or 0. */
static size_t
longest(const fg_trie *trie, fg_str t, size_t at, int32_t *which)
{
    uint32_t node = 0;
    size_t end = 0;

    while (at < t.n && fg_trie_step(trie, &node, (unsigned char)t.s[at])) {
        at++;
        if (trie->value[node] >= 0) {
            *which = trie->value[node];
            end = at;
        }
    }
    return end;
}

static bool
stands_alone(fg_str t, size_t from, size_t to)
{
    size_t before = from ? fg_utf8_back(t, from) : 0, behind = to;

    return !(from && fg_char_word(fg_utf8_next(t, &before))) &&
           !(to < t.n && fg_char_word(fg_utf8_next(t, &behind)));
}

static size_t
spaces_before(fg_str t, size_t at, size_t limit)
{
    while (at > limit) {
        size_t c = fg_utf8_back(t, at), next = c;
        if (!fg_char_space(fg_utf8_next(t, &next)))
            break;
        at = c;
    }
    return at;
}

static size_t
spaces_behind(fg_str t, size_t at)
{
    while (at < t.n) {
        size_t next = at;
        if (!fg_char_space(fg_utf8_next(t, &next)))
            break;
        at = next;
    }
    return at;
}

static void
split_one(const fg_added_set *s, const fg_trie *trie, fg_piece x, fg_pieces *out)
{
    size_t done = 0;
    int32_t which = 0;

    for (size_t at = 0; at < x.t.n;) {
        size_t end =
            trie->first[(unsigned char)x.t.s[at]] ? longest(trie, x.t, at, &which) : 0;
        const fg_added *token = end ? &s->v[which] : NULL;
        if (!end || (token->single_word && !stands_alone(x.t, at, end))) {
            at = end ? end : at + 1;
            continue;
        }
        size_t from = token->lstrip ? spaces_before(x.t, at, done) : at;
        at = end;
        end = token->rstrip ? spaces_behind(x.t, end) : end;
        if (from > done)
            fg_piece_add(out, (fg_str){x.t.s + done, from - done}, -1, x.first && !done);
        fg_piece_add(out, token->content, token->id, x.first && !from);
        done = end;
        at = at < end ? end : at;
    }
    fg_piece_add(out, (fg_str){x.t.s + done, x.t.n - done}, -1, x.first && !done);
}

void
fg_added_split(const fg_added_set *s, const fg_trie *trie, fg_pieces *in, fg_pieces *out)
{
    for (size_t i = 0; i < in->n; i++)
        if (in->v[i].id >= 0)
            fg_piece_add(out, in->v[i].t, in->v[i].id, in->v[i].first);
        else
            split_one(s, trie, in->v[i], out);
}
