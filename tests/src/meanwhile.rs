//! Something that goes on beside a story, and ends when the story does.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Tells the background whether the story still goes on.
#[derive(Debug)]
pub struct Story(AtomicBool);

impl Story {
    /// Whether it does.
    pub fn goes_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Runs `background` in a thread of its own while `story` is told; gives what the background gives.
///
/// # Panics
/// When either of them does.
pub fn meanwhile<T: Send>(background: impl FnOnce(&Story) -> T + Send, story: impl FnOnce()) -> T {
    let going = Story(AtomicBool::new(true));
    thread::scope(|scope| {
        let background = scope.spawn(|| background(&going));
        let told = catch_unwind(AssertUnwindSafe(story));
        going.0.store(false, Ordering::SeqCst);
        let given = background.join();
        if let Err(panic) = told {
            resume_unwind(panic);
        }
        given.unwrap_or_else(|panic| resume_unwind(panic))
    })
}
