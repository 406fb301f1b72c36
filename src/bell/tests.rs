//! Goal: who waits is woken, once, and nobody else.

use super::*;
use std::time::Duration;

fn topics(list: &str) -> TopicSet {
    TopicSet::parse(list).unwrap()
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_bell_remembers_what_was_rung_before_the_wait() {
    let room = Room::<(), ()>::default();
    let seat = room.sit(&topics("a"), ());
    drop(room.ring(&Name::new("a").unwrap(), 5, |()| true));
    assert_eq!(seat.wait(4, far()), Woken::Rung);
    assert_eq!(seat.wait(5, Instant::now()), Woken::Deadline);
}

#[test]
fn a_topic_rings_its_own_bell_and_those_of_its_prefixes_only() {
    let room = Room::<(), ()>::default();
    let seats = ["a.b", "a.*", "*", "x,a.b", "a.", "b*", "a.b.c", "x,y"]
        .map(|list| (list, room.sit(&topics(list), ())));
    drop(room.ring(&Name::new("a.b").unwrap(), 1, |()| true));
    let rung: Vec<_> = seats
        .iter()
        .filter(|(_, seat)| seat.wait(0, Instant::now()) == Woken::Rung)
        .map(|(list, _)| *list)
        .collect();
    assert_eq!(rung, ["a.b", "a.*", "*", "x,a.b"]);
}

#[test]
fn bells_are_gone_when_nobody_sits() {
    let room = Room::<(), ()>::default();
    let seats = ["a", "a", "a,b*", "*"].map(|list| room.sit(&topics(list), ()));
    assert_eq!(room.seats().len(), 4);
    drop(seats);
    assert_eq!(room.hung.lock().all().len(), 0);
}

#[test]
fn a_drained_room_holds_nobody() {
    let room = Room::<(), ()>::default();
    let seat = room.sit(&topics("a"), ());
    room.drain();
    assert_eq!(seat.wait(0, far()), Woken::Drained);
    assert_eq!(room.sit(&topics("b"), ()).wait(0, far()), Woken::Drained);
}

#[test]
fn each_held_poll_is_released_once() {
    let room = Arc::new(Room::<(), ()>::default());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let room = Arc::clone(&room);
            std::thread::spawn(move || room.sit(&topics("a,b"), ()).wait(0, far()))
        })
        .collect();
    let a = Name::new("a").unwrap();
    while room.held(&a) < 4 {
        std::thread::yield_now();
    }
    assert_eq!(room.ring(&a, 1, |()| false).count(), 0);
    let released: usize = (2..10).map(|seq| room.ring(&a, seq, |()| true).count()).sum();
    assert!(released <= 4);
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Woken::Rung);
    }
}

#[test]
fn a_claimed_waiter_gets_what_the_ringer_leaves_even_after_its_deadline() {
    let room = Room::<(), &str>::default();
    let seat = room.sit(&topics("a"), ());
    let a = Name::new("a").unwrap();
    std::thread::scope(|scope| {
        let past_deadline = Instant::now() + Duration::from_millis(20);
        let waits = scope.spawn(move || seat.wait(0, past_deadline));
        while room.waiting() < 1 {
            std::thread::yield_now();
        }
        let mut claims = room.ring(&a, 1, |()| true);
        // The waiter may have given up just before; then there is nobody to claim.
        if claims.count() == 1 {
            while Instant::now() < past_deadline {
                std::thread::yield_now();
            }
            claims.by_bell().flatten().for_each(|claim| claim.left = Some("written"));
            drop(claims);
            assert_eq!(waits.join().unwrap(), Woken::Left("written"));
        }
    });
}
