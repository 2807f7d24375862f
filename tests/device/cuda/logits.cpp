// The kernels of script/gpu/logits.cuh on the host, against sums in f64 over rows as turbo-expand.cuh reads them. Prints what
// is wrong, and ends with 1 for it.

#include "shim.h"

#include "logits.cuh"

#include <random>

using namespace turbo;

constexpr int D = 128, N_KV = 203, N_HEAD_KV = 2;

struct problem {
    int group;
    std::vector<float>   q;
    std::vector<uint8_t> k;
    attention_args       args = {};

    // rows of any bytes with scales that are finite: type's own
    problem(int group, int row_bytes, int scale_every, std::mt19937 & random) : group(group) {
        std::normal_distribution<float> normal;
        q.resize((size_t) D*group*N_HEAD_KV);
        for (float & x : q) {
            x = normal(random);
        }
        k.resize((size_t) N_KV*N_HEAD_KV*row_bytes);
        for (uint8_t & x : k) {
            x = (uint8_t) random();
        }
        for (size_t i = 0; i + 1 < k.size(); i += scale_every) {
            k[i + 1] = (uint8_t) (0x30 + k[i + 1]%8); // f16 from 0.125 to 1
        }
        args.q = { (char *) q.data(), { D, 1, group*N_HEAD_KV, 1 }, { 4, 4*D*group*N_HEAD_KV, 4*D, 4*D*group*N_HEAD_KV } };
        args.k = { (char *) k.data(), { D, N_KV, N_HEAD_KV, 1 }, { 1, row_bytes*N_HEAD_KV, row_bytes, row_bytes*N_HEAD_KV*N_KV } };
    }
};

// row_of(bytes, out): D values
template <typename F> static bool check(const char * name, const problem & p, const std::vector<float> & logits, const F & row_of) {
    for (int h = 0; h < N_HEAD_KV; ++h) {
        for (int c = 0; c < N_KV; ++c) {
            float key[D];
            row_of(p.args.k.data + c*p.args.k.nb[1] + h*p.args.k.nb[2], key);
            for (int r = 0; r < p.group; ++r) {
                const float * q = &p.q[(size_t) (h*p.group + r)*D];
                double sum = 0, qq = 0, kk = 0;
                for (int i = 0; i < D; ++i) {
                    sum += (double) q[i]*key[i];
                    qq  += (double) q[i]*q[i];
                    kk  += (double) key[i]*key[i];
                }
                const float x = logits[((size_t) h*p.group + r)*N_KV + c];
                if (!(fabs(x - sum) <= sqrt(qq*kk)/1024)) { // queries are rounded to 11 bits
                    printf("%s: head %d, row %d, cell %d: %g for %g\n", name, h, r, c, x, sum);
                    return false;
                }
            }
        }
    }
    return true;
}

template <typename TK> static bool check_tiles(const char * name, int row_bytes, int scale_every, std::mt19937 & random) {
    bool fine = true;
    for (int group : { 1, 4, 17 }) {
        problem p(group, row_bytes, scale_every, random);
        std::vector<float> logits((size_t) N_HEAD_KV*group*N_KV, NAN);
        shim::launch(dim3(3, (unsigned) p.args.n_groups()), dim3(LANES, n_warps_of<D>), [&] { logits_kernel<D, TK>(p.args, logits.data()); });
        fine = check(name, p, logits, [](const char * row, float * out) {
            for (int c = 0; c < D/32; ++c) {
                TK::read(row, c, [&](int i, float x) { out[32*c + i] = x; });
            }
        }) && fine;
    }
    return fine;
}

template <typename T> static bool check_plain(const char * name, std::mt19937 & random) {
    problem p(4, D*(int) sizeof(T), 2, random);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < p.k.size()/sizeof(T); ++i) {
        const float    x    = normal(random);
        const uint16_t half = half_of(x);
        memcpy(p.k.data() + i*sizeof(T), sizeof(T) == 4 ? (const void *) &x : (const void *) &half, sizeof(T));
    }
    std::vector<float> logits((size_t) N_HEAD_KV*p.group*N_KV, NAN);
    shim::launch(dim3(2, N_HEAD_KV), dim3(LANES, 2), [&] { plain_logits_kernel<D, 4, 2, T>(p.args, logits.data()); });
    return check(name, p, logits, [](const char * row, float * out) {
        for (int i = 0; i < D; ++i) {
            float x[4];
            plain_values(x, (const T *) row + i/4*4);
            out[i] = x[i%4];
        }
    });
}

int main() {
    std::mt19937 random(1);
    bool fine = true;
    fine = check_tiles<kv_turbo<2>>("turbo2", 36, 18, random) && fine;
    fine = check_tiles<kv_turbo<3>>("turbo3", 52, 26, random) && fine;
    fine = check_tiles<kv_turbo<4>>("turbo4", 68, 34, random) && fine;
    fine = check_tiles<kv_f16>     ("f16",   256,  2, random) && fine;
    fine = check_plain<float>      ("plain f32", random) && fine;
    fine = check_plain<uint16_t>   ("plain f16", random) && fine;
    return fine ? 0 : 1;
}
