/* options.c - command lines, messages and files: what every verb needs before it starts. */
#include "tools/tool.h"

#include "codegen/compile.h"
#include "codegen/knobs.h"
#include "codegen/outfile.h"
#include "codegen/special.h"
#include "passes/pass.h"
#include "tools/knobs.h"
#include "tools/progress.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- messages ---------------------------------------------------------------------- */

/* Bytes that a terminal could take for a command are shown as \xNN; text of a message
 * may come from a file name or the command line. */
static void
put_line(const char *text)
{
    char out[1000];
    size_t n = 0;

    for (const unsigned char *s = (const unsigned char *)text; *s && n < sizeof out - 6;
         s++) {
        if (*s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] < 0xa0))
            n += (size_t)snprintf(out + n, 5, "\\x%02x", *s);
        else
            out[n++] = (char)*s;
    }
    out[n] = '\0';
    tool_progress_end();
    fprintf(stderr, "forge: %s\n", out);
}

int
tool_fail(int code, const char *fmt, ...)
{
    char text[2000];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put_line(text);
    return code;
}

int
tool_fail_file(int code, const char *file, const char *fmt, ...)
{
    char text[1500];
    va_list ap;
    size_t n = strlen(file);

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!strncmp(text, file, n) && (text[n] == ':' || text[n] == ' '))
        return tool_fail(code, "%s", text);
    return tool_fail(code, "%.400s: %s", file, text);
}

/* ---- options ------------------------------------------------------------------------ */

void
tool_common_init(tool_common *c)
{
    *c = (tool_common){.threads = -1};
    forge_options_init(&c->o);
}

static int
number(const tool_option *o, const char *text)
{
    char *end;

    errno = 0;
    if (o->kind == TOOL_DOUBLE)
        *(double *)o->at = strtod(text, &end);
    else {
        long v = strtol(text, &end, 10);
        if (v < 0 || v > 1000000000)
            return tool_fail(TOOL_USAGE, "%s=%s: expected 0 to 1000000000", o->name,
                             text);
        *(int *)o->at = (int)v;
    }
    if (end == text || *end || errno)
        return tool_fail(TOOL_USAGE, "%s=%s: expected a number", o->name, text);
    return TOOL_OK;
}

static int
join(const tool_option *o, const char *text)
{
    static char all[1 << 16]; /* for as long as the tool runs */
    size_t n = strlen(all);

    if (n + strlen(text) + 2 > sizeof all)
        return tool_fail(TOOL_USAGE, "%s: too long", o->name);
    snprintf(all + n, sizeof all - n, "%s%s", n ? "," : "", text);
    *(const char **)o->at = all;
    return TOOL_OK;
}

static int
store(const tool_option *o, const char *text)
{
    if (o->kind == TOOL_FLAG) {
        *(int *)o->at = 1;
        return TOOL_OK;
    }
    if (o->kind == TOOL_INT || o->kind == TOOL_DOUBLE || o->kind == TOOL_LEVEL)
        return number(o, text);
    if (o->kind == TOOL_JOIN)
        return join(o, text);
    if (o->kind == TOOL_TEXT || o->kind == TOOL_MAYBE) {
        *(const char **)o->at = text;
        return TOOL_OK;
    }
    tool_list *l = o->at;
    const char **v = realloc(l->v, (size_t)(l->n + 1) * sizeof *v);
    if (!v)
        return tool_fail(TOOL_FAILED, "out of memory");
    l->v = v;
    l->v[l->n++] = text;
    return TOOL_OK;
}

/* "--name=value", "--name value", "--flag", "-O2", "-o value". */
static int
parse_one(const tool_option *o, int argc, char **argv, int *at)
{
    const char *arg = argv[*at];
    size_t n = strcspn(arg, "=");

    for (; o->name; o++) {
        if (o->kind == TOOL_LEVEL && !strncmp(arg, o->name, strlen(o->name)) &&
            strlen(arg) == 3)
            return store(o, arg + 2);
        if (strlen(o->name) != n || strncmp(arg, o->name, n))
            continue;
        if (o->kind == TOOL_FLAG && arg[n])
            return tool_fail(TOOL_USAGE, "%s takes no value", o->name);
        if (o->kind == TOOL_FLAG || o->kind == TOOL_MAYBE || arg[n])
            return store(o, arg + n + (arg[n] == '='));
        if (*at + 1 >= argc)
            return tool_fail(TOOL_USAGE, "%s needs a value", o->name);
        return store(o, argv[++*at]);
    }
    return -1;
}

static void
print_options(const char *title, const tool_option *o)
{
    if (o->name)
        printf("\n%s\n", title);
    for (; o->name; o++) {
        char left[64];
        bool maybe = o->kind == TOOL_MAYBE;
        snprintf(left, sizeof left, "%s%s%s%s%s", o->name, maybe ? "[" : "",
                 *o->arg && o->kind != TOOL_LEVEL ? "=" : "", o->arg, maybe ? "]" : "");
        printf("    %-24s %s\n", left, o->meaning);
    }
}

static int
check_knobs(const char *text)
{
    int knob[FG_NKNOBS], code = TOOL_OK;
    fg_ctx *cx = text ? fg_ctx_new(NULL) : NULL;

    if (text && !cx)
        return tool_fail(TOOL_FAILED, "out of memory");
    if (text && !fg_knobs_read(cx, "--codegen", text, knob))
        code = tool_fail(TOOL_USAGE, "%s; forge dump --list-passes shows them",
                         fg_first_error(cx));
    fg_ctx_free(cx);
    return code;
}

/* What the common options say, once all of them are known. */
static int
check_common(tool_common *c)
{
    if (c->o.opt > 3)
        return tool_fail(TOOL_USAGE, "-O%d: expected -O0 to -O3", c->o.opt);
    char *end = "";
    if (c->budget && (!isdigit((unsigned char)c->budget[0]) ||
                      !(c->mem_budget = strtoull(c->budget, &end, 10)) || *end))
        return tool_fail(TOOL_USAGE, "--mem-budget=%s: expected a number of bytes",
                         c->budget);
    if (!(c->o.alpha >= 0 && c->o.alpha <= 1))
        return tool_fail(TOOL_USAGE, "--alpha=%g: expected 0 to 1", c->o.alpha);
    if (tool_check_passes("--passes", c->o.passes, true) ||
        tool_check_passes("--skip", c->o.skip, false) || check_knobs(c->o.codegen))
        return TOOL_USAGE;
    fg_pipeline ignored;
    const char *why = fg_parse_precision(&c->o, &ignored);
    if (!why)
        why = fg_specials_wrong(c->o.variants);
    if (why)
        return tool_fail(TOOL_USAGE, "--%s", why);
    if (c->o.target && strcmp(c->o.target, "cpu"))
        return tool_fail(TOOL_USAGE, "--target=%s: this build has cpu", c->o.target);
    c->o.cache = !c->cache ? "" : strcmp(c->cache, "none") ? c->cache : NULL;
    return TOOL_OK;
}

static int
count_options(const tool_option *o)
{
    int n = 0;

    while (o[n].name)
        n++;
    return n;
}

static int
no_option(const char *verb, const char *given, const tool_option *own,
          const tool_option *common)
{
    size_t len = strcspn(given, "=");
    const char *near =
        fg_closest(given, len, own, (size_t)count_options(own), sizeof *own);

    if (!near)
        near =
            fg_closest(given, len, common, (size_t)count_options(common), sizeof *common);
    return tool_fail(TOOL_USAGE, "no option %s%s%s; see forge %s --help", given,
                     near ? "; did you mean " : "", near ? near : "", verb);
}

/* Options that stand in the text of --knobs, as if they stood in its place. */
static int
take_knobs(tool_common *c, const tool_option *common)
{
    enum { MOST = 64 };
    char *word[MOST];
    int n, code = tool_knobs_split(c->knobs, word, MOST, &n);

    c->knobs = NULL;
    for (int i = 0; i < n && !code; i++) {
        code = parse_one(common, n, word, &i);
        if (code < 0)
            return no_option("compile", word[i], common, common);
    }
    return code;
}

int
tool_parse(tool_common *c, const tool_option *own, const char *usage, int argc,
           char **argv)
{
    const tool_option common[] = {
        {"-O", TOOL_LEVEL, &c->o.opt, "0..3",
         "0: every operation by itself; 1: default; 2, 3: slower compile"},
        {"--target", TOOL_TEXT, &c->o.target, "cpu", "device to compile for"},
        {"--cpu", TOOL_TEXT, &c->o.cpu, "NAME",
         "native (default), x86-64-v3, znver4, .."},
        {"--mem-budget", TOOL_TEXT, &c->budget, "BYTES",
         "for tensors whose sizes are found while running"},
        {"--threads", TOOL_INT, &c->threads, "N",
         "threads of a run; default one per core"},
        {"--dim", TOOL_JOIN, &c->o.dims, "D=N,..",
         "fix a symbolic size, or bound it: seq=1..512, seq=1..128..512 with the usual "
         "one"},
        {"--variants", TOOL_TEXT, &c->o.variants, "D=N,..",
         "code of its own for sizes, beside that for all: seq=1,128, batch=1+seq=1"},
        {"--passes", TOOL_TEXT, &c->o.passes, "P,..",
         "passes to run instead of the level's; P{name=value}: with a parameter"},
        {"--rounds", TOOL_INT, &c->o.rounds, "N",
         "how often they run while something changes; default 2"},
        {"--skip", TOOL_TEXT, &c->o.skip, "P,..", "passes to leave out"},
        {"--codegen", TOOL_TEXT, &c->o.codegen, "K=N,..",
         "numbers of code generation: see forge dump --list-passes"},
        {"--knobs", TOOL_TEXT, &c->knobs, "TEXT|@FILE",
         "options as a report or forge tune writes them"},
        {"--precision", TOOL_TEXT, &c->o.precision, "TYPE",
         "weights of products in bf16, int8 or int4 (int4:64: groups of 64)"},
        {"--accuracy", TOOL_TEXT, &c->o.accuracy, "HOW",
         "of packed weights' activations: strict (f32), model (default), fast (8 bits)"},
        {"--alpha", TOOL_DOUBLE, &c->o.alpha, "0..1", "how eagerly attention is fused"},
        {"--check", TOOL_INT, &c->o.check, "0..2",
         "1: verify after each pass; 2: test passes' honesty too"},
        {"--report", TOOL_TEXT, &c->report, "FILE",
         "write what the compiler did as JSON"},
        {"--cache-dir", TOOL_TEXT, &c->cache, "DIR",
         "of compiled models, or none; default $XDG_CACHE_HOME/forge"},
        {"--no-compile", TOOL_FLAG, &c->o.no_compile, "",
         "run what is compiled already, or fail"},
        {"--help", TOOL_FLAG, &c->help, "", "this text"},
        {"--version", TOOL_FLAG, &c->version, "", "the version of forge"},
        {NULL, TOOL_FLAG, NULL, NULL, NULL}};

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-h")) {
            c->help = 1;
            continue;
        }
        if (argv[i][0] != '-' || !argv[i][1]) {
            if (c->model)
                return tool_fail(TOOL_USAGE, "one model at a time: %s or %s", c->model,
                                 argv[i]);
            c->model = argv[i];
            continue;
        }
        int code = parse_one(own, argc, argv, &i);
        if (code < 0)
            code = parse_one(common, argc, argv, &i);
        if (code < 0)
            return no_option(argv[0], argv[i], own, common);
        if (code || (c->knobs && (code = take_knobs(c, common))))
            return code;
    }
    if (c->version)
        printf("forge %s\n", forge_version());
    if (c->help) {
        printf("%s\n", usage);
        print_options("Of this verb:", own);
        print_options("Of every verb:", common);
    }
    return c->help || c->version ? -1 : check_common(c);
}

int
tool_check_passes(const char *option, const char *list, bool run)
{
    fg_ctx *cx = list ? fg_ctx_new(NULL) : NULL;
    int code = TOOL_OK;

    if (list && !cx)
        return tool_fail(TOOL_FAILED, "out of memory");
    if (list && !(run ? fg_check_passes : fg_check_names)(cx, option, list))
        code = tool_fail(TOOL_USAGE, "%s; forge dump --list-passes shows them",
                         fg_first_error(cx));
    fg_ctx_free(cx);
    return code;
}

/* ---- models and files ----------------------------------------------------------------- */

int
tool_write(const char *path, const void *head, size_t nhead, const void *data, size_t n)
{
    fg_outfile f;

    if (fg_outfile_open(&f, path, false)) {
        fg_outfile_put(&f, head, nhead);
        fg_outfile_put(&f, data, n);
    }
    if (!f.error && fg_outfile_commit(&f))
        return TOOL_OK;
    return tool_fail(TOOL_FAILED, "%s: %s", path, strerror(f.error));
}

static void
log_line(void *user, const char *line)
{
    (void)user;
    put_line(line);
}

forge_ctx *
tool_open(void)
{
    const forge_config c = {.size = sizeof c, .log = log_line};
    forge_ctx *cx;

    if (!forge_open(&c, &cx))
        return cx;
    tool_fail(TOOL_FAILED, "out of memory");
    return NULL;
}

static int
write_report(const tool_common *c, const forge_model *m)
{
    const char *text = forge_model_report(m);

    return c->report ? tool_write(c->report, text, strlen(text), NULL, 0) : TOOL_OK;
}

bool
tool_is_artifact(const char *path)
{
    size_t n = strlen(path);

    return n >= 6 && !strcmp(path + n - 6, ".forge");
}

/* What a .forge file was compiled with cannot be changed when it is run. */
static int
fixed_options(const tool_common *c)
{
    forge_options d;

    forge_options_init(&d);
    const struct {
        const char *option;
        bool given;
    } row[] = {{"-O", c->o.opt != d.opt},
               {"--cpu", c->o.cpu},
               {"--passes", c->o.passes},
               {"--skip", c->o.skip},
               {"--dim", c->o.dims},
               {"--variants", c->o.variants},
               {"--check", c->o.check},
               {"--alpha", c->o.alpha < d.alpha},
               {"--rounds", c->o.rounds},
               {"--codegen", c->o.codegen},
               {"--precision", c->o.precision},
               {"--accuracy", c->o.accuracy}};
    for (size_t k = 0; k < sizeof row / sizeof *row; k++)
        if (row[k].given)
            return tool_fail(TOOL_USAGE, "%.400s is compiled: %s is for forge compile",
                             c->model, row[k].option);
    return TOOL_OK;
}

int
tool_compile(forge_ctx *cx, const tool_common *c, forge_model **out)
{
    if (!c->model)
        return tool_fail(TOOL_USAGE, "a model is missing");
    bool artifact = tool_is_artifact(c->model);
    if (artifact && fixed_options(c))
        return TOOL_USAGE;
    tool_progress_begin(artifact ? "loading" : "compiling", c->model);
    forge_status s = artifact ? forge_load_file(cx, c->model, NULL, out)
                              : forge_compile_file(cx, c->model, &c->o, out);
    tool_progress_end();
    if (s)
        return tool_fail_file(TOOL_FAILED, c->model, "%s", forge_message(cx));
    return write_report(c, *out);
}
