// What a saved state brings into a cache is checked: rows with values that are not finite would spread to other
// sequences, and K and V that are rotated otherwise than the context's would be read as noise.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

class  llama_io_read_i;
struct ggml_tensor;

// Reads `size` bytes of a tensor, which are rows (of cells) of size_row bytes from row `first` on. Throws, and the reason
// in the log, if a value is not finite
//   what: "K of layer 3"; row: what a row is, "cell"
void llama_kv_state_read(llama_io_read_i & io, ggml_tensor * tensor, size_t offset, size_t size,
        size_t size_row, size_t first, const std::string & what, const char * row = "cell");

// false, and the reason in the log, if a row has a value that is not finite; for rows that io does not read as tensors
bool llama_kv_state_check_row(int type, const void * data, size_t size, const std::string & what, const char * row, size_t i);

// in the number of layers that a state of a cache begins with: whether K and V are rotated, and that it is known
#define LLAMA_KV_STATE_ROT_KNOWN 0x20000000u
#define LLAMA_KV_STATE_ROT_K     0x10000000u
#define LLAMA_KV_STATE_ROT_V     0x08000000u
#define LLAMA_KV_STATE_ROT       (LLAMA_KV_STATE_ROT_KNOWN | LLAMA_KV_STATE_ROT_K | LLAMA_KV_STATE_ROT_V)

uint32_t llama_kv_state_rotation(bool rot_k, bool rot_v);

// false, and the reason in the log, unless a state has K and V rotated as the cache has them
//   flags: of the state; quantized: whether K or V of any layer is
bool llama_kv_state_check_rotation(uint32_t flags, bool rot_k, bool rot_v, bool quantized);

// the same of K or V alone, where states have the sizes of rotations, 0 for none
bool llama_kv_state_check_rotation(const char * name, uint32_t n_rot_state, uint32_t n_rot);
