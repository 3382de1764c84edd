/* product.h - the frame of every kernel that is a matrix product at heart.
 *
 *     for each batch, block of rows, panel of columns:    one chunk
 *         pack the panel of B;  multiply it with the rows of A, tile by tile
 *         each tile: epilogue and store, pulled while it is in the first-level cache
 *
 * matmul.c and conv.c say where A and B are and what index an element of the product
 * has; the region around the anchor says what becomes of it.
 */
#ifndef FG_CODEGEN_CPU_PRODUCT_H
#define FG_CODEGEN_CPU_PRODUCT_H

#include "codegen/cpu/emit.h"
#include "codegen/cpu/gemm.h"

typedef struct fg_product fg_product;
struct fg_product {
    fg_em *e;
    fg_tile tile;
    fg_dtype acc; /* of the sums */
    fg_reg out;   /* the anchor's result */
    void *user;
    fg_expr batch, rows, n, k;
    /* Another product of the same rows and of the same shape, whose value is only wanted
     * where this one's is: computed in step with it. Of its functions begin, pack, b and
     * few are used. */
    fg_product *twin;

    /* A chunk starts: batch b, rows [row, ..). */
    void (*begin)(fg_product *p, fg_v b);
    /* Address of rows [row, row + n) of A; then lda and ska apply (bytes). */
    fg_v (*a)(fg_product *p, fg_v row, fg_v n);
    fg_v lda, ska;
    bool pulls_a; /* a computes its rows, all of k each time */
    /* Packs columns [col, col + n) of B to p->panel, n <= NR. */
    void (*pack)(fg_product *p, fg_v col, fg_v n);
    /* If rows of B are contiguous f32 in memory: where column col starts, ldb bytes
     * apart; else NULL. */
    fg_v (*b)(fg_product *p, fg_v col);
    fg_v ldb;
    /* B is cut into panels FG_PANEL columns wide: the address of panel `at`. NULL: not. */
    fg_v (*cut)(fg_product *p, fg_v at);
    /* Multiplies all rows of `q`, whose a, rows, c, stack, done and user are set, with columns
     * [col, col + n) of B in its own way. NULL: packed, tile by tile. */
    void (*multiply)(fg_product *p, fg_panel *q, fg_v col, fg_v n);
    /* Adds the product of all rows (at most FG_FEW_ROWS) and columns [col, col + n) to
     * y[rows][p->ldy]. NULL: there is no such path. */
    void (*few)(fg_product *p, fg_v col, fg_v n, fg_v y, fg_v ldy);
    /* The index in `out` of (row, column). */
    void (*index)(fg_product *p, fg_v row, fg_index col, fg_index *ix);
    /* The anchor's value at ix from a vector of sums. NULL: the sums themselves. */
    fg_v (*finish)(fg_product *p, const fg_index *ix, fg_v sums);

    /* Set by the frame. */
    fg_v vrows, vn, vk;
    fg_v panel; /* packed B */
    fg_v c;     /* the tile, or all rows of the panel */
    fg_slices slices;
    struct fg_done {
        fg_v row, col, n, at, ld;
    } done;   /* element (row, col) is at `at` */
    fg_v now; /* where the value under way is */
};
bool fg_product_emit(fg_product *p);
/* Makes p->out's value what the frame computes; false when a result of the region
 * cannot be stored from it, and the diagnostic is recorded. */
bool fg_product_takes_over(fg_product *p);
/* The region's results for n rows and `cols` columns of p->out, which are in memory as
 * p->done says. `whole`: cols is a multiple of the vector width. */
void fg_product_store(fg_product *p, fg_v n, fg_v cols, bool whole);

/* Which element type sums are kept in; FG_NODTYPE: none. */
fg_dtype fg_product_acc(fg_dtype d);

#endif
