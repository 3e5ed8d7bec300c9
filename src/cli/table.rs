//! Tables for people.

/// Rows of cells under a heading; columns as wide as they need be.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Nothing if there are no rows.
    pub(super) fn text(&self) -> String {
        if self.rows.len() == 1 {
            return String::new();
        }
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            text += cells.join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

/// A round trip.
pub(super) fn rtt(us: Option<u64>) -> String {
    us.map_or_else(|| "-".into(), |us| format!("{}.{:02} ms", us / 1000, us % 1000 / 10))
}

/// Time since something.
pub(super) fn age(ms: Option<u64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        Some(ms) => format!("{} s", ms / 1000),
    }
}

/// An amount of data.
pub(super) fn bytes(bytes: u64) -> String {
    let mut rest = bytes;
    for unit in ["B", "kB", "MB", "GB"] {
        if rest < 10_000 {
            return format!("{rest} {unit}");
        }
        rest /= 1000;
    }
    format!("{rest} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(&["A", "LONG"]);
        assert_eq!(table.text(), "");
        table.row(["wide cell".into(), "x".into()]);
        assert_eq!(table.text(), "A          LONG\nwide cell  x\n");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(rtt(Some(12_345)), "12.34 ms");
        assert_eq!(rtt(None), "-");
        assert_eq!(age(Some(1_250)), "1.2 s");
        assert_eq!(bytes(123_456_789), "123 MB");
        assert_eq!(bytes(u64::MAX), "18446744 TB");
    }
}
