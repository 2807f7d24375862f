// The kernels of turbo-attention.cuh and turbo-terms.cuh on the host, for tests/device_cuda_attention.rs.
//
//     attention K V N_SPLITS [BEFORE AFTER] < in > out
//
// K, V: f16, q8_0, turbo2, turbo3 or turbo4. in: scale, max_bias, softcap as floats, then q, k, v, mask, sinks, the table
// of anchors and their ids as tensors: four sizes, four strides and a number of bytes as i64, then the bytes; none has 0.
// out: f32 [D, n_head, n_tokens, n_batch]. BEFORE: values of queries that are rotated together, after they are scaled by
// `q_scale`; AFTER: of the result.

#include "shim.h"

#include "turbo-terms.cuh"

#include <string>

using namespace turbo;

template <typename T> static void get(T * x, size_t n) {
    if (fread(x, sizeof(T), n, stdin) != n) {
        fprintf(stderr, "the input ends early\n");
        exit(1);
    }
}

// with its bytes
struct tensor : view {
    std::vector<char> bytes;

    tensor() {
        int64_t n;
        get(ne, 4);
        get(nb, 4);
        get(&n, 1);
        bytes.resize(n);
        get(bytes.data(), n);
        data = n ? bytes.data() : nullptr;
    }
};

template <int D, typename TK, typename TV> static void run(attention_args args, const tensor & table, const float * sinks) {
    const int64_t n_rows  = args.n_rows();
    const int64_t n_out   = args.n_splits*args.q.ne[3]*args.k.ne[2]*n_rows;
    const dim3    n_heads = dim3(1, (unsigned) args.k.ne[2], (unsigned) args.q.ne[3]);

    std::vector<float> terms(args.q.ne[3]*args.k.ne[2]*args.n_anchors*n_rows, NAN);
    args.terms = terms.data();
    if (table.data) {
        shim::launch(dim3((unsigned) args.n_anchors, n_heads.y, n_heads.z), LANES, [&] { terms_kernel<D>(args, table, terms.data()); });
    }

    std::vector<float>  out(n_out*D, NAN);
    std::vector<float2> stats(n_out, make_float2(NAN, NAN));
    args.out   = out.data();
    args.stats = stats.data();
    shim::launch(dim3((unsigned) args.n_splits, (unsigned) args.n_groups(), n_heads.z), dim3(LANES, n_warps_of<D>), [&] {
        attention_kernel<D, TK, TV>(args);
    });

    const int64_t n_head = args.q.ne[2], n_tokens = args.q.ne[1];
    std::vector<float> result(D*n_head*n_tokens*args.q.ne[3], NAN);
    const view dst = { (char *) result.data(), { D, n_head, n_tokens, args.q.ne[3] }, { 4, 4*D, 4*D*n_head, 4*D*n_head*n_tokens } };
    shim::launch(dim3((unsigned) n_rows, n_heads.y, n_heads.z), D, [&] { combine_kernel<D>(args, sinks, dst); });
    fwrite(result.data(), sizeof(float), result.size(), stdout);
}

template <int D, typename TK, typename F> static void with_v(const std::string & name, const F & f) {
    if (name == "f16")    return f(TK(), kv_f16());
    if (name == "q8_0")   return f(TK(), kv_q8_0());
    if (name == "turbo2") return f(TK(), kv_turbo<2>());
    if (name == "turbo3") return f(TK(), kv_turbo<3>());
    if (name == "turbo4") return f(TK(), kv_turbo<4>());
    fprintf(stderr, "V of %s\n", name.c_str());
    exit(2);
}

template <int D> static void run(char ** argv, const attention_args & args, const tensor & table, const float * sinks) {
    const std::string k = argv[1];
    const auto start = [&](auto tk, auto tv) { run<D, decltype(tk), decltype(tv)>(args, table, sinks); };
    if (k == "f16")    return with_v<D, kv_f16>     (argv[2], start);
    if (k == "q8_0")   return with_v<D, kv_q8_0>    (argv[2], start);
    if (k == "turbo2") return with_v<D, kv_turbo<2>>(argv[2], start);
    if (k == "turbo3") return with_v<D, kv_turbo<3>>(argv[2], start);
    if (k == "turbo4") return with_v<D, kv_turbo<4>>(argv[2], start);
    fprintf(stderr, "K of %s\n", k.c_str());
    exit(2);
}

int main(int argc, char ** argv) {
    if (argc != 4 && argc != 6) {
        return 2;
    }
    float options[3];
    get(options, 3);
    attention_args args = {};
    const tensor q, k, v, mask, sinks, table, ids;
    args.q    = q;
    args.k    = k;
    args.v    = v;
    args.mask = mask;
    args.ids  = ids;
    args.n_anchors = table.data ? (int) table.ne[1] : 0;
    args.set_options(options[0], options[1], options[2]);
    args.n_splits = atoi(argv[3]);
    std::vector<float> q_scale(q.ne[0]*k.ne[2]);
    if (argc == 6) {
        for (size_t i = 0; i < q_scale.size(); ++i) {
            q_scale[i] = 0.5f + (float) (i*7%13)/8.0f;
        }
        args.q_scale       = q_scale.data();
        args.n_before      = atoi(argv[4]);
        args.n_after       = atoi(argv[5]);
        args.factor_before = 1/sqrtf((float) args.n_before);
        args.factor_after  = 1/sqrtf((float) args.n_after);
    }
    const float * sink = (const float *) sinks.data;
    if (q.ne[0] == HEAD_DIM) {
        run<HEAD_DIM>(argv, args, table, sink);
        return 0;
    }
    fprintf(stderr, "head_dim %lld in a program for %d\n", (long long) q.ne[0], HEAD_DIM);
    return 2;
}
