/* abi.h - what a compiled model is. libc only: the runtime needs nothing of the compiler.
 *
 * A program is tables. Values are int64 numbers computed from the symbols (dims, strides,
 * offsets, counts); steps run kernels on tensors. Nothing here allocates on the run path.
 *
 * Values   value[i] = op(value[a], value[b]); operands come first, so one walk computes
 *          all. Those that depend on run-time symbols are recomputed when a step sets one.
 * Tensors  storage decided by the plan. ALIAS shares another tensor's storage from byte 0.
 * Regions  steps of if/loop bodies are separate blocks of the same program.
 * Position steps are numbered as they are met in program order, the steps of an if or loop
 *          between its own start and end; lifetimes are ranges of these numbers.
 */
#ifndef FG_RUNTIME_ABI_H
#define FG_RUNTIME_ABI_H

#include <stddef.h>
#include <stdint.h>

/* clang-format off */

/* buf[i]: address of the kernel's i-th tensor. arg[i]: integers it asked for. Chunks
 * [begin, end) are independent of each other. scratch: this worker's, 64-byte aligned. */
typedef void fg_kernel_fn(void *const *buf, const int64_t *arg, int64_t begin, int64_t end,
                          void *scratch);

typedef enum { FG_V_CONST, FG_V_SYM, FG_V_ADD, FG_V_MUL, FG_V_DIV /* floor */, FG_V_MOD,
               FG_V_MIN, FG_V_MAX, FG_V_EQ, FG_V_LT } fg_vop;

typedef struct fg_value {
    uint8_t  op;                /* fg_vop */
    uint8_t  run;               /* depends on a run-time symbol */
    uint32_t a, b;              /* SYM: a = symbol */
    int64_t  k;                 /* CONST */
} fg_value;

typedef struct fg_symbol {
    const char *name;
    int64_t     lo, hi;         /* bounds, inclusive */
    uint8_t     run;            /* set while running, not by bind */
} fg_symbol;

/* How bind finds the symbols: in order, symbol = (dim of an input - rest) / coef; then every
 * input dim is checked against its value. */
typedef struct fg_solve { uint32_t sym, input, axis, rest; int64_t coef; } fg_solve;

typedef enum { FG_ST_INPUT, FG_ST_OUTPUT, FG_ST_CONST, FG_ST_ARENA, FG_ST_ALIAS,
               FG_ST_DYNAMIC, /* size known only while running: own growing buffer */
               FG_ST_STATE,   /* storage of a state that grows in place */
               FG_ST_ONCE     /* made by the block `once`, shared by all runs of the model */
} fg_storage;

typedef struct fg_tensordef {
    const char *name;           /* register name, for people */
    uint8_t     dtype;          /* FG_DTYPES order, ir/type.h; forge_dtype in forge.h */
    uint8_t     storage;        /* fg_storage */
    uint8_t     rank;
    uint8_t     mapped;         /* CONST: in a read-only mapping of a file */
    uint32_t    dim[12];        /* values */
    uint32_t    bytes;          /* value: size */
    uint32_t    port;           /* INPUT, OUTPUT, STATE: which; ALIAS: the tensor it shares */
    const void *data;           /* CONST */
    int32_t     first, last;    /* ARENA: first and last position using it */
} fg_tensordef;

typedef enum {
    FG_STEP_KERNEL,
    FG_STEP_COPY,               /* tensor[0] to tensor[1], of equal size */
    FG_STEP_READSYM,            /* symbol sym = element `at` of tensor[0] */
    FG_STEP_REQUIRE,            /* equal[0] and equal[1] must be */
    FG_STEP_IF,                 /* tensor[0] = condition; block[0], block[1] */
    FG_STEP_LOOP                /* tensor: trip or NONE, cond or NONE; see fg_step */
} fg_stepkind;
#define FG_NONE UINT32_MAX

/* Sizes that kernels may have code of their own for: it runs when all of them are so. */
typedef struct fg_fixed { uint32_t sym; int64_t size; } fg_fixed;
typedef struct fg_special { uint32_t n; const fg_fixed *fixed; } fg_special;

/* How a kernel is run. */
typedef struct fg_form {
    fg_kernel_fn   *fn;
    uint32_t        code;       /* number of fn among the program's functions */
    uint32_t        narg;
    const uint32_t *arg;        /* values */
    uint32_t        chunks;     /* value: how many independent chunks */
    uint32_t        scratch;    /* value: bytes per worker */
} fg_form;

/* Copy tensor src to dst when control flows; symbols whose value is the shape that flows
 * are set first: symbol sym[i] = value dim[i]. `stack`: append to dst along axis 0 (scan
 * outputs). src and dst NONE: only symbols. */
typedef struct fg_flow {
    uint32_t        src, dst;
    uint8_t         stack;
    uint32_t        nsym;
    const uint32_t *sym, *dim;
} fg_flow;

typedef struct fg_step {
    uint8_t         kind;
    const fg_form  *form;       /* KERNEL: [1 + nspecial]: for any sizes, for each special */
    uint32_t        nbuf;
    const uint32_t *buf;        /* tensors */
    uint32_t        equal[2];   /* REQUIRE: values */
    uint32_t        flops, bytes;       /* values, for reports; FG_NONE unknown */
    uint32_t        sym;        /* READSYM; LOOP: gets the number of iterations, or NONE */
    int64_t         at;
    /* IF: block 0/1, flow_out[b] runs when branch b ends.
     * LOOP: buf[0] trip count, buf[1] condition (either FG_NONE); iter and cond_in: tensors
     * of the body (FG_NONE when unused); body: block[0]. flow_in: operands to parameters of
     * the body before the first iteration; flow_next: yielded values to parameters after
     * each; flow_out[0]: parameters to results at the end. Scan outputs are stack flows in
     * flow_next. */
    uint32_t        block[2];
    uint32_t        iter, cond_in, cond_out;
    uint32_t        nflow_in, nflow_next, nflow_out[2];
    const fg_flow  *flow_in, *flow_next, *flow_out[2];
    const char     *name;       /* kernel's name, for people */
    const char     *nodes;      /* ONNX nodes, comma separated */
} fg_step;

typedef struct fg_blockdef { uint32_t first, count; } fg_blockdef;   /* range of steps */

typedef struct fg_portdef {
    const char        *name;
    uint32_t           tensor;
    const void        *dflt;        /* input: data when none is bound; may be NULL */
    const int64_t     *dflt_dim;    /* [rank]: its shape */
    const char *const *dim_text;    /* [rank]: "4", "batch", "past+1" */
    uint32_t           state;       /* which state it is the past or present of, or NONE */
} fg_portdef;

/* An input and the output that is its next value. In place: the past's `axis` holds what
 * is valid of `tensor`, whose size there is the capacity; the program writes what is new behind
 * it, and the present is `tensor` itself. The capacity is a symbol that no row of solve finds:
 * it is the state's own, or `next` when the host binds past and present itself; then the past
 * is first copied into `tensor`. A window: the past ends at row `at` of the storage, a symbol
 * too; what is further back than `keep` rows need not be there. A window that the model cuts: the
 * present is a tensor of its own, the last rows of `tensor`, copied there when the host wants it;
 * a past of fixed size is `keep` rows from the beginning on, zeros at first. Not in place: past
 * and present are plain ports. */
typedef struct fg_statedef {
    uint32_t input, output;         /* ports */
    int32_t  axis;                  /* that grows; -1: none */
    uint32_t tensor;                /* in place: its storage; else NONE */
    uint32_t capacity;              /* in place: the symbol */
    uint32_t next;                  /* in place: value: valid length after the run */
    uint8_t  anywhere;              /* in place: also rows that were valid may be written */
    uint32_t at;                    /* window: the symbol; else NONE */
    uint32_t more;                  /* window: value: rows that a run appends */
    int64_t  keep;                  /* window: rows of the past that a run reads, at most */
} fg_statedef;

enum { FG_MAXSHARES = 64 }; /* of a kernel for each thread */

typedef struct fg_program {
    uint32_t nsymbol, nvalue, nsolve, ntensor, nspecial, nstep, nblock, ninput, noutput,
             nstate;
    const fg_symbol    *symbol;
    const fg_value     *value;
    const fg_solve     *solve;
    const fg_tensordef *tensor;
    const fg_special   *special; /* the first that fits is taken */
    const fg_step      *step;
    const fg_blockdef  *block;  /* [0]: the main program */
    uint32_t            once;   /* block of kernels that make ONCE tensors from constants,
                                 * run before the first run; 0: there are none */
    const fg_portdef   *input, *output;
    const fg_statedef  *state;
    uint32_t            shares; /* of a kernel for each thread; 0: as many as usual */
} fg_program;
/* clang-format on */

#endif
