//! llama-server answers such requests with the reason, and goes on.

use super::{grammar_limit, nested};
use crate::common::gguf::{Tiny, write_tiny_model};
use crate::common::server::Server;

#[test]
fn a_server_answers_with_the_limit_and_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("tiny.gguf");
    write_tiny_model(&path, Tiny::new(64));
    let server = Server::start(&path, &["-c", "256", "-np", "1"]);
    let complete = |more: &str| {
        // As text: a Value cannot nest as deep as this.
        let body = format!(r#"{{"prompt": "a", "n_predict": 2{more}}}"#);
        server.ask_text("POST", "/completion", &body)
    };
    let parens = nested(100_000, "(", r#"\"a\""#, ")");
    let brackets = nested(100_000, "[", "", "]");
    let pattern = nested(5000, "(", "", ")");
    for (more, words) in [
        (format!(r#", "grammar": "root ::= {parens}""#), grammar_limit().1),
        (r#", "grammar": "root ::= \"a\"{5,3}""#.into(), &["at least 5", "at most 3"][..]),
        (format!(r#", "x": {brackets}"#), &["JSON nests", "200 deep"]),
        (
            r##", "json_schema": {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}}"##.into(),
            &["references", "100 deep"],
        ),
        (
            format!(
                r#", "grammar": "root ::= \"a\"", "grammar_lazy": true, "grammar_triggers": [{{"type": 2, "value": "{pattern}"}}]"#
            ),
            &["regular expression", "500"],
        ),
    ] {
        let (code, reply) = complete(&more);
        assert_ne!(code, 200, "{reply}");
        let text = reply.to_string();
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        let (code, reply) = complete("");
        assert_eq!(code, 200, "{reply}");
    }
}
