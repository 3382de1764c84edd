/* gemm.h - the register-tiled product under matmul, convolution and their relatives.
 *
 *     panel   NR columns of B, packed [K][NR] in scratch
 *     tile    up to MR rows of A times one panel: MR x NV vectors of accumulators
 *
 * Sizes and strides are run-time numbers: one set of micro-kernels per element type and
 * module serves every product in it.
 */
#ifndef FG_CODEGEN_CPU_GEMM_H
#define FG_CODEGEN_CPU_GEMM_H

#include "codegen/cpu/ll.h"

/* How a product is cut for this machine and element type. */
typedef struct fg_tile {
    fg_t elem;  /* of the accumulators: f32, f64, i32, i64 */
    int size;   /* its bytes */
    int W;      /* lanes of a vector register */
    int NV, NR; /* vectors, columns of a panel */
    int MR;     /* rows of a full tile */
    int ld;     /* from one row of a panel, or of c, to the next, in elements */
} fg_tile;

fg_tile fg_tile_of(fg_ll *g, fg_t elem);

/* c[n][ld] = A[n][K] B[K][NR], n = 1..MR rows. One function per n:
 *     (a, lda, ska, k, b, c, next, ldnext, gap, start)
 * Strides are in bytes. b is a packed panel. Meanwhile as many lines as it has in a row
 * are fetched per turn, the first at next + i ldnext, the others gap bytes apart. start 0:
 * what is in c is added to. PACK: the panel is read at next, rows ldnext apart, and packed
 * to b on the way. PAIRS: elements of A and B are two bf16, neighbours along k; one line is
 * fetched per turn. */
typedef enum { FG_TILE_PLAIN, FG_TILE_PACK, FG_TILE_PAIRS } fg_tilekind;
fg_v fg_tile_kernel(fg_ll *g, const fg_tile *t, int n, fg_tilekind kind);

enum { FG_MORE = 4 };

/* One panel times all rows. */
typedef struct fg_panel {
    fg_tile t;
    fg_v rows, k;               /* i64 */
    int64_t min_rows, max_rows; /* bounds of rows */
    fg_v lda, ska;              /* bytes between rows, and between elements, of A */
    fg_v b;                     /* packed panel, 64-byte aligned */
    /* Unpacked panel and bytes between its rows, to be packed on the way if `fuse`
     * holds (i1); the one after it is prefetched. NULL: b is packed already. */
    fg_v src, ldsrc, fuse;
    /* Memory that is wanted next, fetched evenly while the tiles are computed: `gap`
     * bytes for each line of a row of the panel, all tiles one behind the other.
     * NULL: nothing. */
    fg_v next, gap;
    fg_v cold; /* i1: b is not in the cache; the first tile fetches it. NULL: it is */
    /* Another micro-kernel than fg_tile_kernel, for n rows: after ldnext its arguments go on
     * with the address of what belongs to the tile's first row at `beside`, ldbeside bytes
     * from row to row, then more[nmore]; without `beside` they are the usual ones. NULL:
     * there is none. */
    fg_v (*kernel)(fg_ll *g, void *maker, const fg_tile *t, int n);
    void *maker;
    fg_v beside, ldbeside, more[FG_MORE];
    int nmore;
    fg_v after, ldafter; /* it fetches meanwhile: bytes in a turn, from there on */
    fg_v start;          /* i64; 0: c is added to. NULL: it is not */
    fg_v c;              /* [MR][ld], the tile just computed, 64-byte aligned */
    fg_v down;           /* i64; the one at `row` is row * down elements on. NULL: 0 */
    fg_v at;             /* where A is */
    /* NULL, or where the rows [row, row + n) of A are instead; NULL, or what to do before
     * those rows of C are computed, and with them, at c. */
    fg_v (*a)(void *user, fg_v row, fg_v n);
    void (*soon)(void *user, fg_v row, fg_v n);
    void (*done)(void *user, fg_v row, fg_v n, fg_v c);
    /* What tile number `tile` fetches: in turn i of its k as many bytes as a row of the
     * panel has, from *p + i *ld on. NULL: nothing but the above. */
    void (*ahead)(void *user, fg_v tile, fg_v *p, fg_v *ld);
    void *user;
} fg_panel;
void fg_panel_rows(fg_ll *g, const fg_panel *p);
/* The same with b a panel that is ld columns wide, packed already, one of many; next is the
 * one after it, or whatever is in the cache, and c is [rows][ld]. A slice is as many rows of
 * the panel as are multiplied with all rows of A before the next ones. */
typedef struct fg_slices {
    fg_v deep; /* its rows */
    fg_v last; /* where the last one starts; 0 if p->a: A would be made anew for each */
    fg_v gap;  /* so that together all tiles fetch as much as a slice is */
} fg_slices;
void fg_panel_cut(fg_ll *g, const fg_panel *p, const fg_slices *s);

/* Transposes the W x W matrix in r[0..W), elements of `size` bytes: rows to columns. */
void fg_transpose_regs(fg_ll *g, fg_v *r, int W, int size);

/* Packs n <= NR columns of a matrix to dst[K][NR], 64-byte aligned with room for K + W
 * rows. Columns from n on hold anything, which only ever reaches columns of C that
 * nobody stores. Rows contiguous, ld bytes apart; or columns contiguous, ld bytes
 * apart. */
void fg_pack_rows(fg_ll *g, const fg_tile *t, fg_v src, fg_v ld, fg_v k, fg_v n,
                  fg_v dst);
void fg_pack_columns(fg_ll *g, const fg_tile *t, fg_v src, fg_v ld, fg_v k, fg_v n,
                     fg_v dst);

/* ---- few rows (gemv.c) ---------------------------------------------------------- */

enum {
    FG_FEW_ROWS =
        8, /* up to here a product may run at the speed of memory: see knob few */
    FG_FEW_DEEP = 8 /* rows of w that fg_few_rows takes at a time */
};

/* y[m][n] += x[m][k] w[k][n], m <= FG_FEW_ROWS, reading w once, front to back. Rows of x
 * contiguous. y has room for whole vectors. ld* are bytes between rows. */
typedef struct fg_few {
    fg_v x, ldx, m, w, ldw, k, y, ldy, n;
} fg_few;
void fg_few_rows(fg_ll *g, const fg_tile *t, const fg_few *f); /* rows of w contiguous */
/* The same with w stored [n][k]. */
void fg_few_columns(fg_ll *g, const fg_tile *t, const fg_few *f);
/* For rows of w so short that W of them are at home in the first-level cache: heads. */
void fg_few_short_columns(fg_ll *g, const fg_tile *t, const fg_few *f);

/* Starts or finds the module's helper function of that name; false when it exists
 * already. */
bool fg_helper_begin(fg_ll *g, const char *what, const fg_tile *t, int n,
                     const fg_t *param, ll_place *back, fg_v *fn);
void fg_helper_end(fg_ll *g, ll_place back);

#endif
