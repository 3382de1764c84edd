/* matmul_int.h - matmul_int of many rows, by products of bytes. */
#ifndef FG_CODEGEN_CPU_MATMUL_INT_H
#define FG_CODEGEN_CPU_MATMUL_INT_H

#include "codegen/cpu/quant.h"

typedef struct fg_int fg_int;
/* A product of `rows` rows and one matrix; NULL: its operands do not fit. */
fg_int *fg_int_of(fg_em *e, const fg_inst *matmul_int, fg_expr rows);
/* Asks for its memory; how it is cut. */
fg_tile fg_int_take(fg_int *q);
/* fg_product's multiply, and the address of rows of x. */
void fg_int_multiply(fg_int *q, fg_panel *p, fg_v first, fg_v col, fg_v n);
fg_v fg_int_rows(fg_int *q, fg_v row, fg_v n);

#endif
