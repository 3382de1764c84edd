/* textgen.c - a host program: text from a byte-level language model with a KV cache.
 *
 *     textgen MODEL.onnx PROMPT N [SEED]
 *
 * The model takes input_ids, attention_mask, position_ids and a cache of past keys and values, and gives logits:
 * what most exporters write. The cache stays in a forge_state: a step sees the new bytes only, and nothing is
 * copied. With a seed the next byte is drawn at temperature 0.6, else the likeliest is taken.
 */
#include <forge.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAXLEN = 256, VOCAB = 256 };

typedef struct generator {
    forge_ctx *cx;
    forge_model *model;
    forge_run *run;
    forge_state *cache;
    int64_t ids[MAXLEN], mask[MAXLEN], position[MAXLEN];
    unsigned seed;
} generator;

static void
check(generator *s, forge_status st)
{
    if (st != FORGE_OK) {
        fprintf(stderr, "textgen: %s\n", forge_message(s->cx));
        exit(1);
    }
}

static int
pick(generator *s, const float *logit)
{
    int best = 0;
    double p[VOCAB], sum = 0;
    for (int v = 1; v < VOCAB; v++)
        best = logit[v] > logit[best] ? v : best;
    if (!s->seed)
        return best;
    for (int v = 0; v < VOCAB; v++)
        sum += p[v] = exp((logit[v] - logit[best]) / 0.6);
    s->seed = s->seed * 1103515245 + 12345;
    double at = sum * (s->seed >> 8 & 0xffff) / 65536.0;
    for (int v = 0; v < VOCAB; v++)
        if ((at -= p[v]) < 0)
            return v;
    return best;
}

/* Runs tokens [from, to) and returns the next one. */
static int
step(generator *s, int from, int to)
{
    const int64_t *dims;
    int64_t now[] = {1, to - from}, all[] = {1, to};
    check(s, forge_bind_input(s->run, "input_ids", FORGE_I64, 2, now, s->ids + from));
    check(s, forge_bind_input(s->run, "attention_mask", FORGE_I64, 2, all, s->mask));
    check(s, forge_bind_input(s->run, "position_ids", FORGE_I64, 2, now,
                              s->position + from));
    check(s, forge_execute(s->run));
    const float *logits = forge_output(s->run, "logits", NULL, NULL, &dims);
    return logits ? pick(s, logits + (dims[1] - 1) * VOCAB) : 0;
}

int
main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: textgen MODEL.onnx PROMPT N [SEED]\n");
        return 2;
    }
    generator s = {.seed = argc > 4 ? (unsigned)atoi(argv[4]) : 7};
    if (forge_open(NULL, &s.cx) != FORGE_OK)
        return 1;
    check(&s, forge_compile_file(s.cx, argv[1], NULL, &s.model));
    check(&s, forge_run_new(s.cx, s.model, &s.run));
    check(&s, forge_state_new(s.cx, s.model, 1, MAXLEN, MAXLEN, &s.cache));
    check(&s, forge_run_attach(s.run, s.cache));
    int n = (int)strlen(argv[2]), end = n + atoi(argv[3]);
    if (n == 0 || n >= MAXLEN)
        return 2;
    end = end > MAXLEN ? MAXLEN : end;
    for (int i = 0; i < MAXLEN; i++) {
        s.ids[i] = i < n ? (unsigned char)argv[2][i] : 0;
        s.mask[i] = 1;
        s.position[i] = i;
    }
    fputs(argv[2], stdout);
    for (int at = 0, to = n; to < end; at = to, to++) {
        s.ids[to] = step(&s, at, to);
        putchar((int)s.ids[to]);
        fflush(stdout);
    }
    putchar('\n');
    forge_run_free(s.run);
    forge_state_free(s.cache);
    forge_model_free(s.model);
    forge_close(s.cx);
    return 0;
}
