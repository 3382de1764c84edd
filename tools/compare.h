/* compare.h - outputs against expected values. */
#ifndef FG_TOOLS_COMPARE_H
#define FG_TOOLS_COMPARE_H

#include "tools/tool.h"

typedef struct tool_tolerance {
    double atol, rtol; /* < 0: the default of the element type */
} tool_tolerance;

typedef struct tool_difference {
    int64_t wrong; /* elements outside of the tolerance */
    double worst;  /* largest |got - want|; infinite when one side is NaN or infinite */
    int64_t at;    /* which element */
    double got, want;  /* its values */
    double atol, rtol; /* that were used */
} tool_difference;

/* An element is wrong when |got - want| > atol + rtol |want|; NaN equals NaN,
 * infinities are equal by sign. Type and shape are equal already. */
tool_difference tool_compare(const fg_tensor *got, const fg_tensor *want,
                             tool_tolerance t);

#endif
