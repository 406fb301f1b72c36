//! The verdict finds each kind of violation in observations that are made up.

use super::observed::{Change, Draft, Observed, Operation, Outcome, Rule, SeenEvent};
use super::plan::{Continuation, TrialPlan};
use super::verdict::{Findings, Verdict, judge};

fn draft(id: &str) -> Draft {
    Draft { id: id.to_owned(), size: 3 }
}

fn publish(id: &str, outcome: Outcome) -> Operation {
    Operation {
        topic: "busy.0".to_owned(),
        change: Change::Publish { drafts: vec![draft(id)], key: None },
        refused: (outcome == Outcome::Refused).then_some(0),
        outcome,
        began: 1,
        cut: false,
        duplicate: false,
        run: 1,
        sent_at: None,
        waiting: false,
    }
}

fn acknowledged(id: &str, first: u64) -> Operation {
    publish(id, Outcome::Acknowledged { epoch: "e".to_owned(), first })
}

fn seen(id: &str, seq: u64, run: usize) -> SeenEvent {
    let (epoch, topic, data) = ("e".to_owned(), "busy.0".to_owned(), draft(id).body());
    SeenEvent { epoch, seq, topic, data, run }
}

/// A trial in which the poller saw what remains.
fn verdict(operations: Vec<Operation>, remains: Vec<SeenEvent>) -> Verdict {
    let epochs = vec!["e".to_owned()];
    let shown = remains.clone();
    let mut observed = Observed::default();
    (observed.operations, observed.shown, observed.epochs) = (operations, shown, epochs);
    // A seed whose trial ends in order.
    let plan = (0..1_000).map(TrialPlan::new).find(|plan| plan.continuation == Continuation::End);
    let findings = Findings { remains, completed: true, ..Findings::default() };
    judge(&plan.unwrap(), &observed, &findings)
}

fn rules(verdict: &Verdict) -> Vec<Rule> {
    let mut rules: Vec<_> = verdict.violations.iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn acknowledged_events_have_to_be_there_once_and_unchanged() {
    let both = || vec![acknowledged("a", 1), acknowledged("b", 2)];
    assert_eq!(rules(&verdict(both(), vec![seen("a", 1, 1), seen("b", 2, 1)])), []);
    let lost = verdict(both(), vec![seen("a", 1, 1)]);
    assert_eq!(rules(&lost), [Rule::Kept, Rule::Polled]);
    for wrong in [seen("b", 3, 1), seen("a", 2, 1), seen("unknown", 2, 1)] {
        assert!(rules(&verdict(both(), vec![seen("a", 1, 1), wrong])).contains(&Rule::Kept));
    }
    let mut changed = seen("b", 2, 1);
    changed.data.push('!');
    assert_eq!(rules(&verdict(both(), vec![seen("a", 1, 1), changed])), [Rule::Kept]);
    assert_eq!(
        rules(&verdict(both(), vec![seen("b", 2, 1), seen("a", 1, 1)])),
        [Rule::Kept, Rule::Polled]
    );
}

#[test]
fn refused_events_may_not_be_there_and_unanswered_ones_may() {
    let there = || vec![seen("a", 1, 2)];
    let refused = publish("a", Outcome::Refused);
    assert_eq!(rules(&verdict(vec![refused.clone()], vec![])), []);
    assert_eq!(rules(&verdict(vec![refused.clone()], there())), [Rule::Refused]);
    let cut = Operation { cut: true, ..refused };
    assert_eq!(rules(&verdict(vec![cut], there())), []);
    let duplicate = Operation { duplicate: true, refused: Some(0), ..acknowledged("a", 1) };
    assert_eq!(rules(&verdict(vec![duplicate], there())), [Rule::Refused]);
}

#[test]
fn a_trim_removes_events_if_it_is_acknowledged_and_not_if_it_is_refused() {
    let trim = |outcome| Operation { change: Change::Delete, ..publish("", outcome) };
    let done = Outcome::Acknowledged { epoch: String::new(), first: 0 };
    let after = |outcome| vec![acknowledged("a", 1), trim(outcome), acknowledged("b", 2)];
    let (all, rest) = (vec![seen("a", 1, 1), seen("b", 2, 1)], vec![seen("b", 2, 1)]);
    let polled_all = |operations, remains: &[SeenEvent]| {
        let mut verdict = verdict(operations, remains.to_vec());
        // The poller of these trials reads only what remains.
        verdict.violations.retain(|violation| violation.rule != Rule::Polled);
        rules(&verdict)
    };
    assert_eq!(polled_all(after(done.clone()), &rest), []);
    assert_eq!(polled_all(after(done), &all), [Rule::Refused]);
    assert_eq!(polled_all(after(Outcome::Refused), &all), []);
    assert_eq!(polled_all(after(Outcome::Refused), &rest), [Rule::Refused]);
}
