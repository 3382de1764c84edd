/* target.h - what a target provides: code for `kernel` instructions of a FUSED module. */
#ifndef FG_CODEGEN_TARGET_H
#define FG_CODEGEN_TARGET_H

#include "ir/ir.h"
#include "runtime/abi.h"

/* One kernel instruction, compiled. Operands and results are its buffers in order:
 * buf[0..nin) operands, then results. Kernels whose bodies print alike share one
 * function (`fn` equal). */
typedef struct fg_kcode {
    fg_inst *inst;
    int fn; /* index of the function in the target's object */
    int narg;
    fg_expr *arg;         /* integers the function reads as arg[i] */
    fg_expr chunks;       /* independent chunks */
    fg_expr scratch;      /* bytes per worker */
    fg_expr flops, bytes; /* FG_E_BAD when unknown */
} fg_kcode;

/* Sizes that kernels have code of their own for. */
typedef struct fg_specials {
    uint32_t n;
    const fg_special *list;
} fg_specials;

/* Columns of the panels that weights are cut into: the widest register tile. */
enum { FG_PANEL = 64 };

/* Options of the CPU target. */
typedef struct fg_cpu_options {
    const char *knobs; /* of knobs.def, "rows=5,few=4"; NULL: the usual ones */
    const char *cpu;   /* NULL or "native": this machine; else see cpu/machine.c */
    fg_specials specials;
    int threads;       /* compile threads; 0: up to 2 */
    int keep_text;     /* keep IR and assembly text for forge dump --stage=ll,asm */
    bool keep_objects; /* for a file: see fg_cpu_object */
    bool no_link;      /* for a file only: fg_cpu_fn gives NULL */
} fg_cpu_options;

typedef struct fg_cpu_code fg_cpu_code; /* machine code; owns its mapping until freed */

/* Loads what fg_cpu_compile needs for this cpu, so that it need not wait; from any thread. */
void fg_cpu_open(const char *cpu);

/* Compiles every kernel instruction of m (in nested regions too, in walk order). kc[i]
 * describes the i-th of nkc, kc[nkc * (1 + s) + i] what it is for sizes s. NULL with a
 * diagnostic when a kernel cannot be expressed. */
fg_cpu_code *fg_cpu_compile(fg_module *m, fg_arena *a, const fg_cpu_options *o,
                            fg_kcode **kc, int *nkc);
fg_kernel_fn *fg_cpu_fn(const fg_cpu_code *c, int fn);
const char *fg_cpu_text(const fg_cpu_code *c, bool asm_text); /* NULL unless kept */
const struct fg_image *fg_cpu_image(const fg_cpu_code *c);    /* empty if not linked */
const char *fg_cpu_name(const fg_cpu_code *c);                /* e.g. "znver4" */
uint32_t fg_cpu_shares(const fg_cpu_code *c);                 /* knob shares */
int fg_cpu_functions(const fg_cpu_code *c);
/* The k-th relocatable object, if they were kept; NULL: there are fewer. */
const void *fg_cpu_object(const fg_cpu_code *c, int k, size_t *bytes);
void fg_cpu_drop_objects(fg_cpu_code *c); /* once they are written */
/* What the code needs of a machine, as isa.h writes it. False: not known of that CPU. */
bool fg_cpu_isa(const fg_cpu_code *c, char *out, size_t n);
const char *fg_cpu_platform(const fg_cpu_code *c); /* as fg_isa_platform() there */
void fg_cpu_free(fg_cpu_code *c);                  /* takes NULL */

/* The least CPU of the kind of machine that the first of a comma list is. */
const char *fg_cpu_least(const char *cpus);
/* An object at `out` that holds the bytes of the .forge file `image` in a read-only section at a
 * page boundary, for the kind of machine that `cpu` is, and the function NAME_open, which calls forge_load_memory with them. */
bool fg_cpu_embed(fg_ctx *cx, const char *cpu, const char *image, uint64_t bytes,
                  const char *name, const char *out);

/* What may stand around an instruction that has a code generator of its own: of the
 * instructions that make its operand, and of those that its result goes through. */
typedef enum {
    FG_FUSE_NONE,
    FG_FUSE_VIEWS,  /* before: views */
    FG_FUSE_WIDEN,  /* before: and widening of what is in memory */
    FG_FUSE_CHEAP,  /* before: and arithmetic that may be done several times over */
    FG_FUSE_ALL,    /* before: whatever can be read element by element */
    FG_FUSE_ELEM,   /* after: arithmetic at the same index */
    FG_FUSE_FORWARD /* after: and views that drop nothing */
} fg_fuse;
fg_fuse fg_cpu_before(fg_module *m, const fg_inst *anchor, int operand);
fg_fuse fg_cpu_after(fg_module *m, const fg_inst *anchor);
/* Whether one kernel can compute both, when it wants the same element of both. */
bool fg_cpu_twins(fg_module *m, const fg_inst *a, const fg_inst *b);

#endif
