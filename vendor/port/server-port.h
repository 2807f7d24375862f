// What llama-server, whose source is of an earlier llama.cpp than the libraries it is built with, keeps for itself since
// they have dropped it, and what it has no code for. Included by server-common.h.

#pragma once

#include "chat.h"
#include "common.h"

#include <stdexcept>
#include <string>

// The libraries read none of these any more: a template's parser is made for one reasoning format. The server reports
// them, and knows by them whether an answer goes on with a given beginning.
struct server_chat_parser_params : common_chat_parser_params {
    common_reasoning_format reasoning_format     = COMMON_REASONING_FORMAT_NONE;
    bool                    reasoning_in_content = false;
    bool                    parse_tool_calls     = true;
    bool                    is_continuation      = false;
    bool                    echo                 = false;
};

inline common_json server_delimiters_to_json(const common_chat_msg_delimiters & delimiters) {
    common_json result = common_json::array();
    for (const auto & d : delimiters.delimiters) {
        result.push_back({
            {"role",      std::string(common_chat_role_to_string(d.role))},
            {"delimiter", d.delimiter},
        });
    }
    return result;
}

// Those of a request may be anything: what is no delimiter is left out.
inline common_chat_msg_delimiters server_delimiters_from_json(const common_json & delimiters) {
    common_chat_msg_delimiters result;
    if (!delimiters.is_array()) {
        return result;
    }
    for (const auto & d : delimiters) {
        if (d.is_object()) {
            result.add(common_chat_role_from_string(d.value("role", std::string())), d.value("delimiter", std::string()));
        }
    }
    return result;
}

// The libraries have no parsers as text since, so that a request cannot bring its own.
[[noreturn]] inline void server_refuse_chat_parser() {
    throw std::invalid_argument("a parser as text is not supported: /v1/chat/completions makes one from the chat template");
}

// A checkpoint without which a slot cannot go on.
inline void server_require_checkpoint(bool loaded, const char * what, int id_slot) {
    if (!loaded) {
        GGML_ABORT("slot %d: the checkpoint of the %s does not fit its context\n", id_slot, what);
    }
}

// Options that the libraries parse and this server has no code for: what to say of the first, or nothing.
inline std::string server_refused_option(const common_params & params) {
    const std::string has_no = " is not supported by this llama-server, whose source is older than its libraries: ";
    if (params.server_connect || !params.server_connect_code.empty()) {
        return "--connect" + has_no + "start llama-connect by itself";
    }
    if (params.models_memory_margin != 0) {
        return "--models-memory-margin " + std::to_string(params.models_memory_margin) + has_no +
               "limit the number of models with --models-max";
    }
    if (params.speculative.draft.probabilistic) {
        return "--spec-draft-sampling probabilistic" + has_no + "use greedy";
    }
    return "";
}
