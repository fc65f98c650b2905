//! Why a member may not take part under its ID any more, as its peers say it: [`Refusal`].
//!
//! Each kind stands for a promise that the member's data directory no longer keeps: votes that it has forgotten, entries
//! that it has acknowledged and lost. Counting such a member in a quorum may lose what the quorum had promised, so it is
//! refused, it stops, and the operator replaces it.

use std::fmt;

/// A member that must stop, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub member_id: u64,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is no member any more.
    Removed,
    /// It came back with another data directory under its old ID.
    Wiped,
    /// Its data directory went back in time: it says that this is its start number `told`, and `seen` was seen before.
    OlderCopy { seen: u64, told: u64 },
    /// It had acknowledged the log up to `acknowledged` to the leader that says so, and then lacked the entry `missing`.
    LostEntries { acknowledged: u64, missing: u64 },
}

impl Why {
    /// The member remembers it and never starts again: what was lost does not come back with a restart, and not every
    /// peer knows of it.
    pub fn is_for_good(self) -> bool {
        matches!(self, Self::OlderCopy { .. } | Self::LostEntries { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.member_id;
        match self.why {
            Why::Removed => write!(f, "member {id:x} has been permanently removed from the cluster"),
            Why::Wiped => write!(
                f,
                "member {id:x} has already been bootstrapped; its data is gone, {}",
                Replace(id)
            ),
            Why::OlderCopy { seen, told } => write!(
                f,
                "member {id:x} runs on an older copy of its data: start {seen} of it was seen before, and this one says \
                 start {told}, {}",
                Replace(id)
            ),
            Why::LostEntries {
                acknowledged,
                missing,
            } => write!(
                f,
                "member {id:x} has lost log entries that it had acknowledged: up to {acknowledged}, and entry {missing} \
                 is missing or another, {}",
                Replace(id)
            ),
        }
    }
}

/// What a member is told that is no longer one.
pub fn removed(member_id: u64) -> String {
    let why = Why::Removed;
    Refusal { member_id, why }.to_string()
}

/// What a member is told whose data is gone.
pub fn wiped(member_id: u64) -> String {
    let why = Why::Wiped;
    Refusal { member_id, why }.to_string()
}

/// What an operator does about a member that has lost what it promised.
pub struct Replace(pub u64);

impl fmt::Display for Replace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        write!(
            f,
            "so it may not vote under this ID again: run `etcdctl member remove {id:x}` and `etcdctl member add`, then \
             start it with an empty data directory and --initial-cluster-state existing"
        )
    }
}

/// The same where not even the member's ID can be read.
pub const REPLACE_UNKNOWN: &str = "else this member has lost what it promised: `etcdctl member list` shows its ID, run \
                                   `etcdctl member remove ID` and `etcdctl member add`, then start it with an empty data \
                                   directory and --initial-cluster-state existing";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_one_line_with_the_commands_that_mend_it() {
        let whys = [
            Why::Wiped,
            Why::OlderCopy { seen: 3, told: 2 },
            Why::LostEntries {
                acknowledged: 9,
                missing: 7,
            },
        ];
        for why in whys {
            let text = Refusal { member_id: 255, why }.to_string();
            assert!(text.starts_with("member ff ") && !text.contains('\n'), "{text}");
            assert!(text.contains("`etcdctl member remove ff`"), "{text}");
        }
        let removed = Refusal {
            member_id: 255,
            why: Why::Removed,
        };
        assert_eq!(
            removed.to_string(),
            "member ff has been permanently removed from the cluster"
        );
    }
}
