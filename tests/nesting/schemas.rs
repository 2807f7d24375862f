//! JSON schemas, as tools bring them.

use std::fmt::Write;

use llama_turboquant::llama::{ChatError, ChatMessage, ChatRequest, ChatTemplate, ChatTool};

use super::{OPTIONAL, SCHEMA, assert_refused, nested, small, tiny, upstream_has_limits};
use crate::common::tools::TEMPLATE;

fn tool(schema: &str) -> Result<(), ChatError> {
    let template = ChatTemplate::new(tiny(), TEMPLATE)?;
    let (messages, tools) = ([ChatMessage::user("Hello")], [ChatTool::new("t", "A tool.", schema)]);
    template.prompt(&ChatRequest::new(&messages).tools(&tools)).map(|_| ())
}

/// A schema of an object with one property.
fn object(property: &str) -> String {
    format!(r#"{{"type": "object", "properties": {{"a": {property}}}}}"#)
}

#[test]
fn schemas_nest_to_a_limit() {
    small(|| {
        let arrays =
            |n| object(&nested(n, r#"{"type": "array", "items": "#, r#"{"type": "string"}"#, "}"));
        tool(&arrays(SCHEMA - 4)).expect("as deep as can be");
        assert_refused(tool(&arrays(SCHEMA)), &["nests", "100 deep", "limit"]);
        // What reads it first has a limit of its own.
        assert_refused(tool(&arrays(10_000)), &["recursion limit"]);
    });
}

#[test]
fn references_nest_to_a_limit_and_may_go_round() {
    small(|| {
        let chain = |n: usize| {
            let mut definitions = String::from(r#""d0": {"type": "string"}"#);
            for i in 1..=n {
                write!(definitions, r##", "d{i}": {{"$ref": "#/$defs/d{}"}}"##, i - 1)
                    .expect("a string");
            }
            format!(
                r##"{{"type": "object", "properties": {{"a": {{"$ref": "#/$defs/d{n}"}}}}, "$defs": {{{definitions}}}}}"##
            )
        };
        tool(&chain(10)).expect("references");
        for n in [SCHEMA, 10_000] {
            assert_refused(tool(&chain(n)), &["references", "100 deep", "limit"]);
        }
        let tree = r##"{"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}},
            "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}}"##;
        tool(tree).expect("a tree");
        let round = r##"{"type": "object", "allOf": [{"$ref": "#/$defs/a"}],
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}"##;
        assert_refused(tool(round), &["references", "100 deep", "limit"]);
    });
}

#[test]
fn names_of_properties_may_be_long() {
    small(|| {
        let (most_beside_others, words): (_, &[&str]) = match upstream_has_limits() {
            true => (128, &["property name is longer than 128"]),
            false => (492, &["parentheses", "500 deep", "limit"]),
        };
        // Characters that rules' names do not have.
        let named = |name: &str, more: &str| {
            format!(
                r#"{{"type": "object", "properties": {{"{name}": {{"type": "string"}}}}{more}}}"#
            )
        };
        tool(&named(&"é_".repeat(50_000), "")).expect("a long name");
        // Other properties are those that are called otherwise, letter by letter.
        let others = r#", "additionalProperties": {"type": "string"}"#;
        tool(&named(&"n".repeat(most_beside_others), others)).expect("as long as can be");
        for n in [501, 100_000] {
            assert_refused(tool(&named(&"n".repeat(n), others)), words);
        }
    });
}

#[test]
fn optional_properties_have_a_number() {
    small(|| {
        let optional = |n: usize| {
            let properties: Vec<_> =
                (0..n).map(|i| format!(r#""p{i}": {{"type": "null"}}"#)).collect();
            format!(r#"{{"type": "object", "properties": {{{}}}}}"#, properties.join(","))
        };
        tool(&optional(40)).expect("some");
        for n in [OPTIONAL + 1, 5000] {
            assert_refused(tool(&optional(n)), &["optional", "500", "require some"]);
        }
    });
}

#[test]
fn impossible_and_endless_lengths_are_errors() {
    small(|| {
        for (property, words) in [
            (r#"{"type": "string", "minLength": 5, "maxLength": 3}"#, ["at least 5", "at most 3"]),
            (r#"{"type": "string", "pattern": "^a{5,3}$"}"#, ["at least 5", "at most 3"]),
            (
                r#"{"type": "array", "items": {"type": "null"}, "minItems": 2000000000}"#,
                ["repetitions", ""],
            ),
        ] {
            assert_refused(tool(&object(property)), &words);
        }
        // Patterns that are deeper than upstream takes them are any string.
        let deep = nested(10_000, "(", "a", ")");
        tool(&object(&format!(r#"{{"type": "string", "pattern": "^{deep}$"}}"#)))
            .expect("any string");
    });
}
