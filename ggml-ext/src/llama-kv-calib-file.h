// The file of a calibration: a small GGUF with the key scales of every KV layer and the fingerprint of their model.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct llama_model;

struct llama_kv_calib_file {
    // of the format
    static constexpr uint32_t VERSION = 1;

    struct layer_t {
        std::vector<float> scale; // [n_head_kv][n_embd_head_k]

        // of attention's output with turbo3 keys, relative to its energy, mean over heads: as predicted when it was made
        float error_without = 0.0f;
        float error_with    = 0.0f;
    };

    uint32_t n_tokens = 0; // that it was made with

    std::map<uint32_t, layer_t> layers; // by layer of the model

    // of the scales' values
    uint64_t id() const;

    // throw std::runtime_error with what is wrong and the way out
    static llama_kv_calib_file read(const llama_model & model, const std::string & path);

    // the same where the model's fingerprint is known. the model may be without its weights
    static llama_kv_calib_file read(const llama_model & model, uint64_t fingerprint, const std::string & path);

    // a file that was there stays as it was if this fails
    void write(const llama_model & model, const std::string & path) const;
};

// The same for every quantization of a model: its shape, and the weights that no quantization touches.
// throws std::runtime_error if the model has no weights, or no keys
uint64_t llama_kv_fingerprint(const llama_model & model);

// The same of a model that was loaded without its weights, of which those that count are read from its file.
// throws std::runtime_error if they cannot be read, or the model has no keys
uint64_t llama_kv_fingerprint(const llama_model & model, const std::string & path);

// FNV-1a, 64 bits
uint64_t llama_kv_hash(uint64_t hash, const void * data, size_t size);

constexpr uint64_t LLAMA_KV_HASH_INIT = 0xcbf29ce484222325ull;
