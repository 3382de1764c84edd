/* unicode.c - UTF-8 by hand; the character database is utf8proc's. */
#include "text/unicode.h"

#include <stdlib.h>
#include <utf8proc.h>

/* ---- text ------------------------------------------------------------------------- */

void
fg_put_str(fg_text *t, fg_str s)
{
    if (t->n + s.n + 1 > t->cap) {
        size_t cap = (t->n + s.n + 1) * 2;
        char *grown = fg_alloc(t->a, cap);
        memcpy(grown, t->s, t->n);
        t->s = grown;
        t->cap = cap;
    }
    if (s.n)
        memcpy(t->s + t->n, s.s, s.n);
    t->n += s.n;
    t->s[t->n] = '\0';
}

void
fg_put_char(fg_text *t, int32_t c)
{
    utf8proc_uint8_t b[4];
    fg_put_str(t, (fg_str){(char *)b, (size_t)utf8proc_encode_char(c, b)});
}

/* ---- UTF-8 ------------------------------------------------------------------------ */

/* The second byte decides what is overlong, a surrogate or beyond U+10FFFF, so one
 * range per lead byte is the whole grammar. */
int
fg_utf8_length(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    int want = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    unsigned low = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : 0xbf;

    if (!want || u[0] > 0xf4)
        return -1;
    for (int i = 1; i < want; i++) {
        if ((size_t)i >= n || u[i] < low || u[i] > high)
            return -i;
        low = 0x80;
        high = 0xbf;
    }
    return want;
}

fg_str
fg_utf8_clean(fg_arena *a, fg_str s)
{
    size_t at = 0, from = 0;
    fg_text t = {0};

    while (at < s.n) {
        int n = (unsigned char)s.s[at] < 0x80 ? 1 : fg_utf8_length(s.s + at, s.n - at);
        if (n > 0) {
            at += (size_t)n;
            continue;
        }
        if (!t.a)
            t = fg_text_new(a);
        fg_put_str(&t, (fg_str){s.s + from, at - from});
        fg_put_char(&t, 0xfffd);
        from = at += (size_t)-n;
    }
    if (!t.a)
        return s;
    fg_put_str(&t, (fg_str){s.s + from, at - from});
    return (fg_str){t.s, t.n};
}

int32_t
fg_utf8_next(fg_str s, size_t *at)
{
    const unsigned char *u = (const unsigned char *)s.s + *at;

    if (u[0] < 0x80) {
        *at += 1;
        return u[0];
    }
    if (u[0] < 0xe0) {
        *at += 2;
        return (u[0] & 0x1f) << 6 | (u[1] & 0x3f);
    }
    if (u[0] < 0xf0) {
        *at += 3;
        return (u[0] & 0x0f) << 12 | (u[1] & 0x3f) << 6 | (u[2] & 0x3f);
    }
    *at += 4;
    return (u[0] & 0x07) << 18 | (u[1] & 0x3f) << 12 | (u[2] & 0x3f) << 6 | (u[3] & 0x3f);
}

size_t
fg_utf8_back(fg_str s, size_t at)
{
    do
        at--;
    while (at && ((unsigned char)s.s[at] & 0xc0) == 0x80);
    return at;
}

/* ---- characters ------------------------------------------------------------------- */

static bool
between(int32_t c, utf8proc_category_t first, utf8proc_category_t last)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k >= first && k <= last;
}

bool
fg_char_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 ||
           (c > 0x7f && between(c, UTF8PROC_CATEGORY_ZS, UTF8PROC_CATEGORY_ZP));
}

bool
fg_char_word(int32_t c)
{
    return between(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_NL) ||
           utf8proc_category(c) == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d ||
           (c >= 0x24b6 && c <= 0x24e9); /* circled letters are alphabetic symbols */
}

bool
fg_char_numeric(int32_t c)
{
    return between(c, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO);
}

bool
fg_char_punctuation(int32_t c)
{
    if (c < 0x80)
        return c > ' ' && c < 0x7f &&
               !between(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_NO);
    return between(c, UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO);
}

bool
fg_char_mark(int32_t c)
{
    return between(c, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME);
}

bool
fg_char_nonspacing(int32_t c)
{
    return utf8proc_category(c) == UTF8PROC_CATEGORY_MN;
}

bool
fg_char_other(int32_t c)
{
    return between(c, UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CO);
}

/* ---- forms ------------------------------------------------------------------------ */

static bool
ascii(fg_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.s[i] >= 0x80)
            return false;
    return true;
}

fg_str
fg_utf8_normal(fg_arena *a, fg_str s, fg_normal_form form)
{
    static const int options[] = {
        UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };

    if (ascii(s))
        return s;
    utf8proc_uint8_t *out = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)s.s, (utf8proc_ssize_t)s.n, &out,
                     (utf8proc_option_t)options[form]);
    if (n < 0)
        fg_raise_memory(fg_arena_ctx(a)); /* the text is valid: nothing else can fail */
    char *copy = fg_dup(a, out, (size_t)n + 1);
    free(out);
    return (fg_str){copy, (size_t)n};
}

/* The only lower case of two characters is that of the dotted capital I. */
void
fg_put_lower(fg_text *t, int32_t c)
{
    if (c == 0x130) {
        fg_put_char(t, 'i');
        fg_put_char(t, 0x307);
    } else
        fg_put_char(t, utf8proc_tolower(c));
}

/* The common upper case of two characters is that of the sharp s. */
void
fg_put_upper(fg_text *t, int32_t c)
{
    if (c == 0xdf)
        fg_puts(t, "SS");
    else
        fg_put_char(t, utf8proc_toupper(c));
}

size_t
fg_utf8_grapheme(fg_str s, size_t at)
{
    utf8proc_int32_t state = 0;
    int32_t last = fg_utf8_next(s, &at);

    while (at < s.n) {
        size_t next = at;
        int32_t c = fg_utf8_next(s, &next);
        if (utf8proc_grapheme_break_stateful(last, c, &state))
            break;
        last = c;
        at = next;
    }
    return at;
}
