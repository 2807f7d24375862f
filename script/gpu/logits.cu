// Measures logits of one token's queries against the keys of a layer, for f32, f16 and turbo keys: a table in Markdown.
//
//     logits N_KEYS
//
// 8 KV heads of 128, with 4 query heads each and with 16. Keys lie as in llama.cpp's cache. Each result is compared with sums
// in f64 over the rows as the Rust core decodes them, before anything is timed; exit code 1 where one is wrong. Runs go round
// several copies of the keys, so that none is in the second-level cache still. f32 and f16 are also multiplied by cuBLAS, and
// ratios are to the fastest way for f32.

#include "common.cuh" // of llama.cpp's CUDA back end, of which no function is linked
#include "logits.cuh"
#include "turboquant.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace turbo;

static constexpr int    D = 128, N_HEAD_KV = 8;
static constexpr int    N_DISTINCT = 2048; // keys of a head, over and over
static constexpr size_t FOOTPRINT  = size_t(1) << 30; // of all copies: many times a cache
static constexpr int    N_WARM_UP = 8, N_RUNS = 64;

[[noreturn]] static void fail(const char * what, const char * why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(1);
}

static void check(cudaError_t e, const char * what) {
    if (e != cudaSuccess) {
        fail(what, cudaGetErrorString(e));
    }
}

static void check(cublasStatus_t e, const char * what) {
    if (e != CUBLAS_STATUS_SUCCESS) {
        fail(what, cublasGetStatusString(e));
    }
}

static void check(tq_status e, const char * what) {
    if (e != TQ_OK) {
        fail(what, tq_last_error());
    }
}

template <typename T> static T * device_copy(const std::vector<T> & x) {
    T * p = nullptr;
    check(cudaMalloc(&p, x.size()*sizeof(T)), "memory");
    check(cudaMemcpy(p, x.data(), x.size()*sizeof(T), cudaMemcpyHostToDevice), "copying");
    return p;
}

// Keys of one type: N_DISTINCT for each head, as bytes and as the values that they stand for.
struct keys_t {
    const char *         name;
    size_t               row_bytes; // of a head
    std::vector<uint8_t> bytes;     // [cell][head]
    std::vector<float>   values;
    std::vector<char *>  copies = {}; // on the device, n_kv cells each
};

static keys_t turbo_keys(const char * name, uint32_t type, const std::vector<float> & x) {
    keys_t keys = { name, D/QK*tq_block_bytes(type), {}, std::vector<float>(x.size()) };
    const size_t n_rows = x.size()/D;
    keys.bytes.resize(n_rows*keys.row_bytes);
    const size_t n_threads = std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::thread> threads;
    for (size_t t = 0; t < n_threads; ++t) {
        threads.emplace_back([&, t] {
            const size_t begin = n_rows*t/n_threads;
            const size_t n     = n_rows*(t + 1)/n_threads - begin;
            check(tq_quantize_rows(type, x.data() + begin*D, n, D, keys.bytes.data() + begin*keys.row_bytes, n*keys.row_bytes, nullptr), name);
        });
    }
    for (std::thread & thread : threads) {
        thread.join();
    }
    check(tq_dequantize_rows(type, keys.bytes.data(), keys.bytes.size(), n_rows, D, keys.values.data()), name);
    return keys;
}

static keys_t f32_keys(const std::vector<float> & x) {
    keys_t keys = { "f32", D*4, std::vector<uint8_t>(x.size()*4), x };
    memcpy(keys.bytes.data(), x.data(), keys.bytes.size());
    return keys;
}

static keys_t f16_keys(const std::vector<float> & x) {
    keys_t keys = { "f16", D*2, std::vector<uint8_t>(x.size()*2), std::vector<float>(x.size()) };
    for (size_t i = 0; i < x.size(); ++i) {
        const half h = __float2half_rn(x[i]);
        memcpy(keys.bytes.data() + 2*i, &h, 2);
        keys.values[i] = __half2float(h);
    }
    return keys;
}

static void to_device(keys_t & keys, int n_kv) {
    const size_t cell = keys.row_bytes*N_HEAD_KV;
    std::vector<uint8_t> all(cell*n_kv);
    for (int c = 0; c < n_kv; c += N_DISTINCT) {
        memcpy(all.data() + c*cell, keys.bytes.data(), std::min(N_DISTINCT, n_kv - c)*cell);
    }
    const size_t n_copies = std::max<size_t>(2, (FOOTPRINT + all.size() - 1)/all.size());
    keys.copies.push_back((char *) device_copy(all));
    while (keys.copies.size() < n_copies) {
        char * copy = nullptr;
        check(cudaMalloc(&copy, all.size()), "memory");
        check(cudaMemcpy(copy, keys.copies[0], all.size(), cudaMemcpyDeviceToDevice), "copying");
        keys.copies.push_back(copy);
    }
}

struct queries_t {
    int                group;
    std::vector<float> x; // [head][D]
    float *            f32;
    half *             f16;
    float *            logits; // [KV head][row][cell]
};

static attention_args args_of(const queries_t & q, const keys_t & keys, char * k, int n_kv) {
    attention_args args = {};
    const int64_t row = (int64_t) keys.row_bytes;
    args.q = { (char *) q.f32, { D, 1, q.group*N_HEAD_KV, 1 }, { 4, 4*D*q.group*N_HEAD_KV, 4*D, 4*D*q.group*N_HEAD_KV } };
    args.k = { k, { D, n_kv, N_HEAD_KV, 1 }, { 1, row*N_HEAD_KV, row, row*N_HEAD_KV*n_kv } };
    return args;
}

typedef std::function<void(const queries_t & q, const keys_t & keys, char * k)> way_t;

// how the values of a result differ from sums in f64; queries may be rounded to 11 bits
static bool is_right(const queries_t & q, const keys_t & keys, int n_kv, const char * way) {
    const size_t n_rows = q.group;
    std::vector<float> logits(N_HEAD_KV*n_rows*n_kv);
    check(cudaMemcpy(logits.data(), q.logits, logits.size()*sizeof(float), cudaMemcpyDeviceToHost), way);
    for (int h = 0; h < N_HEAD_KV; ++h) {
        for (size_t r = 0; r < n_rows; ++r) {
            const float * query = &q.x[(h*n_rows + r)*D];
            for (int distinct = 0; distinct < std::min(N_DISTINCT, n_kv); ++distinct) {
                const float * key = &keys.values[((size_t) distinct*N_HEAD_KV + h)*D];
                double sum = 0, qq = 0, kk = 0;
                for (int i = 0; i < D; ++i) {
                    sum += (double) query[i]*key[i];
                    qq  += (double) query[i]*query[i];
                    kk  += (double) key[i]*key[i];
                }
                const double bound = std::sqrt(qq*kk)/1024;
                for (int c = distinct; c < n_kv; c += N_DISTINCT) {
                    const float x = logits[(h*n_rows + r)*n_kv + c];
                    if (!(std::fabs(x - sum) <= bound)) {
                        fprintf(stderr, "error: %s keys, %s: KV head %d, row %d, key %d: %g for %g\n", keys.name, way, h, (int) r, c, x, sum);
                        return false;
                    }
                }
            }
        }
    }
    return true;
}

static double microseconds(const queries_t & q, const keys_t & keys, const way_t & run) {
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "an event");
    check(cudaEventCreate(&end), "an event");
    for (int i = -N_WARM_UP; i < N_RUNS; ++i) {
        if (i == 0) {
            check(cudaEventRecord(begin), "an event");
        }
        run(q, keys, keys.copies[(i + N_WARM_UP)%keys.copies.size()]);
    }
    check(cudaEventRecord(end), "an event");
    check(cudaEventSynchronize(end), "running");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "an event");
    return 1000.0*ms/N_RUNS;
}

int main(int argc, char ** argv) {
    const int n_kv = argc == 2 ? atoi(argv[1]) : 0;
    if (n_kv < 1) {
        fprintf(stderr, "usage: logits N_KEYS\n");
        return 2;
    }
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0), "the device");
    cublasHandle_t blas;
    check(cublasCreate(&blas), "cuBLAS");

    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x((size_t) N_DISTINCT*N_HEAD_KV*D);
    std::generate(x.begin(), x.end(), [&] { return normal(random); });
    std::vector<keys_t> all = { f32_keys(x), f16_keys(x), turbo_keys("turbo4", TQ_TURBO4, x), turbo_keys("turbo3", TQ_TURBO3, x), turbo_keys("turbo2", TQ_TURBO2, x) };

    for (keys_t & keys : all) {
        to_device(keys, n_kv);
    }
    const int n_sm = device.multiProcessorCount;
    const auto tiles = [&](auto type) {
        return [=](const queries_t & q, const keys_t & keys, char * k) {
            const attention_args args = args_of(q, keys, k, n_kv);
            const int n_splits = std::max(1, (4*n_sm + args.n_groups() - 1)/args.n_groups());
            logits_kernel<D, decltype(type)><<<dim3(n_splits, args.n_groups()), dim3(LANES, n_warps_of<D>)>>>(args, q.logits);
        };
    };
    const auto plain = [&](auto number) {
        return [=](const queries_t & q, const keys_t & keys, char * k) {
            typedef decltype(number) T;
            plain_logits_kernel<D, 4, 8, T><<<dim3(2*n_sm, N_HEAD_KV), dim3(LANES, 8)>>>(args_of(q, keys, k, n_kv), q.logits);
        };
    };
    const way_t cublas = [&](const queries_t & q, const keys_t & keys, char * k) {
        const float one = 1, zero = 0;
        const bool is_f32 = keys.row_bytes == D*4;
        const cudaDataType type = is_f32 ? CUDA_R_32F : CUDA_R_16F;
        check(cublasGemmStridedBatchedEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, n_kv, q.group, D, &one, k, type, D*N_HEAD_KV, D,
            is_f32 ? (const void *) q.f32 : (const void *) q.f16, type, D, (long long) q.group*D, &zero, q.logits, CUDA_R_32F, n_kv,
            (long long) q.group*n_kv, N_HEAD_KV, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT), "cuBLAS");
    };

    printf("%s, %d keys of %d KV heads of %d, one token; ratios are to f32's fastest.\n", device.name, n_kv, N_HEAD_KV, D);
    bool fine = true;
    for (int group : { 4, 16 }) {
        queries_t q = { group, std::vector<float>((size_t) group*N_HEAD_KV*D), nullptr, nullptr, nullptr };
        std::generate(q.x.begin(), q.x.end(), [&] { return normal(random); });
        std::vector<half> halves(q.x.size());
        std::transform(q.x.begin(), q.x.end(), halves.begin(), [](float v) { return __float2half_rn(v); });
        q.f32    = device_copy(q.x);
        q.f16    = device_copy(halves);
        q.logits = device_copy(std::vector<float>((size_t) N_HEAD_KV*group*n_kv, NAN));

        printf("\n| %d queries to a KV head | by | us | GB/s of keys | times as fast |\n|---|---|---|---|---|\n", group);
        double f32_us = INFINITY;
        for (const keys_t & keys : all) {
            std::vector<std::pair<const char *, way_t>> ways;
            const std::string name = keys.name;
            if (name == "f32" || name == "f16") {
                ways.push_back({ "cuBLAS", cublas });
                if (group == 4) { // more do not fit a thread's registers
                    ways.push_back({ "plain kernel", name == "f32" ? way_t(plain(float())) : way_t(plain(uint16_t())) });
                }
            }
            if (name == "f16")    { ways.push_back({ "our tiles", tiles(kv_f16()) }); }
            if (name == "turbo4") { ways.push_back({ "our tiles", tiles(kv_turbo<4>()) }); }
            if (name == "turbo3") { ways.push_back({ "our tiles", tiles(kv_turbo<3>()) }); }
            if (name == "turbo2") { ways.push_back({ "our tiles", tiles(kv_turbo<2>()) }); }

            std::vector<double> times;
            for (const auto & way : ways) {
                check(cudaMemset(q.logits, 0xff, sizeof(float)*N_HEAD_KV*group*n_kv), way.first); // NaN
                way.second(q, keys, keys.copies[0]);
                check(cudaGetLastError(), way.first);
                check(cudaDeviceSynchronize(), way.first);
                const bool right = is_right(q, keys, n_kv, way.first);
                fine = fine && right;
                times.push_back(right ? microseconds(q, keys, way.second) : NAN);
                if (name == "f32" && times.back() < f32_us) {
                    f32_us = times.back();
                }
            }
            for (size_t i = 0; i < ways.size(); ++i) {
                if (std::isnan(times[i])) {
                    printf("| %s | %s | wrong results | | |\n", keys.name, ways[i].first);
                } else {
                    printf("| %s | %s | %.1f | %.0f | %.2f |\n", keys.name, ways[i].first, times[i],
                        (double) keys.row_bytes*N_HEAD_KV*n_kv/times[i]/1e3, f32_us/times[i]);
                }
            }
            fflush(stdout);
        }
        check(cudaFree(q.f32), "memory");
        check(cudaFree(q.f16), "memory");
        check(cudaFree(q.logits), "memory");
    }
    return fine ? 0 : 1;
}
