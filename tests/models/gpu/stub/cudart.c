/* libcudart.so: memory, copies, streams, graphs and events are real; of the kernels, those in kernels.c compute.

   STUB_NO_KERNELS    not 0: no kernel has code for this GPU */
#include "core.h"
#include "kernels.h"

struct properties { /* the first part of CUDA 13's cudaDeviceProp */
    char name[256], uuid[16], luid[8];
    unsigned luid_mask;
    size_t memory, shared_per_block;
    int registers, warp;
    size_t pitch;
    int threads_per_block, block[3], grid[3];
    size_t constant;
    int major, minor;
    size_t texture_alignment, pitch_alignment;
    int multiprocessors, textures_and_surfaces[41];
    size_t surface_alignment;
    int concurrent_kernels, ecc, pci[3], tcc, copy_engines, unified_addresses, bus, l2, persisting_l2;
    int threads_per_multiprocessor, priorities, l1[2];
    size_t shared_per_multiprocessor;
    int registers_per_multiprocessor, managed, others[8];
    size_t shared_opt_in;
    int pageable_tables, direct_managed, blocks_per_multiprocessor, access_window;
    size_t reserved_shared;
};

int cudaGetDeviceCount(int *count) {
    *count = stub_device_count();
    return *count ? OK : NO_DEVICE;
}

int cudaSetDevice(int device) {
    if (device < 0 || device >= stub_device_count()) return INVALID_DEVICE;
    stub_device = device;
    return OK;
}

int cudaGetDevice(int *device) {
    *device = stub_device;
    return OK;
}

int cudaDriverGetVersion(int *version) {
    *version = stub_number("STUB_DRIVER", 13000);
    return OK;
}

int cudaRuntimeGetVersion(int *version) {
    *version = 13000;
    return OK;
}

int cudaGetDeviceProperties(struct properties *found, int device) {
    int capability = stub_number("STUB_CAPABILITY", 90);
    size_t available, total;
    if (device < 0 || device >= stub_device_count()) return INVALID_DEVICE;
    stub_memory(&available, &total);
    *found = (struct properties){
        .memory = total, .shared_per_block = 49152, .registers = 65536, .warp = 32, .threads_per_block = 1024,
        .block = {1024, 1024, 64}, .grid = {2147483647, 65535, 65535}, .major = capability / 10, .minor = capability % 10,
        .multiprocessors = 132, .concurrent_kernels = 1, .copy_engines = 3, .unified_addresses = 1, .l2 = 50 << 20,
        .threads_per_multiprocessor = 2048, .shared_per_multiprocessor = 233472, .registers_per_multiprocessor = 65536,
        .shared_opt_in = 232448, .blocks_per_multiprocessor = 32,
    };
    snprintf(found->name, sizeof found->name, "Stub GPU %d", stub_physical(device));
    return OK;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    struct properties found;
    int status = cudaGetDeviceProperties(&found, device);
    switch (attribute) {
    case 1: *value = found.threads_per_block; break;
    case 8: *value = found.shared_per_block; break;
    case 10: *value = found.warp; break;
    case 16: *value = found.multiprocessors; break;
    case 39: *value = found.threads_per_multiprocessor; break;
    case 41: *value = found.unified_addresses; break;
    case 75: *value = found.major; break;
    case 76: *value = found.minor; break;
    case 81: *value = found.shared_per_multiprocessor; break;
    case 97: *value = found.shared_opt_in; break;
    case 106: *value = found.blocks_per_multiprocessor; break;
    case 115: *value = 1; break; /* memory pools */
    default: *value = 0;
    }
    return status;
}

/* Memory */

int cudaMalloc(void **pointer, size_t size) { return stub_allocate(pointer, size, "cudaMalloc"); }
int cudaMallocFromPoolAsync(void **pointer, size_t size, void *pool, stream *on) {
    return stub_allocate(pointer, size, "cudaMallocFromPoolAsync");
}
int cudaFree(void *pointer) { return stub_release(pointer, "cudaFree"); }
int cudaFreeAsync(void *pointer, stream *on) { return stub_release(pointer, "cudaFreeAsync"); }

int cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    *pointer = calloc(1, size + 64);
    stub_pin(*pointer, size, true);
    return OK;
}
int cudaMallocHost(void **pointer, size_t size) { return cudaHostAlloc(pointer, size, 0); }
int cudaFreeHost(void *pointer) {
    stub_wait_for_all();
    stub_pin(pointer, 0, false);
    free(pointer);
    return OK;
}
int cudaHostRegister(void *pointer, size_t size, unsigned flags) {
    stub_trace("cudaHostRegister %p size %zu", pointer, size);
    stub_pin(pointer, size, true);
    return OK;
}
int cudaHostUnregister(void *pointer) {
    stub_trace("cudaHostUnregister %p", pointer);
    stub_pin(pointer, 0, false);
    return OK;
}

int cudaMemGetInfo(size_t *available, size_t *total) {
    stub_memory(available, total);
    return OK;
}

int cudaPointerGetAttributes(void *result, const void *pointer) {
    struct { int type, device; const void *on_device, *on_host; } found;
    int owner = stub_owner(pointer);
    found.type = owner >= 0 ? 2 : stub_is_pinned(pointer) ? 1 : 0;
    found.device = owner >= 0 ? owner : stub_device;
    found.on_device = pointer;
    found.on_host = owner >= 0 ? NULL : pointer;
    memcpy(result, &found, sizeof found);
    return OK;
}

/* Copies */

struct copy {
    void *to;
    const void *from;
    size_t size;
    bool owned; /* `from` is a copy of pageable memory */
};

static void do_copy(void *argument) {
    struct copy *copy = argument;
    stub_trace("work copy %p <- %p size %zu", copy->to, copy->from, copy->size);
    memcpy(copy->to, copy->from, copy->size);
    if (copy->owned) free((void *)copy->from);
}

int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    stub_trace("cudaMemcpy %p <- %p size %zu kind %d device %d", to, from, size, kind, stub_device);
    if (!stub_may_synchronize("cudaMemcpy")) return CAPTURE_UNSUPPORTED;
    stub_wait_for_blocking();
    stub_wait(NULL);
    if (!stub_failure()) memcpy(to, from, size);
    return stub_failure();
}

int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, stream *on) {
    stub_trace("cudaMemcpyAsync %p <- %p size %zu kind %d stream %p", to, from, size, kind, (void *)on);
    struct copy copy = {to, from, size, false};
    bool to_host = stub_owner(to) < 0, from_host = stub_owner(from) < 0;
    if (from_host && !stub_is_pinned(from) && !stub_is_capturing(on)) {
        copy.from = memcpy(malloc(size + 1), from, size);
        copy.owned = true;
    }
    int status = stub_enqueue(on, do_copy, &copy, sizeof copy);
    return !status && to_host && !stub_is_pinned(to) && !stub_is_capturing(on) ? stub_wait(on) : status;
}

struct fill {
    void *to;
    int value;
    size_t size;
};

static void do_fill(void *argument) {
    struct fill *fill = argument;
    memset(fill->to, fill->value, fill->size);
}

int cudaMemsetAsync(void *to, int value, size_t size, stream *on) {
    struct fill fill = {to, value, size};
    return stub_enqueue(on, do_fill, &fill, sizeof fill);
}
int cudaMemset(void *to, int value, size_t size) {
    int status = cudaMemsetAsync(to, value, size, NULL);
    return status ? status : stub_wait(NULL);
}

/* Streams, graphs and events */

int cudaStreamCreateWithFlags(stream **new, unsigned flags) {
    *new = stub_new_stream(!(flags & 1));
    stub_trace("cudaStreamCreateWithFlags %p flags %u device %d", (void *)*new, flags, stub_device);
    return OK;
}
int cudaStreamCreate(stream **new) { return cudaStreamCreateWithFlags(new, 0); }
int cudaStreamDestroy(stream *old) {
    stub_trace("cudaStreamDestroy %p", (void *)old);
    stub_end_stream(old);
    return OK;
}
int cudaStreamSynchronize(stream *on) {
    stub_trace("cudaStreamSynchronize %p", (void *)on);
    if (stub_is_capturing(on)) return CAPTURE_UNSUPPORTED;
    return stub_wait(on);
}
int cudaDeviceSynchronize(void) {
    stub_trace("cudaDeviceSynchronize");
    if (!stub_may_synchronize("cudaDeviceSynchronize")) return CAPTURE_UNSUPPORTED;
    stub_wait_for_all();
    return stub_failure();
}
int cudaStreamIsCapturing(stream *on, int *status) {
    *status = stub_is_capturing(on);
    return OK;
}
int cudaStreamBeginCapture(stream *on, int mode) {
    stub_trace("cudaStreamBeginCapture %p", (void *)on);
    return stub_capture(on);
}
int cudaStreamEndCapture(stream *on, void **graph) {
    int status = stub_end_capture(on, graph);
    stub_trace("cudaStreamEndCapture %p status %d", (void *)on, status);
    return status;
}
int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) {
    *executable = graph;
    return OK;
}
int cudaGraphLaunch(void *executable, stream *on) {
    return stub_launch_graph(executable, on);
}

int cudaEventCreateWithFlags(event **new, unsigned flags) {
    *new = stub_new_event();
    return OK;
}
int cudaEventCreate(event **new) { return cudaEventCreateWithFlags(new, 0); }
int cudaEventRecord(event *what, stream *on) {
    stub_trace("cudaEventRecord %p stream %p", (void *)what, (void *)on);
    return stub_record(what, on);
}
int cudaEventRecordWithFlags(event *what, stream *on, unsigned flags) { return cudaEventRecord(what, on); }
int cudaStreamWaitEvent(stream *on, event *what, unsigned flags) {
    stub_trace("cudaStreamWaitEvent stream %p %p", (void *)on, (void *)what);
    return stub_wait_event(on, what);
}
int cudaEventSynchronize(event *what) { return stub_wait_on_host(what); }
int cudaEventElapsedTime(float *milliseconds, event *start, event *end) {
    *milliseconds = 1;
    return OK;
}

struct call {
    void (*function)(void *);
    void *argument;
};

static void do_call(void *argument) {
    struct call *call = argument;
    call->function(call->argument);
}

int cudaLaunchHostFunc(stream *on, void (*function)(void *), void *argument) {
    struct call call = {function, argument};
    return stub_enqueue(on, do_call, &call, sizeof call);
}

/* Kernels */

typedef struct {
    unsigned x, y, z;
} dim3;

/* `kernel<<<grid, block, shared, stream>>>()` pushes these, and its stub pops them. */
static __thread struct {
    dim3 grid, block;
    size_t shared;
    stream *on;
} pushed;

int __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, stream *on) {
    pushed.grid = grid, pushed.block = block, pushed.shared = shared, pushed.on = on;
    return OK;
}
int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, stream **on) {
    *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *on = pushed.on;
    return OK;
}

static __thread int last_error;

int __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, stream *on) {
    if (stub_number("STUB_NO_KERNELS", 0)) return last_error = NO_KERNEL_IMAGE;
    return stub_launch_kernel(kernel, grid.x, arguments, on);
}
int cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, stream *on) {
    return __cudaLaunchKernel((void *)function, grid, block, arguments, shared, on);
}
int __cudaGetKernel(void **kernel, const void *function) {
    *kernel = (void *)function;
    return OK;
}
void **__cudaRegisterFatBinary(void *binary) {
    static void *handle[64];
    return handle;
}
void __cudaRegisterFunction(void **binary, const void *function, char *device_function, const char *name) {
    stub_register_kernel(function, name);
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) {
    *blocks = 2;
    return OK;
}
int cudaFuncGetAttributes(void *attributes, const void *function) {
    memset(attributes, 0, 64);
    return OK;
}
int cudaGetDriverEntryPointByVersion(const char *name, void **function) {
    *function = NULL;
    return OK;
}

/* Memory pools */

int cudaDeviceGetDefaultMemPool(void **pool, int device) {
    *pool = (void *)1;
    return OK;
}
int cudaMemPoolCreate(void **pool, const void *properties) {
    *pool = (void *)1;
    return OK;
}
int cudaMemPoolGetAttribute(void *pool, int attribute, void *value) {
    memset(value, 0, 8);
    return OK;
}

/* Errors */

int cudaGetLastError(void) {
    int status = last_error;
    last_error = OK;
    return status ? status : stub_failure();
}
int cudaPeekAtLastError(void) { return last_error ? last_error : stub_failure(); }

const char *cudaGetErrorName(int status) {
    switch (status) {
    case OUT_OF_MEMORY: return "cudaErrorMemoryAllocation";
    case NO_DEVICE: return "cudaErrorNoDevice";
    case INVALID_DEVICE: return "cudaErrorInvalidDevice";
    case NO_KERNEL_IMAGE: return "cudaErrorNoKernelImageForDevice";
    case INVALID_HANDLE: return "cudaErrorInvalidResourceHandle";
    case ILLEGAL_ADDRESS: return "cudaErrorIllegalAddress";
    case CAPTURE_UNSUPPORTED: return "cudaErrorStreamCaptureUnsupported";
    case CAPTURE_INVALIDATED: return "cudaErrorStreamCaptureInvalidated";
    default: return "cudaErrorUnknown";
    }
}
const char *cudaGetErrorString(int status) {
    switch (status) {
    case OK: return "no error";
    case OUT_OF_MEMORY: return "out of memory";
    case NO_DEVICE: return "no CUDA-capable device is detected";
    case INVALID_DEVICE: return "invalid device ordinal";
    case NO_KERNEL_IMAGE: return "no kernel image is available for execution on the device";
    case INVALID_HANDLE: return "invalid resource handle";
    case ILLEGAL_ADDRESS: return "an illegal memory access was encountered";
    case CAPTURE_UNSUPPORTED: return "operation not permitted when stream is capturing";
    case CAPTURE_INVALIDATED: return "operation failed due to a previous error during capture";
    default: return "unknown error";
    }
}
