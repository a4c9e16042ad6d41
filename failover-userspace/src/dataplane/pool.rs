//! Slots of one map, handed out and taken back after a grace period.

use std::collections::VecDeque;

use bytemuck::Pod;

use super::Error;
use super::grace::{Grace, Ticket};
use super::mapped::Mapped;

/// Values that are written once, read for a while, and given back.
pub(super) struct Pool<T> {
    name: &'static str,
    values: Mapped<T>,
    /// Slots from here on were never used.
    fresh: u32,
    free: Vec<u32>,
    /// Given back, but readers may still look at them; in order of tickets.
    retired: VecDeque<(Ticket, u32)>,
}

impl<T: Pod> Pool<T> {
    pub(super) const fn new(name: &'static str, values: Mapped<T>) -> Self {
        Self {
            name,
            values,
            fresh: 0,
            free: Vec::new(),
            retired: VecDeque::new(),
        }
    }

    /// Makes sure that `count` slots can be taken, waiting for readers if need be.
    pub(super) fn reserve(&mut self, count: usize, grace: &Grace) -> Result<(), Error> {
        self.reclaim(grace.over());
        while self.available() < count {
            let Some((ticket, _)) = self.retired.front() else {
                return Err(Error::Full {
                    map: self.name,
                    needed: count,
                    available: self.available(),
                });
            };
            grace.wait(*ticket);
            self.reclaim(grace.over());
        }
        Ok(())
    }

    fn available(&self) -> usize {
        self.free.len() + (self.values.len() - self.fresh) as usize
    }

    fn reclaim(&mut self, over: Ticket) {
        while let Some((ticket, index)) = self.retired.front().copied() {
            if ticket > over {
                break;
            }
            self.free.push(index);
            self.retired.pop_front();
        }
    }

    /// Writes a value into a slot that no reader looks at. [`Pool::reserve`] came before.
    pub(super) fn put(&mut self, value: &T) -> Result<u32, Error> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.fresh < self.values.len() => {
                self.fresh += 1;
                self.fresh - 1
            }
            None => {
                return Err(Error::Full {
                    map: self.name,
                    needed: 1,
                    available: 0,
                });
            }
        };
        self.values.write(index, value);
        Ok(index)
    }

    /// Writes values into adjacent slots that were never used. Returns the first.
    pub(super) fn put_run(&mut self, values: &[T]) -> Result<u32, Error> {
        let first = self.fresh;
        if values.len() > (self.values.len() - first) as usize {
            return Err(Error::Full {
                map: self.name,
                needed: values.len(),
                available: self.available(),
            });
        }
        for value in values {
            self.values.write(self.fresh, value);
            self.fresh += 1;
        }
        Ok(first)
    }

    /// Gives a slot back; it is used again when the ticket is over.
    pub(super) fn retire(&mut self, index: u32, ticket: Ticket) {
        self.retired.push_back((ticket, index));
    }
}
