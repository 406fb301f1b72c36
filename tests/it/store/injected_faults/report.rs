//! The table of all trials: per fault and continuation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::observed::Rule;
use super::plan::{Continuation, TrialPlan};
use super::verdict::Verdict;

/// The sums over some trials.
#[derive(Default, Clone, Copy)]
struct Sums {
    trials: usize,
    /// Trials in which an operation failed, and all operations that failed.
    met: usize,
    failed: i64,
    acknowledged: usize,
    refused: usize,
    refused_but_there_after_a_kill: usize,
    refused_but_there_after_an_end: usize,
    violations: usize,
}

impl Sums {
    fn add(&mut self, verdict: &Verdict) {
        self.trials += 1;
        self.met += usize::from(verdict.failed > 0);
        self.failed += verdict.failed;
        self.acknowledged += verdict.acknowledged;
        self.refused += verdict.refused;
        self.refused_but_there_after_a_kill += verdict.refused_but_there_after_a_kill;
        self.refused_but_there_after_an_end += verdict.refused_but_there_after_an_end;
        self.violations += usize::from(!verdict.violations.is_empty());
    }
}

#[derive(Default)]
pub struct Report {
    rows: BTreeMap<(&'static str, Continuation), Sums>,
    total: Sums,
    /// Trials that violated each rule.
    rules: BTreeMap<Rule, usize>,
}

/// Violations of one trial that are printed.
const PRINTED: usize = 6;

impl Report {
    /// Adds a trial, and prints what is wrong with it.
    pub fn add(&mut self, plan: &TrialPlan, verdict: &Verdict, directory: &Path) {
        self.rows.entry((plan.kind.name, plan.continuation)).or_default().add(verdict);
        self.total.add(verdict);
        if verdict.violations.is_empty() {
            return;
        }
        let rules: BTreeSet<_> =
            verdict.violations.iter().map(|violation| violation.rule).collect();
        for rule in rules {
            *self.rules.entry(rule).or_default() += 1;
        }
        println!("VIOLATED by {plan}");
        for violation in verdict.violations.iter().take(PRINTED) {
            println!("  {:?}: {}", violation.rule, violation.text);
        }
        let more = verdict.violations.len().saturating_sub(PRINTED);
        println!("  {more} more; scripts/faults.sh --trials 1 --seed {}", plan.seed);
        println!("  the store and the server's stderr are in {}", directory.display());
    }

    /// Trials with a violation.
    pub fn violations(&self) -> usize {
        self.total.violations
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| fault | then | trials | fault met | operations failed | events acknowledged | \
             changes refused | refused but there after a kill | \
             refused but there after an end | trials with violations |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        )?;
        let rows =
            self.rows.iter().map(|((fault, then), sums)| (*fault, format!("{then:?}"), sums));
        for (fault, then, sums) in rows.chain([("all", String::new(), &self.total)]) {
            let Sums { trials, met, failed, acknowledged, refused, violations, .. } = sums;
            let killed = sums.refused_but_there_after_a_kill;
            let ended = sums.refused_but_there_after_an_end;
            writeln!(
                f,
                "| {fault} | {then} | {trials} | {met} | {failed} | {acknowledged} | {refused} | \
                 {killed} | {ended} | {violations} |"
            )?;
        }
        writeln!(f, "trials with violations, by rule: {:?}", self.rules)
    }
}
