#version 450

// Rows of floats to turbo blocks: SET_ROWS and copies. Four threads for a block, one for each scale that is tried; each runs
// the whole search of turbo-codec.h, 160 steps over 64 states, two to a register. What led where is in shared memory.

#include "turbo_rows.glsl"

layout (local_size_x = 32, local_size_y = 1, local_size_z = 1) in;

layout (binding = 0) readonly  buffer Src   { float    src[]; };
layout (binding = 0) readonly  buffer Src16 { uint16_t src16[]; };
layout (binding = 2) writeonly buffer Dst   { uint16_t dst[]; };

const uint THREADS = 32;

//
// what a branch of the trellis costs, by a value's place on the grid: a byte for each of the four subsets of levels,
// the cost of its nearest level, and that level's number
//

shared uint branch_costs  [TQ_GRID_LEN];
shared uint branch_numbers[TQ_GRID_LEN];

const int   COST_UNIT = K == 2 ? TQ_COST_UNIT_2 : K == 3 ? TQ_COST_UNIT_3 : TQ_COST_UNIT_4;
const float scales_2[TQ_SCALES] = float[](TQ_SCALES_2);
const float scales_3[TQ_SCALES] = float[](TQ_SCALES_3);
const float scales_4[TQ_SCALES] = float[](TQ_SCALES_4);

void make_branches() {
    for (int at = int(gl_LocalInvocationIndex); at < TQ_GRID_LEN; at += int(THREADS)) {
        const int value = at - TQ_GRID_LEN/2;
        ivec4 distance = ivec4(1 << 30);
        ivec4 nearest  = ivec4(0);
        for (int n = 0; n < 2 << K; n += 4) {
            [[unroll]] for (int s = 0; s < 4; ++s) {
                const int d = value - turbo_level_of(K, n + s)*TQ_GRID_STEPS;
                if (d*d < distance[s]) {
                    distance[s] = d*d;
                    nearest[s]  = n + s;
                }
            }
        }
        const int least = min(min(distance.x, distance.y), min(distance.z, distance.w));
        const int unit  = COST_UNIT*TQ_GRID_STEPS*TQ_GRID_STEPS;
        uint costs   = 0;
        uint numbers = 0;
        [[unroll]] for (int s = 0; s < 4; ++s) {
            costs   |= uint(min((distance[s] - least + unit/2)/unit, TQ_COST_MAX)) << 8*s;
            numbers |= uint(nearest[s]) << 8*s;
        }
        branch_costs  [at] = costs;
        branch_numbers[at] = numbers;
    }
}

//
// the block's values, at a magnitude at which nothing overflows; read again wherever they are needed
//

uint  values_at; // of the source
float factor;    // 2^-exponent
int   exponent;
float energy;    // sum of their squares
float extent;    // what scales are multiples of; 0: nothing but zeros can be coded

// NaN and infinity are coded as 0
float value_bare(uint e) {
    const float x = F16 != 0 ? turbo_float_of_half(uint(src16[values_at + e])) : src[values_at + e];
    return (floatBitsToUint(x) & 0x7f800000) == 0x7f800000 ? 0.0 : x;
}

float value(uint e) {
    return turbo_mul(value_bare(e), factor);
}

// Eight running sums over a block, value e in sum e%8, folded in halves: the order of additions of every encoder.
float fold(float s[8]) {
    [[unroll]] for (uint n = 4; n > 0; n /= 2) {
        [[unroll]] for (uint i = 0; i < n; ++i) {
            s[i] = turbo_add(s[i], s[i + n]);
        }
    }
    return s[0];
}

void normalize() {
    uint peak = 0;
    for (uint e = 0; e < QK_TURBO; ++e) {
        peak = max(peak, floatBitsToUint(value_bare(e)) & 0x7fffffff);
    }
    energy   = 0.0;
    extent   = 0.0;
    exponent = 0;
    factor   = 1.0;
    // below f16's smallest scale times the largest level
    if (uintBitsToFloat(peak) < 1e-9) {
        return;
    }
    // 2^-127 would be subnormal
    exponent = min(int(peak >> 23) - 127, 126);
    factor   = turbo_power(-exponent);
    float yy[8] = float[](0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (uint e = 0; e < QK_TURBO; e += 8) {
        [[unroll]] for (uint i = 0; i < 8; ++i) {
            const float y = value(e + i);
            yy[i] = turbo_add(yy[i], turbo_mul(y, y));
        }
    }
    energy = fold(yy);
    const float rms = turbo_root(turbo_mul(energy, 1.0/64.0));
    extent = turbo_add(turbo_mul(TQ_EXTENT_RMS, rms), turbo_mul(TQ_EXTENT_PEAK, turbo_mul(uintBitsToFloat(peak), factor)));
}

// a value's place on the grid, ties to even; the sum's low bits are the rounded number
uint place_of(float y, float steps) {
    const float limit = TQ_GRID_LEN/2;
    const float x = clamp(turbo_mul(y, steps), -limit, limit);
    return floatBitsToUint(turbo_add(x, limit + 12582912.0)) & 0xffff;
}

//
// the search
//

// What the best paths into all states cost: word r has states 2 r and 2 r + 1 in its halves, each at most 255.
uint cost[32];

// min(a + b, 255)
uint add_costs(uint a, uint b) {
    const uint sum  = a + b;
    const uint over = sum >> 8 & 0x00010001;
    return (sum | over*0xff) & 0x00ff00ff;
}

// bit 15 and bit 31: whether a >= b
uint not_below(uint a, uint b) {
    return (a | 0x80008000) - b;
}

uint min_costs(uint a, uint b) {
    const uint mask = (not_below(a, b) >> 15 & 0x00010001)*0xffff;
    return (b & mask) | (a & ~mask);
}

// A bit for each state: the best path into it comes from the lower of its two predecessors.
// Bits r and 16 + r: of states 4 r and 4 r + 2 in the first word, 4 r + 1 and 4 r + 3 in the second.
shared uint decisions[2*QK_TURBO*THREADS];

uint decision_at(uint e, uint odd) {
    return (2*e + odd)*THREADS + gl_LocalInvocationIndex;
}

uint predecessor(uint e, uint state) {
    const uint lower = decisions[decision_at(e, state & 1)] >> (state >> 2 | (state >> 1 & 1) << 4) & 1;
    return state >> 1 | (lower ^ 1) << 5;
}

void advance(uint e, uint costs) {
    // of states 2 r, 2 r + 1 with path bit 0, where subset bit 0 of both is clear and where it is set; then path bit 1
    const uint straight[2] = uint[](costs & 0x00ff00ff, costs >> 8 & 0x00ff00ff);
    const uint crossed [2] = uint[](straight[0] >> 16 | straight[0] << 16, straight[1] >> 16 | straight[1] << 16);

    uint next[32];
    uint evens = 0;
    uint odds  = 0;
    [[unroll]] for (uint r = 0; r < 16; ++r) {
        const uint z0 = (r ^ r >> 2) & 1;
        const uint a  = cost[r];
        const uint b  = cost[r + 16];

        const uint low0  = add_costs(a, straight[z0]);
        const uint high0 = add_costs(b, crossed [z0]);
        const uint low1  = add_costs(a, crossed [z0]);
        const uint high1 = add_costs(b, straight[z0]);

        evens = evens >> 1 | (not_below(high0, low0) & 0x80008000);
        odds  = odds  >> 1 | (not_below(high1, low1) & 0x80008000);

        const uint even = min_costs(low0, high0);
        const uint odd  = min_costs(low1, high1);
        next[2*r]     = (even & 0xffff) | odd << 16;
        next[2*r + 1] = even >> 16 | (odd & 0xffff0000);
    }
    [[unroll]] for (uint r = 0; r < 32; ++r) {
        cost[r] = next[r];
    }
    decisions[decision_at(e, 0)] = evens;
    decisions[decision_at(e, 1)] = odds;
}

uint least_cost() {
    uint m = cost[0];
    [[unroll]] for (uint r = 1; r < 32; ++r) {
        m = min_costs(m, cost[r]);
    }
    return min(m & 0xffff, m >> 16);
}

// so that costs stay small
void renormalize() {
    const uint least = least_cost()*0x00010001;
    [[unroll]] for (uint r = 0; r < 32; ++r) {
        cost[r] -= least;
    }
}

// the lowest state of the least cost
uint best_state() {
    const uint least = least_cost();
    uint res = 0;
    [[unroll]] for (uint i = 0; i < 32; ++i) {
        const uint r = 31 - i;
        res = cost[r] >> 16       == least ? 2*r + 1 : res;
        res = (cost[r] & 0xffff) == least ? 2*r     : res;
    }
    return res;
}

// n steps from value first on, around the block
void run(uint first, uint n, float steps) {
    for (uint i = 0; i < n; ++i) {
        const uint e = (first + i)%QK_TURBO;
        advance(e, branch_costs[place_of(value(e), steps)]);
        if (i%TQ_RENORMALIZE == TQ_RENORMALIZE - 1) {
            renormalize();
        }
    }
}

// The tail-biting path at a scale. A free run over the values on both sides of the wrap finds the state there; a second run
// starts and ends in it.
uvec2 search(float steps) {
    [[unroll]] for (uint r = 0; r < 32; ++r) {
        cost[r] = 0;
    }
    run(QK_TURBO - TQ_CONTEXT, 2*TQ_CONTEXT, steps);
    uint wrap = best_state();
    for (int e = TQ_CONTEXT - 1; e >= 0; --e) {
        wrap = predecessor(e, wrap);
    }

    [[unroll]] for (uint r = 0; r < 32; ++r) {
        cost[r] = 0x00ff00ff & ~(wrap >> 1 == r ? 0xffffu << 16*(wrap & 1) : 0u);
    }
    run(0, QK_TURBO, steps);
    uvec2 path  = uvec2(0);
    uint  state = wrap;
    for (int e = int(QK_TURBO) - 1; e >= 0; --e) {
        const uint bit = (state & 1) << (e & 31);
        path.x |= e < 32 ? bit : 0;
        path.y |= e < 32 ? 0 : bit;
        state = predecessor(e, state);
    }
    return path;
}

// Planes z0 and z1 of a path: which subset each value's level is of.
struct subset_planes {
    uvec2 z0;
    uvec2 z1;
};

uvec2 rotl(uvec2 x, uint n) {
    return x << n | x.yx >> (32 - n);
}

subset_planes subsets_of(uvec2 path) {
    return subset_planes(rotl(path, 2) ^ rotl(path, 4), path ^ rotl(path, 1) ^ rotl(path, 6));
}

// the number of value e on a path
uint number_on(subset_planes z, uint e, float steps) {
    const uint h = e/32;
    const uint s = (z.z0[h] >> (e & 31) & 1) | (z.z1[h] >> (e & 31) & 1) << 1;
    return branch_numbers[place_of(value(e), steps)] >> 8*s & 0xff;
}

shared float scores[THREADS];

void main() {
    make_branches();

    const uint b        = group_number()*(THREADS/TQ_SCALES) + gl_LocalInvocationIndex/TQ_SCALES;
    const uint i        = gl_LocalInvocationIndex%TQ_SCALES;
    const bool is_there = b < p.n_blocks;

    uint x = p.src_at;
    uint y = p.dst_at;
    if (is_there) {
        const uint r = b/p.src_ne0;
        x = src_row(r) + b%p.src_ne0*QK_TURBO;
        if (IDS != 0) {
            const uvec3 at = uvec3(r%p.src_ne1, r/p.src_ne1%p.src_ne2, r/p.src_ne1/p.src_ne2);
            y += id_at(uvec3(at.x, at.y%p.ids_ne1, at.z%p.ids_ne2))*p.dst_nb1 + at.y*p.dst_nb2 + at.z*p.dst_nb3 +
                b%p.src_ne0*TURBO_WORDS(K);
        } else {
            y = dst_row(b/p.dst_ne0) + b%p.dst_ne0*TURBO_WORDS(K);
        }
    }
    values_at = x;
    extent    = 0.0;
    if (is_there) {
        normalize();
    }
    barrier();

    float steps = 0.0; // of the grid for y = 1
    float scale = 0.0; // unbiased, as turbo-codec.h has it
    float score = 0.0; // energy that the code explains; 0: none
    uvec2 path  = uvec2(0);
    subset_planes z = subset_planes(uvec2(0), uvec2(0));
    if (extent > 0.0) {
        const float of_type = K == 2 ? scales_2[i] : K == 3 ? scales_3[i] : scales_4[i];
        steps = turbo_div(float(TQ_GRID_STEPS), turbo_mul(extent, of_type));
        path  = search(steps);
        z     = subsets_of(path);

        float yc[8] = float[](0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        int   cc    = 0;
        for (uint e = 0; e < QK_TURBO; e += 8) {
            [[unroll]] for (uint j = 0; j < 8; ++j) {
                const int level = turbo_level_of(K, number_on(z, e + j, steps));
                yc[j] = turbo_add(yc[j], turbo_mul(value(e + j), float(level)));
                cc += level*level;
            }
        }
        const float xc            = fold(yc);
        const float least_squares = turbo_div(xc, float(cc));
        score = xc > 0.0 ? turbo_mul(xc, least_squares) : 0.0;
        if (score > 0.0) {
            scale = min(turbo_div(energy, xc), turbo_mul(TQ_SCALE_LIMIT, least_squares));
        }
    }

    scores[gl_LocalInvocationIndex] = score;
    barrier();
    const uint first = gl_LocalInvocationIndex - i;
    uint best = 0;
    [[unroll]] for (uint j = 1; j < TQ_SCALES; ++j) {
        best = scores[first + j] > scores[first + best] ? j : best;
    }
    if (!is_there || best != i) {
        return;
    }

    // in two exact steps: 2^exponent alone may be out of range
    const int first_step = exponent/2;
    scale = score > 0.0 ? turbo_mul(turbo_mul(scale, turbo_power(first_step)), turbo_power(exponent - first_step)) : 0.0;
    const uint bits = turbo_half_of(min(scale, 65504.0));

    uvec2 planes[4] = uvec2[](path, uvec2(0), uvec2(0), uvec2(0));
    if (bits == 0) {
        planes[0] = uvec2(0);
    } else {
        for (uint e = 0; e < QK_TURBO; ++e) {
            const uint number = number_on(z, e, steps);
            [[unroll]] for (uint k = 1; k < K; ++k) {
                planes[k].x |= e < 32 ? (number >> (k + 1) & 1) << e : 0;
                planes[k].y |= e < 32 ? 0 : (number >> (k + 1) & 1) << (e - 32);
            }
        }
    }
    dst[y] = uint16_t(bits);
    [[unroll]] for (uint k = 0; k < K; ++k) {
        dst[y + 1 + 4*k] = uint16_t(planes[k].x & 0xffff);
        dst[y + 2 + 4*k] = uint16_t(planes[k].x >> 16);
        dst[y + 3 + 4*k] = uint16_t(planes[k].y & 0xffff);
        dst[y + 4 + 4*k] = uint16_t(planes[k].y >> 16);
    }
}
