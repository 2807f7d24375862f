//! docs/models.md: what is in it, and whether it is up to date.

use std::collections::BTreeSet;

use super::row::{NONE, Row};

pub const PATH: &str = "docs/models.md";

const TABLE: &str =
    "| architecture | turbo | anchors | scales | shift | notes |\n|---|---|---|---|---|---|\n";

/// The page of these rows.
pub fn of(rows: &[Row], llama_cpp: &str) -> String {
    let count =
        |turbo: &str| rows.iter().filter(|row| row.turbo.split(": ").next() == Some(turbo)).count();
    let (yes, keys, no, without) = (count("yes"), count("K"), count("no"), count(NONE));
    let mut reasons: Vec<String> = Vec::new();
    let lines: Vec<_> =
        rows.iter().map(|row| row.line(&mut |why| number(&mut reasons, why))).collect();
    let notes: String =
        (1..).zip(&reasons).map(|(n, why): (u32, _)| format!("\n{n}. {why}")).collect();
    let refused = match no {
        0 => "none is refused".to_owned(),
        n => format!(
            "{n} are refused when the context is created, with the reason and the types that work instead"
        ),
    };
    format!(
        "# Which models work

Of the {all} architectures of llama.cpp ({llama_cpp}), {yes} run with turbo types for keys and values, {keys} with turbo keys alone,
and {refused}. The other {without} have no KV cache, or no model of their own to run: the notes say which.

This page is written by the test that runs a tiny model of each architecture, of random weights:
`script/test upstream`, or

    TQ_UPDATE_MODELS=1 TQ_ARCHS=FOLDER cargo test --test e2e_archs sweep -- --ignored

where FOLDER has what `test-llama-archs --seed 1 -d 0.5 -o FOLDER` wrote (`script/upstream-build test-llama-archs` builds it).
Each model reads 300 tokens with f16, q4_0, turbo4/turbo4 and turbo3/turbo2 (turbo3/turbo3 where keys and values must be of one
type): in batches, one by one, beside another sequence, and after a state was saved and restored. What it then says of the next token
has to be the same on each way, and as near to f16 as the type allows, measured by q4_0 of the same model
(`tests/archs/bounds.rs`). That does not say how well a trained model does: [quality.md](quality.md) does, for a few.

How to read the table:

- **turbo**: whether keys (K) and values (V) can be of the types turbo2, turbo3 and turbo4. Models differ in head_dim within
  an architecture: with one that is no multiple of 64 turbo types pad the heads, with anchors and scales, where the graph does not
  write the cache by itself.
- **anchors**: whether keys can have [anchors](keys.md). Where they cannot, contexts go without.
- **scales**: whether [key scales](keys.md) can be fitted to the model.
- **shift**: whether llama.cpp can move a sequence of the model's cache up when the context is full.
- **notes**: what the model in the sweep has of sliding windows (all models in this table with windows read more tokens than the window),
  heads that differ between layers, recurrent layers, attention sinks, an encoder, M-RoPE (with the positions of text), latent
  attention (MLA), indexers. They ran, and not only loaded.

{TABLE}{table}

Why not:
{notes}
",
        all = rows.len(),
        table = lines.join("\n"),
    )
}

/// The number of a reason among those that there are, to which it is added.
fn number(reasons: &mut Vec<String>, why: &str) -> usize {
    let known = reasons.iter().position(|reason| reason == why);
    1 + known.unwrap_or_else(|| {
        reasons.push(why.to_owned());
        reasons.len() - 1
    })
}

/// The names in the page's table.
pub fn names(page: &str) -> BTreeSet<String> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| architecture |")).skip(2);
    let name = |line: &str| Some(line.strip_prefix("| ")?.split(" |").next()?.to_owned());
    rows.map_while(name).collect()
}
