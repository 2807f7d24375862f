// The kernels of turbo-rows.cuh and turbo-expand.cuh on the host, for tests/device_cuda.rs.
//
//     rows set|set-by-warps|set-anchored|set-both|copy|copy-by-warps|get|cast|expand|anchored 2|3|4 N < in > out
//     rows rotate|rotate-by-warps|rotate-both 2|3|4 N ROTATED < in > out
//
// in and out are N blocks of 64 values: floats to blocks with set and copy, blocks to floats with the others. Blocks lie
// backwards in rows of two with set and get. With expand and anchored, values are rounded to f16, with anchored each
// row is one of three keys whose anchors are rows 0, 1, 2 of `anchor`, and a fourth that has none. With set-anchored
// row i is measured from anchor i % 3; with set-both that is done to the keys, and out has turbo4's blocks of the values,
// which are the same floats, after them.
//
// With rotate blocks lie in rows of eight, backwards, of keys: `scale` multiplies them, ROTATED of them at a time are rotated, and
// their anchors are taken off. With rotate-both there are values after them, which are rotated by 64.

#include "shim.h"

#include "turbo-expand.cuh"

#include <string>

using namespace turbo;

static view rows_of(void * data, int64_t ne0, int64_t ne1, int64_t nb1) {
    return { (char *) data, { ne0, ne1, 1, 1 }, { 0, nb1, nb1*ne1, nb1*ne1 } };
}

static float anchor(int id, int i) {
    return (float) (i*(id + 1)%37 - 18)/8.0f;
}

static float scale(int i) {
    return 0.5f + (float) (i*7%13)/8.0f;
}

template <typename F> static void launch(int64_t n_threads, const F & f) {
    shim::launch(dim3((unsigned) ((n_threads + 127)/128)), 128, f);
}

// A row of keys has its heads next to each other, and a gap behind it.
template <int K> static int run_rotated(const std::string & what, int64_t n, int n_rotated) {
    const int     WIDTH  = 8*QK;
    const int     GAP    = 32;
    const int     d      = n_rotated < 128 ? 128 : n_rotated;
    const int64_t n_rows = n/8;

    std::vector<float> values(n*QK);
    if (fread(values.data(), 4, values.size(), stdin) != values.size()) {
        return 1;
    }
    std::vector<float> keys(n_rows*(WIDTH + GAP));
    for (int64_t i = 0; i < n_rows; ++i) {
        memcpy(keys.data() + i*(WIDTH + GAP), values.data() + i*WIDTH, 4*WIDTH);
    }
    std::vector<float>   scales(WIDTH);
    std::vector<half>    table(3*WIDTH);
    std::vector<int64_t> ids(n_rows);
    std::vector<int32_t> thirds(n_rows);
    for (int i = 0; i < WIDTH; ++i) {
        scales[i] = scale(i);
    }
    for (int i = 0; i < 3*WIDTH; ++i) {
        table[i] = half(anchor(i/WIDTH, i%WIDTH));
    }
    for (int64_t i = 0; i < n_rows; ++i) {
        ids[i]    = n_rows - 1 - i;
        thirds[i] = (int32_t) (i%3);
    }
    std::vector<char> blocks(n*block_bytes<K>);
    std::vector<char> value_blocks(n*block_bytes<4>);

    const view id_view    = { (char *) ids.data(),    { n_rows, 1, 1, 1 }, { 8, 0, 0, 0 } };
    const view third_view = { (char *) thirds.data(), { n_rows, 1, 1, 1 }, { 4, 0, 0, 0 } };
    const view shape      = rows_of(nullptr, WIDTH, n_rows, 4*WIDTH);

    rotation of_keys = { n_rotated, 1/sqrtf((float) n_rotated), {}, {} };
    of_keys.src   = { (char *) keys.data(), { d, WIDTH/d, n_rows, 1 }, { 4, 4*d, 4*(WIDTH + GAP), 0 } };
    of_keys.scale = { (char *) scales.data(), { d, WIDTH/d, 1, 1 }, { 4, 4*d, 0, 0 } };
    rotation of_values = { 64, 0.125f, {}, {} };
    of_values.src = { (char *) values.data(), { WIDTH, 1, n_rows, 1 }, { 4, 4*WIDTH, 4*WIDTH, 0 } };

    const rows_to_set to_keys = { shape, id_view, rows_of(blocks.data(), WIDTH, n_rows, 8*block_bytes<K>),
        rows_of(table.data(), WIDTH, 3, 2*WIDTH), third_view, n, of_keys };
    const rows_to_set to_values = { shape, id_view, rows_of(value_blocks.data(), WIDTH, n_rows, 8*block_bytes<4>), {}, {}, n, of_values };

    if (what == "rotate") {
        launch(n*encode_by_threads::N_THREADS, [&] { set_rows_kernel<encode_by_threads, K, float, int64_t>(to_keys); });
    } else if (what == "rotate-by-warps") {
        launch(n*encode_by_warps::N_THREADS, [&] { set_rows_kernel<encode_by_warps, K, float, int64_t>(to_keys); });
    } else if (what == "rotate-both") {
        shim::launch(dim3((unsigned) n, 2), encode_by_warps::N_THREADS, [&] { set_both_kernel<K, 4>(to_keys, to_values); });
        blocks.insert(blocks.end(), value_blocks.begin(), value_blocks.end());
    } else {
        return 2;
    }
    return fwrite(blocks.data(), 1, blocks.size(), stdout) == blocks.size() ? 0 : 1;
}

template <int K> static int run(const std::string & what, int64_t n) {
    const bool encodes = what.find("set") == 0 || what.find("copy") == 0;

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

    alignas(16) static half table[3*2*QK];
    for (int i = 0; i < 3*2*QK; ++i) {
        table[i] = half(anchor(i/(2*QK), i%(2*QK)));
    }
    const view table_view = rows_of(table, 2*QK, 3, 2*QK*2);

    std::vector<int32_t> thirds(n_rows);
    for (int64_t i = 0; i < n_rows; ++i) {
        thirds[i] = (int32_t) (i%3);
    }
    const view third_view = { (char *) thirds.data(), { n_rows, 1, 1, 1 }, { 4, 0, 0, 0 } };

    const rows_to_set plain    = { floats, long_id_view, turbos, {}, {}, n, {} };
    const rows_to_set anchored = { floats, long_id_view, turbos, table_view, third_view, n, {} };

    const auto set_rows = [&](auto encoder, const rows_to_set & rows) {
        launch(n*encoder.N_THREADS, [&] { set_rows_kernel<decltype(encoder), K, float, int64_t>(rows); });
    };
    const auto copy = [&](auto encoder) {
        launch(n*encoder.N_THREADS, [&] { encode_kernel<decltype(encoder), K, float>(floats, turbos, n); });
    };
    const int64_t n_decode = n*BLOCK_THREADS_DECODE;
    if (what == "set") {
        set_rows(encode_by_threads(), plain);
    } else if (what == "set-by-warps") {
        set_rows(encode_by_warps(), plain);
    } else if (what == "set-anchored") {
        set_rows(encode_by_threads(), anchored);
    } else if (what == "set-both") {
        blocks.resize(n*(block_bytes<K> + block_bytes<4>));
        rows_to_set keys   = anchored;
        rows_to_set values = plain;
        keys.dst   = rows_of(blocks.data(),                    2*QK, n_rows, 2*block_bytes<K>);
        values.dst = rows_of(blocks.data() + n*block_bytes<K>, 2*QK, n_rows, 2*block_bytes<4>);
        shim::launch(dim3((unsigned) n, 2), encode_by_warps::N_THREADS, [&] { set_both_kernel<K, 4>(keys, values); });
    } else if (what == "copy") {
        copy(encode_by_threads());
    } else if (what == "copy-by-warps") {
        copy(encode_by_warps());
    } else if (what == "get") {
        launch(n_decode, [&] { get_rows_kernel<K>(turbos, id_view, floats, n); });
    } else if (what == "cast") {
        launch(n_decode, [&] { decode_kernel<K, float>(turbos, floats, n); });
    } else if (what == "expand" || what == "anchored") {
        for (int64_t i = 0; i < n_rows; ++i) {
            ids[i] = (int32_t) (i%4) < 3 ? (int32_t) (i%4) : -1;
        }
        anchor_view anchors = {};
        if (what == "anchored") {
            anchors = { table_view, { (char *) ids.data(), { n_rows, 1, 1, 1 }, { 4, 0, 0, 0 } } };
        }
        std::vector<half> y(x.size());
        launch(n_decode, [&] { expand_kernel<kv_turbo<K>>(turbos, anchors, y.data(), n_decode); });
        for (size_t i = 0; i < x.size(); ++i) {
            x[i] = y[i];
        }
    } else {
        return 2;
    }
    const size_t size = encodes ? blocks.size() : 4*x.size();
    return fwrite(encodes ? (void *) blocks.data() : x.data(), 1, size, stdout) == size ? 0 : 1;
}

template <int K> static int run(int argc, char ** argv) {
    return argc == 5 ? run_rotated<K>(argv[1], atoll(argv[3]), atoi(argv[4])) : run<K>(argv[1], atoll(argv[3]));
}

int main(int argc, char ** argv) {
    if (argc != 4 && argc != 5) {
        return 2;
    }
    switch (atoi(argv[2])) {
        case 2: return run<2>(argc, argv);
        case 3: return run<3>(argc, argv);
        case 4: return run<4>(argc, argv);
        default: return 2;
    }
}
