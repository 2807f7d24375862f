//! Tools to offer, and a template that knows of them.

use llama_turboquant::llama::ChatTool;

/// ChatML with tools, as Hermes and Qwen have them.
pub const TEMPLATE: &str = r#"
{%- if tools %}{{ '<|im_start|>system\nYou may call functions:\n<tools>' }}
{%- for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}
{{- '\n</tools>\nReturn each call as JSON:\n<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}{{ call.function.arguments | tojson }}{{ '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"#;

/// The weather of a city, in one of two units.
pub fn weather() -> ChatTool {
    let parameters = r#"{
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Oslo", "Paris", "Rome"]},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}
        },
        "required": ["city", "unit"]
    }"#;
    ChatTool::new("get_weather", "The weather of a city, now.", parameters)
}

/// The time; no arguments.
pub fn clock() -> ChatTool {
    ChatTool::new("get_time", "The time, now.", "{}")
}

/// The same template, of a model that thinks first.
pub fn thinking_template() -> String {
    let content = "(message.content or '') }}";
    let thoughts = "}}\n{%- if message.reasoning_content %}{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}\
                    {%- endif %}\n{{- (message.content or '') }}";
    let template = TEMPLATE.replace(&format!("+ {content}"), thoughts);
    assert_ne!(template, TEMPLATE);
    template
}

/// The same template, with special tokens of SmolLM2's around calls.
pub fn special_template() -> String {
    let template = TEMPLATE.replace("</tool_call>", "<jupyter_output>");
    template.replace("<tool_call>", "<jupyter_code>")
}
