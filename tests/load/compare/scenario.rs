//! One scenario of the comparison: a publisher, and subscribers that all receive its events by one
//! delivery method. One thread and one clock, so that latencies include the subscribers' own work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::delivery_stats::{DeliveryStats, ReceivedEvents, TimedEvent};
use super::method::{DeliveryMethod, TOPIC};
use super::subscriber_conn::SubscriberConn;
use crate::LoadResult;
use crate::args::Args;
use crate::conn::{Conn, READ_BUFFER, RESPONSE_TIMEOUT, Received, Traffic};
use crate::epoll::Epoll;
use crate::held_polls::{create_topic, wait_until_held};
use crate::processes;
use crate::stats::{max, median, millis, quantile, rounded};
use crate::target::{Cursor, Target};

/// After the last event, long polls without a cursor may have missed it; the scenario waits only
/// this long for them. All other methods have [`RESPONSE_TIMEOUT`] before an event counts as lost.
const GRACE_WITHOUT_CURSOR: Duration = Duration::from_millis(200);
/// Between two checks whether the scenario is over.
const TICK: Duration = Duration::from_millis(100);
/// A scenario publishes at least this many events, however short it is.
const MIN_EVENTS: usize = 2;
/// The epoll token of the publisher's connection; the subscribers' follow.
const PUBLISHER: usize = 0;

struct Subscriber {
    /// One for each request that is open at once; `None` before the first request, and between two
    /// requests of a method that opens a connection for each.
    conns: Vec<Option<SubscriberConn>>,
    cursor: String,
    received: ReceivedEvents,
    /// When the next request leaves, or, with a network delay, reaches the server.
    next_request_at: Option<Duration>,
    awaits_response: bool,
}

/// What all subscribers together cost the network.
#[derive(Clone, Copy, Default)]
struct Costs {
    requests: u64,
    connections: u64,
    traffic: Traffic,
}

struct Scenario {
    method: DeliveryMethod,
    target: Target,
    /// The simulated network delay in one direction.
    one_way_delay: Duration,
    started: Instant,
    subscribers: Vec<Subscriber>,
    epoll: Epoll,
    publisher: Conn,
    publish_is_pending: bool,
    published: Vec<TimedEvent>,
    stats: DeliveryStats,
    /// Excludes the traffic of open connections, which [`Scenario::costs`] adds.
    costs: Costs,
    buffer: Vec<u8>,
}

/// Random, independent times at a mean rate (a Poisson process); equal for equal seeds.
fn publish_times(seed: u64, rate: f64, time: Duration) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut times = Vec::new();
    let mut at = 0.0;
    loop {
        at += -(1.0 - random.f64()).ln() / rate;
        let is_late = at >= time.as_secs_f64();
        if is_late && times.len() >= MIN_EVENTS {
            return times;
        }
        times.push(Duration::from_secs_f64(at).min(time));
    }
}

impl Scenario {
    /// Publishes event 0 and connects all subscribers. Polls at an interval begin spread over the
    /// interval; all other subscribers are held by the server when this returns.
    fn set_up(
        method: DeliveryMethod,
        target: Target,
        count: usize,
        one_way_delay: Duration,
    ) -> LoadResult<Scenario> {
        let started = Instant::now();
        let first = TimedEvent { number: 0, published_at: Duration::ZERO };
        let mut control = Conn::connect(target.port)?;
        let Cursor::After(cursor) = create_topic(target, &mut control, TOPIC, &first.text())?
        else {
            return Err("the server's response has no cursor".into());
        };
        let subscriber = || Subscriber {
            conns: (0..method.open_requests()).map(|_| None).collect(),
            cursor: cursor.clone(),
            received: ReceivedEvents::new(),
            next_request_at: None,
            awaits_response: false,
        };
        let (epoll, publisher) = (Epoll::new()?, Conn::connect(target.port)?);
        epoll.add(&publisher, PUBLISHER)?;
        publisher.set_nonblocking()?;
        let mut scenario = Scenario {
            method,
            target,
            one_way_delay,
            started,
            subscribers: (0..count).map(|_| subscriber()).collect(),
            epoll,
            publisher,
            publish_is_pending: false,
            published: vec![first],
            stats: DeliveryStats::default(),
            costs: Costs::default(),
            buffer: vec![0; READ_BUFFER],
        };
        if let Some(interval) = method.interval() {
            let begin = scenario.now();
            for (index, subscriber) in (0u32..).zip(&mut scenario.subscribers) {
                subscriber.next_request_at = Some(begin + interval * index / count as u32);
            }
        } else {
            let width = method.open_requests();
            (0..count * width).try_for_each(|i| scenario.send_request(i / width, i % width))?;
            wait_until_held(target, &mut control, count * width)?;
        }
        Ok(scenario)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn token(&self, subscriber: usize, conn: usize) -> usize {
        1 + subscriber * self.method.open_requests() + conn
    }

    /// Sends a subscriber's next request, on its connection or on a new one.
    fn send_request(&mut self, index: usize, conn: usize) -> LoadResult<()> {
        let token = self.token(index, conn);
        let Subscriber { conns, cursor, awaits_response, .. } = &mut self.subscribers[index];
        *awaits_response = true;
        self.costs.requests += 1;
        if let Some(open) = &mut conns[conn] {
            return open.send_poll(&self.method.request(self.target, cursor));
        }
        let open = SubscriberConn::open(self.method, self.target, cursor)?;
        self.epoll.add(open.conn(), token)?;
        conns[conn] = Some(open);
        self.costs.connections += 1;
        Ok(())
    }

    fn publish(&mut self) -> LoadResult<()> {
        let event = TimedEvent { number: self.published.len(), published_at: self.now() };
        self.published.push(event);
        self.publisher.send(&self.target.publish_request(TOPIC, &event.text()))?;
        self.publish_is_pending = true;
        Ok(())
    }

    fn handle_readable(&mut self, token: usize) -> LoadResult<()> {
        if token == PUBLISHER {
            if let Received::Response(response) = self.publisher.receive(&mut self.buffer, b"")? {
                self.target.check_publish(&response, TOPIC)?;
                self.publish_is_pending = false;
            }
            return Ok(());
        }
        let width = self.method.open_requests();
        self.read_subscriber((token - 1) / width, (token - 1) % width)
    }

    /// Reads and records events; after a complete response, sends or schedules the next request.
    fn read_subscriber(&mut self, index: usize, conn: usize) -> LoadResult<()> {
        let subscriber = &mut self.subscribers[index];
        let Some(open) = &mut subscriber.conns[conn] else { return Ok(()) };
        let batch = open.read_events(&mut self.buffer)?;
        let at = self.started.elapsed() + self.one_way_delay;
        let drops_known = self.method.drops_known_events();
        let mut delivered = 0;
        for event in batch.events {
            if !drops_known || event.number > subscriber.received.newest() {
                subscriber.received.deliver(event, at, &self.published, &mut self.stats)?;
                delivered += 1;
            }
        }
        let Some(next) = batch.next else { return Ok(()) };
        subscriber.awaits_response = false;
        if delivered > 0 || !drops_known {
            subscriber.cursor = next;
        }
        if self.method.closes_connections() {
            self.costs.traffic.add(open.traffic());
            subscriber.conns[conn] = None;
        }
        if self.method.interval().is_some() && !batch.more {
            return Ok(());
        }
        if self.one_way_delay.is_zero() {
            return self.send_request(index, conn);
        }
        // The next request arrives after one more delay, on a new connection after three: SYN,
        // SYN-ACK and request.
        let delays = if self.method.closes_connections() { 3 } else { 1 };
        subscriber.next_request_at = Some(at + self.one_way_delay * delays);
        Ok(())
    }

    /// Sends the requests whose time has come, and returns the time of the next one. A poll at an
    /// interval is skipped while the previous one is unanswered.
    fn send_due_requests(&mut self) -> LoadResult<Option<Duration>> {
        let now = self.now();
        for index in 0..self.subscribers.len() {
            let subscriber = &mut self.subscribers[index];
            if let Some(due) = subscriber.next_request_at.filter(|due| *due <= now) {
                subscriber.next_request_at = self.method.interval().map(|interval| due + interval);
                if !subscriber.awaits_response {
                    self.send_request(index, 0)?;
                }
            }
        }
        Ok(self.subscribers.iter().filter_map(|subscriber| subscriber.next_request_at).min())
    }

    /// Publishes at the given times, and continues until all subscribers have all events or the
    /// time for that is over. Returns by how many ms each publish was late.
    fn run(&mut self, publish_times: &[Duration]) -> LoadResult<Vec<f64>> {
        let begin = self.now();
        let mut ready = Vec::new();
        let mut delays = Vec::new();
        while !self.is_over(delays.len() == publish_times.len())? {
            let now = self.now();
            let mut wake_at = now + TICK;
            if let Some(due) = self.send_due_requests()? {
                wake_at = wake_at.min(due);
            }
            if let Some(time) = publish_times.get(delays.len()).filter(|_| !self.publish_is_pending)
            {
                let due = begin + *time;
                if due <= now {
                    delays.push(millis(now.saturating_sub(due)));
                    self.publish()?;
                } else {
                    wake_at = wake_at.min(due);
                }
            }
            self.epoll.wait(wake_at.saturating_sub(self.now()), &mut ready)?;
            ready.iter().try_for_each(|token| self.handle_readable(*token))?;
        }
        Ok(delays)
    }

    fn is_over(&self, all_published: bool) -> LoadResult<bool> {
        let last = self.published[self.published.len() - 1].published_at;
        let since_last = self.now().saturating_sub(last);
        if self.publish_is_pending && since_last > RESPONSE_TIMEOUT {
            return Err("a publish was not answered".into());
        }
        let grace = match self.method {
            DeliveryMethod::LongPollWithoutCursor => GRACE_WITHOUT_CURSOR,
            _ => RESPONSE_TIMEOUT,
        };
        let round = self.method.interval().unwrap_or_default() + self.one_way_delay * 4;
        Ok(all_published && (self.all_received() || since_last > round + grace))
    }

    fn all_received(&self) -> bool {
        let newest = self.published.len() - 1;
        self.subscribers.iter().all(|subscriber| subscriber.received.newest() == newest)
    }

    fn costs(&self) -> Costs {
        let mut costs = self.costs;
        for conn in self.subscribers.iter().flat_map(|subscriber| subscriber.conns.iter().flatten())
        {
            costs.traffic.add(conn.traffic());
        }
        costs
    }
}

pub fn run(target: Target, args: &mut Args) -> LoadResult<Value> {
    let name = args.required("method")?;
    let clients: usize = args.number("clients", 1)?;
    let rate: f64 = args.number("rate", 1.0)?;
    let time = Duration::from_secs_f64(args.number("seconds", 5.0)?);
    let pid: u32 = args.number("pid", 0)?;
    let seed: u64 = args.number("seed", 1)?;
    let round_trip_ms: f64 = args.number("round-trip-ms", 0.0)?;
    args.finish()?;
    let method = DeliveryMethod::parse(&name)?;
    if round_trip_ms > 0.0 && (method.interval().is_some() || method.open_requests() > 1) {
        return Err("--round-trip-ms: expected a long poll or a stream".into());
    }
    let one_way_delay = Duration::from_secs_f64(round_trip_ms / 2e3);
    let mut scenario = Scenario::set_up(method, target, clients, one_way_delay)?;
    // The set-up is not counted: it happens once, however long a scenario runs.
    let (begin, cpu_before) = (scenario.now(), processes::live_thread_cpu(pid)?);
    let before = scenario.costs();
    let delays = scenario.run(&publish_times(seed, rate, time))?;
    let (end, costs) = (scenario.now(), scenario.costs());
    let seconds = end.saturating_sub(begin).as_secs_f64();
    let cpu = processes::live_thread_cpu(pid)?.saturating_sub(cpu_before);
    let events = scenario.published.len() - 1;
    let deliveries: usize = scenario.subscribers.iter().map(|s| s.received.count()).sum();
    let lost = events * clients - deliveries;
    for subscriber in &scenario.subscribers {
        subscriber.received.record_staleness(end, &scenario.published, &mut scenario.stats);
    }
    let DeliveryStats { latencies, duplicates, out_of_order, max_staleness } = scenario.stats;
    if method.is_exactly_once() && lost + duplicates + out_of_order > 0 {
        let failure = format!("{lost} lost, {duplicates} duplicate, {out_of_order} out of order");
        return Err(format!("{}: {failure}", method.title()).into());
    }
    Ok(json!({
        "load": "scenario", "method": name, "title": method.title(), "clients": clients,
        "rate": rate, "round_trip_ms": round_trip_ms, "seconds": rounded(seconds),
        "events": events, "deliveries": deliveries, "lost": lost,
        "duplicates": duplicates, "out_of_order": out_of_order,
        "requests": costs.requests - before.requests, "connections": costs.connections,
        "sent": costs.traffic.sent - before.traffic.sent,
        "received": costs.traffic.received - before.traffic.received,
        "cpu_ms_per_second": rounded(millis(cpu) / seconds),
        "median_ms": rounded(median(&latencies)), "p99_ms": rounded(quantile(&latencies, 0.99)),
        "max_staleness_ms": rounded(max_staleness),
        "publish_delay_p99_ms": rounded(quantile(&delays, 0.99)),
        "publish_delay_max_ms": rounded(max(&delays)),
    }))
}
