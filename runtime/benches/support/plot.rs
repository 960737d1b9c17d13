//! A bar chart as SVG: groups of bars on a logarithmic axis, readable in light and dark.

use std::fmt::Write;

/// One group of bars.
pub struct Group {
    /// Below the bars.
    pub label: String,
    /// A value for each series, above zero.
    pub values: Vec<f64>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 4] = ["#2f7ed8", "#d9822b", "#8a8f98", "#3f9c5a"];

/// Draws `groups`; each value belongs to the series of its index and is shown in `unit`.
pub fn bars(title: &str, unit: &str, series: &[&str], groups: &[Group]) -> String {
    let values = || groups.iter().flat_map(|group| group.values.iter().copied());
    let low = values().fold(f64::MAX, f64::min).log10().floor();
    let high = values().fold(f64::MIN, f64::max).log10().ceil().max(low + 1.0);
    let y = |value: f64| TOP + (high - value.log10()) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{title}</text>"
    );
    let mut line = |text: String| svg.push_str(&text);
    for power in low as i32..=high as i32 {
        let (value, at) = (10f64.powi(power), y(10f64.powi(power)));
        line(format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value} {unit}</text>",
            WIDTH - 20.0,
            LEFT - 8.0,
            at + 4.0
        ));
    }
    for (index, name) in series.iter().enumerate() {
        let x = LEFT + 170.0 * index as f64;
        line(format!(
            "<rect x=\"{x}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"47\">{name}</text>",
            COLOURS[index % COLOURS.len()],
            x + 18.0
        ));
    }
    let step = (WIDTH - LEFT - 20.0) / groups.len().max(1) as f64;
    for (place, group) in groups.iter().enumerate() {
        let start = LEFT + step * place as f64 + step * 0.1;
        let width = step * 0.8 / group.values.len().max(1) as f64;
        let mut bars = String::new();
        for (index, value) in group.values.iter().enumerate() {
            let (x, top) = (start + width * index as f64, y(*value));
            let _ = write!(
                bars,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{value:.2}</text>",
                width - 3.0,
                HEIGHT - BOTTOM - top,
                COLOURS[index % COLOURS.len()],
                x + width / 2.0,
                top - 4.0
            );
        }
        svg.push_str(&bars);
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            start + step * 0.4,
            HEIGHT - BOTTOM + 22.0,
            group.label
        );
    }
    svg.push_str("</svg>\n");
    svg
}
