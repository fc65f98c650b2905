//! What all clients of a run write down: [`Recorder`].

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use barque_checks::history::{History, Operation, Request, WatchRecord, WatchResponse};
use parking_lot::Mutex;

use crate::{Target, outcome};

/// Shared by the clients; cheap to clone.
#[derive(Clone, Default)]
pub struct Recorder {
    history: Arc<Mutex<History>>,
    stopping: Arc<AtomicBool>,
}

impl Recorder {
    /// Clients make no new calls.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// What was recorded, with whatever else a run has to say put in by `with`.
    pub fn history<T>(&self, with: impl FnOnce(&mut History) -> T) -> T {
        with(&mut self.history.lock())
    }

    /// Notes the call before it is made: if the client ends in it, its outcome stays unknown.
    pub(crate) fn call(&self, target: &Target, client: u32, member: u32, request: Request) -> usize {
        let mut history = self.history.lock();
        history.operations.push(Operation {
            client,
            member,
            life: (target.life)(member),
            call: (target.now_us)(),
            ret: None,
            request,
            outcome: outcome::unanswered(),
        });
        history.operations.len() - 1
    }

    pub(crate) fn answer(&self, target: &Target, operation: usize, outcome: barque_checks::history::Outcome) {
        let now = (target.now_us)();
        let operation = &mut self.history.lock().operations[operation];
        operation.ret = (!matches!(outcome, barque_checks::history::Outcome::Unknown(_))).then_some(now);
        operation.outcome = outcome;
    }

    pub(crate) fn watch(&self, mut record: WatchRecord) -> usize {
        let watches = &mut self.history.lock().watches;
        record.id = watches.len() as u64;
        watches.push(record);
        watches.len() - 1
    }

    pub(crate) fn watched(&self, watch: usize, response: WatchResponse) {
        self.history.lock().watches[watch].responses.push(response);
    }
}
