/* State shared by the stand-ins: environment, trace, devices, memory, streams. */
#pragma once
#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Status codes of the CUDA runtime and driver. */
enum {
    OK = 0,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    NO_KERNEL_IMAGE = 209,
    INVALID_HANDLE = 400,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

/* Environment variables of the bench; `fallback` if not set. */
long stub_number(const char *name, long fallback);

/* Append a line "THREAD text" to the file that STUB_TRACE names. */
void stub_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* GPUs that CUDA_VISIBLE_DEVICES leaves of STUB_DEVICES, in its order. */
int stub_device_count(void);
/* The physical number of a visible GPU. */
int stub_physical(int device);

/* The GPU that is current in the calling thread. */
extern __thread int stub_device;

/* The first error of a device's work stays until the end of the process, as CUDA's does. */
int stub_failure(void);
void stub_fail(int status);

int stub_allocate(void **pointer, size_t size, const char *function);
/* How many allocations were tried, and pieces of computing begun. */
long stub_allocations(void);
long stub_pieces(void);
int stub_release(void *pointer, const char *function);
void stub_memory(size_t *available, size_t *total);
/* The GPU whose memory holds this address, or -1 for the host's memory. */
int stub_owner(const void *pointer);
void stub_pin(const void *pointer, size_t size, bool pinned);
bool stub_is_pinned(const void *pointer);

typedef struct stream stream;
typedef struct event event;

/* Work that a stream does later; it gets a copy of `size` bytes of `arguments`. */
typedef void work(void *arguments);
int stub_enqueue(stream *on, work *run, const void *arguments, size_t size);

stream *stub_new_stream(bool blocking);
void stub_end_stream(stream *old);
int stub_wait(stream *on);
void stub_wait_for_blocking(void);
void stub_wait_for_all(void);
int stub_capture(stream *on);
int stub_end_capture(stream *on, void **graph);
bool stub_is_capturing(stream *on);
/* Whether a call that CUDA forbids while any thread captures a graph may go on; else the capture is spoilt. */
bool stub_may_synchronize(const char *function);
int stub_launch_graph(void *graph, stream *on);

event *stub_new_event(void);
int stub_record(event *what, stream *on);
int stub_wait_event(stream *on, event *what);
int stub_wait_on_host(event *what);
