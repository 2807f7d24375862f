// CUDA's language on the host, as far as our kernels use it: a fiber for each thread of a block, blocks one after the
// other. What threads of a warp exchange, and what they wait for, is as on a device; how fast, and how memory is laid
// out and ordered, is not.

#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <vector>

#include "fibers.h"

#define __CUDACC__ 1
#define TQ_SHIM    1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__

//
// threads
//

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

static dim3 gridDim, blockDim, blockIdx;

namespace shim {

constexpr unsigned WARP = fibers::WIDTH;

static const std::function<void()> * kernel;

static dim3 this_thread() {
    const unsigned i = (unsigned) fibers::thread_index();
    return dim3(i%blockDim.x, i/blockDim.x%blockDim.y, i/blockDim.x/blockDim.y);
}

static void run_block() {
    fibers::launch l = {};
    l.group                   = { blockIdx.x, blockIdx.y, blockIdx.z };
    l.threads_per_threadgroup = { blockDim.x, blockDim.y, blockDim.z };
    if (!fibers::run(l, [] { (*kernel)(); })) {
        fprintf(stderr, "threads of block %u %u %u wait for others that never come\n", blockIdx.x, blockIdx.y, blockIdx.z);
        exit(1);
    }
}

// <<<grid, threads>>>
static void launch(dim3 grid, dim3 threads, const std::function<void()> & f) {
    gridDim  = grid;
    blockDim = threads;
    kernel   = &f;
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
                run_block();
            }
        }
    }
}

// what every lane has, slot by slot, until the lanes exchange again
template <typename T> static const char * slots(unsigned mask, const T & mine) {
    static_assert(sizeof(T) <= fibers::SLOT, "a lane's slot");
    if (mask != 0xffffffff) {
        fprintf(stderr, "a warp of %08x\n", mask);
        abort();
    }
    return (const char *) fibers::exchange(&mine, sizeof(T));
}

template <typename T> static T in_slot(const char * slots, unsigned lane) {
    T res;
    memcpy(&res, slots + fibers::SLOT*lane, sizeof(T));
    return res;
}

// what all lanes have
template <typename T> struct lanes {
    T x[WARP];

    lanes(unsigned mask, const T & mine) {
        const char * all = slots(mask, mine);
        for (unsigned i = 0; i < WARP; ++i) {
            x[i] = in_slot<T>(all, i);
        }
    }
};

} // namespace shim

#define threadIdx shim::this_thread()

static inline void __syncthreads()      { fibers::threadgroup_barrier(); }
static inline void ggml_cuda_syncwarp() { fibers::simdgroup_barrier(); } // of common.cuh

template <typename T> static inline T __shfl_sync(unsigned mask, T x, int lane, int width) {
    if (width != (int) shim::WARP) {
        abort();
    }
    return shim::in_slot<T>(shim::slots(mask, x), lane%shim::WARP);
}

template <typename T> static inline T __shfl_xor_sync(unsigned mask, T x, int offset, int width) {
    return __shfl_sync(mask, x, fibers::lane() ^ offset, width);
}

static inline int __any_sync(unsigned mask, int x) {
    const shim::lanes<int> all(mask, x);
    for (const int y : all.x) {
        if (y) {
            return 1;
        }
    }
    return 0;
}

//
// numbers
//

struct half {
    _Float16 x;
    half() = default;
    explicit half(float x) : x((_Float16) x) {}
    operator float() const { return (float) x; }
};

template <typename To, typename From> static inline To shim_cast(From x) {
    static_assert(sizeof(To) == sizeof(From), "bits");
    To y;
    memcpy((void *) &y, &x, sizeof(y));
    return y;
}

static inline half     __float2half_rn (float x)    { return half(x); }
static inline float    __half2float    (half x)     { return x; }
static inline uint16_t __half_as_ushort(half x)     { return shim_cast<uint16_t>(x); }
static inline half     __ushort_as_half(uint16_t x) { return shim_cast<half>(x); }
static inline uint32_t __float_as_uint (float x)    { return shim_cast<uint32_t>(x); }
static inline float    __uint_as_float (uint32_t x) { return shim_cast<float>(x); }

// compiled with -ffp-contract=off
static inline float __fmul_rn (float a, float b) { return a*b; }
static inline float __fadd_rn (float a, float b) { return a + b; }
static inline float __fdiv_rn (float a, float b) { return a/b; }
static inline float __fsqrt_rn(float x)          { return sqrtf(x); }

static inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
    const uint64_t bytes = (uint64_t) high << 32 | low;
    uint32_t res = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t s = selector >> 4*i & 15;
        const uint32_t b = bytes >> 8*(s & 7) & 0xff;
        res |= (s & 8 ? (b & 0x80 ? 0xffu : 0u) : b) << 8*i;
    }
    return res;
}

static inline uint32_t __brev(uint32_t x) {
    uint32_t res = 0;
    for (int i = 0; i < 32; ++i) {
        res |= (x >> i & 1) << (31 - i);
    }
    return res;
}

struct float2 {
    float x, y;
};

struct uint4 {
    uint32_t x, y, z, w;
};

static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return { x, y, z, w }; }

static inline float2 make_float2(float x, float y) { return { x, y }; }

namespace shim {

// turbo::multiply_add: what lanes hold is said there
static void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct words { uint32_t x[4]; };
    const lanes<words> as(0xffffffff, { { a[0], a[1], a[2], a[3] } });
    const lanes<words> bs(0xffffffff, { { b0, b1, 0, 0 } });
    const auto half_at = [](uint32_t word, int i) { return __half2float(__ushort_as_half((uint16_t) (word >> 16*i))); };
    for (int i = 0; i < 4; ++i) {
        const int row    = fibers::lane()/4 + 8*(i/2);
        const int column = fibers::lane()%4*2 + i%2;
        for (int k = 0; k < 16; ++k) {
            const float x = half_at(as.x[row%8*4 + k%8/2].x[row/8 + 2*(k/8)], k%2);
            const float y = half_at(bs.x[column*4 + k%8/2].x[k/8], k%2);
            c[i] += x*y;
        }
    }
}

} // namespace shim
