//! Shapes of a drawing: [`Svg`]. Colours are of the page, or in the middle between light and dark.

use std::fmt::Write;

use super::escape;

/// For members and fault kinds, told apart on white and on black.
pub(super) const COLOURS: [&str; 8] = [
    "#4c8dd6", "#d9772b", "#4aa36b", "#b45fc4", "#c9a227", "#3aa6a6", "#d65c7a", "#8a8f98",
];

pub(super) struct Svg {
    body: String,
    width: u64,
}

impl Svg {
    pub fn new(width: u64) -> Svg {
        let body = String::new();
        Svg { body, width }
    }

    pub fn rect(&mut self, at: (u64, u64), size: (u64, u64), colour: &str, title: &str) {
        self.shape(
            at,
            size,
            &format!("fill=\"{colour}\" fill-opacity=\"0.75\""),
            title,
        );
    }

    /// What may have gone on: only an outline.
    pub fn dashed(&mut self, at: (u64, u64), size: (u64, u64), colour: &str, title: &str) {
        let style =
            format!("fill=\"{colour}\" fill-opacity=\"0.15\" stroke=\"{colour}\" stroke-dasharray=\"4 3\"");
        self.shape(at, size, &style, title);
    }

    fn shape(&mut self, (x, y): (u64, u64), (width, height): (u64, u64), style: &str, title: &str) {
        let (width, title) = (width.max(1), escape::html(title));
        self.push(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" {style}><title>{title}</title></rect>"
        ));
    }

    pub fn line(&mut self, from: (u64, u64), to: (u64, u64)) {
        self.push(format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"rule\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub fn path(&mut self, points: &[(u64, u64)], colour: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
        let points = points.join(" ");
        self.push(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        ));
    }

    pub fn text(&mut self, (x, y): (u64, u64), class: &str, text: &str) {
        let text = escape::html(text);
        self.push(format_args!(
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{text}</text>"
        ));
    }

    pub fn done(self, height: u64, label: &str) -> String {
        let (width, label, body) = (self.width, escape::html(label), self.body);
        format!(
            "<div class=\"drawing\"><svg role=\"img\" aria-label=\"{label}\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">\n{body}</svg></div>\n"
        )
    }

    fn push(&mut self, shape: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{shape}");
    }
}
