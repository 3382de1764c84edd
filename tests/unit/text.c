/* text.c - choosing tokens, decoding them one by one, and tokenizer files that lie. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/sample.h"
#include "text/tokenizer.h"
#include "tests/unit/expect.h"

/* ---- sampling ------------------------------------------------------------------------- */

enum { VOCAB = 6, DRAWS = 100000 };

static fg_candidate candidate[VOCAB];
static uint8_t seen[VOCAB];

static fg_sampler
sampler(fg_sampling o)
{
    fg_sampler s;

    memset(seen, 0, sizeof seen);
    fg_sampler_init(&s, &o, VOCAB, candidate, seen);
    return s;
}

static fg_sampling
defaults(double temperature)
{
    fg_sampling o;

    fg_sampling_init(&o);
    o.temperature = temperature;
    return o;
}

/* Logits of probabilities, in no order. */
static const double want[VOCAB] = {0.05, 0.4, 0.1, 0.25, 0.0, 0.2};

static const float *
logits(void)
{
    static float v[VOCAB];

    for (int i = 0; i < VOCAB; i++)
        v[i] = want[i] > 0 ? (float)log(want[i]) + 3 : -INFINITY;
    return v;
}

/* Draws come out as often as `p` says, within five standard deviations. */
static void
check_draws(fg_sampling o, const double *p, const char *what)
{
    fg_sampler s = sampler(o);
    int count[VOCAB] = {0};
    bool ok = true;

    for (int i = 0; i < DRAWS; i++)
        count[fg_sampler_pick(&s, logits())]++;
    for (int i = 0; i < VOCAB; i++)
        ok = ok &&
             fabs(count[i] - DRAWS * p[i]) <= 5 * sqrt(DRAWS * p[i] * (1 - p[i])) + 1e-9;
    holds(ok, what);
}

static void
test_draws(void)
{
    fg_sampling o = defaults(1);
    double sum = 0, p[VOCAB];

    check_draws(o, want, "temperature 1 draws as the logits say");
    for (int i = 0; i < VOCAB; i++)
        sum += p[i] = want[i] * want[i];
    for (int i = 0; i < VOCAB; i++)
        p[i] /= sum;
    check_draws(defaults(0.5), p, "temperature 0.5 squares probabilities");
    o.top_k = 2;
    check_draws(o, (double[]){0, 0.4 / 0.65, 0, 0.25 / 0.65, 0, 0}, "top-k");
    o = defaults(1);
    o.top_p = 0.7; /* 0.4 + 0.25 is less */
    check_draws(o, (double[]){0, 0.4 / 0.85, 0, 0.25 / 0.85, 0, 0.2 / 0.85}, "top-p");
    o = defaults(1);
    o.min_p = 0.24; /* of 0.4: 0.096 */
    check_draws(o, (double[]){0, 0.4 / 0.95, 0.1 / 0.95, 0.25 / 0.95, 0, 0.2 / 0.95},
                "min-p");
    o = defaults(1);
    o.top_k = 3;
    o.top_p = 0.5; /* of the three: 0.47, 0.29, 0.24 */
    check_draws(o, (double[]){0, 0.4 / 0.65, 0, 0.25 / 0.65, 0, 0}, "top-k, then top-p");
}

static void
test_choice(void)
{
    fg_sampler s = sampler(defaults(0));
    float tie[VOCAB] = {1, 2, 2, NAN, -1, 2}, none[VOCAB];

    holds(fg_sampler_pick(&s, logits()) == 1, "greedy takes the likeliest");
    holds(fg_sampler_pick(&s, tie) == 1, "of equals the first; NaN is nothing");
    for (int i = 0; i < VOCAB; i++)
        none[i] = NAN;
    holds(fg_sampler_pick(&s, none) < 0, "no number: no token");
    s = sampler(defaults(1));
    holds(fg_sampler_pick(&s, none) < 0, "no number: no token, drawing too");
    fg_sampling o = defaults(0);
    o.repetition_penalty = 4;
    s = sampler(o);
    fg_sampler_seen(&s, 1);
    fg_sampler_seen(&s, -7);
    fg_sampler_seen(&s, VOCAB);
    holds(fg_sampler_pick(&s, logits()) == 3, "the penalty falls on what was seen");
    fg_sampler_seen(&s, 4);
    float below[VOCAB] = {-9, -3, -9, -9, -1, -9};
    holds(fg_sampler_pick(&s, below) == 4, "a negative logit is multiplied");
}

static void
test_seed(void)
{
    fg_sampling o = defaults(1);
    int first[20], differ = 0;

    for (int round = 0; round < 3; round++) {
        o.seed = round < 2 ? 7 : 8;
        fg_sampler s = sampler(o);
        bool same = true;
        for (int i = 0; i < 20; i++) {
            int id = fg_sampler_pick(&s, logits());
            same = same && (!round || id == first[i]);
            first[i] = round ? first[i] : id;
        }
        differ += round == 2 && !same;
        holds(round == 2 || same, "the same seed draws the same tokens");
    }
    holds(differ, "another seed draws others");
    uint64_t state = 0;
    holds(fg_random_next(&state) == 0xe220a8397b1dcdafu &&
              fg_random_next(&state) == 0x6e789e6aa1b965f4u,
          "the generator's first numbers are the published ones");
}

/* The prefilter before sorting must not change what top-p keeps. */
static void
test_nucleus(void)
{
    enum { N = 5000 };
    static fg_candidate v[N];
    static uint8_t flag[N];
    static float x[N];
    uint64_t state = 5;
    bool ok = true;

    for (int round = 0; round < 20; round++) {
        fg_sampling o = defaults(0.7);
        fg_sampler s;
        double total = 0, sum = 0;
        o.top_p = 0.05 + 0.94 * fg_random_unit(&state);
        for (int i = 0; i < N; i++)
            x[i] = (float)(fg_random_unit(&state) * 12);
        fg_sampler_init(&s, &o, N, v, flag);
        int n = fg_sampler_candidates(&s, x);
        for (int i = 0; i < N; i++)
            total += exp(x[i] / 0.7);
        for (int i = 0; i < n; i++)
            sum += exp((double)v[i].logit / 0.7);
        double without_last = sum - exp((double)v[n - 1].logit / 0.7);
        ok = ok && sum >= o.top_p * total * (1 - 1e-9) && without_last < o.top_p * total;
        for (int i = 1; i < n; i++)
            ok = ok && v[i - 1].logit >= v[i].logit;
    }
    holds(ok, "the nucleus is the smallest one, likeliest first");
}

/* ---- tokenizer files ------------------------------------------------------------------ */

static fg_tokenizer *
parse(fg_ctx *cx, const char *json)
{
    return fg_tokenizer_parse(cx, "t.json", fg_str_of(json));
}

static void
refuse(const char *json, const char *message)
{
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_tokenizer *t = parse(cx, json);
    const char *got = fg_first_error(cx);

    holds(!t && strstr(got, message) && !strchr(got, '\n'), message);
    if (t || !strstr(got, message))
        printf("  says \"%s\"\n", got);
    fg_tokenizer_free(t);
    fg_ctx_free(cx);
}

#define WORDS                                                                            \
    "\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0,\"[UNK]\":1},\"unk_token\":"   \
    "\"[UNK]\"}"

static void
test_hostile(void)
{
    refuse("", "not a JSON object");
    refuse("[1, 2]", "not a JSON object");
    refuse("{}", "is this a tokenizer.json?");
    refuse("{\"model\":{\"type\":\"Tape\"}}", "model \"Tape\" is not supported");
    refuse("{\"model\":{\"type\":\"BPE\"}}", "no vocabulary");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}", "token \"a\"");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1e300}}}", "token \"a\"");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"b\"}}}", "token \"a\"");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
           "merge 0");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[7]}}",
           "merge 0");
    refuse("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"b\"]]}}", "token 0");
    refuse("{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1]],\"unk_id\":5}}",
           "unknown");
    refuse("{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAAIA=="
           "\"}," WORDS "}",
           "cut off");
    refuse("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},"
           "\"content\":\"\"}," WORDS "}",
           "pattern \"(\"");
    refuse("{\"normalizer\":{\"type\":\"Magic\"}," WORDS "}", "normalizer \"Magic\"");
    refuse("{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":7}]}"
           "," WORDS "}",
           "pre-tokenizer without a type");
    refuse("{\"decoder\":{\"type\":\"CTC\"}," WORDS "}", "decoder \"CTC\"");
    refuse("{\"added_tokens\":[{\"content\":\"x\",\"id\":-4}]," WORDS "}", "added token");
    refuse("{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
           "\"SpecialToken\":{\"id\":"
           "\"s\"}}]}," WORDS "}",
           "special token");
}

/* A pattern that backtracks without end, and replacements that double the text. */
static void
test_bounds(void)
{
    static const char slow[] =
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a|aa)+[bc]\"},"
        "\"behavior\":\"Isolated\"}," WORDS "}";
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);
    fg_text json = fg_text_new(a), text = fg_text_new(a);
    fg_ids ids = {0};
    fg_tokenizer *t = parse(cx, slow);

    for (int i = 0; i < 3000; i++)
        fg_putc(&text, 'a');
    holds(t && !fg_tokenizer_encode(t, cx, a, (fg_str){text.s, text.n}, false, &ids),
          "a pattern without end is given up");
    fg_tokenizer_free(t);
    fg_puts(&json, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 100; i++)
        fg_putf(
            &json,
            "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aa\"}",
            i ? "," : "");
    fg_puts(&json, "]}," WORDS "}");
    t = parse(cx, json.s);
    holds(t && !fg_tokenizer_encode(t, cx, a, fg_str_of("aaaa"), false, &ids),
          "a text that doubles and doubles is given up");
    fg_tokenizer_free(t);
    fg_ctx_free(cx);
}

static fg_tokenizer *
with_pattern(fg_ctx *cx, const char *pattern)
{
    fg_text json = fg_text_new(fg_arena_new(cx));

    fg_puts(&json, "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"");
    for (const char *s = pattern; *s; s++)
        fg_putf(&json, *s == '\\' || *s == '"' ? "\\%c" : "%c", *s);
    fg_puts(&json, "\"}}," WORDS "}");
    return parse(cx, json.s);
}

/* Random patterns of what patterns are made of are read or refused in one line. */
static void
test_patterns(void)
{
    static const char parts[] = "[]^-&&\\\\wWhpPux{}()?*+,|a:10L<#m";
    uint64_t state = 3;
    int taken = 0, refused = 0, many = 0;

    for (int round = 0; round < 4000; round++) {
        fg_ctx *cx = fg_ctx_new(NULL);
        char pattern[40];
        size_t n = fg_random_next(&state) % (sizeof pattern - 1);
        for (size_t i = 0; i < n; i++)
            pattern[i] = parts[fg_random_next(&state) % (sizeof parts - 1)];
        pattern[n] = '\0';
        fg_tokenizer *t = with_pattern(cx, pattern);
        fg_ids ids = {0};
        taken += t != NULL;
        refused += !t;
        if (t)
            fg_tokenizer_encode(t, cx, fg_arena_new(cx), fg_str_of("a1-[w h\xc3\xa9]L\n"),
                                false, &ids);
        many += strchr(fg_first_error(cx), '\n') != NULL;
        fg_tokenizer_free(t);
        fg_ctx_free(cx);
    }
    holds(taken > 100 && refused > 100 && !many, "random patterns");
}

static void
test_long_patterns(void)
{
    static const char *const part[] = {"[",    "[^",       "(",     "a{1}+",
                                       "[a&&", "\\p{Han}", "[^\\W]"};

    for (size_t k = 0; k < sizeof part / sizeof *part; k++)
        for (size_t n = 60000; n < 80000; n += 10000) {
            fg_ctx *cx = fg_ctx_new(NULL);
            fg_text pattern = fg_text_new(fg_arena_new(cx));
            while (pattern.n < n)
                fg_puts(&pattern, part[k]);
            fg_tokenizer *t = with_pattern(cx, pattern.s);
            holds(t || !strchr(fg_first_error(cx), '\n'), part[k]);
            holds(!t || n < 65536, "a pattern that is too long");
            fg_tokenizer_free(t);
            fg_ctx_free(cx);
        }
}

/* A WordPiece model need not mark what continues a word. */
static void
test_no_prefix(void)
{
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_tokenizer *t =
        parse(cx, "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0,\"b\":1}}}");
    fg_ids ids = {0};

    holds(t &&
              fg_tokenizer_encode(t, cx, fg_arena_new(cx), fg_str_of("ab"), true, &ids) &&
              ids.n == 2 && ids.v[0] == 0 && ids.v[1] == 1,
          "pieces without a prefix");
    fg_tokenizer_free(t);
    fg_ctx_free(cx);
}

/* Characters cut in the middle, bytes that never become one, numbers of no token. */
static void
test_stream(void)
{
    static const char json[] =
        "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
        "\"\u00f0\":0,\"\u0141\":1,\"\u013a\":2,\"\u0122\":3,\"x\":4,\"\u0120y\":5},"
        "\"merges\":[]}}";
    static const int32_t ids[] = {4, 0, 1, 2, 2, 5, 0, 4, -3, 99, 3};
    static const char *const parts[] = {
        "x", "", "", "", "\xf0\x9f\x98\x98", " y", "", "\xef\xbf\xbdx", "", "", ""};
    fg_ctx *cx = fg_ctx_new(NULL);
    fg_arena *a = fg_arena_new(cx);
    fg_tokenizer *t = parse(cx, json);
    fg_stream s;

    holds(t, "the tokenizer opens");
    fg_stream_init(&s, t, a, false);
    for (size_t i = 0; t && i < sizeof ids / sizeof *ids; i++) {
        fg_str got = fg_stream_push(&s, ids[i]);
        holds(fg_str_same(got, fg_str_of(parts[i])), "a piece of the stream");
    }
    holds(t && fg_str_same(fg_stream_end(&s), fg_str_of("\xef\xbf\xbd")),
          "what stays incomplete is shown at the end");
    fg_tokenizer_free(t);
    fg_ctx_free(cx);
}

int
main(void)
{
    test_draws();
    test_choice();
    test_seed();
    test_nucleus();
    test_hostile();
    test_bounds();
    test_patterns();
    test_long_patterns();
    test_no_prefix();
    test_stream();
    return verdict();
}
