//! The event heap: what happens next, and in which order things of the same time happen.
//!
//! Ordered by time, then by the number under which an event was entered: equal times keep their order,
//! so a world has one history only.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Events to come, earliest first.
#[derive(Debug)]
pub struct EventHeap<E> {
    heap: BinaryHeap<Entry<E>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Time,
    number: u64,
    event: E,
}

impl<E> Default for EventHeap<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), next: 0 }
    }
}

impl<E> EventHeap<E> {
    /// Enters `event` at `at`, after everything already entered for that time.
    pub fn push(&mut self, at: Time, event: E) {
        self.heap.push(Entry { at, number: self.next, event });
        self.next += 1;
    }

    /// When the next event is.
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next event, unless it is later than `until`.
    pub fn pop_until(&mut self, until: Time) -> Option<(Time, E)> {
        if self.next_at()? > until {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed: the greatest of a [`BinaryHeap`] comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(heap: &mut EventHeap<u32>, until: u64) -> Vec<u32> {
        std::iter::from_fn(|| heap.pop_until(Time::from_nanos(until)).map(|(_, event)| event)).collect()
    }

    #[test]
    fn events_come_by_time() {
        let mut heap = EventHeap::default();
        for at in [30, 10, 20] {
            heap.push(Time::from_nanos(at), u32::try_from(at).expect("small"));
        }
        assert_eq!(drained(&mut heap, 100), [10, 20, 30]);
        assert!(heap.is_empty());
    }

    #[test]
    fn events_of_one_time_come_as_they_were_entered() {
        let mut heap = EventHeap::default();
        for event in 0..100 {
            heap.push(Time::from_nanos(7), event);
        }
        assert_eq!(drained(&mut heap, 7), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_later_stays() {
        let mut heap = EventHeap::default();
        heap.push(Time::from_nanos(5), 5);
        heap.push(Time::from_nanos(6), 6);
        assert_eq!(drained(&mut heap, 5), [5]);
        assert_eq!((heap.len(), heap.next_at()), (1, Some(Time::from_nanos(6))));
    }
}
