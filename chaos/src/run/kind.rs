//! What can go wrong in a run: [`Kind`].

use barque_chaos::cluster;
use clap::ValueEnum;

/// The names are those of `--faults` and of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kind {
    KillLeader,
    KillFollower,
    KillAll,
    StopLeader,
    StopFollower,
    RollingRestart,
    Partition,
    OneWay,
    /// One link is cut, and both its ends still reach all others.
    PartialPartition,
    Delay,
    Loss,
    PowerCut,
    PowerCutAll,
    SlowDisk,
    FullDisk,
    FailingSync,
    ClockJump,
    WipeAndReplace,
}

impl Kind {
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no kind is hidden");
        value.get_name().to_owned()
    }

    pub fn needs_lan(self) -> bool {
        matches!(
            self,
            Kind::Partition | Kind::OneWay | Kind::PartialPartition | Kind::Delay | Kind::Loss
        )
    }

    pub fn needs_disks(self) -> bool {
        matches!(
            self,
            Kind::PowerCut | Kind::PowerCutAll | Kind::SlowDisk | Kind::FullDisk | Kind::FailingSync
        )
    }

    /// What keeps a program from being used with this fault.
    pub fn unfit_for(self, program: cluster::Kind) -> Option<&'static str> {
        match program {
            cluster::Kind::Etcd if self.needs_disks() => Some(
                "etcd maps its database into memory, which the file system with this fault does not offer",
            ),
            cluster::Kind::Etcd if self == Kind::ClockJump => {
                Some("etcd asks the kernel for the time, past the library that would tell it a wrong one")
            }
            _ => None,
        }
    }
}
