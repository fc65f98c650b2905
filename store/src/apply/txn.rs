//! Txn: compares first, nested ones included; then the operations of the branches taken, in one revision.

use barque_proto::command::{Operation, Range, Txn, operation::Op};

use super::{Applied, Machine, Refusal};
use crate::{RangeResult, Response, Revision, TxnResponse, read};

impl Machine {
    /// Contract lines 6, 7, 10, 11 and 14.
    pub(super) fn txn(&mut self, txn: &Txn) -> Applied<TxnResponse> {
        if has_put(txn) {
            self.check_space()?;
        }
        let mut path = Vec::new();
        self.choose(txn, &mut path)?;
        self.remember();
        self.run(txn, &mut path.into_iter())
    }

    /// Decides every txn that will run, outermost first, before any operation does.
    fn choose(&self, txn: &Txn, path: &mut Vec<bool>) -> Applied<()> {
        let succeeded = self.all_hold(&txn.compare)?;
        path.push(succeeded);
        for operation in branch(txn, succeeded) {
            if let Some(Op::Txn(nested)) = &operation.op {
                self.choose(nested, path)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, txn: &Txn, path: &mut dyn Iterator<Item = bool>) -> Applied<TxnResponse> {
        let succeeded = path.next().expect("every txn that runs was decided");
        let mut responses = Vec::new();
        for operation in branch(txn, succeeded) {
            let response = match operation.op.as_ref().ok_or(Refusal::Unknown)? {
                Op::Range(range) => {
                    read::check_sort(range).map_err(|_| Refusal::Unknown)?;
                    Response::Range(self.read(range)?)
                }
                Op::Put(put) => Response::Put(self.put(put)?),
                Op::DeleteRange(delete) => Response::DeleteRange(self.delete_range(delete)?),
                Op::Txn(nested) => Response::Txn(self.run(nested, path)?),
            };
            responses.push(response);
        }
        Ok(TxnResponse {
            revision: Revision(self.revision_now()),
            succeeded,
            responses,
        })
    }

    /// Read only where somebody waits for it: the other members, and this one at its next start, would need as much
    /// memory for nothing. They refuse what it refuses.
    fn read(&self, range: &Range) -> Applied<RangeResult> {
        let keyspace = self.keyspace();
        if self.awaited {
            return Ok(keyspace.range(range)?);
        }
        keyspace.resolve(Revision(range.revision))?;
        Ok(RangeResult {
            revision: Revision(keyspace.revision),
            ..RangeResult::default()
        })
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[Operation] {
    if succeeded { &txn.success } else { &txn.failure }
}

/// In either branch, at any depth.
fn has_put(txn: &Txn) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|operation| match &operation.op {
            Some(Op::Put(_)) => true,
            Some(Op::Txn(nested)) => has_put(nested),
            Some(Op::Range(_) | Op::DeleteRange(_)) | None => false,
        })
}
