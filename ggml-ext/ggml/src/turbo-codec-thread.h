// The encoder of turbo-codec.h by one thread for each scale: all states of the trellis in its registers, two to a register. The
// least work for many blocks, as in prefill. turbo-codec-lanes.h is done sooner.

#pragma once

#include "turbo-codec.h"

namespace turbo {

//
// values
//

// A block at a magnitude at which nothing overflows: x = y * 2^exponent.
struct values {
    const float * y; // QK of them
    float energy;    // sum of their squares
    float extent;    // what scales are multiples of; 0: nothing but zeros can be coded
    int   exponent;
};

// Eight running sums over a block, value e in sum e%8, folded in halves: the order of additions of every encoder.
struct running_sums {
    float at[8];
};

TQ_FN float fold(running_sums s) {
    TQ_UNROLL
    for (int n = 4; n > 0; n /= 2) {
        TQ_UNROLL
        for (int i = 0; i < n; ++i) {
            s.at[i] = add(s.at[i], s.at[i + n]);
        }
    }
    return s.at[0];
}

// The values x(e), normalized by N threads, to y: thread j does those from j on, each Nth. other(z, offset): z of thread
// j ^ offset, for offsets below N. All have to wait for each other before they look at y.
template <int N, typename X, typename F> TQ_FN values normalize(const X & x, const F & other, int j, float * y) {
    constexpr int N_SUMS = 8/N; // of the running sums
    values   v    = { y, 0.0f, 0.0f, 0 };
    uint32_t peak = 0;
    float    own[QK/N];
    TQ_UNROLL
    for (int i = 0; i < QK/N; ++i) {
        own[i] = x(j + N*i);
        const uint32_t magnitude = bits_of(own[i]) & 0x7fffffff;
        own[i] = is_finite(magnitude) ? own[i] : 0.0f;
        peak   = is_finite(magnitude) && magnitude > peak ? magnitude : peak;
    }
    TQ_UNROLL
    for (int offset = 1; offset < N; offset *= 2) {
        const uint32_t o = other(peak, offset);
        peak = o > peak ? o : peak;
    }
    if (!is_zero(peak)) {
        v.exponent = exponent_of(peak);
    }
    const float factor = power(-v.exponent);
    float sums[N_SUMS] = {};
    TQ_UNROLL
    for (int i = 0; i < QK/N; ++i) {
        own[i]     = mul(own[i], factor);
        y[j + N*i] = own[i];
        sums[i%N_SUMS] = add(sums[i%N_SUMS], mul(own[i], own[i]));
    }
    TQ_UNROLL
    for (int n = 4; n > 0; n /= 2) {
        if (n < N) {
            sums[0] = add(sums[0], other(sums[0], n));
            continue;
        }
        TQ_UNROLL
        for (int i = 0; i < n/N; ++i) {
            sums[i] = add(sums[i], sums[i + n/N]);
        }
    }
    v.energy = sums[0];
    v.extent = is_zero(peak) ? 0.0f : extent_of(v.energy, mul(float_of(peak), factor));
    return v;
}

//
// the search
//

// The best paths into all states. Two states that differ in bit P alone share a word, the one without it in the low half;
// words are in the order of the states without that bit. A step moves every bit of a state one place up, and the pairs
// with them: nothing has to be moved for P from 1 to 4. What then differs in bit 5 is paired anew.
struct paths {
    uint32_t w[32];
};

template <int P> TQ_FN int state_of(int word) {
    return (word & ((1 << P) - 1)) | word >> P << (P + 1);
}

// Step T of a part, with states paired by bit P; then they are by bit P + 1. branch_costs: of the four subsets
template <int P, int T, bool FIRST> TQ_FN void advance(paths & p, uint32_t branch_costs) {
    // Costs from subset z on: the states of a word are in the same, or in two subsets next to each other.
    constexpr uint32_t D = P == 1 || P == 3 ? 1 : 0;
    uint32_t cost[4] = {
        permute<4u | 0u << 4 | 4u << 8 | (0u ^ D) << 12>(branch_costs, 0),
        permute<4u | 1u << 4 | 4u << 8 | (1u ^ D) << 12>(branch_costs, 0),
        permute<4u | 2u << 4 | 4u << 8 | (2u ^ D) << 12>(branch_costs, 0),
        permute<4u | 3u << 4 | 4u << 8 | (3u ^ D) << 12>(branch_costs, 0),
    };
    uint32_t upper_cost[4];
    TQ_UNROLL
    for (int z = 0; z < 4; ++z) {
        cost[z]     >>= FIRST ? FIRST_STEPS : 0;
        upper_cost[z] = cost[z] + upper_bit<FIRST>(T);
    }
    paths next;
    TQ_UNROLL
    for (int i = 0; i < 16; ++i) {
        const int s = state_of<P>(i);
        const int z = (s & 1) << 1 | ((s >> 1 ^ s >> 3) & 1); // of path bit 0
        const uint32_t lower = p.w[i];
        const uint32_t upper = p.w[i + 16];
        next.w[2*i]     = add_min(upper, upper_cost[z ^ 2], lower + cost[z]);
        next.w[2*i + 1] = add_min(upper, upper_cost[z],     lower + cost[z ^ 2]);
    }
    p = next;
}

// Words with bit 1 clear in their number, and half of the state's number: where states 2 bits apart meet.
TQ_FN int quad_of(int word) {
    return (word & 1) | word >> 2 << 1;
}

// from pairs by bit 5 to pairs by bit 1
TQ_FN void pair_anew(paths & p) {
    paths next;
    TQ_UNROLL
    for (int i = 0; i < 32; ++i) {
        if (i & 2) {
            continue;
        }
        next.w[quad_of(i)]      = permute<0x5410>(p.w[i], p.w[i + 2]);
        next.w[quad_of(i) + 16] = permute<0x7632>(p.w[i], p.w[i + 2]);
    }
    p = next;
}

// What paths did in a part: four states to a word.
struct histories {
    uint32_t w[16];
};

TQ_FN uint32_t history_of(const histories & h, int state) {
    return h.w[quad_of(state & 29)] >> 8*(state >> 5 | (state & 2)) & 0xff;
}

// A part of eight steps, by the costs of its branches.
template <bool FIRST> TQ_FN void advance_part(paths & p, const uint32_t * costs, histories & h) {
    advance<1, 0, FIRST>(p, costs[0]);
    advance<2, 1, FIRST>(p, costs[1]);
    advance<3, 2, FIRST>(p, costs[2]);
    advance<4, 3, FIRST>(p, costs[3]);
    pair_anew(p);
    advance<1, 4, FIRST>(p, costs[4]);
    advance<2, 5, FIRST>(p, costs[5]);
    advance<3, 6, FIRST>(p, costs[6]);
    advance<4, 7, FIRST>(p, costs[7]);

    if (FIRST) {
        TQ_UNROLL
        for (int i = 0; i < 32; ++i) {
            p.w[i] <<= FIRST_STEPS;
        }
    }
    uint32_t least = p.w[0];
    TQ_UNROLL
    for (int i = 1; i < 32; ++i) {
        least = min_halves(least, p.w[i]);
    }
    least = min_halves(least, least >> 16) >> 8 & 0xff;

    paths next;
    TQ_UNROLL
    for (int i = 0; i < 32; ++i) {
        if (i & 2) {
            continue;
        }
        h.w[quad_of(i)] = permute<0x6420>(p.w[i], p.w[i + 2]);
        const uint32_t cost = permute<0x7531>(p.w[i], p.w[i + 2]) - least*0x01010101;
        next.w[quad_of(i)]      = permute<0x2404>(cost, 0);
        next.w[quad_of(i) + 16] = permute<0x3414>(cost, 0);
    }
    p = next;
}

// the lowest state of the least cost, which is 0 after a part
TQ_FN int best_state(const paths & p) {
    int res = QK;
    TQ_UNROLL
    for (int i = 31; i >= 0; --i) {
        const int s     = state_of<1>(i);
        const int lower = (p.w[i] & 0xffff) == 0 ? s : p.w[i] >> 16 == 0 ? s + 2 : QK;
        res = lower < res ? lower : res;
    }
    return res;
}

// The tail-biting path by the costs of the block's branches.
//
// A free run over the values on both sides of the wrap finds the state there; a second run starts and ends in it.
TQ_FN path search(const uint32_t * costs) {
    histories history[PARTS];
    paths     p;

    TQ_UNROLL
    for (int i = 0; i < 32; ++i) {
        p.w[i] = 0;
    }
    for (int i = 0; i < 2*CONTEXT; ++i) {
        const int part = (PARTS - CONTEXT + i)%PARTS;
        advance_part<false>(p, costs + STEPS*part, history[part]);
    }
    int wrap = best_state(p);
    for (int part = CONTEXT - 1; part >= 0; --part) {
        wrap = state_before(history_of(history[part], wrap));
    }

    TQ_UNROLL
    for (int i = 0; i < 32; ++i) {
        p.w[i] = FORBIDDEN*0x00010001 & ~(state_of<1>(i) == (wrap & ~2) ? 0xffffu << 8*(wrap & 2) : 0u);
    }
    advance_part<true>(p, costs, history[0]);
    for (int part = 1; part < PARTS; ++part) {
        advance_part<false>(p, costs + STEPS*part, history[part]);
    }
    path res   = { { 0, 0 } };
    int  state = wrap;
    for (int part = PARTS - 1; part > 0; --part) {
        const uint32_t h = history_of(history[part], state);
        add_history(res, part, h);
        state = state_before(h);
    }
    const uint32_t h = history_of(history[0], state);
    add_history(res, 0, h);
    add_state(res, wrap);
    return res;
}

//
// blocks
//

// byte i of x
TQ_FN uint32_t pick_byte(uint32_t x, uint32_t i) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, 0, 0x4440 | i);
#else
    return x >> 8*i & 0xff;
#endif
}

// A block's code at one scale.
template <int K> struct candidate {
    planes<K> index; // the path, then the index, low bit first
    float     scale; // unbiased
    float     score; // energy that the code explains; 0: none
};

// A normalized block at scale i of TQ_SCALES; its extent is not 0.
template <int K> TQ_FN candidate<K> encode(values v, int i) {
    const float factor = factor_of<K>(v.extent, i);
    uint32_t costs[QK];
    for (int e = 0; e < QK; e += STEPS) {
        TQ_UNROLL
        for (int s = 0; s < STEPS; ++s) {
            costs[e + s] = branch_of<K>(place_of(v.y[e + s], factor)).costs;
        }
    }
    const path u = search(costs);

    candidate<K> res = {};
    running_sums yc  = { { 0, 0, 0, 0, 0, 0, 0, 0 } };
    int          cc  = 0;
    const planes<2> z = subsets(u);
    for (int h = 0; h < 2; ++h) {
        uint32_t index[K] = {};
        TQ_UNROLL
        for (int w = 0; w < 4; ++w) {
            // of values 32 h + 4 j + w, in nibble j
            const uint32_t subsets = nibbles<0, 2>(z, h, w);
            uint32_t       upper   = 0; // bits of their numbers
            TQ_UNROLL
            for (int j = 0; j < 8; ++j) {
                const float    y      = v.y[32*h + 4*j + w];
                const uint32_t number = pick_byte(branch_of<K>(place_of(y, factor)).numbers, subsets >> 4*j & 3);
                const int      level  = level_of<K>((int) number);
                float &        sum    = yc.at[(4*j + w)%8];
                sum    = add(sum, mul(y, (float) level));
                cc    += level*level;
                upper |= (number >> 2) << 4*j;
            }
            TQ_UNROLL
            for (int k = 1; k < K; ++k) {
                index[k] |= (upper >> (k - 1) & 0x11111111) << w;
            }
        }
        TQ_UNROLL
        for (int k = 1; k < K; ++k) {
            res.index.w[k][0] = h == 0 ? index[k] : res.index.w[k][0];
            res.index.w[k][1] = h == 1 ? index[k] : res.index.w[k][1];
        }
    }
    res.index.w[0][0] = u.w[0];
    res.index.w[0][1] = u.w[1];
    const float xc            = fold(yc);
    const float least_squares = div(xc, (float) cc);
    res.score = xc > 0.0f ? mul(xc, least_squares) : 0.0f;
    res.scale = res.score > 0.0f ? unbiased_scale(v.energy, xc, least_squares) : 0.0f;
    return res;
}

// What a block's bytes hold.
template <int K> struct block {
    uint16_t  scale; // f16
    planes<K> index;
};

// The block of the best candidate; all zeros if there is none, or if its scale rounds to 0.
template <int K> TQ_FN block<K> make_block(values v, const candidate<K> & best) {
    block<K> res = {};
    res.scale = best.score > 0.0f ? scale_bits(best.scale, v.exponent) : 0;
    if (res.scale != 0) {
        res.index = best.index;
    }
    return res;
}

} // namespace turbo
