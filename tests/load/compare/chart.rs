//! The chart of latency against requests, as an SVG for light and dark themes.

use std::fmt::Write as _;

use super::format::{clients, number, time};
use super::measurement::{Measurement, Measurements};

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 440.0;
/// The edges and the width of the two plots.
const PLOT_TOP: f64 = 58.0;
const PLOT_BOTTOM: f64 = 372.0;
const PLOT_WIDTH: f64 = 360.0;
const PLOT_LEFTS: [f64; 2] = [76.0, 528.0];
/// From a plot's left edge to the position of "no requests", and to the start of the logarithmic
/// axis.
const ZERO_AT: f64 = 22.0;
const LOG_FROM: f64 = 66.0;
/// Between the baselines of two labels.
const LINE_HEIGHT: f64 = 16.0;

const STYLE: &str = "\
svg { font: 13px system-ui, sans-serif; }
.paper { fill: #ffffff; } text { fill: #1f2328; } .faint { fill: #59636e; }
.grid { stroke: #d1d9e0; } .lead { stroke: #818b98; } .whisker { stroke-width: 2; }
.short { fill: #bc4c00; stroke: #bc4c00; } .long { fill: #0969da; stroke: #0969da; }
.stream { fill: #1a7f37; stroke: #1a7f37; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117; } text { fill: #f0f6fc; } .faint { fill: #9198a1; }
  .grid { stroke: #3d444d; } .lead { stroke: #9198a1; }
  .short { fill: #f0883e; stroke: #f0883e; } .long { fill: #4493f8; stroke: #4493f8; }
  .stream { fill: #3fb950; stroke: #3fb950; }
}
.label { stroke: none; }
";

/// A logarithmic axis from 10^low to 10^high, drawn between two coordinates.
struct Axis {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn for_values(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let logs: Vec<f64> = values.filter(|v| *v > 0.0 && v.is_finite()).map(f64::log10).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if logs.is_empty() {
            return Axis { low: 0, high: 1, from, to };
        }
        let (low, high) = (low.floor() as i32, high.ceil() as i32);
        Axis { low, high: high.max(low + 1), from, to }
    }

    fn position(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.from + (self.to - self.from) * share
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| 10f64.powi(power))
    }
}

struct Label {
    text: String,
    class: &'static str,
    x: f64,
    y: f64,
    /// The y coordinate of the text, after overlaps are resolved.
    baseline: f64,
    is_left_of_mark: bool,
}

fn class(m: &Measurement) -> &'static str {
    match &*m.method {
        "sse" | "websocket" => "stream",
        "long" | "long-anew" => "long",
        _ => "short",
    }
}

/// The measurements in the chart. Methods that lose events are left out: their latency says
/// nothing.
fn plotted<'a>(measured: &'a Measurements, workload: &str) -> Vec<&'a Measurement> {
    let most = measured.max_clients();
    let is_plotted = |m: &&Measurement| {
        m.workload == workload
            && m.clients == most
            && !m.is_in_family("naive")
            && !m.is_in_family("two")
            && m.median_ms.is_finite()
    };
    measured.0.iter().filter(is_plotted).collect()
}

pub fn svg(measured: &Measurements) -> String {
    let panels = ["quiet", "busy"].map(|workload| plotted(measured, workload));
    let both = || panels.iter().flatten().copied();
    let times = both().flat_map(|m| [m.median_ms, m.p99_ms]);
    let y = Axis::for_values(times, PLOT_BOTTOM, PLOT_TOP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>Latency against requests, by every way to learn of events</title>\n\
         <style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>\n"
    );
    for (panel, left) in panels.iter().zip(PLOT_LEFTS) {
        let requests = both().map(|m| m.per_client_minute(m.requests));
        let x = Axis::for_values(requests, left + LOG_FROM, left + PLOT_WIDTH);
        draw_panel(&mut out, panel, left, &x, &y);
    }
    let _ = writeln!(
        out,
        "<text class=\"faint\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">requests of each client per \
         minute · dot: median latency, line: up to the 99th percentile · nearer to the lower left is \
         better</text>\n</svg>",
        WIDTH / 2.0,
        HEIGHT - 16.0
    );
    out
}

fn draw_panel(out: &mut String, measured: &[&Measurement], left: f64, x: &Axis, y: &Axis) {
    let right = left + PLOT_WIDTH;
    if let Some(m) = measured.first() {
        let _ = writeln!(
            out,
            "<text x=\"{left}\" y=\"30\" font-weight=\"600\">{} topic, {}, {} events a \
             minute</text>",
            if m.workload == "quiet" { "Quiet" } else { "Busy" },
            clients(m.clients),
            number(m.rate * 60.0)
        );
    }
    for tick in y.ticks() {
        let at = y.position(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            tick_label(tick)
        );
    }
    let none = (left + ZERO_AT, "none".to_owned());
    for (at, text) in x.ticks().map(|tick| (x.position(tick), number(tick))).chain([none]) {
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{PLOT_TOP}\" y2=\"{PLOT_BOTTOM}\"/>\
             <text class=\"faint\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            PLOT_BOTTOM + 20.0
        );
    }
    let labels: Vec<Label> = measured.iter().map(|m| draw_mark(out, m, left, x, y)).collect();
    for label in resolve_overlaps(labels) {
        draw_label(out, &label);
    }
}

fn tick_label(ms: f64) -> String {
    if ms >= 1e3 { format!("{} s", ms / 1e3) } else { format!("{ms} ms") }
}

fn draw_mark(out: &mut String, m: &Measurement, left: f64, x: &Axis, y: &Axis) -> Label {
    let requests = m.per_client_minute(m.requests);
    let at = if requests > 0.0 { x.position(requests) } else { left + ZERO_AT };
    let (middle, tail, class) = (y.position(m.median_ms), y.position(m.p99_ms), class(m));
    let _ = writeln!(
        out,
        "<g class=\"{class}\"><title>{}: median {}, 99 % {}</title><circle cx=\"{at:.1}\" \
         cy=\"{middle:.1}\" r=\"5\"/><line class=\"whisker\" x1=\"{at:.1}\" x2=\"{at:.1}\" \
         y1=\"{middle:.1}\" y2=\"{tail:.1}\"/></g>",
        m.title,
        time(m.median_ms),
        time(m.p99_ms)
    );
    let is_left_of_mark = at > left + PLOT_WIDTH * 0.55;
    Label {
        text: m.title.clone(),
        class,
        x: at,
        y: middle,
        baseline: middle + 4.0,
        is_left_of_mark,
    }
}

/// Moves labels on the same side of their marks down until none overlaps another.
fn resolve_overlaps(mut labels: Vec<Label>) -> Vec<Label> {
    labels.sort_by(|a, b| a.y.total_cmp(&b.y));
    for side in [true, false] {
        let mut next_free = f64::NEG_INFINITY;
        for label in labels.iter_mut().filter(|label| label.is_left_of_mark == side) {
            label.baseline = label.baseline.max(next_free);
            next_free = label.baseline + LINE_HEIGHT;
        }
    }
    labels
}

fn draw_label(out: &mut String, label: &Label) {
    let (offset, anchor) = if label.is_left_of_mark { (-14.0, "end") } else { (14.0, "start") };
    let at = label.x + offset;
    if (label.baseline - 4.0 - label.y).abs() > 1.0 {
        let _ = writeln!(
            out,
            "<line class=\"lead\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            label.x + offset * 0.4,
            label.y,
            label.x + offset * 0.85,
            label.baseline - 4.0
        );
    }
    let _ = writeln!(
        out,
        "<text class=\"label {}\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
        label.class, label.baseline, label.text
    );
}
