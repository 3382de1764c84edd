/* compile.h - the whole way from a model file to a program. */
#ifndef FG_CODEGEN_COMPILE_H
#define FG_CODEGEN_COMPILE_H

#include <pthread.h>

#include "codegen/target.h"
#include "frontend/onnx.h"
#include "passes/pass.h"
#include "runtime/forge.h"

/* A compilation: everything forge_compile_file makes and keeps. The caller sets cx, and an
 * observer of the passes if it wants one. */
typedef struct fg_compiled {
    fg_ctx *cx;
    fg_observe *observe;
    void *user;
    fg_arena *a;        /* module, program, report */
    fg_onnx_file *file; /* weights point into it */
    fg_module *m;       /* PLACED */
    fg_cpu_code *code;
    fg_specials specials;
    fg_kcode *kc; /* of nkc kernels, and again for each of `specials` */
    int nkc;
    fg_program *program;
    fg_report report;
    bool keep_objects, no_link; /* see fg_cpu_options */
    bool opens;                 /* a thread that loads the code generator, to be joined */
    pthread_t opening;
} fg_compiled;

/* Reads "batch=1,seq=1..128,past=0..16..1024" (fixed, or bounds with an optional usual
 * value between). */
bool fg_parse_dims(fg_arena *a, const char *text, fg_import_options *out);

/* load.c: the module of a file, a model or text; weights point into c->file or c->a. NULL with
 * a diagnostic. */
fg_module *fg_load(fg_compiled *c, const char *path, const char *dims);

/* Fills c; false with a diagnostic. What was made goes with fg_compiled_free either way. */
bool fg_compile(fg_compiled *c, const char *path, const forge_options *o);
/* Its steps, each from whatever stage the one before left the module in. */
bool fg_compile_load(fg_compiled *c, const char *path, const forge_options *o);
/* What precision and accuracy mean for the passes; what is wrong with them, or NULL. */
const char *fg_parse_precision(const forge_options *o, fg_pipeline *p);
bool fg_compile_passes(fg_compiled *c, const forge_options *o); /* to FUSED at least */
bool fg_compile_code(fg_compiled *c, const forge_options *o, bool keep_text);
bool fg_compile_place(fg_compiled *c, const forge_options *o);
bool fg_compile_program(fg_compiled *c);
/* Those after loading; a and m are set. */
bool fg_compile_module(fg_compiled *c, const forge_options *o);
void fg_compiled_free(fg_compiled *c);
void fg_compiled_release(fg_compiled *c); /* all but the context */
/* What to answer when it failed. c NULL: before there was anything. */
forge_status fg_compile_failure(const fg_compiled *c, const char *path, fg_raise raise);

/* report.c: the compilation as JSON text in c->a, and as a tree that the caller deletes. */
const char *fg_report_json(fg_compiled *c);
struct cJSON *fg_report_tree(fg_compiled *c);
/* Cost of a run at nominal sizes in microseconds of one core, and what it would be
 * with every attention instruction run as products, scale, mask and softmax of its
 * own. */
void fg_report_cost(fg_compiled *c);

#endif
