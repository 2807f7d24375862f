// Writing and attention by types of the KV cache, included by make_test_cases_perf() of test-backend-ops.cpp: one layer of a
// model with 32 heads and 8 KV heads of 128, at decoding (1 token) and prefill (512).

{
    // keys or values of the new tokens
    for (ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_TURBO2, GGML_TYPE_TURBO3, GGML_TYPE_TURBO4 }) {
        for (int n_tokens : { 1, 512 }) {
            test_cases.emplace_back(new test_set_rows(GGML_TYPE_F32, type, GGML_TYPE_I64, { 8*128, 4096, 1, 1 }, { 1, 1 }, n_tokens));
        }
    }

    const ggml_type pairs[][2] = {
        { GGML_TYPE_F16,    GGML_TYPE_F16    },
        { GGML_TYPE_Q8_0,   GGML_TYPE_Q8_0   },
        { GGML_TYPE_Q4_0,   GGML_TYPE_Q4_0   },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO4 },
        { GGML_TYPE_TURBO4, GGML_TYPE_TURBO2 },
        { GGML_TYPE_TURBO3, GGML_TYPE_TURBO3 },
    };
    for (int64_t kv : { 4096, 32768 }) {
        for (int64_t n_tokens : { 1, 512 }) {
            for (const auto & pair : pairs) {
                test_cases.emplace_back(new test_flash_attn_ext(
                            128, 128, 8, {4, 1}, kv, n_tokens, true, false, 0, 0, GGML_PREC_F32, pair[0], pair[1], {0, 2, 1, 3}));
            }
        }
    }
}
