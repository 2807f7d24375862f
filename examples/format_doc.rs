//! Writes the level tables and the worked example into docs/format.md.
//!
//!     cargo run --no-default-features --example format_doc
//!
//! tests/format_doc.rs fails where the page does not say what the codec does.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use half::f16;
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::codec::{Block, TurboType, levels, trellis};

fn main() -> io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/format.md");
    let page = fs::read_to_string(&path)?;
    let page = replace(&page, "levels", &level_table());
    let example = example::<2>() + &example::<3>() + &example::<4>();
    fs::write(path, replace(&page, "example", &example))
}

/// The page with other text between the marks of `part`.
fn replace(page: &str, part: &str, text: &str) -> String {
    let start = page.find(&format!("<!-- {part}: ")).expect("the part's first mark");
    let start = start + page[start..].find('\n').expect("a line after the mark");
    let end = page.find(&format!("<!-- end of {part} -->")).expect("the part's last mark");
    format!("{}\n\n{}\n\n{}", &page[..start], text.trim(), &page[end..])
}

fn level_table() -> String {
    let mut table = "| type | levels, number 0 first |\n|---|---|\n".to_owned();
    for ty in TurboType::ALL {
        let levels: Vec<_> = levels(ty.index_bits()).iter().map(i8::to_string).collect();
        writeln!(table, "| {} | {} |", ty.name(), levels.join(" ")).expect("a string");
    }
    table
}

/// A block of random planes, decoded step by step.
fn example<const K: usize>() -> String {
    let mut rng = SplitMix64::new(K as u64);
    let scale = f16::from_f32(0.02).to_le_bytes();
    let block = Block::<K> { scale, planes: std::array::from_fn(|_| rng.next_u64().to_le_bytes()) };
    let mut bytes = vec![0; Block::<K>::BYTES];
    block.write_to(&mut bytes);

    let (z1, z0) = trellis::subsets(block.plane(0));
    let level = trellis::decode(&block);
    let number = level.map(|level| levels(K).iter().position(|l| *l == level).expect("a level"));
    let value = level.map(|level| f32::from(level) * block.scale());

    let mut text = format!("### turbo{K}\n\n```text\n");
    list(&mut text, "bytes", 16, bytes.iter().map(|byte| format!("{byte:02x}")));
    writeln!(text, "scale    {}", f64::from(block.scale())).expect("a string");
    for k in 0..K {
        writeln!(text, "plane {k}  0x{:016x}", block.plane(k)).expect("a string");
    }
    writeln!(text, "z1       0x{z1:016x}\nz0       0x{z0:016x}").expect("a string");
    list(&mut text, "numbers", 16, number.iter().map(|n| format!("{n:>2}")));
    list(&mut text, "levels", 16, level.iter().map(|level| format!("{level:>4}")));
    list(&mut text, "values", 8, value.iter().map(f32::to_string));
    text + "```\n\n"
}

/// A name, then its items, `per_line` of them on each line.
fn list(text: &mut String, name: &str, per_line: usize, items: impl Iterator<Item = String>) {
    let items: Vec<_> = items.collect();
    for (i, line) in items.chunks(per_line).enumerate() {
        let name = if i == 0 { name } else { "" };
        writeln!(text, "{name:<9}{}", line.join(" ")).expect("a string");
    }
}
