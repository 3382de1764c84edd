/* tables.h - programs as bytes, and bytes as programs that are safe to run.
 *
 * Numbers are little endian, one after another without padding; a list is its length
 * and its elements; text is its length, its bytes and a zero. One description
 * (tables.c) serves both directions, so they cannot differ.
 */
#ifndef FG_RUNTIME_TABLES_H
#define FG_RUNTIME_TABLES_H

#include <stdbool.h>

#include "runtime/abi.h"

/* Memory that goes all at once. */
typedef struct fg_pile {
    void *(*alloc)(void *user, size_t bytes);
    void (*release)(void *user, void *p);
    void *user;
    struct fg_pileblock *block;
} fg_pile;
void *fg_pile_get(fg_pile *p, size_t n, size_t each); /* zeroed; NULL: out of memory */
void fg_pile_free(fg_pile *p);

typedef struct fg_blob { /* a weight: where its bytes are */
    const void *data;
    uint64_t bytes;
    bool mapped; /* from a file by this library: its pages can be given back */
} fg_blob;

typedef enum { FG_TABLES_OK, FG_TABLES_BROKEN, FG_TABLES_MEMORY } fg_tables_state;

/* Writing: `out` grows in the pile. Reading: from [at, end), text stays there. */
typedef struct fg_tables {
    fg_pile *pile;
    bool writing;
    fg_tables_state state;
    const uint8_t *at, *end;
    uint8_t *out;
    size_t n, cap;
    /* Reading: weights by number. Writing: the number of the one at `data`. */
    const fg_blob *weight;
    uint32_t nweight;
    uint32_t (*weight_at)(void *user, const void *data, uint32_t tensor);
    void *user;
} fg_tables;

void fg_io_u8(fg_tables *x, uint8_t *v);
void fg_io_u32(fg_tables *x, uint32_t *v);
void fg_io_u64(fg_tables *x, uint64_t *v);
void fg_io_bytes(fg_tables *x, void *data, size_t n); /* as they are */
void fg_io_text(fg_tables *x, const char **s);        /* NULL is written as "" */
/* The length of a list; the list to go on with: `have` when writing, fresh when reading. */
void *fg_io_list(fg_tables *x, const void *have, uint32_t *n, size_t each);

/* Functions of kernels are left NULL when reading; form.code says which. */
void fg_io_program(fg_tables *x, fg_program *p);

/* check.c: NULL, or what is wrong: an index out of its table, a cycle, sizes that cannot
 * be. nfn: functions there are. A program that passes cannot make bind.c or run.c leave
 * their tables; what its kernels do is up to their code. */
const char *fg_program_check(const fg_program *p, uint32_t nfn, const fg_blob *weight,
                             uint32_t nweight, fg_pile *scratch);

#endif
