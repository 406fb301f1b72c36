//! Goal: what the fuzzer ever found interesting, and what is close to it, holds in every test run.
//!
//! The invariants are those of the fuzz targets, in the same source; so is what they found.

#[path = "../../fuzz/query.rs"]
mod query;
#[path = "../../fuzz/request.rs"]
mod request;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;

/// What a target has found, in an order that does not change.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Checks an input; a failure shows it as it can be pasted into a test.
fn holds(check: fn(&[u8]), input: &[u8], whence: &str) {
    let held = catch_unwind(AssertUnwindSafe(|| check(input)));
    assert!(held.is_ok(), "{whence}: b\"{}\"", input.escape_ascii());
}

/// One change, of the kinds that a fuzzer makes.
fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Rng) {
    const TELLING: &[u8] = b"\r\n\t \0:;,.=&?%*#/@[]0159afxA\x7f\x80\xff";
    let at = random.usize(..=input.len());
    let to = at + random.usize(..=(input.len() - at).min(20));
    let byte = TELLING[random.usize(..TELLING.len())];
    match random.u8(..5) {
        0 => input.insert(at, byte),
        1 => drop(input.drain(at..to)),
        2 => input[at..to].iter_mut().take(1).for_each(|changed| *changed = byte),
        3 => input.extend_from_within(at..to),
        _ => {
            let other = random.choice(corpus).map_or(&[][..], Vec::as_slice);
            let from = random.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

/// Replays what a target has found, then thousands of changed ones.
fn replay(target: &str, check: fn(&[u8]), rounds: u32) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 50, "only {} inputs", corpus.len());
    for input in &corpus {
        holds(check, input, "found by fuzzing");
    }
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    for _ in 0..rounds {
        let mut input = random.choice(&corpus).cloned().unwrap_or_default();
        for _ in 0..random.u8(1..=3) {
            change(&mut input, &corpus, &mut random);
        }
        holds(check, &input, &format!("seed {seed}"));
    }
}

#[test]
fn what_the_fuzzer_found_in_the_request_reader_holds() {
    replay("request", request::check, 10_000);
}

#[test]
fn what_the_fuzzer_found_in_queries_holds() {
    replay("query", query::check, 5_000);
}

#[test]
fn the_strictness_table_holds_for_the_fuzzer_too() {
    for case in super::strictness::table() {
        holds(request::check, &case.bytes, &case.name);
    }
}
