/* program.h - a PLACED module and its machine code as the tables the runtime executes. */
#ifndef FG_CODEGEN_PROGRAM_H
#define FG_CODEGEN_PROGRAM_H

#include "codegen/target.h"

/* In arena a. kc[i].fn is looked up with `fn`. NULL with a diagnostic when a size
 * cannot be found from the shapes of the inputs. */
fg_program *fg_program_make(fg_module *m, fg_arena *a, fg_kcode *kc, int nkc,
                            const fg_specials *specials,
                            fg_kernel_fn *(*fn)(const void *code, int fn),
                            const void *code);

/* Inside program.c and values.c: the value table being built. */
typedef struct fg_vtab fg_vtab;
fg_vtab *fg_vtab_new(fg_arena *a, fg_exprs *ex);
uint32_t fg_vtab_expr(fg_vtab *t, fg_expr e); /* FG_NONE for FG_E_BAD */
/* Bytes of a tensor with these dims; built of values, because the product of dims that
 * are sums, multiplied out, would be long. */
uint32_t fg_vtab_bytes(fg_vtab *t, int rank, const uint32_t *dim, int bits);
uint32_t fg_vtab_symbol(fg_vtab *t, fg_sym s);
const fg_value *fg_vtab_values(const fg_vtab *t, uint32_t *n);

/* solve.c: rows that find the input symbols from the shapes of the inputs. Symbols
 * that no row finds stay unset in *found. */
fg_solve *fg_solve_rows(fg_module *m, fg_arena *a, fg_vtab *t, uint32_t *n,
                        fg_bits found);

#endif
