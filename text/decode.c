/* decode.c - tokens back to text, and text that grows token by token.
 *
 *     ByteLevel   "Ġcaf" "Ã©"          ->  " café"
 *     WordPiece   "play" "##ing" "."   ->  "playing."
 */
#include "text/tok.h"

typedef struct tokens {
    fg_arena *a;
    fg_str *v;
    size_t n;
} tokens;

struct fg_decode_step {
    void (*run)(const fg_decode_step *s, tokens *t);
    fg_pattern pattern;
    fg_str text; /* prefix, suffix, replacement, .. */
    bool cleanup, keep_first;
    size_t start, stop;
};

/* ---- bytes -------------------------------------------------------------------------- */

static void
one_token(tokens *t, fg_text text)
{
    t->v[0] = (fg_str){text.s, text.n};
    t->n = 1;
}

/* A token with characters outside the alphabet was added: it stands as it is. */
static void
run_bytes(const fg_decode_step *s, tokens *t)
{
    fg_text out = fg_text_new(t->a);

    (void)s;
    for (size_t i = 0; i < t->n; i++) {
        size_t start = out.n, at = 0;
        int byte = 0;
        while (at < t->v[i].n && byte >= 0)
            if ((byte = fg_byte_of_char(fg_utf8_next(t->v[i], &at))) >= 0)
                fg_putc(&out, (char)byte);
        if (byte < 0) {
            out.n = start;
            fg_put_str(&out, t->v[i]);
        }
    }
    if (t->n)
        one_token(t, out);
}

/* A run of byte tokens is text if it is well-formed, else U+FFFD for each byte. */
static void
run_fallback(const fg_decode_step *s, tokens *t)
{
    size_t n = 0;

    (void)s;
    for (size_t i = 0; i < t->n;) {
        fg_text run = fg_text_new(t->a);
        size_t from = i;
        for (int byte; i < t->n && (byte = fg_byte_of_token(t->v[i])) >= 0; i++)
            fg_putc(&run, (char)byte);
        if (i == from) {
            t->v[n++] = t->v[i++];
            continue;
        }
        fg_str text = {run.s, run.n};
        if (fg_utf8_clean(t->a, text).s != text.s) {
            run.n = 0;
            for (size_t k = from; k < i; k++)
                fg_put_char(&run, 0xfffd);
            text = (fg_str){run.s, run.n};
        }
        t->v[n++] = text;
    }
    t->n = n;
}

/* ---- characters ------------------------------------------------------------------------ */

static void
replace_in(fg_arena *a, fg_str *v, const fg_pattern *p, fg_str with)
{
    fg_text out = fg_text_new(a);
    fg_match m = fg_match_new(a, p);
    size_t done = 0;

    fg_match_text(&m, *v);
    while (fg_match_next(&m) > 0) {
        fg_put_str(&out, (fg_str){v->s + done, m.from - done});
        fg_put_str(&out, with);
        done = m.to;
    }
    fg_put_str(&out, (fg_str){v->s + done, v->n - done});
    *v = (fg_str){out.s, out.n};
}

static void
run_replace(const fg_decode_step *s, tokens *t)
{
    for (size_t i = 0; i < t->n; i++)
        replace_in(t->a, &t->v[i], &s->pattern, s->text);
}

static void
run_fuse(const fg_decode_step *s, tokens *t)
{
    fg_text out = fg_text_new(t->a);

    (void)s;
    for (size_t i = 0; i < t->n; i++)
        fg_put_str(&out, t->v[i]);
    if (t->n)
        one_token(t, out);
}

static void
run_strip(const fg_decode_step *s, tokens *t)
{
    for (size_t i = 0; i < t->n; i++) {
        fg_str x = t->v[i];
        for (size_t k = 0; k < s->start && s->text.n && fg_str_begins(x, s->text); k++)
            x = (fg_str){x.s + s->text.n, x.n - s->text.n};
        for (size_t k = 0; k < s->stop && s->text.n && x.n >= s->text.n; k++) {
            if (memcmp(x.s + x.n - s->text.n, s->text.s, s->text.n))
                break;
            x.n -= s->text.n;
        }
        t->v[i] = x;
    }
}

/* ---- spaces between words --------------------------------------------------------------- */

static void
run_metaspace(const fg_decode_step *s, tokens *t)
{
    for (size_t i = 0; i < t->n; i++)
        replace_in(t->a, &t->v[i], &s->pattern, fg_str_of(i || s->keep_first ? " " : ""));
}

/* English as it is written: no space before a mark or a shortened word. */
static void
clean_up(fg_arena *a, fg_str *v)
{
    static const char *const rule[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

    for (size_t k = 0; k < sizeof rule / sizeof *rule; k++) {
        fg_pattern p = {.text = fg_str_of(rule[k][0])};
        replace_in(a, v, &p, fg_str_of(rule[k][1]));
    }
}

static void
run_wordpiece(const fg_decode_step *s, tokens *t)
{
    for (size_t i = 0; i < t->n; i++) {
        fg_str x = t->v[i];
        fg_text out = fg_text_new(t->a);
        bool inside = i && fg_str_begins(x, s->text);
        if (i && !inside)
            fg_putc(&out, ' ');
        size_t skip = inside ? s->text.n : 0;
        fg_put_str(&out, (fg_str){x.s + skip, x.n - skip});
        t->v[i] = (fg_str){out.s, out.n};
        if (s->cleanup)
            clean_up(t->a, &t->v[i]);
    }
}

static void
run_suffix(const fg_decode_step *s, tokens *t)
{
    for (size_t i = 0; i < t->n; i++)
        replace_in(t->a, &t->v[i], &s->pattern, fg_str_of(i + 1 < t->n ? " " : ""));
}

/* ---- loading ------------------------------------------------------------------------ */

static const struct {
    const char *type;
    void (*run)(const fg_decode_step *s, tokens *t);
} kinds[] = {
    {"ByteLevel", run_bytes},     {"ByteFallback", run_fallback},
    {"Replace", run_replace},     {"Fuse", run_fuse},
    {"Strip", run_strip},         {"Metaspace", run_metaspace},
    {"WordPiece", run_wordpiece}, {"BPEDecoder", run_suffix},
};

static bool
load_step(fg_load *l, void *to, const cJSON *o, const char *type)
{
    fg_decoder *d = to;
    fg_decode_step s = {.cleanup = fg_json_flag(o, "cleanup", true),
                        .text = fg_json_text(l, o, "content"),
                        .start = (size_t)fg_json_int(o, "start", 0),
                        .stop = (size_t)fg_json_int(o, "stop", 0)};

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (!strcmp(kinds[k].type, type))
            s.run = kinds[k].run;
    if (!s.run)
        return fg_load_fail(l, "decoder \"%.100s\" is not supported", type);
    if (s.run == run_metaspace) {
        fg_str scheme = fg_json_text(l, o, "prepend_scheme");
        s.pattern.text = fg_json_text(l, o, "replacement");
        s.keep_first = scheme.n ? !strcmp(scheme.s, "never")
                                : !fg_json_flag(o, "add_prefix_space", true);
    }
    if (s.run == run_wordpiece)
        s.text = fg_json_text(l, o, "prefix");
    if (s.run == run_suffix)
        s.pattern.text = fg_json_text(l, o, "suffix");
    if (s.run == run_replace &&
        !fg_pattern_load(l, &s.pattern, cJSON_GetObjectItemCaseSensitive(o, "pattern")))
        return false;
    FG_PUSH(l->a, d->v, d->n, d->cap) = s;
    return true;
}

bool
fg_decoder_load(fg_load *l, fg_decoder *d, const cJSON *o)
{
    return fg_load_steps(l, o, "decoder", "decoders", load_step, d);
}

fg_str
fg_decode_tokens(const fg_decoder *d, fg_arena *a, fg_str *token, size_t n)
{
    tokens t = {a, token, n};
    fg_text out = fg_text_new(a);

    for (size_t i = 0; i < d->n; i++)
        d->v[i].run(&d->v[i], &t);
    for (size_t i = 0; i < t.n; i++) {
        if (i && !d->n)
            fg_putc(&out, ' ');
        fg_put_str(&out, t.v[i]);
    }
    return fg_utf8_clean(a, (fg_str){out.s, out.n});
}
