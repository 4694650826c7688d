/* A GPU that works later: each stream is a queue with its own thread, so that a wrong order gives wrong answers.

   STUB_DEVICES       number of GPUs (1)
   STUB_MEM           bytes of memory of each GPU (8 GiB)
   STUB_FAIL_AT       the allocation, counted from 1 over all GPUs, that fails once for lack of memory
   STUB_DELAY_US      microseconds that each piece of work waits before it starts (0)
   STUB_TRACE         file that gets a line for each call */
#include "core.h"
#include <pthread.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_DEVICES = 16, MOST_STREAMS = 4096 };

long stub_number(const char *name, long fallback) {
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : fallback;
}

void stub_trace(const char *format, ...) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static FILE *file;
    const char *path = getenv("STUB_TRACE");
    if (!path) return;
    pthread_mutex_lock(&lock);
    if (!file) file = fopen(path, "a");
    if (file) {
        va_list arguments;
        va_start(arguments, format);
        fprintf(file, "%ld ", (long)syscall(SYS_gettid));
        vfprintf(file, format, arguments);
        fputc('\n', file);
        fflush(file);
        va_end(arguments);
    }
    pthread_mutex_unlock(&lock);
}

/* Devices */

__thread int stub_device;
static int visible[MOST_DEVICES], visible_count;

static void __attribute__((constructor)) find_visible(void) {
    int there = stub_number("STUB_DEVICES", 1);
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    if (!list)
        for (; visible_count < there; visible_count++) visible[visible_count] = visible_count;
    else
        while (*list && visible_count < MOST_DEVICES) {
            char *end;
            long number = strtol(list, &end, 10);
            if (end == list || number < 0 || number >= there) break; /* CUDA ignores what follows an invalid one */
            visible[visible_count++] = number;
            list = *end == ',' ? end + 1 : end;
        }
}

int stub_device_count(void) { return visible_count; }
int stub_physical(int device) { return visible[device]; }

static int failure;
int stub_failure(void) { return failure; }
void stub_fail(int status) {
    if (!failure) failure = status;
}

/* Memory */

struct block {
    char *start;
    size_t size;
    int device; /* -1 for pinned memory of the host */
    struct block *next;
};
static struct block *blocks;
static size_t used[MOST_DEVICES];
static long allocations;
static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;

static size_t memory_of_each(void) { return stub_number("STUB_MEM", 8L << 30); }

static void add_block(void *start, size_t size, int device) {
    struct block *new = malloc(sizeof *new);
    *new = (struct block){start, size, device, blocks};
    blocks = new;
}

static struct block *take_block(const void *start) {
    for (struct block **link = &blocks; *link; link = &(*link)->next)
        if ((*link)->start == start) {
            struct block *found = *link;
            *link = found->next;
            return found;
        }
    return NULL;
}

static struct block *find_block(const void *pointer) {
    const char *address = pointer;
    for (struct block *block = blocks; block; block = block->next)
        if (address >= block->start && address < block->start + block->size) return block;
    return NULL;
}

int stub_allocate(void **pointer, size_t size, const char *function) {
    *pointer = NULL;
    if (!stub_may_synchronize(function)) return CAPTURE_UNSUPPORTED;
    pthread_mutex_lock(&memory_lock);
    long number = ++allocations;
    bool full = used[stub_device] + size > memory_of_each() || number == stub_number("STUB_FAIL_AT", 0);
    if (!full) {
        used[stub_device] += size;
        *pointer = aligned_alloc(4096, (size + 4096) / 4096 * 4096);
        memset(*pointer, 0xCD, size); /* so that memory that was never written is never right by chance */
        add_block(*pointer, size, stub_device);
    }
    pthread_mutex_unlock(&memory_lock);
    stub_trace("%s number %ld size %zu device %d %s %p", function, number, size, stub_device, full ? "FULL" : "at", *pointer);
    return full ? OUT_OF_MEMORY : OK;
}

long stub_allocations(void) { return allocations; }

int stub_release(void *pointer, const char *function) {
    if (!pointer) return OK;
    stub_trace("%s %p", function, pointer);
    stub_wait_for_all();
    pthread_mutex_lock(&memory_lock);
    struct block *block = take_block(pointer);
    if (block) {
        used[block->device] -= block->size;
        free(block->start);
        free(block);
    }
    pthread_mutex_unlock(&memory_lock);
    return block ? OK : 1;
}

void stub_memory(size_t *available, size_t *total) {
    *total = memory_of_each();
    *available = *total - used[stub_device];
}

int stub_owner(const void *pointer) {
    pthread_mutex_lock(&memory_lock);
    struct block *block = find_block(pointer);
    int device = block ? block->device : -1;
    pthread_mutex_unlock(&memory_lock);
    return device;
}

void stub_pin(const void *pointer, size_t size, bool pinned) {
    pthread_mutex_lock(&memory_lock);
    if (pinned)
        add_block((void *)pointer, size, -1);
    else
        free(take_block(pointer));
    pthread_mutex_unlock(&memory_lock);
}

bool stub_is_pinned(const void *pointer) {
    pthread_mutex_lock(&memory_lock);
    struct block *block = find_block(pointer);
    pthread_mutex_unlock(&memory_lock);
    return block && block->device < 0;
}

/* Streams, graphs and events */

struct piece {
    work *run;
    void *arguments;
    size_t size;
    struct piece *next;
};

struct graph {
    struct piece *first, **end;
    bool spoilt;
    int device;
};

struct stream {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct piece *first, **end;
    long added, done;
    int device;
    bool blocking, ending;
    struct graph *capture;
};

struct event {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    long recorded, reached;
};

static stream *streams[MOST_STREAMS];
static int stream_count;
static struct graph *capturing; /* by any thread: all captures are of CUDA's mode "global" */
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;

static void *run_stream(void *argument) {
    stream *self = argument;
    stub_device = self->device;
    long delay = stub_number("STUB_DELAY_US", 0);
    pthread_mutex_lock(&self->lock);
    for (;;) {
        while (!self->first && !self->ending) pthread_cond_wait(&self->changed, &self->lock);
        if (!self->first) break;
        struct piece *piece = self->first;
        pthread_mutex_unlock(&self->lock);
        if (delay) usleep(delay);
        piece->run(piece->arguments);
        pthread_mutex_lock(&self->lock);
        self->first = piece->next;
        if (!self->first) self->end = &self->first;
        free(piece->arguments);
        free(piece);
        self->done++;
        pthread_cond_broadcast(&self->changed);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

stream *stub_new_stream(bool blocking) {
    stream *new = calloc(1, sizeof *new);
    new->device = stub_device;
    new->blocking = blocking;
    new->end = &new->first;
    pthread_mutex_init(&new->lock, NULL);
    pthread_cond_init(&new->changed, NULL);
    pthread_create(&new->thread, NULL, run_stream, new);
    pthread_mutex_lock(&streams_lock);
    streams[stream_count++] = new;
    pthread_mutex_unlock(&streams_lock);
    return new;
}

void stub_end_stream(stream *old) {
    pthread_mutex_lock(&old->lock);
    old->ending = true;
    pthread_cond_broadcast(&old->changed);
    pthread_mutex_unlock(&old->lock);
    pthread_join(old->thread, NULL);
    pthread_mutex_lock(&streams_lock);
    for (int index = 0; index < stream_count; index++)
        if (streams[index] == old) streams[index] = streams[--stream_count];
    pthread_mutex_unlock(&streams_lock);
}

/* NULL is the default stream of the current device. */
static stream *real(stream *given) {
    static stream *defaults[MOST_DEVICES];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    if ((uintptr_t)given > 2) return given;
    pthread_mutex_lock(&lock);
    if (!defaults[stub_device]) defaults[stub_device] = stub_new_stream(false);
    stream *found = defaults[stub_device];
    pthread_mutex_unlock(&lock);
    return found;
}

static struct piece *new_piece(work *run, const void *arguments, size_t size) {
    struct piece *new = calloc(1, sizeof *new);
    *new = (struct piece){run, memcpy(malloc(size), arguments, size), size, NULL};
    return new;
}

int stub_enqueue(stream *given, work *run, const void *arguments, size_t size) {
    stream *on = real(given);
    if (on->device != stub_device) return INVALID_HANDLE;
    struct piece *piece = new_piece(run, arguments, size);
    if (on->capture) {
        *on->capture->end = piece;
        on->capture->end = &piece->next;
        return OK;
    }
    if (on != given) stub_wait_for_blocking(); /* the default stream's place among the blocking ones */
    pthread_mutex_lock(&on->lock);
    *on->end = piece;
    on->end = &piece->next;
    on->added++;
    pthread_cond_broadcast(&on->changed);
    pthread_mutex_unlock(&on->lock);
    return failure;
}

int stub_wait(stream *given) {
    stream *on = real(given);
    pthread_mutex_lock(&on->lock);
    long wanted = on->added;
    while (on->done < wanted) pthread_cond_wait(&on->changed, &on->lock);
    pthread_mutex_unlock(&on->lock);
    return failure;
}

static void wait_for(bool all) {
    stream *found[MOST_STREAMS];
    int count = 0;
    pthread_mutex_lock(&streams_lock);
    for (int index = 0; index < stream_count; index++)
        if (streams[index]->device == stub_device && (all || streams[index]->blocking)) found[count++] = streams[index];
    pthread_mutex_unlock(&streams_lock);
    for (int index = 0; index < count; index++) stub_wait(found[index]);
}

void stub_wait_for_blocking(void) { wait_for(false); }
void stub_wait_for_all(void) { wait_for(true); }

bool stub_may_synchronize(const char *function) {
    if (!capturing) return true;
    stub_trace("%s FORBIDDEN during a capture", function);
    capturing->spoilt = true;
    return false;
}

int stub_capture(stream *given) {
    stream *on = real(given);
    on->capture = calloc(1, sizeof *on->capture);
    on->capture->end = &on->capture->first;
    on->capture->device = on->device;
    capturing = on->capture;
    return OK;
}

int stub_end_capture(stream *given, void **graph) {
    stream *on = real(given);
    *graph = on->capture;
    bool spoilt = on->capture->spoilt;
    on->capture = NULL;
    capturing = NULL;
    return spoilt ? CAPTURE_INVALIDATED : OK;
}

bool stub_is_capturing(stream *given) { return real(given)->capture != NULL; }

int stub_launch_graph(void *argument, stream *on) {
    struct graph *graph = argument;
    int pieces = 0;
    for (struct piece *piece = graph->first; piece; piece = piece->next) pieces++;
    stub_trace("cudaGraphLaunch stream %p pieces %d", (void *)on, pieces);
    for (struct piece *piece = graph->first; piece; piece = piece->next) {
        int status = stub_enqueue(on, piece->run, piece->arguments, piece->size);
        if (status) return status;
    }
    return OK;
}

event *stub_new_event(void) {
    event *new = calloc(1, sizeof *new);
    pthread_mutex_init(&new->lock, NULL);
    pthread_cond_init(&new->changed, NULL);
    return new;
}

struct moment {
    event *what;
    long number;
};

static void reach(void *argument) {
    struct moment *moment = argument;
    pthread_mutex_lock(&moment->what->lock);
    if (moment->number > moment->what->reached) moment->what->reached = moment->number;
    pthread_cond_broadcast(&moment->what->changed);
    pthread_mutex_unlock(&moment->what->lock);
}

static void wait_until(void *argument) {
    struct moment *moment = argument;
    pthread_mutex_lock(&moment->what->lock);
    while (moment->what->reached < moment->number) pthread_cond_wait(&moment->what->changed, &moment->what->lock);
    pthread_mutex_unlock(&moment->what->lock);
}

int stub_record(event *what, stream *on) {
    pthread_mutex_lock(&what->lock);
    struct moment moment = {what, ++what->recorded};
    pthread_mutex_unlock(&what->lock);
    return stub_enqueue(on, reach, &moment, sizeof moment);
}

int stub_wait_event(stream *on, event *what) {
    struct moment moment = {what, what->recorded};
    return stub_enqueue(on, wait_until, &moment, sizeof moment);
}

int stub_wait_on_host(event *what) {
    struct moment moment = {what, what->recorded};
    wait_until(&moment);
    return failure;
}
