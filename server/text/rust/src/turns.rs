//! Bounds how many callers do at once what takes much memory; the others wait.

use std::sync::{Condvar, Mutex};

pub struct Turns {
    free: Mutex<usize>,
    given_back: Condvar,
}

/// Given back when dropped.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    pub const fn new(at_once: usize) -> Turns {
        Turns { free: Mutex::new(at_once), given_back: Condvar::new() }
    }

    pub fn take(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap();
        let mut free = self.given_back.wait_while(free, |free| *free == 0).unwrap();
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap() += 1;
        self.0.given_back.notify_one();
    }
}
