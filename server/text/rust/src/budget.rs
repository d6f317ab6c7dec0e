//! Runs code that a hostile file drives (compiling and rendering a chat template) within a budget
//! of memory, stack and time.
//!
//! Template fuel counts instructions, but one instruction may double a string or walk an endless
//! lazy sequence. So such work runs on a thread of its own whose allocations are counted. A thread
//! that has spent its budget cannot be unwound from inside an allocation (that is undefined
//! behaviour) and stopping the process is no answer either: it is parked there for ever, keeping
//! at most its budget, and the caller gets an error. The owner of the template must not run it
//! again, which bounds what is lost to one budget per template.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::Thread;
use std::time::{Duration, Instant};

const RUNNING: u8 = 0;
const FINISHED: u8 = 1;
const OUT_OF_MEMORY: u8 = 2;
const OUT_OF_TIME: u8 = 3;

/// Values nested by a template are dropped recursively, a frame or more per level, and fuel allows
/// many levels. Only touched pages cost memory.
const STACK_BYTES: usize = 512 << 20;

pub struct Limits {
    /// Bytes allocated and not yet freed.
    pub memory_bytes: usize,
    pub time: Duration,
}

pub enum Outcome<T> {
    Done(T),
    Panicked(String),
    OutOfMemory,
    OutOfTime,
    NoThread(String),
}

struct Progress {
    state: AtomicU8,
    live_bytes: AtomicUsize,
    memory_limit: usize,
    waiter: Thread,
}

impl Progress {
    fn end(&self, state: u8) -> bool {
        let moved = self
            .state
            .compare_exchange(RUNNING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        self.waiter.unpark();
        moved
    }
}

thread_local! {
    static CURRENT: Cell<*const Progress> = const { Cell::new(std::ptr::null()) };
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
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`; a panic becomes the place in the source where it began. Its message is dropped: it
/// may quote the text being worked on.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
            LAST_PANIC.with(|last| *last.borrow_mut() = place.unwrap_or_default());
        }));
    });
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| LAST_PANIC.with(RefCell::take))
}

/// Runs `work` on a thread of its own and waits for it. After OutOfMemory the thread is parked for
/// good; after OutOfTime it is parked at its next allocation, or ends when the work does.
pub fn run<T: Send + 'static>(
    limits: Limits,
    work: impl FnOnce() -> T + Send + 'static,
) -> Outcome<T> {
    let deadline = Instant::now() + limits.time;
    let progress = Arc::new(Progress {
        state: AtomicU8::new(RUNNING),
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
    if let Err(error) = spawned {
        return Outcome::NoThread(error.to_string());
    }
    loop {
        match progress.state.load(Ordering::Acquire) {
            FINISHED => break,
            OUT_OF_MEMORY => return Outcome::OutOfMemory,
            _ => {}
        }
        let now = Instant::now();
        if now >= deadline {
            if progress.end(OUT_OF_TIME) {
                return Outcome::OutOfTime;
            }
            continue;
        }
        std::thread::park_timeout(deadline - now);
    }
    let outcome = result.lock().unwrap().take();
    match outcome {
        Some(Ok(value)) => Outcome::Done(value),
        Some(Err(text)) => Outcome::Panicked(text),
        None => unreachable!("a finished thread has stored its outcome"),
    }
}
