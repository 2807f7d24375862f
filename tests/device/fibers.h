// A kernel's threads as fibers: each runs until it waits for others of its simdgroup or its threadgroup.

#pragma once

#include <stddef.h>

namespace fibers {

constexpr int    WIDTH = 32; // threads of a simdgroup
constexpr size_t SLOT  = 16; // bytes that a thread shows to its simdgroup

struct position {
    unsigned int x, y, z;
};

// what a kernel is run with
struct launch {
    void *   buffers[32];
    char *   shared;                       // memory of the threadgroup at work
    position group;                        // the threadgroup at work
    position threads_per_threadgroup;
};

// of the thread at work
int lane();
int thread_index();
const launch & current();

void simdgroup_barrier();
void threadgroup_barrier();

// shows size bytes to the simdgroup; what all of its threads show lies SLOT bytes apart, until the next exchange but one
const void * exchange(const void * x, size_t size);

// runs all threads of l.group; false if some wait for others that never come
bool run(const launch & l, void (*kernel)());

//
// what translated sources say of themselves
//

struct kernel_entry {
    kernel_entry(const char * name, void (*run)());

    const char *   name;
    void           (*run)();
    kernel_entry * next;

    static kernel_entry * first;
};

struct function_constant {
    function_constant(int index, void * value, int size);

    int                 index;
    void *              value;
    int                 size; // 1: bool, 4: int32_t
    function_constant * next;

    static function_constant * first;
};

} // namespace fibers
