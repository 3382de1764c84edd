/* tok.h - inside the tokenizer: its stages, and what loading them shares. */
#ifndef FG_TEXT_TOK_H
#define FG_TEXT_TOK_H

#include <cjson/cJSON.h>

#include "text/map.h"
#include "text/tokenizer.h"

/* ---- loading ---------------------------------------------------------------------- */

typedef struct fg_regex fg_regex;

typedef struct fg_load {
    fg_ctx *cx;
    fg_arena *a; /* the tokenizer's */
    const char *name;
    fg_regex **regexes; /* all that must be freed */
} fg_load;

/* "FILE: text"; false. */
bool fg_load_fail(fg_load *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Member of an object as well-formed text; n = 0 when missing or no string. */
fg_str fg_json_text(const fg_load *l, const cJSON *o, const char *key);
bool fg_json_flag(const cJSON *o, const char *key, bool missing);
int64_t fg_json_int(const cJSON *o, const char *key, int64_t missing);
fg_str fg_json_str(const fg_load *l, const cJSON *string);

/* Stages are chosen by their "type"; a Sequence is its members one after the other. The
 * handler gets each that is no sequence. */
typedef bool (*fg_load_step)(fg_load *l, void *to, const cJSON *o, const char *type);
bool fg_load_steps(fg_load *l, const cJSON *o, const char *what, const char *members,
                   fg_load_step step, void *to);

/* ---- patterns --------------------------------------------------------------------- */

/* A regular expression (PCRE2), or a literal text. */
typedef struct fg_pattern {
    fg_regex *re; /* NULL: text */
    fg_str text;
} fg_pattern;
/* As PCRE2 writes it. */
fg_str fg_pattern_translate(fg_arena *a, fg_str pattern);
bool fg_regex_valid(const char *text); /* PCRE2 takes it */
bool fg_pattern_compile(fg_load *l, fg_pattern *p, fg_str regex);
/* {"String": ".."} or {"Regex": ".."} */
bool fg_pattern_load(fg_load *l, fg_pattern *p, const cJSON *o);
void fg_regex_free_all(fg_regex *list);

/* Walks the matches of one text after the other. */
typedef struct fg_match {
    const fg_pattern *p;
    fg_str text;
    void *data;                /* PCRE2's */
    size_t at, from, to, last; /* last: where the match before ended */
} fg_match;
fg_match fg_match_new(fg_arena *a, const fg_pattern *p);
void fg_match_text(fg_match *m, fg_str text);
/* 1 and [from, to); 0 at the end; -1: the step limit was reached. */
int fg_match_next(fg_match *m);

/* ---- pieces of a text --------------------------------------------------------------- */

typedef struct fg_piece {
    fg_str t;
    int32_t id; /* an added token; -1: text still to be encoded */
    bool first; /* begins where the whole text begins */
} fg_piece;

typedef struct fg_pieces {
    fg_arena *a;
    fg_piece *v;
    size_t n, cap;
} fg_pieces;
void fg_piece_add(fg_pieces *p, fg_str t, int32_t id, bool first);

/* The byte-level alphabet: a printable character for every byte. */
void fg_put_bytes_as_chars(fg_text *t, fg_str s);
int fg_byte_of_char(int32_t c); /* -1: not in the alphabet */
/* "<0x0A>" and its like; -1: another token. */
int fg_byte_of_token(fg_str token);

/* ---- stages ----------------------------------------------------------------------- */

typedef struct fg_norm_step fg_norm_step;
typedef struct fg_normalizer {
    fg_norm_step *v;
    size_t n, cap;
} fg_normalizer;
bool fg_normalizer_load(fg_load *l, fg_normalizer *n, const cJSON *o);
/* False when a pattern ran into its limit. */
bool fg_normalize(const fg_normalizer *n, fg_arena *a, fg_str in, fg_str *out);

typedef struct fg_split_step fg_split_step;
typedef struct fg_pretokenizer {
    fg_split_step *v;
    size_t n, cap;
} fg_pretokenizer;
bool fg_pretokenizer_load(fg_load *l, fg_pretokenizer *p, const cJSON *o);
bool fg_pretokenize(const fg_pretokenizer *p, fg_pieces *pieces);

typedef struct fg_vocab {
    fg_strmap ids;
    fg_str *content;   /* by id; n = 0: none */
    int32_t n;         /* one more than the largest id */
    int32_t byte[256]; /* ids of "<0xNN>"; -1: none */
} fg_vocab;
/* From {"token": id, ..}; ids below 2^24. */
bool fg_vocab_load(fg_load *l, fg_vocab *v, const cJSON *o);
void fg_vocab_find_bytes(fg_vocab *v);
/* Appends the bytes of s as tokens, when every one has its own. */
bool fg_vocab_spell(const fg_vocab *v, fg_arena *a, fg_str s, fg_ids *out);

/* Buffers of one call: arrays that a model grows and uses again. */
typedef struct fg_work {
    fg_arena *a;
    void *v[3];
    size_t cap[3];
} fg_work;

typedef struct fg_model fg_model;
struct fg_model {
    fg_vocab vocab;
    /* Appends the ids of a piece; false when it cannot be spelled. */
    bool (*encode)(const fg_model *m, fg_work *w, fg_str piece, fg_ids *out);
    fg_str unk_token;
    int32_t unk; /* -1: none */
    bool byte_fallback;
};
bool fg_model_load(fg_load *l, fg_model **out, const cJSON *o);
bool fg_bpe_load(fg_load *l, fg_model **out, const cJSON *o);
bool fg_wordpiece_load(fg_load *l, fg_model **out, const cJSON *o);
bool fg_unigram_load(fg_load *l, fg_model **out, const cJSON *o);
void fg_id_add(fg_ids *ids, fg_arena *a, int32_t id);

typedef struct fg_decode_step fg_decode_step;
typedef struct fg_decoder {
    fg_decode_step *v;
    size_t n, cap;
} fg_decoder;
bool fg_decoder_load(fg_load *l, fg_decoder *d, const cJSON *o);
/* Tokens as the vocabulary spells them, to text. */
fg_str fg_decode_tokens(const fg_decoder *d, fg_arena *a, fg_str *token, size_t n);

/* ---- the whole -------------------------------------------------------------------- */

typedef struct fg_added {
    fg_str content;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} fg_added;

typedef struct fg_added_set {
    fg_added *v;
    size_t n, cap;
    fg_trie raw, normal; /* matched before and after the normalizer; values: index in v */
    fg_intmap by_id;
} fg_added_set;
bool fg_added_load(fg_load *l, fg_added_set *s, const cJSON *list,
                   const fg_normalizer *n);
/* Cuts each piece of text at the tokens of `trie`. */
void fg_added_split(const fg_added_set *s, const fg_trie *trie, fg_pieces *in,
                    fg_pieces *out);

struct fg_tokenizer {
    fg_ctx *cx;
    fg_arena *a;
    fg_regex *regexes;
    fg_normalizer normalizer;
    fg_pretokenizer pretokenizer;
    fg_model *model;
    fg_added_set added;
    fg_ids before, after; /* the template around a text */
    fg_decoder decoder;
    int32_t size;
};

#endif
