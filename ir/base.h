/* base.h - what every file of the compiler stands on: context, arenas, strings,
 * checked sizes, bit sets, diagnostics.
 *
 * Memory   Everything the compiler makes lives in an arena and dies with it; nobody
 *          calls free. When the host's allocator fails, the arena jumps to the handler
 *          that fg_protect installed, so the code in between needs no check and the
 *          public call returns FORGE_OUT_OF_MEMORY.
 * Errors   The model or the machine is wrong: fg_error() records one line in the user's
 *          words and the function returns false / NULL. We are wrong: FG_BUG() records
 *          the place and unwinds to fg_protect as FORGE_INTERNAL.
 * Threads  A context belongs to one thread at a time; there is no global state.
 */
#ifndef FG_IR_BASE_H
#define FG_IR_BASE_H

/* clang-format off: members and their comments stand in columns */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- context ---------------------------------------------------------------------- */

typedef struct fg_arena fg_arena;

typedef struct fg_allocator {
    void *(*alloc)(void *user, size_t bytes); /* NULL on failure */
    void (*release)(void *user, void *p);
    void *user;
} fg_allocator;

typedef enum { FG_NOTE, FG_WARNING, FG_ERROR } fg_severity;

typedef struct fg_diag {
    struct fg_diag *next;
    fg_severity severity;
    const char *text; /* one printable line, under 1000 characters */
} fg_diag;

typedef enum { FG_RAISE_NONE, FG_RAISE_MEMORY, FG_RAISE_BUG } fg_raise;

typedef struct fg_ctx {
    fg_allocator alloc;
    fg_arena *arena;  /* lives as long as the context: interned strings, diagnostics */
    fg_arena *arenas; /* all that are open; freed with the context at the latest */
    fg_diag *diags, *last_diag;
    int nerror;
    jmp_buf *handler; /* innermost fg_protect */
    struct fg_strtab *strings;
} fg_ctx;

/* `alloc` may be NULL: malloc and free. NULL when out of memory. */
fg_ctx *fg_ctx_new(const fg_allocator *alloc);
void fg_ctx_free(fg_ctx *cx);

/* Runs fn(arg) and says how it ended; arenas made inside must hang on something freed by
 * the caller. May nest. */
fg_raise fg_protect(fg_ctx *cx, void (*fn)(void *arg), void *arg);
_Noreturn void fg_raise_memory(fg_ctx *cx);
/* Passes on what fg_protect returned, after cleaning up; not FG_RAISE_NONE. */
_Noreturn void fg_raise_again(fg_ctx *cx, fg_raise why);

/* ---- arenas ----------------------------------------------------------------------- */

fg_arena *fg_arena_new(fg_ctx *cx);
void fg_arena_free(fg_arena *a); /* takes NULL */
fg_ctx *fg_arena_ctx(fg_arena *a);
void *fg_alloc(fg_arena *a, size_t bytes);            /* zeroed, 16-byte aligned */
void *fg_alloc_n(fg_arena *a, size_t n, size_t each); /* product checked */
/* Not zeroed, by lines of the cache; what is taken so lies side by side, in large pages where
 * the system has them. For what runs will read. */
void *fg_alloc_large(fg_arena *a, size_t bytes);
void *fg_dup(fg_arena *a, const void *p, size_t bytes);
char *fg_strdup(fg_arena *a, const char *s);
char *fg_format(fg_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
size_t fg_arena_bytes(const fg_arena *a); /* taken from the host */

#define FG_NEW(a, T) ((T *)fg_alloc((a), sizeof(T)))
#define FG_NEWN(a, T, n) ((T *)fg_alloc_n((a), (n), sizeof(T)))

/* Growing array in an arena: v is any T*, n its length (size_t or int), cap an integer.
 *     FG_PUSH(arena, list, nlist, caplist) = value;                                    */
void *fg_grow(fg_arena *a, void *old, size_t n, size_t *cap, size_t each);
#define FG_PUSH(a, v, n, cap)                                                            \
    (*((v) = fg_grow((a), (v), (size_t)(n), &(cap), sizeof *(v)), &(v)[(n)++]))

/* ---- strings ---------------------------------------------------------------------- */

/* Interned: equal text, equal pointer; lives with the context. */
const char *fg_intern(fg_ctx *cx, const char *s);
const char *fg_intern_n(fg_ctx *cx, const char *s, size_t n);
/* Text from a file made printable: control characters, direction overrides and invalid
 * UTF-8 escaped as \xNN, longer than `max` bytes shortened with "...". */
char *fg_printable(fg_arena *a, const char *s, size_t n, size_t max);
/* The name that a misspelled word was probably meant to be: of a table of `n` rows that each begin
 * with a const char *. NULL when none is near. */
const char *fg_closest(const char *word, size_t len, const void *table, size_t n,
                       size_t row_bytes);

/* Growing text. */
typedef struct fg_text {
    fg_arena *a;
    char *s; /* always terminated */
    size_t n, cap;
} fg_text;
fg_text fg_text_new(fg_arena *a);
void fg_puts(fg_text *t, const char *s);
void fg_putc(fg_text *t, char c);
void fg_putf(fg_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fg_vputf(fg_text *t, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
/* Shortest decimal that reads back to the same bits ("inf", "-inf", "nan" for the rest);
 * single: as float. Always holds '.', 'e' or a letter, so that it never looks an integer. */
void fg_put_double(fg_text *t, double v, bool single);

/* ---- sizes and bits --------------------------------------------------------------- */

static inline bool
fg_mul_size(size_t a, size_t b, size_t *out) /* false on overflow */
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool
fg_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

typedef struct fg_bits {
    uint64_t *w;
    uint32_t n;
} fg_bits;
fg_bits fg_bits_new(fg_arena *a, uint32_t n);

static inline bool
fg_bits_has(fg_bits b, uint32_t i)
{
    return (b.w[i >> 6] >> (i & 63)) & 1;
}

static inline void
fg_bits_add(fg_bits b, uint32_t i)
{
    b.w[i >> 6] |= (uint64_t)1 << (i & 63);
}

static inline void
fg_bits_del(fg_bits b, uint32_t i)
{
    b.w[i >> 6] &= ~((uint64_t)1 << (i & 63));
}

uint64_t fg_hash(const void *p, size_t n, uint64_t seed); /* not for adversaries */

/* ---- diagnostics ------------------------------------------------------------------ */

/* All three record; fg_error returns false so that `return fg_error(...)` reads well.
 * Text that comes from a file goes through fg_printable first. */
bool fg_error(fg_ctx *cx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fg_warn(fg_ctx *cx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fg_note(fg_ctx *cx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *fg_first_error(const fg_ctx *cx); /* "" when there is none */
/* Forget what was recorded since the mark: an attempt failed, and that is no fault of the model's. */
typedef struct fg_diagmark {
    fg_diag *last;
    int nerror;
} fg_diagmark;
fg_diagmark fg_diag_mark(const fg_ctx *cx);
void fg_diag_forget(fg_ctx *cx, fg_diagmark mark);
/* The last one recorded; "" when there is none. */
const char *fg_last_text(const fg_ctx *cx);

_Noreturn void fg_bug(fg_ctx *cx, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define FG_BUG(cx, ...) fg_bug((cx), __FILE__, __LINE__, __VA_ARGS__)

/* clang-format on */
#endif
