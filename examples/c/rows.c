/* rows.c: quantizes and de-quantizes rows with libturboquant.a, and shows what misuse looks like.
 *
 * From the root of the repository:
 *     cargo build --release --no-default-features --features capi
 *     cc -std=c11 -O2 -Iinclude examples/c/rows.c target/release/libturboquant.a -lpthread -ldl -lm -o rows
 *     ./rows
 *
 * Valid C11 and C++17. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "turboquant.h"

enum { N_ROWS = 256, ROW_LEN = 128 };

/* A unit Gaussian: SplitMix64 and Box-Muller, the same on every machine. */
static double uniform(uint64_t * state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return ((double) ((z ^ (z >> 31)) >> 11) + 0.5) / 9007199254740992.0;
}

static float gaussian(uint64_t * state) {
    const double radius = sqrt(-2.0 * log(uniform(state)));
    return (float) (radius * cos(6.283185307179586 * uniform(state)));
}

/* Ends the program unless a call succeeded. */
static void check(tq_status status) {
    if (status != TQ_OK) {
        fprintf(stderr, "error: %s: %s\n", tq_status_message((int32_t) status), tq_last_error());
        exit(1);
    }
}

/* Ends the program unless a call failed as it should; prints the sentence for the user. */
static void expect(tq_status expected, tq_status status) {
    if (status != expected) {
        fprintf(stderr, "error: status %d where %d was expected\n", (int) status, (int) expected);
        exit(1);
    }
    printf("  %-62s %s\n", tq_status_message((int32_t) status), tq_last_error());
}

/* Quantizes x, de-quantizes it again, and prints the type's rate and relative squared error. */
static void round_trip(uint32_t type, const float * x) {
    size_t row_bytes;
    check(tq_row_bytes(type, ROW_LEN, &row_bytes));

    if (row_bytes != tq_block_bytes(type) * (ROW_LEN / TQ_BLOCK_VALUES)) {
        fprintf(stderr, "error: a row is more than its blocks\n");
        exit(1);
    }

    const size_t n_bytes = N_ROWS * row_bytes;
    void  * rows = malloc(n_bytes);
    float * y    = (float *) malloc(sizeof(float) * N_ROWS * ROW_LEN);
    if (rows == NULL || y == NULL) {
        fprintf(stderr, "error: out of memory\n");
        exit(1);
    }

    uint64_t nonfinite = 0;
    check(tq_quantize_rows(type, x, N_ROWS, ROW_LEN, rows, n_bytes, &nonfinite));
    check(tq_dequantize_rows(type, rows, n_bytes, N_ROWS, ROW_LEN, y));

    double error = 0.0, energy = 0.0;
    for (size_t i = 0; i < (size_t) N_ROWS * ROW_LEN; i++) {
        const double d = (double) x[i] - (double) y[i];
        error  += d * d;
        energy += (double) x[i] * (double) x[i];
    }
    printf("%s: %.2f bits per value, relative error %.5f, %llu values not finite\n", tq_type_name(type),
           8.0 * (double) row_bytes / ROW_LEN, error / energy, (unsigned long long) nonfinite);

    free(rows);
    free(y);
}

/* What happens to values that no float code can hold. */
static void not_finite(void) {
    float    x[TQ_BLOCK_VALUES], y[TQ_BLOCK_VALUES];
    uint8_t  block[34];
    uint64_t nonfinite = 0;
    for (int i = 0; i < TQ_BLOCK_VALUES; i++) {
        x[i] = i % 2 ? 1.0f : -1.0f;
    }
    x[3]  = NAN;
    x[10] = INFINITY;
    check(tq_quantize_rows(TQ_TURBO4, x, 1, TQ_BLOCK_VALUES, block, sizeof block, &nonfinite));
    check(tq_dequantize_rows(TQ_TURBO4, block, sizeof block, 1, TQ_BLOCK_VALUES, y));
    for (int i = 0; i < TQ_BLOCK_VALUES; i++) {
        if (!isfinite(y[i])) {
            fprintf(stderr, "error: value %d is not finite\n", i);
            exit(1);
        }
    }
    printf("turbo4: %llu values not finite, every value decodes to a finite one\n",
           (unsigned long long) nonfinite);
}

static void misuse(const float * x) {
    unsigned char bytes[1024];
    float  y[TQ_BLOCK_VALUES];
    size_t row_bytes;
    printf("misuse:\n");
    expect(TQ_ERROR_UNKNOWN_TYPE, tq_row_bytes(9, ROW_LEN, &row_bytes));
    expect(TQ_ERROR_ROW_LENGTH, tq_row_bytes(TQ_TURBO4, 80, &row_bytes));
    expect(TQ_ERROR_NULL_POINTER, tq_row_bytes(TQ_TURBO4, ROW_LEN, NULL));
    expect(TQ_ERROR_NULL_POINTER, tq_quantize_rows(TQ_TURBO3, NULL, 1, 64, bytes, sizeof bytes, NULL));
    expect(TQ_ERROR_NULL_POINTER, tq_quantize_rows(TQ_TURBO3, x, 1, 64, NULL, sizeof bytes, NULL));
    expect(TQ_ERROR_BUFFER_TOO_SMALL, tq_quantize_rows(TQ_TURBO3, x, 2, 64, bytes, 51, NULL));
    expect(TQ_ERROR_BUFFER_TOO_SMALL, tq_dequantize_rows(TQ_TURBO3, bytes, 25, 1, 64, y));
    expect(TQ_ERROR_TOO_LARGE, tq_quantize_rows(TQ_TURBO2, x, SIZE_MAX / 64, 128, bytes, sizeof bytes, NULL));
    expect(TQ_ERROR_MISALIGNED, tq_dequantize_rows(TQ_TURBO2, bytes, sizeof bytes, 1, 64,
                                                   (float *) (void *) ((char *) y + 1)));
}

int main(void) {
    if (tq_simd_name() == NULL) {
        fprintf(stderr, "error: %s\n", tq_last_error());
        return 1;
    }
    printf("turboquant %s, %s\n", tq_version(), tq_simd_name());

    float * x = (float *) malloc(sizeof(float) * N_ROWS * ROW_LEN);
    if (x == NULL) {
        fprintf(stderr, "error: out of memory\n");
        return 1;
    }
    uint64_t state = 1;
    for (size_t i = 0; i < (size_t) N_ROWS * ROW_LEN; i++) {
        x[i] = gaussian(&state);
    }

    round_trip(TQ_TURBO2, x);
    round_trip(TQ_TURBO3, x);
    round_trip(TQ_TURBO4, x);
    not_finite();
    misuse(x);

    free(x);
    return 0;
}
