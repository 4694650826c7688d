/* libcublasLt.so: descriptors only. */
#include "core.h"

static int create(void **new) {
    *new = calloc(1, 64);
    return OK;
}
int cublasLtCreate(void **new) { return create(new); }
int cublasLtMatmulDescCreate(void **new) { return create(new); }
int cublasLtMatrixLayoutCreate(void **new) { return create(new); }
int cublasLtMatmulPreferenceCreate(void **new) { return create(new); }
int cublasLtMatrixTransformDescCreate(void **new) { return create(new); }
