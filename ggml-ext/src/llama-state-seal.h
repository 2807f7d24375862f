// The head of a saved state: how long the state is, and a checksum of it. A state that is cut off or damaged is refused
// before any of it is taken.
//
// The checksum is XXH64, of xxHash in llama.cpp's vendor/.

#pragma once

#include "llama.h"

#include <cstddef>
#include <cstdint>
#include <memory>

struct llama_file;

// set in the version of a file whose state has a head
#define LLAMA_STATE_SEALED 0x74710000u

// what a state begins with
struct llama_state_head {
    uint8_t  magic[8];
    uint64_t n_bytes; // of the state that follows
    uint64_t body;    // checksum of them
    uint64_t head;    // checksum of what a file has before its state, and of the fields above
};

// a checksum in the making
class llama_state_hash {
public:
    llama_state_hash();
    ~llama_state_hash();

    void     update(const void * data, size_t size);
    uint64_t digest() const;

private:
    struct impl;
    std::unique_ptr<impl> pimpl;
};

//
// states in memory
//

// Leaves room for the head of a state, and writes it when it goes out of scope, by which time the state has to be there.
class llama_state_seal {
public:
    // dst, size: moved behind the head
    llama_state_seal(uint8_t *& dst, size_t & size);
    ~llama_state_seal();

    llama_state_seal(const llama_state_seal &) = delete;
    llama_state_seal & operator=(const llama_state_seal &) = delete;

    // the state has n bytes; returns how many it has with its head
    size_t done(size_t n);

private:
    uint8_t * start;
    size_t    n_body = 0;
};

// Checks a state and moves src and size to what follows its head. n_head: bytes of the head, 0 if there is none, as in
// states that upstream's llama.cpp wrote. Returns false, and the reason in the log, if the state is damaged
bool llama_state_open(const uint8_t *& src, size_t & size, size_t & n_head);

// n bytes of a state have been read: returns how many they are with its head. Throws if that is not all of it
size_t llama_state_close(size_t n, size_t size, size_t n_head);

//
// states in files
//

// Leaves room for the head at the place where a file is being written, and fills it in when the state is there.
class llama_state_file_seal {
public:
    // what has been written: magic, version, and the tokens with their number
    llama_state_file_seal(llama_file & file, uint32_t magic, uint32_t version, const llama_token * tokens, size_t n_tokens);

    // to be given all bytes of the state
    llama_state_hash body;

    // throws if the file cannot be written
    void done(size_t n_bytes);

private:
    llama_file     & file;
    size_t           offset;
    llama_state_hash before;
};

// whether a file has the version that is wanted, with a head or without
bool llama_state_is_version(uint32_t version, uint32_t wanted);

// Checks a file of n_tokens tokens, which has been read up to them. n_head: bytes of the head, which follows the tokens.
// Returns false, and the reason in the log, if the file is damaged; throws if it cannot be read
bool llama_state_check_file(llama_file & file, size_t n_tokens, size_t & n_head);
