/* attention.h - what the two forms of attention share.
 *
 *     blocks   (attention_blocks.c)   panels of queries of one head against blocks of keys
 *     few      (attention_few.c)      up to 8 query rows of one key head: decoding
 */
#ifndef FG_CODEGEN_CPU_ATTENTION_H
#define FG_CODEGEN_CPU_ATTENTION_H

#include "codegen/cpu/product.h"
#include "codegen/cpu/strided.h"

/* q, k or v: rows of f32 that a head has, in place or pulled into scratch. */
typedef struct fg_att_side {
    fg_reg reg;
    fg_expr width; /* D or E */
    bool there;    /* its rows are in memory, as `view` says, each in one piece */
    bool direct;   /* and f32 */
    bool copy;     /* blocks of rows are copied to scratch although they are direct */
    fg_strided view;
    fg_v base, ld;      /* there: this head's row 0, and bytes between rows */
    fg_v room, room_ld; /* else, or copied: scratch for a block of rows */
    fg_v head;          /* of this chunk */
} fg_att_side;

typedef struct fg_att {
    fg_product p; /* the way out */
    fg_em *e;
    fg_ll *g;
    fg_tile t;
    fg_inst *anchor;
    fg_expr B, H, G, S, T, D, E, group; /* group: query heads per key head */
    fg_att_side q, k, v;
    fg_reg mask, sink, lengths;
    bool same_mask; /* all queries of a head have the same mask */
    double cap;
    int64_t left, right; /* window; -1: open. causal: right 0 */
    double hidden;       /* score of a key that these or a mask of bools hide */
    int nround;          /* what goes through quantize and dequantize */
    fg_rounding round[FG_MAXROUND];
    /* This chunk. */
    fg_v b, h;
    fg_v keys;                 /* how many exist */
    fg_v shift;                /* query i stands at key i + shift */
    fg_v grid[FG_MAXROUND][2]; /* scale and zero point of each rounding, f32 */
    /* The run being pulled. */
    const fg_att_side *side;
    fg_v row, key, to;
} fg_att;

/* The key head of query head h. */
fg_v fg_att_key_head(fg_att *a, fg_v h);
/* Where row 0 of a head is, of a side that stays where it is. */
fg_v fg_att_head(fg_att *a, const fg_att_side *s, fg_v b, fg_v head);
/* A chunk of batch b and query head h starts: where its heads are, what exists. */
void fg_att_begin(fg_att *a, fg_v b, fg_v h);
/* Room for blocks of n rows of a side, if they do not stay where they are. */
void fg_att_room(fg_att *a, fg_att_side *s, int n);
/* Where rows [row, row + n) of a side are, and bytes between them; pulls them when
 * they must be. */
fg_v fg_att_rows(fg_att *a, fg_att_side *s, fg_v row, fg_v n, fg_v *ld);
/* Row `row` of a side to f32 memory with room for whole vectors. */
void fg_att_copy_row(fg_att *a, fg_att_side *s, fg_v row, fg_v to);
/* Query i sees keys [first, end). */
fg_v fg_att_first(fg_att *a, fg_v i);
fg_v fg_att_end(fg_att *a, fg_v i);
bool fg_att_limited(const fg_att *a);
/* Limits give no leave to pass over keys: a query that sees none has the mean of all. */
bool fg_att_all_count(const fg_att *a);
/* What is added to the scores of query i and keys key.., e->lanes wide, under e->mask. */
fg_v fg_att_mask(fg_att *a, fg_v i, fg_v key);
fg_v fg_att_cap(fg_att *a, fg_v scores, double unit); /* scores are times `unit` */
/* x through every quantize and dequantize that stands there. */
fg_v fg_att_round(fg_att *a, fg_roundat at, fg_v x);
bool fg_att_rounds(const fg_att *a, fg_roundat at); /* is there one? */
/* The extra logit of query head h; NULL: none. */
fg_v fg_att_sink(fg_att *a, fg_v h);
/* m for exp(s - m), where m = -inf, a row that sees nothing yet, gives 0. */
fg_v fg_att_floor(fg_att *a, fg_v m);
/* 1 / sum, with what `empty` wants when there was nothing to sum. */
fg_v fg_att_inverse(fg_att *a, fg_v sum);

fg_expr fg_att_blocks_chunks(fg_att *a);
void fg_att_blocks(fg_att *a);
fg_expr fg_att_few_chunks(fg_att *a);
void fg_att_few(fg_att *a);

#endif
