/* replay.c - forge run --replay: inputs from a record, and the first kernel and the outputs that
 * come out otherwise.
 *
 * The file is text with blocks of bytes between: runtime/record.c. It may come from anywhere: every
 * number is checked before it is used.
 */
#include "tools/replay.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/rt.h"

typedef struct step {
    uint64_t digest;
    const char *what;
} step;

typedef struct output {
    const char *name;
    fg_tensor t;
} output;

struct replay {
    fg_ctx *cx;
    fg_arena *a;
    const char *path, *at, *end; /* what is left of the file */
    forge_run *r;
    step *step;
    output *output;
    size_t capstep, capoutput;
    int nstep, noutput, ran, first; /* first: the first step that differs, or -1 */
    char *other;                    /* what ran in its place */
};

static bool
damaged(replay *x)
{
    return fg_error(x->cx, "%.400s: not a record of a run, or damaged", x->path);
}

static bool
read_whole(replay *x)
{
    FILE *f = fopen(x->path, "rb");
    long n = -1;

    if (f && !fseek(f, 0, SEEK_END) && (n = ftell(f)) >= 0 && !fseek(f, 0, SEEK_SET)) {
        char *data = fg_alloc(x->a, (size_t)n + 1);
        x->at = data;
        x->end = data + fread(data, 1, (size_t)n, f);
        data[n] = '\0';
        n = x->end - data == n ? n : -1;
    }
    if (f)
        fclose(f);
    return n >= 0 || fg_error(x->cx, "%.400s: %s", x->path, strerror(errno));
}

/* The next word of the line, an integer. */
static bool
number(replay *x, int64_t *v)
{
    char *end;

    errno = 0;
    *v = strtoll(x->at, &end, 10);
    bool ok = end > x->at && end < x->end && !errno && (*end == ' ' || *end == '\n');
    x->at = end + (ok && *end == ' ');
    return ok;
}

static bool
word(replay *x, const char *w)
{
    size_t n = strlen(w);

    if ((size_t)(x->end - x->at) < n || memcmp(x->at, w, n) != 0)
        return false;
    x->at += n;
    return true;
}

static bool
bytes(replay *x, int64_t n, const char **data)
{
    *data = x->at;
    if (n < 0 || n >= x->end - x->at || x->at[n] != '\n')
        return false;
    x->at += n + 1;
    return true;
}

static bool
tensor(replay *x, fg_tensor *t, const char **name)
{
    int64_t v[FG_MAXRANK + 2], n, size;
    const char *text, *data;

    if (!number(x, &v[0]) || v[0] <= 0 || v[0] >= FG_NDTYPES || !number(x, &v[1]) ||
        v[1] < 0 || v[1] > FG_MAXRANK)
        return false;
    for (int k = 0; k < (int)v[1]; k++)
        if (!number(x, &v[2 + k]) || v[2 + k] < 0)
            return false;
    if (!number(x, &size) || !number(x, &n) || !bytes(x, n, &text) ||
        !bytes(x, size, &data))
        return false;
    *name = fg_format(x->a, "%.*s", (int)n, text);
    if (!fg_tensor_new(x->a, t, (fg_dtype)v[0], (int)v[1], &v[2]) ||
        tool_bytes(t) != size)
        return false;
    memcpy(t->data, data, (size_t)size);
    return true;
}

static bool
read_step(replay *x)
{
    char *end;
    uint64_t digest = strtoull(x->at, &end, 16);
    size_t n = strcspn(end, "\n");

    if (end != x->at + 16 || *end != ' ' || end + n >= x->end)
        return false;
    FG_PUSH(x->a, x->step, x->nstep, x->capstep) =
        (step){digest, fg_format(x->a, "%.*s", (int)n - 1, end + 1)};
    x->at = end + n + 1;
    return true;
}

/* The file may come from anywhere: options that say how code is made, and none that names a
 * file. */
static bool
only_makes_code(const char *knobs)
{
    static const char *const known[] = {
        "-O",     "--passes=", "--skip=",    "--codegen=",   "--rounds=",  "--alpha=",
        "--dim=", "--cpu=",    "--threads=", "--precision=", "--accuracy="};
    bool ok = true;

    for (const char *s = knobs + strspn(knobs, " "); *s && ok; s += strspn(s, " ")) {
        ok = false;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            ok |= !strncmp(s, known[k], strlen(known[k]));
        s += strcspn(s, " ");
    }
    return ok;
}

char *
replay_knobs(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *report = NULL, *knobs = NULL;
    size_t n = 0, got = 0;

    if (f && fscanf(f, "forge record 1\nreport %zu", &n) == 1 && n < 1 << 26 &&
        fgetc(f) == '\n' && (report = malloc(n + 1)))
        got = fread(report, 1, n, f);
    if (f)
        fclose(f);
    cJSON *tree = report ? cJSON_ParseWithLength(report, got) : NULL;
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(tree, "knobs"));
    if (text && only_makes_code(text) && (knobs = malloc(strlen(text) + 9)))
        sprintf(knobs, "--knobs=%s", text);
    cJSON_Delete(tree);
    free(report);
    return knobs;
}

static bool
read_record(replay *x, forge_ctx *fcx)
{
    const char *report;
    int64_t n, status;

    if (!word(x, "forge record 1\nreport ") || !number(x, &n) || *x->at++ != '\n' ||
        !bytes(x, n, &report) || !word(x, "threads ") || !number(x, &n) ||
        *x->at++ != '\n')
        return damaged(x);
    for (;;) {
        const char *name;
        fg_tensor t;
        if (word(x, "input ")) {
            if (!tensor(x, &t, &name))
                return damaged(x);
            if (forge_bind_input(x->r, name, (forge_dtype)t.dtype, t.rank, t.dim, t.data))
                return fg_error(x->cx, "%.400s: %s", x->path, forge_message(fcx));
        } else if (word(x, "output ")) {
            if (!tensor(x, &t, &name))
                return damaged(x);
            FG_PUSH(x->a, x->output, x->noutput, x->capoutput) = (output){name, t};
        } else if (word(x, "step ")) {
            if (!read_step(x))
                return damaged(x);
        } else {
            break;
        }
    }
    return (word(x, "end ") && number(x, &status)) || damaged(x);
}

/* Runs of another build may have other kernels: the first that does another thing. */
static void
on_step(void *user, uint32_t s, int64_t ns)
{
    replay *x = user;
    const fg_step *now = &x->r->p->step[s];
    const fg_blockdef *once = &x->r->p->block[x->r->p->once];
    int k = x->ran;

    (void)ns;
    if (now->kind != FG_STEP_KERNEL || (x->r->p->once && s - once->first < once->count))
        return;
    x->ran++;
    if (x->first >= 0 || (k < x->nstep && x->step[k].digest == fg_step_digest(x->r, s)))
        return;
    x->first = k;
    snprintf(x->other, 400, "%.80s %.300s", now->name, now->nodes);
}

replay *
replay_open(fg_ctx *cx, fg_arena *a, const char *path, forge_ctx *fcx, forge_run *r)
{
    replay *x = FG_NEW(a, replay);

    *x = (replay){.cx = cx, .a = a, .path = path, .r = r, .first = -1};
    x->other = fg_alloc(a, 400);
    if (!read_whole(x) || !read_record(x, fcx))
        return NULL;
    r->hook = on_step;
    r->hook_user = x;
    return x;
}

/* The first element whose bits differ; -1: none. */
static int64_t
first_difference(const fg_tensor *a, const fg_tensor *b)
{
    size_t bits = (size_t)fg_dtypes[a->dtype].bits, each = bits < 8 ? 1 : bits / 8;

    for (int64_t k = 0; k < tool_bytes(a); k += (int64_t)each)
        if (memcmp((char *)a->data + k, (char *)b->data + k, each) != 0)
            return bits < 8 ? 2 * k : k / (int64_t)each;
    return -1;
}

static bool
compare_output(const replay *x, const forge_model *m, const output *o)
{
    fg_tensor got;
    int i = 0;

    while (i < forge_model_outputs(m) &&
           strcmp(forge_model_output(m, i, NULL, NULL), o->name) != 0)
        i++;
    if (i == forge_model_outputs(m) || !tool_output(x->r, m, i, &got)) {
        printf("%s: the model has no such output\n", o->name);
        return false;
    }
    if (got.dtype != o->t.dtype || got.rank != o->t.rank ||
        memcmp(got.dim, o->t.dim, (size_t)got.rank * sizeof *got.dim) != 0) {
        printf("%s: another type or shape\n", o->name);
        return false;
    }
    int64_t at = first_difference(&got, &o->t);
    if (at < 0)
        printf("%s: the same %" PRId64 " elements\n", o->name, got.count);
    else
        printf("%s: element %" PRId64 " is %.9g, recorded was %.9g\n", o->name, at,
               fg_tensor_f64(&got, at), fg_tensor_f64(&o->t, at));
    return at < 0;
}

int
replay_compare(replay *x, const forge_model *m)
{
    bool same = true;

    if (x->first >= 0 || x->ran != x->nstep) {
        int k = x->first >= 0 ? x->first : x->ran;
        printf("kernel %d of %d is the first that differs: %s; recorded was %s\n", k + 1,
               x->nstep, *x->other ? x->other : "nothing",
               k < x->nstep ? x->step[k].what : "nothing");
        same = false;
    } else {
        printf("%d kernels: the same\n", x->nstep);
    }
    for (int k = 0; k < x->noutput; k++)
        same &= compare_output(x, m, &x->output[k]);
    return same
               ? TOOL_OK
               : tool_fail_file(TOOL_DIFFERENT, x->path, "the run is not the same again");
}
