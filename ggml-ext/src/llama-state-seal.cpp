#include "llama-state-seal.h"

#include "llama-impl.h"
#include "llama-mmap.h"

#define XXH_INLINE_ALL
#include "../vendor/hash/xxhash/xxhash.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

// set beside a version of upstream's
static_assert((LLAMA_SESSION_VERSION & LLAMA_STATE_SEALED) == 0, "the version of sessions reaches the mark of a seal");
static_assert((LLAMA_STATE_SEQ_VERSION & LLAMA_STATE_SEALED) == 0, "the version of sequences reaches the mark of a seal");

static const uint8_t MAGIC[8] = { 't', 'q', 's', 't', 'a', 't', 'e', '1' };

static constexpr size_t N_HEAD = sizeof(llama_state_head);
static_assert(N_HEAD == 32, "the head has no padding");

// bytes of the head that its own checksum covers
static constexpr size_t N_HASHED = offsetof(llama_state_head, head);

struct llama_state_hash::impl {
    XXH64_state_t state;
};

llama_state_hash::llama_state_hash() : pimpl(std::make_unique<impl>()) {
    XXH64_reset(&pimpl->state, 0);
}

llama_state_hash::~llama_state_hash() = default;

void llama_state_hash::update(const void * data, size_t size) {
    if (size > 0) {
        XXH64_update(&pimpl->state, data, size);
    }
}

uint64_t llama_state_hash::digest() const {
    return XXH64_digest(&pimpl->state);
}

// before: the checksum of what a file has before its state, to be gone on with
static llama_state_head make_head(llama_state_hash & before, size_t n_bytes, uint64_t body) {
    llama_state_head head;
    memcpy(head.magic, MAGIC, sizeof(MAGIC));
    head.n_bytes = n_bytes;
    head.body    = body;
    before.update(&head, N_HASHED);
    head.head = before.digest();
    return head;
}

// false, and the reason in the log, unless the head itself is whole and the state is there
static bool check_head(const llama_state_head & head, llama_state_hash & before, size_t n_rest) {
    before.update(&head, N_HASHED);
    if (memcmp(head.magic, MAGIC, sizeof(MAGIC)) != 0 || before.digest() != head.head) {
        LLAMA_LOG_ERROR("%s: the state is damaged: the checksum of its head does not match\n", __func__);
        return false;
    }
    if (head.n_bytes > n_rest) {
        LLAMA_LOG_ERROR("%s: the state is cut off: %zu of %llu bytes are there\n", __func__, n_rest, (unsigned long long) head.n_bytes);
        return false;
    }
    return true;
}

static bool check_body(const llama_state_head & head, uint64_t body) {
    if (body != head.body) {
        LLAMA_LOG_ERROR("%s: the state is damaged: the checksum of its %llu bytes does not match\n", __func__, (unsigned long long) head.n_bytes);
        return false;
    }
    return true;
}

//
// states in memory
//

llama_state_seal::llama_state_seal(uint8_t *& dst, size_t & size) : start(dst) {
    if (size < N_HEAD) {
        size = 0; // the first write fails
        return;
    }
    dst  += N_HEAD;
    size -= N_HEAD;
}

llama_state_seal::~llama_state_seal() {
    if (n_body > 0) {
        llama_state_hash before;
        const llama_state_head head = make_head(before, n_body, XXH64(start + N_HEAD, n_body, 0));
        memcpy(start, &head, N_HEAD);
    }
}

size_t llama_state_seal::done(size_t n) {
    n_body = n;
    return n > 0 ? N_HEAD + n : 0;
}

bool llama_state_open(const uint8_t *& src, size_t & size, size_t & n_head) {
    n_head = 0;
    if (size < sizeof(MAGIC) || memcmp(src, MAGIC, sizeof(MAGIC)) != 0) {
        return true;
    }
    if (size < N_HEAD) {
        LLAMA_LOG_ERROR("%s: the state is cut off: %zu bytes are there, less than its head has\n", __func__, size);
        return false;
    }
    llama_state_head head;
    memcpy(&head, src, N_HEAD);
    llama_state_hash before;
    if (!check_head(head, before, size - N_HEAD) || !check_body(head, XXH64(src + N_HEAD, head.n_bytes, 0))) {
        return false;
    }
    n_head = N_HEAD;
    src   += N_HEAD;
    size   = head.n_bytes;
    return true;
}

size_t llama_state_close(size_t n, size_t size, size_t n_head) {
    if (n_head > 0 && n != size) {
        throw std::runtime_error(format("the state has %zu bytes, of which this context reads %zu: it is of another model", size, n));
    }
    return n_head + n;
}

//
// states in files
//

static void hash_start(llama_state_hash & hash, uint32_t magic, uint32_t version, const llama_token * tokens, size_t n_tokens) {
    const uint32_t start[3] = { magic, version, (uint32_t) n_tokens };
    hash.update(start, sizeof(start));
    hash.update(tokens, n_tokens*sizeof(llama_token));
}

llama_state_file_seal::llama_state_file_seal(llama_file & file, uint32_t magic, uint32_t version, const llama_token * tokens, size_t n_tokens)
    : file(file), offset(file.tell()) {
    hash_start(before, magic, version, tokens, n_tokens);
    const llama_state_head room = {};
    file.write_raw(&room, N_HEAD);
}

void llama_state_file_seal::done(size_t n_bytes) {
    const llama_state_head head = make_head(before, n_bytes, body.digest());
    file.seek(offset, SEEK_SET);
    file.write_raw(&head, N_HEAD);
    file.seek(0, SEEK_END);
}

bool llama_state_is_version(uint32_t version, uint32_t wanted) {
    return version == wanted || version == (wanted | LLAMA_STATE_SEALED);
}

// the checksum of the next n bytes
static void hash_file(llama_state_hash & hash, llama_file & file, size_t n) {
    std::vector<uint8_t> buf(std::min<size_t>(n, 1 << 20));
    while (n > 0) {
        const size_t n_cur = std::min(n, buf.size());
        file.read_raw(buf.data(), n_cur);
        hash.update(buf.data(), n_cur);
        n -= n_cur;
    }
}

bool llama_state_check_file(llama_file & file, size_t n_tokens, size_t & n_head) {
    n_head = 0;
    const size_t start = file.tell();
    file.seek(sizeof(uint32_t), SEEK_SET); // behind the magic
    const uint32_t version = file.read_u32();
    file.seek(start, SEEK_SET);

    const size_t n_rest = file.size() - start;
    const size_t n_tok  = n_tokens*sizeof(llama_token);
    const size_t n_need = n_tok + (version & LLAMA_STATE_SEALED ? N_HEAD : 0);
    if (n_rest < n_need) {
        LLAMA_LOG_ERROR("%s: the file is cut off or damaged: it says that it has %zu tokens, but has %zu bytes in all\n", __func__, n_tokens, file.size());
        return false;
    }
    if (!(version & LLAMA_STATE_SEALED)) {
        return true;
    }

    llama_state_hash before;
    file.seek(0, SEEK_SET);
    hash_file(before, file, start + n_tok);
    llama_state_head head;
    file.read_raw(&head, N_HEAD);
    if (!check_head(head, before, n_rest - n_need)) {
        return false;
    }
    if (head.n_bytes < n_rest - n_need) {
        LLAMA_LOG_ERROR("%s: the file is damaged: %zu bytes follow its state\n", __func__, (size_t) (n_rest - n_need - head.n_bytes));
        return false;
    }
    llama_state_hash body;
    hash_file(body, file, head.n_bytes);
    file.seek(start, SEEK_SET);
    if (!check_body(head, body.digest())) {
        return false;
    }
    n_head = N_HEAD;
    return true;
}
