// Key anchors. The K cache holds K - m, where the anchor m is a vector that a run of cells shares, and attention
// adds q.m back to the logits. That is exact whatever m is. m is the mean of the keys around: what keys have in
// common is then not quantized, and what is left has a fraction of the energy. docs/keys.md in llama-turboquant.
//
// Every cell has the number of its anchor, so that sequences, ring buffers and freed cells need no order. The
// numbers are kept on the host; the anchors of a layer are a table beside its K tensor.

#pragma once

#include "llama-graph.h"
#include "llama-kv-cells.h"

#include <utility>
#include <vector>

class llama_io_read_i;
class llama_io_write_i;
class llama_kv_cache;

class llama_kv_anchors {
public:
    // cells that share an anchor, if there are anchors enough: F16 anchors then cost 16/64 bits per key value
    static constexpr uint32_t N_RUN = 64;

    using cell_idxs_t = std::vector<uint32_t>;

    llama_kv_anchors(uint32_t n_cells, uint32_t n_stream);

    // the anchors of a layer: F16 [n_embd_k_gqa, n_rows, n_stream]
    ggml_tensor * new_table(ggml_context * ctx, int64_t n_embd_k_gqa, const char * name_tag, int32_t il) const;

    //
    // the anchors of a ubatch, decided before its graph is built
    //

    // key i_key's part in new anchor i_new
    struct weight_t {
        uint32_t i_new;
        uint32_t i_key;
        float    w;
    };

    struct plan_t {
        uint32_t worst_n_seqs = 0; // not 0: the worst plan

        // the anchor of every token
        std::vector<int32_t>  tok_rows;  // [n_tokens]

        // anchors to make: sums of the ubatch's keys and of keys that are in the cache
        std::vector<int64_t>  new_rows;  // [n_new]
        std::vector<weight_t> tok_w;
        std::vector<int32_t>  old_cells; // [n_old]
        std::vector<weight_t> old_w;
    };

    // gives every token of the ubatch an anchor. its cells are already set
    //   strm, idxs: where the tokens are, stream by stream
    void plan(const llama_kv_cells_vec & v_cells, const std::vector<llama_seq_id> & strm, const std::vector<cell_idxs_t> & idxs, const llama_ubatch & ubatch);

    // no plan of a ubatch of up to n_seqs sequences is larger: only the shapes of a graph count
    void plan_worst(uint32_t n_seqs);

    const plan_t & get_plan() const { return cur; }

    // anchors to make for a ubatch of n_tokens, and keys of the cache that go into them
    uint32_t n_new(uint32_t n_tokens) const;
    uint32_t n_old(uint32_t n_tokens) const;

    // the anchor of a cell, 0 if it has none, and its row among those of all streams
    int32_t id (uint32_t strm, uint32_t cell) const;
    int32_t row(uint32_t strm, uint32_t cell) const;

    // the anchors of a stream's first n cells, for attention
    void append_ids(std::vector<int32_t> & ids, uint32_t strm, uint32_t n) const;

    uint32_t get_n_cells() const { return n_cells; }
    uint32_t get_n_rows()  const { return n_rows; }

    //
    // operations of the cache
    //

    void clear();
    void copy_stream(uint32_t ssrc, uint32_t sdst);

    // positions change: no anchor serves again
    void forget_starts();

    // for each row of all streams, the shift of its cells
    std::vector<int32_t> row_shifts(const llama_kv_cells_vec & v_cells) const;

    // ranges: the cells that are written, from inclusive, to exclusive; tables: of all layers
    void state_write(llama_io_write_i & io, uint32_t strm, const std::vector<std::pair<uint32_t, uint32_t>> & ranges, const std::vector<ggml_tensor *> & tables) const;
    // cells: where they go. false, and the reason in the log, if the state is damaged.
    // a state may bring more anchors than are free: some of its cells then wait for being measured from another
    bool state_read (llama_io_read_i  & io, uint32_t strm, const cell_idxs_t & cells, const std::vector<ggml_tensor *> & tables, const llama_kv_cells_vec & v_cells);

    // cells that wait, once their keys are in the cache
    struct moved_t {
        uint32_t    strm;
        int32_t     row;   // where they are measured from now
        cell_idxs_t cells;
        std::vector<std::vector<ggml_fp16_t>> from; // and where they were, for every table
    };

    // to be measured from elsewhere, or, if the restore failed, forgotten
    std::vector<moved_t> take_moved() { return std::exchange(moved, {}); }

private:
    struct run_t {
        uint32_t n   = 0; // cells that have been written
        uint32_t cap = 0; // and how many may be

        // where it began, if its anchor is of the keys before and may serve again. -1: nowhere
        llama_seq_id seq  = -1;
        llama_pos    pos  = -1;
        int32_t      prev = -1; // row of the cell before
    };

    struct stream_t {
        std::vector<int32_t> id;   // [n_cells], -1: none
        std::vector<run_t>   run;  // [n_rows]
    };

    const uint32_t n_cells;
    const uint32_t n_rows;

    std::vector<stream_t> streams;

    plan_t cur;

    std::vector<moved_t> moved;

    // cells of the ubatch that is being planned
    std::vector<bool> is_new;

    bool warned = false; // that rows ran out

    // tokens of one sequence, in order
    struct seq_tokens;

    void     plan_seq(const llama_kv_cells & cells, const seq_tokens & toks);
    bool     is_sink (const llama_kv_cells & cells, const stream_t & st, uint32_t cell) const;
    int32_t  free_row(const stream_t & st) const;
    int32_t  same_row(const stream_t & st, llama_seq_id seq, llama_pos pos, int32_t prev) const;
    void     recount (const llama_kv_cells & cells, stream_t & st) const;
    uint32_t run_len (const stream_t & st, uint32_t cell) const;
};

// the inputs of a graph that reads or writes the anchors of one cache
class llm_graph_input_k_anchors : public llm_graph_input_i {
public:
    llm_graph_input_k_anchors(const llama_kv_cache * kv, const llama_kv_anchors * anchors) : kv(kv), anchors(anchors) {}

    // that of this graph, made when it is asked for first
    static llm_graph_input_k_anchors * get(llm_graph_result * res, const llama_kv_cache * kv, const llama_kv_anchors * anchors);

    // k_cur - its anchors, which are made first if they are new
    //   k, table: of the layer; k_cur: [n_embd_head, n_head_k, n_tokens]
    ggml_tensor * subtract(ggml_context * ctx, ggml_cgraph * gf, ggml_tensor * table, ggml_tensor * k, ggml_tensor * k_cur);

    // what attention to the first n_kv cells of streams s0 .. s1 adds
    llama_kv_anchor_terms terms(ggml_context * ctx, ggml_tensor * table, uint32_t n_kv, uint32_t s0, uint32_t s1);

    void set_input(const llama_ubatch * ubatch) override;
    bool can_reuse(const llm_graph_params & params) override;

private:
    const llama_kv_cache   * kv;
    const llama_kv_anchors * anchors;

    // writing
    ggml_tensor * tok_rows  = nullptr; // I32 [n_tokens]
    ggml_tensor * new_rows  = nullptr; // I64 [n_new], null: no anchors to make
    ggml_tensor * tok_w     = nullptr; // F32 [n_tokens, n_new]
    ggml_tensor * old_cells = nullptr; // I32 [n_old], null: none
    ggml_tensor * old_rows  = nullptr; // I32 [n_old]
    ggml_tensor * old_w     = nullptr; // F32 [n_old, n_new]

    // reading
    ggml_tensor * cell_ids  = nullptr; // I32 [n_kv, n_stream]
    uint32_t      s0        = 0;
    uint32_t      s1        = 0;

    void build_write(ggml_context * ctx, int64_t n_tokens);
    void build_read (ggml_context * ctx, uint32_t n_kv, uint32_t s0, uint32_t s1);
};
