//! What a slot holds is used again: after a restart, and where a prompt lost its middle.

use serde_json::json;

use super::common::models;
use super::common::server::Server;
use super::{TURBO, tiny};

const FACTS: &str =
    "The name of the lighthouse keeper is Johanna. Her boat is called Aurora. It is red.";
const MIDDLE: &str = " In winter no ship came for weeks. She counted the waves and the gulls, and wrote all of it down.";
const QUESTION: &str = " When a visitor asked for her name, and for that of the boat, she laughed and answered: my name is";

/// Nats by which another token may be less likely than the expected one, once keys were rounded another time.
const TIE: f64 = 1.0;

/// Qwen's keys have large biases, which turbo types lose if they are turned or restored wrongly.
#[test]
fn a_saved_slot_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().to_str().expect("a path in UTF-8");
    let model = models::path("qwen");
    let args = ["-np", "2", "-c", "1024", "--slot-save-path", folder];
    let start = || Server::start(&model, &[&TURBO[..], &args].concat());
    let prompt = [FACTS, MIDDLE, QUESTION].concat();
    let slot = |id: u32, cache: bool| json!({"id_slot": id, "cache_prompt": cache, "n_probs": 8});

    let server = start();
    let first = server.complete(prompt.as_str(), 8, slot(0, true));
    assert!(first.text().starts_with(" Johanna"), "{:?}", first.text());
    let saved = server.post("/slots/0?action=save", &json!({"filename": "slot.bin"}));
    let n_saved = saved["n_saved"].as_u64().expect("a number");
    assert!(n_saved >= first.timing("prompt_n") + 7, "{saved}");
    drop(server);

    // In another slot than it was in.
    let server = start();
    let restored = server.post("/slots/1?action=restore", &json!({"filename": "slot.bin"}));
    assert_eq!(restored["n_restored"], n_saved);
    let longer = [&prompt, first.text(), " The boat is called"].concat();
    let warm = server.complete(longer.as_str(), 8, slot(1, true));
    assert!(warm.timing("cache_n") + 2 >= n_saved, "{} of {n_saved}", warm.timing("cache_n"));
    let cold = server.complete(longer.as_str(), 8, slot(0, false));
    assert_eq!(cold.timing("cache_n"), 0);
    cold.assert_like(&warm, TIE, "restored");
    assert!(warm.text().starts_with(" Aurora"), "{:?}", warm.text());
}

#[test]
fn a_prompt_that_lost_its_middle_reuses_its_end() {
    let model = models::path("qwen");
    let args = ["-np", "1", "-c", "512", "--cache-reuse", "8"];
    let answers = |types: &[&str]| {
        let server = Server::start(&model, &[types, &args].concat());
        let more = json!({"cache_prompt": true, "n_probs": 8});
        let whole = server.complete([FACTS, MIDDLE, QUESTION].concat(), 4, more.clone());
        let n = whole.timing("prompt_n");
        let short = server.complete([FACTS, QUESTION].concat(), 8, more);
        // All but the tokens of the middle, the last one, and those around the seam.
        let (n_cached, n_new) = (short.timing("cache_n"), short.timing("prompt_n"));
        assert!(n_new <= 4 && n_cached + n_new < n - 15, "{n_cached} and {n_new} of {n}");
        short
    };
    let turbo = answers(&TURBO);
    assert!(turbo.text().starts_with(" Johanna"), "{:?}", turbo.text());
    answers(&[]).assert_like(&turbo, TIE, "shifted");
}

/// The error names the slot's file as what is wrong, and neither that slot nor the others have anything of it.
#[test]
fn a_truncated_slot_file_is_an_error_and_poisons_nothing() {
    let (dir, model) = tiny();
    let folder = dir.path().to_str().expect("a path in UTF-8");
    let args = ["-np", "2", "-c", "512", "--slot-save-path", folder];
    let server = Server::start(&model, &[&TURBO[..], &args].concat());
    let answer = |slot: u32, cache: bool| {
        let more = json!({"id_slot": slot, "cache_prompt": cache});
        server.complete("to be or not to be", 16, more)
    };
    let before = answer(0, true).tokens();
    let name = json!({"filename": "slot.bin"});
    server.post("/slots/0?action=save", &name);
    let file = dir.path().join("slot.bin");
    let bytes = std::fs::read(&file).expect("a saved slot");
    for n in [bytes.len() - 1, bytes.len() - 100, bytes.len() / 2, 16, 3, 0] {
        std::fs::write(&file, &bytes[..n]).expect("a file");
        let message = server.refused("/slots/1?action=restore", &name, 400);
        assert!(message.contains("Unable to restore slot"), "{n} bytes: {message}");
        let next = answer(1, true);
        assert_eq!((next.timing("cache_n"), next.tokens()), (0, before.clone()), "{n} bytes");
        assert_eq!(answer(0, false).tokens(), before, "{n} bytes");
        server.post("/slots/1?action=erase", &json!({}));
    }
    std::fs::write(&file, bytes).expect("a file");
    server.post("/slots/1?action=restore", &name);
    let whole = answer(1, true);
    assert!(whole.timing("cache_n") > 0);
    assert_eq!(whole.tokens(), before);
}
