// The blocks of the turbo types. Included by ggml-common.h.
//
// A block is 64 values: an f16 scale and K planes of 64 bits (K = 2, 3, 4). Bit e of every plane
// belongs to value e. Plane 0 is the path of a 64-state tail-biting trellis, the others are the bits
// of the index, least significant first. docs/format.md in llama-turboquant specifies the decoder.

#define QK_TURBO 64

typedef struct {
    ggml_half d;                     // scale
    uint8_t   planes[2*QK_TURBO/8]; // 2 planes of 64 bits, little-endian
} block_turbo2;
static_assert(sizeof(block_turbo2) == sizeof(ggml_half) + 2*QK_TURBO/8, "wrong turbo2 block size/padding");

typedef struct {
    ggml_half d;
    uint8_t   planes[3*QK_TURBO/8];
} block_turbo3;
static_assert(sizeof(block_turbo3) == sizeof(ggml_half) + 3*QK_TURBO/8, "wrong turbo3 block size/padding");

typedef struct {
    ggml_half d;
    uint8_t   planes[4*QK_TURBO/8];
} block_turbo4;
static_assert(sizeof(block_turbo4) == sizeof(ggml_half) + 4*QK_TURBO/8, "wrong turbo4 block size/padding");
