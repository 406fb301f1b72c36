//! Guards the findings of the fuzzer: the inputs in its corpus, and random changes of them, hold in
//! every test run.
//!
//! The invariants are those of the fuzz targets, from the same source files.

#[path = "../../fuzz/query.rs"]
mod query;
#[path = "../../fuzz/request.rs"]
mod request;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;

/// The corpus of a target, in a fixed order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Checks an input; a failure prints it as a byte string for a test.
fn assert_holds(check: fn(&[u8]), input: &[u8], origin: &str) {
    let result = catch_unwind(AssertUnwindSafe(|| check(input)));
    assert!(result.is_ok(), "{origin}: b\"{}\"", input.escape_ascii());
}

/// Makes one change of the kinds that a fuzzer makes.
fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Rng) {
    const SPECIAL: &[u8] = b"\r\n\t \0:;,.=&?%*#/@[]0159afxA\x7f\x80\xff";
    let at = random.usize(..=input.len());
    let to = at + random.usize(..=(input.len() - at).min(20));
    let byte = SPECIAL[random.usize(..SPECIAL.len())];
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

/// Replays the corpus of a target, then `rounds` changed inputs.
fn replay(target: &str, check: fn(&[u8]), rounds: u32) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 50, "only {} inputs", corpus.len());
    for input in &corpus {
        assert_holds(check, input, "found by fuzzing");
    }
    let seed = fastrand::u64(..);
    let mut random = Rng::with_seed(seed);
    for _ in 0..rounds {
        let mut input = random.choice(&corpus).cloned().unwrap_or_default();
        for _ in 0..random.u8(1..=3) {
            change(&mut input, &corpus, &mut random);
        }
        assert_holds(check, &input, &format!("seed {seed}"));
    }
}

#[test]
fn fuzz_corpus_of_the_request_reader_holds() {
    replay("request", request::check, 10_000);
}

#[test]
fn fuzz_corpus_of_queries_holds() {
    replay("query", query::check, 5_000);
}

#[test]
fn strictness_table_satisfies_the_fuzz_invariants() {
    for case in super::strictness::table() {
        assert_holds(request::check, &case.bytes, &case.name);
    }
}
