#include "fibers.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

namespace fibers {

kernel_entry *      kernel_entry::first      = nullptr;
function_constant * function_constant::first = nullptr;

kernel_entry::kernel_entry(const char * name, void (*run)()) : name(name), run(run), next(first) {
    first = this;
}

function_constant::function_constant(int index, void * value, int size)
    : index(index), value(value), size(size), next(first) {
    first = this;
}

// switches stacks: saves the registers that a call keeps on this one, and takes those of the other
extern "C" void fibers_switch(void ** from, void * to) __asm__("fibers_switch");

#if defined(__x86_64__)
__asm__(
    ".text\n"
    ".globl fibers_switch\n"
    "fibers_switch:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n");
static const int REGISTERS = 6, RETURN = 6, FRAME = 8; // words; entered as if called: the stack is 8 off 16
#elif defined(__aarch64__)
__asm__(
    ".text\n"
    ".globl fibers_switch\n"
    "fibers_switch:\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n    ret\n");
static const int REGISTERS = 20, RETURN = 11, FRAME = 20;
#else
#   error "fibers: x86-64 and AArch64 only"
#endif

constexpr int    MAX_THREADS = 1024;
constexpr size_t STACK       = 256*1024;

// of threads first to first + size - 1
struct barrier {
    int first;
    int size;
    int waiting;
};

struct fiber {
    void *    sp;
    bool      done;
    barrier * at; // waits here
};

struct simdgroup {
    barrier all;
    char    slots[2][WIDTH*SLOT];
};

static launch    g_launch;
static void      (*g_kernel)();
static fiber     g_fibers[MAX_THREADS];
static simdgroup g_simdgroups[MAX_THREADS/WIDTH];
static uint8_t   g_turn[MAX_THREADS]; // which of the two rows of slots is next
static barrier   g_threadgroup;
static int       g_n;
static int       g_current;
static void *    g_main;

int lane()         { return g_current%WIDTH; }
int thread_index() { return g_current; }

const launch & current() { return g_launch; }

// goes on with the next thread that can; back to run, if there is none
static void yield() {
    fiber & from = g_fibers[g_current];
    for (int k = 1; k <= g_n; ++k) {
        const int i = g_current + k < g_n ? g_current + k : g_current + k - g_n;
        if (!g_fibers[i].done && !g_fibers[i].at) {
            g_current = i;
            fibers_switch(&from.sp, g_fibers[i].sp);
            return;
        }
    }
    fibers_switch(&from.sp, g_main);
}

static void release(barrier & b) {
    b.waiting = 0;
    for (int i = b.first; i < b.first + b.size; ++i) {
        if (g_fibers[i].at == &b) {
            g_fibers[i].at = nullptr;
        }
    }
}

static void wait(barrier & b) {
    if (++b.waiting == b.size) {
        release(b);
        return;
    }
    g_fibers[g_current].at = &b;
    yield();
}

void simdgroup_barrier()   { wait(g_simdgroups[g_current/WIDTH].all); }
void threadgroup_barrier() { wait(g_threadgroup); }

const void * exchange(const void * x, size_t size) {
    simdgroup & s    = g_simdgroups[g_current/WIDTH];
    char *      slot = s.slots[g_turn[g_current]];
    g_turn[g_current] ^= 1;
    memcpy(slot + SLOT*lane(), x, size);
    wait(s.all);
    return slot;
}

static void body() {
    g_kernel();
    g_fibers[g_current].done = true;
    yield();
    abort();
}

static char * stack_of(int i) {
    static char * stacks = nullptr;
    if (!stacks) {
        void * p = mmap(nullptr, MAX_THREADS*STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) {
            abort();
        }
        stacks = (char *) p;
    }
    return stacks + (size_t) i*STACK;
}

bool run(const launch & l, void (*kernel)()) {
    g_launch = l;
    g_kernel = kernel;
    g_n      = (int) (l.threads_per_threadgroup.x*l.threads_per_threadgroup.y*l.threads_per_threadgroup.z);
    if (g_n > MAX_THREADS) {
        abort();
    }
    g_threadgroup = { 0, g_n, 0 };
    for (int i = 0; i < g_n; i += WIDTH) {
        g_simdgroups[i/WIDTH].all = { i, g_n - i < WIDTH ? g_n - i : WIDTH, 0 };
    }
    for (int i = 0; i < g_n; ++i) {
        void ** sp = (void **) (stack_of(i) + STACK) - FRAME - 2;
        memset(sp, 0, (FRAME + 2)*sizeof(void *));
        sp[RETURN] = (void *) body;
        g_fibers[i] = { sp, false, nullptr };
        g_turn[i]   = 0;
    }
    static_assert(REGISTERS <= FRAME, "the frame holds the registers");

    g_current = 0;
    fibers_switch(&g_main, g_fibers[0].sp);
    for (int i = 0; i < g_n; ++i) {
        if (!g_fibers[i].done) {
            return false;
        }
    }
    return true;
}

} // namespace fibers
