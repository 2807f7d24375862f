//! Tables of results, for people and for programs.

use comfy_table::{CellAlignment, presets};
use llama_turboquant::llama::KvFit;

/// What a table looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Json,
    Csv,
    Md,
}

/// Rows of as many cells as the header has.
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    /// Aligned columns, the first to the left.
    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_header(&self.header);
        for (i, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if i > 0 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.add_rows(&self.rows);
        // Without the space that ends each line.
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// RFC 4180, with line feeds.
    pub fn csv(&self) -> String {
        let quoted = |cell: &str| match cell.contains([',', '"', '\n']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.to_owned(),
        };
        self.lines(|cells| cells.map(quoted).collect::<Vec<_>>().join(","), None)
    }

    /// GitHub's Markdown.
    pub fn markdown(&self) -> String {
        let escaped = |cell: &str| cell.replace('|', "\\|");
        let rule = format!("|{}", "---|".repeat(self.header.len()));
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            format!("| {} |", cells.map(escaped).collect::<Vec<_>>().join(" | "))
        };
        self.lines(line, Some(&rule))
    }

    fn lines(
        &self,
        line: impl Fn(&mut dyn Iterator<Item = &str>) -> String,
        rule: Option<&str>,
    ) -> String {
        let mut text = line(&mut self.header.iter().map(String::as_str)) + "\n";
        text.extend(rule.map(|rule| format!("{rule}\n")));
        text.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str)) + "\n"));
        text
    }
}

/// The key scales of a context in a row: `quick 0123abcd`, the beginning of their id.
pub fn fit(fit: Option<&KvFit>) -> String {
    fit.map_or("-".into(), |fit| format!("{} {:08x}", fit.kind, fit.id >> 32))
}
