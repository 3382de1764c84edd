/* emit.c - forge compile --emit: kernels as text, and models as objects and libraries.
 *
 * An object carries the whole .forge file, so a program that links with it and with
 * libforge_rt has code for several CPUs, tables and weights, and opens no file:
 *
 *     forge compile bert.onnx --emit=obj -o bert.o      writes bert.o and bert.h
 *     cc host.c bert.o -lforge_rt                       calls bert_open(cx, NULL, &model)
 */
#include "tools/emit.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen/compile.h"
#include "codegen/outfile.h"
#include "codegen/source.h"

extern char **environ;

static int emit_forge(forge_ctx *cx, const emit_job *j),
    emit_obj(forge_ctx *, const emit_job *), emit_lib(forge_ctx *, const emit_job *),
    emit_text(forge_ctx *, const emit_job *), emit_c(forge_ctx *, const emit_job *);

const char *const emit_kinds[] = {"forge", "obj", "lib", "c", "ll", "asm", NULL};
static const struct {
    const char *suffix;
    int (*make)(forge_ctx *cx, const emit_job *j);
} kinds[] = {{".forge", emit_forge}, {".o", emit_obj},   {".so", emit_lib},
             {".c", emit_c},         {".ll", emit_text}, {".s", emit_text}};

static int
kind_of(const char *name)
{
    int k = 0;

    while (emit_kinds[k] && strcmp(emit_kinds[k], name))
        k++;
    return k;
}

const char *
emit_suffix(const char *kind)
{
    return kinds[kind_of(kind)].suffix;
}

int
emit(forge_ctx *cx, const emit_job *j)
{
    return kinds[kind_of(j->kind)].make(cx, j);
}

void
emit_symbol(const char *path, char *out, size_t n)
{
    const char *base = strrchr(path, '/');
    size_t k = 0;

    base = base ? base + 1 : path;
    if (!strncmp(base, "lib", 3) && strstr(base, ".so"))
        base += 3;
    if (isdigit((unsigned char)*base))
        out[k++] = '_';
    for (; *base && *base != '.' && k + 1 < n; base++)
        out[k++] = (char)(isalnum((unsigned char)*base) ? *base : '_');
    out[k] = '\0';
}

static int
emit_forge(forge_ctx *cx, const emit_job *j)
{
    if (forge_compile_to_file(cx, j->c->model, &j->c->o, j->save, j->out))
        return tool_fail_file(TOOL_FAILED, j->c->model, "%s", forge_message(cx));
    return TOOL_OK;
}

/* ---- kernels as text, the model as C ------------------------------------------------------ */

typedef struct text_job {
    const emit_job *j;
    fg_compiled c;
    bool done;
} text_job;

static void
make_text(void *arg)
{
    text_job *t = arg;
    const emit_job *j = t->j;
    forge_options o = j->c->o;

    o.cpu = j->save->cpus;
    t->c.no_link = true;
    if (!fg_compile_load(&t->c, j->c->model, &o) || !fg_compile_passes(&t->c, &o) ||
        !fg_compile_code(&t->c, &o, true))
        return;
    const char *text = fg_cpu_text(t->c.code, !strcmp(j->kind, "asm"));
    text = text ? text : "";
    t->done = tool_write(j->out, text, strlen(text), NULL, 0) == TOOL_OK;
}

/* NAME.h or NAME.bin, beside the result. */
static const char *
beside(const emit_job *j, const char *suffix, char *out, size_t n)
{
    const char *slash = strrchr(j->out, '/');

    snprintf(out, n, "%.*s%s%s", slash ? (int)(slash + 1 - j->out) : 0, j->out, j->symbol,
             suffix);
    return out;
}

static bool
write_weights(fg_ctx *cx, const emit_job *j, const fg_source_text *t)
{
    char path[4096];
    fg_outfile f;

    if (!fg_outfile_open(&f, beside(j, ".bin", path, sizeof path), false))
        return fg_error(cx, "%.400s: %s", path, strerror(f.error));
    for (int k = 0; k < t->nweight; k++) {
        fg_outfile_pad(&f, t->weight[k].offset);
        fg_outfile_put(&f, t->weight[k].data, t->weight[k].bytes);
    }
    fg_outfile_pad(&f, t->bytes);
    return fg_outfile_commit(&f) || fg_error(cx, "%.400s: %s", path, strerror(f.error));
}

static void
make_c(void *arg)
{
    text_job *t = arg;
    const emit_job *j = t->j;
    forge_options o = j->c->o;
    fg_source_text text;
    char path[4096];

    /* Panels are for vectors, and caches in place for a runtime that keeps them. */
    char skip[400];
    snprintf(skip, sizeof skip, "pack,states%s%.300s", o.skip ? "," : "",
             o.skip ? o.skip : "");
    o.skip = skip;
    if (!fg_compile_load(&t->c, j->c->model, &o) || !fg_compile_passes(&t->c, &o) ||
        !fg_source_make(t->c.m, t->c.a, j->symbol, &t->c.specials, &text) ||
        !write_weights(t->c.cx, j, &text))
        return;
    t->done = !tool_write(beside(j, ".h", path, sizeof path), text.header,
                          strlen(text.header), NULL, 0) &&
              !tool_write(j->out, text.source, strlen(text.source), NULL, 0);
}

static int
make(const emit_job *j, void (*work)(void *arg))
{
    text_job t = {.j = j, .c = {.cx = fg_ctx_new(NULL)}};

    if (!t.c.cx)
        return tool_fail(TOOL_FAILED, "out of memory");
    fg_raise how = fg_protect(t.c.cx, work, &t);
    const char *why = how == FG_RAISE_MEMORY ? "out of memory" : fg_first_error(t.c.cx);
    if ((how || !t.done) && *why)
        tool_fail_file(TOOL_FAILED, j->c->model, "%s", why);
    fg_compiled_free(&t.c);
    return how == FG_RAISE_NONE && t.done ? TOOL_OK : TOOL_FAILED;
}

static int
emit_text(forge_ctx *cx, const emit_job *j)
{
    (void)cx;
    return make(j, make_text);
}

static int
emit_c(forge_ctx *cx, const emit_job *j)
{
    (void)cx;
    return make(j, make_c);
}

/* ---- objects ----------------------------------------------------------------------------- */

static const char header[] =
    "/* %s - a model for libforge_rt, made by forge " FORGE_VERSION ".\n"
    " *\n"
    " * %s_open gives the model as forge_load_file does; o may be NULL. It may be called "
    "any\n"
    " * number of times, in any thread (a context for each); weights are not copied.\n"
    " */\n"
    "#ifndef %s_FORGE_MODEL\n"
    "#define %s_FORGE_MODEL\n"
    "\n"
    "#include <forge.h>\n"
    "\n"
    "#ifdef __cplusplus\n"
    "extern \"C\"\n"
    "#endif\n"
    "forge_status %s_open(forge_ctx *cx, const forge_load_options *o, forge_model "
    "**out);\n"
    "\n"
    "#endif\n";

/* bert.h for bert.o and libbert.so. */
static int
write_header(const emit_job *j)
{
    char path[4096], text[4096];
    const char *s = j->symbol;

    beside(j, ".h", path, sizeof path);
    const char *slash = strrchr(path, '/');
    int n = snprintf(text, sizeof text, header, slash ? slash + 1 : path, s, s, s, s);
    return tool_write(path, text, (size_t)n, NULL, 0);
}

typedef struct embed_job {
    const emit_job *j;
    fg_ctx *cx;
    const char *image, *out;
    uint64_t bytes;
    bool done;
} embed_job;

static void
embed(void *arg)
{
    embed_job *e = arg;

    /* The function itself needs the least of what the kernels are for. */
    e->done = fg_cpu_embed(e->cx, fg_cpu_least(e->j->save->cpus), e->image, e->bytes,
                           e->j->symbol, e->out);
}

/* The object of the .forge file `image` to `out`. */
static int
embed_image(const emit_job *j, const char *image, const char *out)
{
    struct stat st;
    embed_job e = {.j = j, .cx = fg_ctx_new(NULL), .image = image, .out = out};

    if (!e.cx)
        return tool_fail(TOOL_FAILED, "out of memory");
    if (stat(image, &st))
        return tool_fail(TOOL_FAILED, "%s: %s", image, strerror(errno));
    e.bytes = (uint64_t)st.st_size;
    /* Code reaches the image by a signed distance of 32 bits. */
    if (e.bytes >> 31)
        fg_error(e.cx,
                 "%.400s: the model is larger than 2 GiB: keep its weights in its "
                 "files (--weights=model)",
                 j->c->model);
    else if (fg_protect(e.cx, embed, &e) != FG_RAISE_NONE)
        e.done = false;
    if (!e.done)
        tool_fail_file(TOOL_FAILED, j->out, "%s", fg_first_error(e.cx));
    fg_ctx_free(e.cx);
    return e.done ? TOOL_OK : TOOL_FAILED;
}

/* Runs a program without its messages; its exit status, or -1 when it is not there. */
static int
run(const char *const *argv)
{
    posix_spawn_file_actions_t quiet;
    pid_t pid;
    int status;

    if (posix_spawn_file_actions_init(&quiet))
        return -1;
    posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
    status = posix_spawnp(&pid, argv[0], &quiet, NULL, (char *const *)(uintptr_t)argv,
                          environ);
    posix_spawn_file_actions_destroy(&quiet);
    if (status)
        return -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int
link_library(const emit_job *j, const char *object, const char *out)
{
    const char *own = getenv("CC");
    const char *const linkers[] = {own && *own ? own : "cc", "gcc", "clang", "clang-19"};
    const char *base = strrchr(j->out, '/');
    char soname[4096];

    snprintf(soname, sizeof soname, "-Wl,-soname,%s", base ? base + 1 : j->out);
    for (size_t k = 0; k < sizeof linkers / sizeof *linkers; k++) {
        const char *argv[] = {
            linkers[k], "-shared", "-nostdlib", soname, "-Wl,-z,noexecstack",
            object,     "-o",      out,         NULL};
        int status = run(argv);
        /* A shell's word for a program that is not there, too. */
        if (status == -1 || status == 127)
            continue;
        return status ? tool_fail(TOOL_FAILED,
                                  "%.400s: %s could not link it; is it for that kind of "
                                  "machine? $CC names another",
                                  j->out, linkers[k])
                      : TOOL_OK;
    }
    return tool_fail(
        TOOL_FAILED,
        "%.400s: no C compiler to link with: cc, gcc and clang are not there "
        "(or name one in $CC; --emit=obj needs none)",
        j->out);
}

/* Whether `rest`, of a file's name behind "OUT.", is that of a run of ours that is no more. */
static bool
is_left_over(const char *rest)
{
    static const char *const suffix[] = {".forge", ".o", ".so"};
    char *end;
    long pid = isdigit((unsigned char)*rest) ? strtol(rest, &end, 10) : 0;

    if (pid <= 0 || (!kill((pid_t)pid, 0) || errno != ESRCH))
        return false;
    for (size_t k = 0; k < sizeof suffix / sizeof *suffix; k++)
        if (!strcmp(end, suffix[k]))
            return true;
    return !strncmp(end, ".forge.", 7) && strlen(end) > 4 &&
           !strcmp(end + strlen(end) - 4, ".tmp");
}

/* What runs that were killed have left beside `out`. */
static void
drop_left_overs(const char *out)
{
    char path[4096];
    const char *base = strrchr(out, '/');
    size_t folder = base ? (size_t)(base + 1 - out) : 0, n;

    base = out + folder;
    n = strlen(base);
    snprintf(path, sizeof path, "%.*s", (int)folder, folder ? out : "");
    DIR *d = opendir(folder ? path : ".");
    for (struct dirent *e; d && (e = readdir(d));)
        if (!strncmp(e->d_name, base, n) && e->d_name[n] == '.' &&
            is_left_over(e->d_name + n + 1)) {
            snprintf(path, sizeof path, "%.*s%s", (int)folder, out, e->d_name);
            unlink(path);
        }
    if (d)
        closedir(d);
}

static int
emit_linked(forge_ctx *cx, const emit_job *j, bool library)
{
    char image[4096], object[4096], whole[4096];
    long pid = (long)getpid();

    /* Beside the result, where there is room for it, and a rename makes it appear whole. */
    if (snprintf(image, sizeof image, "%s.%ld.forge", j->out, pid) >= (int)sizeof image)
        return tool_fail(TOOL_FAILED, "%.400s: the name is too long", j->out);
    snprintf(object, sizeof object, "%s.%ld.o", j->out, pid);
    snprintf(whole, sizeof whole, "%s.%ld.so", j->out, pid);
    drop_left_overs(j->out);
    const char *result = library ? whole : object;
    emit_job inner = *j;
    inner.out = image;
    int code = emit_forge(cx, &inner);
    if (!code)
        code = embed_image(j, image, object);
    unlink(image);
    if (!code && library)
        code = link_library(j, object, whole);
    if (!code && rename(result, j->out))
        code = tool_fail(TOOL_FAILED, "%s: %s", j->out, strerror(errno));
    unlink(object);
    unlink(whole);
    return code ? code : write_header(j);
}

static int
emit_obj(forge_ctx *cx, const emit_job *j)
{
    return emit_linked(cx, j, false);
}

static int
emit_lib(forge_ctx *cx, const emit_job *j)
{
    return emit_linked(cx, j, true);
}
