/* forge.h - compile transformer models to native code and run them.
 *
 *     forge_ctx *cx; forge_model *m; forge_run *r;
 *     forge_open(NULL, &cx);
 *     if (forge_compile_file(cx, "bert.onnx", NULL, &m))
 *         die(forge_message(cx));
 *     forge_run_new(cx, m, &r);
 *     int64_t dims[] = {1, 9};
 *     forge_bind_input(r, "input_ids", FORGE_I64, 2, dims, ids);
 *     forge_execute(r);
 *     const float *out = forge_output(r, "last_hidden_state", NULL, NULL, NULL);
 *
 * Ownership   What comes through an out pointer is the caller's and goes back through
 *             the matching _free (forge_close for a context); every _free takes NULL.
 *             Pointers handed in are read during the call only, unless the comment says
 *             "borrowed until".
 * Threads     No global state. A forge_model is immutable and may be shared, after the
 *             context that made it is closed too; a forge_ctx or forge_run belongs to one
 *             thread at a time. Several runs at once: a context for each thread.
 * Errors      FORGE_OK or a code; on failure out pointers are untouched and forge_message()
 *             tells the whole story in one line, ONNX node included.
 * Shapes      int64 dims, row-major and packed; sizes in bytes.
 */
#ifndef FORGE_H
#define FORGE_H

/* clang-format off: members and their comments stand in columns */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FORGE_API __attribute__((visibility("default")))
#else
#define FORGE_API
#endif

#define FORGE_VERSION "0.1.0"

#define FORGE_STATUSES(X)                                                                \
    X(OK, "success")                                                                     \
    X(INVALID, "the model or the data is wrong")                                         \
    X(UNSUPPORTED, "the model needs something that is not implemented")                  \
    X(USAGE, "the call is wrong")                                                        \
    X(IO, "a file could not be read or written")                                         \
    X(OUT_OF_MEMORY, "out of memory")                                                    \
    X(INTERNAL, "a bug in forge")
typedef enum {
#define X(id, text) FORGE_##id,
    FORGE_STATUSES(X)
#undef X
} forge_status;

/* Element types, in the order of the compiler's own list. 4-bit types are packed, first element in
 * the low bits. */
typedef enum {
    FORGE_NONE,
    FORGE_F32,
    FORGE_F64,
    FORGE_F16,
    FORGE_BF16,
    FORGE_I64,
    FORGE_I32,
    FORGE_I16,
    FORGE_I8,
    FORGE_I4,
    FORGE_U64,
    FORGE_U32,
    FORGE_U16,
    FORGE_U8,
    FORGE_U4,
    FORGE_BOOL
} forge_dtype;

typedef struct forge_ctx forge_ctx;     /* settings, memory, diagnostics */
typedef struct forge_model forge_model; /* compiled code and weights     */
typedef struct forge_run forge_run;     /* one execution in flight       */
typedef struct forge_state forge_state; /* caches kept between runs      */

typedef struct forge_config {
    size_t size; /* sizeof(forge_config) */
    /* Called by the thread that makes the call; a model whose runs are in several threads calls them
     * from any of these. */
    void *(*alloc)(void *user, size_t bytes); /* NULL: malloc */
    void (*release)(void *user, void *p);
    void *user;
    /* One line about something that went on in spite of trouble; NULL: not told. */
    void (*log)(void *user, const char *line);
    /* Who is told which kernel, and which ONNX node, generated code belongs to: "perf" (the file
     * /tmp/perf-PID.map), "gdb" (a list of its own, one in a process), or both; "": nobody.
     * NULL: what $FORGE_CODE_NAMES says. */
    const char *code_names;
} forge_config;

typedef struct forge_options {
    size_t size;        /* sizeof(forge_options), set by forge_options_init */
    const char *target; /* "cpu"                                            */
    const char *cpu;    /* NULL: this machine; "znver4", "aarch64+dotprod" */
    const char *passes; /* pipeline text; NULL: the one for opt             */
    const char *skip;   /* passes never run, comma separated                */
    const char *dims;   /* "batch=1,seq=1..128..4096": fixed; or bounds, and the
                           usual size between them that is planned for     */
    int opt;            /* 0 straight through, 1 default, 2..3 slow compile */
    int check;          /* 0 none, 1 verify each pass, 2 also honesty       */
    double alpha;       /* 0..1: attention fusion                           */
    int rounds;         /* of the passes, at most; 0: 2                     */
    /* Folder of compiled models, shared by processes and kept below 2 GiB; "": the user's,
     * $XDG_CACHE_HOME/forge; NULL: none. What is in it is run, as a .forge file is: it is not used
     * unless this user (or root) owns it and nobody else may write to it. */
    const char *cache;
    int no_compile; /* 1: from the cache or not at all */
    /* Weights of products: "f32" (NULL: as the model has them), "bf16", "int8", "int4"; integers
     * share a scale by groups of 32, or "int4:64", "int4:128". Activations that meet packed
     * weights: "strict" (f32), "model" (NULL: 8 bits where the model's accuracy_level
     * allows it or precision is int8 or int4), "fast" (always 8 bits). */
    const char *precision, *accuracy;
    const char
        *codegen; /* numbers of code generation, "rows=5,few=4"; NULL: the usual ones */
    /* Sizes that kernels get code of their own for, beside that for all sizes: "sequence=1,128",
     * "batch=1+sequence=1,8" (+: both at once). What fits the bound shapes is chosen when a
     * model runs; memory, weights and states are the same. NULL: none. */
    const char *variants;
} forge_options;

typedef struct forge_save_options {
    size_t size;      /* sizeof(forge_save_options), set by forge_save_options_init */
    const char *cpus; /* one variant each: "x86-64-v3,x86-64-v4" (NULL), "native" */
    /* 1: weights stay in the model's files, which must lie in the folder of the .forge file
     * whenever it is loaded. */
    int borrow;
    /* A folder below that of the .forge file (made when absent), NULL: none. Large weights go
     * there, each into a file of its own that is named by its content: artifacts that have
     * weights in common, as prefill and decode of one model, share those files and, when
     * running, their memory. */
    const char *weights;
    /* A file for the report of the last of the CPUs, with the times and the memory that it took;
     * in the one within the .forge file they are 0. NULL: none. */
    const char *report;
} forge_save_options;

/* How well an artifact and this machine suit each other. */
typedef enum {
    FORGE_FIT_OPTIMAL,
    FORGE_FIT_RECOMPILE, /* runs; compiled again here it would run faster */
    FORGE_FIT_UNSUPPORTED, /* the machine lacks something, or the format is another version's */
    FORGE_FIT_OTHER        /* for another kind of machine, or no such text */
} forge_fit;

typedef struct forge_load_options {
    size_t size; /* sizeof(forge_load_options), set by forge_load_options_init */
    int verify;  /* 1: read all weights and compare them with their digests */
    /* Of the files that hold weights that are not in the artifact itself; NULL: the folder of the
     * .forge file, or of one in memory the current one. */
    const char *folder;
} forge_load_options;

/* ---- open ------------------------------------------------------------------------- */
FORGE_API forge_status forge_open(const forge_config *c,
                                  forge_ctx **out); /* c NULL: defaults */
FORGE_API void forge_close(forge_ctx *cx);
FORGE_API const char *
forge_message(const forge_ctx *cx); /* of the last failed call; until the next call */
FORGE_API const char *forge_status_text(forge_status s);
FORGE_API const char *forge_version(void);

/* ---- compile ---------------------------------------------------------------------- */
FORGE_API void forge_options_init(forge_options *o);
FORGE_API forge_status forge_compile_file(forge_ctx *cx, const char *path,
                                          const forge_options *o, forge_model **out);
/* ---- load: libforge_rt alone is enough for this and what follows ------------------- */
/* A .forge file, mapped. Its machine code will run with the rights of this process: load only
 * what you would load a shared library from. A damaged file is FORGE_INVALID. */
FORGE_API void forge_load_options_init(forge_load_options *o);
FORGE_API forge_status forge_load_file(forge_ctx *cx, const char *path,
                                       const forge_load_options *o, forge_model **out);
/* The same for the bytes of a .forge file that are in memory, such as those that forge compile
 * --emit=obj and lib put into a program. Nothing is copied: data is borrowed until the
 * model is freed, must not change, and begins at a multiple of 64 bytes, better of a
 * page; any number of models may share it, in any thread. Otherwise FORGE_USAGE. */
FORGE_API forge_status forge_load_memory(forge_ctx *cx, const void *data, size_t bytes,
                                         const forge_load_options *o, forge_model **out);
/* What a .forge file needs, as text of under 1 KiB, and whether that is here: no device is opened. */
FORGE_API forge_status forge_file_requirement(forge_ctx *cx, const char *path, char *out,
                                              size_t n);
FORGE_API forge_fit forge_requirement_fit(const char *requirement);
FORGE_API const char *forge_fit_text(forge_fit f);
FORGE_API void forge_model_free(forge_model *m); /* after its runs and states */
/* Compiles for several CPUs and writes one .forge file, whole or not at all; nothing in it
 * depends on when or where. options->cpu is not read. */
FORGE_API void forge_save_options_init(forge_save_options *s);
FORGE_API forge_status forge_compile_to_file(forge_ctx *cx, const char *path,
                                             const forge_options *o,
                                             const forge_save_options *s,
                                             const char *out);
/* The JSON report of the compilation; lives with the model. */
FORGE_API const char *forge_model_report(const forge_model *m);
FORGE_API int forge_model_inputs(const forge_model *m);
FORGE_API int forge_model_outputs(const forge_model *m);
FORGE_API const char *forge_model_input(const forge_model *m, int i, forge_dtype *t,
                                        int *rank);
FORGE_API const char *forge_model_output(const forge_model *m, int i, forge_dtype *t,
                                         int *rank);
/* Dim of an input: its size, or -1 when it is symbolic; *name its text either way. */
FORGE_API int64_t forge_model_input_dim(const forge_model *m, int i, int axis,
                                        const char **name);

/* ---- run -------------------------------------------------------------------------- */
FORGE_API forge_status forge_run_new(forge_ctx *cx, const forge_model *m,
                                     forge_run **out);
FORGE_API void forge_run_free(forge_run *r);
FORGE_API forge_status forge_run_threads(forge_run *r, int n); /* 1..; 0: one per core */
/* The host's threads instead of the run's own: `parallel` calls work(arg, i) once for each i below
 * its n, at the same time or one after another, and returns when all are done. n here is
 * the most that it will be asked for. The result does not depend on it. */
typedef void forge_parallel(void *host, int n, void (*work)(void *arg, int i), void *arg);
FORGE_API forge_status forge_run_parallel(forge_run *r, int n, forge_parallel *parallel,
                                          void *host);
/* What tensors may take whose sizes are found while running (NonZero, loops that grow a value); beyond it
 * execute fails with FORGE_INVALID. In bytes; default 512 MiB. */
FORGE_API forge_status forge_run_memory(forge_run *r, size_t bytes);
/* Data is borrowed until the next bind of the same input or the run is freed. */
FORGE_API forge_status forge_bind_input(forge_run *r, const char *name, forge_dtype t,
                                        int rank, const int64_t *dims, const void *data);
/* Optional: where an output goes; capacity in bytes; borrowed likewise. NULL: back to the run's own memory. */
FORGE_API forge_status forge_bind_output(forge_run *r, const char *name, void *data,
                                         size_t capacity);
/* The first execute of a model that was compiled here also lays out its weights; others wait
 * for that. */
FORGE_API forge_status forge_execute(forge_run *r);
/* What a kernel did: which it was, when it ran, how much there was to do. */
typedef struct forge_kernel {
    size_t size;        /* sizeof(forge_kernel) of the library */
    const char *name;   /* what it computes, "matmul_add"; as long as the model */
    const char *nodes;  /* the ONNX nodes it is made of, comma separated; likewise */
    int64_t begin, end; /* nanoseconds of the monotonic clock */
    double flops,
        bytes; /* operations, bytes read and written, at these sizes; -1: not known */
    int64_t chunks; /* independent parts */
    int threads;    /* that took parts of it, at most */
    int once;       /* 1: made for all runs of the model, in the first of them */
} forge_kernel;
typedef void forge_watch(void *user, const forge_kernel *k);
/* `watch` is called after every kernel from now on, in the thread that executes (the one in the
 * background of forge_execute_async). It must not use the run. NULL: no more; then watching costs
 * nothing. */
FORGE_API forge_status forge_run_watch(forge_run *r, forge_watch *watch, void *user);
/* The next execute goes into a file: inputs and pasts, a digest of what each kernel read and wrote,
 * outputs and presents, how the model was compiled. `forge run MODEL --replay=FILE` compiles it
 * so, does the run again and tells where results part. NULL: not after all. */
FORGE_API forge_status forge_run_record(forge_run *r, const char *path);
/* The same in the background. `done` (may be NULL) is called there when it is over; until forge_wait
 * returned, nothing else may be called for this run. The message of a failure is the
 * callback's argument and, after forge_wait, forge_message. */
typedef void forge_done(void *user, forge_status s, const char *message);
FORGE_API forge_status forge_execute_async(forge_run *r, forge_done *done, void *user);
FORGE_API forge_status forge_wait(forge_run *r); /* how the last one ended */
/* Valid until the next execute. Any of the out pointers may be NULL; dims points into the run. */
FORGE_API const void *forge_output(const forge_run *r, const char *name, forge_dtype *t,
                                   int *rank, const int64_t **dims);

/* ---- states ----------------------------------------------------------------------- */
/* The caches of a sequence, or of a batch of them, kept from run to run:
 *
 *     forge_state *s;
 *     forge_state_new(cx, m, 1, 512, 4096, &s);
 *     forge_run_attach(r, s);
 *     bind the prompt's ids, mask and positions; forge_execute(r);
 *     bind the next token's;                     forge_execute(r);   and so on
 *
 * Which inputs (pasts) and outputs (presents) belong together is found when the model is
 * compiled. While a state is attached they are its own: what is bound there is not used,
 * forge_output gives NULL for presents, and no cache is copied. All else is bound as
 * without: a mask over past and new tokens has the length of both. A successful execute
 * appends; a failed one changes no length. A state belongs to one thread at a time.
 *
 * A window, a cache of which attention reads only the last W positions, keeps W of them and a
 * quarter more, or as many as one run appends at once, however long the sequence: once in
 * W / 4 steps (at least 16) the last W move to the front of its memory. So does a cache that
 * the model itself cuts to its last W rows: that is all it has as past and present, the length
 * of the state being that of the text. If its past has W rows from the beginning on, they are
 * zeros then, and it adds nothing to that length.
 *
 * A cache of one size, which the model writes at rows that its inputs name, has that size, or if
 * that is a symbol `capacity` rows, and no length: to go back is to name those rows again. A
 * host that keeps such a cache itself, and binds one buffer as past and as present, has it
 * written in place too. */
FORGE_API int forge_model_states(const forge_model *m); /* pairs; 0: no states */
/* Name of pair i's input, and of its output; NULL when there is none. */
FORGE_API const char *forge_model_state(const forge_model *m, int i, const char **output);
/* Of length 0, with room for `capacity` positions. It grows by doubling, at most to `limit`
 * (0: no limit); memory beyond the length is reserved, not touched. */
FORGE_API forge_status forge_state_new(forge_ctx *cx, const forge_model *m, int64_t batch,
                                       int64_t capacity, int64_t limit,
                                       forge_state **out);
FORGE_API void forge_state_free(forge_state *s); /* detached, or after the run */
FORGE_API int64_t forge_state_length(const forge_state *s);
FORGE_API int64_t forge_state_capacity(const forge_state *s);
/* Forgets all positions from `length` on. States without history, such as a convolution's
 * last inputs, can only go back to 0, as can those that got other rows than one for a position. What the last run appended can always be taken back;
 * further back, a window may be without the positions that are read there: that is
 * FORGE_UNSUPPORTED, and nothing changed. */
FORGE_API forge_status forge_state_truncate(forge_state *s, int64_t length);
/* As good as a copy, without copying: the two share memory, and of those that share some and go
 * on all but the first copy what they need, when they do: all positions at once (SmolLM2-135M at
 * 4,096: 189 MB, 0.1 s or three steps; forking itself 15 us), because attention reads the rows
 * of a head one behind the other, which pages would part; of a window what it holds. Forks may
 * go to other threads, and several threads may fork one state while nobody changes it. Their
 * memory is that of the context that the first of them was made with, which outlives them;
 * messages are in the context of the run that a state is attached to, else in that one. */
FORGE_API forge_status forge_state_fork(const forge_state *s, forge_state **out);
/* A copy of a state of one sequence, as the state of a batch of `batch` equal ones. */
FORGE_API forge_status forge_state_repeat(const forge_state *s, int64_t batch,
                                          forge_state **out);
/* Sequences of a batch may end at different positions. All grow by as many in a run; rewind
 * then takes back what was only padding for one of them, or more:
 *
 *     run a batch of prompts, padded behind to the longest; its rows of logits are read
 *     forge_state_rewind(s, b, length of prompt b);                        for each b
 *     forge_state_mask(s, 1, mask, n);                           the attention mask to
 *     bind it, next tokens, their positions forge_state_sequence(s, b);     run with
 *
 * What was taken back stays in memory as positions that the mask hides, unless all end before. */
FORGE_API forge_status forge_state_rewind(forge_state *s, int64_t sequence,
                                          int64_t length);
/* Positions of a sequence that count; -1: there is no such sequence. */
FORGE_API int64_t forge_state_sequence(const forge_state *s, int64_t sequence);
/* 1 where a position counts, else 0: int64 [batch, forge_state_length + more], into room for n
 * elements. The `more` new ones count. */
FORGE_API forge_status forge_state_mask(const forge_state *s, int64_t more, int64_t *mask,
                                        size_t n);
/* What a past or present holds, packed, of a window its last positions; dims and data may be NULL.
 * dims: valid until the state changes. */
FORGE_API forge_status forge_state_read(const forge_state *s, const char *name,
                                        const int64_t **dims, void *data,
                                        size_t capacity);
/* s borrowed until the next attach or the run is freed; NULL: none. Runs of one model may
 * take turns with a state. */
FORGE_API forge_status forge_run_attach(forge_run *r, forge_state *s);

#ifdef __cplusplus
}
#endif
/* clang-format on */
#endif
