//! Whether what a leader sends agrees with what is settled here: applied, or known to be committed.
//!
//! Every leader of a term has what was committed in earlier ones and in its own, so it never sends another entry for a
//! settled index. openraft takes that for granted: an index at or below the committed one counts as matching, whatever
//! its term. If a leader does send another one, data of this member or of a quorum has gone back in time, and going on
//! would serve a mixture of two histories for ever.
//!
//! The same goes for a second leader in one term: somebody has voted twice.
//!
//! Worked example. This member has settled 97 in term 2; the others lost 60 to 97, elected a leader of term 3, and wrote
//! other entries. That leader probes with `prev` = (3, 80): settled here is (2, 80). With entries of a deposed leader of
//! term 1, (1, 80), it is the other way round: those are late, and refused for their term.

use openraft::raft::AppendEntriesRequest;

use crate::{
    log_store::LogStore,
    planted,
    types::{LogId, TypeConfig},
};

/// Why the request's leader and this member cannot both have all that they promised; `None`: nothing speaks against it.
pub fn contradiction(log: &LogStore, request: &AppendEntriesRequest<TypeConfig>) -> Option<String> {
    let settled = log.settled()?;
    let term = request.vote.leader_id.term;
    if let Some(other) = log
        .leader_of(term)
        .filter(|other| *other != request.vote.leader_id.voted_for)
    {
        let text = format!(
            "members {other:x} and {:x} both lead in term {term}",
            request.vote.leader_id.voted_for
        );
        return Some(gone_back(&text, settled.index));
    }
    let overlaps = |id: &LogId| id.index <= settled.index;
    // Entries that follow one another agree when the last of them does.
    let last = request
        .entries
        .iter()
        .map(|entry| entry.log_id)
        .take_while(overlaps)
        .last();
    let told = [request.prev_log_id.filter(overlaps), last];
    told.into_iter().flatten().find_map(|theirs| {
        let ours = match theirs.index == settled.index {
            true => Some(settled.leader_id.term),
            false => log.term_at(theirs.index),
        };
        let ours = ours.filter(|ours| *ours != theirs.leader_id.term && term >= *ours)?;
        (!planted("settled-entries-removed")).then(|| {
            let text = format!(
                "the leader of term {term} has an entry of term {} at index {}, and this member one of term {ours}",
                theirs.leader_id.term, theirs.index
            );
            gone_back(&text, settled.index)
        })
    })
}

/// Why a member stops that is to give up what is settled, up to this index, and what the operator does.
pub fn gone_back(what: &str, settled: u64) -> String {
    format!(
        "{what}, though it has applied or knows to be committed everything up to {settled}: data of this member or of a \
         quorum of the others has gone back to an earlier time. Nothing was changed here. Keep the data directories; \
         docs/damage.md says how to decide whose data stays"
    )
}
