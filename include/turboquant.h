/*
 * turboquant.h: KV-cache types turbo2, turbo3 and turbo4 (2.25, 3.25 and 4.25 bits a value).
 *
 * C11 and C++17. Link with libturboquant.a, -lpthread, -ldl and -lm. docs/format.md specifies the blocks,
 * examples/c/rows.c uses every function. All functions are safe to call from many threads.
 *
 * Generated from src/capi by cbindgen; do not edit.
 */

#ifndef TURBOQUANT_H
#define TURBOQUANT_H

#include <stddef.h>
#include <stdint.h>

// Values in a block. A row is a whole number of blocks.
#define TQ_BLOCK_VALUES 64

// What became of a call. 0 is success; numbers never change their meaning.
typedef enum tq_status {
    // Done.
    TQ_OK = 0,
    // A pointer is NULL although there is something to read or write.
    TQ_ERROR_NULL_POINTER = 1,
    // A pointer is not aligned for what it points to.
    TQ_ERROR_MISALIGNED = 2,
    // The type is none of tq_type.
    TQ_ERROR_UNKNOWN_TYPE = 3,
    // The length of a row is not a multiple of TQ_BLOCK_VALUES.
    TQ_ERROR_ROW_LENGTH = 4,
    // A buffer has too few bytes.
    TQ_ERROR_BUFFER_TOO_SMALL = 5,
    // The rows would not fit the address space.
    TQ_ERROR_TOO_LARGE = 6,
    // A defect in this library, or TQ_SIMD asks for what the processor cannot do.
    TQ_ERROR_INTERNAL = 7,
} tq_status;

// The types, named by their index bits a value.
typedef enum tq_type {
    // 2.25 bits a value: 18 bytes a block.
    TQ_TURBO2 = 2,
    // 3.25 bits a value: 26 bytes a block.
    TQ_TURBO3 = 3,
    // 4.25 bits a value: 34 bytes a block.
    TQ_TURBO4 = 4,
} tq_type;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What a status means, in English, without the numbers of a particular call; never NULL.
//
// status: any number; one that is no tq_status gives "unknown status".
const char *tq_status_message(int32_t status);

// Why this thread's latest failed call failed, with the offending numbers and the way out.
//
// "" before the first failure; never NULL. A success leaves it as it is. The text is valid until
// the thread's next failing call or its end.
const char *tq_last_error(void);

// Version of the library, such as "0.1.0".
const char *tq_version(void);

// The instructions in use, such as "avx2" or "neon"; "scalar" where there are none to use.
//
// The environment variable TQ_SIMD forces one. NULL if it asks for what the processor cannot do;
// tq_last_error then says what it can.
const char *tq_simd_name(void);

// Name of a type, such as "turbo4", as in llama.cpp's -ctk and -ctv. NULL if there is no such type.
const char *tq_type_name(uint32_t type);

// Bytes of a block: 18, 26 or 34. 0 if there is no such type.
size_t tq_block_bytes(uint32_t type);

// Bytes of a row of row_len values.
//
// type: a tq_type, here and below.
// row_len: a multiple of TQ_BLOCK_VALUES.
// row_bytes: where the number goes; left alone on an error.
//
// `row_bytes` is null or valid for a write.
enum tq_status tq_row_bytes(uint32_t type, size_t row_len, size_t *row_bytes);

// Quantizes n_rows rows of row_len floats, one after the other at x, to blocks at dst.
//
// Nothing is rotated here. The error is least for values whose energy is spread evenly, as a rotation
// leaves them.
// Any floats can be coded: NaNs and infinities count as 0, and the scale of a block of huge values
// is cut at the largest that half precision holds.
// One thread does the work; give it ranges of rows to use more.
//
// row_len: a multiple of TQ_BLOCK_VALUES.
// x: n_rows * row_len floats. Must not overlap dst.
// dst: at least n_rows * tq_row_bytes bytes, of any alignment; dst_bytes says how many there are.
// nonfinite: raised by the number of NaNs and infinities in x. May be NULL.
//
// Pointers are null or valid for what is said above.
enum tq_status tq_quantize_rows(uint32_t type,
                                const float *x,
                                size_t n_rows,
                                size_t row_len,
                                void *dst,
                                size_t dst_bytes,
                                uint64_t *nonfinite);

// De-quantizes n_rows rows of row_len values, one after the other at src, to floats at x.
//
// Any bytes decode to something; only bytes that no encoder writes (a scale of NaN or infinity)
// decode to floats that are not finite.
//
// row_len: a multiple of TQ_BLOCK_VALUES.
// src: at least n_rows * tq_row_bytes bytes, of any alignment; src_bytes says how many there are.
// x: room for n_rows * row_len floats. Must not overlap src.
//
// Pointers are null or valid for what is said above.
enum tq_status tq_dequantize_rows(uint32_t type,
                                  const void *src,
                                  size_t src_bytes,
                                  size_t n_rows,
                                  size_t row_len,
                                  float *x);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TURBOQUANT_H */
