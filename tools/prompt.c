/* prompt.c - what generation starts from. Files that a model is published with lie beside
 * its tokenizer or beside itself: generation_config.json, config.json,
 * tokenizer_config.json, chat_template.jinja; each may be missing.
 */
#include "tools/prompt.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "text/template.h"

#define MAX_TEXT ((size_t)64 << 20)

/* ---- files beside --------------------------------------------------------------------- */

static char *
beside(prompt *p, const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');

    return fg_format(p->a, "%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, name);
}

static char *
find_file(prompt *p, const char *name)
{
    const char *near[] = {p->tokenizer, p->model};
    struct stat st;

    for (int k = 0; k < 2; k++) {
        char *path = beside(p, near[k], name);
        if (!stat(path, &st) && S_ISREG(st.st_mode))
            return path;
    }
    return NULL;
}

/* NULL when there is none; what is no JSON is as good as none. */
static cJSON *
config(prompt *p, const char *name)
{
    char *path = find_file(p, name);
    fg_str text;

    if (!path || !fg_file_read(p->cx, p->a, path, MAX_TEXT, &text))
        return NULL;
    return cJSON_ParseWithLength(text.s, text.n);
}

/* ---- the end of a text ------------------------------------------------------------------ */

static void
add_eos(prompt *p, int64_t id)
{
    if (id >= 0 && id < fg_tokenizer_size(p->t))
        FG_PUSH(p->a, p->eos.v, p->eos.n, p->eos.cap) = (int32_t)id;
}

/* 2, [2, 3], "</s>" or {"content": "</s>"} */
static void
eos_from(prompt *p, const cJSON *o)
{
    const cJSON *e;

    if (cJSON_IsObject(o))
        o = cJSON_GetObjectItemCaseSensitive(o, "content");
    if (cJSON_IsNumber(o))
        add_eos(p, o->valueint);
    if (cJSON_IsString(o))
        add_eos(p, fg_tokenizer_id(p->t, o->valuestring));
    if (cJSON_IsArray(o))
        cJSON_ArrayForEach(e, o) if (cJSON_IsNumber(e)) add_eos(p, e->valueint);
}

static bool
eos_given(prompt *p)
{
    for (int k = 0; k < p->eos_given.n; k++) {
        const char *text = p->eos_given.v[k];
        char *end;
        int32_t id = fg_tokenizer_id(p->t, text);
        long number = strtol(text, &end, 10);
        if (id < 0 &&
            (end == text || *end || number < 0 || number >= fg_tokenizer_size(p->t)))
            return fg_error(p->cx, "--eos=%.100s: no token of the tokenizer", text);
        add_eos(p, id >= 0 ? id : number);
    }
    return true;
}

/* The first place that says anything counts; without one, what vocabularies call the end
 * of a text or of a turn. */
static void
find_eos(prompt *p)
{
    static const char *const place[][2] = {{"generation_config.json", "eos_token_id"},
                                           {"tokenizer_config.json", "eos_token"},
                                           {"config.json", "eos_token_id"}};
    static const char *const usual[] = {
        "<|endoftext|>", "</s>",          "<eos>",   "<|im_end|>",
        "<|eot_id|>",    "<end_of_turn>", "<|end|>", "<|end_of_text|>"};

    for (size_t k = 0; k < sizeof place / sizeof *place && !p->eos.n; k++) {
        cJSON *o = config(p, place[k][0]);
        eos_from(p, cJSON_GetObjectItemCaseSensitive(o, place[k][1]));
        cJSON_Delete(o);
    }
    for (size_t k = 0, none = !p->eos.n; none && k < sizeof usual / sizeof *usual; k++) {
        int32_t id = fg_tokenizer_id(p->t, usual[k]);
        if (fg_tokenizer_special(p->t, id))
            add_eos(p, id);
    }
}

static void
find_context(prompt *p)
{
    static const char *const names[] = {"max_position_embeddings", "n_positions", "n_ctx",
                                        "max_seq_len"};
    cJSON *o = config(p, "config.json");

    for (size_t k = 0; k < sizeof names / sizeof *names && !p->context; k++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, names[k]);
        if (cJSON_IsNumber(v) && v->valueint > 0)
            p->context = v->valueint;
    }
    cJSON_Delete(o);
}

/* ---- the text ------------------------------------------------------------------------ */

static void
add_text(prompt *p, fg_str text)
{
    FG_PUSH(p->a, p->v, p->n, p->cap) = text;
}

static bool
read_texts(prompt *p)
{
    const char *path = p->lines ? p->lines : p->file ? p->file : "/dev/stdin";
    fg_str all;

    if (p->text) {
        add_text(p, fg_str_of(p->text));
        return true;
    }
    if (!fg_file_read(p->cx, p->a, path, MAX_TEXT, &all))
        return false;
    if (!p->lines)
        add_text(p, all);
    for (size_t at = 0; p->lines && at < all.n;) {
        const char *end = memchr(all.s + at, '\n', all.n - at);
        size_t n = end ? (size_t)(end - all.s) - at : all.n - at;
        if (n) /* an empty line is no prompt */
            add_text(p, (fg_str){all.s + at, n});
        at += n + 1;
    }
    return p->n || fg_error(p->cx, "%s: no line has a prompt", path);
}

/* ---- chats --------------------------------------------------------------------------- */

/* One template, or several with names of which one is the default. */
static const cJSON *
default_template(const cJSON *o)
{
    const cJSON *e;

    if (!cJSON_IsArray(o))
        return o;
    cJSON_ArrayForEach(e, o)
    {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(e, "name");
        if (cJSON_IsString(name) && !strcmp(name->valuestring, "default"))
            return cJSON_GetObjectItemCaseSensitive(e, "template");
    }
    return NULL;
}

static bool
find_template(prompt *p, const cJSON *settings, fg_str *text, const char **name)
{
    const cJSON *inside =
        default_template(cJSON_GetObjectItemCaseSensitive(settings, "chat_template"));
    const char *path = p->chat_template;

    path = path ? path : find_file(p, "chat_template.jinja");
    *name = path ? path : "chat_template";
    if (path)
        return fg_file_read(p->cx, p->a, path, MAX_TEXT, text);
    if (!cJSON_IsString(inside))
        return fg_error(p->cx, "no chat template beside the tokenizer: name it with "
                               "--chat-template");
    *text = fg_str_of(fg_strdup(p->a, inside->valuestring));
    return true;
}

static void
add_message(cJSON *list, const char *role, const char *content)
{
    cJSON *m = cJSON_CreateObject();

    cJSON_AddStringToObject(m, "role", role);
    cJSON_AddStringToObject(m, "content", content);
    cJSON_AddItemToArray(list, m);
}

/* "<s>" or {"content": "<s>"} */
static void
add_token(cJSON *to, const cJSON *settings, const char *name)
{
    const cJSON *o = cJSON_GetObjectItemCaseSensitive(settings, name);

    if (cJSON_IsObject(o))
        o = cJSON_GetObjectItemCaseSensitive(o, "content");
    cJSON_AddStringToObject(to, name, cJSON_IsString(o) ? o->valuestring : "");
}

static bool
render_chat(prompt *p, fg_str *text)
{
    cJSON *settings = config(p, "tokenizer_config.json");
    cJSON *given = cJSON_CreateObject(),
          *list = cJSON_AddArrayToObject(given, "messages");
    fg_str template, message = fg_utf8_clean(p->a, *text);
    const char *name;

    if (p->system)
        add_message(list, "system", p->system);
    add_message(list, "user", fg_format(p->a, "%.*s", (int)message.n, message.s));
    add_token(given, settings, "bos_token");
    add_token(given, settings, "eos_token");
    cJSON_AddBoolToObject(given, "add_generation_prompt", true);
    bool ok = find_template(p, settings, &template, &name) &&
              fg_template_render(p->cx, p->a, name, template, given, text);
    cJSON_Delete(given);
    cJSON_Delete(settings);
    return ok;
}

bool
prompt_begin(prompt *p)
{
    if (!p->tokenizer)
        p->tokenizer = beside(p, p->model, "tokenizer.json");
    if (!(p->t = fg_tokenizer_open(p->cx, p->tokenizer)))
        return false;
    if (!eos_given(p) || !read_texts(p))
        return false;
    if (!p->eos_given.n)
        find_eos(p);
    if (!p->context)
        find_context(p);
    return true;
}

bool
prompt_encode(prompt *p, size_t k, fg_ids *out)
{
    fg_str text = p->v[k];

    *out = (fg_ids){0};
    /* A chat's template writes the tokens around the text itself. */
    if ((p->chat && !render_chat(p, &text)) ||
        !fg_tokenizer_encode(p->t, p->cx, p->a, text, !p->chat, out))
        return false;
    if (!out->n)
        return fg_error(p->cx,
                        "the prompt is empty, and the tokenizer puts nothing before it");
    return !p->context || out->n <= (size_t)p->context ||
           fg_error(p->cx, "the prompt has %zu tokens, %lld are the most (--context)",
                    out->n, (long long)p->context);
}

void
prompt_end(prompt *p)
{
    fg_tokenizer_free(p->t);
}
