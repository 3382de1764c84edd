/* tokenizer.h - text to token numbers and back, by a Hugging Face tokenizer.json.
 *
 *     text -> added tokens cut out -> normalizer -> pre-tokenizer -> model -> template
 *
 * Models: BPE (byte-level, with byte fallback, plain), WordPiece, Unigram, WordLevel.
 * A tokenizer is immutable and may be shared between threads; calls take their memory from
 * the arena handed in.
 */
#ifndef FG_TEXT_TOKENIZER_H
#define FG_TEXT_TOKENIZER_H

#include "text/unicode.h"

typedef struct fg_tokenizer fg_tokenizer;

typedef struct fg_ids {
    int32_t *v;
    size_t n, cap;
} fg_ids;

/* NULL with a diagnostic. `name` is what messages call the file. */
fg_tokenizer *fg_tokenizer_open(fg_ctx *cx, const char *path);
fg_tokenizer *fg_tokenizer_parse(fg_ctx *cx, const char *name, fg_str json);
void fg_tokenizer_free(fg_tokenizer *t); /* takes NULL */

/* A whole file of at most `most` bytes; false with a diagnostic. */
bool fg_file_read(fg_ctx *cx, fg_arena *a, const char *path, size_t most, fg_str *out);

/* One more than the largest token number. */
int32_t fg_tokenizer_size(const fg_tokenizer *t);
/* Number of the token with exactly this content; -1. */
int32_t fg_tokenizer_id(const fg_tokenizer *t, const char *content);
/* Content as the vocabulary spells it; n = 0 when there is no such token. */
fg_str fg_tokenizer_content(const fg_tokenizer *t, int32_t id);
bool fg_tokenizer_special(const fg_tokenizer *t, int32_t id);

/* Ill-formed UTF-8 counts as U+FFFD. `wrap`: put what the post-processor's template puts
 * around a text. False with a diagnostic when the vocabulary cannot spell the text or a
 * pattern runs into its step limit. */
bool fg_tokenizer_encode(const fg_tokenizer *t, fg_ctx *cx, fg_arena *a, fg_str text,
                         bool wrap, fg_ids *out);
/* Well-formed UTF-8, terminated. `skip`: leave special tokens out. */
fg_str fg_tokenizer_decode(const fg_tokenizer *t, fg_arena *a, const int32_t *ids,
                           size_t n, bool skip);

/* Decoding token by token: what comes out is never part of a character, and all pieces
 * together are what decoding at once gives. */
typedef struct fg_stream {
    const fg_tokenizer *t;
    fg_arena *a; /* of the ids still needed */
    fg_arena *scratch;
    fg_ids ids;
    size_t shown, sent; /* ids whose text is complete; bytes of the window's text sent */
    size_t window;      /* first id that is decoded again */
    char *text;         /* of the last piece */
    size_t cap;
    bool skip;
} fg_stream;
void fg_stream_init(fg_stream *s, const fg_tokenizer *t, fg_arena *a, bool skip);
/* Text that became certain; valid until the next call. */
fg_str fg_stream_push(fg_stream *s, int32_t id);
fg_str fg_stream_end(fg_stream *s);

#endif
