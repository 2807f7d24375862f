//! The safe API's chat templates, on SmolLM2 and on a model without one.
#![cfg(feature = "llama")]

mod common;

use llama_turboquant::llama::{
    ChatError, ChatMessage, ChatSession, ChatSessionError, ChatTemplate, Finish, GenerateOptions,
    Model, Role, Sampler,
};

use common::api::{context, params, smollm2};
use common::gguf::{Tiny, write_tiny_model};

#[test]
fn a_model_s_template_is_applied() {
    let template = ChatTemplate::of_model(smollm2()).expect("it has one");
    let chat = [
        ChatMessage::system("Be brief."),
        ChatMessage::user("Hi, \"you\" & <me>"),
        ChatMessage::assistant("Hello."),
        ChatMessage::user("How are you?"),
    ];
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi, \"you\" & <me><|im_end|>\n\
                    <|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n";
    assert_eq!(template.apply(&chat, false).as_deref(), Ok(expected));
    let prompt = template.apply(&chat, true).expect("a prompt");
    assert_eq!(prompt, format!("{expected}<|im_start|>assistant\n"));
    // The template's own system message.
    let prompt = template.apply(&chat[1..2], false).expect("a prompt");
    assert!(prompt.starts_with("<|im_start|>system\nYou are"), "{prompt}");
}

#[test]
fn a_chat_gets_an_answer() {
    let template = ChatTemplate::of_model(smollm2()).expect("it has one");
    let chat = [ChatMessage::user("What is the capital of France? Answer in one word.")];
    let prompt = template.apply(&chat, true).expect("a prompt");
    let tokens = smollm2().vocab().tokenize(&prompt, true, true).expect("tokens");
    let (mut context, mut sampler) =
        (context(&params()), Sampler::greedy(smollm2()).expect("a sampler"));
    let options = GenerateOptions::default().max_tokens(32);
    let answer = context.generate(&tokens, &mut sampler, options).text().expect("an answer");
    assert!(answer.contains("Paris"), "{answer}");
}

#[test]
fn templates_are_jinja() {
    let source = "{{ bos_token }}{% for m in messages %}[{{ m['role'] | upper }}: {{ m.content.strip() }}]\
                  {% endfor %}{% if add_generation_prompt %}>{% endif %}";
    let template = ChatTemplate::new(smollm2(), source).expect("a template");
    let chat = [ChatMessage::user(" é "), ChatMessage::new(Role::Other("critic".into()), "b")];
    assert_eq!(template.apply(&chat, true).as_deref(), Ok("<|im_start|>[USER: é][CRITIC: b]>"));
    assert_eq!(template.apply(&[], false).as_deref(), Ok("<|im_start|>"));
}

#[test]
fn what_cannot_be_applied_is_an_error() {
    let error = ChatTemplate::new(smollm2(), "{% for m in %}").expect_err("no Jinja");
    assert!(matches!(&error, ChatError::Template { reason } if !reason.is_empty()), "{error}");
    let refuses = "{{ raise_exception('no ' + messages[0].role + ' here') }}";
    let template = ChatTemplate::new(smollm2(), refuses).expect("a template");
    let error = template.apply(&[ChatMessage::user("a")], true).expect_err("it refuses");
    assert!(
        matches!(&error, ChatError::Apply { reason } if reason.contains("no user here")),
        "{error}"
    );
    let error = template.apply(&[ChatMessage::user("a\0b")], true).expect_err("a NUL");
    assert!(matches!(error, ChatError::Nul(_)), "{error}");
}

#[test]
fn a_model_without_a_template_says_so() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("tiny.gguf");
    write_tiny_model(&path, Tiny::new(64));
    let model = Model::load(&path).expect("it loads");
    assert_eq!(ChatTemplate::of_model(&model).expect_err("it has none"), ChatError::None);
}

#[test]
fn a_session_decodes_what_is_new_and_answers_as_if_all_were() {
    let template = || ChatTemplate::of_model(smollm2()).expect("it has one");
    let first = vec![ChatMessage::system("Be brief.")];
    let mut chat = ChatSession::new(context(&params()), template(), first.clone());
    let mut sampler = Sampler::greedy(smollm2()).expect("a sampler");
    let mut ask = |chat: &mut ChatSession, question: &str| {
        let mut text = String::new();
        let options = GenerateOptions::default().max_tokens(32);
        let answer = chat.ask(question, &mut sampler, options, |piece| text.push_str(piece));
        (text, answer.expect("an answer"))
    };
    let (text, answer) = ask(&mut chat, "What is the capital of France?");
    assert!(text.contains("Paris"), "{text}");
    assert_eq!(chat.messages().last(), Some(&ChatMessage::assistant(text)));
    let n_first = answer.timings.n_prompt;
    let (text, answer) = ask(&mut chat, "And of Italy?");
    assert!(answer.timings.n_prompt < n_first, "{answer:?}");

    // The same chat in one prompt.
    let mut messages = chat.messages().to_vec();
    assert_eq!(messages.pop(), Some(ChatMessage::assistant(text.clone())));
    let prompt = template().apply(&messages, true).expect("a prompt");
    let tokens = smollm2().vocab().tokenize(&prompt, true, true).expect("tokens");
    let (mut context, mut sampler) =
        (context(&params()), Sampler::greedy(smollm2()).expect("a sampler"));
    let options = GenerateOptions::default().max_tokens(32);
    let expected = context.generate(&tokens, &mut sampler, options).text().expect("an answer");
    assert_eq!(text, expected);

    chat.clear();
    assert_eq!(chat.messages(), first);
}

#[test]
fn a_session_forgets_the_oldest_and_refuses_what_is_too_long() {
    let template = ChatTemplate::of_model(smollm2()).expect("it has one");
    let mut chat =
        ChatSession::new(context(&params().n_ctx(256)), template, vec![ChatMessage::system("Hi")]);
    let mut sampler = Sampler::greedy(smollm2()).expect("a sampler");
    let mut ask = |chat: &mut ChatSession, question: &str| {
        chat.ask(question, &mut sampler, GenerateOptions::default().max_tokens(4), |_| {})
    };
    let question = "one two three four five six seven eight nine ten ".repeat(6);
    let mut n_forgotten = Vec::new();
    for _ in 0..4 {
        let answer = ask(&mut chat, &question).expect("an answer");
        n_forgotten.push(answer.n_forgotten);
        assert!(matches!(answer.finish, Finish::MaxTokens | Finish::EndOfGeneration(_)));
        assert_eq!(chat.messages()[0], ChatMessage::system("Hi"));
    }
    assert_eq!(n_forgotten[0], 0);
    assert_eq!(n_forgotten[3], 2, "{n_forgotten:?}");

    let before = chat.messages().to_vec();
    let error = ask(&mut chat, &question.repeat(5)).expect_err("too long");
    assert!(matches!(error, ChatSessionError::TooLong { n_ctx: 256, .. }), "{error}");
    assert_eq!(chat.messages(), before);
}
