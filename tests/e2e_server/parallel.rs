//! Several clients at once get the answers that each gets alone.

use std::thread;

use serde_json::json;

use super::TURBO;
use super::common::models;
use super::common::server::Server;

const PROMPTS: [&str; 4] = [
    "The capital of France is",
    "One, two, three, four, five, six,",
    "Monday, Tuesday, Wednesday,",
    "Water is made of hydrogen and",
];

/// Key anchors are means over what is decoded together: alone, a prompt's keys have other codes, with an error of the
/// type's size. What that does to logits is bounded, in nats: keys of q8_0, which have anchors if asked, show that the
/// anchors are those of the slot, and keys of turbo4 that nothing else is another's.
#[test]
fn four_clients_at_once_get_the_answers_of_one_at_a_time() {
    let q8_0 = ["-ctk", "q8_0", "-ctv", "q8_0"];
    for (types, anchors, tie) in [(TURBO, "off", 0.0), (TURBO, "on", 1.5), (q8_0, "on", 0.5)] {
        let args = ["-np", "4", "-c", "2048", "--kv-anchors", anchors];
        let server = Server::start(&models::path("smollm2"), &[&types[..], &args].concat());
        let complete = |prompt: &str| server.complete(prompt, 16, json!({"n_probs": 8}));
        let alone = PROMPTS.map(complete);
        for round in 0..2 {
            let together = thread::scope(|scope| {
                let clients = PROMPTS.map(|prompt| scope.spawn(move || complete(prompt)));
                clients.map(|client| client.join().expect("an answer"))
            });
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!(alone.tokens().len(), 16);
                alone.assert_like(
                    together,
                    tie,
                    &format!("{types:?}, anchors {anchors}, round {round}"),
                );
            }
        }
    }
}
