//! Runs code that a hostile file drives (compiling and rendering a chat template) within a budget
//! of memory, stack and time.
//!
//! Template fuel counts instructions, but one instruction may double a string or walk an endless
//! lazy sequence. So such work runs on a thread of its own whose allocations are counted, as is the
//! processor's time that it takes: how long it waits for a processor is not its doing.
//!
//! Work that has spent its time is first asked to stop, which it notices where it asks
//! `asked_to_stop`, and ends with an error of its own. What does not notice, and what has spent its
//! memory, cannot be unwound from inside an allocation (that is undefined behaviour) and stopping
//! the process is no answer either: it is parked there for ever, keeping at most its budget, and
//! the caller gets an error. The owner of the template must not run it again, and after a few such
//! losses nothing is run any more: that bounds what the process loses, whatever it is given.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::os::unix::thread::JoinHandleExt;
use std::panic::{catch_unwind, AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crate::{Failure, FailureKind};

const RUNNING: u8 = 0;
const FINISHED: u8 = 1;
const OUT_OF_MEMORY: u8 = 2;
const OUT_OF_TIME: u8 = 3;

/// Values nested by a template are dropped recursively, a frame or more per level, and fuel allows
/// many levels. Only touched pages cost memory.
const STACK_BYTES: usize = 512 << 20;
/// Between looks at the clock of a thread that is about to run out of time.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// Threads given up and not ended since. Those that run when it is reached may be lost as well.
pub const MOST_LOST_THREADS: isize = 4;
static LOST_THREADS: AtomicIsize = AtomicIsize::new(0);

pub struct Limits {
    /// Bytes allocated and not yet freed.
    pub memory_bytes: usize,
    /// Of a processor, until the work is asked to stop.
    pub time: Duration,
    /// Further time, until it is given up.
    pub grace: Duration,
}

pub enum Outcome<T> {
    Done(T),
    /// Done after it was asked to stop.
    Late(T),
    Panicked(Failure),
    OutOfMemory,
    OutOfTime,
    /// Not run: too many threads were lost before.
    TooManyLost,
    NoThread(String),
}

struct Progress {
    state: AtomicU8,
    asked_to_stop: AtomicBool,
    live_bytes: AtomicUsize,
    memory_limit: usize,
    waiter: Thread,
}

impl Progress {
    fn end(&self, state: u8) {
        let before =
            self.state.compare_exchange(RUNNING, state, Ordering::AcqRel, Ordering::Acquire);
        match before {
            Ok(_) if state != FINISHED => LOST_THREADS.fetch_add(1, Ordering::Relaxed),
            // It was given up and has come to its end after all.
            Err(_) if state == FINISHED => LOST_THREADS.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        self.waiter.unpark();
    }
}

thread_local! {
    static CURRENT: Cell<*const Progress> = const { Cell::new(std::ptr::null()) };
}

/// Whether the budgeted work of this thread has spent its time and should end with an error.
pub fn asked_to_stop() -> bool {
    let progress = CURRENT.with(Cell::get);
    // SAFETY: as in `charge`.
    !progress.is_null() && unsafe { (*progress).asked_to_stop.load(Ordering::Relaxed) }
}

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Counts `bytes` about to be allocated by a budgeted thread; does not return when they are over
/// the budget or the caller has given up waiting.
#[inline]
fn charge(bytes: usize) {
    let progress = CURRENT.with(Cell::get);
    if !progress.is_null() {
        // SAFETY: set by `run` on this thread, which keeps the Progress alive until it is unset.
        charge_to(unsafe { &*progress }, bytes);
    }
}

#[cold]
fn charge_to(progress: &Progress, bytes: usize) {
    let live = progress.live_bytes.load(Ordering::Relaxed).saturating_add(bytes);
    progress.live_bytes.store(live, Ordering::Relaxed);
    let state = progress.state.load(Ordering::Acquire);
    if state == FINISHED || (state == RUNNING && live <= progress.memory_limit) {
        return;
    }
    progress.end(OUT_OF_MEMORY);
    loop {
        std::thread::park();
    }
}

#[inline]
fn refund(bytes: usize) {
    let progress = CURRENT.with(Cell::get);
    if !progress.is_null() {
        // SAFETY: as in `charge`.
        let live_bytes = unsafe { &(*progress).live_bytes };
        // Memory may have been allocated before the count began.
        let live = live_bytes.load(Ordering::Relaxed).saturating_sub(bytes);
        live_bytes.store(live, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed to the system's allocator unchanged, or never returns.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge(layout.size());
        System.alloc(layout)
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge(layout.size());
        System.alloc_zeroed(layout)
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        refund(layout.size());
        System.dealloc(pointer, layout)
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old block lives until the copy is made.
        charge(size);
        refund(layout.size());
        System.realloc(pointer, layout, size)
    }
}

thread_local! {
    static LAST_PANIC: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

/// "onig-6.5.3/src/lib.rs" of ".../registry/src/INDEX/onig-6.5.3/src/lib.rs": the folders before it
/// are those of the machine that built the library.
fn place_in_crate(file: &str) -> &str {
    let in_registry = file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    in_registry.map_or(file, |(_, place)| place)
}

/// A panic's message is dropped: it may quote the text being worked on.
fn failure_of(panic: &PanicHookInfo) -> Failure {
    let message = panic.payload().downcast_ref::<String>();
    // How the onig crate tells that a search took more steps than it allows.
    if message.is_some_and(|message| message.starts_with("Onig: Regex search error")) {
        let text = "a regular expression of the model's tokenizer takes too many steps on it";
        return Failure::new(FailureKind::Refused, text);
    }
    let place = panic.location();
    let place = place.map(|place| format!("{}:{}", place_in_crate(place.file()), place.line()));
    Failure::new(FailureKind::Internal, place.unwrap_or_default())
}

/// Runs `work`; a panic becomes a failure, Internal with the place in the source where it began
/// unless it tells of the input.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            LAST_PANIC.with(|last| *last.borrow_mut() = Some(failure_of(panic)));
        }));
    });
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        let last = LAST_PANIC.with(RefCell::take);
        last.unwrap_or_else(|| Failure::new(FailureKind::Internal, ""))
    })
}

/// What a thread took of a processor; zero once it has ended.
fn processor_time(thread: &JoinHandle<()>) -> Duration {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: a thread that was not joined keeps its id, and the results are written to locals.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        if libc::pthread_getcpuclockid(thread.as_pthread_t(), &mut clock) != 0
            || libc::clock_gettime(clock, &mut time) != 0
        {
            return Duration::ZERO;
        }
        time
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs `work` on a thread of its own and waits for it. After OutOfMemory the thread is parked for
/// good; after OutOfTime it is parked at its next allocation, or ends when the work does.
pub fn run<T: Send + 'static>(
    limits: Limits,
    work: impl FnOnce() -> T + Send + 'static,
) -> Outcome<T> {
    if LOST_THREADS.load(Ordering::Relaxed) >= MOST_LOST_THREADS {
        return Outcome::TooManyLost;
    }
    let progress = Arc::new(Progress {
        state: AtomicU8::new(RUNNING),
        asked_to_stop: AtomicBool::new(false),
        live_bytes: AtomicUsize::new(0),
        memory_limit: limits.memory_bytes,
        waiter: std::thread::current(),
    });
    let result = Arc::new(Mutex::new(None));
    let (thread_progress, thread_result) = (progress.clone(), result.clone());
    let spawned = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        CURRENT.with(|current| current.set(Arc::as_ptr(&thread_progress)));
        let outcome = catch_panic(work);
        CURRENT.with(|current| current.set(std::ptr::null()));
        *thread_result.lock().unwrap() = Some(outcome);
        thread_progress.end(FINISHED);
    });
    let thread = match spawned {
        Ok(thread) => thread,
        Err(error) => return Outcome::NoThread(error.to_string()),
    };
    match wait(&progress, &thread, &limits) {
        OUT_OF_MEMORY => return Outcome::OutOfMemory,
        OUT_OF_TIME => return Outcome::OutOfTime,
        _ => {}
    }
    let outcome = result.lock().unwrap().take();
    match outcome {
        Some(Ok(value)) if progress.asked_to_stop.load(Ordering::Relaxed) => Outcome::Late(value),
        Some(Ok(value)) => Outcome::Done(value),
        Some(Err(failure)) => Outcome::Panicked(failure),
        None => unreachable!("a finished thread has stored its outcome"),
    }
}

/// Waits until the work ends or is given up; the state it is then in.
fn wait(progress: &Progress, thread: &JoinHandle<()>, limits: &Limits) -> u8 {
    loop {
        let state = progress.state.load(Ordering::Acquire);
        if state != RUNNING {
            return state;
        }
        let used = processor_time(thread);
        let mut left = limits.time.saturating_sub(used);
        if left.is_zero() {
            progress.asked_to_stop.store(true, Ordering::Relaxed);
            left = (limits.time + limits.grace).saturating_sub(used);
        }
        if left.is_zero() {
            progress.end(OUT_OF_TIME); // changes nothing where it has just ended
            continue;
        }
        std::thread::park_timeout(left.max(SHORTEST_WAIT));
    }
}
