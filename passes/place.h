/* place.h - lifetimes and storage of the registers of a FUSED module. Registers inside
 * kernels have no storage and no lifetime here. */
#ifndef FG_PASSES_PLACE_H
#define FG_PASSES_PLACE_H

#include "passes/pass.h"

/* Positions: instructions numbered in program order; an if or loop has one number
 * where it begins and one where it ends, its regions' instructions in between. */
typedef struct fg_liverange {
    int32_t first, last;
} fg_liverange; /* inclusive */

/* By register; first = -1 when it never lives. A register read inside a loop it was made
 * outside of lives until the loop ends. */
fg_liverange *fg_liveness(fg_module *m, fg_arena *a);

/* The operand whose bytes, unchanged, are the result of this kernel (reshapes, copies,
 * transposes that only move axes of size 1); 0 when it has work to do. */
fg_reg fg_kernel_alias(fg_module *m, const fg_inst *kernel);

/* Lets results share the storage of operands that die at their kernel, where the kernel
 * reads and writes the same element. Outputs and everything else have storage already. */
void fg_place_in_place(fg_module *m, fg_arena *a, const fg_liverange *live);

/* Operations that read a row of their operand before they write it. */
bool fg_keeps_rows(fg_op op);

/* Follows ALIAS to the register that owns the storage. */
fg_reg fg_storage_of(const fg_module *m, fg_reg r);

/* A size for every symbol to plan and to report with: batch 1, length 128, inside the
 * bounds. */
int64_t *fg_nominal_symbols(fg_module *m, fg_arena *a);

/* Bytes of a register for given symbols; -1 when out of range. */
int64_t fg_reg_bytes(fg_module *m, fg_reg r, const int64_t *sym);

/* Every byte read is the one that was written, going by offsets and program order alone. */
bool fg_check_place(fg_module *m, fg_arena *a);

#endif
