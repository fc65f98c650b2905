//! Who is wrong, when members have different states after the same entry.
//!
//! In a table, with the leader L first and what each member has there:
//!
//! | members | have                 | who is wrong                                                                  |
//! |---------|----------------------|-------------------------------------------------------------------------------|
//! | L F F   | a a b                | the second follower                                                           |
//! | L F F   | a b b                | the leader: a majority has b                                                  |
//! | L F F   | a b - (one is down)  | unclear until the third answers; then, in doubt, the follower                 |
//! | L F     | a b                  | nobody can tell and nobody else will answer: the follower                     |
//!
//! In doubt it is the follower, though it may be right: two members must not go on answering differently, and one has
//! to be left to say what was found. Without a majority nothing is served then until somebody has looked.

use std::collections::BTreeSet;

use super::marks::Marks;

#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    Alike,
    /// These differ from the leader, which has a majority on its side, or as good a case as they.
    Differ(Vec<u64>),
    /// These differ from the leader; members that did not answer may tell who is right.
    Unclear(Vec<u64>),
    /// A majority of those that vote has something else than the leader; this is one of them.
    LeaderDiffers {
        from: u64,
    },
}

/// By marks that are all of one entry.
pub fn judge(leader: u64, voters: &BTreeSet<u64>, marks: &Marks) -> Judgement {
    let Some(own) = marks.get(&leader) else {
        return Judgement::Alike;
    };
    let differ: Vec<u64> = marks
        .iter()
        .filter(|(_, mark)| *mark != own)
        .map(|(member, _)| *member)
        .collect();
    let have = |mark| {
        voters
            .iter()
            .filter(|voter| marks.get(voter) == Some(mark))
            .count()
    };
    let is_majority = |mark| 2 * have(mark) > voters.len();
    if let Some(from) = differ.iter().find(|member| is_majority(&marks[member])) {
        return Judgement::LeaderDiffers { from: *from };
    }
    let all_answered = voters.iter().all(|voter| marks.contains_key(voter));
    match is_majority(own) || all_answered {
        _ if differ.is_empty() => Judgement::Alike,
        true => Judgement::Differ(differ),
        false => Judgement::Unclear(differ),
    }
}

#[cfg(test)]
mod tests {
    use barque_store::Mark;

    use super::*;

    const LEADER: u64 = 1;

    /// Members 1 (the leader), 2, 3 and so on, with these hashes; 0: did not answer. The first `voters` vote.
    fn check(voters: u64, hashes: &[u64], expected: Judgement) {
        let marks = (1..)
            .zip(hashes)
            .filter(|(_, hash)| **hash != 0)
            .map(|(member, hash)| {
                (
                    member,
                    Mark {
                        index: 9,
                        hash: *hash,
                    },
                )
            })
            .collect();
        assert_eq!(
            judge(LEADER, &(1..=voters).collect(), &marks),
            expected,
            "{hashes:?}"
        );
    }

    #[test]
    fn a_majority_is_right_and_in_doubt_the_leader() {
        use Judgement::*;
        check(1, &[7], Alike);
        check(3, &[7, 7, 7], Alike);
        check(3, &[7, 7, 0], Alike);
        check(3, &[7, 0, 0], Alike);
        check(3, &[7, 7, 8], Differ(vec![3]));
        check(3, &[7, 8, 8], LeaderDiffers { from: 2 });
        check(3, &[7, 8, 0], Unclear(vec![2]));
        check(3, &[7, 8, 9], Differ(vec![2, 3]));
        check(2, &[7, 8], Differ(vec![2]));
        check(4, &[7, 7, 8, 8], Differ(vec![3, 4]));
        check(5, &[7, 8, 8, 8, 0], LeaderDiffers { from: 2 });
        check(5, &[7, 0, 8, 8, 0], Unclear(vec![3, 4]));
        check(5, &[7, 7, 7, 8, 0], Differ(vec![4]));
        // Learners differ, and have no say.
        check(1, &[7, 8, 8], Differ(vec![2, 3]));
        check(3, &[7, 7, 8, 8, 8], Differ(vec![3, 4, 5]));
        // What the leader does not remember itself it does not judge.
        check(3, &[0, 7, 8], Alike);
    }
}
