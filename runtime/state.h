/* state.h - what state.c (lengths, and states in runs) and store.c (their memory) share. */
#ifndef FG_RUNTIME_STATE_H
#define FG_RUNTIME_STATE_H

#include "runtime/rt.h"

/* A tensor of a state as rows: `outer` blocks of dim[axis] rows. */
typedef struct fg_rows {
    int64_t outer, bytes; /* of one row */
} fg_rows;

int fg_is_in_place(const fg_statedef *s);
/* In place and of one size: the model writes where its inputs say. */
int fg_keeps_size(const fg_program *p, const fg_statedef *s);
/* In place, and no more than the last rows are ever read. */
int fg_is_window(const fg_statedef *s);
/* Such a one that the model cuts itself; and with all of its rows, zeros, from the beginning. */
int fg_is_cut(const fg_program *p, const fg_statedef *s);
int fg_starts_full(const fg_program *p, const fg_statedef *s);
fg_rows fg_rows_of(const fg_program *p, const fg_statedef *s, const int64_t *dim);
/* Bytes with room for `capacity` along the axis; FG_UNKNOWN when that overflows. */
int64_t fg_state_bytes(const fg_program *p, const fg_statedef *s, const int64_t *dim,
                       int64_t capacity);
/* n rows of each block, from blocks of `have` rows to blocks of `room`. */
void fg_copy_rows(fg_rows r, char *to, int64_t room, const char *from, int64_t have,
                  int64_t n);

/* Of tensor k so many rows are valid. */
void fg_set_rows(forge_state *s, uint32_t k, int64_t rows);
/* Windows that have no room for what the run appends begin anew with the rows that are still
 * read; all of them, or none when there is no memory. */
forge_status fg_state_slide(forge_run *r);
/* Rows of window k that must be there for the state to have `length` positions. */
int64_t fg_window_rows(const fg_program *p, const fg_statedef *s, int64_t length);
/* Memory of all tensors for so many positions, what is valid moved there. */
forge_status fg_state_grow(forge_state *s, forge_ctx *cx, int64_t capacity);
void fg_store_drop(forge_ctx *cx, fg_store **s); /* one owner less */
/* t, which has no memory yet, becomes an owner of all that s holds. */
void fg_store_share(forge_state *t, const forge_state *s);
/* Rows of a store from n on are nobody's, unless it is shared. */
void fg_store_cut(fg_store *s, int64_t n);
/* What tensor k holds is nobody else's from here on; n rows of it are kept. */
forge_status fg_store_own(forge_state *s, uint32_t k, int64_t n);
/* A run will write tensor k, which then has `rows` rows. */
forge_status fg_store_claim(forge_state *s, forge_ctx *cx, uint32_t k, int64_t rows);

/* Gets the messages of forge_state_ calls: the context of its run, which is in the thread
 * that the state is in. */
forge_ctx *fg_state_context(const forge_state *s);
/* An error when some tensor has no positions to go back to; when some window has no longer what
 * is read at so many positions, of which there are some. */
forge_status fg_state_has_history(const forge_state *s);
forge_status fg_state_holds(const forge_state *s, int64_t length);

/* sequence.c: room to note which positions count; t's are those of s, for each of its
 * sequences; positions up to `length` are added and count. */
forge_status fg_sequences_grow(forge_state *s, forge_ctx *cx, int64_t capacity);
forge_status fg_sequences_copy(forge_state *t, const forge_state *s);
void fg_sequences_append(forge_state *s, int64_t length);

#endif
