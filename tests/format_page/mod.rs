//! The tables and the worked example of docs/format.md, read from the page.

use llama_turboquant::codec::TurboType;

/// The page.
pub const PAGE: &str = include_str!("../../docs/format.md");
/// What to do where the page and the codec differ.
pub const REFRESH: &str =
    "docs/format.md is stale: run `cargo run --no-default-features --example format_doc`";

/// Levels of a type, as the page's table lists them.
pub fn levels_on_page(ty: TurboType) -> Vec<i8> {
    let start = format!("| {} | ", ty.name());
    let table = PAGE.split("<!-- levels: ").nth(1).expect("the levels' mark");
    let row = table.lines().find_map(|line| line.strip_prefix(&start)).expect(REFRESH);
    let row = row.trim_end_matches([' ', '|']);
    row.split(' ').map(|level| level.parse().expect("a level")).collect()
}

/// A list of a type's worked example: the words after its name, and on the lines below without a name.
fn example(ty: TurboType, name: &str) -> Vec<&'static str> {
    let heading = format!("### {}\n", ty.name());
    let section = PAGE.split(&heading).nth(1).expect(REFRESH);
    let section = section.split("```").nth(1).expect("a fenced block");
    let mut lines = section.lines().skip_while(|line| !line.starts_with(name));
    let first = lines.next().expect("the list")[name.len()..].split_whitespace();
    let more = lines.take_while(|line| line.starts_with(' ')).flat_map(str::split_whitespace);
    first.chain(more).collect()
}

/// Bytes of a type's example.
pub fn example_bytes(ty: TurboType) -> Vec<u8> {
    let bytes = example(ty, "bytes").into_iter();
    bytes.map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect()
}

/// Values of a type's example.
pub fn example_values(ty: TurboType) -> Vec<f32> {
    example(ty, "values").into_iter().map(|value| value.parse().expect("a value")).collect()
}
