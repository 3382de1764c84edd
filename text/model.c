/* model.c - vocabularies, the choice of a model, and WordLevel, which is a look-up. */
#include "text/tok.h"

#include <stdio.h>

#define MAX_ID (1 << 24)

void
fg_id_add(fg_ids *ids, fg_arena *a, int32_t id)
{
    FG_PUSH(a, ids->v, ids->n, ids->cap) = id;
}

/* ---- vocabularies --------------------------------------------------------------------- */

bool
fg_vocab_load(fg_load *l, fg_vocab *v, const cJSON *o)
{
    const cJSON *e;
    size_t count = 0;

    if (!cJSON_IsObject(o))
        return fg_load_fail(l, "the model has no vocabulary");
    cJSON_ArrayForEach(e, o)
    {
        if (!cJSON_IsNumber(e) || !(e->valuedouble >= 0 && e->valuedouble < MAX_ID))
            return fg_load_fail(l, "token \"%.100s\" has no number below %d", e->string,
                                MAX_ID);
        v->n = e->valueint >= v->n ? e->valueint + 1 : v->n;
        count++;
    }
    v->ids = fg_strmap_new(l->a, count);
    v->content = FG_NEWN(l->a, fg_str, (size_t)v->n + 1);
    cJSON_ArrayForEach(e, o)
    {
        fg_str s = fg_utf8_clean(l->a, fg_str_of(e->string));
        s.s = s.s == e->string ? fg_dup(l->a, s.s, s.n + 1) : s.s;
        v->content[e->valueint] = s;
        fg_strmap_set(&v->ids, s, e->valueint);
    }
    return true;
}

void
fg_vocab_find_bytes(fg_vocab *v)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        v->byte[b] = fg_strmap_get(&v->ids, fg_str_of(name));
    }
}

bool
fg_vocab_spell(const fg_vocab *v, fg_arena *a, fg_str s, fg_ids *out)
{
    for (size_t i = 0; i < s.n; i++)
        if (v->byte[(unsigned char)s.s[i]] < 0)
            return false;
    for (size_t i = 0; i < s.n; i++)
        fg_id_add(out, a, v->byte[(unsigned char)s.s[i]]);
    return true;
}

int
fg_byte_of_token(fg_str t)
{
    int value = 0;

    if (t.n != 6 || memcmp(t.s, "<0x", 3) || t.s[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *d = t.s[i] ? strchr(digits, t.s[i]) : NULL;
        if (!d)
            return -1;
        value = value * 16 + (int)((d - digits) & 15);
    }
    return value;
}

/* ---- the alphabet of byte-level models ------------------------------------------------ */

/* Bytes that print stand for themselves, the others are numbered from U+0100 on. */
static bool
prints(int b)
{
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

static int32_t
char_of_byte(int b)
{
    int before = b <= ' ' ? b : b <= 0xa0 ? 33 + b - 0x7f : 67;

    return prints(b) ? b : 0x100 + before;
}

void
fg_put_bytes_as_chars(fg_text *t, fg_str s)
{
    for (size_t i = 0; i < s.n; i++)
        fg_put_char(t, char_of_byte((unsigned char)s.s[i]));
}

int
fg_byte_of_char(int32_t c)
{
    if (c < 0x100)
        return prints(c) ? c : -1;
    c -= 0x100;
    return c > 67 ? -1 : c == 67 ? 0xad : c > 32 ? c - 33 + 0x7f : c;
}

/* ---- words as they are ---------------------------------------------------------------- */

static bool
word_encode(const fg_model *m, fg_work *w, fg_str piece, fg_ids *out)
{
    int32_t id = fg_strmap_get(&m->vocab.ids, piece);

    id = id < 0 ? m->unk : id;
    if (id < 0)
        return false;
    fg_id_add(out, w->a, id);
    return true;
}

static bool
word_load(fg_load *l, fg_model **out, const cJSON *o)
{
    fg_model *m = *out = FG_NEW(l->a, fg_model);

    m->encode = word_encode;
    m->unk_token = fg_json_text(l, o, "unk_token");
    if (!fg_vocab_load(l, &m->vocab, cJSON_GetObjectItemCaseSensitive(o, "vocab")))
        return false;
    m->unk = fg_strmap_get(&m->vocab.ids, m->unk_token);
    return true;
}

/* ---- choice ------------------------------------------------------------------------- */

/* Older files do not name the model. */
static const char *
model_type(const cJSON *o)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(o, "type");

    if (cJSON_IsString(type))
        return type->valuestring;
    if (cJSON_GetObjectItemCaseSensitive(o, "merges"))
        return "BPE";
    if (cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(o, "vocab")))
        return "Unigram";
    return cJSON_GetObjectItemCaseSensitive(o, "max_input_chars_per_word") ? "WordPiece"
                                                                           : "WordLevel";
}

bool
fg_model_load(fg_load *l, fg_model **out, const cJSON *o)
{
    static const struct {
        const char *type;
        bool (*load)(fg_load *l, fg_model **out, const cJSON *o);
    } kinds[] = {{"BPE", fg_bpe_load},
                 {"WordPiece", fg_wordpiece_load},
                 {"Unigram", fg_unigram_load},
                 {"WordLevel", word_load}};

    if (!cJSON_IsObject(o))
        return fg_load_fail(l, "no model: is this a tokenizer.json?");
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (!strcmp(kinds[k].type, model_type(o)))
            return kinds[k].load(l, out, o);
    return fg_load_fail(l, "model \"%.100s\" is not supported", model_type(o));
}
