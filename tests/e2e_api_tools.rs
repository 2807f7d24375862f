//! Tools in chats, on SmolLM2 with templates that know of them.
#![cfg(feature = "llama")]

mod common;

use llama_turboquant::llama::{
    ChatError, ChatMessage, ChatPrompt, ChatRequest, ChatSession, ChatSessionError, ChatTemplate,
    ChatTool, Finish, GenerateOptions, GrammarTrigger, Role, Sampler, SamplerError, ToolCall,
    ToolChoice,
};
use serde_json::Value;

use common::api::{context, params, smollm2, tokens};
use common::tools::{TEMPLATE, clock, special_template, thinking_template, weather};

fn template() -> ChatTemplate {
    ChatTemplate::new(smollm2(), TEMPLATE).expect("a template")
}

fn question() -> [ChatMessage; 1] {
    [ChatMessage::user("What is the weather in Paris?")]
}

fn prompt(template: &ChatTemplate, choice: ToolChoice) -> ChatPrompt {
    let (messages, tools) = (question(), [weather(), clock()]);
    let request = ChatRequest::new(&messages).tools(&tools).tool_choice(choice);
    template.prompt(&request).expect("a prompt")
}

fn call(id: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.into(), name: "get_weather".into(), arguments: arguments.into() }
}

/// The greedy answer to a prompt.
fn answer(prompt: &ChatPrompt, sampler: &mut Sampler, max_tokens: usize) -> String {
    let tokens = smollm2().vocab().tokenize(prompt.text(), true, true).expect("tokens");
    let options = GenerateOptions::default().max_tokens(max_tokens).chat(prompt);
    let mut context = context(&params().n_ctx(1024));
    context.generate(&tokens, sampler, options).text().expect("an answer")
}

#[test]
fn a_prompt_describes_the_tools_and_how_they_are_called() {
    let template = template();
    let auto = prompt(&template, ToolChoice::Auto);
    assert!(auto.text().contains(r#""description": "The weather of a city, now.""#), "{auto:?}");
    assert!(auto.text().ends_with("<|im_start|>assistant\n"), "{auto:?}");
    assert!(auto.describes_tools());
    assert_eq!(auto.triggers(), [GrammarTrigger::Word("<tool_call>\n".into())]);
    assert!(auto.grammar().is_some_and(|grammar| grammar.contains(r#"\"Oslo\""#)));

    let required = prompt(&template, ToolChoice::Required);
    assert_eq!(required.text(), format!("{}<tool_call>\n", auto.text()));
    assert_eq!(required.triggers(), []);
    assert!(required.grammar().is_some());

    let none = prompt(&template, ToolChoice::None);
    assert_eq!((none.text(), none.grammar()), (auto.text(), None));

    // One call or several.
    let (messages, tools) = (question(), [weather()]);
    let request = ChatRequest::new(&messages).tools(&tools);
    let [one, several] = [false, true].map(|parallel| {
        let prompt = template.prompt(&request.parallel_calls(parallel)).expect("a prompt");
        prompt.grammar().expect("a grammar").to_string()
    });
    assert_ne!(one, several);
}

#[test]
fn calls_and_answers_are_part_of_the_next_prompt() {
    let template = template();
    let call = call("call00000", r#"{"city": "Paris", "unit": "celsius"}"#);
    let mut messages = question().to_vec();
    messages.push(ChatMessage::tool_calls("", vec![call.clone()]));
    messages.push(ChatMessage::tool(&call, "20 degrees"));
    let text = template.apply(&messages, true).expect("a prompt");
    assert_eq!(
        text,
        "<|im_start|>user\nWhat is the weather in Paris?<|im_end|>\n<|im_start|>assistant\n\n<tool_call>\n\
         {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"unit\": \"celsius\"}}\n</tool_call>\
         <|im_end|>\n<|im_start|>user\n<tool_response>\n20 degrees\n</tool_response><|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let without = template.apply(&messages, false).expect("a prompt");
    assert_eq!(text.strip_prefix(&without), Some("<|im_start|>assistant\n"));
}

#[test]
fn a_template_without_tools_says_so() {
    let template = ChatTemplate::of_model(smollm2()).expect("it has one");
    let (messages, tools) = (question(), [weather()]);
    let request = ChatRequest::new(&messages);
    for choice in [ToolChoice::Auto, ToolChoice::Required] {
        let error = template.prompt(&request.tools(&tools).tool_choice(choice)).expect_err("none");
        assert_eq!(error, ChatError::NoTools);
    }
    // No call is asked for.
    let plain = template.prompt(&request).expect("a prompt");
    assert_eq!(Ok(plain.text()), template.apply(&messages, true).as_deref());
    assert_eq!(plain.grammar(), None);
    assert!(template.prompt(&request.tools(&tools).tool_choice(ToolChoice::None)).is_ok());
}

#[test]
fn answers_are_read_whole_and_in_part() {
    let template = template();
    let prompt = prompt(&template, ToolChoice::Auto);
    let oslo = r#"{"city": "Oslo", "unit": "celsius"}"#;
    let first = format!(
        "Wait.\n<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {oslo}}}\n</tool_call>\n"
    );
    let whole = format!(
        "{first}<tool_call>\n{{\"name\": \"get_time\", \"arguments\": {{}}}}\n</tool_call>"
    );
    let message = prompt.parse(&whole, false).expect("a message");
    let time = ToolCall { id: "call00001".into(), name: "get_time".into(), arguments: "{}".into() };
    let weather = call("call00000", oslo);
    assert_eq!(message.role, Role::Assistant);
    assert_eq!(message.content.trim(), "Wait.");
    assert_eq!(message.tool_calls, [weather.clone(), time]);

    let begun =
        format!("{first}<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {{\"city\": \"Ro");
    let message = prompt.parse(&begun, true).expect("a message");
    assert_eq!(message.content.trim(), "Wait.");
    assert_eq!(message.tool_calls, [weather.clone(), call("call00001", r#"{"city": "Ro"#)]);
    let deep = format!("{begun}{}", "[".repeat(300));
    let error = prompt.parse(&deep, true).expect_err("it is too deep").to_string();
    assert!(error.ends_with("302 brackets are open at once, 256 are possible"), "{error}");
    // The beginning of a mark is no text.
    assert_eq!(prompt.parse("Wait.<tool_c", true).expect("a message").content, "Wait.");

    // Numbers go on through the chat.
    let mut messages = question().to_vec();
    messages.push(ChatMessage::tool_calls("", vec![call("call00041", oslo)]));
    messages.push(ChatMessage::tool(&call("call00041", oslo), "3 degrees"));
    let tools = [common::tools::weather()];
    let prompt = template.prompt(&ChatRequest::new(&messages).tools(&tools)).expect("a prompt");
    let message = prompt.parse(&first, false).expect("a message");
    assert_eq!(message.tool_calls, [call("call00042", oslo)]);
}

#[test]
fn a_call_that_is_cut_off_is_left_out() {
    let mut chat = ChatSession::new(context(&params().n_ctx(1024)), template(), vec![]);
    chat.offer(vec![weather()], ToolChoice::Required);
    let mut sampler = Sampler::greedy(smollm2()).expect("a sampler");
    let options = GenerateOptions::default().max_tokens(12);
    let answer = chat.ask("What is the weather in Paris?", &mut sampler, options, |_| {});
    let answer = answer.expect("an answer");
    assert_eq!((answer.finish, answer.tool_calls), (Finish::MaxTokens, vec![]));
    assert_eq!(chat.messages()[1..], [ChatMessage::assistant("")]);
}

#[test]
fn a_required_call_is_made() {
    let prompt = prompt(&template(), ToolChoice::Required);
    let mut sampler = Sampler::builder(smollm2()).chat(&prompt).greedy().expect("a sampler");
    let text = answer(&prompt, &mut sampler, 48);
    let message = prompt.parse(&text, false).expect("a message");
    assert_eq!(message.content, "", "{text}");
    let first = &message.tool_calls[0];
    assert_eq!(first.name, "get_weather", "{text}");
    let arguments: Value = serde_json::from_str(&first.arguments).expect("JSON");
    assert_eq!(arguments["city"], "Paris", "{text}");
    assert!(["celsius", "fahrenheit"].contains(&arguments["unit"].as_str().expect("a unit")));

    // Begun anew, the grammar is where the prompt ends again.
    sampler.reset().expect("it begins anew");
    assert_eq!(answer(&prompt, &mut sampler, 48), text);
    let mut free = Sampler::greedy(smollm2()).expect("a sampler");
    assert_ne!(answer(&prompt, &mut free, 48), text);
}

/// Whether the sampler takes a text from where it is.
fn takes(sampler: &Sampler, text: &str) -> bool {
    let mut sampler = sampler.try_clone().expect("a clone");
    tokens(text).into_iter().all(|token| sampler.accept(token).is_ok())
}

#[test]
fn a_lazy_grammar_constrains_from_its_trigger_on() {
    let grammar = r#"root ::= "Answer: " ("yes" | "no")"#;
    let triggers = [
        GrammarTrigger::Word("Answer: ".into()),
        GrammarTrigger::Pattern("[.!?] (Answer: )".into()),
    ];
    for trigger in triggers {
        let builder = Sampler::builder(smollm2()).lazy_grammar(
            grammar,
            "root",
            std::slice::from_ref(&trigger),
        );
        let mut sampler = builder.greedy().expect("a sampler");
        assert!(takes(&sampler, "Anything at all (and more)."));
        assert!(takes(&sampler, "Let me see. Answer: yes"), "{trigger:?}");
        assert!(!takes(&sampler, "Let me see. Answer: perhaps"), "{trigger:?}");

        // What is likeliest is chosen before, and not behind it.
        let perhaps = tokens("perhaps")[0];
        let mut logits = vec![0.0; smollm2().vocab().n_tokens() as usize];
        logits[usize::try_from(perhaps).expect("a token")] = 9.0;
        assert_eq!(sampler.sample_logits(&logits), Ok(perhaps));
        for token in tokens(". Answer: ") {
            sampler.accept(token).expect("it is allowed");
        }
        assert_ne!(sampler.sample_logits(&logits), Ok(perhaps));
        assert!(!takes(&sampler, "Let"));
        sampler.reset().expect("it begins anew");
        assert_eq!(sampler.sample_logits(&logits), Ok(perhaps));
    }

    let token = tokens("#")[0];
    let builder = Sampler::builder(smollm2());
    let builder =
        builder.lazy_grammar(r##"root ::= "#" [0-9]+"##, "root", &[GrammarTrigger::Token(token)]);
    let sampler = builder.greedy().expect("a sampler");
    assert!(takes(&sampler, "a b c"));
    for (next, allowed) in [("1", true), ("b", false)] {
        let mut sampler = sampler.try_clone().expect("a clone");
        sampler.accept(token).expect("it is allowed");
        assert_eq!(sampler.accept(tokens(next)[0]).is_ok(), allowed, "{next}");
    }
}

#[test]
fn a_chat_s_grammar_waits_for_a_call_outside_of_thoughts() {
    let prompt_of = |source: &str| {
        let template = ChatTemplate::new(smollm2(), source).expect("a template");
        prompt(&template, ToolChoice::Auto)
    };
    let plain = prompt_of(TEMPLATE);
    let sampler = Sampler::builder(smollm2()).chat(&plain).greedy().expect("a sampler");
    assert!(takes(&sampler, "It is warm."));
    assert!(takes(&sampler, "Wait. <tool_call>\n{\"name\": \"get_time\""));
    assert!(!takes(&sampler, "Wait. <tool_call>\nno"));

    let thinking = prompt_of(&thinking_template());
    let message = thinking.parse("<think>\nA city.\n</think>\n\nParis it is.", false);
    let message = message.expect("a message");
    assert_eq!(message.reasoning.as_deref().map(str::trim), Some("A city."));
    assert_eq!(message.content, "Paris it is.");
    let sampler = Sampler::builder(smollm2()).chat(&thinking).greedy().expect("a sampler");
    assert!(takes(&sampler, "<think>\nA <tool_call>\nno, an answer"));
    assert!(!takes(&sampler, "<think>\nA city\n</think>\n\n<tool_call>\nno"));
    assert!(takes(&sampler, "<think>\nA city\n</think>\n\n<tool_call>\n{\"name\": \"get_time\""));
}

#[test]
fn special_tokens_of_calls_are_in_the_text() {
    let template = ChatTemplate::new(smollm2(), &special_template()).expect("a template");
    let auto = prompt(&template, ToolChoice::Auto);
    let special = |text: &str| smollm2().vocab().tokenize(text, false, true).expect("tokens")[0];
    let end = special("<jupyter_output>");
    assert!(smollm2().vocab().is_control(end));
    assert!(auto.preserved_tokens().contains(&end), "{:?}", auto.preserved_tokens());

    let required = prompt(&template, ToolChoice::Required);
    let mut sampler = Sampler::builder(smollm2()).chat(&required).greedy().expect("a sampler");
    let text = answer(&required, &mut sampler, 64);
    assert!(text.contains("<jupyter_output>"), "{text}");
    let message = required.parse(&text, false).expect("a message");
    assert_eq!(message.tool_calls[0].name, "get_weather", "{text}");

    // The token that ends an answer, too.
    let question = [ChatMessage::user("What is the capital of France? Answer in one word.")];
    let plain = template.prompt(&ChatRequest::new(&question)).expect("a prompt");
    let mut greedy = Sampler::greedy(smollm2()).expect("a sampler");
    let eos = smollm2().vocab().eos().expect("one");
    let tokens = smollm2().vocab().tokenize(plain.text(), true, true).expect("tokens");
    let mut texts =
        [GenerateOptions::default(), GenerateOptions::default().preserve([eos])].map(|options| {
            let mut context = context(&params());
            let options = options.max_tokens(32);
            context.generate(&tokens, &mut greedy, options).text().expect("an answer")
        });
    texts[0] += "<|im_end|>";
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn a_session_calls_tools_and_goes_on() {
    let context = context(&params().n_ctx(1024));
    let mut chat = ChatSession::new(context, template(), vec![]);
    chat.offer(vec![weather()], ToolChoice::Required);
    let mut sampler = Sampler::greedy(smollm2()).expect("a sampler");
    let options = || GenerateOptions::default().max_tokens(40);
    let mut text = String::new();
    let answer = chat
        .ask("What is the weather in Paris?", &mut sampler, options(), |piece| text.push_str(piece))
        .expect("an answer");
    assert_eq!(text, "");
    let [call] = &answer.tool_calls[..] else { panic!("{answer:?}") };
    assert_eq!((call.name.as_str(), call.id.as_str()), ("get_weather", "call00000"));
    assert_eq!(chat.messages()[1].tool_calls, answer.tool_calls);
    // The sampler is as it was.
    assert!(takes(&sampler, "anything"));

    let before = chat.messages().to_vec();
    let stranger = ToolCall { id: "call00007".into(), ..call.clone() };
    let mut reply = |chat: &mut ChatSession, answers: Vec<ChatMessage>| {
        chat.answer_calls(answers, &mut sampler, options(), |piece| text.push_str(piece))
    };
    let error = reply(&mut chat, vec![ChatMessage::tool(&stranger, "1")]).expect_err("no call");
    assert_eq!(error.to_string(), "no call call00007 waits for an answer");
    let error = reply(&mut chat, vec![]).expect_err("no answer");
    assert!(
        matches!(&error, ChatSessionError::Unanswered { id, .. } if id == "call00000"),
        "{error}"
    );
    assert_eq!(chat.messages(), before);

    let answer = reply(&mut chat, vec![ChatMessage::tool(call, "20 degrees, sunny")]);
    let answer = answer.expect("an answer");
    assert!(!text.is_empty() && answer.tool_calls.is_empty(), "{text}: {answer:?}");
    assert!(matches!(answer.finish, Finish::MaxTokens | Finish::EndOfGeneration(_)));
    assert_eq!(chat.messages().last(), Some(&ChatMessage::assistant(text.as_str())));
    assert_eq!(chat.messages().len(), 4);

    let mut own = Sampler::builder(smollm2())
        .grammar(r#"root ::= "yes""#, "root")
        .greedy()
        .expect("a sampler");
    let error = chat.ask("Well?", &mut own, options(), |_| {}).expect_err("two grammars");
    assert_eq!(error, ChatSessionError::Sampler(SamplerError::TwoGrammars));
    assert!(!takes(&own, "no"));
}

#[test]
fn a_session_forgets_a_question_with_its_calls() {
    let mut chat = ChatSession::new(context(&params().n_ctx(640)), template(), vec![]);
    chat.offer(vec![weather()], ToolChoice::Required);
    let mut sampler = Sampler::greedy(smollm2()).expect("a sampler");
    let long = "one two three four five six seven eight nine ten ".repeat(20);
    let mut n_forgotten = 0;
    for _ in 0..3 {
        let options = || GenerateOptions::default().max_tokens(40);
        let answer = chat.ask(format!("{long} Paris?"), &mut sampler, options(), |_| {});
        let answer = answer.expect("an answer");
        n_forgotten += answer.n_forgotten;
        let calls = answer.tool_calls.iter();
        let answers: Vec<_> = calls.map(|call| ChatMessage::tool(call, "20 degrees")).collect();
        assert_eq!(answers.len(), 1);
        let answer = chat.answer_calls(answers, &mut sampler, options(), |_| {});
        n_forgotten += answer.expect("an answer").n_forgotten;
        // Whole turns: question, call, its answer, the model's.
        assert_eq!(chat.messages()[0].role, Role::User);
        assert_eq!(chat.messages().len() % 4, 0);
    }
    assert!(n_forgotten > 0 && n_forgotten % 4 == 0, "{n_forgotten}");
}

#[test]
fn bad_tools_are_named() {
    let (template, messages) = (template(), question());
    let error = |tools: &[ChatTool]| {
        let request = ChatRequest::new(&messages).tools(tools);
        template.prompt(&request).expect_err("bad tools").to_string()
    };
    let with = |parameters: &str| ChatTool::new("get_weather", "", parameters);
    assert_eq!(error(&[weather(), clock(), weather()]), "two tools are called get_weather");
    assert_eq!(error(&[clock(), ChatTool::new(" ", "", "{}")]), "tool 1 has no name");
    assert_eq!(error(&[ChatTool::new("a\0b", "", "{}")]), r"the tool a\0b has a NUL byte in it");
    let start = "the parameters of the tool get_weather are no JSON schema of an object: ";
    for (parameters, reason) in [
        (r#"{"type": "obj"#, "EOF while parsing"),
        (r#""string""#, "is no object"),
        (r#"{"type": "array"}"#, r#"its type is "array""#),
        (r#"{"type": "object", "properties": {"a": 1}}"#, "#/properties/a"),
        (r##"{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}"##, "recursion"),
        (r#"{"type": "objekt"}"#, "objekt"),
        (r##"{"$ref": "#/nowhere"}"##, "nowhere"),
    ] {
        let error = error(&[clock(), with(parameters)]);
        assert!(error.starts_with(start) && error.contains(reason), "{error}");
    }

    let error = |messages: &[ChatMessage]| {
        let error = template.prompt(&ChatRequest::new(messages)).expect_err("bad messages");
        error.to_string()
    };
    let bad = ChatMessage::tool_calls("", vec![call("1", "{city: Paris}")]);
    let expected = "the arguments of a call of get_weather are no JSON: ";
    assert!(error(&[question()[0].clone(), bad.clone()]).starts_with(expected));
    assert!(template.apply(&[bad], true).is_err_and(|e| e.to_string().starts_with(expected)));
    let nul = ChatMessage::user("a\0b");
    assert_eq!(error(&[question()[0].clone(), nul]), "message 1 has a NUL byte in it");
    assert_eq!(error(&[]), "the chat template cannot be applied: there are no messages");
    let request = ChatRequest::new(&messages).tool_choice(ToolChoice::Required);
    assert_eq!(template.prompt(&request).expect_err("no tools"), ChatError::NothingToCall);
}

#[test]
fn bad_triggers_are_named() {
    let error = |grammar: &str, triggers: &[GrammarTrigger]| {
        let builder = Sampler::builder(smollm2()).lazy_grammar(grammar, "root", triggers);
        builder.greedy().expect_err("bad triggers")
    };
    let grammar = r#"root ::= "a""#;
    assert_eq!(error(grammar, &[]), SamplerError::NoTrigger);
    let word = GrammarTrigger::Word(String::new());
    assert_eq!(error(grammar, &[word]).to_string(), r#""" cannot trigger a grammar: it is empty"#);
    let message = error(grammar, &[GrammarTrigger::Pattern("a(b".into())]).to_string();
    assert!(message.starts_with(r#""a(b" cannot trigger a grammar: "#), "{message}");
    let message = error(grammar, &[GrammarTrigger::Word("a\0".into())]).to_string();
    assert_eq!(message, "the text of a grammar's trigger has a NUL byte in it");
    assert!(matches!(error(grammar, &[GrammarTrigger::Token(-1)]), SamplerError::Token { .. }));
    let word = GrammarTrigger::Word("a".into());
    assert!(matches!(error("root ::= (", &[word]), SamplerError::Grammar { .. }));
}
