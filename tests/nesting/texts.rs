//! Texts that are tokenized: words are found by an expression, for some vocabularies the standard library's.

use llama_turboquant::llama::{Model, VocabKind};

use super::small;
use crate::common::gguf::text;
use crate::common::gguf_file::Gguf;
use crate::common::models::path;

#[test]
fn words_may_be_long() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("vocab.gguf");
    let mut vocab = Gguf::read(&path("smollm2"));
    vocab.tensors.truncate(1);
    for pre in ["bloom", "falcon", "deepseek-coder", "gpt-4o"] {
        for (key, value) in &mut vocab.metadata {
            if key == "tokenizer.ggml.pre" {
                *value = text(pre);
            }
        }
        vocab.write(&file);
        let model = Model::builder(&file).vocab_only(true).load().expect("it loads");
        assert_eq!(model.vocab().kind(), VocabKind::Bpe);
        small(move || {
            let tokenize = |text: &str| {
                let tokens = model.vocab().tokenize(text, false, false).expect("tokens");
                let back = model.vocab().detokenize(&tokens, true).expect("a text");
                assert!(back == text, "{pre}: {} bytes", text.len());
                tokens
            };
            for word in ["a", "1", ".", "\n", "é", "aB3 "] {
                tokenize(&word.repeat(100_000 / word.len()));
            }
            // Where there are spaces the words are as they are alone.
            let words = " word".repeat(1000);
            assert!(tokenize(&words).iter().all(|token| *token == tokenize(" word")[0]));
        });
    }
}
