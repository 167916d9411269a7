//! Charts: small SVG made of numbers and names of classes only; what stands beside them is the template's, escaped.

use std::fmt::Write;

/// Inner width and height; a chart is stretched to its place.
const SIZE: (f64, f64) = (1_000.0, 220.0);

/// A bar of parts: class, how many; of so many.
pub fn meter(parts: &[(&str, u64)], total: u64) -> String {
    let mut out = String::from("<svg viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    let (mut x, total) = (0.0, total.max(1) as f64);
    for (class, n) in parts.iter().filter(|(_, n)| *n > 0) {
        let width = *n as f64 * 1_000.0 / total;
        let _ = write!(out, "<rect class=\"{class}\" x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"10\"/>");
        x += width;
    }
    out + "</svg>"
}

/// Counts over time, one above the other: `rows` are times with one count per class, the oldest first. Each count holds until
/// the next row: versions do not glide.
pub fn stacked(rows: &[(u64, Vec<u64>)], classes: &[&str], from: u64, until: u64) -> String {
    let (width, height) = SIZE;
    let top = rows.iter().map(|(_, counts)| counts.iter().sum::<u64>()).max().unwrap_or(0).max(1) as f64;
    let span = until.saturating_sub(from).max(1) as f64;
    let x = |at: u64| (at.clamp(from, until) - from) as f64 / span * width;
    let y = |n: u64| height - n as f64 / top * height;
    let mut out = format!("<svg viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    for (at, class) in classes.iter().enumerate() {
        let below = |counts: &[u64]| counts.iter().take(at).sum::<u64>();
        let (mut upper, mut lower) = (String::new(), Vec::new());
        for (n, (time, counts)) in rows.iter().enumerate() {
            let ends = rows.get(n + 1).map_or(until, |(next, _)| *next);
            let base = below(counts);
            let full = base + counts.get(at).copied().unwrap_or(0);
            for time in [*time, ends] {
                let _ = write!(upper, "{:.1},{:.1} ", x(time), y(full));
                lower.push(format!("{:.1},{:.1} ", x(time), y(base)));
            }
        }
        lower.reverse();
        let _ = write!(out, "<polygon class=\"{class}\" points=\"{}{}\"/>", upper, lower.concat().trim_end());
    }
    let _ = write!(out, "<path class=\"axis\" d=\"M0 {height}H{width}\" vector-effect=\"non-scaling-stroke\"/>");
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_their_bar() {
        assert!(meter(&[("a", 1), ("b", 3), ("c", 0)], 4).contains("<rect class=\"b\" x=\"250.0\" y=\"0\" width=\"750.0\""));
        assert!(!meter(&[], 0).contains("rect"));
    }

    #[test]
    fn areas_stand_on_each_other() {
        let svg = stacked(&[(0, vec![1, 1]), (50, vec![0, 2])], &["a", "b"], 0, 100);
        assert!(svg.contains("class=\"a\" points=\"0.0,110.0 500.0,110.0 500.0,220.0 1000.0,220.0 "), "{svg}");
        assert!(svg.contains("class=\"b\" points=\"0.0,0.0 500.0,0.0 500.0,0.0 1000.0,0.0 "), "{svg}");
        assert!(stacked(&[], &["a"], 5, 5).contains("</svg>"));
    }
}
