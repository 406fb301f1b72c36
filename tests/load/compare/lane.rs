//! One lane: a publisher, and clients that all learn of its events by one method. One thread, and
//! one clock.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::line::Line;
use super::method::{Method, TOPIC};
use super::tally::{Deliveries, Event, Tally};
use crate::args::Args;
use crate::flock::{seed, wait_held};
use crate::processes;
use crate::stats::{median, millis, most, quantile, rounded};
use crate::target::{Cursor, Target};
use crate::wire::{Conn, Got, Outcome, PATIENCE, SCRATCH, Traffic, Watch};

/// After the last event, and one more round, whoever may have missed it is waited for so long; all
/// others with [`PATIENCE`], as what they have not got by then is lost.
const NAIVE_GRACE: Duration = Duration::from_millis(200);
/// Between two looks at whether it is over.
const TICK: Duration = Duration::from_millis(100);
/// A lane has at least so many events, however short it is.
const EVENTS_AT_LEAST: usize = 2;
const PUBLISHER: usize = 0;

struct Client {
    /// One for each request that is open at once; nothing before the first, and between two of
    /// those that need a connection each.
    lines: Vec<Option<Line>>,
    cursor: String,
    tally: Tally,
    /// When it asks next, if it waits itself, or if that takes its time to get to the server.
    due: Option<Duration>,
    /// It has asked and has no answer.
    asks: bool,
}

#[derive(Clone, Copy, Default)]
struct Costs {
    requests: u64,
    connections: u64,
    traffic: Traffic,
}

struct Lane {
    method: Method,
    target: Target,
    /// How long anything is on its way from the server to a client, or back.
    away: Duration,
    origin: Instant,
    clients: Vec<Client>,
    watch: Watch,
    publisher: Conn,
    /// The publisher waits for its answer.
    publishes: bool,
    published: Vec<Event>,
    deliveries: Deliveries,
    /// Without the traffic of lines that are open.
    costs: Costs,
    scratch: Vec<u8>,
}

/// When to publish: at random, independently, at a mean rate; the same for the same seed.
fn schedule(seed: u64, rate: f64, time: Duration) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut times = Vec::new();
    let mut at = 0.0;
    loop {
        at += -(1.0 - random.f64()).ln() / rate;
        let late = at >= time.as_secs_f64();
        if late && times.len() >= EVENTS_AT_LEAST {
            return times;
        }
        times.push(Duration::from_secs_f64(at).min(time));
    }
}

impl Lane {
    fn new(method: Method, target: Target, count: usize, away: Duration) -> Outcome<Lane> {
        let origin = Instant::now();
        let first = Event { number: 0, published: Duration::ZERO };
        let mut control = Conn::open(target.port)?;
        let Cursor::After(cursor) = seed(target, &mut control, TOPIC, &first.text())? else {
            return Err("the server's answer has no cursor".into());
        };
        let client = || Client {
            lines: (0..method.width()).map(|_| None).collect(),
            cursor: cursor.clone(),
            tally: Tally::new(),
            due: None,
            asks: false,
        };
        let (watch, publisher) = (Watch::new()?, Conn::open(target.port)?);
        watch.add_conn(&publisher, PUBLISHER)?;
        publisher.unblock()?;
        let mut lane = Lane {
            method,
            target,
            away,
            origin,
            clients: (0..count).map(|_| client()).collect(),
            watch,
            publisher,
            publishes: false,
            published: vec![first],
            deliveries: Deliveries::default(),
            costs: Costs::default(),
            scratch: vec![0; SCRATCH],
        };
        if let Some(every) = method.every() {
            let begin = lane.now();
            for (place, client) in (0u32..).zip(&mut lane.clients) {
                client.due = Some(begin + every * place / count as u32);
            }
        } else {
            let width = method.width();
            (0..count * width).try_for_each(|line| lane.ask(line / width, line % width))?;
            wait_held(target, &mut control, count * width)?;
        }
        Ok(lane)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn token(&self, client: usize, line: usize) -> usize {
        1 + client * self.method.width() + line
    }

    /// Sends a client's next request, on the connection that it has or on a new one.
    fn ask(&mut self, client: usize, line: usize) -> Outcome<()> {
        let token = self.token(client, line);
        let Client { lines, cursor, asks, .. } = &mut self.clients[client];
        *asks = true;
        self.costs.requests += 1;
        match &mut lines[line] {
            Some(open) => open.ask(&self.method.request(self.target, cursor)),
            closed => {
                let open = Line::open(self.method, self.target, cursor)?;
                open.watch(&self.watch, token)?;
                *closed = Some(open);
                self.costs.connections += 1;
                Ok(())
            }
        }
    }

    fn publish(&mut self) -> Outcome<()> {
        let event = Event { number: self.published.len(), published: self.now() };
        self.published.push(event);
        self.publisher.send(&self.target.publish(TOPIC, &event.text()))?;
        self.publishes = true;
        Ok(())
    }

    /// Reads what has come, hands it over, and asks again where that is the method.
    fn hear(&mut self, token: usize) -> Outcome<()> {
        if token == PUBLISHER {
            if let Got::Answer(answer) = self.publisher.receive(&mut self.scratch, b"")? {
                self.target.check_publish(&answer, TOPIC)?;
                self.publishes = false;
            }
            return Ok(());
        }
        let (place, slot) = ((token - 1) / self.method.width(), (token - 1) % self.method.width());
        let client = &mut self.clients[place];
        let Some(line) = &mut client.lines[slot] else { return Ok(()) };
        let news = line.hear(&mut self.scratch)?;
        let at = self.origin.elapsed() + self.away;
        let mut took = 0;
        for event in news.events {
            if !self.method.takes_only_newer() || event.number > client.tally.newest() {
                client.tally.hand_over(event, at, &self.published, &mut self.deliveries)?;
                took += 1;
            }
        }
        let Some(next) = news.next else { return Ok(()) };
        client.asks = false;
        if took > 0 || !self.method.takes_only_newer() {
            client.cursor = next;
        }
        if self.method.closes() {
            let traffic = line.traffic();
            self.costs.traffic.sent += traffic.sent;
            self.costs.traffic.received += traffic.received;
            client.lines[slot] = None;
        }
        if self.method.every().is_some() && !news.more {
            return Ok(());
        }
        if self.away.is_zero() {
            return self.ask(place, slot);
        }
        // The answer gets there, and the request back; before it, if need be, a connection's first
        // packet and the answer to that.
        client.due = Some(at + self.away * if self.method.closes() { 3 } else { 1 });
        Ok(())
    }

    /// Asks for those who have waited long enough; says when the next one has. Who still has no
    /// answer leaves one out.
    fn ask_who_is_due(&mut self) -> Outcome<Option<Duration>> {
        let now = self.now();
        for place in 0..self.clients.len() {
            if let Some(due) = self.clients[place].due.filter(|due| *due <= now) {
                self.clients[place].due = self.method.every().map(|every| due + every);
                if !self.clients[place].asks {
                    self.ask(place, 0)?;
                }
            }
        }
        Ok(self.clients.iter().filter_map(|client| client.due).min())
    }

    /// Publishes at the times of the schedule, and goes on until all clients know of everything, or
    /// never will. Gives, for each event, by how many ms it was late.
    fn run(&mut self, schedule: &[Duration]) -> Outcome<Vec<f64>> {
        let begin = self.now();
        let mut ready = Vec::new();
        let mut late = Vec::new();
        while !self.is_over(late.len() == schedule.len())? {
            let now = self.now();
            let mut until = now + TICK;
            if let Some(due) = self.ask_who_is_due()? {
                until = until.min(due);
            }
            if let Some(due) = schedule.get(late.len()).filter(|_| !self.publishes) {
                let due = begin + *due;
                if due <= now {
                    late.push(millis(now.saturating_sub(due)));
                    self.publish()?;
                } else {
                    until = until.min(due);
                }
            }
            self.watch.wait(until.saturating_sub(self.now()), &mut ready)?;
            ready.iter().try_for_each(|token| self.hear(*token))?;
        }
        Ok(late)
    }

    fn is_over(&self, all_is_published: bool) -> Outcome<bool> {
        let since = self.now().saturating_sub(self.published[self.published.len() - 1].published);
        if self.publishes && since > PATIENCE {
            return Err("a publish has no answer".into());
        }
        let grace = if self.method == Method::NaiveLong { NAIVE_GRACE } else { PATIENCE };
        let round = self.method.every().unwrap_or_default() + self.away * 4;
        Ok(all_is_published && (self.all_is_known() || since > round + grace))
    }

    fn all_is_known(&self) -> bool {
        let newest = self.published.len() - 1;
        self.clients.iter().all(|client| client.tally.newest() == newest)
    }

    fn costs(&self) -> Costs {
        let mut costs = self.costs;
        for line in self.clients.iter().flat_map(|client| client.lines.iter().flatten()) {
            costs.traffic.sent += line.traffic().sent;
            costs.traffic.received += line.traffic().received;
        }
        costs
    }
}

pub fn run(target: Target, args: &mut Args) -> Outcome<Value> {
    let method = args.text("method").ok_or("--method is needed")?;
    let clients: usize = args.number("clients", 1)?;
    let rate: f64 = args.number("rate", 1.0)?;
    let time = Duration::from_secs_f64(args.number("seconds", 5.0)?);
    let pid: u32 = args.number("pid", 0)?;
    let random: u64 = args.number("seed", 1)?;
    let round_trip: f64 = args.number("round-trip-ms", 0.0)?;
    args.finish()?;
    let kind = Method::parse(&method)?;
    if round_trip > 0.0 && (kind.every().is_some() || kind.width() > 1) {
        return Err("only long polls and streams can be away".into());
    }
    let away = Duration::from_secs_f64(round_trip / 2e3);
    let mut lane = Lane::new(kind, target, clients, away)?;
    // What it takes to get into place is not counted: it happens once, however long a run is.
    let (begin, cpu, before) = (lane.now(), processes::cpu(pid)?, lane.costs());
    let delays = lane.run(&schedule(random, rate, time))?;
    let (end, costs) = (lane.now(), lane.costs());
    let took = end.saturating_sub(begin).as_secs_f64();
    let cpu = processes::cpu(pid)?.saturating_sub(cpu);
    let events = lane.published.len() - 1;
    let known: usize = lane.clients.iter().map(|client| client.tally.count()).sum();
    let lost = events * clients - known;
    for client in &lane.clients {
        client.tally.note_staleness(end, &lane.published, &mut lane.deliveries);
    }
    let Deliveries { latencies, repeated, backwards, stalest } = lane.deliveries;
    if kind.promises_all() && lost + repeated + backwards > 0 {
        let what = format!("{lost} events lost, {repeated} repeated, {backwards} out of order");
        return Err(format!("{}: {what}", kind.title()).into());
    }
    Ok(json!({
        "load": "lane", "method": method, "title": kind.title(), "clients": clients, "rate": rate,
        "round_trip_ms": round_trip, "seconds": rounded(took), "events": events, "deliveries": known, "lost": lost,
        "repeated": repeated, "backwards": backwards,
        "requests": costs.requests - before.requests, "connections": costs.connections,
        "sent": costs.traffic.sent - before.traffic.sent,
        "received": costs.traffic.received - before.traffic.received,
        "cpu_ms_per_second": rounded(millis(cpu) / took),
        "median_ms": rounded(median(&latencies)), "p99_ms": rounded(quantile(&latencies, 0.99)),
        "stalest_ms": rounded(stalest),
        "late_ms": rounded(quantile(&delays, 0.99)), "latest_ms": rounded(most(&delays)),
    }))
}
