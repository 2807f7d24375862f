// Upstream's tests of chat templates look at a prompt as one text. The library's has parts since.

#pragma once

#include "chat.h"

#include <string>

struct test_chat_params : common_chat_params {
    std::string prompt; // hides the parts

    test_chat_params() = default;
    test_chat_params(common_chat_params params) : common_chat_params(std::move(params)), prompt(common_chat_params::prompt.str()) {}
};

inline test_chat_params test_chat_templates_apply(const common_chat_templates * tmpls, const common_chat_templates_inputs & inputs) {
    return common_chat_templates_apply(tmpls, inputs);
}

#define common_chat_templates_apply test_chat_templates_apply
