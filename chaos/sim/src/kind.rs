//! The kinds of fault that simulations know: [`Kind`].

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process ends; the machine goes on.
    Kill,
    /// What was not synced is forgotten, or torn.
    PowerCut,
    PowerCutAll,
    /// The power goes while the log is synced.
    CutInSync,
    /// The process ends while the log is synced, and soon after its next start the power goes.
    CutAfterKill,
    Restart,
    Partition,
    OneWay,
    /// Two members do not reach each other, and both reach all the others.
    Partial,
    Delay,
    Loss,
    Reset,
    /// One end of a connection has lost it; the other still gets what was under way, late.
    HalfCut,
    SlowDisk,
    FailingSync,
    FullDisk,
    Frozen,
    Transfer,
    WallClock,
    /// A machine goes down while everything is compacted.
    Compaction,
    /// A member that was away comes back by a snapshot.
    LeftBehind,
    /// Two operators change the membership at the same time.
    Members,
    /// The data of a member is lost; it must not come back as it was, and is replaced.
    Wipe,
    /// A live member is removed, and comes back as an empty one.
    Leave,
    /// The directory of a member goes back to an earlier copy.
    OlderCopy,
    /// What a member's log acknowledged last is gone, or damaged.
    LostTail,
    /// Syncs that do nothing, and then a power cut.
    LyingDisk,
    /// A byte in the middle of a member's log is another.
    BitRot,
}

pub const ALL: [Kind; 28] = [
    Kind::Kill,
    Kind::PowerCut,
    Kind::PowerCutAll,
    Kind::CutInSync,
    Kind::CutAfterKill,
    Kind::Restart,
    Kind::Partition,
    Kind::OneWay,
    Kind::Partial,
    Kind::Delay,
    Kind::Loss,
    Kind::Reset,
    Kind::HalfCut,
    Kind::SlowDisk,
    Kind::FailingSync,
    Kind::FullDisk,
    Kind::Frozen,
    Kind::Transfer,
    Kind::WallClock,
    Kind::Compaction,
    Kind::LeftBehind,
    Kind::Members,
    Kind::Wipe,
    Kind::Leave,
    Kind::OlderCopy,
    Kind::LostTail,
    Kind::LyingDisk,
    Kind::BitRot,
];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::PowerCut => "power cut",
            Kind::PowerCutAll => "power cut of all",
            Kind::CutInSync => "power cut in a sync",
            Kind::CutAfterKill => "power cut after a kill",
            Kind::Restart => "restart",
            Kind::Partition => "partition",
            Kind::OneWay => "one-way partition",
            Kind::Partial => "partial partition",
            Kind::Delay => "delay",
            Kind::Loss => "packet loss",
            Kind::Reset => "connection reset",
            Kind::HalfCut => "connection cut in half",
            Kind::SlowDisk => "slow disk",
            Kind::FailingSync => "failing sync",
            Kind::FullDisk => "full disk",
            Kind::Frozen => "frozen member",
            Kind::Transfer => "leadership transfer",
            Kind::WallClock => "wall clock jump",
            Kind::Compaction => "crash in a compaction",
            Kind::LeftBehind => "return by snapshot",
            Kind::Members => "membership change",
            Kind::Wipe => "wiped and replaced",
            Kind::Leave => "removed and returned",
            Kind::OlderCopy => "older copy",
            Kind::LostTail => "lost tail",
            Kind::LyingDisk => "lying disk",
            Kind::BitRot => "bit rot",
        }
    }

    pub fn named(name: &str) -> Option<Kind> {
        ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A member breaks what it had promised, or is replaced: all the others are needed meanwhile.
    pub fn takes_all_others(self) -> bool {
        matches!(
            self,
            Kind::Wipe | Kind::Leave | Kind::OlderCopy | Kind::LostTail | Kind::LyingDisk | Kind::BitRot
        )
    }

    /// It is begun and ended, and others may happen in between.
    pub fn lasts(self) -> bool {
        matches!(
            self,
            Kind::Partition
                | Kind::OneWay
                | Kind::Partial
                | Kind::Delay
                | Kind::Loss
                | Kind::SlowDisk
                | Kind::Frozen
        )
    }
}
