/* artifact.c - .forge files whose digests are right and whose contents are not: every byte
 * of tables and objects may lie. Loading and binding either work or say what is wrong.
 * Also: what is written is read back, requirement texts, digests. Prints `N passed,
 * N failed`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen/outfile.h"
#include "runtime/artifact.h"
#include "tests/unit/expect.h"

/* ---- a host with little memory: sizes that lie must not get far -------------------------- */

static void *
host_alloc(void *user, size_t n)
{
    (void)user;
    return n > (size_t)64 << 20 ? NULL : malloc(n);
}

static void
host_release(void *user, void *p)
{
    (void)user;
    free(p);
}

/* ---- files ---------------------------------------------------------------------------------- */

typedef struct file {
    uint8_t *data;
    size_t n;
} file;

static file
read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    file r = {malloc(1 << 22), 0};

    if (f && r.data) {
        r.n = fread(r.data, 1, 1 << 22, f);
        fclose(f);
    }
    return r;
}

static uint64_t
number(const uint8_t *p, int bytes)
{
    uint64_t v = 0;

    for (int k = 0; k < bytes; k++)
        v |= (uint64_t)p[k] << 8 * k;
    return v;
}

/* Row k of the table of sections. */
static uint8_t *
row(file f, uint32_t k)
{
    return f.data + FG_ARTIFACT_HEAD + (size_t)k * FG_ARTIFACT_ROW;
}

/* Makes all digests right again. */
static void
seal(file f)
{
    uint32_t n = (uint32_t)number(f.data + 12, 4);
    fg_digest d;

    for (uint32_t k = 0; k < n; k++) {
        d = fg_digest_of(f.data + number(row(f, k) + 8, 8), number(row(f, k) + 16, 8));
        memcpy(row(f, k) + 24, &d, sizeof d);
    }
    d = fg_digest_join(fg_digest_of(f.data, 24), row(f, 0), (size_t)n * FG_ARTIFACT_ROW);
    memcpy(f.data + 24, &d, sizeof d);
}

/* Loads what is in memory, binds shapes to every input, plans; does not run it. */
static forge_status
load(forge_ctx *cx, file f)
{
    static const char data[1 << 16];
    char path[40];
    forge_model *m = NULL;
    forge_run *r = NULL;
    int fd = memfd_create("artifact", MFD_CLOEXEC);
    bool written = write(fd, f.data, f.n) == (ssize_t)f.n;

    expect(written, "a file in memory", "");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    forge_status s = forge_load_file(cx, path, NULL, &m);
    close(fd);
    if (!s)
        s = forge_run_new(cx, m, &r);
    for (int i = 0; !s && i < forge_model_inputs(m); i++) {
        forge_dtype t;
        int rank;
        const char *name = forge_model_input(m, i, &t, &rank), *text;
        int64_t dims[12];
        for (int x = 0; x < rank; x++) {
            dims[x] = forge_model_input_dim(m, i, x, &text);
            if (dims[x] < 0) /* a batch of 1, lengths of 3, sums of two lengths */
                dims[x] = !x ? 1 : strchr(text, '+') ? 6 : 3;
        }
        s = forge_bind_input(r, name, t, rank, dims, data);
    }
    if (!s)
        s = forge_run_threads(r, 1);
    if (!s)
        s = fg_prepare(r);
    if (s && !*forge_message(cx))
        expect(false, "a failure has a message", forge_status_text(s));
    forge_run_free(r);
    forge_model_free(m);
    return s;
}

/* The same bytes in the host's memory: run from there, weights included, and left alone. */
static void
test_memory(forge_ctx *cx, file f)
{
    size_t room = (f.n + 4095) & ~(size_t)4095;
    char *copy =
        mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    forge_model *m = NULL;

    memcpy(copy, f.data, f.n);
    mprotect(copy, room, PROT_READ);
    expect(!forge_load_memory(cx, copy, f.n, NULL, &m), "in memory", forge_message(cx));
    const fg_program *p = m ? m->program : NULL;
    for (uint32_t k = 0; p && k < p->ntensor; k++) {
        const char *data = p->tensor[k].data;
        if (p->tensor[k].storage == FG_ST_CONST && data)
            expect(data >= copy && data < copy + f.n, "a weight was copied",
                   p->tensor[k].name);
    }
    forge_model_free(m);
    expect(!memcmp(copy, f.data, f.n), "the host's memory stays", "");
    expect(forge_load_memory(cx, copy, f.n - 1, NULL, &m) == FORGE_INVALID &&
               strstr(forge_message(cx), "model in memory"),
           "cut off in memory", forge_message(cx));
    expect(forge_load_memory(cx, copy + 8, f.n - 8, NULL, &m) == FORGE_USAGE,
           "not aligned", forge_message(cx));
    expect(forge_load_memory(cx, NULL, 0, NULL, &m) == FORGE_USAGE, "no memory", "");
    munmap(copy, room);
}

static uint64_t
next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* A byte of a section that is not the report. */
static size_t
somewhere(file f, uint64_t *state)
{
    for (;;) {
        uint32_t n = (uint32_t)number(f.data + 12, 4), k = (uint32_t)(next(state) % n);
        uint64_t bytes = number(row(f, k) + 16, 8);
        if (number(row(f, k), 4) != FG_SECTION_REPORT && bytes)
            return number(row(f, k) + 8, 8) + next(state) % bytes;
    }
}

static void
lies(forge_ctx *cx, file good, const char *name)
{
    static const uint8_t odd[] = {0, 1, 2, 3, 0x7f, 0x80, 0xff, 0xfe};
    file f = {malloc(good.n), good.n};
    int loaded = 0;

    for (uint64_t k = 0; k < 4000; k++) {
        uint64_t state = k * 77 + 5;
        memcpy(f.data, good.data, good.n);
        for (int n = 1 + (int)(next(&state) % 3); n; n--) {
            size_t at = somewhere(f, &state);
            f.data[at] = next(&state) % 2 ? odd[next(&state) % sizeof odd]
                                          : f.data[at] ^ (uint8_t)(1 << next(&state) % 8);
        }
        if (k % 10 == 0) /* the table of sections itself */
            row(f, 0)[next(&state) % 40 % (FG_ARTIFACT_ROW - 24)] ^= 1;
        if (number(row(f, 0) + 8, 8) < good.n && number(row(f, 0) + 16, 8) < good.n / 2)
            seal(f);
        loaded += load(cx, f) == FORGE_OK;
    }
    printf("%s: %d of 4000 changed files load\n", name, loaded);
    expect(loaded < 4000, "some changes are found", name);
    free(f.data);
}

/* ---- the rest --------------------------------------------------------------------------------- */

static void
test_requirements(void)
{
    static const struct {
        int version; /* beyond this one's */
        const char *rest;
        forge_fit fit;
    } row[] = {{0, "", FORGE_FIT_OTHER},
               {0, " sparc-vms baseline", FORGE_FIT_OTHER},
               {0, " x86_64-linux ", FORGE_FIT_UNSUPPORTED},
               {0, " x86_64-linux x86-64-v9", FORGE_FIT_UNSUPPORTED},
               {0, " x86_64-linux x86-64+teleport", FORGE_FIT_UNSUPPORTED},
               {1, " x86_64-linux x86-64", FORGE_FIT_UNSUPPORTED},
               {0, " x86_64-linux x86-64", FORGE_FIT_RECOMPILE},
               {0, " x86_64-linux x86-64-v9|x86-64", FORGE_FIT_RECOMPILE}};
    char own[800], text[900];
    fg_isa set;

    for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
        snprintf(text, sizeof text, "forge-%d%s", FG_ARTIFACT_VERSION + row[k].version,
                 row[k].rest);
        expect(forge_requirement_fit(text) == row[k].fit, "requirement", text);
    }
    expect(forge_requirement_fit("") == FORGE_FIT_OTHER, "no requirement", "");
    expect(forge_requirement_fit("forge") == FORGE_FIT_OTHER, "no version", "");
    expect(fg_isa_text(fg_isa_host(), own, sizeof own), "this machine as text", "");
    expect(fg_isa_parse(own, strlen(own), &set) && set == fg_isa_host(), "and back", own);
    snprintf(text, sizeof text, "forge-%d %s x86-64|%s", FG_ARTIFACT_VERSION,
             fg_isa_platform(), own);
    expect(forge_requirement_fit(text) == FORGE_FIT_OPTIMAL, "its own code suits", text);
}

/* No two of some thousand near-equal blocks agree in either half of the digest. */
static void
test_digests(void)
{
    enum { BLOCKS = 3000 };
    static uint64_t half[2][BLOCKS];
    uint8_t block[200] = {0};
    int same = 0;

    for (int k = 0; k < BLOCKS; k++) {
        size_t bit = (size_t)k % 1600;
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
        fg_digest d = fg_digest_of(block, k < 1600 ? 200 : 199);
        block[bit / 8] ^= (uint8_t)(k < 1600 ? 1 << bit % 8 : 0);
        memcpy(&half[0][k], d.b, 8);
        memcpy(&half[1][k], d.b + 8, 8);
        for (int j = 0; j < k; j++)
            same += half[0][k] == half[0][j] || half[1][k] == half[1][j];
    }
    expect(same == 0, "digests differ", "");
    fg_digest a = fg_digest_of("", 0), b = fg_digest_of("\0", 1);
    expect(!fg_digest_same(&a, &b), "nothing and a zero", "");
}

static const char program[] =
    "func @main(%n: i64[], %x: f32[3], %c: bool[]) -> f32[3], f32[3] {\n"
    "  %m = neg %x : f32[3]\n"
    "  %a, %b = loop %n, _, %x, %m {carried=2} : f32[3], f32[3]"
    " (%i: i64[], %go: bool[], %p: f32[3], %q: f32[3]) {\n"
    "    %s = add %p, %p : f32[3]\n"
    "    yield %go, %q, %s\n"
    "  }\n"
    "  %y = if %c : f32[3] {\n"
    "    %t = exp %a : f32[3]\n"
    "    yield %t\n"
    "  } else {\n"
    "    yield %b\n"
    "  }\n"
    "  ret %y, %b\n"
    "}\n";

/* A weight that the first run cuts into panels. */
static const char packed[] = "$0 = f32[64,128] splat 0.5\n"
                             "func @main(%x: f32[3,64]) -> f32[3,128] {\n"
                             "  %w = const {w=$0} : f32[64,128]\n"
                             "  %y = matmul %x, %w : f32[3,128]\n"
                             "  ret %y\n"
                             "}\n";

/* Blocks of a file reach the system whole, so that it keeps them in large pages, and are mapped
 * where it can map such a page at once. */
static void
test_blocks(const char *path)
{
    static const size_t piece[] = {7, 4096, 3 << 20, 1, (2 << 20) - 8, 5 << 20, 0, 99999};
    enum { PIECES = sizeof piece / sizeof *piece };
    uint8_t *data = malloc(12 << 20);
    uint64_t at = 0, state = 1;
    const char *why = "";
    fg_filemap map;
    fg_outfile f;

    for (size_t k = 0; k < (size_t)12 << 20; k++)
        data[k] = (uint8_t)next(&state);
    bool open = fg_outfile_open(&f, path, true);
    expect(open, "a file is opened", strerror(f.error));
    for (int k = 0; k < PIECES; at += piece[k++]) {
        fg_outfile_put(&f, data + at, piece[k]);
        expect(lseek(f.fd, 0, SEEK_END) % FG_OUTFILE_BLOCK == 0, "whole blocks", "");
    }
    fg_outfile_pad(&f, at + 5000);
    memset(data + at, 0, 5000);
    expect(fg_outfile_commit(&f), "a file is written", strerror(f.error));
    expect(fg_map_file(path, &map, &why) && map.size == at + 5000, "its length", why);
    expect(!memcmp(map.data, data, map.size), "its bytes", "");
    expect((uintptr_t)map.data % FG_LARGE_PAGE == 0, "where it is mapped", "");
    fg_unmap_file(&map);
    unlink(path);
    free(data);
}

/* What the first run has packed it does not take from memory that is the host's. */
static void
test_packing(forge_ctx *cx, file f)
{
    char *copy = NULL;
    static const float x[3 * 64] = {1};
    const int64_t dims[] = {3, 64};
    forge_model *m = NULL;
    forge_run *r = NULL;

    expect(!posix_memalign((void **)&copy, 4096, f.n), "memory", "");
    memcpy(copy, f.data, f.n);
    expect(!forge_load_memory(cx, copy, f.n, NULL, &m) && m->program->once, "packs",
           forge_message(cx));
    expect(!forge_run_new(cx, m, &r) &&
               !forge_bind_input(r, "x", FORGE_F32, 2, dims, x) && !forge_execute(r),
           "a run", forge_message(cx));
    const float *y = forge_output(r, "y", NULL, NULL, NULL);
    expect(y && y[0] == 0.5f, "what it computes", "");
    forge_run_free(r);
    forge_model_free(m);
    expect(!memcmp(copy, f.data, f.n), "the host's memory stays", "");
    free(copy);
}

static void
write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    fputs(text, f);
    fclose(f);
}

int
main(int argc, char **argv)
{
    const forge_config c = {
        .size = sizeof c, .alloc = host_alloc, .release = host_release};
    const char *model = argc > 1 ? argv[1] : "tests/models/gpt2-kv-ts17/model.onnx";
    const forge_save_options lend = {.size = sizeof lend, .borrow = 1};
    forge_options sized;
    char folder[] = "/tmp/forge-artifact-XXXXXX", text[2][60], path[60];
    forge_ctx *cx, *compiler;

    test_requirements();
    test_digests();
    expect(!forge_open(&c, &cx) && !forge_open(NULL, &compiler) && mkdtemp(folder),
           "open", "");
    snprintf(path, sizeof path, "%s/it.forge", folder);
    snprintf(text[0], sizeof text[0], "%s/control.fir", folder);
    snprintf(text[1], sizeof text[1], "%s/packed.fir", folder);
    write_text(text[0], program);
    write_text(text[1], packed);
    const char *from[] = {model, text[0], text[1]};
    forge_options_init(&sized);
    sized.variants = "sequence=3,batch=1+sequence=1"; /* the first is what load() binds */
    for (int k = 0; k < 3; k++) {
        expect(!forge_compile_to_file(compiler, from[k], k ? NULL : &sized,
                                      k == 2 ? &lend : NULL, path),
               from[k], forge_message(compiler));
        file good = read_file(path);
        if (!good.n)
            continue;
        expect(load(cx, good) == FORGE_OK, "as written", forge_message(cx));
        test_memory(cx, good);
        if (k == 2)
            test_packing(cx, good);
        lies(cx, good, from[k]);
        free(good.data);
        unlink(path);
    }
    test_blocks(path);
    unlink(text[0]);
    unlink(text[1]);
    rmdir(folder);
    forge_close(cx);
    forge_close(compiler);
    return verdict();
}
