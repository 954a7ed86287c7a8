//! Curves on two logarithmic axes, as SVG. Where the cost of everything is shown, a dashed line shows what linear would be:
//! a curve that is not steeper is linear or better.

use std::fmt::Write as _;

/// Panels side by side.
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) panels: Vec<Panel>,
}

/// Curves with the same axes.
pub(crate) struct Panel {
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) curves: Vec<Curve>,
    /// Whether linear growth is a line upwards (the cost of all), and not a flat one (the cost of one).
    pub(crate) whole: bool,
}

/// A name and its points.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 330.0;
/// Left, top, right and bottom of the axes within a panel.
const FRAME: (f64, f64, f64, f64) = (62.0, 52.0, 384.0, 284.0);
const COLORS: [&str; 4] = ["#1f5fa8", "#c2571a", "#2e7d4f", "#7a3e9d"];

/// From the powers of ten around the values to pixels.
struct Axis {
    first: i32,
    last: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let logs: Vec<f64> = values.filter(|value| *value > 0.0).map(f64::log10).collect();
        let least = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if logs.is_empty() {
            return Axis { first: 0, last: 1, from, to };
        }
        // A value that is a power of ten lies on the edge, not a power further in.
        let (first, last) = ((least + 1e-9).floor() as i32, (most - 1e-9).ceil() as i32);
        Axis { first, last: last.max(first + 1), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        self.from + (self.to - self.from) * part
    }
}

/// `1`, `10`, ..., `10k`, `1M`; below 1 as a decimal.
fn power(exponent: i32) -> String {
    let (unit, zeros) = match exponent {
        ..0 => return format!("{}", 10f64.powi(exponent)),
        0..3 => ("", exponent),
        3..6 => ("k", exponent - 3),
        6..9 => ("M", exponent - 6),
        _ => ("G", exponent - 9),
    };
    format!("1{}{unit}", "0".repeat(zeros.unsigned_abs() as usize))
}

impl Plot {
    /// The file's text.
    pub(crate) fn to_svg(&self) -> String {
        let width = WIDTH * self.panels.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        text(&mut svg, (width / 2.0, 20.0), "middle", "font-weight=\"bold\" font-size=\"14\"", &self.title);
        for (number, panel) in self.panels.iter().enumerate() {
            let _ = writeln!(svg, "<g transform=\"translate({} 0)\">", WIDTH * number as f64);
            panel.draw(&mut svg);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl Panel {
    fn draw(&self, svg: &mut String) {
        let (left, top, right, bottom) = FRAME;
        let points = || self.curves.iter().flat_map(|curve| curve.points.iter().copied());
        let x = Axis::around(points().map(|(x, _)| x), left, right);
        let y = Axis::around(points().map(|(_, y)| y), bottom, top);
        for exponent in x.first..=x.last {
            let at = x.at(10f64.powi(exponent));
            line(svg, (at, top), (at, bottom), "stroke=\"#ddd\"");
            text(svg, (at, bottom + 16.0), "middle", "", &power(exponent));
        }
        for exponent in y.first..=y.last {
            let at = y.at(10f64.powi(exponent));
            line(svg, (left, at), (right, at), "stroke=\"#ddd\"");
            text(svg, (left - 6.0, at + 4.0), "end", "", &power(exponent));
        }
        line(svg, (left, bottom), (right, bottom), "stroke=\"#333\"");
        line(svg, (left, top), (left, bottom), "stroke=\"#333\"");
        text(svg, (f64::midpoint(left, right), bottom + 36.0), "middle", "", self.x);
        text(svg, (left - 50.0, top - 10.0), "start", "", self.y);
        self.draw_linear(svg, &x, &y);
        for (number, curve) in self.curves.iter().enumerate() {
            let color = COLORS.get(number % COLORS.len()).copied().unwrap_or("#000");
            let places: Vec<_> = curve.points.iter().map(|(a, b)| (x.at(*a), y.at(*b))).collect();
            let path: Vec<String> = places.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
            let path = path.join(" ");
            let _ = writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>");
            for (a, b) in places {
                let _ = writeln!(svg, "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3\" fill=\"{color}\"/>");
            }
            let place = (left + 10.0, top + 16.0 * (number + 1) as f64);
            text(svg, place, "start", &format!("fill=\"{color}\""), &curve.name);
        }
    }

    /// Through the last point of the first curve, as far as the axes go.
    fn draw_linear(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let last = self.curves.first().and_then(|curve| curve.points.last());
        let Some((end, cost)) = last.copied().filter(|_| self.whole) else { return };
        let begin = 10f64.powi(x.first).max(10f64.powi(y.first) * end / cost);
        let dashes = "stroke=\"#888\" stroke-dasharray=\"4 4\"";
        line(svg, (x.at(begin), y.at(cost * begin / end)), (x.at(end), y.at(cost)), dashes);
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let ((a, b), (c, d)) = (from, to);
    // Writing to a string can't fail.
    let _ = writeln!(svg, "<line x1=\"{a:.1}\" y1=\"{b:.1}\" x2=\"{c:.1}\" y2=\"{d:.1}\" {style}/>");
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" {style}>{text}</text>", at.0, at.1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_go_from_power_to_power() {
        let axis = Axis::around([1.0, 1000.0].into_iter(), 0.0, 300.0);
        assert_eq!((axis.first, axis.last), (0, 3));
        assert_eq!([1.0, 10.0, 1000.0].map(|value| axis.at(value).round()), [0.0, 100.0, 300.0]);
        let axis = Axis::around([0.2, 11.0].into_iter(), 0.0, 1.0);
        assert_eq!((axis.first, axis.last), (-1, 2));
        let flat = Axis::around([10.0, 10.0].into_iter(), 0.0, 1.0);
        assert_eq!((flat.first, flat.last), (1, 2));
        assert_eq!([-1, 0, 2, 4, 6].map(power), ["0.1", "1", "100", "10k", "1M"]);
    }

    #[test]
    fn a_plot_has_every_point_and_escapes_its_text() {
        let curve = Curve { name: "file -> file".to_owned(), points: vec![(1.0, 2.0), (10.0, 20.0), (100.0, 150.0)] };
        let panel = Panel { x: "columns", y: "ns", curves: vec![curve], whole: true };
        let svg = Plot { title: "a & b".to_owned(), panels: vec![panel] }.to_svg();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("file -&gt; file") && svg.contains("a &amp; b"), "{svg}");
        assert!(svg.contains("stroke-dasharray"), "what linear would be");
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
    }
}
