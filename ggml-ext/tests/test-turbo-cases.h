// Flash attention over turbo K and V, included by make_test_cases_eval() of test-backend-ops.cpp.

{
    const ggml_type types_turbo[] = { GGML_TYPE_TURBO2, GGML_TYPE_TURBO3, GGML_TYPE_TURBO4 };
    const ggml_type types_kv[]    = { GGML_TYPE_TURBO2, GGML_TYPE_TURBO3, GGML_TYPE_TURBO4, GGML_TYPE_Q8_0, GGML_TYPE_F16, GGML_TYPE_BF16 };

    const auto is_turbo = [](ggml_type type) {
        return type == GGML_TYPE_TURBO2 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO4;
    };

    const auto add = [&](int64_t hsk, int64_t hsv, int64_t nh, std::array<int64_t, 2> nr23, int64_t kv, int64_t nb, bool mask, bool sinks,
                         float max_bias, float logit_softcap, ggml_type type_K, ggml_type type_V,
                         std::array<int32_t, 4> permute = {0, 1, 2, 3}, bool v_is_view_of_k = false) {
        test_cases.emplace_back(new test_flash_attn_ext(
                    hsk, hsv, nh, nr23, kv, nb, mask, sinks, max_bias, logit_softcap, GGML_PREC_F32, type_K, type_V, permute, true, v_is_view_of_k));
    };

    // every pair, decode and prefill, at the head sizes of current models
    for (ggml_type type_K : types_kv) {
        for (ggml_type type_V : types_kv) {
            if (!is_turbo(type_K) && !is_turbo(type_V)) continue;
            for (int64_t hs : { 64, 128, 256 }) {
                for (int64_t nb : { 1, 3, 35 }) {
                    for (int64_t kv : { 113, 512 }) {
                        add(hs, hs, 2, {4, 1}, kv, nb, true, false, 0, 0, type_K, type_V);
                    }
                }
            }
        }
    }

    for (ggml_type type : types_turbo) {
        // GQA ratios, one head, broadcast over dim 3, permuted views as in a KV cache
        for (int64_t nr2 : { 1, 2, 8, 12, 16 }) {
            for (int64_t nb : { 1, 32 }) {
                add(64, 64, 1, {nr2, 1}, 512, nb, true, false, 0, 0, type, type);
                add(128, 128, 2, {nr2, 1}, 1024, nb, true, false, 0, 0, type, type, {0, 2, 1, 3});
            }
        }
        for (int64_t nb : { 1, 3, 75 }) {
            // mask, sinks, ALiBi, softcap
            for (bool mask : { true, false }) {
                for (bool sinks : { true, false }) {
                    add(128, 128, 4, {1, 3}, 113, nb, mask, sinks, mask ? 8.0f : 0.0f, 10.0f, type, type);
                    add(64, 64, 4, {4, 3}, 1024, nb, mask, sinks, 0.0f, 0.0f, type, type);
                }
            }
            // head sizes: other widths, K and V of different size, MLA with V a view of K
            add(192, 192, 2, {8, 1}, 512, nb, true, false, 0, 0, type, type);
            add(192, 128, 2, {8, 1}, 512, nb, true, false, 0, 0, type, type);
            add(320, 256, 1, {32, 1}, 512, nb, true, false, 0, 0, type, type);
            add(512, 512, 2, {4, 1}, 512, nb, true, false, 0, 0, type, type);
            for (int64_t nr2 : { 16, 20, 128 }) {
                add(576, 512, 1, {nr2, 1}, 512, nb, true, false, 0, 0, type, type, {0, 1, 2, 3}, true);
            }
            add(64, 128, 2, {2, 1}, 256, nb, true, false, 0, 0, type, GGML_TYPE_Q8_0);
        }
        // long contexts, lengths that divide by nothing
        for (int64_t kv : { 1, 17, 255, 4096, 16385 }) {
            add(64, 64, 3, {3, 1}, kv, 1, true, false, 0, 0, type, type);
            add(256, 256, 1, {4, 1}, kv, 2, true, false, 0, 0, type, type, {0, 2, 1, 3});
        }
    }
}
