/* tokenizer.c - a tokenizer.json as a whole: loading it, and the way of a text through
 * its stages.
 */
#include "text/tok.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_FILE ((size_t)256 << 20)

/* ---- the template --------------------------------------------------------------------- */

static bool
add_special(fg_load *l, fg_tokenizer *t, const cJSON *o, const cJSON *table, bool behind)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(o, "id"), *id;
    const cJSON *entry = cJSON_IsString(name)
                             ? cJSON_GetObjectItemCaseSensitive(table, name->valuestring)
                             : NULL;

    if (!entry)
        return fg_load_fail(l,
                            "the template names a special token that it does not tell");
    cJSON_ArrayForEach(id, cJSON_GetObjectItemCaseSensitive(entry, "ids"))
    {
        if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble < 1 << 24))
            return fg_load_fail(l, "a special token of the template has no number");
        fg_id_add(behind ? &t->after : &t->before, t->a, id->valueint);
    }
    return true;
}

static bool
load_template(fg_load *l, fg_tokenizer *t, const cJSON *o)
{
    const cJSON *part, *table = cJSON_GetObjectItemCaseSensitive(o, "special_tokens");
    bool behind = false;

    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(o, "single"))
    {
        const cJSON *special = cJSON_GetObjectItemCaseSensitive(part, "SpecialToken");
        if (special && !add_special(l, t, special, table, behind))
            return false;
        behind = behind || !special;
    }
    return true;
}

/* ["[SEP]", 102] */
static bool
add_pair(fg_load *l, fg_tokenizer *t, const cJSON *pair, fg_ids *to)
{
    const cJSON *id = cJSON_GetArrayItem(pair, 1);

    if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble < 1 << 24))
        return fg_load_fail(l, "a special token of the post-processor has no number");
    fg_id_add(to, t->a, id->valueint);
    return true;
}

static bool
load_post(fg_load *l, void *to, const cJSON *o, const char *type)
{
    fg_tokenizer *t = to;

    if (!strcmp(type, "ByteLevel")) /* mends offsets, which nobody asks for here */
        return true;
    if (!strcmp(type, "TemplateProcessing"))
        return load_template(l, t, o);
    if (!strcmp(type, "BertProcessing") || !strcmp(type, "RobertaProcessing"))
        return add_pair(l, t, cJSON_GetObjectItemCaseSensitive(o, "cls"), &t->before) &&
               add_pair(l, t, cJSON_GetObjectItemCaseSensitive(o, "sep"), &t->after);
    return fg_load_fail(l, "post-processor \"%.100s\" is not supported", type);
}

/* ---- loading ------------------------------------------------------------------------ */

typedef struct loading {
    fg_load l;
    fg_tokenizer *t;
    fg_str json;
    cJSON *root;
    bool ok;
} loading;

static bool
load_parts(fg_load *l, fg_tokenizer *t, const cJSON *root)
{
#define PART(name) cJSON_GetObjectItemCaseSensitive(root, name)
    return fg_normalizer_load(l, &t->normalizer, PART("normalizer")) &&
           fg_pretokenizer_load(l, &t->pretokenizer, PART("pre_tokenizer")) &&
           fg_model_load(l, &t->model, PART("model")) &&
           fg_added_load(l, &t->added, PART("added_tokens"), &t->normalizer) &&
           fg_load_steps(l, PART("post_processor"), "post-processor", "processors",
                         load_post, t) &&
           fg_decoder_load(l, &t->decoder, PART("decoder"));
#undef PART
}

static void
load(void *arg)
{
    loading *x = arg;

    x->l.a = x->t->a = fg_arena_new(x->l.cx);
    if (!cJSON_IsObject(x->root)) {
        fg_load_fail(&x->l, "not a JSON object");
        return;
    }
    x->ok = load_parts(&x->l, x->t, x->root);
    if (!x->ok)
        return;
    x->t->size = x->t->model->vocab.n;
    for (size_t i = 0; i < x->t->added.n; i++)
        if (x->t->added.v[i].id >= x->t->size)
            x->t->size = x->t->added.v[i].id + 1;
}

fg_tokenizer *
fg_tokenizer_parse(fg_ctx *cx, const char *name, fg_str json)
{
    fg_tokenizer *t = calloc(1, sizeof *t);

    if (!t)
        fg_raise_memory(cx);
    t->cx = cx;
    loading x = {.l = {cx, NULL, name, &t->regexes}, .t = t};
    x.root = cJSON_ParseWithLength(json.s, json.n);
    fg_raise raise = fg_protect(cx, load, &x);
    cJSON_Delete(x.root);
    if (x.ok)
        return t;
    fg_tokenizer_free(t);
    if (raise != FG_RAISE_NONE)
        fg_raise_again(cx, raise);
    return NULL;
}

void
fg_tokenizer_free(fg_tokenizer *t)
{
    if (!t)
        return;
    fg_regex_free_all(t->regexes);
    fg_arena_free(t->a);
    free(t);
}

fg_tokenizer *
fg_tokenizer_open(fg_ctx *cx, const char *path)
{
    fg_arena *a = fg_arena_new(cx);
    fg_tokenizer *t = NULL;
    fg_str json;

    if (fg_file_read(cx, a, path, MAX_FILE, &json))
        t = fg_tokenizer_parse(cx, path, json);
    fg_arena_free(a);
    return t;
}

bool
fg_file_read(fg_ctx *cx, fg_arena *a, const char *path, size_t most, fg_str *out)
{
    FILE *f = fopen(path, "rb");
    fg_text t = fg_text_new(a);
    char chunk[16384];
    size_t n;

    errno = f ? 0 : errno;
    while (f && (n = fread(chunk, 1, sizeof chunk, f)) > 0 && t.n <= most)
        fg_put_str(&t, (fg_str){chunk, n});
    int why = f && ferror(f) ? errno : f ? 0 : errno;
    if (f)
        fclose(f);
    if (why || t.n > most)
        return fg_error(cx, "%s: %s", path,
                        why ? strerror(why) : "the file is too large");
    *out = (fg_str){t.s, t.n};
    return true;
}

/* ---- tokens ------------------------------------------------------------------------- */

int32_t
fg_tokenizer_size(const fg_tokenizer *t)
{
    return t->size;
}

int32_t
fg_tokenizer_id(const fg_tokenizer *t, const char *content)
{
    fg_str want = fg_str_of(content);

    for (size_t i = 0; i < t->added.n; i++)
        if (fg_str_same(t->added.v[i].content, want))
            return t->added.v[i].id;
    return fg_strmap_get(&t->model->vocab.ids, want);
}

static const fg_added *
added(const fg_tokenizer *t, int32_t id)
{
    uint64_t at;

    if (id < 0 || !fg_intmap_get(&t->added.by_id, (uint64_t)id, &at))
        return NULL;
    return &t->added.v[at];
}

fg_str
fg_tokenizer_content(const fg_tokenizer *t, int32_t id)
{
    const fg_added *x = added(t, id);

    if (x)
        return x->content;
    return id >= 0 && id < t->model->vocab.n ? t->model->vocab.content[id] : (fg_str){0};
}

bool
fg_tokenizer_special(const fg_tokenizer *t, int32_t id)
{
    const fg_added *x = added(t, id);

    return x && x->special;
}

fg_str
fg_tokenizer_decode(const fg_tokenizer *t, fg_arena *a, const int32_t *ids, size_t n,
                    bool skip)
{
    fg_str *token = FG_NEWN(a, fg_str, n + 1);
    size_t count = 0;

    for (size_t i = 0; i < n; i++) {
        fg_str s = fg_tokenizer_content(t, ids[i]);
        if (s.n && !(skip && fg_tokenizer_special(t, ids[i])))
            token[count++] = s;
    }
    return fg_decode_tokens(&t->decoder, a, token, count);
}

/* ---- encoding ----------------------------------------------------------------------- */

/* Words come again and again: the last piece seen with a hash, and where its ids are. */
enum { CACHE = 4096, CACHED_BYTES = 48 };

typedef struct cached {
    fg_str piece;
    size_t at, n;
} cached;

typedef struct encoding {
    const fg_tokenizer *t;
    fg_ctx *cx;
    fg_arena *a, *scratch;
    fg_str text;
    bool wrap, ok;
    fg_ids *out;
} encoding;

static bool
encode_piece(encoding *x, fg_work *w, cached *cache, fg_str piece)
{
    cached *c = NULL;

    if (piece.n <= CACHED_BYTES) {
        c = &cache[fg_hash(piece.s, piece.n, 0) % CACHE];
        if (c->piece.s && fg_str_same(c->piece, piece)) {
            for (size_t i = 0; i < c->n; i++)
                fg_id_add(x->out, x->a, x->out->v[c->at + i]);
            return true;
        }
    }
    size_t at = x->out->n;
    if (!x->t->model->encode(x->t->model, w, piece, x->out))
        return fg_error(x->cx, "the vocabulary has no way to spell \"%s\"",
                        fg_printable(x->scratch, piece.s, piece.n, 60));
    if (c)
        *c = (cached){piece, at, x->out->n - at};
    return true;
}

static bool
cut(encoding *x, fg_pieces *pieces)
{
    const fg_tokenizer *t = x->t;
    fg_pieces in = {.a = x->scratch}, raw = {.a = x->scratch};

    fg_piece_add(&in, fg_utf8_clean(x->scratch, x->text), -1, true);
    fg_added_split(&t->added, &t->added.raw, &in, &raw);
    in.n = 0;
    for (size_t i = 0; i < raw.n; i++) {
        fg_piece p = raw.v[i];
        if (p.id < 0 && !fg_normalize(&t->normalizer, x->scratch, p.t, &p.t))
            return false;
        fg_piece_add(&in, p.t, p.id, p.first);
    }
    fg_added_split(&t->added, &t->added.normal, &in, pieces);
    return fg_pretokenize(&t->pretokenizer, pieces);
}

static void
encode(void *arg)
{
    encoding *x = arg;
    x->scratch = fg_arena_new(x->cx);
    fg_pieces pieces = {.a = x->scratch};
    /* A model's arrays outgrow each other; what they leave behind dies with the call. */
    fg_work w = {.a = x->scratch};
    cached *cache = FG_NEWN(x->scratch, cached, CACHE);
    fg_ids ids = {0};
    encoding inner = *x;

    inner.out = &ids;
    inner.a = x->scratch;
    if (!cut(x, &pieces)) {
        fg_error(x->cx, "the tokenizer's pattern takes too many steps on this text");
        return;
    }
    for (size_t i = 0; i < pieces.n; i++) {
        if (pieces.v[i].id >= 0)
            fg_id_add(&ids, x->scratch, pieces.v[i].id);
        else if (!encode_piece(&inner, &w, cache, pieces.v[i].t))
            return;
    }
    for (size_t i = 0; x->wrap && i < x->t->before.n; i++)
        fg_id_add(x->out, x->a, x->t->before.v[i]);
    for (size_t i = 0; i < ids.n; i++)
        fg_id_add(x->out, x->a, ids.v[i]);
    for (size_t i = 0; x->wrap && i < x->t->after.n; i++)
        fg_id_add(x->out, x->a, x->t->after.v[i]);
    x->ok = true;
}

bool
fg_tokenizer_encode(const fg_tokenizer *t, fg_ctx *cx, fg_arena *a, fg_str text,
                    bool wrap, fg_ids *out)
{
    encoding x = {.t = t, .cx = cx, .a = a, .text = text, .wrap = wrap, .out = out};
    fg_raise raise = fg_protect(cx, encode, &x);

    fg_arena_free(x.scratch);
    if (raise != FG_RAISE_NONE)
        fg_raise_again(cx, raise);
    return x.ok;
}
