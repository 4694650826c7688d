/* libcudnn.so: plans every convolution and computes nothing. */
#include "core.h"

size_t cudnnGetVersion(void) { return stub_number("STUB_CUDNN", 91900); }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int status) { return "CUDNN_STATUS_STUB"; }
void cudnnGetLastErrorString(char *message, size_t size) {
    if (size) message[0] = 0;
}

struct handle {
    stream *on;
};
int cudnnCreate(struct handle **new) {
    *new = calloc(1, sizeof **new);
    stub_trace("cudnnCreate");
    return OK;
}
int cudnnSetStream(struct handle *handle, stream *on) {
    handle->on = on;
    return OK;
}
int cudnnGetStream(struct handle *handle, stream **on) {
    *on = handle->on;
    return OK;
}

static void nothing(void *arguments) { (void)arguments; }
static int compute(const char *function, struct handle *handle) {
    stub_trace("%s stream %p", function, (void *)handle->on);
    return stub_enqueue(handle->on, nothing, "", 1);
}
int cudnnBackendExecute(struct handle *handle) { return compute("cudnnBackendExecute", handle); }
int cudnnConvolutionForward(struct handle *handle) { return compute("cudnnConvolutionForward", handle); }
int cudnnConvolutionBiasActivationForward(struct handle *handle) {
    return compute("cudnnConvolutionBiasActivationForward", handle);
}
int cudnnPoolingForward(struct handle *handle) { return compute("cudnnPoolingForward", handle); }
int cudnnSoftmaxForward(struct handle *handle) { return compute("cudnnSoftmaxForward", handle); }
int cudnnReduceTensor(struct handle *handle) { return compute("cudnnReduceTensor", handle); }
int cudnnActivationForward(struct handle *handle) { return compute("cudnnActivationForward", handle); }
int cudnnAddTensor(struct handle *handle) { return compute("cudnnAddTensor", handle); }

int cudnnBackendCreateDescriptor(int type, void **new) {
    *new = calloc(1, 64);
    return OK;
}
int cudnnBackendGetAttribute(void *descriptor, int name, int type, long wanted, long *count, void *values) {
    enum { INT64 = 3, NUMERICAL_NOTE = 11, INT32 = 23, BEHAVIOR_NOTE = 19 };
    if (count) *count = type != NUMERICAL_NOTE && type != BEHAVIOR_NOTE;
    if (values && wanted > 0 && type == INT64) *(int64_t *)values = 0;
    if (values && wanted > 0 && type == INT32) *(int32_t *)values = 0;
    return OK;
}

static int one_algorithm(int *count, void *performance) {
    *count = 1;
    memset(performance, 0, 48);
    return OK;
}
int cudnnGetConvolutionForwardAlgorithm_v7(void *handle, void *x, void *w, void *convolution, void *y, int wanted,
                                           int *count, void *performance) {
    return one_algorithm(count, performance);
}
int cudnnFindConvolutionForwardAlgorithmEx(void *handle, void *xd, void *x, void *wd, void *w, void *convolution,
                                           void *yd, void *y, int wanted, int *count, void *performance) {
    return one_algorithm(count, performance);
}
int cudnnGetConvolutionForwardWorkspaceSize(void *handle, void *x, void *w, void *convolution, void *y, int algorithm,
                                            size_t *size) {
    *size = 0;
    return OK;
}
