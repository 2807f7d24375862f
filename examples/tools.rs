//! A model calls a tool, which the program runs, and answers with what it gave. A model whose chat template knows of no
//! tools needs one that does, in a file.
//!
//!     cargo run --release --example tools -- MODEL.gguf [TEMPLATE.jinja]

use std::error::Error;
use std::io::Write;

use llama_turboquant::llama::{
    CacheType, ChatMessage, ChatSession, ChatTemplate, ChatTool, Context, ContextParams,
    GenerateOptions, Model, Sampler, ToolCall, ToolChoice,
};

const QUESTION: &str = "What is the weather in Paris?";
const PARAMETERS: &str = r#"{
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Its name in English."},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}
    },
    "required": ["city", "unit"]
}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: tools MODEL.gguf [TEMPLATE.jinja]")?;
    let model = Model::load(path)?;
    let template = match args.next() {
        Some(file) => ChatTemplate::new(&model, &std::fs::read_to_string(file)?)?,
        None => ChatTemplate::of_model(&model)?,
    };
    let params = ContextParams::default().cache_types(CacheType::Turbo4, CacheType::Turbo3);
    let mut chat = ChatSession::new(Context::new(&model, &params)?, template, Vec::new());
    let tool = ChatTool::new("get_weather", "The weather of a city, now.", PARAMETERS);
    // A call is required for a question; when it is answered, the model may speak.
    chat.offer(vec![tool], ToolChoice::Required);

    let mut sampler = Sampler::greedy(&model)?;
    let options = || GenerateOptions::default().max_tokens(256);
    println!("> {QUESTION}");
    let mut answer = chat.ask(QUESTION, &mut sampler, options(), print)?;
    for _ in 0..4 {
        if answer.tool_calls.is_empty() {
            break;
        }
        let mut results = Vec::new();
        for call in &answer.tool_calls {
            let result = run(call);
            println!("[{}({}): {result}]", call.name, call.arguments);
            results.push(ChatMessage::tool(call, result));
        }
        answer = chat.answer_calls(results, &mut sampler, options(), print)?;
    }
    println!();
    Ok(())
}

fn print(piece: &str) {
    print!("{piece}");
    let _ = std::io::stdout().flush(); // the answer goes on without it
}

/// What the tool gives; errors are for the model, too.
fn run(call: &ToolCall) -> String {
    let arguments: serde_json::Value = match serde_json::from_str(&call.arguments) {
        Ok(arguments) => arguments,
        Err(e) => return format!("error: {e}"),
    };
    match (call.name.as_str(), arguments["unit"].as_str()) {
        ("get_weather", Some("celsius")) => format!("{}: 21 degrees, sunny", arguments["city"]),
        ("get_weather", Some(_)) => format!("{}: 70 degrees, sunny", arguments["city"]),
        _ => format!("error: there is no tool {}", call.name),
    }
}
