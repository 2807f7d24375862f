// The kernels of turbo-rows.cuh and turbo-expand.cuh on the host, for tests/device_cuda.rs.
//
//     rows set|copy|get|cast|expand|anchored 2|3|4 N < in > out
//
// in and out are N blocks of 64 values: floats to blocks with set and copy, blocks to floats with the others. Blocks lie
// backwards in rows of two with set and get. With expand and anchored, values are rounded to f16, with anchored each
// row is one of three keys whose anchors are rows 0, 1, 2 of `anchor`, and a fourth that has none.

#include "shim.h"

#include "turbo-expand.cuh"

#include <string>

using namespace turbo;

static view rows_of(void * data, int64_t ne0, int64_t ne1, int64_t nb1) {
    return { (char *) data, { ne0, ne1, 1, 1 }, { 0, nb1, nb1*ne1, nb1*ne1 } };
}

static dim3 grid_of(int64_t n_threads) {
    return dim3((unsigned) ((n_threads + 127)/128));
}

static float anchor(int id, int i) {
    return (float) (i*(id + 1)%37 - 18)/8.0f;
}

template <int K> static int run(const std::string & what, int64_t n) {
    const bool encodes = what == "set" || what == "copy";

    std::vector<float> x(n*QK);
    std::vector<char>  blocks(n*block_bytes<K>);
    if (encodes ? fread(x.data(), 4, x.size(), stdin) != x.size() : fread(blocks.data(), 1, blocks.size(), stdin) != blocks.size()) {
        return 1;
    }

    const int64_t n_rows = n/2;
    const view    floats = rows_of(x.data(),      2*QK, n_rows, 2*QK*4);
    const view    turbos = rows_of(blocks.data(), 2*QK, n_rows, 2*block_bytes<K>);

    std::vector<int64_t> long_ids(n_rows);
    std::vector<int32_t> ids(n_rows);
    for (int64_t i = 0; i < n_rows; ++i) {
        ids[i] = (int32_t) (long_ids[i] = n_rows - 1 - i);
    }
    const view long_id_view = { (char *) long_ids.data(), { n_rows, 1, 1, 1 }, { 8, 0, 0, 0 } };
    const view id_view      = { (char *) ids.data(),      { n_rows, 1, 1, 1 }, { 4, 0, 0, 0 } };

    const int64_t n_encode = n*BLOCK_THREADS_ENCODE;
    const int64_t n_decode = n*BLOCK_THREADS_DECODE;
    if (what == "set") {
        shim::launch(grid_of(n_encode), 128, [&] { set_rows_kernel<K, float, int64_t>(floats, long_id_view, turbos, n); });
    } else if (what == "copy") {
        shim::launch(grid_of(n_encode), 128, [&] { encode_kernel<K, float>(floats, turbos, n); });
    } else if (what == "get") {
        shim::launch(grid_of(n_decode), 128, [&] { get_rows_kernel<K>(turbos, id_view, floats, n); });
    } else if (what == "cast") {
        shim::launch(grid_of(n_decode), 128, [&] { decode_kernel<K, float>(turbos, floats, n); });
    } else if (what == "expand" || what == "anchored") {
        alignas(16) static half table[3*2*QK];
        for (int i = 0; i < 3*2*QK; ++i) {
            table[i] = half(anchor(i/(2*QK), i%(2*QK)));
        }
        for (int64_t i = 0; i < n_rows; ++i) {
            ids[i] = (int32_t) (i%4) < 3 ? (int32_t) (i%4) : -1;
        }
        anchor_view anchors = {};
        if (what == "anchored") {
            anchors = { rows_of(table, 2*QK, 3, 2*QK*2), { (char *) ids.data(), { n_rows, 1, 1, 1 }, { 4, 0, 0, 0 } } };
        }
        std::vector<half> y(x.size());
        shim::launch(grid_of(n_decode), 128, [&] { expand_kernel<kv_turbo<K>>(turbos, anchors, y.data(), n_decode); });
        for (size_t i = 0; i < x.size(); ++i) {
            x[i] = y[i];
        }
    } else {
        return 2;
    }
    const size_t size = encodes ? blocks.size() : 4*x.size();
    return fwrite(encodes ? (void *) blocks.data() : x.data(), 1, size, stdout) == size ? 0 : 1;
}

int main(int argc, char ** argv) {
    if (argc != 4) {
        return 2;
    }
    switch (atoi(argv[2])) {
        case 2: return run<2>(argv[1], atoll(argv[3]));
        case 3: return run<3>(argv[1], atoll(argv[3]));
        case 4: return run<4>(argv[1], atoll(argv[3]));
        default: return 2;
    }
}
