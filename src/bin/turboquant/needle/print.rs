//! What was found, as tables.

use llama_turboquant::eval::needle::{NeedleCell, NeedlePair};

use crate::table::Table;

/// Cells of one mode and length.
type Line<'a> = &'a [NeedleCell];

fn lines(pair: &NeedlePair) -> impl Iterator<Item = Line<'_>> {
    pair.cells.chunk_by(|a, b| (a.mode, a.length) == (b.mode, b.length))
}

/// A table of lengths and depths for each mode and pair.
pub fn text(found: &[NeedlePair]) -> String {
    let mut text =
        String::from("exact % and mean log-probability of a right token, by tokens and depth\n\n");
    let Some(first) = found.first() else { return text };
    for cells in first.cells.chunk_by(|a, b| a.mode == b.mode) {
        let mode = cells[0].mode;
        for pair in found {
            text += &format!("{}, {} / {}:\n", mode.name(), pair.k, pair.v);
            let depths = lines(pair).next().unwrap_or_default();
            let header = depths.iter().map(|cell| format!("{}%", cell.depth));
            let mut table = Table::new(std::iter::once("tokens".to_owned()).chain(header));
            for line in lines(pair).filter(|line| line[0].mode == mode) {
                let mut row = vec![line[0].length.to_string()];
                row.extend(line.iter().map(|cell| score(cell.exact(), cell.log_prob())));
                table.row(row);
            }
            text += &table.text();
            text += &format!("mean {}\n\n", score(pair.exact(mode), pair.log_prob(mode)));
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// All in one table, with a mean for each mode and pair.
pub fn table(found: &[NeedlePair]) -> Table {
    let depths = found.first().and_then(|pair| lines(pair).next()).unwrap_or_default();
    let header = ["K / V", "mode", "tokens"].map(str::to_owned).into_iter();
    let header = header.chain(depths.iter().map(|cell| format!("{}%", cell.depth)));
    let mut table = Table::new(header.chain(["mean".to_owned()]));
    for pair in found {
        for line in lines(pair) {
            let n = line.len() as f64;
            let mean = |of: fn(&NeedleCell) -> f64| line.iter().map(of).sum::<f64>() / n;
            let cell = &line[0];
            let mut row = vec![
                format!("{} / {}", pair.k, pair.v),
                cell.mode.name().to_owned(),
                cell.length.to_string(),
            ];
            row.extend(line.iter().map(|cell| score(cell.exact(), cell.log_prob())));
            row.push(score(mean(NeedleCell::exact), mean(NeedleCell::log_prob)));
            table.row(row);
        }
    }
    table
}

/// A line per cell.
pub fn csv(found: &[NeedlePair]) -> String {
    let mut table =
        Table::new(["K / V", "mode", "tokens", "depth", "trials", "exact %", "mean logprob"]);
    for pair in found {
        for cell in &pair.cells {
            table.row([
                format!("{} / {}", pair.k, pair.v),
                cell.mode.name().to_owned(),
                cell.length.to_string(),
                cell.depth.to_string(),
                cell.trials.len().to_string(),
                format!("{:.1}", 100.0 * cell.exact()),
                format!("{:.4}", cell.log_prob()),
            ]);
        }
    }
    table.csv()
}

/// `67 -0.31`
fn score(exact: f64, log_prob: f64) -> String {
    format!("{:.0} {log_prob:.2}", 100.0 * exact)
}
