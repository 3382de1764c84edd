/* rt.h - inside the runtime: the objects behind forge.h's handles. Includes nothing of
 * the compiler. */
#ifndef FG_RUNTIME_RT_H
#define FG_RUNTIME_RT_H

#include "runtime/abi.h"
#include "runtime/forge.h"
#include "runtime/plan.h"
#include "runtime/pool.h"

#include <pthread.h>
#include <stdatomic.h>

struct forge_ctx {
    void *(*alloc)(void *user, size_t bytes);
    void (*release)(void *user, void *p);
    void *user;
    void (*log)(void *user, const char *line); /* NULL: nobody listens */
    int names;                                 /* who is told what code is: names.h */
    char message[1024];
};

/* What a model's runs share and the first of them makes (once.c). */
typedef struct fg_once {
    pthread_mutex_t lock;
    atomic_int made;
    void *p, *raw;
    void *(*alloc)(void *user, size_t bytes);
    void (*release)(void *user, void *p);
    void *user;
} fg_once;

struct forge_model {
    const fg_program *program;
    const char *report;
    fg_once once;
    struct fg_names *names; /* of its code, that gdb knows */
    /* Whoever made the model frees what is behind it. */
    void (*destroy)(forge_model *m);
};

#define FG_UNKNOWN INT64_MIN /* a value that is not set yet, or overflowed; contagious */

typedef struct fg_binding { /* of one input or output port */
    const void *data;
    int64_t dim[12];
    size_t capacity; /* outputs */
    uint8_t bound;
} fg_binding;

typedef struct fg_memory { /* grows, never shrinks; 64-byte aligned */
    void *p, *raw;
    size_t cap;
} fg_memory;

typedef struct fg_store { /* memory of a tensor of a state, and of its forks (store.c) */
    fg_memory mem;
    atomic_int refs;
    _Atomic int64_t used; /* rows that are somebody's, at most */
} fg_store;

/* One tensor of a state. dim is the past as the host would bind it, its axis the length; but of a
 * window, unless the model cuts it, the last rows of that. In place: mem[0], with `room` rows along
 * the axis, `rows` of them valid. Else mem[now] is the past and mem[!now] becomes the present. */
typedef struct fg_statebuf {
    fg_store *mem[2];
    int now;
    int64_t dim[12];
    int64_t room, rows;
    int64_t gone; /* of a window: positions in front of them; below 0: zeros */
} fg_statebuf;

struct forge_state {
    forge_ctx *cx;  /* whose memory it has */
    forge_run *run; /* that it is attached to; NULL: none */
    const fg_program *p;
    int64_t batch, length, capacity, limit;
    uint8_t *counts;  /* [batch][capacity]: 0: padding; NULL: all count (sequence.c) */
    fg_statebuf *buf; /* [p->nstate] */
    fg_store *(*fresh)[2]; /* [p->nstate]: while it grows */
};

/* Called after each step when set: which step, how long. */
typedef void fg_stephook(void *user, uint32_t step, int64_t ns);

struct forge_run {
    forge_ctx *cx;
    const fg_program *p;
    forge_model *model;   /* immutable but for what it makes once */
    int64_t *sym, *value; /* [nsymbol], [nvalue] */
    uint32_t *run_value;  /* values that depend on run-time symbols */
    uint32_t nrun_value;
    void **addr;          /* [ntensor]: where each tensor is */
    uint32_t *root;       /* [ntensor]: end of its chain of aliases */
    uint8_t *grows;       /* [ntensor]: size depends on a run-time symbol */
    fg_memory *own;       /* [ntensor]: DYNAMIC, and OUTPUT not bound by the user */
    int64_t (*dims)[12];  /* [noutput]: for forge_output */
    size_t grown, budget; /* what of `own` is in `grows`, and what may be */
    fg_binding *in, *out; /* [ninput], [noutput] */
    fg_planitem *item;    /* arena tensors */
    uint32_t *item_tensor;
    uint32_t nitem;
    int64_t *plan_scratch;
    fg_plansize plan;
    fg_memory arena, scratch;
    size_t scratch_each;
    void **buf; /* of the step that runs */
    int64_t *arg;
    int64_t *flow;    /* bytes and symbol values of the flows that run */
    uint32_t special; /* which form of the kernels these sizes have */
    uint8_t stale;    /* a bound shape changed: values and plan are to be made again */
    uint8_t ran;
    uint8_t parallel; /* some kernel is worth waking workers for */
    int threads;
    fg_pool *pool;
    forge_state *state;     /* attached, or NULL */
    int64_t ahead;          /* capacity that memory is reserved for */
    struct fg_async *async; /* runs in the background; NULL: there was none yet */
    fg_stephook *hook;
    void *hook_user;
    char *record;       /* file that the next execute is written to; NULL: none */
    forge_watch *watch; /* the host's, called by a hook of ours */
    void *watch_user;
};

/* Records the message, returns s. */
forge_status fg_fail(forge_ctx *cx, forge_status s, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* What the host may want to know although nothing failed. */
void fg_log(forge_ctx *cx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* False when out of memory. Contents are lost unless keep > 0 bytes. */
int fg_memory_reserve(forge_ctx *cx, fg_memory *m, int64_t bytes, size_t keep);
void fg_memory_free(forge_ctx *cx, fg_memory *m);
/* On the machines that matter; elsewhere only a hint is lost. */
enum { FG_LARGE_PAGE = 2 << 20 };
/* A hint that all of it will be written: the system may back it with large pages. */
void fg_large_pages(void *p, int64_t bytes);

/* values.c: value[first..end) from symbols and earlier values. */
void fg_values(const fg_program *p, const int64_t *sym, int64_t *value, uint32_t first,
               uint32_t end);
void fg_values_run(forge_run *r); /* only those that depend on run-time symbols */
static inline int64_t
fg_val(const forge_run *r, uint32_t v)
{
    return v == FG_NONE ? 0 : r->value[v];
}

static inline const fg_form *
fg_form_of(const forge_run *r, const fg_step *s)
{
    return &s->form[r->special];
}

/* bind.c: after the bound shapes changed, everything that follows from them. */
forge_status fg_prepare(forge_run *r);
/* Room for an OUTPUT or DYNAMIC tensor: of its size as known now; of so many bytes,
 * keeping the first ones. */
forge_status fg_tensor_grow(forge_run *r, uint32_t t);
forge_status fg_tensor_room(forge_run *r, uint32_t t, int64_t bytes, size_t keep);
/* async.c */
typedef struct fg_async fg_async;
void fg_async_free(forge_run *r); /* waits */
/* state.c: the attached state of an input, or NULL; a dim of that past. */
const fg_statebuf *fg_state_of(const forge_run *r, uint32_t input);
int64_t fg_state_dim(const forge_run *r, uint32_t input, int axis);
/* Size of the present along the axis that grows; 0 when none does. */
int64_t fg_state_next(const forge_run *r, const fg_statedef *s);
/* Sizes are known: makes room in the attached state for what the run appends. */
forge_status fg_state_room(forge_run *r, const fg_statedef *s, int64_t next);
/* Where storage ends, and where the past does in a window: the symbols that say so. */
void fg_state_symbols(forge_run *r, uint32_t state);
/* Values as they will be when the attached state is full. */
void fg_state_stretch(forge_run *r);
/* Addresses of the states' tensors; pasts that the host bound go to where they grow. */
forge_status fg_state_place(forge_run *r);
/* The run is over: what it made is what the next one begins with. */
void fg_state_advance(forge_run *r);
/* record.c: executes, into the file at r->record. */
forge_status fg_record_run(forge_run *r);
/* Of what a kernel that just ran has read and written; constants and states apart. */
uint64_t fg_step_digest(const forge_run *r, uint32_t step);
/* run.c: too little work to share out: a shared kernel costs about as much as this. */
int fg_step_small(const forge_run *r, const fg_step *s);
const char *fg_dtype_text(int dtype);
int64_t fg_packed_bytes(int dtype, int64_t count);

/* once.c: whoever makes a model calls init first and done last. */
void fg_model_init(forge_model *m, forge_ctx *cx);
void fg_model_done(forge_model *m);
forge_status fg_once_place(forge_run *r); /* sizes are known: memory and addresses */
forge_status fg_once_run(forge_run *r);   /* makes what is not made yet */
/* run.c: chunks [begin, end) of a kernel. */
forge_status fg_kernel_run(forge_run *r, const fg_step *s, int64_t begin, int64_t end);

#endif
