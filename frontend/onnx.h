/* onnx.h - ONNX bytes to IR. */
#ifndef FG_FRONTEND_ONNX_H
#define FG_FRONTEND_ONNX_H

#include "ir/ir.h"

typedef struct fg_import_options {
    const char *const *dim_name; /* symbols to fix: --dim=batch=1 */
    const int64_t *dim_value;
    const int64_t *dim_lo, *dim_hi; /* or bounds; when dim_value[i] < 0 */
    const int64_t *dim_usual;       /* and the usual size between them; 0: not said */
    int ndim;
    bool check_only; /* go on after an unsupported node, to list them all */
} fg_import_options;

/* A mapped model file; the module's weights point into it, so it outlives the module. */
typedef struct fg_onnx_file fg_onnx_file;

/* Reads the file at path (diagnostics begin with it). NULL on failure. */
fg_onnx_file *fg_onnx_open(fg_ctx *cx, const char *path);
void fg_onnx_close(fg_onnx_file *f); /* takes NULL; unmaps */
/* The files behind f, as fg_weight.file names them: the model (0), external data as it was
 * met. NULL: there are fewer. */
const char *fg_onnx_local(const fg_onnx_file *f, int k, size_t *size);
/* Makes the module in arena a: stage TENSOR, verified shapes. NULL with a diagnostic. */
fg_module *fg_onnx_import(fg_onnx_file *f, fg_arena *a, const fg_import_options *o);

/* One unsupported node per entry after a check_only import. */
typedef struct fg_unsupported {
    const char *node, *op, *reason;
} fg_unsupported;
const fg_unsupported *fg_onnx_unsupported(const fg_onnx_file *f, int *n);

/* A TensorProto file (test data): dtype, dims and data in arena a. */
struct fg_tensor;
bool fg_onnx_tensor_file(fg_ctx *cx, fg_arena *a, const char *path,
                         struct fg_tensor *out);

#endif
