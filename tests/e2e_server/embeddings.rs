//! Embeddings of several texts in one request.

use serde_json::{Value, json};

use super::common::server::Server;
use super::{TURBO, tiny};

fn embed(server: &Server, input: Value) -> Vec<Vec<f64>> {
    let reply = server.post("/v1/embeddings", &json!({"input": input}));
    let data = reply["data"].as_array().expect("embeddings");
    let values = |one: &Value| {
        let values = one["embedding"].as_array().expect("an embedding");
        values.iter().map(|x| x.as_f64().expect("a number")).collect()
    };
    data.iter().map(values).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn texts_of_one_request_have_the_embeddings_that_each_has_alone() {
    let (_dir, model) = tiny();
    let texts =
        ["The capital of France", "A cat", "Water", "On Monday the first ship passed at nine"];
    for pooling in ["mean", "cls", "last"] {
        for types in [&[][..], &TURBO] {
            for cache in [&[][..], &["--kv-unified"]] {
                let args = ["-np", "4", "-c", "1024", "--embeddings", "--pooling", pooling];
                let server = Server::start(&model, &[types, cache, &args].concat());
                let together = embed(&server, json!(texts));
                assert_eq!(together.len(), texts.len());
                for (text, together) in texts.iter().zip(&together) {
                    let alone = embed(&server, json!(text)).remove(0);
                    let cosine = cosine(&alone, together);
                    assert!(cosine > 0.99, "{pooling} {types:?} {cache:?} {text:?}: {cosine}");
                }
            }
        }
    }
}
