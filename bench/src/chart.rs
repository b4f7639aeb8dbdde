//! Draws without a display: plain SVG, with the fonts of whoever looks at it.

use std::fmt::Write as _;

const INK: &str = "#1f2933";
const FAINT: &str = "#d5dae0";
const AMY: &str = "#c2410c";

/// One contender's place in a panel: where it stands, and the middle half of the rounds.
pub struct Mark {
    pub name: String,
    pub at: f64,
    pub low: f64,
    pub high: f64,
}

pub struct Panel {
    pub title: String,
    pub marks: Vec<Mark>,
}

/// The points of one line, along two logarithmic axes.
pub struct Curve {
    pub title: String,
    pub note: String,
    pub along: String,
    pub points: Vec<(f64, f64)>,
}

fn color(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("amy 0.10") => "#e2a37f",
        _ if name.starts_with("amy") => AMY,
        _ if name.starts_with("raw") => "#52606d",
        _ => "#2f6fab",
    }
}

struct Canvas {
    body: String,
}

impl Canvas {
    fn text(&mut self, x: f64, y: f64, anchor: &str, style: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" {style}>{text}</text>"#
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{color}" stroke-width="{width}"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    fn dot(&mut self, x: f64, y: f64, radius: f64, color: &str) {
        let _ =
            writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{color}"/>"#);
    }

    fn finish(self, width: f64, height: f64, title: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" \
             width=\"{width}\" height=\"{height:.0}\" role=\"img\" \
             font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"12\" \
             fill=\"{INK}\">\n<title>{title}</title>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// The whole steps of a logarithmic axis: 1, 2, 5, 10 and so on.
fn steps(low: f64, high: f64) -> Vec<f64> {
    let all = (-9..=9).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)));
    let fit: Vec<f64> = all.filter(|step| (low..=high).contains(step)).collect();
    if fit.len() <= 8 {
        return fit;
    }
    let decades = fit.into_iter().filter(|step| (step.log10() - step.log10().round()).abs() < 1e-9);
    decades.collect()
}

pub fn number(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{:.3}M", value / 1e6).replace(".000M", "M"),
        _ if value >= 1e3 => format!("{:.1}k", value / 1e3).replace(".0k", "k"),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => {
            let text = format!("{value:.1}");
            text.strip_suffix(".0").map_or(text.clone(), str::to_string)
        }
        _ => {
            let text = format!("{value:.2}");
            text.strip_suffix(".00").map_or(text.clone(), str::to_string)
        }
    }
}

/// Each contender's cost as a ratio to the floor, on a logarithmic axis: to the left is cheaper.
pub fn ratios(title: &str, axis: &str, panels: &[Panel]) -> String {
    const WIDTH: f64 = 800.0;
    const NAMES: f64 = 150.0;
    const ROW: f64 = 17.0;
    let columns = if panels.len() > 3 { 2 } else { 1 };
    let column = (WIDTH - 20.0) / columns as f64;
    let all = || panels.iter().flat_map(|panel| &panel.marks);
    let low = all().map(|mark| mark.at.min(mark.low)).fold(1.0, f64::min) * 0.9;
    let high = all().map(|mark| mark.at).fold(1.0, f64::max) * 1.1;
    let mut canvas = Canvas { body: String::new() };
    canvas.text(16.0, 26.0, "start", "font-size=\"15\" font-weight=\"600\"", title);
    canvas.text(16.0, 44.0, "start", "fill=\"#52606d\"", axis);

    let mut tops = vec![60.0; columns];
    for (number_of, panel) in panels.iter().enumerate() {
        let which = number_of % columns;
        let left = 10.0 + column * which as f64 + NAMES;
        let width = column - NAMES - 60.0;
        let x = |value: f64| {
            let value = value.clamp(low, high);
            left + (value / low).ln() / (high / low).ln() * width
        };
        let top = tops[which] + 20.0;
        let bottom = top + ROW * panel.marks.len() as f64;
        canvas.text(left, top - 6.0, "start", "font-weight=\"600\"", &panel.title);
        for step in steps(low, high) {
            canvas.line((x(step), top), (x(step), bottom), FAINT, 1.0);
            let style = "font-size=\"10\" fill=\"#7b8794\"";
            canvas.text(x(step), bottom + 12.0, "middle", style, &number(step));
        }
        canvas.line((x(1.0), top), (x(1.0), bottom), "#52606d", 1.5);
        for (row, mark) in panel.marks.iter().enumerate() {
            let y = top + ROW * (row as f64 + 0.5);
            let color = color(&mark.name);
            let weight = if mark.name.starts_with("amy") && color == AMY {
                "font-weight=\"600\""
            } else {
                ""
            };
            canvas.text(left - 8.0, y + 4.0, "end", weight, &mark.name);
            canvas.line((x(1.0), y), (x(mark.at), y), color, 2.0);
            canvas.line((x(mark.low), y), (x(mark.high), y), color, 5.0);
            canvas.dot(x(mark.at), y, 4.5, color);
            let right = x(mark.at).max(x(mark.high)) + 8.0;
            canvas.text(right, y + 4.0, "start", weight, &number(mark.at));
        }
        tops[which] = bottom + 22.0;
    }
    let height = tops.iter().copied().fold(0.0, f64::max) + 6.0;
    canvas.finish(WIDTH, height, title)
}

/// How costs grow, one panel each.
pub fn growth(title: &str, curves: &[Curve]) -> String {
    const WIDTH: f64 = 800.0;
    const HEIGHT: f64 = 230.0;
    let mut canvas = Canvas { body: String::new() };
    canvas.text(16.0, 26.0, "start", "font-size=\"15\" font-weight=\"600\"", title);
    for (place, curve) in curves.iter().enumerate() {
        let left = 56.0 + 400.0 * (place % 2) as f64;
        let top = 82.0 + HEIGHT * (place / 2) as f64;
        let (width, height) = (310.0, 120.0);
        let xs = || curve.points.iter().map(|point| point.0);
        let ys = || curve.points.iter().map(|point| point.1);
        let (x_low, x_high) = (xs().fold(f64::MAX, f64::min), xs().fold(1.0, f64::max));
        // At least a factor of ten upwards, so that noise does not look like growth.
        let y_low = ys().fold(f64::MAX, f64::min) / 2.0;
        let y_high = (ys().fold(0.0, f64::max) * 2.0).max(y_low * 20.0);
        let x = |value: f64| left + (value / x_low).ln() / (x_high / x_low).ln() * width;
        let y = |value: f64| top + height - (value / y_low).ln() / (y_high / y_low).ln() * height;
        canvas.text(left, top - 24.0, "start", "font-weight=\"600\"", &curve.title);
        canvas.text(left, top - 9.0, "start", "fill=\"#52606d\" font-size=\"11\"", &curve.note);
        let small = "font-size=\"10\" fill=\"#7b8794\"";
        for step in steps(y_low, y_high) {
            canvas.line((left, y(step)), (left + width, y(step)), FAINT, 1.0);
            let label = if step < 1000.0 {
                format!("{} ns", number(step))
            } else {
                format!("{} us", number(step / 1000.0))
            };
            canvas.text(left - 6.0, y(step) + 3.0, "end", small, &label);
        }
        let mut free = 0.0;
        for point in xs() {
            if x(point) >= free {
                canvas.text(x(point), top + height + 14.0, "middle", small, &number(point));
                free = x(point) + 30.0;
            }
        }
        canvas.text(left + width / 2.0, top + height + 29.0, "middle", small, &curve.along);
        for pair in curve.points.windows(2) {
            let at = |point: (f64, f64)| (x(point.0), y(point.1));
            canvas.line(at(pair[0]), at(pair[1]), AMY, 2.0);
        }
        for &(size, cost) in &curve.points {
            canvas.dot(x(size), y(cost), 3.5, AMY);
        }
    }
    canvas.finish(WIDTH, 60.0 + HEIGHT * curves.len().div_ceil(2) as f64, title)
}
