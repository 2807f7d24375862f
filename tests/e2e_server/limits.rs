//! Full caches and odd sizes: an answer or an error in words, and the server goes on.

use serde_json::{Value, json};

use super::common::server::{Completion, Server, completion};
use super::{TURBO, tiny};

/// Four slots share 256 cells.
#[test]
fn a_full_unified_cache_is_an_error_and_the_server_goes_on() {
    let (_dir, model) = tiny();
    let args = ["-np", "4", "-c", "256", "--kv-unified"];
    let server = Server::start(&model, &[&TURBO[..], &args].concat());
    let small = || server.complete("abc", 8, json!({})).tokens();
    let before = small();

    // One prompt that is too long, four that are so together, and four that become so.
    let long = server.refused("/completion", &completion("a".repeat(300), 4, json!({})), 400);
    assert!(long.contains("exceeds the available context size (256 tokens)"), "{long}");
    assert_eq!(small(), before);
    for (n_prompt, n) in [(100, 4), (20, 100)] {
        let prompts: Vec<_> = ["a", "b", "c", "d"].map(|text| json!(text.repeat(n_prompt))).into();
        let full = server.refused("/completion", &completion(prompts, n, json!({})), 500);
        assert!(full.contains("Context size has been exceeded"), "{full}");
        assert_eq!(small(), before, "after {n_prompt} and {n}");
    }
    // An answer that meets the end of the cache ends there.
    let cut = server.complete("a".repeat(200), 100, json!({}));
    assert!(cut.tokens().len() < 60 && cut.0["stop_type"] == "limit", "{}", cut.0);
    assert_eq!(small(), before);
    // Four that fit.
    let prompts: Vec<_> = ["a", "b", "c", "d"].map(|text| json!(text.repeat(20))).into();
    let Value::Array(replies) = server.complete(prompts, 8, json!({})).0 else {
        panic!("one reply to four prompts")
    };
    assert!(replies.into_iter().all(|reply| Completion(reply).tokens().len() == 8));
}

/// Sizes of context, batch and slots that fit badly: they run or are refused in words.
#[test]
fn odd_sizes_run_or_are_refused_in_words() {
    let (_dir, model) = tiny();
    let runs = [
        "-np 3 -c 100",
        "-np 7 -c 1000 -b 33 -ub 7",
        "-np 1 -c 1 --warmup",
        "-np 5 -c 257 -b 1 -ub 1",
        "-np 2 -c 512 -b 16 -ub 1024",
        "-np 64 -c 64",
        "-np 64 -c 1024 -kvu -b 3 -ub 100",
        "-np 2 -c 0 -ub 31",
        "-np 2 -c 300 -ub 256 -b 0",
        "-np 257",
        "-np 0",
        "-c -5",
    ];
    for args in runs {
        let split: Vec<_> = args.split(' ').collect();
        match Server::try_start(&model, &[&TURBO[..], &split].concat()) {
            Ok(server) => {
                for prompt in ["abc".repeat(3), "abc".repeat(40)] {
                    let (code, reply) =
                        server.ask("POST", "/completion", &completion(prompt, 4, json!({})));
                    let refused = reply["error"]["message"].as_str().is_some_and(|m| !m.is_empty());
                    assert!(code == 200 || refused, "{args}: {code} {reply}");
                }
                let (code, _) = server.ask("GET", "/health", &Value::Null);
                assert_eq!(code, 200, "{args}");
            }
            Err(ended) => {
                let code = ended.status.code();
                assert!(
                    code.is_some_and(|c| c != 0 && c < 128),
                    "{args}: {}: {}",
                    ended.status,
                    ended.log
                );
                assert!(!ended.log.contains("GGML_ASSERT"), "{args}: {}", ended.log);
                let words = ended.log.to_lowercase();
                assert!(
                    words.contains("error") || words.contains("failed"),
                    "{args}: {}",
                    ended.log
                );
            }
        }
    }
}
