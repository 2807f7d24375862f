#include "llama-kv-anchors.h"

#include "ggml-anchors.h"
#include "llama-impl.h"
#include "llama-io.h"
#include "llama-kv-cache.h"
#include "llama-kv-state.h"

#include <algorithm>
#include <cstring>
#include <map>

static constexpr uint32_t N_RUN = llama_kv_anchors::N_RUN;

// keys that a mean is taken over, if there are so many
static constexpr uint32_t N_MEAN = 64;
// the first token of a sequence draws attention, and its key is unlike all others: it has an anchor of its own.
// others may have the same position, as those of an image that a sequence begins with (M-RoPE)
static constexpr llama_pos POS_SINK = 0;
// cells that the first token's anchor serves: no other run is as short
static constexpr uint32_t N_RUN_SINK = 1;
// a mean of few keys serves as many cells again, and at least so many
static constexpr uint32_t N_RUN_MIN = 16;
// a run's own keys in a mean that is, but for them, of keys before it
static constexpr uint32_t N_OWN_FEW = 4;
// F16's largest value: no anchor is infinite
static constexpr float ANCHOR_MAX = 65504.0f;

// rows that may lack in the end, so that runs of N_RUN cells lie as attention's tiles do
static uint32_t n_slack(uint32_t n_rows) {
    return n_rows/16;
}

llama_kv_anchors::llama_kv_anchors(uint32_t n_cells, uint32_t n_stream) : n_cells(n_cells), n_rows((n_cells + N_RUN - 1)/N_RUN), streams(n_stream) {
    clear();
}

ggml_tensor * llama_kv_anchors::new_table(ggml_context * ctx, int64_t n_embd_k_gqa, const char * name_tag, int32_t il) const {
    ggml_tensor * res = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, n_embd_k_gqa, n_rows, streams.size());
    ggml_format_name(res, "cache_%sk_anchors_l%d", name_tag, il);
    return res;
}

void llama_kv_anchors::clear() {
    for (auto & st : streams) {
        st.id.assign(n_cells, -1);
        st.run.assign(n_rows, {});
    }
    moved.clear();
}

void llama_kv_anchors::copy_stream(uint32_t ssrc, uint32_t sdst) {
    streams[sdst] = streams[ssrc];
}

int32_t llama_kv_anchors::id(uint32_t strm, uint32_t cell) const {
    return std::max(streams[strm].id[cell], 0);
}

int32_t llama_kv_anchors::row(uint32_t strm, uint32_t cell) const {
    return strm*n_rows + id(strm, cell);
}

void llama_kv_anchors::append_ids(std::vector<int32_t> & ids, uint32_t strm, uint32_t n) const {
    const auto & id = streams[strm].id;
    const auto has_anchor = [](int32_t id) { return id >= 0; };

    // nothing attends to a cell without an anchor, but rows are read by these numbers:
    // that of the cell before it, or of the first that has any, spares attention another
    const auto first = std::find_if(id.begin(), id.begin() + n, has_anchor);
    int32_t last = first == id.begin() + n ? 0 : *first;
    for (uint32_t i = 0; i < n; ++i) {
        last = has_anchor(id[i]) ? id[i] : last;
        ids.push_back(last);
    }
}

std::vector<int32_t> llama_kv_anchors::row_shifts(const llama_kv_cells_vec & v_cells) const {
    std::vector<int32_t> res(streams.size()*n_rows, 0);
    for (uint32_t s = 0; s < streams.size(); ++s) {
        for (uint32_t i = 0; i < n_cells; ++i) {
            if (!v_cells[s].is_empty(i)) {
                res[row(s, i)] = v_cells[s].get_shift(i);
            }
        }
    }
    return res;
}

//
// plan
//

struct llama_kv_anchors::seq_tokens {
    uint32_t     strm;
    llama_seq_id seq;

    std::vector<uint32_t>  tok;  // index in the ubatch
    std::vector<uint32_t>  cell;
    std::vector<llama_pos> pos;
};

// counts the cells of every row
void llama_kv_anchors::recount(const llama_kv_cells & cells, stream_t & st) const {
    for (auto & run : st.run) {
        run.n = 0;
    }
    for (uint32_t i = 0; i < n_cells; ++i) {
        if (cells.is_empty(i)) {
            st.id[i] = -1;
        }
        if (st.id[i] >= 0) {
            st.run[st.id[i]].n++;
        }
    }
}

// -1: none
int32_t llama_kv_anchors::free_row(const stream_t & st) const {
    for (uint32_t r = 0; r < n_rows; ++r) {
        if (st.run[r].n == 0) {
            return r;
        }
    }
    return -1;
}

// the row of a run that began here and whose cells have been removed, -1: none. A prompt that is answered again is
// decoded from its last token on: its key has the anchor, and the code, that it had
int32_t llama_kv_anchors::same_row(const stream_t & st, llama_seq_id seq, llama_pos pos, int32_t prev) const {
    for (uint32_t r = 0; r < n_rows; ++r) {
        const auto & run = st.run[r];
        if (run.n == 0 && run.seq == seq && run.pos == pos && run.prev == prev) {
            return r;
        }
    }
    return -1;
}

void llama_kv_anchors::forget_starts() {
    for (auto & st : streams) {
        for (auto & run : st.run) {
            run.pos = -1;
        }
    }
}

// how long a run from this cell on has to be, so that the free rows last for the free cells
uint32_t llama_kv_anchors::run_len(const stream_t & st, uint32_t cell) const {
    uint32_t n_free_rows = 0;
    for (const auto & run : st.run) {
        n_free_rows += run.n == 0;
    }
    uint32_t n_free_cells = 0;
    for (const int32_t id : st.id) {
        n_free_cells += id < 0;
    }
    // short runs take rows from long ones
    if (n_free_cells <= (n_free_rows + n_slack(n_rows))*N_RUN) {
        // to the end of the tile: attention is fastest where all cells of one share their anchor
        const uint32_t rest = N_RUN - cell % N_RUN;
        return rest < N_RUN_MIN ? rest + N_RUN : rest;
    }
    return (n_free_cells + n_free_rows - 1)/n_free_rows;
}

void llama_kv_anchors::plan(const llama_kv_cells_vec & v_cells, const std::vector<llama_seq_id> & strm, const std::vector<cell_idxs_t> & idxs, const llama_ubatch & ubatch) {
    cur = {};
    cur.tok_rows.resize(ubatch.n_tokens);

    for (uint32_t s = 0; s < strm.size(); ++s) {
        auto & st = streams[strm[s]];

        std::map<llama_seq_id, seq_tokens> seqs;

        is_new.assign(n_cells, false);

        for (uint32_t ii = 0; ii < idxs[s].size(); ++ii) {
            const uint32_t i    = s*idxs[s].size() + ii;
            const uint32_t cell = idxs[s][ii];

            // what the cell held is gone
            st.id[cell] = -1;
            is_new[cell] = true;

            const llama_seq_id seq = ubatch.seq_id[i][0];

            auto & toks = seqs[seq];
            toks.strm = strm[s];
            toks.seq  = seq;
            toks.tok .push_back(i);
            toks.cell.push_back(cell);
            toks.pos .push_back(ubatch.pos[i]);
        }

        for (const auto & [_, toks] : seqs) {
            plan_seq(v_cells[strm[s]], toks);
        }
    }
}

// whether the anchor of a cell is that of a first token
bool llama_kv_anchors::is_sink(const llama_kv_cells & cells, const stream_t & st, uint32_t cell) const {
    return cells.pos_get(cell) == POS_SINK && st.id[cell] >= 0 && st.run[st.id[cell]].cap == N_RUN_SINK;
}

void llama_kv_anchors::plan_seq(const llama_kv_cells & cells, const seq_tokens & toks) {
    auto & st = streams[toks.strm];

    const uint32_t  n  = toks.tok.size();
    const llama_pos p0 = toks.pos[0];

    uint32_t k = 0;

    const auto assign = [&](int32_t row) {
        st.id[toks.cell[k]] = row;
        st.run[row].n++;
        cur.tok_rows[toks.tok[k]] = toks.strm*n_rows + row;
        k++;
    };

    // the cells that the sequence has before its first new token, the last first: also at the same position
    const auto & seq_pos = cells.seq_pos_get(toks.seq);
    auto it = seq_pos.lower_bound({ p0 + 1, 0 });
    const auto prev_old = [&]() -> int64_t {
        while (it != seq_pos.begin()) {
            const uint32_t cell = (--it)->second;
            if (!is_new[cell]) {
                return cell;
            }
        }
        return -1;
    };
    int64_t prev = prev_old();
    int32_t row  = prev < 0 ? -1 : st.id[prev];

    const bool first_is_sink = prev < 0 && p0 == POS_SINK;

    // go on with the run that is open
    const auto go_on = [&]() {
        while (row >= 0 && k < n && st.run[row].n < st.run[row].cap) {
            assign(row);
        }
    };
    go_on();
    if (k == n) {
        return;
    }

    // cells may have been removed since they were counted
    recount(cells, st);
    go_on();

    // the anchor that was here
    if (k == 0 && p0 >= 0) {
        const int32_t same = same_row(st, toks.seq, p0, row);
        if (same >= 0) {
            row = same;
            go_on();
        }
    }

    // keys of the cache that a mean may take in beside those of the ubatch
    std::vector<uint32_t> old;
    for (; prev >= 0 && old.size() < N_MEAN; prev = prev_old()) {
        if (st.id[prev] >= 0 && !is_sink(cells, st, prev)) {
            old.push_back(prev);
        }
    }

    while (k < n) {
        const int32_t free = free_row(st);
        if (free < 0) {
            // Every row is in use: any will do, one of the same sequence best. A context that one sequence fills to its end comes
            // here, too: the rows that were let lack are no reason to warn.
            const bool expected = row >= 0 && st.run[row].n + (n - k) <= st.run[row].cap + n_slack(n_rows)*N_RUN;
            if (!expected && !warned) {
                LLAMA_LOG_WARN("%s: the %u key anchors are all in use: new keys share the last of their sequence, which makes them less precise. "
                        "a larger context has more of them, and so has a cache for each sequence (no --kv-unified)\n", __func__, n_rows);
                warned = true;
            }
            row = std::max(row, 0);
            while (k < n) {
                assign(row);
            }
            return;
        }
        const int32_t row_prev = row;
        row = free;

        const uint32_t i_new = cur.new_rows.size();
        cur.new_rows.push_back(toks.strm*n_rows + row);

        if (k == 0 && first_is_sink) {
            cur.tok_w.push_back({ i_new, toks.tok[k], 1.0f });
            st.run[row] = { 0, N_RUN_SINK };
            assign(row);
            continue;
        }

        // the run's own keys and those before it
        const uint32_t len   = run_len(st, toks.cell[k]);
        const uint32_t n_own = std::min(len, n - k);
        uint32_t first = std::min(k, k + n_own - std::min(k + n_own, N_MEAN));
        if (first == 0 && k > 0 && first_is_sink) {
            first++;
        }
        const uint32_t n_tok = k + n_own - first;
        const uint32_t n_old = n_tok < N_MEAN ? std::min<uint32_t>(old.size(), N_MEAN - n_tok) : 0;
        const float    w_key = 1.0f/(n_tok + n_old);

        for (uint32_t i = first; i < k + n_own; ++i) {
            cur.tok_w.push_back({ i_new, toks.tok[i], w_key });
        }
        for (uint32_t i = 0; i < n_old; ++i) {
            cur.old_w.push_back({ i_new, (uint32_t) cur.old_cells.size(), w_key });
            cur.old_cells.push_back(toks.strm*n_cells + old[i]);
        }

        // never beyond len, where the next run begins: also when its tokens come with the next ubatch
        st.run[row] = { 0, n_tok + n_old < N_MEAN ? std::min(len, std::max(N_RUN_MIN, 2*(n_tok + n_old))) : len };
        if (n_own <= N_OWN_FEW && n_tok - n_own + n_old >= N_MEAN - N_OWN_FEW) {
            st.run[row].seq  = toks.seq;
            st.run[row].pos  = toks.pos[k];
            st.run[row].prev = row_prev;
        }
        for (uint32_t i = 0; i < n_own; ++i) {
            assign(row);
        }
    }
}

// The largest sums of plan_seq. A run takes 16 cells or more, but for the last of a sequence, and the first token is one
// of its own: 2 + n/16 runs of n tokens. Keys of the cache go into runs that have less than N_MEAN keys before them and
// of their own: N_MEAN - 1 into the first, and two for every token after that, until there are N_MEAN tokens.
static_assert(N_MEAN == 64 && N_RUN_MIN == 16, "the sums below are of these numbers");

void llama_kv_anchors::plan_worst(uint32_t n_seqs) {
    cur = {};
    cur.worst_n_seqs = n_seqs;
}

uint32_t llama_kv_anchors::n_new(uint32_t n_tokens) const {
    if (cur.worst_n_seqs == 0) {
        return cur.new_rows.size();
    }
    const uint32_t n_seqs = std::min(cur.worst_n_seqs, n_tokens);
    return std::min({ n_tokens, 2*n_seqs + n_tokens/N_RUN_MIN, (uint32_t) (n_rows*streams.size()) });
}

uint32_t llama_kv_anchors::n_old(uint32_t n_tokens) const {
    if (cur.worst_n_seqs == 0) {
        return cur.old_cells.size();
    }
    const uint32_t n_seqs = std::min(cur.worst_n_seqs, n_tokens);
    return (N_MEAN - 1)*n_seqs + std::min((N_MEAN - N_RUN_MIN)*n_seqs, 2*n_tokens);
}

//
// graph
//

// the input of a graph that is of this class and the one that is wanted; null: there is none yet
template<typename T, typename F>
static T * find_input(const llm_graph_result * res, const F & is_wanted) {
    for (auto & input : res->inputs) {
        auto * cur = dynamic_cast<T *>(input.get());
        if (cur && is_wanted(*cur)) {
            return cur;
        }
    }
    return nullptr;
}

llm_graph_input_k_anchors * llm_graph_input_k_anchors::get(llm_graph_result * res, const llama_kv_cache * kv, const llama_kv_anchors * anchors) {
    auto * cur = find_input<llm_graph_input_k_anchors>(res, [&](const auto & input) { return input.kv == kv; });
    return cur ? cur : (llm_graph_input_k_anchors *) res->add_input(std::make_unique<llm_graph_input_k_anchors>(kv, anchors));
}

static ggml_tensor * new_input(ggml_context * ctx, ggml_type type, int64_t ne0, int64_t ne1, const char * name) {
    ggml_tensor * res = ggml_new_tensor_2d(ctx, type, ne0, ne1);
    ggml_set_input(res);
    ggml_set_name(res, name);
    return res;
}

void llm_graph_input_k_anchors::build_write(ggml_context * ctx, int64_t n_tokens) {
    if (tok_rows) {
        return;
    }
    const auto & plan = anchors->get_plan();

    GGML_ASSERT(plan.worst_n_seqs > 0 || n_tokens == (int64_t) plan.tok_rows.size());

    const int64_t n_new = anchors->n_new(n_tokens);
    const int64_t n_old = anchors->n_old(n_tokens);

    tok_rows = new_input(ctx, GGML_TYPE_I32, n_tokens, 1, "k_anchors_tok_rows");

    if (n_new > 0) {
        new_rows = new_input(ctx, GGML_TYPE_I64, n_new, 1, "k_anchors_new_rows");
        tok_w    = new_input(ctx, GGML_TYPE_F32, n_tokens, n_new, "k_anchors_tok_w");
    }
    if (n_old > 0) {
        old_cells = new_input(ctx, GGML_TYPE_I32, n_old, 1, "k_anchors_old_cells");
        old_rows  = new_input(ctx, GGML_TYPE_I32, n_old, 1, "k_anchors_old_rows");
        old_w     = new_input(ctx, GGML_TYPE_F32, n_old, n_new, "k_anchors_old_w");
    }
}

void llm_graph_input_k_anchors::build_read(ggml_context * ctx, uint32_t n_kv, uint32_t s0, uint32_t s1) {
    if (cell_ids) {
        return;
    }
    cell_ids = new_input(ctx, GGML_TYPE_I32, n_kv, s1 - s0 + 1, "k_anchors_cell_ids");

    this->s0 = s0;
    this->s1 = s1;
}

template<typename T>
static void set_data(ggml_tensor * dst, const std::vector<T> & src) {
    if (dst && dst->buffer) {
        GGML_ASSERT(ggml_nbytes(dst) == src.size()*sizeof(T));
        ggml_backend_tensor_set(dst, src.data(), 0, ggml_nbytes(dst));
    }
}

static void set_weights(ggml_tensor * dst, const std::vector<llama_kv_anchors::weight_t> & src) {
    if (dst && dst->buffer) {
        std::vector<float> data(ggml_nelements(dst), 0.0f);
        for (const auto & w : src) {
            data[w.i_new*dst->ne[0] + w.i_key] = w.w;
        }
        set_data(dst, data);
    }
}

void llm_graph_input_k_anchors::set_input(const llama_ubatch * ubatch) {
    GGML_UNUSED(ubatch);

    const auto & plan = anchors->get_plan();

    set_data   (tok_rows,  plan.tok_rows);
    set_data   (new_rows,  plan.new_rows);
    set_weights(tok_w,     plan.tok_w);
    set_data   (old_cells, plan.old_cells);
    set_weights(old_w,     plan.old_w);

    if (old_rows) {
        std::vector<int32_t> rows;
        for (const int32_t cell : plan.old_cells) {
            rows.push_back(anchors->row(cell / anchors->get_n_cells(), cell % anchors->get_n_cells()));
        }
        set_data(old_rows, rows);
    }

    if (cell_ids && cell_ids->buffer) {
        const uint32_t n_kv = cell_ids->ne[0];

        std::vector<int32_t> ids;
        ids.reserve(ggml_nelements(cell_ids));
        for (uint32_t s = s0; s <= s1; ++s) {
            anchors->append_ids(ids, s, n_kv);
        }
        set_data(cell_ids, ids);
    }
}

bool llm_graph_input_k_anchors::can_reuse(const llm_graph_params & params) {
    GGML_UNUSED(params);

    const auto & plan = anchors->get_plan();

    const auto same = [](const ggml_tensor * t, size_t n) {
        return (t ? (size_t) t->ne[0] : 0) == n;
    };

    // what is read has the n_kv and the streams of the mask, which the attention's own input compares
    return !tok_rows || (
        same(tok_rows,  plan.tok_rows.size()) &&
        same(new_rows,  plan.new_rows.size()) &&
        same(old_cells, plan.old_cells.size()));
}

// all streams' rows behind each other
static ggml_tensor * flat(ggml_context * ctx, ggml_tensor * t) {
    return ggml_reshape_2d(ctx, t, t->ne[0], t->ne[1]*t->ne[2]);
}

ggml_tensor * llm_graph_input_k_anchors::subtract(ggml_context * ctx, ggml_cgraph * gf, ggml_tensor * table, ggml_tensor * k, ggml_tensor * k_cur) {
    build_write(ctx, k_cur->ne[2]);

    const int64_t n_embd_head = k_cur->ne[0];
    const int64_t n_head      = k_cur->ne[1];
    const int64_t n_tokens    = k_cur->ne[2];

    GGML_ASSERT(k_cur->type == GGML_TYPE_F32);
    GGML_ASSERT(ggml_row_size(k_cur->type, n_embd_head) == k_cur->nb[1]);

    k_cur = ggml_view_2d(ctx, k_cur, n_embd_head*n_head, n_tokens, k_cur->nb[2], 0);
    table = flat(ctx, table);

    if (new_rows) {
        const auto sum = [&](ggml_tensor * keys, ggml_tensor * w) {
            // keys of other sequences have weight 0, which would not keep a NaN out. The copy is clamped, not the keys
            keys = ggml_cont(ctx, ggml_transpose(ctx, keys));
            return ggml_mul_mat(ctx, ggml_clamp(ctx, keys, -ANCHOR_MAX, ANCHOR_MAX), w);
        };

        ggml_tensor * mean = sum(k_cur, tok_w);
        if (old_cells) {
            ggml_tensor * k_old = ggml_get_rows(ctx, flat(ctx, k), old_cells);
            k_old = ggml_add(ctx, k_old, ggml_get_rows(ctx, table, old_rows));
            mean  = ggml_add(ctx, mean, sum(k_old, old_w));
        }
        mean = ggml_clamp(ctx, mean, -ANCHOR_MAX, ANCHOR_MAX);

        // before the rows are read below
        ggml_build_forward_expand(gf, ggml_set_rows(ctx, table, mean, new_rows));
    }

    ggml_tensor * res = ggml_sub(ctx, k_cur, ggml_get_rows(ctx, table, tok_rows));

    return ggml_reshape_3d(ctx, res, n_embd_head, n_head, n_tokens);
}

llama_kv_anchor_terms llm_graph_input_k_anchors::terms(ggml_context * ctx, ggml_tensor * table, uint32_t n_kv, uint32_t s0, uint32_t s1) {
    build_read(ctx, n_kv, s0, s1);

    llama_kv_anchor_terms res;
    res.table = ggml_view_3d(ctx, table, table->ne[0], table->ne[1], s1 - s0 + 1, table->nb[1], table->nb[2], s0*table->nb[2]);
    res.ids   = cell_ids;
    return res;
}

// [n_embd_k_gqa, n, n_stream] -> [n_embd_head, n, n_head_k, n_stream]
static ggml_tensor * split_heads(ggml_context * ctx, ggml_tensor * t, int64_t n_embd_head) {
    const size_t nb1 = ggml_row_size(t->type, n_embd_head);
    return ggml_view_4d(ctx, t, n_embd_head, t->ne[1], t->ne[0]/n_embd_head, t->ne[2], t->nb[1], nb1, t->nb[2], 0);
}

void llama_kv_anchor_terms::attach(ggml_context * ctx, ggml_tensor * flash_attn) const {
    if (table) {
        ggml_flash_attn_ext_add_anchors(flash_attn, split_heads(ctx, table, flash_attn->src[1]->ne[0]), ids);
    }
}

ggml_tensor * llama_kv_anchor_terms::add(ggml_context * ctx, ggml_tensor * kq, ggml_tensor * q) const {
    if (!table) {
        return kq;
    }
    ggml_tensor * m = ggml_get_rows(ctx, table, ids); // F32 [n_embd_k_gqa, n_kv, n_stream]
    ggml_tensor * qm = ggml_mul_mat(ctx, split_heads(ctx, m, q->ne[0]), q);
    ggml_prec_set_acc(qm, GGML_PREC_F32);
    return ggml_add(ctx, kq, qm);
}

//
// the cache
//

ggml_tensor * llama_kv_cache::anchor_k(ggml_context * ctx, llm_graph_result * res, ggml_tensor * k_cur, int32_t il) const {
    const auto & layer = layers[map_layer_ids.at(il)];
    if (!layer.anchors) {
        return k_cur;
    }
    auto * inp = llm_graph_input_k_anchors::get(res, this, anchors.get());
    return inp->subtract(ctx, res->get_gf(), layer.anchors, layer.k, k_cur);
}

llama_kv_anchor_terms llama_kv_cache::get_k_anchors(ggml_context * ctx, llm_graph_result * res, int32_t il, uint32_t n_kv, const slot_info & sinfo) const {
    const auto & layer = layers[map_layer_ids.at(il)];
    if (!layer.anchors) {
        return {};
    }
    auto * inp = llm_graph_input_k_anchors::get(res, this, anchors.get());
    return inp->terms(ctx, layer.anchors, n_kv, sinfo.s0, sinfo.s1);
}

void llama_kv_cache::plan_anchors(const slot_info & sinfo, const llama_ubatch & ubatch) {
    if (anchors && !other) {
        settle_anchors();
        anchors->plan(v_cells, sinfo.strm, sinfo.idxs, ubatch);
    }
}

void llama_kv_cache::plan_anchors_worst() {
    if (anchors) {
        anchors->plan_worst(n_seq_max);
    }
}

ggml_tensor * llama_kv_cache_context::anchor_k(ggml_context * ctx, llm_graph_result * res, ggml_tensor * k_cur, int32_t il) const {
    return kv->anchor_k(ctx, res, k_cur, il);
}

llama_kv_anchor_terms llama_kv_cache_context::get_k_anchors(ggml_context * ctx, llm_graph_result * res, int32_t il) const {
    return kv->get_k_anchors(ctx, res, il, n_kv, sinfos[i_cur]);
}

// the inputs of a K-shift
class llm_graph_input_anchor_shift : public llm_graph_input_i {
public:
    llm_graph_input_anchor_shift(const llama_kv_cells_vec & v_cells, const llama_kv_anchors & anchors) : v_cells(v_cells), anchors(anchors) {}

    void set_input(const llama_ubatch * ubatch) override {
        GGML_UNUSED(ubatch);

        std::vector<int32_t> rows;
        for (uint32_t s = 0; s < v_cells.size(); ++s) {
            for (uint32_t i = 0; i < v_cells[s].size(); ++i) {
                rows.push_back(anchors.row(s, i));
            }
        }
        set_data(cell_rows, rows);
        set_data(row_shift, anchors.row_shifts(v_cells));
    }

    ggml_tensor * cell_rows; // I32 [n_cells*n_stream]
    ggml_tensor * row_shift; // I32 [n_rows*n_stream]

private:
    const llama_kv_cells_vec & v_cells;
    const llama_kv_anchors   & anchors;
};

// Each key is put together, turned, and measured from its anchor, which turns as the key of its first cell does:
// exact, also where the cells of an anchor turn differently.
void llama_kv_cache::build_whole_shift(
           llm_graph_result * res,
        const llama_cparams & cparams,
             const kv_layer & layer,
                ggml_tensor * shift,
                ggml_tensor * rot,
                ggml_tensor * factors,
                      float   freq_base,
                      float   freq_scale) const {
    ggml_context * ctx = res->get_ctx();
    ggml_cgraph  * gf  = res->get_gf();

    const int64_t n_embd_head = hparams.n_embd_head_k(layer.il);
    const int64_t n_head      = hparams.n_head_kv    (layer.il);

    // t: F32 [n_embd_k_gqa, n]
    const auto turn = [&](ggml_tensor * t, ggml_tensor * by) {
        const int64_t n = t->ne[1];
        t = ggml_reshape_3d(ctx, t, n_embd_head, n_head, n);
        t = rot ? llama_mul_mat_hadamard(ctx, t, rot) : t;
        t = build_rope_shift(cparams, ctx, t, by, nullptr, factors, freq_base, freq_scale, layer.il);
        t = rot ? llama_mul_mat_hadamard(ctx, t, rot) : t;
        return ggml_reshape_2d(ctx, t, n_embd_head*n_head, n);
    };

    ggml_tensor * k   = flat(ctx, layer.k);
    ggml_tensor * key = ggml_cast(ctx, k, GGML_TYPE_F32);

    if (!layer.anchors) {
        ggml_build_forward_expand(gf, ggml_cpy(ctx, turn(key, shift), k));
        return;
    }

    auto * inp = find_input<llm_graph_input_anchor_shift>(res, [](const auto &) { return true; });
    if (!inp) {
        inp = (llm_graph_input_anchor_shift *) res->add_input(std::make_unique<llm_graph_input_anchor_shift>(v_cells, *anchors));
        inp->cell_rows = new_input(ctx, GGML_TYPE_I32, (int64_t) get_size()*n_stream, 1, "k_anchors_cell_rows");
        inp->row_shift = new_input(ctx, GGML_TYPE_I32, (int64_t) anchors->get_n_rows()*n_stream, 1, "k_anchors_row_shift");
    }

    anchors->forget_starts();

    ggml_tensor * table = flat(ctx, layer.anchors);

    key = turn(ggml_add(ctx, key, ggml_get_rows(ctx, table, inp->cell_rows)), shift);

    // the keys are whole before the table changes
    ggml_build_forward_expand(gf, key);
    ggml_build_forward_expand(gf, ggml_cpy(ctx, turn(ggml_cast(ctx, table, GGML_TYPE_F32), inp->row_shift), table));

    key = ggml_sub(ctx, key, ggml_get_rows(ctx, table, inp->cell_rows));
    ggml_build_forward_expand(gf, ggml_cpy(ctx, key, k));
}

//
// state
//

void llama_kv_anchors::state_write(llama_io_write_i & io, uint32_t strm, const std::vector<std::pair<uint32_t, uint32_t>> & ranges, const std::vector<ggml_tensor *> & tables) const {
    // the rows in use, in the order in which cells name them
    std::vector<uint32_t> rows;
    std::vector<uint32_t> ids;
    std::map<uint32_t, uint32_t> seen;
    for (const auto & [from, to] : ranges) {
        for (uint32_t cell = from; cell < to; ++cell) {
            const uint32_t r = id(strm, cell);
            const auto [it, is_new] = seen.insert({ r, (uint32_t) rows.size() });
            if (is_new) {
                rows.push_back(r);
            }
            ids.push_back(it->second);
        }
    }

    const uint32_t n = rows.size();
    io.write(&n, sizeof(n));
    for (const uint32_t r : rows) {
        const uint32_t cap = streams[strm].run[r].cap;
        io.write(&cap, sizeof(cap));
    }
    io.write(ids.data(), ids.size()*sizeof(ids[0]));

    for (ggml_tensor * table : tables) {
        const uint64_t size_row = table->nb[1];
        io.write(&size_row, sizeof(size_row));
        for (const uint32_t r : rows) {
            io.write_tensor(table, (strm*n_rows + r)*size_row, size_row);
        }
    }
}

bool llama_kv_anchors::state_read(llama_io_read_i & io, uint32_t strm, const cell_idxs_t & cells, const std::vector<ggml_tensor *> & tables, const llama_kv_cells_vec & v_cells) {
    auto & st = streams[strm];

    uint32_t n;
    io.read(&n, sizeof(n));
    if (n > cells.size()) {
        LLAMA_LOG_ERROR("%s: the state is damaged: %u key anchors for %zu cells\n", __func__, n, cells.size());
        return false;
    }
    std::vector<uint32_t> caps(n);
    io.read(caps.data(), caps.size()*sizeof(caps[0]));
    std::vector<uint32_t> ids(cells.size());
    io.read(ids.data(), ids.size()*sizeof(ids[0]));

    for (const uint32_t cell : cells) {
        st.id[cell] = -1;
    }
    recount(v_cells[strm], st);

    std::vector<uint32_t> rows;
    for (uint32_t r = 0; r < n_rows && rows.size() < n; ++r) {
        if (st.run[r].n == 0) {
            rows.push_back(r);
        }
    }
    const uint32_t n_own = rows.size();
    if (n_own < n && io.on_device()) {
        LLAMA_LOG_ERROR("%s: the state has %u key anchors, but only %u of this cache's %u are free: use a larger context, or remove sequences first\n",
                __func__, n, n_own, n_rows);
        return false;
    }

    // those without a row of their own share the last, or any
    const int32_t row_shared = n_own > 0 ? rows.back() : 0;

    std::vector<moved_t> moved_new(n - n_own);
    for (auto & m : moved_new) {
        m.strm = strm;
        m.row  = row_shared;
    }
    for (size_t i = 0; i < cells.size(); ++i) {
        if (ids[i] >= n) {
            LLAMA_LOG_ERROR("%s: the state is damaged: cell %zu has key anchor %u of %u\n", __func__, i, ids[i], n);
            return false;
        }
        if (ids[i] < n_own) {
            st.id[cells[i]] = rows[ids[i]];
        } else {
            st.id[cells[i]] = row_shared;
            moved_new[ids[i] - n_own].cells.push_back(cells[i]);
        }
    }
    recount(v_cells[strm], st);
    for (uint32_t i = 0; i < n_own; ++i) {
        st.run[rows[i]].cap = caps[i];
        st.run[rows[i]].pos = -1;
    }

    for (ggml_tensor * table : tables) {
        uint64_t size_row;
        io.read(&size_row, sizeof(size_row));
        if (size_row != table->nb[1]) {
            LLAMA_LOG_ERROR("%s: the state's key anchors have %zu bytes, this model's %zu\n", __func__, (size_t) size_row, table->nb[1]);
            return false;
        }
        const std::string what = std::string("table ") + ggml_get_name(table);
        for (const uint32_t r : rows) {
            llama_kv_state_read(io, table, (strm*n_rows + r)*size_row, size_row, size_row, r, what, "key anchor");
        }
        for (size_t i = 0; i < moved_new.size(); ++i) {
            auto & m = moved_new[i];
            m.from.emplace_back(table->ne[0]);
            io.read(m.from.back().data(), size_row);
            if (!llama_kv_state_check_row(table->type, m.from.back().data(), size_row, what, "key anchor", n_own + i)) {
                return false;
            }
        }
    }

    // the keys themselves may be read later
    moved.insert(moved.end(), moved_new.begin(), moved_new.end());
    return true;
}

// a row of a K tensor as floats, changed, and back
template<typename F>
static void change_row(ggml_tensor * k, size_t offset, const F & change) {
    const int64_t n = k->ne[0];
    const auto * traits = ggml_get_type_traits(k->type);

    std::vector<uint8_t> row(ggml_row_size(k->type, n));
    std::vector<float>   x(n);

    ggml_backend_tensor_get(k, row.data(), offset, row.size());
    if (k->type == GGML_TYPE_F32) {
        memcpy(x.data(), row.data(), row.size());
    } else {
        traits->to_float(row.data(), x.data(), n);
    }
    change(x);
    if (k->type == GGML_TYPE_F32) {
        memcpy(row.data(), x.data(), row.size());
    } else {
        ggml_quantize_chunk(k->type, x.data(), row.data(), 0, 1, n, nullptr);
    }
    ggml_backend_tensor_set(k, row.data(), offset, row.size());
}

void llama_kv_cache::settle_anchors() const {
    if (!anchors || other) {
        return;
    }
    for (const auto & m : anchors->take_moved()) {
        size_t i_table = 0;
        for (const auto & layer : layers) {
            if (!layer.anchors) {
                continue;
            }
            const ggml_tensor * table = layer.anchors;
            const auto & from = m.from[i_table++];

            std::vector<ggml_fp16_t> to(table->ne[0]);
            ggml_backend_tensor_get(table, to.data(), m.strm*table->nb[2] + m.row*table->nb[1], table->nb[1]);

            for (const uint32_t cell : m.cells) {
                change_row(layer.k, m.strm*layer.k->nb[2] + cell*layer.k->nb[1], [&](std::vector<float> & x) {
                    for (size_t i = 0; i < x.size(); ++i) {
                        x[i] += ggml_fp16_to_fp32(from[i]) - ggml_fp16_to_fp32(to[i]);
                    }
                });
            }
        }
    }
}

std::vector<ggml_tensor *> llama_kv_cache::anchor_tables() const {
    std::vector<ggml_tensor *> res;
    for (const auto & layer : layers) {
        if (layer.anchors) {
            res.push_back(layer.anchors);
        }
    }
    return res;
}

void llama_kv_cache::copy_anchors(uint32_t ssrc, uint32_t sdst) {
    if (!anchors) {
        return;
    }
    anchors->copy_stream(ssrc, sdst);
    for (ggml_tensor * table : anchor_tables()) {
        std::vector<uint8_t> data(table->nb[2]);
        ggml_backend_tensor_get(table, data.data(), ssrc*table->nb[2], data.size());
        ggml_backend_tensor_set(table, data.data(), sdst*table->nb[2], data.size());
    }
}
