//! Models whose graphs write or read keys by themselves have no key anchors and scales: in the edited
//! source, every such place is known.
#![cfg(feature = "llama")]

#[path = "common/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

// Links the library that brings llama.cpp.
use llama_turboquant as _;

fn source(name: &str) -> PathBuf {
    tree::tree().join("src/src").join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The words that begin with `prefix`, without it, and what follows them.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let end = |c: char| !c.is_alphanumeric() && c != '_';
    text.split(prefix).skip(1).map(move |rest| rest.split_at(rest.find(end).unwrap_or(rest.len())))
}

/// The models of which a text names a member.
fn models(text: &str) -> impl Iterator<Item = String> {
    let words = words(text, "llama_model_").filter(|(_, rest)| rest.starts_with("::"));
    words.map(|(model, _)| model.to_string())
}

/// Each architecture's id and the class of its model.
fn architectures() -> Vec<(String, String)> {
    let text = read(&source("llama-model.cpp"));
    let mut ids = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("case LLM_ARCH_") {
            ids.extend(words(line, "LLM_ARCH_").map(|(id, _)| id.to_string()));
        } else if let Some((class, _)) = words(line, "return new llama_model_").next() {
            found.extend(ids.drain(..).map(|id| (id, class.to_string())));
        } else {
            ids.clear();
        }
    }
    assert!(found.len() > 100, "the architectures were not found");
    found
}

/// The classes whose graphs are, or derive from, those of `classes`.
fn with_users(classes: BTreeSet<String>) -> BTreeSet<String> {
    let text = read(&source("models/models.h"));
    let declared: Vec<_> = text.split("\nstruct llama_model_").skip(1).collect();
    let mut all = classes;
    loop {
        let before = all.len();
        for class in &declared {
            let name = class.split([' ', ':']).next().expect("a name");
            if models(class).any(|used| all.contains(&used)) {
                all.insert(name.to_string());
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

#[test]
fn models_that_write_or_read_keys_by_themselves_have_no_anchors() {
    let list = read(&source("llama-turbo.cpp"));
    let (_, list) = list.split_once("bool llama_turbo_has_own_attention(").expect("the list");
    let (list, _) = list.split_once("return true;").expect("the list's end");
    let listed: BTreeSet<_> = words(list, "LLM_ARCH_").map(|(id, _)| id).collect();

    let mut classes = BTreeSet::new();
    for entry in fs::read_dir(source("models")).expect("the models") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|e| e == "cpp") {
            let text = read(&path);
            if ["cpy_k(", "get_k(", "k_anchors"].iter().any(|call| text.contains(call)) {
                classes.extend(models(&text));
            }
        }
    }
    assert!(!classes.is_empty(), "no calls were found");
    let own = with_users(classes);
    for (arch, class) in architectures() {
        assert_eq!(
            (&arch, own.contains(&class)),
            (&arch, listed.contains(&*arch)),
            "writes or reads keys by itself, and is listed by llama_turbo_has_own_attention"
        );
    }
}

/// The shared graphs: keys of latent attention are stored as they are (there are no anchors and scales for it),
/// all others are not.
#[test]
fn shared_graphs_scale_keys_and_subtract_anchors() {
    const LATENT: [&str; 3] = [
        "llm_graph_input_attn_k * inp",
        "llm_graph_input_attn_k_dsa * inp",
        "llm_graph_input_attn_k_iswa * inp",
    ];
    let text = read(&source("llama-graph.cpp"));
    let mut anchored = 0;
    for function in text.split("\nggml_tensor * llm_graph_context::build_attn(").skip(1) {
        let (function, _) = function.split_once("\n}").expect("an end");
        let (head, body) = function.split_once(") const {").expect("a body");
        if body.contains("cpy_k(") && !LATENT.iter().any(|input| head.contains(input)) {
            assert!(body.contains("cpy_k(ctx0, mctx_cur->anchor_k("), "{head}");
            assert!(body.contains("get_k_anchors("), "{head}");
            // Before the rotation, which mixes the channels.
            let (before, _) = body.split_once("llama_mul_mat_hadamard").expect("a rotation");
            for step in ["q_cur = ", "->scale_q(ctx0, q_cur", "k_cur = ", "->scale_k(ctx0, k_cur"] {
                assert!(before.contains(step), "no {step} in: {head}");
            }
            anchored += 1;
        }
    }
    assert_eq!(anchored, 2);
    let outside: usize = text
        .split("\nggml_tensor * llm_graph_context::build_attn(")
        .map(|part| part.split_once("\n}\n").map_or("", |(_, rest)| rest))
        .map(|rest| rest.matches("cpy_k(").count())
        .sum();
    assert_eq!(outside, 0, "keys are written outside build_attn");
}
