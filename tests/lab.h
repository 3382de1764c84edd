/* lab.h - values that tests try programs on. */
#ifndef FG_TESTS_LAB_H
#define FG_TESTS_LAB_H

#include "ir/eval.h"

/* What tests write for several types: F floats, I integers, N both, A also bool, P also
 * packed ones; anything else is a list of types itself. Separated by commas. */
const char *lab_types(const char *name);

/* The next of a sequence of numbers; *state is any seed. */
uint64_t lab_random(uint64_t *state);
uint64_t lab_below(uint64_t *state, uint64_t n); /* 0 .. n-1; 0 for n = 0 */

/* Plain: floats of -2..2, integers of -7..7, none below 0 when `natural`. Odd: every other
 * element is a zero of either sign, an infinity, NaN, the least or greatest number, a denormal,
 * or one near those. */
typedef enum { LAB_PLAIN, LAB_NATURAL, LAB_ODD } lab_kind;
void lab_fill(fg_tensor *t, lab_kind kind, uint64_t *state);
void lab_fill_range(fg_tensor *t, int64_t lo, int64_t hi, uint64_t *state);

#endif
