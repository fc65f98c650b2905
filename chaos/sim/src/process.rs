//! The processes of a simulation: each has a runtime and a clock of its own, and all of them share one thread.
//!
//! They take turns. In its turn a process does what it can until it would wait; when all of them wait, simulated time
//! jumps to the next timer of any. A process that is killed is dropped between two turns, whatever it was at; one that
//! is frozen gets no turn, and finds that time has passed.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

use crate::interpose;

/// Which process: its clock, and its place in the order of turns.
pub type Slot = usize;
/// The one that is outside of all members: the clients, and what befalls the members.
pub const WORLD: Slot = 0;

/// A process that never waits looks for events so often before others have their turn.
const LOOKS_IN_A_TURN: u32 = 16;

thread_local! {
    static TURN: RefCell<Turn> = RefCell::default();
}

/// The turn that is being taken.
#[derive(Default)]
struct Turn {
    waker: Option<Waker>,
    looks: u32,
    end: Option<End>,
}

/// How a turn ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Nothing to do until something comes, or so much of its own time has passed.
    Waits(Option<Duration>),
    /// It could go on.
    Yields,
    /// The process is over.
    Exits,
}

/// The process whose turn it is looks for events and would wait so long for them; `None`: for ever.
pub fn looks(wait: Option<Duration>) {
    TURN.with_borrow_mut(|turn| {
        turn.looks += 1;
        turn.end = match wait {
            _ if matches!(turn.end, Some(End::Exits)) => return,
            Some(Duration::ZERO) if turn.looks < LOOKS_IN_A_TURN => return,
            Some(Duration::ZERO) => Some(End::Yields),
            wait => Some(End::Waits(wait)),
        };
        if let Some(waker) = &turn.waker {
            waker.wake_by_ref();
        }
    });
}

/// Ends the process whose turn it is, whatever else it has to do.
pub fn exit() {
    TURN.with_borrow_mut(|turn| {
        turn.end = Some(End::Exits);
        if let Some(waker) = &turn.waker {
            waker.wake_by_ref();
        }
    });
}

/// Gives `runtime` a turn, in which `main` is polled too; `Err` says how it ended when `main` did not.
fn turn<T>(runtime: &Runtime, slot: Slot, mut main: impl Future<Output = T> + Unpin) -> Result<T, End> {
    interpose::enter(slot);
    TURN.set(Turn::default());
    let ended = runtime.block_on(poll_fn(|cx| {
        TURN.with_borrow_mut(|turn| turn.waker = Some(cx.waker().clone()));
        if let Poll::Ready(out) = pin!(&mut main).poll(cx) {
            return Poll::Ready(Ok(out));
        }
        match TURN.with_borrow(|turn| turn.end) {
            Some(end) => Poll::Ready(Err(end)),
            None => Poll::Pending,
        }
    }));
    TURN.set(Turn::default());
    interpose::enter(WORLD);
    ended
}

fn new_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

#[derive(Clone, Default)]
pub struct Processes {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    running: BTreeMap<Slot, Process>,
    /// Killed, and not dropped yet.
    killed: Vec<(Slot, Arc<Runtime>)>,
}

struct Process {
    runtime: Arc<Runtime>,
    due: Due,
    frozen: bool,
    /// Turns that it wanted while it was frozen.
    passed_over: u64,
}

/// When a process wants its next turn if nothing comes before; `None`: never.
type Due = Option<u64>;

impl Processes {
    /// Starts a process with one task.
    pub fn start<T: Send + 'static>(
        &self,
        slot: Slot,
        task: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        // By its own clock: timers before a runtime's beginning are due at once.
        interpose::enter(slot);
        let runtime = new_runtime();
        interpose::enter(WORLD);
        let runtime = Arc::new(runtime?);
        let task = runtime.spawn(task);
        let process = Process {
            runtime,
            due: Some(0),
            frozen: false,
            passed_over: 0,
        };
        let before = self.table.lock().running.insert(slot, process);
        debug_assert!(before.is_none(), "process {slot} is started twice");
        interpose::forget_events(slot);
        Ok(task)
    }

    /// From this moment on it does nothing any more.
    pub fn kill(&self, slot: Slot) {
        let mut table = self.table.lock();
        if let Some(process) = table.running.remove(&slot) {
            table.killed.push((slot, process.runtime));
        }
    }

    /// As SIGSTOP.
    pub fn freeze(&self, slot: Slot) {
        if let Some(process) = self.table.lock().running.get_mut(&slot) {
            (process.frozen, process.passed_over) = (true, 0);
        }
    }

    /// As SIGCONT. Whether it would have done something meanwhile; `None`: it was not frozen any more.
    pub fn thaw(&self, slot: Slot) -> Option<bool> {
        let mut table = self.table.lock();
        let process = table.running.get_mut(&slot)?;
        std::mem::take(&mut process.frozen).then_some(process.passed_over > 0)
    }

    /// How many tasks a process has.
    pub fn tasks(&self, slot: Slot) -> usize {
        let table = self.table.lock();
        let process = table.running.get(&slot);
        process.map_or(0, |process| process.runtime.metrics().num_alive_tasks())
    }

    /// To give a process something to do.
    pub fn handle(&self, slot: Slot) -> Option<Handle> {
        let table = self.table.lock();
        table
            .running
            .get(&slot)
            .map(|process| process.runtime.handle().clone())
    }

    /// Runs all processes, and `main` outside of them, until `main` has ended.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> io::Result<T> {
        let world = new_runtime()?;
        let mut main = pin!(main);
        let mut due: Due = Some(0);
        loop {
            let mut ran = false;
            if is_due(WORLD, due) {
                ran = true;
                due = match turn(&world, WORLD, main.as_mut()) {
                    Ok(out) => {
                        self.end();
                        return Ok(out);
                    }
                    Err(end) => due_after(WORLD, end),
                };
                // Before what is started in its place has its first turn.
                self.bury();
            }
            ran |= self.turns();
            self.bury();
            if !ran {
                self.wait(due);
            }
        }
    }

    /// A turn for every process that wants one; `false`: none did.
    fn turns(&self) -> bool {
        let slots: Vec<Slot> = self.table.lock().running.keys().copied().collect();
        let mut ran = false;
        for slot in slots {
            let Some(runtime) = self.due(slot) else { continue };
            let never = std::future::pending::<std::convert::Infallible>();
            let Err(end) = turn(&runtime, slot, never);
            drop(runtime);
            if matches!(end, End::Exits) {
                self.kill(slot);
            } else if let Some(process) = self.table.lock().running.get_mut(&slot) {
                process.due = due_after(slot, end);
            }
            ran = true;
        }
        ran
    }

    /// The runtime of a process that wants its turn and gets it.
    fn due(&self, slot: Slot) -> Option<Arc<Runtime>> {
        let mut table = self.table.lock();
        let process = table.running.get_mut(&slot)?;
        if process.frozen {
            process.passed_over += u64::from(process.due.is_some_and(|due| due <= interpose::now_ns()));
            return None;
        }
        is_due(slot, process.due).then(|| Arc::clone(&process.runtime))
    }

    /// Lets time pass until the first timer of any process that is not frozen.
    fn wait(&self, world: Due) {
        let table = self.table.lock();
        let running = table.running.values().filter(|process| !process.frozen);
        let first = running.filter_map(|process| process.due).chain(world).min();
        match first {
            Some(due) => interpose::pass_until(due),
            None => crate::stuck(),
        }
    }

    fn bury(&self) {
        let killed = std::mem::take(&mut self.table.lock().killed);
        for (slot, runtime) in killed {
            interpose::enter(slot);
            drop(runtime);
            interpose::enter(WORLD);
        }
    }

    fn end(&self) {
        let slots: Vec<Slot> = self.table.lock().running.keys().copied().collect();
        slots.into_iter().for_each(|slot| self.kill(slot));
        self.bury();
    }
}

fn is_due(slot: Slot, due: Due) -> bool {
    due.is_some_and(|due| due <= interpose::now_ns()) || interpose::has_events(slot)
}

fn due_after(slot: Slot, end: End) -> Due {
    let now = interpose::now_ns();
    match end {
        End::Yields | End::Exits => Some(now),
        End::Waits(None) => None,
        End::Waits(Some(wait)) => Some(now + interpose::world_ns(slot, wait)),
    }
}
