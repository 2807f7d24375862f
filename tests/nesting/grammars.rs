//! Grammars, and the expressions that trigger them.

use std::fmt::Write;
use std::sync::Arc;

use llama_turboquant::llama::{GrammarTrigger, Model, Sampler, SamplerError, Token};

use super::{PATTERN, assert_refused, grammar_limit, nested, small, tiny};
use crate::common::gguf::{Tiny, write_tiny_model};
use crate::common::gguf_file::{Gguf, string};

fn grammar(text: &str) -> Result<Sampler, SamplerError> {
    Sampler::builder(tiny()).grammar(text, "root").greedy()
}

#[test]
fn parentheses_of_a_grammar_have_a_limit() {
    small(|| {
        let parens = |n| format!("root ::= {}\n", nested(n, "(", "\"a\"", ")"));
        // The rule itself is a level.
        let (most, words) = grammar_limit();
        grammar(&parens(most - 1)).expect("as deep as can be");
        for n in [most + 1, 10_000, 1_000_000] {
            assert_refused(grammar(&parens(n)), words);
        }
        assert_refused(grammar(&"root ::= (".repeat(10_000)), &["expecting"]);
    });
}

#[test]
fn rules_may_refer_to_each_other_in_any_number() {
    small(|| {
        let mut chain = String::from("root ::= r0\n");
        for i in 0..10_000 {
            writeln!(chain, "r{i} ::= r{}", i + 1).expect("a string");
        }
        chain.push_str("r10000 ::= \"a\"\n");
        grammar(&chain).expect("a long chain");
        let circle = chain.replace("r10000 ::= \"a\"", "r10000 ::= r0");
        assert_refused(grammar(&circle), &["left recursion"]);
    });
}

/// Each rule doubles the ways to go on.
#[test]
fn ways_to_go_on_have_a_limit() {
    small(|| {
        let rules = |n: usize, last: [&str; 2]| {
            let mut text = String::from("root ::= r0\n");
            for i in 0..n {
                let next = i + 1;
                let [a, b] = last;
                writeln!(text, "r{i} ::= r{next} {a} | r{next} {b}").expect("a string");
            }
            text + &format!("r{n} ::= \"c\"\n")
        };
        grammar(&rules(10, ["\"a\"", "\"b\""])).expect("1024 ways");
        assert_refused(grammar(&rules(40, ["\"a\"", "\"b\""])), &["16384 ways", "limit"]);
        // The same rule twice is one way, and is looked through once.
        grammar(&rules(60, ["", ""])).expect("one way");
    });
}

#[test]
fn repetitions_are_counted() {
    small(|| {
        let text = "x".repeat(100_000);
        for (repeated, words) in [
            ("\"a\"{5,3}".to_string(), &["at least 5", "at most 3"][..]),
            (format!("\"{text}\"{{2000}}"), &["2097152 elements", "limit"]),
            (format!("\"{text}\"{{0,2000}}"), &["2097152 elements", "limit"]),
            ("\"a\"{2000} ".repeat(2000), &["2097152 elements", "limit"]),
            ("\"a\"{99999}".to_string(), &["repetitions"]),
        ] {
            assert_refused(grammar(&format!("root ::= {repeated}\n")), words);
        }
        for repeated in ["\"a\"{3,5}", "\"a\"{2000}", "\"a\"{0,0}", "\"a\"{7,}", "(\"ab\"{20}){20}"]
        {
            grammar(&format!("root ::= {repeated}\n")).expect("a grammar");
        }
    });
}

/// The tiny model with a token of `n` letters in the place of the space, which alone is neither special nor a byte.
fn model_with_letters(n: usize) -> (Arc<Model>, Token) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("long.gguf");
    write_tiny_model(&path, Tiny::new(64));
    let mut file = Gguf::read(&path);
    let tokens = file.metadata.iter_mut().find(|(key, _)| key == "tokenizer.ggml.tokens");
    let (_, tokens) = tokens.expect("a vocabulary");
    let space = string("▁");
    let at = tokens.windows(space.len()).position(|bytes| bytes == space).expect("the space");
    tokens.splice(at..at + space.len(), string(&"a".repeat(n)));
    file.write(&path);
    (Model::builder(&path).mmap(false).load().expect("it loads"), 3)
}

#[test]
fn a_long_token_is_none_that_a_grammar_allows() {
    let grammar = |model| {
        Sampler::builder(model).grammar("root ::= [a-z]*", "root").greedy().expect("a sampler")
    };
    let (model, token) = model_with_letters(256);
    small(|| grammar(&model).accept(token).expect("as long as can be"));
    let (model, token) = model_with_letters(1_000_000);
    small(|| {
        let mut sampler = grammar(&model);
        assert_eq!(sampler.accept(token), Err(SamplerError::Rejected { token }));
        let mut logits = vec![0.0; 259];
        logits[token as usize] = 9.0;
        assert_ne!(sampler.sample_logits(&logits), Ok(token));
    });
}

const LAZY: &str = "root ::= \"!\" [a-z]*";

fn lazy(trigger: GrammarTrigger) -> Result<Sampler, SamplerError> {
    Sampler::builder(tiny()).lazy_grammar(LAZY, "root", &[trigger]).greedy()
}

#[test]
fn triggers_have_a_length() {
    small(|| {
        lazy(GrammarTrigger::Word("w".repeat(PATTERN))).expect("as long as can be");
        lazy(GrammarTrigger::Pattern(nested(PATTERN / 2, "(", "", ")"))).expect("so deep");
        for n in [PATTERN + 1, 1_000_000] {
            assert_refused(lazy(GrammarTrigger::Word("w".repeat(n))), &["500", "limit"]);
            assert_refused(lazy(GrammarTrigger::Pattern(nested(n, "(", "a", ")"))), &["limit"]);
        }
        assert_refused(lazy(GrammarTrigger::Pattern("(a{1000}){1000}".into())), &["trigger"]);
    });
}

/// Expressions are matched by recursion, for each character of an answer that no trigger was found in.
#[test]
fn long_answers_do_not_exhaust_triggers() {
    let (model, letters) = model_with_letters(250);
    let of = |text: &str| {
        *model.vocab().tokenize(text, false, false).expect("tokens").last().expect("one")
    };
    let [trigger, no_letter] = ["!", "?"].map(of);
    small(|| {
        for pattern in ["[\\s\\S]*?(!)", "(?:a|b|c)*(!)", "!"] {
            let trigger_of = GrammarTrigger::Pattern(pattern.into());
            let builder = Sampler::builder(&model).lazy_grammar(LAZY, "root", &[trigger_of]);
            let mut sampler = builder.greedy().expect("a sampler");
            for _ in 0..20 {
                sampler.accept(letters).expect("no trigger");
            }
            sampler.accept(trigger).expect("the trigger");
            let rejected = Err(SamplerError::Rejected { token: no_letter });
            assert_eq!(sampler.accept(no_letter), rejected, "{pattern}");
        }
    });
}
