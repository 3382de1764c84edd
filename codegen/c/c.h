/* c.h - kernels as C, one loop nest per instruction that needs one.
 *
 *     for (int64_t i0 = 0; i0 < batch; i0++) {
 *         for (int64_t i1 = 0; i1 < 32; i1++) {
 *             const float v1 = a0[i0 * 32 + i1] + a1[i1];
 *             y0[i0 * 32 + i1] = relu(v1);
 *         }
 *     }
 *
 * An element of a register is pulled: views become index arithmetic, elementwise
 * instructions become one statement each, and what has a nest of its own (nest.c) or belongs
 * to another kernel is read from an array. Indices are texts of C.
 */
#ifndef FG_CODEGEN_C_C_H
#define FG_CODEGEN_C_C_H

#include "ir/ir.h"

enum { CC_DEPTH = 64 };

typedef const char *cc_index[FG_MAXRANK];

typedef struct cc_param { /* of the function being printed */
    const char *type, *name, *actual;
} cc_param;

typedef struct cc_memo { /* what an element was called in this scope */
    fg_reg reg;
    const char *at, *value;
} cc_memo;

typedef struct cc {
    fg_module *m;
    fg_arena *a;
    const char **symbol; /* C names, by fg_sym; NULL: none has been given */
    const char **array;  /* by register: the array that holds it; NULL: pulled */
    fg_text body;
    int depth, nvalue;
    cc_memo *memo;
    size_t nmemo, capmemo, mark[CC_DEPTH];
    cc_param *param;
    size_t nparam, capparam;
    const fg_inst *kernel;
    /* Another buffer of the plan, for one function; gives its name in the caller. */
    const char *(*buffer)(void *user, const fg_type *t, const char *meaning);
    void *user;
    bool careful; /* products of sizes must not overflow */
    bool failed;
} cc;

/* print.c: lines and scopes, expressions, elements in arrays. */
void cc_line(cc *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cc_open(cc *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cc_close(cc *c);
const char *cc_expr(cc *c, fg_expr e);
/* How many elements axes first.. have; as text, where an expression would grow too long. */
const char *cc_count(cc *c, const fg_type *t, int first);
const char *cc_plus(cc *c, const char *a, const char *b);
const char *cc_times(cc *c, const char *a, const char *b);
const char *cc_type(fg_dtype d);                 /* of a value in a variable */
const char *cc_store_type(fg_dtype d);           /* of an element of an array */
const char *cc_sum_type(fg_dtype d);             /* of sums of them */
const char *cc_bound(fg_dtype d, bool greatest); /* the least or the greatest of a type */
/* A double, truncated and saturated if the type is one of integers. */
const char *cc_from_double(cc *c, fg_dtype d, const char *x);
const char *cc_load(cc *c, const char *array, const fg_type *t, const char *const *at);
const char *cc_offset(cc *c, const fg_type *t, const char *const *at);
/* Opens a loop over n elements; the name of its variable, "0" when n is 1 and there is none. */
const char *cc_for(cc *c, char letter, int k, fg_expr n);
/* Loops over all axes of a shape but those of the mask `skip`; how many are open. */
int cc_for_all(cc *c, const fg_type *t, unsigned skip, cc_index at);
void cc_close_all(cc *c, int n);
void cc_store(cc *c, const char *array, const fg_type *t, const char *const *at,
              const char *value);
/* A parameter of the function, and what its caller gives. */
const char *cc_add_param(cc *c, const char *type, const char *name, const char *actual);
/* Memory of a shape that this function alone uses. */
const char *cc_temp(cc *c, const fg_type *t);
/* Records that the kernel cannot be printed: false, and one line that names the node. */
bool cc_refuse(cc *c, const fg_inst *i, const char *why);

/* value.c: the element of r at an index of its own rank, as an expression without side
 * effects that may be written more than once. */
const char *cc_value(cc *c, fg_reg r, const char *const *at);
/* The same where r is broadcast to a shape of so many axes. */
const char *cc_value_in(cc *c, fg_reg r, int rank, const char *const *at);
bool cc_pulled(fg_op op);
/* r, through views only, is in an array: pulling it again and again costs nothing. */
bool cc_is_cheap(const cc *c, fg_reg r);

/* nest.c, nn.c: the loops of an instruction that is not pulled, with its result in
 * `target`. False when there are none. */
bool cc_nest(cc *c, const fg_inst *i, const char *const *target);
bool cc_nest_nn(cc *c, const fg_inst *i, const char *target);
bool cc_nest_window(cc *c, const fg_inst *i, const char *target);
bool cc_resize(cc *c, const fg_inst *i, const char *target);
bool cc_nest_find(cc *c, const fg_inst *i, const char *const *target);

/* helpers.c: of the functions that C does not have, those that the text calls. */
void cc_put_helpers(fg_text *o, const char *text);

#endif
