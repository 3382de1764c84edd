/* distance.h - how far the elements of two tensors of one type and shape are apart. */
#ifndef FG_IR_DISTANCE_H
#define FG_IR_DISTANCE_H

#include "ir/eval.h"

/* Steps from one value of type d to another, over the values in between: 1 for neighbours, 0
 * for equal ones and for NaN and NaN, infinite for NaN and a number. -0 and 0 are one step
 * apart. For integers, the difference. */
double fg_ulps(fg_dtype d, double got, double want);

typedef struct fg_distance {
    int64_t differ; /* elements with another value; -0 equals 0, NaN equals NaN */
    double ulp;     /* the most steps */
    double
        relative; /* the largest |got - want| / |want| with both finite, else infinite */
    double absolute;
    int64_t at; /* the element with the most steps; -1 when none differs */
    double got, want;
} fg_distance;
fg_distance fg_tensor_distance(const fg_tensor *got, const fg_tensor *want);

#endif
