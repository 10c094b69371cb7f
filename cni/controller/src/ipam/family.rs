//! The addresses of one family in one subnet.
//!
//! Addresses are numbers here. Memory grows with what is used, not with the size of the range: of
//! what was freed only [`REMEMBERED`] are kept in order, older ones are found again by walking the
//! range when it has been given out once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::str::FromStr;

/// How many freed addresses are kept in the order in which they were freed.
const REMEMBERED: usize = 1 << 16;

/// Where a pool stands; what of it must survive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The next address that was never given out, or, once there is none left, the one behind the
    /// last one given out.
    pub next: u128,
    /// Whether every address has been given out once.
    pub wrapped: bool,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { next, wrapped } = self;
        write!(f, "{next:x}{}", if *wrapped { " wrapped" } else { "" })
    }
}

impl FromStr for Cursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (next, wrapped) = match text.split_once(' ') {
            Some((next, _)) => (next, true),
            None => (text, false),
        };
        Ok(Self {
            next: u128::from_str_radix(next, 16)?,
            wrapped,
        })
    }
}

/// Why an address cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// Not in the range.
    Outside,
    /// Never given out: excluded, the gateway's or the like.
    Reserved,
    /// Somebody has it.
    Taken,
    /// Nothing is left.
    Full,
}

/// A range of addresses and who-knows-who has some of them.
#[derive(Clone, Debug)]
pub struct Family {
    first: u128,
    last: u128,
    /// Disjoint, ascending, within the range.
    reserved: Vec<(u128, u128)>,
    used: HashSet<u128>,
    cursor: Cursor,
    /// Freed addresses in order, with the number of the freeing: an entry counts only if
    /// `freed_at` still says the same.
    freed: VecDeque<(u128, u64)>,
    freed_at: HashMap<u128, u64>,
    frees: u64,
    /// Whether there may be free addresses behind the cursor that neither `freed` nor `recalled`
    /// lists.
    forgotten: bool,
    /// What a walk found of them, in the order to give it out.
    recalled: VecDeque<u128>,
    /// Further holders of a used address: the record should have none, but may.
    shared: HashMap<u128, u32>,
}

impl Family {
    /// The range `first..=last` without the reserved ranges, nothing used yet.
    pub fn new(first: u128, last: u128, reserved: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut family = Self {
            first,
            last,
            reserved: Vec::new(),
            used: HashSet::new(),
            cursor: Cursor {
                next: first,
                wrapped: false,
            },
            freed: VecDeque::new(),
            freed_at: HashMap::new(),
            frees: 0,
            forgotten: false,
            recalled: VecDeque::new(),
            shared: HashMap::new(),
        };
        family.reserve(reserved);
        family
    }

    /// Replaces the reserved ranges. What is used stays used.
    pub fn reserve(&mut self, reserved: impl IntoIterator<Item = (u128, u128)>) {
        let mut ranges: Vec<(u128, u128)> = reserved
            .into_iter()
            .map(|(a, b)| (a.max(self.first), b.min(self.last)))
            .filter(|(a, b)| a <= b)
            .collect();
        ranges.sort_unstable();
        let before = std::mem::take(&mut self.reserved);
        for (a, b) in ranges {
            match self.reserved.last_mut() {
                Some((_, end)) if a <= end.saturating_add(1) => *end = b.max(*end),
                _ => self.reserved.push((a, b)),
            }
        }
        // What is no longer reserved may lie behind the cursor.
        self.forgotten |= !before.is_empty() && before != self.reserved;
    }

    /// Goes on where a former process stood.
    pub fn restore(&mut self, cursor: Cursor) {
        self.cursor = Cursor {
            next: cursor.next.clamp(self.first, self.last),
            wrapped: cursor.wrapped,
        };
        self.forgotten = true;
    }

    /// Where it stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// How many are used.
    pub fn used(&self) -> u128 {
        self.used.len() as u128
    }

    /// How many can still be had.
    pub fn available(&self) -> u128 {
        let reserved: u128 = self
            .reserved
            .iter()
            .map(|(a, b)| (b - a).saturating_add(1))
            .sum();
        let size = (self.last - self.first).saturating_add(1);
        let outside = self.used.iter().filter(|ip| self.is_reserved(**ip)).count() as u128;
        size.saturating_sub(reserved)
            .saturating_sub(self.used() - outside)
    }

    /// Whether somebody has it.
    pub fn is_used(&self, ip: u128) -> bool {
        self.used.contains(&ip)
    }

    /// Marks an address that the record says is used, also one that would not be given out (its
    /// exclusion may be younger). False if it was used already: then it has two holders and is
    /// free when both have given it back.
    pub fn mark(&mut self, ip: u128) -> bool {
        self.freed_at.remove(&ip);
        let first = self.used.insert(ip);
        if !first {
            *self.shared.entry(ip).or_default() += 1;
        }
        first
    }

    /// Takes this very address.
    pub fn take(&mut self, ip: u128) -> Result<(), PickError> {
        if ip < self.first || ip > self.last {
            Err(PickError::Outside)
        } else if self.is_reserved(ip) {
            Err(PickError::Reserved)
        } else if self.is_used(ip) {
            Err(PickError::Taken)
        } else {
            self.mark(ip);
            Ok(())
        }
    }

    /// Takes the next: one that was never given out, else the one freed longest ago.
    pub fn pick(&mut self) -> Result<u128, PickError> {
        if !self.cursor.wrapped {
            match self.free_from(self.cursor.next, self.last) {
                Some(ip) => {
                    if ip == self.last {
                        self.cursor = Cursor {
                            next: self.first,
                            wrapped: true,
                        };
                    } else {
                        self.cursor.next = ip + 1;
                    }
                    self.mark(ip);
                    return Ok(ip);
                }
                None => {
                    self.cursor = Cursor {
                        next: self.first,
                        wrapped: true,
                    };
                }
            }
        }
        let ip = self.oldest_freed().ok_or(PickError::Full)?;
        self.cursor.next = if ip == self.last { self.first } else { ip + 1 };
        self.mark(ip);
        Ok(ip)
    }

    /// Gives an address back. False if nobody had it.
    pub fn free(&mut self, ip: u128) -> bool {
        if let Some(others) = self.shared.get_mut(&ip) {
            *others -= 1;
            if *others == 0 {
                self.shared.remove(&ip);
            }
            return true;
        }
        if !self.used.remove(&ip) {
            return false;
        }
        if !self.cursor.wrapped && ip >= self.cursor.next {
            // It was asked for by name ahead of the cursor, which will come by.
            return true;
        }
        self.frees += 1;
        self.freed.push_back((ip, self.frees));
        self.freed_at.insert(ip, self.frees);
        while self.freed.len() > REMEMBERED {
            if let Some((ip, number)) = self.freed.pop_front()
                && self.freed_at.get(&ip) == Some(&number)
            {
                self.freed_at.remove(&ip);
                self.forgotten = true;
            }
        }
        true
    }

    fn oldest_freed(&mut self) -> Option<u128> {
        // What was forgotten was freed before everything that is remembered.
        loop {
            if let Some(ip) = self.recalled.pop_front() {
                if !self.is_used(ip) && !self.is_reserved(ip) && !self.freed_at.contains_key(&ip) {
                    return Some(ip);
                }
            } else if self.forgotten {
                self.recall();
            } else {
                break;
            }
        }
        while let Some((ip, number)) = self.freed.pop_front() {
            if self.freed_at.get(&ip) == Some(&number) {
                self.freed_at.remove(&ip);
                if !self.is_reserved(ip) {
                    return Some(ip);
                }
            }
        }
        None
    }

    /// Walks the range once around from the cursor for what was forgotten.
    fn recall(&mut self) {
        let start = self.cursor.next;
        let mut parts = vec![(start, self.last)];
        if start > self.first {
            parts.push((self.first, start - 1));
        }
        for (mut next, to) in parts {
            while self.recalled.len() < REMEMBERED
                && next <= to
                && let Some(ip) = self.free_from(next, to)
            {
                if !self.freed_at.contains_key(&ip) {
                    self.recalled.push_back(ip);
                }
                next = ip.saturating_add(1);
                if ip == u128::MAX {
                    break;
                }
            }
        }
        self.forgotten = self.recalled.len() >= REMEMBERED;
    }

    /// The first free address in `from..=to`.
    fn free_from(&self, from: u128, to: u128) -> Option<u128> {
        let mut ip = from;
        let mut range = self.reserved.partition_point(|(_, end)| *end < from);
        loop {
            if let Some((start, end)) = self.reserved.get(range)
                && *start <= ip
            {
                ip = ip.max(end.checked_add(1)?);
                range += 1;
                continue;
            }
            if ip > to {
                return None;
            }
            if !self.is_used(ip) {
                return Some(ip);
            }
            ip = ip.checked_add(1)?;
        }
    }

    fn is_reserved(&self, ip: u128) -> bool {
        let range = self.reserved.partition_point(|(_, end)| *end < ip);
        self.reserved
            .get(range)
            .is_some_and(|(start, _)| *start <= ip)
    }
}

#[cfg(test)]
mod tests;
