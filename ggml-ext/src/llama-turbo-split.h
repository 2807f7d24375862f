// How a batch of several sequences is cut into ubatches when their embeddings are wanted.

#pragma once

#include "llama-batch.h"

#include <algorithm>

// What is pooled is what one ubatch has of a sequence. split_equal takes as many tokens of each sequence as the shortest
// one has, so that a longer one would be pooled from its last part alone. split_seq takes whole sequences, up to n_ubatch
// tokens: upstream does so in recurrent and hybrid caches.
//   sequential: the cache has a stream for each sequence
static inline llama_ubatch llama_turbo_split(llama_batch_allocr & balloc, uint32_t n_ubatch, bool sequential, bool embd_all) {
    const llama_batch & batch = balloc.get_batch();

    // split_equal refuses tokens that several sequences share where each has a stream of its own
    const bool coupled = std::any_of(batch.n_seq_id, batch.n_seq_id + batch.n_tokens, [](int32_t n) { return n > 1; });

    return embd_all && !(sequential && coupled) ? balloc.split_seq(n_ubatch) : balloc.split_equal(n_ubatch, sequential, 0);
}
