// Key anchors on the CPU back end: keys less the rows of a table, in one pass instead of two operators.
//
// A token's keys are a few hundred values: each operator's barrier takes longer than its work.

#include "turbo.h"

#include "ggml-cpu-impl.h"
#include "simd-mappings.h"

static bool fits(const ggml_tensor * rows, const ggml_tensor * sub) {
    const ggml_tensor * keys  = sub->src[0];
    const ggml_tensor * table = rows->src[0];

    return sub->src[1] == rows && keys != rows &&
        ggml_is_matrix(rows) && ggml_are_same_shape(keys, rows) &&
        table->type == GGML_TYPE_F16 && table->nb[0] == sizeof(ggml_fp16_t) &&
        keys ->type == GGML_TYPE_F32 && keys ->nb[0] == sizeof(float) &&
        sub  ->type == GGML_TYPE_F32 && sub  ->nb[0] == sizeof(float);
}

bool ggml_turbo_sub_rows(const ggml_compute_params * params, const ggml_tensor * rows, ggml_tensor * sub) {
    if (!fits(rows, sub)) {
        return false;
    }
    const ggml_tensor * keys  = sub->src[0];
    const ggml_tensor * table = rows->src[0];
    const ggml_tensor * ids   = rows->src[1];

    const int64_t n     = keys->ne[1];
    const int64_t first = n* params->ith     /params->nth;
    const int64_t end   = n*(params->ith + 1)/params->nth;

    for (int64_t i = first; i < end; ++i) {
        const int32_t id = *(const int32_t *) ((const char *) ids->data + i*ids->nb[0]);
        GGML_ASSERT(id >= 0 && id < table->ne[1]);

        const float       * x = (const float       *) ((const char *) keys ->data + i *keys ->nb[1]);
        const ggml_fp16_t * m = (const ggml_fp16_t *) ((const char *) table->data + id*table->nb[1]);
        float             * y = (float             *) ((char       *) sub  ->data + i *sub  ->nb[1]);

        for (int64_t j = 0; j < keys->ne[0]; ++j) {
            y[j] = x[j] - GGML_CPU_FP16_TO_FP32(m[j]);
        }
    }
    return true;
}
