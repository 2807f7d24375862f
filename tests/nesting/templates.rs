//! Chat templates: how deep they are, and how much they do.

use llama_turboquant::llama::{ChatError, ChatMessage, ChatTemplate};

use super::{TEMPLATE, assert_refused, nested, small, tiny, upstream_has_limits};

fn render(source: &str) -> Result<String, ChatError> {
    let template = ChatTemplate::new(tiny(), source)?;
    template.apply(&[ChatMessage::user("Hello")], true)
}

/// Syntax of which one level is within another, and how many levels each adds.
const SYNTAX: [(&str, &str, &str); 13] = [
    ("{% if true %}", "x", "{% endif %}"),
    ("{% for i in [1] %}", "x", "{% endfor %}"),
    ("{% set x %}", "x", "{% endset %}"),
    ("{% macro m() %}", "x", "{% endmacro %}"),
    ("{% if false %}{% elif true %}", "x", "{% endif %}"),
    ("{% filter upper %}", "x", "{% endfilter %}"),
    ("{{ (", "1", ") }}"),
    ("{{ [", "1", "] }}"),
    ("{{ {'a': ", "1", "} }}"),
    ("{{ x[", "1", "] }}"),
    ("{{ f(", "1", ") }}"),
    ("{{ not ", "1", " }}"),
    ("{{ -", "1", " }}"),
];

/// `{{ (1) }}` with so many parentheses: expressions have one pair of braces.
fn deep(n: usize, (open, middle, close): (&str, &str, &str)) -> String {
    match (open.strip_prefix("{{ "), close.strip_suffix(" }}")) {
        (Some(open), Some(close)) => format!("{{{{ {} }}}}", nested(n, open, middle, close)),
        _ => nested(n, open, middle, close),
    }
}

#[test]
fn templates_nest_to_a_limit() {
    small(|| {
        for syntax in SYNTAX {
            // Run or refused; near the limit that is for what it says, or for what it does.
            let shallow = render(&deep(TEMPLATE / 4, syntax)).map_err(|e| e.to_string());
            assert!(!shallow.is_err_and(|e| e.contains("limit")), "{syntax:?}");
            let _ = render(&deep(TEMPLATE - 2, syntax));
            for n in [TEMPLATE + 1, 1000, 100_000] {
                assert_refused(render(&deep(n, syntax)), &["nests", "100 deep", "limit"]);
            }
        }
        for chain in ["1{}", "{% if 1 %}{}{% endif %}"] {
            let chained = |link: &str, n| chain.replacen("{}", &link.repeat(n), 1);
            let links: &[&str] = match chain.starts_with('1') {
                true => &[" + 1", " and 1", " | string", ".a", "()", " if 1 else 2"],
                false => &["{% elif 1 %}"],
            };
            for link in links {
                let source = |n| match chain.starts_with('1') {
                    true => format!("{{{{ {} }}}}", chained(link, n)),
                    false => chained(link, n),
                };
                for n in [TEMPLATE + 1, 100_000] {
                    assert_refused(render(&source(n)), &["nests", "100 deep", "limit"]);
                }
            }
        }
        assert_eq!(render(&format!("{{{{ {} }}}}", nested(20, "(", "7", ")"))).as_deref(), Ok("7"));
    });
}

#[test]
fn macros_that_call_themselves_end() {
    small(|| {
        let endless = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
        let words: &[&str] = match upstream_has_limits() {
            true => &["macro calls", "128 levels deep"],
            false => &["runs", "300 deep", "limit"],
        };
        assert_refused(render(endless), words);
        let doubling = "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(30) }}";
        assert_refused(render(doubling), &["500000 steps", "limit"]);
        let some = "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(9) }}";
        assert_eq!(render(some).as_deref(), Ok("9876543210"));
    });
}

#[test]
fn values_may_nest_but_not_be_written() {
    small(|| {
        let build = "{% set ns = namespace(a=[]) %}{% for i in range(5000) %}{% set ns.a = [ns.a] %}{% endfor %}";
        assert_eq!(render(&format!("{build}done")).as_deref(), Ok("done"));
        let objects = build.replace("[ns.a]", "{'a': ns.a}");
        assert_eq!(render(&format!("{objects}done")).as_deref(), Ok("done"));
        let methods = build.replace("[ns.a]", "[ns.a.append]");
        assert_eq!(render(&format!("{methods}done")).as_deref(), Ok("done"));
        let words: &[&str] = match upstream_has_limits() {
            true => &["value is nested more than 128 levels deep"],
            false => &["arrays and objects", "200 deep", "limit"],
        };
        for uses in ["{{ ns.a | tojson }}", "{{ ns.a }}"] {
            assert_refused(render(&format!("{build}{uses}")), words);
        }
        let itself = "{% set a = [] %}{% set b = a.append(a) %}{{ a | tojson }}";
        assert_refused(render(itself), words);
    });
}

#[test]
fn templates_make_no_more_than_they_may() {
    small(|| {
        let twice = "{% set ns = namespace(x='a') %}{% for i in range(80) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
        let lists = twice.replace("x='a'", "x=[1]").replace('~', "+");
        for source in
            ["{{ 'a' * 999999999999 }}", "{{ range(999999999999) | length }}", twice, &lists]
        {
            assert_refused(render(source), &["64 MiB", "limit"]);
        }
        let shared = "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}";
        assert_refused(render(shared), &["10000000 values", "limit"]);
        assert_eq!(render("{{ 'ab' * 3 }}{{ range(4) | length }}").as_deref(), Ok("ababab4"));
    });
}
