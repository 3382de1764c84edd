/* tokenizers.c - tokenizers of a folder against what their reference made of awkward
 * texts (tests/text/make.py writes both).
 *
 *     test-tokenizers tests/text/data
 *
 * texts.json holds the texts; NAME.expected.json holds for each: ids with the template, ids
 * without (true: the same), their text with special tokens, without. Texts are in
 * hexadecimal.
 * Decoding token by token has to give the same text.
 */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/tokenizer.h"

static int passed, failed;

static void
expect(bool ok, const char *file, int text, const char *what)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("%s, text %d: %s\n", file, text, what);
}

static cJSON *
read_json(fg_ctx *cx, fg_arena *a, const char *path)
{
    fg_str text;

    return fg_file_read(cx, a, path, (size_t)1 << 30, &text)
               ? cJSON_ParseWithLength(text.s, text.n)
               : NULL;
}

static fg_str
from_hex(fg_arena *a, const char *hex)
{
    size_t n = strlen(hex) / 2;
    char *out = fg_alloc(a, n + 1);

    for (size_t i = 0; i < n; i++)
        out[i] = (char)strtol((char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
    return (fg_str){out, n};
}

static bool
same_ids(const fg_ids *got, const cJSON *want)
{
    const cJSON *e;
    size_t i = 0;

    cJSON_ArrayForEach(e, want)
    {
        if (i >= got->n || got->v[i] != e->valueint)
            return false;
        i++;
    }
    return i == got->n;
}

static bool
is_text(fg_arena *a, fg_str got, const cJSON *want)
{
    return fg_str_same(got, from_hex(a, want->valuestring));
}

static fg_str
streamed(const fg_tokenizer *t, fg_arena *a, const fg_ids *ids, bool skip, bool *whole)
{
    fg_stream s;
    fg_text out = fg_text_new(a);

    fg_stream_init(&s, t, a, skip);
    for (size_t i = 0; i < ids->n; i++) {
        fg_str part = fg_stream_push(&s, ids->v[i]);
        *whole = *whole && fg_utf8_clean(a, part).s == part.s;
        fg_put_str(&out, part);
    }
    fg_put_str(&out, fg_stream_end(&s));
    return (fg_str){out.s, out.n};
}

static void
check_text(fg_ctx *cx, const fg_tokenizer *t, const char *file, int k, fg_str text,
           const cJSON *want)
{
    fg_arena *a = fg_arena_new(cx);
    fg_ids whole = {0}, bare = {0};
    const cJSON *ids = cJSON_GetArrayItem(want, 0), *ids2 = cJSON_GetArrayItem(want, 1);

    expect(fg_tokenizer_encode(t, cx, a, text, true, &whole) && same_ids(&whole, ids),
           file, k, "ids with the template");
    expect(fg_tokenizer_encode(t, cx, a, text, false, &bare) &&
               same_ids(&bare, cJSON_IsTrue(ids2) ? ids : ids2),
           file, k, "ids without the template");
    for (int skip = 0; skip < 2; skip++) {
        bool clean = true;
        fg_str once = fg_tokenizer_decode(t, a, whole.v, whole.n, skip);
        expect(is_text(a, once, cJSON_GetArrayItem(want, 2 + skip)), file, k,
               skip ? "text without special tokens" : "text");
        expect(fg_str_same(streamed(t, a, &whole, skip, &clean), once) && clean, file, k,
               skip ? "text without special tokens, token by token"
                    : "text, token by token");
    }
    fg_arena_free(a);
}

static void
check_file(const char *folder, const char *name, const cJSON *texts)
{
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);
    cJSON *want = read_json(cx, a, fg_format(a, "%s/%s.expected.json", folder, name));
    fg_tokenizer *t = fg_tokenizer_open(cx, fg_format(a, "%s/%s.json", folder, name));
    const cJSON *text = texts ? texts->child : NULL, *row;
    int k = 0;

    if (!t)
        printf("%s\n", fg_first_error(cx));
    expect(t && want, name, -1, "opens");
    cJSON_ArrayForEach(row, want)
    {
        if (!t || !text)
            break;
        check_text(cx, t, name, k++, from_hex(a, text->valuestring), row);
        text = text->next;
    }
    cJSON_Delete(want);
    fg_tokenizer_free(t);
    fg_ctx_free(cx);
}

int
main(int argc, char **argv)
{
    static const char tail[] = ".expected.json";
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);

    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        cJSON *texts = read_json(cx, a, fg_format(a, "%s/texts.json", argv[i]));
        for (struct dirent *e; d && (e = readdir(d));) {
            size_t n = strlen(e->d_name);
            if (n > sizeof tail && !strcmp(e->d_name + n + 1 - sizeof tail, tail))
                check_file(argv[i],
                           fg_format(a, "%.*s", (int)(n + 1 - sizeof tail), e->d_name),
                           texts);
        }
        cJSON_Delete(texts);
        if (d)
            closedir(d);
    }
    fg_ctx_free(cx);
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}
