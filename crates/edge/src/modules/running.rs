//! Which module each edge thread is in: who hangs in one is replaced, and the successor is told what not to ask.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base::module::Module;

/// Looks in a row (one with each sign of life, ten a second) at the same call, after which it is suspect.
const LOOKS: u32 = 5;

/// One word per thread: the module in the lowest byte (0 is none), the site in the next three, the moment in the others.
#[derive(Debug)]
pub struct Running(Box<[AtomicU64]>);

impl Running {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| AtomicU64::new(0)).collect())
    }

    /// The thread begins a call.
    pub fn enter(&self, thread: usize, module: Module, site: u32, moment: u64) {
        let call = (moment << 32) | (u64::from(site & 0xff_ffff) << 8) | (module.index() as u64 + 1);
        if let Some(word) = self.0.get(thread) {
            word.store(call, Relaxed);
        }
    }

    /// The call has ended.
    pub fn leave(&self, thread: usize) {
        if let Some(word) = self.0.get(thread) {
            word.store(0, Relaxed);
        }
    }
}

/// Looks at the threads again and again.
#[derive(Debug, Default)]
pub struct Lookout(Vec<(u64, u32)>);

impl Lookout {
    /// Calls that have been going on for `LOOKS` looks: the module, and the number of the site.
    pub fn look(&mut self, running: &Running) -> Vec<(Module, u32)> {
        self.0.resize(running.0.len(), (0, 0));
        let mut found = Vec::new();
        for ((last, looks), word) in self.0.iter_mut().zip(&running.0) {
            let call = word.load(Relaxed);
            *looks = if call == *last && call != 0 { looks.saturating_add(1) } else { 0 };
            *last = call;
            if *looks >= LOOKS {
                let module = usize::try_from(call & 0xff)
                    .ok()
                    .and_then(|index| Module::ALL.get(index.wrapping_sub(1)));
                found.extend(module.map(|module| (*module, ((call >> 8) & 0xff_ffff) as u32)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_that_does_not_end_is_suspect() {
        let (running, mut lookout) = (Running::new(2), Lookout::default());
        running.enter(1, Module::Trial, 0xff_fffe, 5);
        for look in 0..=LOOKS {
            running.enter(0, Module::Waf, 7, look.into());
            let expected = if look < LOOKS { vec![] } else { vec![(Module::Trial, 0xff_fffe)] };
            assert_eq!(lookout.look(&running), expected, "look {look}");
            running.leave(0);
        }
        running.leave(1);
        assert_eq!(lookout.look(&running), []);
        // A thread that nobody counted on is not looked at, and does no harm.
        running.enter(9, Module::Waf, 1, 1);
        running.leave(9);
    }
}
