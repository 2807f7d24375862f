// Operators of the Metal back end on the host: upstream's own host code chooses kernels, sets their arguments and
// launches them; the kernels are translated sources that run as fibers.
//
// Reads commands from stdin, a line each, some with bytes behind it:
//
//     tensor TYPE NE0 NE1 NE2 NE3                              and its bytes
//     view   TENSOR NE0 NE1 NE2 NE3 NB1 NB2 NB3 OFFSET
//     set_rows DST SRC IDS | get_rows SRC IDS | cpy SRC DST | cast SRC TYPE
//     attend Q K V MASK SINKS ANCHORS IDS SCALE MAX_BIAS SOFTCAP N_KV_MAX    (tensors: -1 is none)
//
// Tensors are numbered from 0 on. An operator writes a line to stdout, "ok BYTES KERNEL...", and its result's bytes; or
// "unsupported".

#include "ggml.h"
#include "ggml-anchors.h"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include "ggml-metal-device.h"
#include "ggml-metal-fusion.h"
#include "ggml-metal-ops.h"
#include "ggml-metal-turbo.h"

#include "fibers.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

[[noreturn]] static void fail(const std::string & why) {
    std::cout.flush();
    std::cerr << why << std::endl;
    exit(3);
}

// the Rust core, for ggml's type traits: rows are encoded by kernels or come encoded
#define NOT_HERE(name) extern "C" void name() { fail(#name " is not in this program"); }
NOT_HERE(tq_dequantize_row_turbo2)
NOT_HERE(tq_dequantize_row_turbo3)
NOT_HERE(tq_dequantize_row_turbo4)
NOT_HERE(tq_quantize_row_turbo2)
NOT_HERE(tq_quantize_row_turbo3)
NOT_HERE(tq_quantize_row_turbo4)

//
// what ggml-metal-device.m and ggml-metal-context.m are to the rest of the back end
//

struct ggml_metal_cv {
    std::map<int, std::vector<char>> values;
};

struct ggml_metal_pipeline {
    std::string   name;
    void          (*run)();
    ggml_metal_cv cv;
};

struct ggml_metal_library {
    ggml_metal_pipelines_t pipelines;
};

struct ggml_metal_device {
    ggml_metal_device_props props;
    ggml_metal_library      library;
};

static const size_t GUARD = 256; // bytes behind memory that kernels write
static const char   GUARDED = 0x5a;

// a kernel with what is bound
struct dispatch {
    ggml_metal_pipeline * pipeline = nullptr;
    fibers::launch        launch   = {};
    size_t                shared   = 0;  // bytes of threadgroup memory
    fibers::position      groups   = {}; // how many
    // what is in the place of buffers, if it is no buffer
    std::map<int, std::shared_ptr<std::vector<char>>> bytes;
};

struct ggml_metal_encoder {
    dispatch                 next;
    std::vector<dispatch>    pending; // since the last barrier
    std::vector<std::string> kernels;
};

// Metal keeps what is bound when the pipeline changes. Upstream binds its arguments for each kernel, and is held to it; ours
// are behind those, and are bound once for an operator.
static const int BUFFERS_OF_OURS = 9;

static ggml_metal_device  g_device;
static ggml_metal_encoder g_encoder;

template <typename T> static void set(ggml_metal_cv_t cv, T value, int idx) {
    const char * p = (const char *) &value;
    cv->values[idx] = std::vector<char>(p, p + sizeof(T));
}

static void run(dispatch & d) {
    const ggml_metal_pipeline & pipeline = *d.pipeline;
    for (auto * c = fibers::function_constant::first; c; c = c->next) {
        const auto value = pipeline.cv.values.find(c->index);
        if (value == pipeline.cv.values.end()) {
            continue;
        }
        if ((int) value->second.size() != c->size) {
            fail(pipeline.name + ": function constant " + std::to_string(c->index) + " has another size");
        }
        memcpy(c->value, value->second.data(), c->size);
    }
    // not a number, where no kernel has written
    std::vector<char> shared(d.shared + GUARD);
    d.launch.shared = shared.data();
    for (unsigned z = 0; z < d.groups.z; ++z) {
        for (unsigned y = 0; y < d.groups.y; ++y) {
            for (unsigned x = 0; x < d.groups.x; ++x) {
                memset(shared.data(), 0xff, d.shared);
                memset(shared.data() + d.shared, GUARDED, GUARD);
                d.launch.group = { x, y, z };
                if (!fibers::run(d.launch, pipeline.run)) {
                    fail(pipeline.name + ": threads wait for others that never come");
                }
                for (size_t i = 0; i < GUARD; ++i) {
                    if (shared[d.shared + i] != GUARDED) {
                        fail(pipeline.name + ": writes behind its threadgroup memory");
                    }
                }
            }
        }
    }
}

extern "C" {

ggml_metal_cv_t ggml_metal_cv_init(void) { return new ggml_metal_cv(); }
void ggml_metal_cv_free(ggml_metal_cv_t cv) { delete cv; }
void ggml_metal_cv_set_int16(ggml_metal_cv_t cv, int16_t value, int32_t idx) { set(cv, value, idx); }
void ggml_metal_cv_set_int32(ggml_metal_cv_t cv, int32_t value, int32_t idx) { set(cv, value, idx); }
void ggml_metal_cv_set_bool (ggml_metal_cv_t cv, bool    value, int32_t idx) { set(cv, value, idx); }

void ggml_metal_pipeline_free(ggml_metal_pipeline_t pipeline) { delete pipeline; }
int  ggml_metal_pipeline_max_theads_per_threadgroup(struct ggml_metal_pipeline_with_params) { return 1024; }

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline(ggml_metal_library_t lib, const char * name) {
    ggml_metal_pipeline_with_params res = {};
    res.pipeline = ggml_metal_pipelines_get(lib->pipelines, name);
    return res;
}

ggml_metal_pipeline_with_params ggml_metal_library_compile_pipeline(ggml_metal_library_t lib, const char * base, const char * name, ggml_metal_cv_t cv) {
    for (auto * k = fibers::kernel_entry::first; k; k = k->next) {
        if (strcmp(k->name, base) == 0) {
            ggml_metal_pipelines_add(lib->pipelines, name, new ggml_metal_pipeline{ base, k->run, cv ? *cv : ggml_metal_cv() });
            return ggml_metal_library_get_pipeline(lib, name);
        }
    }
    fail(std::string("there is no kernel ") + base);
}

ggml_metal_encoder_t ggml_metal_encoder_init(ggml_metal_cmd_buf_t, bool) { return &g_encoder; }
void ggml_metal_encoder_free(ggml_metal_encoder_t) {}
void ggml_metal_encoder_debug_group_push(ggml_metal_encoder_t, const char *) {}
void ggml_metal_encoder_debug_group_pop(ggml_metal_encoder_t) {}

// Kernels without a barrier between them run in any order: here the last goes first.
void ggml_metal_encoder_memory_barrier(ggml_metal_encoder_t enc) {
    for (auto d = enc->pending.rbegin(); d != enc->pending.rend(); ++d) {
        run(*d);
    }
    enc->pending.clear();
}

void ggml_metal_encoder_end_encoding(ggml_metal_encoder_t enc) {
    ggml_metal_encoder_memory_barrier(enc);
    enc->next = {};
}

void ggml_metal_encoder_set_pipeline(ggml_metal_encoder_t enc, ggml_metal_pipeline_with_params pipeline) {
    enc->next.pipeline = pipeline.pipeline;
    enc->next.shared   = 0;
    std::fill_n(enc->next.launch.buffers, BUFFERS_OF_OURS, nullptr);
}

void ggml_metal_encoder_set_bytes(ggml_metal_encoder_t enc, void * data, size_t size, int idx) {
    auto & bytes = enc->next.bytes[idx];
    bytes = std::make_shared<std::vector<char>>((char *) data, (char *) data + size);
    enc->next.launch.buffers[idx] = bytes->data();
}

void ggml_metal_encoder_set_buffer(ggml_metal_encoder_t enc, ggml_metal_buffer_id buffer, int idx) {
    enc->next.launch.buffers[idx] = (char *) buffer.metal + buffer.offs;
}

void ggml_metal_encoder_set_threadgroup_memory_size(ggml_metal_encoder_t enc, size_t size, int idx) {
    if (idx != 0 || size % 16 != 0 || size > g_device.props.max_theadgroup_memory_size) {
        fail(enc->next.pipeline->name + ": threadgroup memory of " + std::to_string(size) + " bytes");
    }
    enc->next.shared = size;
}

void ggml_metal_encoder_dispatch_threadgroups(ggml_metal_encoder_t enc, int tg0, int tg1, int tg2, int tptg0, int tptg1, int tptg2) {
    enc->next.groups = { (unsigned) tg0, (unsigned) tg1, (unsigned) tg2 };
    enc->next.launch.threads_per_threadgroup = { (unsigned) tptg0, (unsigned) tptg1, (unsigned) tptg2 };
    enc->pending.push_back(enc->next);
    enc->kernels.push_back(enc->next.pipeline->name);
}

ggml_metal_device_t  ggml_metal_device_init(int, int) { return nullptr; }
void                 ggml_metal_device_free(ggml_metal_device_t) {}
ggml_metal_device_t  ggml_metal_library_get_device(ggml_metal_library_t) { return &g_device; }
ggml_metal_library_t ggml_metal_device_get_library(ggml_metal_device_t dev) { return &dev->library; }
const ggml_metal_device_props * ggml_metal_device_get_props(ggml_metal_device_t dev) { return &dev->props; }

// upstream's own types are those that the tests ask for
bool ggml_metal_device_supports_op(ggml_metal_device_t dev, const ggml_tensor * op) {
    return ggml_metal_turbo_supports_op(op, dev->props.has_simdgroup_mm) != 0;
}

ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t, const ggml_tensor * t) { return { t->data, 0 }; }

} // extern "C"

//
// commands
//

static std::vector<ggml_tensor *> g_tensors;
static ggml_context *             g_ctx;
static ggml_backend_buffer        g_buffer;

static ggml_tensor * tensor(int i) {
    return i < 0 ? nullptr : g_tensors.at(i);
}

static ggml_type type_of(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        if (name == ggml_type_name((ggml_type) i)) {
            return (ggml_type) i;
        }
    }
    fail("no type " + name);
}

// memory of its own, 64 bytes off a page
static void * allocate(size_t size) {
    char * p = (char *) aligned_alloc(4096, (size + GUARD + 64 + 4095)/4096*4096);
    memset(p, 0xff, size + 64);
    memset(p + 64 + size, GUARDED, GUARD);
    return p + 64;
}

static size_t extra(const ggml_tensor * op) {
    if (op->op != GGML_OP_FLASH_ATTN_EXT) {
        return 0;
    }
    return ggml_metal_op_flash_attn_ext_extra_pad(op) +
           ggml_metal_op_flash_attn_ext_extra_blk(op) +
           ggml_metal_op_flash_attn_ext_extra_tmp(op) +
           ggml_metal_op_flash_attn_ext_extra_kv_f16(op) +
           ggml_metal_op_flash_attn_ext_extra_idx(op);
}

static size_t alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * t) {
    return ggml_nbytes(t) + extra(t);
}

static void run(ggml_tensor * op) {
    if (!ggml_metal_device_supports_op(&g_device, op)) {
        std::cout << "unsupported" << std::endl;
        return;
    }
    const size_t size = alloc_size(nullptr, op);
    op->buffer = &g_buffer;
    if (!op->data) {
        op->data = allocate(size);
    }
    op->flags |= GGML_TENSOR_FLAG_COMPUTE;

    ggml_cgraph * graph = ggml_new_graph(g_ctx);
    graph->nodes[graph->n_nodes++] = op;
    static ggml_metal_fusion_info * fusion = ggml_metal_fusion_info_init(false, 0);
    ggml_metal_op_t ctx = ggml_metal_op_init(&g_device, nullptr, graph, fusion, 0, 1, false, false, 0);
    g_encoder.kernels.clear();
    ggml_metal_op_encode(ctx, 0);
    ggml_metal_op_free(ctx);

    if (!op->view_src) {
        for (size_t i = 0; i < GUARD; ++i) {
            if (((char *) op->data)[size + i] != GUARDED) {
                fail("a kernel writes behind the result");
            }
        }
    }
    const ggml_tensor * whole = op->view_src ? op->view_src : op;
    std::cout << "ok " << ggml_nbytes(whole);
    for (const auto & name : g_encoder.kernels) {
        std::cout << " " << name;
    }
    std::cout << "\n";
    std::cout.write((const char *) whole->data, ggml_nbytes(whole));
}

int main() {
    g_device.props.max_theadgroup_memory_size = 32768;
    g_device.props.has_simdgroup_reduction    = true;
    g_device.props.has_simdgroup_mm           = true;
    g_device.library.pipelines                = ggml_metal_pipelines_init();

    static ggml_backend_buffer_type type = {};
    type.iface.get_alloc_size = alloc_size;
    g_buffer.buft = &type;

    g_ctx = ggml_init({ size_t(1) << 30, nullptr, true });

    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream in(line);
        std::string what;
        in >> what;
        if (what == "tensor" || what == "view") {
            std::string type;
            int64_t     ne[4];
            int         of = -1;
            what == "tensor" ? in >> type : in >> of;
            in >> ne[0] >> ne[1] >> ne[2] >> ne[3];
            ggml_tensor * t;
            if (of < 0) {
                t = ggml_new_tensor(g_ctx, type_of(type), 4, ne);
                t->buffer = &g_buffer;
                t->data   = allocate(ggml_nbytes(t));
                std::cin.read((char *) t->data, ggml_nbytes(t));
            } else {
                size_t nb[4];
                in >> nb[1] >> nb[2] >> nb[3] >> nb[0];
                t = ggml_view_4d(g_ctx, tensor(of), ne[0], ne[1], ne[2], ne[3], nb[1], nb[2], nb[3], nb[0]);
                t->buffer = &g_buffer;
                t->data   = (char *) tensor(of)->data + nb[0];
            }
            g_tensors.push_back(t);
        } else if (what == "set_rows") {
            int dst, src, ids;
            in >> dst >> src >> ids;
            ggml_tensor * op = ggml_set_rows(g_ctx, tensor(dst), tensor(src), tensor(ids));
            op->data = tensor(dst)->data;
            run(op);
        } else if (what == "get_rows") {
            int src, ids;
            in >> src >> ids;
            run(ggml_get_rows(g_ctx, tensor(src), tensor(ids)));
        } else if (what == "cpy") {
            int src, dst;
            in >> src >> dst;
            ggml_tensor * op = ggml_cpy(g_ctx, tensor(src), tensor(dst));
            op->data = tensor(dst)->data;
            run(op);
        } else if (what == "cast") {
            int         src;
            std::string type;
            in >> src >> type;
            run(ggml_cast(g_ctx, tensor(src), type_of(type)));
        } else if (what == "attend") {
            int   q, k, v, mask, sinks, anchors, ids, n_kv_max;
            float scale, max_bias, softcap;
            in >> q >> k >> v >> mask >> sinks >> anchors >> ids >> scale >> max_bias >> softcap >> n_kv_max;
            ggml_tensor * op = ggml_flash_attn_ext(g_ctx, tensor(q), tensor(k), tensor(v), tensor(mask), scale, max_bias, softcap);
            ggml_flash_attn_ext_add_sinks(op, tensor(sinks));
            ggml_flash_attn_ext_set_n_kv_max(op, n_kv_max);
            if (anchors >= 0) {
                ggml_flash_attn_ext_add_anchors(op, tensor(anchors), tensor(ids));
            }
            run(op);
        } else {
            fail("what is " + line);
        }
        if (!std::cin || in.fail()) {
            fail("cannot read " + line);
        }
    }
    return 0;
}
