//! Mutex and condition variable: `parking_lot`'s, and in debug builds a check of the lock order.
//!
//! Two threads that take two locks in opposite order deadlock, and only when they meet, which a
//! test may never see. So debug builds, which the tests run, record each order once: "while a lock
//! of class A was held, one of class B was taken". A later attempt at the opposite order panics at
//! once, on one thread alone, and names the places of both. This is what the Linux kernel's lockdep
//! does; a class is the place in the source where a mutex is created, together with its type.
//!
//! `tracing-mutex` would have been the tool, but as of 0.3 it has no `parking_lot` condition
//! variable, and it tracks each mutex apart, so that it learns nothing about the wait queue of one
//! topic from that of another. Release builds have `parking_lot`'s types and nothing else.

#[cfg(debug_assertions)]
pub use checked::{Condvar, Mutex, MutexGuard};
#[cfg(not(debug_assertions))]
pub use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(debug_assertions)]
mod checked {
    use std::ops::{Deref, DerefMut};
    use std::panic::Location;
    use std::time::Instant;

    use parking_lot::WaitTimeoutResult;

    use super::order::{self, Class};

    /// A mutex whose order among others is checked.
    pub struct Mutex<T> {
        inner: parking_lot::Mutex<T>,
        class: Class,
    }

    impl<T> Mutex<T> {
        #[track_caller]
        pub fn new(value: T) -> Mutex<T> {
            let class = Class { created: Location::caller(), of: std::any::type_name::<T>() };
            Mutex { inner: parking_lot::Mutex::new(value), class }
        }

        #[track_caller]
        pub fn lock(&self) -> MutexGuard<'_, T> {
            order::check_and_hold(self.class, Location::caller());
            MutexGuard { inner: self.inner.lock(), class: self.class }
        }

        pub fn into_inner(self) -> T {
            self.inner.into_inner()
        }
    }

    impl<T: Default> Default for Mutex<T> {
        #[track_caller]
        fn default() -> Mutex<T> {
            Mutex::new(T::default())
        }
    }

    /// Gives the lock back when dropped.
    pub struct MutexGuard<'a, T> {
        inner: parking_lot::MutexGuard<'a, T>,
        class: Class,
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.inner
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.inner
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            order::release(self.class);
        }
    }

    /// A condition variable. A wait gives the lock back and takes it again, which is checked like
    /// any other acquisition.
    #[derive(Default)]
    pub struct Condvar(parking_lot::Condvar);

    impl Condvar {
        pub fn new() -> Condvar {
            Condvar::default()
        }

        pub fn notify_one(&self) -> bool {
            self.0.notify_one()
        }

        pub fn notify_all(&self) -> usize {
            self.0.notify_all()
        }

        #[track_caller]
        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            order::release(guard.class);
            self.0.wait(&mut guard.inner);
            order::check_and_hold(guard.class, Location::caller());
        }

        #[track_caller]
        pub fn wait_until<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            deadline: Instant,
        ) -> WaitTimeoutResult {
            order::release(guard.class);
            let result = self.0.wait_until(&mut guard.inner, deadline);
            order::check_and_hold(guard.class, Location::caller());
            result
        }
    }
}

/// The orders seen so far, for the whole process.
#[cfg(debug_assertions)]
mod order {
    use std::cell::RefCell;
    use std::collections::{HashMap, HashSet};
    use std::fmt;
    use std::panic::Location;
    use std::sync::{LazyLock, Mutex, PoisonError};

    type Place = &'static Location<'static>;

    /// Mutexes with the same purpose.
    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Class {
        pub created: Place,
        pub of: &'static str,
    }

    impl fmt::Display for Class {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the mutex of {} (created at {})", self.of, self.created)
        }
    }

    /// Where the outer lock was taken, and where the inner one.
    #[derive(Clone, Copy)]
    struct Seen {
        outer: Place,
        inner: Place,
    }

    /// Which class was taken while which was held: outer class, then inner class.
    static ORDERS: LazyLock<Mutex<HashMap<Class, HashMap<Class, Seen>>>> =
        LazyLock::new(Mutex::default);

    thread_local! {
        static HELD: RefCell<Vec<(Class, Place)>> = const { RefCell::new(Vec::new()) };
        /// Orders that this thread has checked before: the global table is looked at once each.
        static CHECKED: RefCell<HashSet<(Class, Class)>> = RefCell::default();
    }

    /// Checks that `class` may be taken here, while this thread holds what it holds, and holds it.
    ///
    /// # Panics
    /// When another thread, or this one before, has taken the locks in the opposite order, or when
    /// two locks of one class would be held at the same time.
    pub fn check_and_hold(class: Class, here: Place) {
        // A thread that ends has no thread-locals left; it takes locks one at a time.
        let held = HELD.try_with(|held| held.borrow().clone()).unwrap_or_default();
        for (outer, taken_at) in held {
            let is_new = CHECKED.try_with(|checked| checked.borrow_mut().insert((outer, class)));
            if is_new == Ok(true) {
                if let Some(conflict) = record(outer, class, Seen { outer: taken_at, inner: here })
                {
                    report(outer, class, taken_at, here, conflict);
                }
            }
        }
        let _ = HELD.try_with(|held| held.borrow_mut().push((class, here)));
    }

    /// The innermost lock of this class is given back.
    pub fn release(class: Class) {
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(index) = held.iter().rposition(|(of, _)| *of == class) {
                held.remove(index);
            }
        });
    }

    /// Records an order; returns where the opposite order, perhaps by way of others, was seen.
    fn record(outer: Class, inner: Class, seen: Seen) -> Option<Seen> {
        let mut orders = ORDERS.lock().unwrap_or_else(PoisonError::into_inner);
        if outer == inner {
            return Some(seen);
        }
        if let Some(conflict) = path(&orders, inner, outer, &mut HashSet::new()) {
            return Some(conflict);
        }
        orders.entry(outer).or_default().insert(inner, seen);
        None
    }

    /// The first step on a way from one class to another.
    fn path(
        orders: &HashMap<Class, HashMap<Class, Seen>>,
        from: Class,
        to: Class,
        visited: &mut HashSet<Class>,
    ) -> Option<Seen> {
        if !visited.insert(from) {
            return None;
        }
        let next = orders.get(&from)?;
        next.get(&to).copied().or_else(|| {
            let mut others = next.iter();
            others.find_map(|(class, seen)| path(orders, *class, to, visited).map(|_| *seen))
        })
    }

    #[expect(clippy::panic, reason = "a deadlock that can happen is a bug, found in debug builds")]
    fn report(outer: Class, inner: Class, taken_at: Place, here: Place, conflict: Seen) {
        panic!(
            "lock order: {inner} is taken at {here} while {outer} is held since {taken_at}; \
             the opposite order was seen with the outer lock taken at {} and the inner one at {}",
            conflict.outer, conflict.inner
        );
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Takes the second lock while it holds the first.
    fn nest(outer: &Mutex<u8>, inner: &Mutex<i8>) {
        let _outer = outer.lock();
        let _inner = inner.lock();
    }

    fn panic_text(action: impl FnOnce()) -> Option<String> {
        let payload = catch_unwind(AssertUnwindSafe(action)).err()?;
        payload.downcast::<String>().ok().map(|text| *text)
    }

    #[test]
    fn opposite_order_panics_and_names_both_places() {
        let (a, b) = (Mutex::new(0_u8), Mutex::new(0_i8));
        nest(&a, &b);
        nest(&a, &b);
        let text = panic_text(|| {
            let _inner = b.lock();
            let _outer = a.lock();
        });
        let text = text.unwrap_or_default();
        // Created, held, taken; and the two places of the order seen first.
        assert_eq!(text.matches("src/sync.rs:").count(), 6, "{text}");
    }

    #[test]
    fn order_through_a_third_lock_counts() {
        let (a, b, c) = (Mutex::new('a'), Mutex::new("b"), Mutex::new(0.5));
        let take = |first: &dyn Fn()| first();
        take(&|| {
            let _a = a.lock();
            let _b = b.lock();
        });
        take(&|| {
            let _b = b.lock();
            let _c = c.lock();
        });
        let text = panic_text(|| {
            let _c = c.lock();
            let _a = a.lock();
        });
        assert!(text.is_some_and(|text| text.contains("lock order")));
    }

    #[test]
    fn waiting_gives_the_lock_back() {
        let (mutex, condvar, other) = (Mutex::new(1_u16), Condvar::new(), Mutex::new(1_u32));
        let mut guard = mutex.lock();
        assert!(condvar.wait_until(&mut guard, std::time::Instant::now()).timed_out());
        drop(guard);
        let _other = other.lock();
        let _mutex = mutex.lock();
    }
}
