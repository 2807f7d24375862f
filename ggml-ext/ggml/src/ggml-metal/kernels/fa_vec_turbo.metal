// Attention of a few queries over every pair of turbo2, turbo3, turbo4, q8_0 and f16 that upstream has no kernel for.

#include "common.h"
#include "dequantize.h"
#include "turbo-metal.h"
#include "fa_vec_common.metal"

#define FA_TYPES \
           half4,  \
           half4,  \
           half4,  \
    float,         \
    float, float4, \
           float4

#define K_TURBO2 block_turbo2, 16, dequantize_turbo2_t4
#define K_TURBO3 block_turbo3, 16, dequantize_turbo3_t4
#define K_TURBO4 block_turbo4, 16, dequantize_turbo4_t4
#define K_Q8_0   block_q8_0,    8, dequantize_q8_0_t4
#define K_F16    half4,         1, dequantize_f16_t4

typedef decltype(kernel_flash_attn_ext_vec<FA_TYPES, half4, 1, dequantize_f16_t4, half4, 1, dequantize_f16_t4, 128, 128, 1>) flash_attn_ext_vec_t;

template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo2_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO2,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo3_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO3,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo4_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO4,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_q8_0_dk64_dv64")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_Q8_0,    64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_f16_dk64_dv64")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_F16,     64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo2_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO2,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo3_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO3,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo4_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO4,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_q8_0_dk64_dv64")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_Q8_0,    64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_f16_dk64_dv64")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_F16,     64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo2_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO2,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo3_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO3,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo4_dk64_dv64")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO4,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_q8_0_dk64_dv64")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_Q8_0,    64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_f16_dk64_dv64")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_F16,     64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo2_dk64_dv64")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO2,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo3_dk64_dv64")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO3,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo4_dk64_dv64")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO4,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_f16_dk64_dv64")]]      kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_F16,     64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo2_dk64_dv64")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO2,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo3_dk64_dv64")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO3,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo4_dk64_dv64")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO4,  64, 64, 2>;
template [[host_name("kernel_flash_attn_ext_vec_f16_q8_0_dk64_dv64")]]      kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_Q8_0,    64, 64, 2>;

template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo2_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO2,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo3_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO3,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo4_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO4,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_q8_0_dk128_dv128")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_Q8_0,    128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_f16_dk128_dv128")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_F16,     128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo2_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO2,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo3_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO3,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo4_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO4,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_q8_0_dk128_dv128")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_Q8_0,    128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_f16_dk128_dv128")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_F16,     128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo2_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO2,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo3_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO3,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo4_dk128_dv128")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO4,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_q8_0_dk128_dv128")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_Q8_0,    128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_f16_dk128_dv128")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_F16,     128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo2_dk128_dv128")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO2,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo3_dk128_dv128")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO3,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo4_dk128_dv128")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO4,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_f16_dk128_dv128")]]      kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_F16,     128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo2_dk128_dv128")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO2,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo3_dk128_dv128")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO3,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo4_dk128_dv128")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO4,  128, 128, 1>;
template [[host_name("kernel_flash_attn_ext_vec_f16_q8_0_dk128_dv128")]]      kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_Q8_0,    128, 128, 1>;

template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo2_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO2,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo3_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO3,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_turbo4_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_TURBO4,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_q8_0_dk256_dv256")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_Q8_0,    256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo2_f16_dk256_dv256")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO2,  K_F16,     256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo2_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO2,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo3_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO3,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_turbo4_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_TURBO4,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_q8_0_dk256_dv256")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_Q8_0,    256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_f16_dk256_dv256")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO3,  K_F16,     256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo2_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO2,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo3_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO3,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_turbo4_dk256_dv256")]] kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_TURBO4,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_q8_0_dk256_dv256")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_Q8_0,    256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_f16_dk256_dv256")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_TURBO4,  K_F16,     256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo2_dk256_dv256")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO2,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo3_dk256_dv256")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO3,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_turbo4_dk256_dv256")]]   kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_TURBO4,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_q8_0_f16_dk256_dv256")]]      kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_Q8_0,    K_F16,     256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo2_dk256_dv256")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO2,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo3_dk256_dv256")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO3,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_f16_turbo4_dk256_dv256")]]    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_TURBO4,  256, 256, 1>;
template [[host_name("kernel_flash_attn_ext_vec_f16_q8_0_dk256_dv256")]]      kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<FA_TYPES, K_F16,     K_Q8_0,    256, 256, 1>;
