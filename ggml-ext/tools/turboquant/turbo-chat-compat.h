#pragma once

// Chats of one llama.cpp that this project is built with, and of the other (vendor/llama.cpp.toml): newer ones keep a prompt in
// parts and a parser as it is, where older ones have a text of each. Found by what their types have.

#include "chat.h"

#include <string>

struct turbo_chat_compat {
    // a whole prompt
    static std::string text(const std::string & prompt) { return prompt; }
    template <typename prompt_t>
    static std::string text(const prompt_t & prompt) { return prompt.str(); }

    // what reads answers to the prompt of params
    static common_chat_parser_params parser(const common_chat_params & params, common_reasoning_format format) {
        common_chat_parser_params res(params);
        set_format(res, format, 0);
        set_parser(res, params.parser);
        return res;
    }

    static common_chat_msg parse(const std::string & answer, bool partial, const common_chat_parser_params & params) {
        using input_t = decltype(common_chat_parser_params::generation_prompt);
        return common_chat_parse(input_t(answer), partial, params);
    }

    static bool has_cap(const common_chat_templates * templates, const char * name) {
        const common_json caps = common_chat_templates_get_caps(templates);
        return caps.at(name).get<bool>();
    }

private:
    // newer ones have it in the parser
    template <typename params_t>
    static auto set_format(params_t & params, common_reasoning_format format, int) -> decltype(params.reasoning_format, void()) {
        params.reasoning_format = format;
    }
    template <typename params_t>
    static void set_format(params_t &, common_reasoning_format, long) {}

    template <typename params_t>
    static void set_parser(params_t & params, const std::string & parser) {
        if (!parser.empty()) {
            params.parser.load(parser);
        }
    }
    template <typename params_t>
    static void set_parser(params_t & params, const common_peg_arena & parser) {
        params.parser = parser;
    }
};
