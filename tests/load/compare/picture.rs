//! Latency against requests, as an SVG that can be read in light and dark.

use std::fmt::Write as _;

use super::row::{Row, Rows, clients, shown, time};

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 440.0;
/// Of the plots.
const TOP: f64 = 58.0;
const BOTTOM: f64 = 372.0;
const PLOT: f64 = 360.0;
const LEFTS: [f64; 2] = [76.0, 528.0];
/// From a plot's left edge to where no requests are; and to where the logarithmic axis begins.
const NONE_AT: f64 = 22.0;
const LOG_FROM: f64 = 66.0;
/// Between the baselines of two labels.
const LINE: f64 = 16.0;

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

/// A logarithmic axis between two powers of ten.
struct Axis {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Axis {
        let logs: Vec<f64> = values.filter(|v| *v > 0.0 && v.is_finite()).map(f64::log10).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if logs.is_empty() {
            return Axis { low: 0, high: 1, from, to };
        }
        let (low, high) = (low.floor() as i32, high.ceil() as i32);
        Axis { low, high: high.max(low + 1), from, to }
    }

    fn at(&self, value: f64) -> f64 {
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
    /// Where its baseline is in the end.
    line: f64,
    to_the_left: bool,
}

fn class(row: &Row) -> &'static str {
    match &*row.method {
        "sse" | "websocket" => "stream",
        "long" | "long-anew" => "long",
        _ => "short",
    }
}

/// Who loses events is not in the picture: there is no point in being quick then.
fn shown_rows<'a>(rows: &'a Rows, workload: &str) -> Vec<&'a Row> {
    let count = rows.most_clients();
    let wanted = |row: &&Row| {
        row.workload == workload
            && row.clients == count
            && !row.is_of("naive")
            && !row.is_of("two")
            && row.median.is_finite()
    };
    rows.0.iter().filter(wanted).collect()
}

pub fn svg(rows: &Rows) -> String {
    let panels = ["quiet", "busy"].map(|workload| shown_rows(rows, workload));
    let both = || panels.iter().flatten().copied();
    let times = both().flat_map(|row| [row.median, row.p99]);
    let y = Axis::over(times, BOTTOM, TOP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>Latency against requests, by every way to learn of events</title>\n\
         <style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>\n"
    );
    for (panel, left) in panels.iter().zip(LEFTS) {
        let requests = both().map(|row| row.per_minute(row.requests));
        let x = Axis::over(requests, left + LOG_FROM, left + PLOT);
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

fn draw_panel(out: &mut String, rows: &[&Row], left: f64, x: &Axis, y: &Axis) {
    let right = left + PLOT;
    if let Some(row) = rows.first() {
        let _ = writeln!(
            out,
            "<text x=\"{left}\" y=\"30\" font-weight=\"600\">{} topic, {}, {} events a \
             minute</text>",
            if row.workload == "quiet" { "Quiet" } else { "Busy" },
            clients(row.clients),
            shown(row.rate * 60.0)
        );
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            tick_time(tick)
        );
    }
    let none = (left + NONE_AT, "none".to_owned());
    for (at, text) in x.ticks().map(|tick| (x.at(tick), shown(tick))).chain([none]) {
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
             <text class=\"faint\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            BOTTOM + 20.0
        );
    }
    let labels: Vec<Label> = rows.iter().map(|row| draw_mark(out, row, left, x, y)).collect();
    for label in placed(labels) {
        draw_label(out, &label);
    }
}

fn tick_time(ms: f64) -> String {
    if ms >= 1e3 { format!("{} s", ms / 1e3) } else { format!("{ms} ms") }
}

fn draw_mark(out: &mut String, row: &Row, left: f64, x: &Axis, y: &Axis) -> Label {
    let often = row.per_minute(row.requests);
    let at = if often > 0.0 { x.at(often) } else { left + NONE_AT };
    let (middle, tail, class) = (y.at(row.median), y.at(row.p99), class(row));
    let _ = writeln!(
        out,
        "<g class=\"{class}\"><title>{}: median {}, 99 % {}</title><circle cx=\"{at:.1}\" \
         cy=\"{middle:.1}\" r=\"5\"/><line class=\"whisker\" x1=\"{at:.1}\" x2=\"{at:.1}\" \
         y1=\"{middle:.1}\" y2=\"{tail:.1}\"/></g>",
        row.title,
        time(row.median),
        time(row.p99)
    );
    let to_the_left = at > left + PLOT * 0.55;
    Label { text: row.title.clone(), class, x: at, y: middle, line: middle + 4.0, to_the_left }
}

/// Labels on the same side of their marks are moved down until none is on another.
fn placed(mut labels: Vec<Label>) -> Vec<Label> {
    labels.sort_by(|a, b| a.y.total_cmp(&b.y));
    for side in [true, false] {
        let mut free = f64::NEG_INFINITY;
        for label in labels.iter_mut().filter(|label| label.to_the_left == side) {
            label.line = label.line.max(free);
            free = label.line + LINE;
        }
    }
    labels
}

fn draw_label(out: &mut String, label: &Label) {
    let (away, anchor) = if label.to_the_left { (-14.0, "end") } else { (14.0, "start") };
    let at = label.x + away;
    if (label.line - 4.0 - label.y).abs() > 1.0 {
        let _ = writeln!(
            out,
            "<line class=\"lead\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            label.x + away * 0.4,
            label.y,
            label.x + away * 0.85,
            label.line - 4.0
        );
    }
    let _ = writeln!(
        out,
        "<text class=\"label {}\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
        label.class, label.line, label.text
    );
}
