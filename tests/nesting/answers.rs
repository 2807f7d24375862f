//! What models answer, where tools are offered.

use llama_turboquant::llama::{
    ChatError, ChatMessage, ChatPrompt, ChatRequest, ChatTemplate, ToolCall, ToolChoice,
};

use super::{assert_refused, nested, small, tiny, upstream_has_limits, with_stack};
use crate::common::tools::{TEMPLATE, weather};

fn prompt() -> ChatPrompt {
    let template = ChatTemplate::new(tiny(), TEMPLATE).expect("a template");
    let (messages, tools) = ([ChatMessage::user("Hello")], [weather()]);
    let request = ChatRequest::new(&messages).tools(&tools).tool_choice(ToolChoice::Auto);
    template.prompt(&request).expect("a prompt")
}

#[test]
fn answers_nest_to_a_limit() {
    with_stack(1 << 20, || {
        let prompt = prompt();
        let call = |city: &str| {
            format!(
                "<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {{\"city\": {city}}}}}\n</tool_call>"
            )
        };
        let read = prompt.parse(&call("\"Oslo\""), false).expect("a call");
        assert_eq!(read.tool_calls.len(), 1);
        for partial in [false, true] {
            // Those of the call count, too.
            let most = match upstream_has_limits() {
                true => 60,
                false if cfg!(target_os = "macos") => 100,
                false => 254,
            };
            prompt.parse(&call(&nested(most, "[", "1", "]")), partial).expect("a call");
            if upstream_has_limits() {
                let text = nested(100, "[", "1", "]");
                assert_refused(prompt.parse(&call(&text), partial), &["64 levels deep"]);
            }
            for text in [nested(2000, "[", "1", "]"), "[".repeat(200_000)] {
                let words = ["brackets are open", "256 are possible"];
                assert_refused(prompt.parse(&call(&text), partial), &words);
            }
        }
    });
}

#[test]
fn arguments_of_calls_nest_to_a_limit() {
    small(|| {
        let template = ChatTemplate::new(tiny(), TEMPLATE).expect("a template");
        let ask = |arguments: String| {
            let call = ToolCall { id: "c".into(), name: "t".into(), arguments };
            let messages = [ChatMessage::user("Hello"), ChatMessage::tool_calls("", vec![call])];
            template.apply(&messages, true)
        };
        ask(format!("{{\"a\": {}}}", nested(100, "[", "1", "]"))).expect("a prompt");
        let error = ask(format!("{{\"a\": {}}}", nested(100_000, "[", "1", "]")));
        assert!(matches!(error, Err(ChatError::Arguments { .. })), "{error:?}");
    });
}
