/* cmd_generate.c - forge generate: text from a language model, token by token.
 *
 *     prompt -> tokens -> model -> logits -> one token -> text, and again
 *
 * Several texts that go on from one prompt are decoded together, from one prefill; with
 * --batch those of several prompts.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/rt.h"
#include "tools/draft.h"
#include "tools/prompt.h"
#include "tools/sequence.h"

/* A compiled model and what feeds it. */
typedef struct engine {
    forge_model *m;
    forge_run *r;
    lm lm;
} engine;

typedef struct gen {
    tool_common c;
    prompt p;
    fg_sampling s;
    int n, seed, ignore_eos, stats, json, context, nsequence, batch;
    const char *draft_model, *draft_precision;
    int lookup, ndraft;
    tool_list stop;
    fg_ctx *cx;
    fg_arena *a;
    forge_ctx *fcx;
    engine main, small;
    draft draft;
    size_t ahead; /* tokens that the model has read of a guess, and nobody chose yet */
    sequence_rules rules;
    size_t shown; /* texts */
    double load_ms, peak;
    int code;
} gen;

/* What one prompt's texts took. */
typedef struct timing {
    double prefill_ms, decode_ms, decode_bytes;
    size_t prompt, tokens; /* tokens: that were decoded, of all texts */
    int steps;             /* runs of the model for them */
    size_t guessed, right;
} timing;

static bool
fail(gen *g)
{
    g->code = tool_fail_file(TOOL_FAILED, g->c.model, "%s", fg_first_error(g->cx));
    return false;
}

/* ---- telling -------------------------------------------------------------------------- */

static double
rate(double n, double ms)
{
    return ms > 0 ? n / ms * 1e3 : 0;
}

static double
gbps(const timing *t)
{
    return t->decode_ms > 0 ? t->decode_bytes / t->decode_ms * 1e-6 : 0;
}

/* Percent of the machine's bandwidth; 0: not known. */
static double
share(const gen *g, const timing *t)
{
    return gbps(t) <= g->peak && g->peak > 0 ? 100 * gbps(t) / g->peak : 0;
}

static void
print_json(const gen *g, const sequence *s, const timing *t, size_t which, int k)
{
    cJSON *o = cJSON_CreateObject(), *ids = cJSON_CreateArray();
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"prompt", (double)which},
        {"sequence", k},
        {"prompt_tokens", (double)s->prompt},
        {"tokens", (double)s->out.n},
        {"threads", g->main.r->threads},
        {"load_ms", g->load_ms},
        {"prefill_ms", t->prefill_ms},
        {"decode_ms", t->decode_ms},
        {"prefill_tokens_per_s", rate((double)t->prompt, t->prefill_ms)},
        {"decode_tokens_per_s", rate((double)t->tokens, t->decode_ms)},
        {"decode_gbps", gbps(t)},
        {"pct_peak_bandwidth", share(g, t)},
        {"guessed", (double)t->guessed},
        {"guessed_right", (double)t->right},
    };

    for (size_t i = 0; i < s->out.n; i++)
        cJSON_AddItemToArray(ids, cJSON_CreateNumber(s->out.v[i]));
    cJSON_AddStringToObject(o, "model", g->c.model);
    cJSON_AddStringToObject(o, "text", s->text.s);
    cJSON_AddItemToObject(o, "ids", ids);
    cJSON_AddStringToObject(o, "end", ending_name[s->end]);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(o, numbers[i].key, numbers[i].value);
    char *text = cJSON_PrintUnformatted(o);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(o);
}

static void
print_stats(const gen *g, const timing *t)
{
    fprintf(stderr,
            "load %.0f ms; prefill %zu tokens, %.1f/s; decode %zu tokens, %.1f/s, "
            "%.2f GB/s",
            g->load_ms, t->prompt, rate((double)t->prompt, t->prefill_ms), t->tokens,
            rate((double)t->tokens, t->decode_ms), gbps(t));
    if (share(g, t) > 0)
        fprintf(stderr, " (%.0f%% of this machine's)", share(g, t));
    if (t->guessed)
        fprintf(stderr, "; %zu of %zu guesses right", t->right, t->guessed);
    fputc('\n', stderr);
}

/* The machine is not always equally fast, and what is measured may be more than its peak
 * in another moment: then no share is told. */
static void
find_peak(gen *g, const timing *t)
{
    for (int k = 0; k < 3 && (g->stats || g->json) && t->steps && gbps(t) > g->peak;
         k++) {
        double bytes = t->decode_bytes / t->steps;
        int threads = g->main.r->threads;
        double now =
            tool_measure_peak(threads, bytes).gbps[tool_level_of(threads, bytes)];
        g->peak = now > g->peak ? now : g->peak;
    }
}

/* n texts: of prompts `which` and on, or of that prompt those numbered `first` and on. */
static void
tell(gen *g, const sequence *s, int n, const timing *t, size_t which, bool each,
     int first)
{
    find_peak(g, t);
    for (int k = 0; k < n; k++, g->shown++) {
        if (g->json) {
            print_json(g, &s[k], t, which + (each ? (size_t)k : 0), each ? 0 : first + k);
            continue;
        }
        if (g->shown)
            puts("---");
        if (!g->rules.live)
            fwrite(s[k].text.s, 1, s[k].text.n, stdout);
        putchar('\n');
    }
    if (g->stats)
        print_stats(g, t);
}

/* ---- the loop ------------------------------------------------------------------------- */

static bool
has_vocabulary(gen *g, const fg_ids *ids)
{
    for (size_t k = 0; k < ids->n; k++)
        if (ids->v[k] >= g->main.lm.vocab)
            return fg_error(g->cx,
                            "no language model, or one of another vocabulary: rows of %d "
                            "logits, the prompt has token %d",
                            g->main.lm.vocab, ids->v[k]);
    return true;
}

static bool
read_prompts(gen *g, const fg_ids *ids, size_t n, timing *t)
{
    lm *x = &g->main.lm;
    double start = tool_now_ms();

    g->ahead = 0;
    if (n > 1 ? !lm_read_prompts(x, ids, n)
              : !lm_reset(x) || !lm_read(x, ids->v, ids->n) ||
                    (g->draft.a && !draft_text(&g->draft, ids)))
        return fail(g);
    t->prefill_ms = tool_now_ms() - start;
    for (size_t k = 0; k < n; k++)
        if (!has_vocabulary(g, &ids[k]))
            return fail(g);
    return true;
}

/* Reads the tokens that were chosen, and what is guessed to follow a single one. */
static bool
read_chosen(gen *g, const int32_t *ids, size_t room, timing *t)
{
    lm *x = &g->main.lm;
    bool guessing = g->draft.a != NULL;

    if (g->ahead && x->ids[x->n - g->ahead] == ids[0]) {
        g->ahead--;
        g->draft.right++;
        return true;
    }
    if (g->ahead && !lm_cut(x, x->n - g->ahead))
        return false;
    g->ahead = 0;
    if (guessing && !draft_guess(&g->draft, room, x->vocab))
        return false;
    if (!lm_read(x, guessing ? g->draft.v : ids, guessing ? g->draft.n + 1 : 1))
        return false;
    t->steps++;
    g->ahead = guessing ? g->draft.n : 0;
    return x->rows > (int64_t)g->ahead ||
           fg_error(g->cx, "nothing can be guessed ahead: the model gives logits of the "
                           "last token only");
}

/* Next token of each text that has not ended; false with a diagnostic. */
static bool
choose(gen *g, sequence *s, int n, int32_t *ids, size_t *room)
{
    *room = 0;
    for (int k = 0; k < n; k++) {
        if (s[k].end)
            continue;
        ids[k] = sequence_next(&s[k], lm_row(&g->main.lm, k, g->ahead));
        if (ids[k] < 0)
            return fg_error(g->cx, "no logit of the model is a number");
        if (!s[k].end)
            *room = g->rules.most - s[k].out.n;
    }
    return true;
}

/* Until all texts have ended. Those that have go along with what they ended in. */
static bool
grow(gen *g, sequence *s, int n, timing *t)
{
    lm *x = &g->main.lm;
    int32_t *ids = FG_NEWN(g->a, int32_t, (size_t)n);
    size_t context = (size_t)g->p.context, room;

    for (;;) {
        if (!choose(g, s, n, ids, &room))
            return fail(g);
        size_t have = 0; /* tokens of the longest text that goes on */
        for (int k = 0; k < n; k++) {
            size_t length = lm_length(x, k) - g->ahead;
            if (!s[k].end && context && length >= context)
                sequence_end(&s[k], END_CONTEXT);
            have = !s[k].end && length > have ? length : have;
        }
        if (!room || !have)
            return true;
        if (g->draft.a)
            draft_known(&g->draft, ids[0]);
        if (context && room > context - have)
            room = context - have;
        double start = tool_now_ms();
        if (!read_chosen(g, ids, room - 1, t))
            return fail(g);
        t->decode_ms += tool_now_ms() - start;
    }
}

/* n texts that go on from prompt `which`, of which they are numbers `first` and on, or from
 * `prompts` prompts, then one from each; their memory is a's. */
static bool
write_texts(gen *g, fg_arena *a, size_t which, size_t prompts, int first, int n)
{
    lm *x = &g->main.lm;
    sequence *s = FG_NEWN(a, sequence, (size_t)n);
    fg_ids *ids = FG_NEWN(a, fg_ids, prompts);
    timing t = {0};

    for (size_t k = 0; k < prompts; k++) {
        if (!prompt_encode(&g->p, which + k, &ids[k]))
            return fail(g);
        t.prompt += ids[k].n;
    }
    if (!read_prompts(g, ids, prompts, &t))
        return false;
    if (prompts == 1 && n > 1 && !lm_repeat(x, n))
        return fail(g);
    for (int k = 0; k < n; k++) {
        fg_sampling o = g->s;
        o.seed = (uint64_t)(g->seed + (prompts > 1 ? 0 : first + k));
        sequence_begin(&s[k], &g->rules, a, &o, x->vocab, &ids[prompts > 1 ? k : 0]);
    }
    double before = x->bytes + g->small.lm.bytes;
    if (!grow(g, s, n, &t))
        return false;
    t.decode_bytes = x->bytes + g->small.lm.bytes - before;
    t.guessed = g->draft.guessed;
    t.right = g->draft.right;
    for (int k = 0; k < n; k++)
        t.tokens += s[k].out.n ? s[k].out.n - 1 : 0;
    tell(g, s, n, &t, which, prompts > 1, first);
    return true;
}

/* ---- beginning ------------------------------------------------------------------------ */

static bool
open_engine(gen *g, engine *e, const tool_common *c)
{
    if ((g->code = tool_compile(g->fcx, c, &e->m)))
        return false;
    if (forge_run_new(g->fcx, e->m, &e->r) ||
        (c->threads >= 0 && forge_run_threads(e->r, c->threads)) ||
        (c->mem_budget && forge_run_memory(e->r, c->mem_budget))) {
        fg_error(g->cx, "%s", forge_message(g->fcx));
        return fail(g);
    }
    return lm_begin(&e->lm, g->cx, g->a, g->fcx, e->m, e->r) || fail(g);
}

static bool
open_draft(gen *g)
{
    tool_common c = g->c;

    if (g->lookup)
        draft_begin(&g->draft, g->a, NULL, (size_t)g->ndraft);
    if (!g->draft_model)
        return true;
    c.model = g->draft_model;
    c.report = NULL;
    if (g->draft_precision)
        c.o.precision = g->draft_precision;
    draft_begin(&g->draft, g->a, &g->small.lm, (size_t)g->ndraft);
    return open_engine(g, &g->small, &c);
}

static bool
start(gen *g)
{
    double begin = tool_now_ms();

    g->p.model = g->c.model;
    g->p.cx = g->cx;
    g->p.a = g->a;
    g->p.context = g->context;
    if (!prompt_begin(&g->p))
        return fail(g);
    if (!open_engine(g, &g->main, &g->c) || !open_draft(g))
        return false;
    if (g->ignore_eos)
        g->p.eos.n = 0;
    g->rules = (sequence_rules){.t = g->p.t,
                                .stop = &g->stop,
                                .eos = &g->p.eos,
                                .most = (size_t)g->n,
                                .live = !g->json && g->p.n == 1 && g->nsequence == 1};
    g->load_ms = tool_now_ms() - begin;
    return true;
}

static void
close_engine(engine *e)
{
    forge_run_free(e->r);
    lm_end(&e->lm);
    forge_model_free(e->m);
}

static void
work(void *arg)
{
    gen *g = arg;

    g->a = fg_arena_new(g->cx);
    if (!start(g))
        return;
    size_t prompts = lm_mixes(&g->main.lm) ? (size_t)g->batch : 1;
    int together = g->main.lm.batches ? g->nsequence : 1;
    for (size_t k = 0; k < g->p.n && !g->code; k += prompts) {
        prompts = prompts < g->p.n - k ? prompts : g->p.n - k;
        for (int first = 0; first < g->nsequence && !g->code; first += together) {
            fg_arena *a = fg_arena_new(g->cx);
            write_texts(g, a, k, prompts, first, prompts > 1 ? (int)prompts : together);
            fg_arena_free(a);
        }
    }
}

/* ---- options ------------------------------------------------------------------------- */

static int
check_options(const gen *g)
{
    if (!g->c.model)
        return tool_fail(TOOL_USAGE, "a model is missing");
    if (!!g->p.text + !!g->p.file + !!g->p.lines > 1)
        return tool_fail(TOOL_USAGE,
                         "--prompt, --prompt-file and --prompt-lines: one of them");
    if (g->n < 0 || g->context < 0)
        return tool_fail(TOOL_USAGE, "a number of tokens below 0");
    if (g->nsequence < 1 || g->nsequence > 1024)
        return tool_fail(TOOL_USAGE, "--num-sequences=%d: expected 1 to 1024",
                         g->nsequence);
    if (g->nsequence > 1 && g->s.temperature == 0)
        return tool_fail(TOOL_USAGE,
                         "--num-sequences wants a --temperature: without, all "
                         "texts are the same");
    if (g->batch < 1 || g->batch > 1024)
        return tool_fail(TOOL_USAGE, "--batch=%d: expected 1 to 1024", g->batch);
    if (g->batch > 1 && (g->nsequence > 1 || g->lookup || g->draft_model))
        return tool_fail(TOOL_USAGE, "--batch goes with one text of each prompt, and "
                                     "without guesses");
    if (g->lookup && g->draft_model)
        return tool_fail(TOOL_USAGE, "--draft and --lookup: one of them");
    if ((g->lookup || g->draft_model) && g->nsequence > 1)
        return tool_fail(TOOL_USAGE, "--draft and --lookup guess for one text at a time");
    if (g->ndraft < 1 || g->ndraft > 64)
        return tool_fail(TOOL_USAGE, "--draft-tokens=%d: expected 1 to 64", g->ndraft);
    if (!g->p.chat && (g->p.system || g->p.chat_template))
        return tool_fail(TOOL_USAGE, "--system and --chat-template go with --chat");
    if (!(g->s.temperature >= 0 && g->s.temperature <= 100))
        return tool_fail(TOOL_USAGE, "--temperature=%g: expected 0 to 100",
                         g->s.temperature);
    if (!(g->s.top_p > 0 && g->s.top_p <= 1))
        return tool_fail(TOOL_USAGE, "--top-p=%g: expected more than 0, 1 at most",
                         g->s.top_p);
    if (!(g->s.min_p >= 0 && g->s.min_p <= 1))
        return tool_fail(TOOL_USAGE, "--min-p=%g: expected 0 to 1", g->s.min_p);
    if (!(g->s.repetition_penalty > 0 && g->s.repetition_penalty <= 100))
        return tool_fail(TOOL_USAGE, "--repetition-penalty=%g: expected 0 to 100",
                         g->s.repetition_penalty);
    return TOOL_OK;
}

static int
parse(gen *g, int argc, char **argv)
{
    const tool_option own[] = {
        {"--tokenizer", TOOL_TEXT, &g->p.tokenizer, "FILE",
         "tokenizer.json; default beside the model"},
        {"--prompt", TOOL_TEXT, &g->p.text, "TEXT", "the text to go on from"},
        {"--prompt-file", TOOL_TEXT, &g->p.file, "FILE",
         "the same from a file; default standard input"},
        {"--prompt-lines", TOOL_TEXT, &g->p.lines, "FILE",
         "a prompt in each line; texts are parted by lines of ---"},
        {"--num-sequences", TOOL_INT, &g->nsequence, "N",
         "texts of each prompt, decoded together; the k-th of seed S+k-1"},
        {"--batch", TOOL_INT, &g->batch, "N",
         "prompts of --prompt-lines decoded together; default 1"},
        {"--chat", TOOL_FLAG, &g->p.chat, "",
         "the prompt is a message, put into the model's template"},
        {"--system", TOOL_TEXT, &g->p.system, "TEXT", "a message before it, for --chat"},
        {"--chat-template", TOOL_TEXT, &g->p.chat_template, "FILE",
         "default beside the tokenizer, or in tokenizer_config.json"},
        {"-n", TOOL_INT, &g->n, "N", "tokens at most; default 128"},
        {"--temperature", TOOL_DOUBLE, &g->s.temperature, "T",
         "0 (default): always the likeliest token"},
        {"--top-k", TOOL_INT, &g->s.top_k, "K", "draw from the K likeliest only"},
        {"--top-p", TOOL_DOUBLE, &g->s.top_p, "P",
         "from the likeliest that weigh P together"},
        {"--min-p", TOOL_DOUBLE, &g->s.min_p, "P",
         "from those at least P times as likely as the first"},
        {"--repetition-penalty", TOOL_DOUBLE, &g->s.repetition_penalty, "R",
         "divide the logits of tokens seen before"},
        {"--seed", TOOL_INT, &g->seed, "S", "of the random draws; default 0"},
        {"--stop", TOOL_LIST, &g->stop, "TEXT", "end before this text; again for more"},
        {"--eos", TOOL_LIST, &g->p.eos_given, "TOKEN",
         "token (content or number) that ends the text"},
        {"--ignore-eos", TOOL_FLAG, &g->ignore_eos, "", "go on behind such a token"},
        {"--context", TOOL_INT, &g->context, "N",
         "longest sequence; default from config.json"},
        {"--draft", TOOL_TEXT, &g->draft_model, "MODEL",
         "guess ahead by a smaller model; the text stays the same"},
        {"--draft-precision", TOOL_TEXT, &g->draft_precision, "TYPE",
         "of that model's weights; default --precision"},
        {"--lookup", TOOL_FLAG, &g->lookup, "",
         "guess ahead what followed the last tokens before"},
        {"--draft-tokens", TOOL_INT, &g->ndraft, "K", "guesses at a time; default 4"},
        {"--stats", TOOL_FLAG, &g->stats, "", "tokens per second, on standard error"},
        {"--json", TOOL_FLAG, &g->json, "", "text, token numbers and speed as JSON"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    int code =
        tool_parse(&g->c, own,
                   "forge generate MODEL.onnx --tokenizer=FILE --prompt=TEXT -n N: "
                   "generate text",
                   argc, argv);
    return code ? code : check_options(g);
}

int
cmd_generate(int argc, char **argv)
{
    gen g = {.n = 128, .nsequence = 1, .batch = 1, .ndraft = 4};
    int code;

    tool_common_init(&g.c);
    fg_sampling_init(&g.s);
    if (!(code = parse(&g, argc, argv))) {
        if (forge_open(NULL, &g.fcx) || !(g.cx = fg_ctx_new(NULL)))
            return tool_fail(TOOL_FAILED, "out of memory");
        if (fg_protect(g.cx, work, &g) != FG_RAISE_NONE)
            g.code = tool_fail_file(TOOL_FAILED, g.c.model, "out of memory");
        code = g.code;
    }
    close_engine(&g.main);
    close_engine(&g.small);
    prompt_end(&g.p);
    forge_close(g.fcx);
    fg_ctx_free(g.cx);
    free(g.stop.v);
    free(g.p.eos_given.v);
    return code < 0 ? TOOL_OK : code;
}
