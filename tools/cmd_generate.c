/* cmd_generate.c - forge generate: text from a language model, token by token.
 *
 *     prompt -> tokens -> model -> logits -> one token -> text, and again
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/rt.h"
#include "text/sample.h"
#include "tools/lm.h"
#include "tools/prompt.h"

typedef enum { END_LENGTH, END_EOS, END_STOP, END_CONTEXT } ending;
static const char *const ending_name[] = {"length", "eos", "stop", "context"};

typedef struct gen {
    tool_common c;
    prompt p;
    fg_sampling s;
    int n, seed, ignore_eos, stats, json, context;
    tool_list stop;
    fg_ctx *cx;
    fg_arena *a;
    forge_ctx *fcx;
    forge_model *m;
    forge_run *r;
    lm lm;
    fg_sampler sampler;
    fg_stream stream;
    fg_text held, all; /* text that may begin a stop string; everything, for --json */
    fg_ids out;
    ending end;
    double load_ms, prefill_ms, decode_ms, decode_bytes;
    int steps; /* runs of the model after the prefill */
    int code;
} gen;

static bool
fail(gen *g)
{
    g->code = tool_fail_file(TOOL_FAILED, g->c.model, "%s", fg_first_error(g->cx));
    return false;
}

/* ---- text out ------------------------------------------------------------------------ */

static void
emit(gen *g, const char *s, size_t n)
{
    if (g->json) {
        fg_put_str(&g->all, (fg_str){s, n});
        return;
    }
    fwrite(s, 1, n, stdout);
    fflush(stdout);
}

/* Longest end of the held text that a stop string begins with. */
static size_t
may_begin_stop(const gen *g)
{
    size_t most = 0;

    for (int k = 0; k < g->stop.n; k++) {
        size_t len = strlen(g->stop.v[k]);
        for (size_t n = g->held.n < len ? g->held.n : len; n > most; n--)
            if (!memcmp(g->held.s + g->held.n - n, g->stop.v[k], n))
                most = n;
    }
    return most;
}

/* Shows what is certain; false when a stop string came. */
static bool
show(gen *g, fg_str text, bool all)
{
    char *first = NULL;

    fg_put_str(&g->held, text);
    for (int k = 0; k < g->stop.n; k++) {
        char *hit = *g->stop.v[k] ? strstr(g->held.s, g->stop.v[k]) : NULL;
        first = hit && (!first || hit < first) ? hit : first;
    }
    size_t n =
        first ? (size_t)(first - g->held.s) : g->held.n - (all ? 0 : may_begin_stop(g));
    emit(g, g->held.s, n);
    memmove(g->held.s, g->held.s + n, g->held.n - n + 1);
    g->held.n -= n;
    return !first;
}

/* ---- the loop ------------------------------------------------------------------------- */

static bool
is_eos(const gen *g, int32_t id)
{
    for (size_t k = 0; k < g->p.eos.n; k++)
        if (g->p.eos.v[k] == id)
            return !g->ignore_eos;
    return false;
}

static bool
read_tokens(gen *g, const int32_t *ids, size_t n, double *ms)
{
    double start = tool_now_ms();

    if (!lm_read(&g->lm, ids, n))
        return fail(g);
    *ms += tool_now_ms() - start;
    return true;
}

static bool
prepare_sampler(gen *g)
{
    int32_t vocab = g->lm.vocab;

    for (size_t k = 0; k < g->p.ids.n; k++)
        if (g->p.ids.v[k] >= vocab) {
            fg_error(
                g->cx,
                "no language model, or one of another vocabulary: rows of %d logits, "
                "the prompt has token %d",
                vocab, g->p.ids.v[k]);
            return fail(g);
        }
    fg_sampler_init(&g->sampler, &g->s, vocab,
                    FG_NEWN(g->a, fg_candidate, (size_t)vocab + 1),
                    FG_NEWN(g->a, uint8_t, (size_t)vocab + 1));
    for (size_t k = 0; k < g->p.ids.n; k++)
        fg_sampler_seen(&g->sampler, g->p.ids.v[k]);
    return true;
}

static bool
next_token(gen *g, int32_t *id)
{
    *id = fg_sampler_pick(&g->sampler, g->lm.row);
    if (*id < 0) {
        fg_error(g->cx, "no logit of the model is a number");
        return fail(g);
    }
    fg_sampler_seen(&g->sampler, *id);
    FG_PUSH(g->a, g->out.v, g->out.n, g->out.cap) = *id;
    return true;
}

static bool
loop(gen *g)
{
    int64_t context = g->context ? g->context : g->p.context;
    int32_t id;

    fg_stream_init(&g->stream, g->p.t, g->a, true);
    for (g->end = END_LENGTH; (int)g->out.n < g->n;) {
        if (!next_token(g, &id))
            return false;
        if (is_eos(g, id)) {
            g->end = END_EOS;
            break;
        }
        if (!show(g, fg_stream_push(&g->stream, id), false)) {
            g->end = END_STOP;
            return true;
        }
        if ((int)g->out.n == g->n)
            break;
        if (context && (int64_t)g->lm.nids >= context) {
            g->end = END_CONTEXT;
            break;
        }
        if (!read_tokens(g, &id, 1, &g->decode_ms))
            return false;
        g->decode_bytes += g->lm.bytes;
        g->steps++;
    }
    if (!show(g, fg_stream_end(&g->stream), true))
        g->end = END_STOP;
    return true;
}

static bool
start(gen *g)
{
    double begin = tool_now_ms();

    g->p.model = g->c.model;
    g->p.cx = g->cx;
    g->p.a = g->a;
    if (!prompt_begin(&g->p))
        return fail(g);
    if (!g->p.ids.n) {
        fg_error(g->cx, "the prompt is empty, and the tokenizer puts nothing before it");
        return fail(g);
    }
    if ((g->code = tool_compile(g->fcx, &g->c, &g->m)))
        return false;
    if (forge_run_new(g->fcx, g->m, &g->r) ||
        (g->c.threads >= 0 && forge_run_threads(g->r, g->c.threads)) ||
        (g->c.mem_budget && forge_run_memory(g->r, g->c.mem_budget))) {
        fg_error(g->cx, "%s", forge_message(g->fcx));
        return fail(g);
    }
    if (!lm_begin(&g->lm, g->cx, g->a, g->fcx, g->m, g->r))
        return fail(g);
    g->load_ms = tool_now_ms() - begin;
    return true;
}

/* ---- telling -------------------------------------------------------------------------- */

static double
rate(double n, double ms)
{
    return ms > 0 ? n / ms * 1e3 : 0;
}

static void
print_json(const gen *g, double gbps, double peak)
{
    cJSON *o = cJSON_CreateObject(), *ids = cJSON_CreateArray();

    for (size_t k = 0; k < g->out.n; k++)
        cJSON_AddItemToArray(ids, cJSON_CreateNumber(g->out.v[k]));
    cJSON_AddStringToObject(o, "model", g->c.model);
    cJSON_AddStringToObject(o, "text", g->all.s);
    cJSON_AddItemToObject(o, "ids", ids);
    cJSON_AddStringToObject(o, "end", ending_name[g->end]);
    cJSON_AddNumberToObject(o, "prompt_tokens", (double)g->p.ids.n);
    cJSON_AddNumberToObject(o, "tokens", (double)g->out.n);
    cJSON_AddNumberToObject(o, "threads", g->r->threads);
    cJSON_AddNumberToObject(o, "load_ms", g->load_ms);
    cJSON_AddNumberToObject(o, "prefill_ms", g->prefill_ms);
    cJSON_AddNumberToObject(o, "decode_ms", g->decode_ms);
    cJSON_AddNumberToObject(o, "prefill_tokens_per_s",
                            rate((double)g->p.ids.n, g->prefill_ms));
    cJSON_AddNumberToObject(o, "decode_tokens_per_s", rate(g->steps, g->decode_ms));
    cJSON_AddNumberToObject(o, "decode_gbps", gbps);
    cJSON_AddNumberToObject(o, "pct_peak_bandwidth", peak > 0 ? 100 * gbps / peak : 0);
    char *text = cJSON_PrintUnformatted(o);
    puts(text ? text : "{}");
    free(text);
    cJSON_Delete(o);
}

static void
tell(const gen *g)
{
    double gbps = g->decode_ms > 0 ? g->decode_bytes / g->decode_ms * 1e-6 : 0;
    double peak = g->stats || g->json ? tool_measure_peak(g->r->threads, 0).gbps : 0;

    if (g->json)
        print_json(g, gbps, peak);
    if (!g->stats)
        return;
    fprintf(stderr,
            "load %.0f ms; prefill %zu tokens, %.1f/s; decode %d tokens, %.1f/s, "
            "%.2f GB/s",
            g->load_ms, g->p.ids.n, rate((double)g->p.ids.n, g->prefill_ms), g->steps,
            rate(g->steps, g->decode_ms), gbps);
    if (peak > 0)
        fprintf(stderr, " (%.0f%% of this machine's)", 100 * gbps / peak);
    fputc('\n', stderr);
}

static void
work(void *arg)
{
    gen *g = arg;

    g->a = fg_arena_new(g->cx);
    g->held = fg_text_new(g->a);
    g->all = fg_text_new(g->a);
    if (!start(g) || !read_tokens(g, g->p.ids.v, g->p.ids.n, &g->prefill_ms) ||
        !prepare_sampler(g) || !loop(g))
        return;
    if (!g->json)
        putchar('\n');
    tell(g);
}

/* ---- options ------------------------------------------------------------------------- */

static int
check_options(const gen *g)
{
    if (!g->c.model)
        return tool_fail(TOOL_USAGE, "a model is missing");
    if (g->p.text && g->p.file)
        return tool_fail(TOOL_USAGE, "--prompt and --prompt-file: one of them");
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
        {"--stats", TOOL_FLAG, &g->stats, "", "tokens per second, on standard error"},
        {"--json", TOOL_FLAG, &g->json, "", "text, token numbers and speed as JSON"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    int code =
        tool_parse(&g->c, own,
                   "forge generate MODEL.onnx --tokenizer=FILE --prompt=TEXT -n N: "
                   "generate text",
                   argc, argv);
    g->s.seed = (uint64_t)g->seed;
    return code ? code : check_options(g);
}

int
cmd_generate(int argc, char **argv)
{
    gen g = {.n = 128};
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
    forge_run_free(g.r);
    lm_end(&g.lm);
    prompt_end(&g.p);
    forge_model_free(g.m);
    forge_close(g.fcx);
    fg_ctx_free(g.cx);
    free(g.stop.v);
    free(g.p.eos_given.v);
    return code < 0 ? TOOL_OK : code;
}
