/* module.h - inside the printer of a whole module: what its files share. */
#ifndef FG_CODEGEN_C_MODULE_H
#define FG_CODEGEN_C_MODULE_H

#include "codegen/c/c.h"
#include "codegen/source.h"

typedef struct cc_module {
    cc c;
    const char *name;
    const fg_specials *specials;
    const char **place;  /* by register outside of kernels: what it is called there */
    int *slot;           /* by register: 1 + its place in `open`; 0: of fixed size */
    const char **weight; /* by weight: its name, once it is used */
    /* Functions of kernels; of the main function: buffers, and what is done with them; of
     * work_bytes; names of weights. */
    fg_text kernels, takes, calls, bytes, weights;
    int depth; /* of scopes in calls */
    fg_source_weight *file;
    size_t capfile, end;
    int nfile, nbuffer, ntake, nkernel, nloop, nsize;
    int nopen, nclosed; /* of `open`; those of them that are no outputs */
    const char **used;  /* names of arguments */
    int nused;
    size_t capused;
} cc_module;

/* module.c */
const char *cc_clean(cc_module *x, const char *name); /* as a name in C */
void cc_put_comment(fg_text *o, const char *s); /* text of a file inside a comment */
bool cc_mentions(const char *text, const char *name);
const char *cc_bounds(cc_module *x, fg_sym s); /* that it is outside of them */

/* buffers.c: memory between kernels. */
const char *cc_bytes(cc_module *x, const fg_type *t);
bool cc_is_open(const cc_module *x, const fg_type *t); /* size is found while running */
/* Declares where r lives, unless it has a place already. */
void cc_declare(cc_module *x, fg_reg r, const char *meaning);
/* Room for so many bytes, a text, behind a register of open size. */
void cc_fit(cc_module *x, fg_reg r, const char *bytes);
const char *cc_new_buffer(void *module, const fg_type *t, const char *meaning);
const char *cc_new_weight(cc_module *x, int64_t k, const fg_type *t);
void cc_call(cc_module *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* kernel.c: the function of a kernel, and its call. */
void cc_put_kernel(cc_module *x, const fg_inst *k);
/* control.c: what a block does, in order. */
void cc_put_block(cc_module *x, const fg_block *b);

#endif
