// Rows of the turbo types: set_rows, get_rows, copies, and what prepares attention.

#include "common.h"
#include "dequantize.h"
#include "turbo-metal.h"

//
// encoding: a threadgroup a block, a simdgroup a scale
//

template<typename TI, short K, typename block_q>
kernel void kernel_turbo_set_rows(
        constant ggml_metal_kargs_set_rows & args,
        device const char * src0,
        device const char * src1,
        device       char * dst,
        threadgroup float * scores [[threadgroup(0)]],
        uint3   tgpig[[threadgroup_position_in_grid]],
        ushort  tiisg[[thread_index_in_simdgroup]],
        ushort  sgitg[[simdgroup_index_in_threadgroup]]) {
    const int32_t i03 = tgpig.z;
    const int32_t i02 = tgpig.y;
    const int32_t i01 = tgpig.x/args.nk0;
    const int32_t ind = tgpig.x%args.nk0;

    const int32_t i12 = i03%args.ne12;
    const int32_t i11 = i02%args.ne11;

    const TI i1 = ((device const TI *) (src1 + i01*args.nb10 + i11*args.nb11 + i12*args.nb12))[0];

    device const float   * src = (device const float   *) (src0 + i01*args.nb01 + i02*args.nb02 + i03*args.nb03) + 64*ind;
    device       block_q * b   = (device       block_q *) (dst  +  i1*args.nb1  + i02*args.nb2  + i03*args.nb3 ) + ind;

    turbo_encode<K>(src[tiisg], src[tiisg + 32], b->d, b->planes, scores, tiisg, sgitg);
}

typedef decltype(kernel_turbo_set_rows<int64_t, 4, block_turbo4>) turbo_set_rows_t;

template [[host_name("kernel_set_rows_f32_i64_turbo2")]] kernel turbo_set_rows_t kernel_turbo_set_rows<int64_t, 2, block_turbo2>;
template [[host_name("kernel_set_rows_f32_i32_turbo2")]] kernel turbo_set_rows_t kernel_turbo_set_rows<int32_t, 2, block_turbo2>;
template [[host_name("kernel_set_rows_f32_i64_turbo3")]] kernel turbo_set_rows_t kernel_turbo_set_rows<int64_t, 3, block_turbo3>;
template [[host_name("kernel_set_rows_f32_i32_turbo3")]] kernel turbo_set_rows_t kernel_turbo_set_rows<int32_t, 3, block_turbo3>;
template [[host_name("kernel_set_rows_f32_i64_turbo4")]] kernel turbo_set_rows_t kernel_turbo_set_rows<int64_t, 4, block_turbo4>;
template [[host_name("kernel_set_rows_f32_i32_turbo4")]] kernel turbo_set_rows_t kernel_turbo_set_rows<int32_t, 4, block_turbo4>;

template<short K, typename block_q>
kernel void kernel_turbo_cpy_f32(
        constant ggml_metal_kargs_cpy & args,
        device const char * src0,
        device       char * dst,
        threadgroup float * scores [[threadgroup(0)]],
        uint3   tgpig[[threadgroup_position_in_grid]],
        ushort  tiisg[[thread_index_in_simdgroup]],
        ushort  sgitg[[simdgroup_index_in_threadgroup]]) {
    const int32_t i03 = tgpig.z;
    const int32_t i02 = tgpig.y;
    const int32_t i01 = tgpig.x/args.nk0;
    const int32_t ind = tgpig.x%args.nk0;

    const int64_t n = ((i03*args.ne02 + i02)*args.ne01 + i01)*args.ne00 + 64*ind;

    const int64_t i3 = n/(args.ne2*args.ne1*args.ne0);
    const int64_t i2 = n/(args.ne1*args.ne0)%args.ne2;
    const int64_t i1 = n/args.ne0%args.ne1;
    const int64_t i0 = n%args.ne0/64;

    device const float   * src = (device const float   *) (src0 + i03*args.nb03 + i02*args.nb02 + i01*args.nb01) + 64*ind;
    device       block_q * b   = (device       block_q *) (dst  +  i3*args.nb3  +  i2*args.nb2  +  i1*args.nb1 ) + i0;

    turbo_encode<K>(src[tiisg], src[tiisg + 32], b->d, b->planes, scores, tiisg, sgitg);
}

typedef decltype(kernel_turbo_cpy_f32<4, block_turbo4>) turbo_cpy_f32_t;

template [[host_name("kernel_cpy_f32_turbo2")]] kernel turbo_cpy_f32_t kernel_turbo_cpy_f32<2, block_turbo2>;
template [[host_name("kernel_cpy_f32_turbo3")]] kernel turbo_cpy_f32_t kernel_turbo_cpy_f32<3, block_turbo3>;
template [[host_name("kernel_cpy_f32_turbo4")]] kernel turbo_cpy_f32_t kernel_turbo_cpy_f32<4, block_turbo4>;

//
// decoding: a thread 16 values
//

template<typename T4x4, typename block_q, void (*deq)(device const block_q *, short, thread T4x4 &)>
kernel void kernel_turbo_cpy(
        constant ggml_metal_kargs_cpy & args,
        device const char * src0,
        device       char * dst,
        uint3   tgpig[[threadgroup_position_in_grid]],
        ushort3 tpitg[[thread_position_in_threadgroup]],
        ushort3   ntg[[threads_per_threadgroup]]) {
    const int32_t i03 = tgpig.z;
    const int32_t i02 = tgpig.y;
    const int32_t i01 = tgpig.x%args.ne01;
    const int32_t ind = tgpig.x/args.ne01*ntg.x + tpitg.x;
    if (ind >= args.nk0) {
        return;
    }

    const int64_t n = ((i03*args.ne02 + i02)*args.ne01 + i01)*args.ne00 + 16*ind;

    const int64_t i3 = n/(args.ne2*args.ne1*args.ne0);
    const int64_t i2 = n/(args.ne1*args.ne0)%args.ne2;
    const int64_t i1 = n/args.ne0%args.ne1;
    const int64_t i0 = n%args.ne0;

    device const block_q * src = (device const block_q *) (src0 + i03*args.nb03 + i02*args.nb02 + i01*args.nb01);

    T4x4 temp;
    deq(src + ind/4, ind%4, temp);
    *(device T4x4 *) (dst + i3*args.nb3 + i2*args.nb2 + i1*args.nb1 + i0*args.nb0) = temp;
}

typedef decltype(kernel_turbo_cpy<float4x4, block_turbo4, dequantize_turbo4>) turbo_cpy_t;

template [[host_name("kernel_cpy_turbo2_f32")]] kernel turbo_cpy_t kernel_turbo_cpy<float4x4, block_turbo2, dequantize_turbo2>;
template [[host_name("kernel_cpy_turbo3_f32")]] kernel turbo_cpy_t kernel_turbo_cpy<float4x4, block_turbo3, dequantize_turbo3>;
template [[host_name("kernel_cpy_turbo4_f32")]] kernel turbo_cpy_t kernel_turbo_cpy<float4x4, block_turbo4, dequantize_turbo4>;
template [[host_name("kernel_cpy_turbo2_f16")]] kernel turbo_cpy_t kernel_turbo_cpy<half4x4,  block_turbo2, dequantize_turbo2>;
template [[host_name("kernel_cpy_turbo3_f16")]] kernel turbo_cpy_t kernel_turbo_cpy<half4x4,  block_turbo3, dequantize_turbo3>;
template [[host_name("kernel_cpy_turbo4_f16")]] kernel turbo_cpy_t kernel_turbo_cpy<half4x4,  block_turbo4, dequantize_turbo4>;

template<typename block_q, void (*deq)(device const block_q *, short, thread float4x4 &)>
kernel void kernel_turbo_get_rows(
        constant ggml_metal_kargs_get_rows & args,
        device const char * src0,
        device const char * src1,
        device       char * dst,
        uint3   tgpig[[threadgroup_position_in_grid]],
        ushort  tiitg[[thread_index_in_threadgroup]],
        ushort3   ntg[[threads_per_threadgroup]]) {
    const int32_t i10 = tgpig.x%args.ne10;
    const int32_t i11 = tgpig.y;
    const int32_t i12 = tgpig.z;
    const int32_t ind = tgpig.x/args.ne10*ntg.x + tiitg;
    if (ind >= args.ne00t) {
        return;
    }

    const int32_t r = ((device const int32_t *) (src1 + i12*args.nb12 + i11*args.nb11 + i10*args.nb10))[0];

    device const block_q  * src = (device const block_q  *) (src0 + i12*args.nb03 + i11*args.nb02 +   r*args.nb01);
    device       float4x4 * res = (device       float4x4 *) (dst  + i12*args.nb3  + i11*args.nb2  + i10*args.nb1);

    float4x4 temp;
    deq(src + ind/4, ind%4, temp);
    res[ind] = temp;
}

typedef decltype(kernel_turbo_get_rows<block_turbo4, dequantize_turbo4>) turbo_get_rows_t;

template [[host_name("kernel_get_rows_turbo2")]] kernel turbo_get_rows_t kernel_turbo_get_rows<block_turbo2, dequantize_turbo2>;
template [[host_name("kernel_get_rows_turbo3")]] kernel turbo_get_rows_t kernel_turbo_get_rows<block_turbo3, dequantize_turbo3>;
template [[host_name("kernel_get_rows_turbo4")]] kernel turbo_get_rows_t kernel_turbo_get_rows<block_turbo4, dequantize_turbo4>;

//
// K or V to contiguous f16, before the simdgroup-matrix kernel
//

// With anchors, keys become what they were before their anchors were taken off, and attention needs no term.
template<bool has_anchors, short nl, typename block_q, void (*deq)(device const block_q *, short, thread float4x4 &)>
kernel void kernel_turbo_kv_f16(
        constant ggml_metal_kargs_flash_attn_ext_kv_f16 & args,
        device const char * x,
        device       half * x_dst,
        constant ggml_metal_kargs_turbo_anchors & aargs,
        device const char * anchors,
        device const char * ids,
        uint gid [[thread_position_in_grid]]) {
    if (gid >= (uint) args.nblocks) {
        return;
    }

    const uint nb = args.ne0/(16*nl);
    const uint i0 = gid%nb;
    uint       ib = gid/nb;
    const uint i1 = ib%args.ne1;
    ib /= args.ne1;
    const uint i2 = ib%args.ne2;
    const uint i3 = ib/args.ne2;

    // rows of f16 have no blocks: a thread 16 values of them
    const short step = is_same<block_q, half>::value ? 16 : 1;

    device const block_q * src = (device const block_q *) (x + i1*args.nb1 + i2*args.nb2 + i3*args.nb3) + step*i0;
    device       half4   * dst = (device       half4   *) x_dst + (4*nl)*gid;

    const int id = has_anchors ? ((device const int32_t *) (ids + i3*aargs.nb_ids))[i1] : -1;
    device const half4 * m = (device const half4 *) (anchors + id*(int64_t) aargs.nb1 + i2*aargs.nb2 + i3*aargs.nb3) + (4*nl)*i0;

    for (short i = 0; i < nl; ++i) {
        float4x4 reg;
        deq(src, i, reg);
        for (short j = 0; j < 4; ++j) {
            if (id >= 0) {
                reg[j] += (float4) m[4*i + j];
            }
            dst[4*i + j] = (half4) reg[j];
        }
    }
}

static inline void turbo_dequantize_f16(device const half * src, short il, thread float4x4 & reg) {
    reg = (float4x4) *((device const half4x4 *) src + il);
}

typedef decltype(kernel_turbo_kv_f16<false, 4, block_turbo4, dequantize_turbo4>) turbo_kv_f16_t;

template [[host_name("kernel_turbo_kv_turbo2_f16")]] kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 4, block_turbo2, dequantize_turbo2>;
template [[host_name("kernel_turbo_kv_turbo3_f16")]] kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 4, block_turbo3, dequantize_turbo3>;
template [[host_name("kernel_turbo_kv_turbo4_f16")]] kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 4, block_turbo4, dequantize_turbo4>;
template [[host_name("kernel_turbo_kv_q8_0_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 2, block_q8_0,   dequantize_q8_0>;
template [[host_name("kernel_turbo_kv_q4_0_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 2, block_q4_0,   dequantize_q4_0>;
template [[host_name("kernel_turbo_kv_q4_1_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 2, block_q4_1,   dequantize_q4_1>;
template [[host_name("kernel_turbo_kv_q5_0_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 2, block_q5_0,   dequantize_q5_0>;
template [[host_name("kernel_turbo_kv_q5_1_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 2, block_q5_1,   dequantize_q5_1>;
template [[host_name("kernel_turbo_kv_f16_f16")]]    kernel turbo_kv_f16_t kernel_turbo_kv_f16<false, 1, half,         turbo_dequantize_f16>;

template [[host_name("kernel_turbo_kv_turbo2_anchors_f16")]] kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 4, block_turbo2, dequantize_turbo2>;
template [[host_name("kernel_turbo_kv_turbo3_anchors_f16")]] kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 4, block_turbo3, dequantize_turbo3>;
template [[host_name("kernel_turbo_kv_turbo4_anchors_f16")]] kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 4, block_turbo4, dequantize_turbo4>;
template [[host_name("kernel_turbo_kv_q8_0_anchors_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 2, block_q8_0,   dequantize_q8_0>;
template [[host_name("kernel_turbo_kv_q4_0_anchors_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 2, block_q4_0,   dequantize_q4_0>;
template [[host_name("kernel_turbo_kv_q4_1_anchors_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 2, block_q4_1,   dequantize_q4_1>;
template [[host_name("kernel_turbo_kv_q5_0_anchors_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 2, block_q5_0,   dequantize_q5_0>;
template [[host_name("kernel_turbo_kv_q5_1_anchors_f16")]]   kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 2, block_q5_1,   dequantize_q5_1>;
template [[host_name("kernel_turbo_kv_f16_anchors_f16")]]    kernel turbo_kv_f16_t kernel_turbo_kv_f16<true, 1, half,         turbo_dequantize_f16>;
