/* unicode.h - strings with a length, UTF-8, and what a character is.
 *
 * Text is made valid once, at the door (fg_utf8_clean); everything behind may walk it
 * without checking.
 */
#ifndef FG_TEXT_UNICODE_H
#define FG_TEXT_UNICODE_H

#include "ir/base.h"

typedef struct fg_str { /* not terminated */
    const char *s;
    size_t n;
} fg_str;

static inline fg_str
fg_str_of(const char *s)
{
    return (fg_str){s, strlen(s)};
}

static inline bool
fg_str_same(fg_str a, fg_str b)
{
    return a.n == b.n && (!a.n || !memcmp(a.s, b.s, a.n));
}

static inline bool
fg_str_begins(fg_str s, fg_str with)
{
    return s.n >= with.n && (!with.n || !memcmp(s.s, with.s, with.n));
}

void fg_put_str(fg_text *t, fg_str s);
void fg_put_char(fg_text *t, int32_t c); /* as UTF-8 */

/* Length of the well-formed character at s (n > 0 bytes), or minus the bytes of the
 * ill-formed piece that stands for one U+FFFD (the maximal subpart). */
int fg_utf8_length(const char *s, size_t n);
/* s itself when well-formed, else a copy with U+FFFD for what is not. */
fg_str fg_utf8_clean(fg_arena *a, fg_str s);
/* The character at *at of well-formed text; moves *at behind it. */
int32_t fg_utf8_next(fg_str s, size_t *at);
/* Where the character before `at` begins; at > 0. */
size_t fg_utf8_back(fg_str s, size_t at);

typedef bool (*fg_char_test)(int32_t c);
bool fg_char_space(int32_t c);       /* White_Space */
bool fg_char_word(int32_t c);        /* letters, marks, decimal digits, connectors */
bool fg_char_numeric(int32_t c);     /* N* */
bool fg_char_punctuation(int32_t c); /* P*, and all of ASCII's */
bool fg_char_mark(int32_t c);        /* M* */
bool fg_char_nonspacing(int32_t c);  /* Mn */
bool fg_char_other(int32_t c);       /* C* */

typedef enum { FG_NFC, FG_NFD, FG_NFKC, FG_NFKD } fg_normal_form;
fg_str fg_utf8_normal(fg_arena *a, fg_str s, fg_normal_form form);
void fg_put_lower(fg_text *t, int32_t c);
void fg_put_upper(fg_text *t, int32_t c);
/* End of the grapheme cluster that begins at `at`. */
size_t fg_utf8_grapheme(fg_str s, size_t at);

#endif
