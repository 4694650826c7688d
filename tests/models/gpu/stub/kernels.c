/* What the stand-in computes: enough for a model of Cast, MatMul and Softmax. All other kernels do nothing.

   STUB_BREAK_AT      the piece of computing, counted from 1, that breaks the GPU (never)
   STUB_STOP_AT       the piece of computing from which on nothing is computed, without an error (never) */
#include "kernels.h"
#include <math.h>

/* Names by address */

enum { BUCKETS = 1 << 16 };
struct entry {
    const void *function;
    char *name;
    struct entry *next;
};
static struct entry *kernels[BUCKETS];

static struct entry **bucket(const void *function) { return &kernels[((uintptr_t)function >> 4) % BUCKETS]; }

void stub_register_kernel(const void *function, const char *name) {
    struct entry *new = malloc(sizeof *new);
    *new = (struct entry){function, strdup(name), *bucket(function)};
    *bucket(function) = new;
}

static const char *name_of(const void *function) {
    for (struct entry *entry = *bucket(function); entry; entry = entry->next)
        if (entry->function == function) return entry->name;
    return "unknown";
}

static bool starts(const char *name, const char *with) { return !strncmp(name, with, strlen(with)); }

static long pieces;
long stub_pieces(void) { return pieces; }

static bool works(void) {
    long piece = __sync_add_and_fetch(&pieces, 1), stop = stub_number("STUB_STOP_AT", 0);
    if (piece == stub_number("STUB_BREAK_AT", 0)) stub_fail(ILLEGAL_ADDRESS);
    return !stub_failure() && !(stop && piece >= stop);
}

/* Memory of another GPU or of the host is out of reach */
static bool reachable(const void *pointer) {
    if (stub_owner(pointer) == stub_device) return true;
    stub_trace("work ILLEGAL ADDRESS %p device %d", pointer, stub_device);
    stub_fail(ILLEGAL_ADDRESS);
    return false;
}

struct cast {
    const uint8_t *from;
    float *to;
    long count;
};

static void do_cast(void *argument) {
    struct cast *cast = argument;
    stub_trace("work cast %p <- %p", (void *)cast->to, (void *)cast->from);
    if (!works() || !reachable(cast->from) || !reachable(cast->to)) return;
    for (long index = 0; index < cast->count; index++) cast->to[index] = cast->from[index];
}

struct softmax {
    float *to;
    const float *from;
    int rows, stride, columns;
};

static void do_softmax(void *argument) {
    struct softmax *softmax = argument;
    stub_trace("work softmax %p <- %p", (void *)softmax->to, (void *)softmax->from);
    if (!works() || !reachable(softmax->from) || !reachable(softmax->to)) return;
    for (int row = 0; row < softmax->rows; row++) {
        const float *from = softmax->from + (long)row * softmax->stride;
        float *to = softmax->to + (long)row * softmax->stride, highest = -INFINITY, sum = 0;
        for (int column = 0; column < softmax->columns; column++) highest = fmaxf(highest, from[column]);
        for (int column = 0; column < softmax->columns; column++) sum += to[column] = expf(from[column] - highest);
        for (int column = 0; column < softmax->columns; column++) to[column] /= sum;
    }
}

static void nothing(void *arguments) { (void)arguments; }

int stub_launch_kernel(const void *function, unsigned grid, void **arguments, stream *on) {
    const char *name = name_of(function);
    stub_trace("kernel %s grid %u stream %p device %d", name, grid, (void *)on, stub_device);
    if (starts(name, "_ZN11onnxruntime4cuda17_UnaryElementWiseIhfNS0_7OP_Cast")) {
        struct cast cast = {*(uint8_t **)arguments[0], *(float **)arguments[1], *(long *)arguments[3]};
        return stub_enqueue(on, do_cast, &cast, sizeof cast);
    }
    if (starts(name, "_ZN11onnxruntime4cuda20softmax_warp_forwardIfff")) {
        struct softmax softmax = {*(float **)arguments[0], *(float **)arguments[1], *(int *)arguments[2],
                                  *(int *)arguments[3], *(int *)arguments[4]};
        return stub_enqueue(on, do_softmax, &softmax, sizeof softmax);
    }
    return stub_enqueue(on, nothing, "", 1);
}

/* c = alpha a b + beta c, all of them stored column by column */
struct product {
    struct product_shape shape;
    float alpha;
    const float *a, *b;
    float beta, *c;
};

static void do_product(void *argument) {
    struct product *p = argument;
    struct product_shape *s = &p->shape;
    stub_trace("work product %p <- %p", (void *)p->c, (void *)p->b);
    if (!works() || !reachable(p->a) || !reachable(p->b) || !reachable(p->c)) return;
    for (int row = 0; row < s->m; row++)
        for (int column = 0; column < s->n; column++) {
            double sum = 0;
            for (int index = 0; index < s->k; index++) {
                float left = s->turn_a ? p->a[(long)row * s->lda + index] : p->a[(long)index * s->lda + row];
                float right = s->turn_b ? p->b[(long)index * s->ldb + column] : p->b[(long)column * s->ldb + index];
                sum += (double)left * right;
            }
            float *c = &p->c[(long)column * s->ldc + row];
            *c = p->alpha * sum + (p->beta ? p->beta * *c : 0);
        }
}

int stub_product(stream *on, struct product_shape shape, float alpha, const float *a, const float *b, float beta,
                 float *c) {
    struct product product = {shape, alpha, a, b, beta, c};
    return stub_enqueue(on, do_product, &product, sizeof product);
}
