/* wordpiece.c - the longest token that fits, from the left; what continues a word is
 * spelled with a prefix.
 *
 *     "playing"  ->  "play" "##ing"
 */
#include "text/tok.h"

typedef struct wordpiece {
    fg_model base;
    fg_str prefix;
    int64_t longest; /* characters; longer words are unknown */
} wordpiece;

static int32_t
match(const wordpiece *m, fg_work *w, fg_str word, size_t from, size_t *end)
{
    char *key = w->v[0];
    size_t head = from ? m->prefix.n : 0;

    for (*end = word.n; *end > from; *end = fg_utf8_back(word, *end)) {
        if (head)
            memcpy(key, m->prefix.s, head);
        memcpy(key + head, word.s + from, *end - from);
        int32_t id = fg_strmap_get(&m->base.vocab.ids, (fg_str){key, head + *end - from});
        if (id >= 0)
            return id;
    }
    return -1;
}

static bool
wordpiece_encode(const fg_model *model, fg_work *w, fg_str word, fg_ids *out)
{
    const wordpiece *m = (const wordpiece *)model;
    size_t at = 0, start = out->n, end;
    int64_t chars = 0;

    while (at < word.n) {
        fg_utf8_next(word, &at);
        chars++;
    }
    if (w->cap[0] < word.n + m->prefix.n) {
        w->cap[0] = (word.n + m->prefix.n) * 2;
        w->v[0] = fg_alloc(w->a, w->cap[0]);
    }
    for (at = chars > m->longest ? SIZE_MAX : 0; at < word.n; at = end) {
        int32_t id = match(m, w, word, at, &end);
        if (id < 0) {
            at = SIZE_MAX;
            break;
        }
        fg_id_add(out, w->a, id);
    }
    if (at != SIZE_MAX)
        return true;
    out->n = start;
    if (m->base.unk < 0)
        return false;
    fg_id_add(out, w->a, m->base.unk);
    return true;
}

bool
fg_wordpiece_load(fg_load *l, fg_model **out, const cJSON *o)
{
    wordpiece *m = FG_NEW(l->a, wordpiece);

    *out = &m->base;
    m->base.encode = wordpiece_encode;
    m->base.unk_token = fg_json_text(l, o, "unk_token");
    m->prefix = fg_json_text(l, o, "continuing_subword_prefix");
    m->longest = fg_json_int(o, "max_input_chars_per_word", 100);
    if (!fg_vocab_load(l, &m->base.vocab, cJSON_GetObjectItemCaseSensitive(o, "vocab")))
        return false;
    m->base.unk = fg_strmap_get(&m->base.vocab.ids, m->base.unk_token);
    return true;
}
