//! Three members, of which one is damaged, put back in time, rebuilt and replaced.

use std::path::{Path, PathBuf};

use super::{
    member::{Flags, Member, check_unchanged, copy, free_url, tree},
    page::{self, Line},
    repair,
};
use crate::program::{barque, shell, success, text};

fn line(file: &str, damage: &str) -> Line {
    let found = page::lines(page::SEVERAL)
        .into_iter()
        .find(|line| line.file == file && line.damage == damage);
    found.unwrap_or_else(|| panic!("docs/damage.md has no line {file}, {damage}"))
}

/// Two members that run, and the flags of the third.
struct Three {
    home: tempfile::TempDir,
    others: Vec<Member>,
    third: Flags,
}

impl Three {
    /// The third leads nobody: who leads remembers what it acknowledged.
    fn start() -> (Three, Member) {
        let home = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c"];
        let urls = names.map(|_| free_url());
        let members: Vec<String> = names
            .iter()
            .zip(&urls)
            .map(|(name, url)| format!("{name}={url}"))
            .collect();
        let start = |(name, url): (&&str, &String)| {
            let flags = Flags {
                name: name.to_string(),
                dir: home.path().join(name),
                client: free_url(),
                listen_peer: url.clone(),
                peer: url.clone(),
                initial_cluster: members.join(","),
                is_new: true,
            };
            flags.start()
        };
        let mut others: Vec<Member> = names.iter().zip(&urls).map(start).collect();
        others.iter().for_each(|member| drop(member.keys()));
        let follows = |member: &Member| status(member, "leader") != status(member, "member_id");
        let third = others.iter().position(follows).expect("two of three follow");
        let third = others.swap_remove(third);
        let three = Three {
            home,
            others,
            third: third.flags.clone(),
        };
        (three, third)
    }

    fn dir(&self) -> &Path {
        &self.third.dir
    }

    fn copy(&self, name: &str) -> PathBuf {
        let to = self.home.path().join(name);
        copy(self.dir(), &to);
        to
    }

    fn put_back(&self, part: &str, older: &Path) {
        let to = self.dir().join(part);
        success(&shell(&format!("rm -r {}", text(&to))));
        copy(&older.join(part), &to);
    }

    /// The commands of a line, with the member's ID; then the member joins what there is.
    fn replace(&mut self, line: &Line) -> Member {
        let id = self.id();
        let variables = [
            ("dir", text(self.dir())),
            ("name", self.third.name.as_str()),
            ("peer_url", self.third.peer.as_str()),
            ("id", id.as_str()),
            ("ETCDCTL_ENDPOINTS", self.others[0].flags.client.as_str()),
        ];
        repair(line, &variables);
        self.third.is_new = false;
        self.third.start()
    }

    fn id(&self) -> String {
        let list = self.others[0].etcdctl("member list");
        let own = |line: &&str| line.contains(&format!(", {},", self.third.name));
        let line = list.lines().find(own).unwrap_or_else(|| panic!("{list}"));
        line.split(',').next().unwrap_or_default().to_owned()
    }

    fn check_refused(&self, line: &Line) {
        let (code, said) = self.third.refused();
        line.check_said(&said);
        assert_eq!(code, Some(1), "{said}");
    }

    /// As [`Self::check_refused`], for one that may run for a while before it is told.
    fn check_ends(&self, line: &Line) {
        let (code, said) = self.third.start().ends();
        line.check_said(&said);
        assert_eq!(code, Some(1), "{said}");
    }

    /// All that the others have is here, too.
    fn check_caught_up(&self, member: &Member) {
        assert_eq!(member.keys(), self.others[0].keys(), "{}", member.said());
        let voters = || self.others[0].etcdctl("member list").matches("started").count();
        assert_eq!(voters(), 3);
    }
}

fn status(member: &Member, field: &str) -> String {
    let status: serde_json::Value = serde_json::from_str(&member.etcdctl("endpoint status -w json")).unwrap();
    let status = &status[0]["Status"];
    match field {
        "leader" => status["leader"].to_string(),
        _ => status["header"][field].to_string(),
    }
}

#[test]
fn one_of_three_is_damaged_put_back_rebuilt_and_replaced() {
    let (mut three, third) = Three::start();
    three.others[0].put(1..60);
    three.check_caught_up(&third);
    let third = a_damaged_table(&three, third);
    let third = log_and_state_go_back(&mut three, third);
    let third = all_goes_back(&mut three, third);
    all_is_gone(&mut three, third);
}

/// The member is rebuilt, and stays who it is.
fn a_damaged_table(three: &Three, third: Member) -> Member {
    let line = line("state/state-N/*.sst", "a byte changed");
    third.stop();
    let (id, table) = (three.id(), largest_table(three.dir()));
    success(&shell(&format!(
        "printf XXXX | dd of={table} bs=1 seek=1500 conv=notrunc status=none"
    )));
    three.check_refused(&line);
    repair(&line, &[("dir", text(three.dir()))]);
    let third = three.third.start();
    three.check_caught_up(&third);
    assert_eq!(three.id(), id);
    third
}

/// First the log alone: another state in the place of the one that shows it would hide it. Then both, which who leads has
/// been told more than.
fn log_and_state_go_back(three: &mut Three, third: Member) -> Member {
    let (behind, lost) = (
        line("wal/", "an older copy"),
        line("wal/, state/", "older copies of both"),
    );
    third.stop();
    let (id, older) = (three.id(), three.copy("older"));
    let third = three.third.start();
    three.others[0].put(60..90);
    three.check_caught_up(&third);
    third.stop();

    three.put_back("wal", &older);
    success(&barque(&["rebuild", "--data-dir", text(three.dir())]));
    let before = tree(three.dir());
    three.check_refused(&behind);
    check_unchanged(&before, three.dir(), &behind.file);
    success(&shell(&format!("rm {}/member/REBUILD", text(three.dir()))));

    three.put_back("state", &older);
    three.check_ends(&lost);
    // It stays stopped, whoever leads.
    three.check_refused(&lost);
    let third = three.replace(&lost);
    three.check_caught_up(&third);
    assert_ne!(three.id(), id);
    third
}

/// Everybody has seen a later start.
fn all_goes_back(three: &mut Three, third: Member) -> Member {
    let line = line("./", "an older copy");
    third.stop();
    let older = three.copy("older-2");
    let third = three.third.start();
    three.others[0].put(90..95);
    three.check_caught_up(&third);
    third.stop();
    success(&shell(&format!(
        "rm -r {0}; mv {1} {0}",
        text(three.dir()),
        text(&older)
    )));
    three.check_ends(&line);
    let third = three.replace(&line);
    three.check_caught_up(&third);
    third
}

fn all_is_gone(three: &mut Three, third: Member) {
    let line = line("./", "removed");
    third.stop();
    success(&shell(&format!("rm -r {}", text(three.dir()))));
    three.check_ends(&line);
    let third = three.replace(&line);
    three.check_caught_up(&third);
}

/// Most of the live keys are in it.
fn largest_table(dir: &Path) -> String {
    let largest = format!("ls -S {}/state/state-*/*.sst | head -1", text(dir));
    success(&shell(&largest)).trim().to_owned()
}
