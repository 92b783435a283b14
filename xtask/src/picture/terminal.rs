//! A terminal with text in it, as SVG.

use std::fmt::Write as _;

/// Of a character, in pixels: DejaVu Sans Mono's at 12 pixels.
const WIDTH: f32 = 7.224;
/// Between two lines.
const HEIGHT: usize = 17;
/// Around the text.
const MARGIN: usize = 16;

/// Words that have a colour wherever they stand alone: who decided.
const COLOURED: [(&str, &str); 3] = [("kernel", "#7ee787"), ("screener", "#ffa657"), ("nobody", "#8b949e")];

/// A space that stays.
const NO_BREAK: &str = "\u{a0}";

/// Draws the lines of `text`.
pub(super) fn drawn(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let width = (longest as f32).mul_add(WIDTH, 2.0 * MARGIN as f32).ceil();
    let height = HEIGHT * lines.len() + 2 * MARGIN;
    let mut drawing = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12" fill="#c9d1d9">
"##
    );
    for (number, line) in lines.iter().enumerate() {
        let baseline = MARGIN + HEIGHT * number + 12;
        // Writing to a string does not fail.
        let _ = writeln!(drawing, r#"<text x="{MARGIN}" y="{baseline}">{}</text>"#, coloured(line));
    }
    drawing.push_str("</g>\n</svg>\n");
    drawing
}

/// A line, with colours; commands are bright.
fn coloured(line: &str) -> String {
    let escaped = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Else most viewers draw one of several.
    let escaped = escaped.replace(' ', NO_BREAK);
    if line.starts_with("# ") || line.trim_start().starts_with("$ ") {
        return format!(r##"<tspan fill="#ffffff" font-weight="bold">{escaped}</tspan>"##);
    }
    COLOURED.iter().fold(escaped, |line, (word, colour)| {
        let [alone, drawn] = [(*word).to_owned(), format!(r#"<tspan fill="{colour}">{word}</tspan>"#)];
        let between = |word: String| format!("{NO_BREAK}{NO_BREAK}{word}{NO_BREAK}");
        line.replace(&between(alone), &between(drawn))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_line_by_line() {
        let drawing = drawn("# a <b>\nwho  kernel  0.1 ms\n\nthe kernel & more");
        assert_eq!(drawing.matches("<text ").count(), 4);
        let drawing = drawing.replace(NO_BREAK, "_");
        assert!(drawing.contains(">who__<tspan fill=\"#7ee787\">kernel</tspan>__0.1_ms</text>"), "{drawing}");
        assert!(drawing.contains(">#_a_&lt;b&gt;") && drawing.contains(">the_kernel_&amp;_more</text>"), "{drawing}");
        assert!(drawing.starts_with("<svg ") && drawing.contains("height=\"100\""), "{drawing}");
    }
}
