/* normalize.c - what is done to the text before it is cut into pieces.
 *
 *     BertNormalizer   "Héllo\t世界"  ->  "hello  世  界 "
 *     Precompiled      a table that SentencePiece made: grapheme (else character) -> text
 */
#include "text/tok.h"

/* No honest normalizer makes a text this many times longer; a chain of replacements could
 * do so at every step. */
#define GROWTH 64

typedef enum {
    CLEAN = 1,
    CHINESE = 2,
    ACCENTS = 4,
    LOWER = 8,
} bert_flags;

struct fg_norm_step {
    bool (*run)(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out);
    fg_normal_form form;
    int flags; /* bert_flags; of Strip: 1 left, 2 right */
    fg_pattern pattern;
    fg_str text;         /* what is put in; the texts of Precompiled */
    const uint32_t *map; /* of Precompiled: a double array */
    size_t nmap;
};

/* ---- forms, case, marks ------------------------------------------------------------- */

static bool
run_form(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    *out = fg_utf8_normal(a, in, s->form);
    return true;
}

static bool
run_lower(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    fg_text t = fg_text_new(a);

    (void)s;
    for (size_t at = 0; at < in.n;)
        fg_put_lower(&t, fg_utf8_next(in, &at));
    *out = (fg_str){t.s, t.n};
    return true;
}

static fg_str
without(fg_arena *a, fg_str in, fg_char_test drop)
{
    fg_text t = fg_text_new(a);

    for (size_t at = 0; at < in.n;) {
        int32_t c = fg_utf8_next(in, &at);
        if (!drop(c))
            fg_put_char(&t, c);
    }
    return (fg_str){t.s, t.n};
}

static bool
run_accents(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    (void)s;
    *out = without(a, in, fg_char_mark);
    return true;
}

static bool
run_strip(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    size_t from = 0, to = in.n, at;

    (void)a;
    while ((s->flags & 1) && from < to) {
        at = from;
        if (!fg_char_space(fg_utf8_next(in, &at)))
            break;
        from = at;
    }
    while ((s->flags & 2) && to > from) {
        size_t last = at = fg_utf8_back(in, to);
        if (!fg_char_space(fg_utf8_next(in, &at)))
            break;
        to = last;
    }
    *out = (fg_str){in.s + from, to - from};
    return true;
}

/* ---- put in, put instead -------------------------------------------------------------- */

static bool
run_prepend(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    fg_text t = fg_text_new(a);

    if (in.n)
        fg_put_str(&t, s->text);
    fg_put_str(&t, in);
    *out = (fg_str){t.s, t.n};
    return true;
}

static bool
run_replace(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    fg_text t = fg_text_new(a);
    fg_match m = fg_match_new(a, &s->pattern);
    size_t done = 0;
    int rc;

    fg_match_text(&m, in);
    while ((rc = fg_match_next(&m)) > 0) {
        fg_put_str(&t, (fg_str){in.s + done, m.from - done});
        fg_put_str(&t, s->text);
        done = m.to;
    }
    fg_put_str(&t, (fg_str){in.s + done, in.n - done});
    *out = (fg_str){t.s, t.n};
    return rc == 0;
}

static bool
run_bytes(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    fg_text t = fg_text_new(a);

    (void)s;
    fg_put_bytes_as_chars(&t, in);
    *out = (fg_str){t.s, t.n};
    return true;
}

/* ---- BERT --------------------------------------------------------------------------- */

static bool
chinese(int32_t c)
{
    static const int32_t range[][2] = {
        {0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
        {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (c >= range[i][0] && c <= range[i][1])
            return true;
    return false;
}

static bool
run_bert(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    fg_text t = fg_text_new(a);

    for (size_t at = 0; at < in.n;) {
        int32_t c = fg_utf8_next(in, &at);
        bool blank = c == '\t' || c == '\n' || c == '\r';
        if (s->flags & CLEAN) {
            if (!c || c == 0xfffd || (!blank && fg_char_other(c)))
                continue;
            if (fg_char_space(c))
                c = ' ';
        }
        bool apart = (s->flags & CHINESE) && chinese(c);
        if (apart)
            fg_putc(&t, ' ');
        fg_put_char(&t, c);
        if (apart)
            fg_putc(&t, ' ');
    }
    *out = (fg_str){t.s, t.n};
    if (s->flags & ACCENTS)
        *out = without(a, fg_utf8_normal(a, *out, FG_NFD), fg_char_nonspacing);
    return !(s->flags & LOWER) || run_lower(s, a, *out, out);
}

/* ---- SentencePiece ------------------------------------------------------------------ */

/* Control characters go, separators and marks of direction become spaces. */
static bool
run_nmt(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    fg_text t = fg_text_new(a);

    (void)s;
    for (size_t at = 0; at < in.n;) {
        int32_t c = fg_utf8_next(in, &at);
        bool space = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 ||
                     (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 ||
                     c == 0x2581 || c == 0xfeff || c == 0xfffd;
        if (space)
            c = ' ';
        if ((c >= 1 && c < 32) || c == 0x7f || c == 0x8f || c == 0x9f)
            continue;
        fg_put_char(&t, c);
    }
    *out = (fg_str){t.s, t.n};
    return true;
}

/* Shortest key that the text begins with; its value is an offset into the texts. A unit
 * of the array holds: label in the low 8 bits, bit 8 a value hangs below, bits 10.. the
 * offset to the children, times 256 when bit 9 is set. */
static bool
lookup(const fg_norm_step *s, fg_str key, fg_str *to)
{
    uint64_t at = 0;
    uint32_t unit = s->nmap ? s->map[0] : 0;

#define CHILDREN(u) ((uint64_t)((u) >> 10) << (((u) & 0x200) >> 6))
    at ^= CHILDREN(unit);
    for (size_t i = 0; i < key.n && key.s[i]; i++) {
        at ^= (unsigned char)key.s[i];
        if (at >= s->nmap)
            return false;
        unit = s->map[at];
        if ((unit & 0x800000ffu) != (unsigned char)key.s[i])
            return false;
        at ^= CHILDREN(unit);
        if (!(unit & 0x100))
            continue;
        uint64_t from = at < s->nmap ? s->map[at] & 0x7fffffffu : UINT64_MAX;
        if (from >= s->text.n)
            return false;
        const char *end = memchr(s->text.s + from, 0, s->text.n - from);
        *to = (fg_str){s->text.s + from,
                       end ? (size_t)(end - s->text.s) - from : s->text.n - from};
        return true;
    }
#undef CHILDREN
    return false;
}

static bool
run_precompiled(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out)
{
    fg_text t = fg_text_new(a);
    fg_str to;

    for (size_t at = 0; at < in.n;) {
        size_t end = fg_utf8_grapheme(in, at);
        if (end - at < 6 && lookup(s, (fg_str){in.s + at, end - at}, &to)) {
            fg_put_str(&t, to);
            at = end;
        }
        while (at < end) {
            size_t from = at;
            fg_utf8_next(in, &at);
            fg_str c = {in.s + from, at - from};
            fg_put_str(&t, lookup(s, c, &to) ? to : c);
        }
    }
    *out = fg_utf8_clean(a, (fg_str){t.s, t.n});
    return true;
}

static fg_str
base64(fg_arena *a, fg_str in)
{
    unsigned char *out = fg_alloc(a, in.n / 4 * 3 + 4);
    size_t n = 0, bits = 0;
    uint32_t hold = 0;

    for (size_t i = 0; i < in.n; i++) {
        static const char digits[] =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *d = in.s[i] ? strchr(digits, in.s[i]) : NULL;
        if (!d)
            break;
        hold = hold << 6 | (uint32_t)(d - digits);
        if ((bits += 6) >= 8)
            out[n++] = (unsigned char)(hold >> (bits -= 8));
    }
    return (fg_str){(char *)out, n};
}

static bool
load_precompiled(fg_load *l, fg_norm_step *s, const cJSON *o)
{
    fg_str raw = base64(l->a, fg_json_text(l, o, "precompiled_charsmap"));
    uint32_t size = 0;

    s->run = run_precompiled;
    if (!raw.n) /* no map: nothing is replaced */
        return true;
    if (raw.n >= 4)
        memcpy(&size, raw.s, 4);
    if (raw.n < 4 || size > raw.n - 4 || size % 4)
        return fg_load_fail(l, "the precompiled map is cut off");
    s->map = fg_dup(l->a, raw.s + 4, size);
    s->nmap = size / 4;
    s->text = (fg_str){raw.s + 4 + size, raw.n - 4 - size};
    return true;
}

/* ---- loading ------------------------------------------------------------------------ */

static const struct {
    const char *type;
    bool (*run)(const fg_norm_step *s, fg_arena *a, fg_str in, fg_str *out);
    fg_normal_form form;
} kinds[] = {
    {"NFC", run_form, FG_NFC},
    {"NFD", run_form, FG_NFD},
    {"NFKC", run_form, FG_NFKC},
    {"NFKD", run_form, FG_NFKD},
    {"Lowercase", run_lower, 0},
    {"StripAccents", run_accents, 0},
    {"Strip", run_strip, 0},
    {"Prepend", run_prepend, 0},
    {"Replace", run_replace, 0},
    {"ByteLevel", run_bytes, 0},
    {"BertNormalizer", run_bert, 0},
    {"Nmt", run_nmt, 0},
    {"Precompiled", run_precompiled, 0},
};

static bool
load_step(fg_load *l, void *to, const cJSON *o, const char *type)
{
    fg_normalizer *n = to;
    fg_norm_step s = {0};
    bool lower = fg_json_flag(o, "lowercase", true);

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (!strcmp(kinds[k].type, type)) {
            s.run = kinds[k].run;
            s.form = kinds[k].form;
        }
    if (!s.run)
        return fg_load_fail(l, "normalizer \"%s\" is not supported", type);
    if (s.run == run_bert)
        s.flags = (fg_json_flag(o, "clean_text", true) ? CLEAN : 0) |
                  (fg_json_flag(o, "handle_chinese_chars", true) ? CHINESE : 0) |
                  (fg_json_flag(o, "strip_accents", lower) ? ACCENTS : 0) |
                  (lower ? LOWER : 0);
    if (s.run == run_strip)
        s.flags = (fg_json_flag(o, "strip_left", true) ? 1 : 0) |
                  (fg_json_flag(o, "strip_right", true) ? 2 : 0);
    if (s.run == run_prepend)
        s.text = fg_json_text(l, o, "prepend");
    if (s.run == run_replace) {
        s.text = fg_json_text(l, o, "content");
        if (!fg_pattern_load(l, &s.pattern,
                             cJSON_GetObjectItemCaseSensitive(o, "pattern")))
            return false;
    }
    if (s.run == run_precompiled && !load_precompiled(l, &s, o))
        return false;
    FG_PUSH(l->a, n->v, n->n, n->cap) = s;
    return true;
}

bool
fg_normalizer_load(fg_load *l, fg_normalizer *n, const cJSON *o)
{
    return fg_load_steps(l, o, "normalizer", "normalizers", load_step, n);
}

bool
fg_normalize(const fg_normalizer *n, fg_arena *a, fg_str in, fg_str *out)
{
    *out = in;
    for (size_t i = 0; i < n->n; i++)
        if (!n->v[i].run(&n->v[i], a, *out, out) || out->n / GROWTH > in.n + 1024)
            return false;
    return true;
}
