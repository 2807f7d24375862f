// The devices' codec on the host, for tests/device_codec.rs.
//
//     codec decode|fields|encode 2|3|4 < in > out
//
// decode: blocks to floats, value by value. fields: the same by nibbles, as kernels do. encode: floats to blocks.

#include "turbo-codec-thread.h"

#include <cstdio>
#include <cstdlib>
#include <string>

using namespace turbo;

template <int K> static block<K> load(const unsigned char * bytes) {
    block<K> res = {};
    memcpy(&res.scale, bytes, 2);
    memcpy(&res.index, bytes + 2, 8*K); // little-endian, as every device is
    return res;
}

template <int K> static void decode(const unsigned char * bytes, float * x) {
    const block<K>      b = load<K>(bytes);
    const planes<K + 1> n = numbers<K>(b.index);
    for (int e = 0; e < QK; ++e) {
        x[e] = float_of_half(b.scale)*(float) level_of<K>(number_at(n, e));
    }
}

template <int K> static void fields(const unsigned char * bytes, float * x) {
    const block<K>      b = load<K>(bytes);
    const planes<K + 1> n = numbers<K>(b.index);
    for (int h = 0; h < 2; ++h) {
        for (int w = 0; w < 4; ++w) {
            const uint32_t low = nibbles<0, 3>(n, h, w);
            const uint32_t top = nibbles<3, K - 2>(n, h, w);
            for (int j = 0; j < 8; ++j) {
                const int number = (int) ((low >> 4*j & 15) | (top >> 4*j & 15) << 3);
                x[32*h + 4*j + w] = float_of_half(b.scale)*(float) level_of<K>(number);
            }
        }
    }
}

template <int K> static void encode(const float * x, unsigned char * bytes) {
    float y[QK];
    const values v = normalize<1>([&](int e) { return x[e]; }, [](auto z, int) { return z; }, 0, y);
    block<K> b = {};
    if (v.extent > 0.0f) {
        candidate<K> best = {};
        for (int i = 0; i < TQ_SCALES; ++i) {
            const candidate<K> c = encode<K>(v, i);
            best = c.score > best.score ? c : best;
        }
        b = make_block<K>(v, best);
    }
    memcpy(bytes, &b.scale, 2);
    memcpy(bytes + 2, &b.index, 8*K);
}

template <int K> static int run(const std::string & what) {
    unsigned char bytes[2 + 8*K];
    float         x[QK];
    const bool    encodes = what == "encode";
    void *        in      = encodes ? (void *) x : bytes;
    const size_t  in_len  = encodes ? sizeof(x) : sizeof(bytes);
    while (fread(in, in_len, 1, stdin) == 1) {
        if (encodes) {
            encode<K>(x, bytes);
        } else if (what == "decode") {
            decode<K>(bytes, x);
        } else {
            fields<K>(bytes, x);
        }
        if (fwrite(encodes ? (void *) bytes : x, encodes ? sizeof(bytes) : sizeof(x), 1, stdout) != 1) {
            return 1;
        }
    }
    return 0;
}

int main(int argc, char ** argv) {
    if (argc != 3) {
        return 2;
    }
    switch (atoi(argv[2])) {
        case 2: return run<2>(argv[1]);
        case 3: return run<3>(argv[1]);
        case 4: return run<4>(argv[1]);
        default: return 2;
    }
}
