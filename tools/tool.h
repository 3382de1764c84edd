/* tool.h - what the verbs of the forge command share. */
#ifndef FG_TOOLS_TOOL_H
#define FG_TOOLS_TOOL_H

#include <stdbool.h>

#include "ir/eval.h"
#include "runtime/forge.h"

/* Exit codes. */
enum { TOOL_OK, TOOL_FAILED, TOOL_USAGE, TOOL_DIFFERENT };

/* Every verb of verbs.def: argv[0] is its name. */
#define VERB(name, ...) int cmd_##name(int argc, char **argv);
#include "tools/verbs.def"

/* "forge: text" as one printable line on stderr; returns code. */
int tool_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "forge: FILE: text", unless text begins with FILE already. */
int tool_fail_file(int code, const char *file, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- options ---------------------------------------------------------------------- */

/* MAYBE: text with or without a value; "" without. JOIN: given again, both, with a comma; of one
 * option. */
typedef enum {
    TOOL_FLAG,
    TOOL_INT,
    TOOL_DOUBLE,
    TOOL_TEXT,
    TOOL_JOIN,
    TOOL_MAYBE,
    TOOL_LIST,
    TOOL_LEVEL
} tool_kind;

typedef struct tool_list { /* of an option that may be given again and again */
    const char **v;
    int n;
} tool_list;

typedef struct tool_option {
    const char *name; /* "--threads"; LEVEL: "-O" */
    tool_kind kind;
    void *at;                  /* int, int, double, const char *, tool_list, int */
    const char *arg, *meaning; /* for help */
} tool_option;

/* The options of everything that compiles a model. */
typedef struct tool_common {
    forge_options o;
    const char *report;
    int threads; /* -1: not given */
    const char *budget;
    size_t mem_budget; /* bytes; 0: not given */
    const char *cache; /* --cache-dir; NULL: not given */
    const char *knobs; /* --knobs; NULL: not given, or taken apart already */
    int help, version;
    const char *model;
} tool_common;
void tool_common_init(tool_common *c);
/* Parses argv against the common options and `own` (ends with a NULL name); one
 * positional argument, the model. TOOL_OK; TOOL_USAGE with a message; -1 when help was
 * printed and the verb is done. */
int tool_parse(tool_common *c, const tool_option *own, const char *usage, int argc,
               char **argv);

/* ---- models ------------------------------------------------------------------------ */

/* A context that says on stderr what it would say to a host. 0 with a message. */
forge_ctx *tool_open(void);
/* Compiles c->model, or loads it when it is a .forge file, and writes the report if asked
 * to; message printed on failure. */
int tool_compile(forge_ctx *cx, const tool_common *c, forge_model **out);
bool tool_is_artifact(const char *path); /* a .forge file, by name */
/* Writes head, then data, to path through a temporary file; message printed on failure. */
int tool_write(const char *path, const void *head, size_t nhead, const void *data,
               size_t n);

/* Whether an option's value names passes, that can be run in this order; TOOL_USAGE with a
 * message when not. */
int tool_check_passes(const char *option, const char *list, bool run);

/* ---- data --------------------------------------------------------------------------- */

/* .npy files; name in messages is the path. False with a diagnostic. */
bool tool_npy_read(fg_ctx *cx, fg_arena *a, const char *path, fg_tensor *out);
int tool_npy_write(const char *path, const fg_tensor *t); /* prints its message */

/* "@file.npy", "@file.pb" or "1x4xf32=1,2,3,4". */
bool tool_read_value(fg_ctx *cx, fg_arena *a, const char *text, fg_tensor *out);
int64_t tool_bytes(const fg_tensor *t);

/* Inputs of a run: given as NAME=VALUE, from test data, or random; the tensors live in a. */
typedef struct tool_inputs {
    tool_list given; /* --input */
    const char *test_data;
    int random; /* seed; -1: none */
    int length; /* of symbolic axes of random inputs, batches excepted; 0: 16 */
} tool_inputs;
/* Binds all of them; false with a diagnostic. */
bool tool_bind_inputs(fg_ctx *cx, fg_arena *a, const tool_inputs *in, forge_ctx *fcx,
                      const forge_model *m, forge_run *r);
/* The same; message printed on failure. */
int tool_bind(fg_ctx *cx, fg_arena *a, const char *file, const tool_inputs *in,
              forge_ctx *fcx, const forge_model *m, forge_run *r);
/* Random data for input i: small floats; ids, ones for masks, counting positions. */
void tool_random_fill(const char *name, fg_tensor *t, uint64_t seed);
/* Of input i: batches are 1, other symbolic axes `length`, within their bounds. */
bool tool_input_shape(const forge_model *m, int i, int length, int64_t *dims);
/* Bytes read and written by a run with the shapes bound now. */
double tool_run_bytes(const forge_run *r);
bool tool_output(const forge_run *r, const forge_model *m, int i, fg_tensor *out);

/* ---- the machine --------------------------------------------------------------------- */

/* Kinds of arithmetic: single precision, sums of products of two bf16, of four bytes. */
typedef enum { TOOL_F32, TOOL_BF16, TOOL_BYTES, TOOL_NMATH } tool_math;
typedef enum { TOOL_L1, TOOL_L2, TOOL_L3, TOOL_MEMORY, TOOL_NLEVELS } tool_level;
typedef struct tool_peak {
    int threads;
    double gflops[TOOL_NMATH], gbps[TOOL_NLEVELS]; /* operations; read */
} tool_peak;
/* Reads `bytes` again and again to measure the level that holds as many; 0: of memory. */
tool_peak tool_measure_peak(int threads, double bytes);
/* Where data of that size stays between one pass over it and the next, at best. */
tool_level tool_level_of(int threads, double bytes);
double tool_cache_bytes(int level); /* 1 to 3 */
/* Joules that the processor has taken since some time; -1: cannot be read. And since
 * such a reading; 0 when it could not be read. */
double tool_energy(void);
double tool_energy_since(double before);
const char *tool_cpu_model(char *buf, size_t n);
const char *tool_cpu_features(char *buf, size_t n);
int tool_cores(void);
double tool_now_ms(void);

#endif
