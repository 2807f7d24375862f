//! What bindgen has written.

use super::Declarations;

pub fn declarations(bindings: &str) -> Declarations {
    let mut all = Declarations::default();
    let spaces = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let pair = |text: &str| {
        let (name, t) = text.trim().trim_start_matches("pub ").split_once(':')?;
        Some((name.trim().to_owned(), spaces(t)))
    };
    for (start, keyword) in bindings.match_indices("    pub fn ") {
        let Some((name, rest)) = bindings[start + keyword.len()..].split_once('(') else { break };
        let end = super::closing(rest);
        let result = rest[end + 1..].split(';').next().unwrap_or_default();
        let result = result.trim().strip_prefix("->").map_or("()".into(), spaces);
        let parameters = super::split(&rest[..end], ',').into_iter().filter_map(pair).collect();
        all.functions.insert(name.into(), (parameters, result));
    }
    for (start, keyword) in bindings.match_indices("pub struct ") {
        let rest = &bindings[start + keyword.len()..];
        let Some((name, body)) =
            rest.split_once('{').filter(|(name, _)| !name.contains(['(', ';']))
        else {
            continue;
        };
        let body = &body[..super::closing(body)];
        if !body.contains("_unused")
            && !body.contains("_bindgen")
            && !body.contains("__BindgenUnion")
        {
            let fields = super::split(body, ',').into_iter().filter_map(pair).collect();
            all.structs.insert(name.trim().into(), fields);
        }
    }
    for (start, keyword) in bindings.match_indices("pub const ") {
        let line = bindings[start + keyword.len()..].split(';').next().unwrap_or_default();
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = value.trim().rsplit('(').next().unwrap_or_default().trim_end_matches(')');
        if let (Some((name, _)), Ok(value)) = (name.split_once(':'), value.parse()) {
            all.constants.insert(name.trim().into(), value);
        }
    }
    all
}
