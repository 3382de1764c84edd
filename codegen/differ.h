/* differ.h - where a compilation goes wrong: compiled code against the evaluator, register by
 * register, and the module after each pass against the module as it was imported. */
#ifndef FG_CODEGEN_DIFFER_H
#define FG_CODEGEN_DIFFER_H

#include "codegen/compile.h"
#include "ir/distance.h"

struct forge_run;

typedef struct fg_differ_row {       /* a register, as the compiled program left it */
    const char *name, *nodes, *type; /* nodes: of ONNX, comma separated */
    fg_distance d;
    bool wrong;
} fg_differ_row;

typedef struct fg_differ_change { /* a pass that changed the module */
    const char *pass, *text;      /* the module after it */
    int round;
} fg_differ_change;

typedef struct fg_differ {
    fg_ctx *cx;
    fg_arena *a;
    double atol,
        rtol; /* < 0: by type. Wrong is |got - want| > atol max(1, |largest|) + rtol |want| */
    /* For tests of this very thing: spoils the module after a pass; a register's data after
     * the step that computes it. */
    void (*spoil_pass)(void *user, const char *pass, fg_module *m);
    void (*spoil_step)(void *user, const char *name, fg_tensor *data);
    void *user;

    /* Filled by fg_differ_watch and the compilation: */
    const char *imported; /* text */
    fg_module *like;      /* as imported; lends the weights of texts */
    fg_differ_change *change;
    int nchange;
    size_t capchange;

    /* Filled by fg_differ_run: */
    fg_tensor *in;
    int nin;
    fg_differ_row *row; /* in the order of execution */
    int nrow;
    size_t caprow;
    int first_wrong;      /* of the rows; -1 */
    fg_differ_row passes; /* the first output that passes spoil; name NULL: none */

    /* Filled by fg_differ_bisect: */
    int first_change;        /* the change that goes wrong; -1: none, the code does */
    const char *instruction; /* the first whose value is wrong */
    const char *test;        /* reduced, as a text test */
} fg_differ;

/* Runs the compiled program once, on one thread; results are copied to arena a. Each step's are
 * spoilt first when d, which may be NULL, asks for it. False with a diagnostic. */
bool fg_differ_execute(fg_differ *d, fg_compiled *c, fg_arena *a, const fg_tensor *in,
                       fg_tensor *out);

/* Notes the module as imported and makes c call back; c is loaded, its passes not yet run. */
void fg_differ_watch(fg_differ *d, fg_compiled *c);
/* Runs r, of the compiled c, its inputs bound, and compares. False with a diagnostic. */
bool fg_differ_run(fg_differ *d, fg_compiled *c, struct forge_run *r);
/* After a run that found something wrong: what went wrong first. */
bool fg_differ_bisect(fg_differ *d, fg_compiled *c, const forge_options *o);

#endif
