#include "llama-kv-capture.h"

#include "ggml-backend.h"
#include "llama-impl.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>

// the bytes of a tensor, a view or not, from its first element to its last
static std::vector<uint8_t> bytes_of(const ggml_tensor * t) {
    std::vector<uint8_t> res(ggml_nbytes(t));
    ggml_backend_tensor_get(t, res.data(), 0, res.size());
    return res;
}

template<typename T>
static const T * at(const std::vector<uint8_t> & data, const ggml_tensor * t, int64_t i1, int64_t i2) {
    return (const T *) (data.data() + i1*t->nb[1] + i2*t->nb[2]);
}

// flash attention has [n_embd_head, n, n_head]: the first n rows as [n][n_head][n_embd_head]
template<typename T>
static std::vector<T> by_token(const ggml_tensor * t, int64_t n) {
    const auto data = bytes_of(t);

    std::vector<T> res;
    res.reserve(n*t->ne[2]*t->ne[0]);
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t h = 0; h < t->ne[2]; ++h) {
            const T * row = at<T>(data, t, i, h);
            res.insert(res.end(), row, row + t->ne[0]);
        }
    }
    return res;
}

static void expect(bool ok, const char * what, const ggml_tensor * t) {
    if (!ok) {
        throw std::runtime_error(format("unexpected %s in %s: %s [%d, %d, %d, %d]", what, t->name, ggml_type_name(t->type),
                (int) t->ne[0], (int) t->ne[1], (int) t->ne[2], (int) t->ne[3]));
    }
}

void llama_kv_capture::begin(uint32_t pos, uint32_t n_batch) {
    this->pos     = pos;
    this->n_batch = n_batch;
    n_layers = 0;
    n_seen.clear();
}

void llama_kv_capture::check() const {
    if (error) {
        std::rethrow_exception(error);
    }
}

bool llama_kv_capture::callback(ggml_tensor * t, bool ask, void * user_data) {
    if (ask) {
        return t->op == GGML_OP_FLASH_ATTN_EXT;
    }
    auto * self = (llama_kv_capture *) user_data;
    if (t->op != GGML_OP_FLASH_ATTN_EXT) {
        return true;
    }
    try {
        self->see(t);
        self->on_layer(self->pos, self->n_batch, ++self->n_layers);
    } catch (...) {
        self->error = std::current_exception();
    }
    return !self->error;
}

void llama_kv_capture::see(const ggml_tensor * t) {
    const ggml_tensor * q    = t->src[0];
    const ggml_tensor * k    = t->src[1];
    const ggml_tensor * v    = t->src[2];
    const ggml_tensor * mask = t->src[3];

    // "cache_k_l3 (view) (permuted)", or a copy of it on another device; what is not of the cache, or another's, is not
    // scaled
    const char * name = strstr(k->name, "cache_k_l");
    unsigned il;
    if (!name || sscanf(name, "cache_k_l%u", &il) != 1) {
        return;
    }

    expect(q->type == GGML_TYPE_F32 && q->ne[1] == n_batch && q->ne[3] == 1, "queries", q);
    expect(k->type == GGML_TYPE_F16 && k->ne[1] >= pos + n_batch, "keys", k);
    expect(v->type == GGML_TYPE_F16 && v->ne[1] >= pos + n_batch, "values", v);
    expect(mask && mask->type == GGML_TYPE_F16 && mask->ne[0] == k->ne[1] && mask->ne[2] == 1, "mask", mask ? mask : t);

    auto & layer = res[il];
    const uint32_t i_set = n_seen[il]++;
    if (layer.queries.size() <= i_set) {
        layer.queries.resize(i_set + 1);
    }
    auto & set = layer.queries[i_set];

    float op_params[3];
    memcpy(op_params, t->op_params, sizeof(op_params));

    set.n_head      = q->ne[2];
    set.n_embd_head = q->ne[0];
    set.scale       = op_params[0];
    set.max_bias    = op_params[1];
    set.softcap     = op_params[2];
    if (t->src[4]) {
        const auto data = bytes_of(t->src[4]);
        set.sinks.assign((const float *) data.data(), (const float *) data.data() + set.n_head);
    }

    const auto q_data    = by_token<float>(q, n_batch);
    const auto mask_data = bytes_of(mask);
    const size_t n_q_row = q->ne[0]*q->ne[2];
    for (uint32_t i = 0; i < n_batch; ++i) {
        if ((pos + i) % stride != stride - 1) {
            continue;
        }
        set.q.insert(set.q.end(), q_data.begin() + i*n_q_row, q_data.begin() + (i + 1)*n_q_row);

        const auto * row = at<ggml_fp16_t>(mask_data, mask, i, 0);
        for (uint32_t j = 0; j < n_tokens; ++j) {
            set.mask.push_back(j < mask->ne[0] ? ggml_fp16_to_fp32(row[j]) : -INFINITY);
        }
    }

    if (pos + n_batch == n_tokens && i_set == 0) {
        layer.n_head_kv     = k->ne[2];
        layer.n_embd_head_k = k->ne[0];
        layer.n_embd_head_v = v->ne[0];
        layer.k = by_token<ggml_fp16_t>(k, n_tokens);
        layer.v = by_token<ggml_fp16_t>(v, n_tokens);
    }
}
