//! How each line of `docs/damage.md` about one member is brought about: file, words, and the damage itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::member::{Flags, copy};
use crate::program::{shell, success, text};

/// What damages may use besides the directory.
pub struct Ground {
    /// The directory to damage.
    pub dir: PathBuf,
    /// A copy of it from before its last start.
    pub older: PathBuf,
}

/// File, what happens to it, and how: given the ground and the file.
pub type Case = (&'static str, &'static str, fn(&Ground, &str));

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    ("member/identity.json", "a digit changed", Ground::change_digit),
    ("member/identity.json", "cut short", |on, file| on.cut_to(file, 40)),
    ("member/identity.json", "removed", Ground::remove),
    ("member/identity.json", "an older copy", Ground::put_older),
    ("member/peers.json", "a digit changed", Ground::change_digit),
    ("member/peers.json", "cut short", |on, file| on.cut_to(file, 10)),
    ("member/peers.json", "removed", Ground::remove),
    ("member/peers.json", "an older copy", Ground::put_older),
    ("member/installing.json", "damaged", |on, file| on.write(file, "{\"term\": 2")),
    ("member/CONDEMNED", "there", |on, file| on.write(file, "rows differ\n")),
    ("member/CONDEMNED", "damaged", |on, file| on.write(file, [0xffu8, 0xfe, 7])),
    ("member/REBUILD", "there, and no other member is", |on, file| on.write(file, "wanted\n")),
    ("member/REBUILD", "a letter changed", |on, file| on.write(file, "vanted\n")),
    ("member/REBUILD", "emptied", Ground::empty),
    ("member/", "removed", Ground::remove),
    ("member/", "an older copy", Ground::put_older),
    ("wal/*.wal", "a byte changed", |on, _| flip(&on.segment(0), 20_000)),
    ("wal/*.wal", "its header changed", |on, _| flip(&on.segment(0), 0)),
    ("wal/*.wal", "cut short", |on, _| set_len(&on.segment(0), 30_000)),
    ("wal/*.wal", "zeroes in place of its end", zero_end),
    ("wal/*.wal", "an older copy of the last one", older_segment),
    ("wal/*.wal", "the oldest removed", |on, _| fs::remove_file(on.segment(0)).unwrap()),
    ("wal/*.wal", "one in the middle removed", |on, _| fs::remove_file(on.segment(1)).unwrap()),
    ("wal/*.wal", "the last batch damaged before a mark covered it", torn_batch),
    ("wal/*.spare", "anything", |on, _| on.write("wal/0000000000000001.spare", vec![7u8; 65536])),
    ("wal/new.tmp", "anything", |on, file| on.write(file, "x")),
    ("wal/mark.tmp", "anything", |on, file| on.write(file, "x")),
    ("wal/mark", "one copy damaged", |on, file| on.flip(file, 20)),
    ("wal/mark", "both copies damaged", |on, file| [20, 4096 + 20].into_iter().for_each(|at| on.flip(file, at))),
    ("wal/mark", "emptied", Ground::empty),
    ("wal/mark", "removed", Ground::remove),
    ("wal/mark", "an older copy", Ground::put_older),
    ("wal/", "removed", Ground::remove),
    ("wal/", "an older copy", Ground::put_older),
    ("state/CURRENT_STATE", "removed", Ground::remove),
    ("state/CURRENT_STATE", "a letter changed", |on, file| on.flip(file, 2)),
    ("state/CURRENT_STATE", "emptied", Ground::empty),
    ("state/CURRENT_STATE", "an older copy, from before a snapshot came", |on, file| on.write(file, "state-00000009\n")),
    ("state/CURRENT_STATE.new", "anything", |on, file| on.write(file, "state-000")),
    ("state/state-N/CURRENT", "removed", Ground::remove),
    ("state/state-N/CURRENT", "a letter changed", |on, file| on.flip(file, 3)),
    ("state/state-N/CURRENT", "an older copy", Ground::put_older),
    ("state/state-N/MANIFEST-*", "a byte changed", |on, file| on.flip(file, 1_500)),
    ("state/state-N/MANIFEST-*", "its end cut off", |on, file| on.cut_by(file, 10)),
    ("state/state-N/MANIFEST-*", "removed", Ground::remove),
    ("state/state-N/*.sst", "a byte changed, in what is live", |on, _| flip(&on.table("cur"), 1_000)),
    ("state/state-N/*.sst", "a byte changed, in history", |on, _| flip(&on.table("hist"), 1_000)),
    ("state/state-N/*.sst", "cut short", |on, _| set_len(&on.table("cur"), 5_000)),
    ("state/state-N/*.sst", "removed", |on, _| fs::remove_file(on.table("cur")).unwrap()),
    ("state/state-N/OPTIONS-*", "damaged", |on, file| on.flip(file, 100)),
    ("state/state-N/OPTIONS-*", "removed", Ground::remove),
    ("state/state-N/IDENTITY", "removed", Ground::remove),
    ("state/state-N/IDENTITY", "damaged", |on, file| on.flip(file, 3)),
    ("state/state-N/LOCK", "removed", Ground::remove),
    ("state/state-N/LOG", "removed", Ground::remove),
    ("state/state-N/", "removed", Ground::remove),
    ("state/state-N/", "an older copy", Ground::put_older),
    ("state/", "removed", Ground::remove),
    ("state/", "removed, and the log was never purged", |on, file| {
        on.put_older("./");
        on.remove(file);
    }),
    ("state/", "an older copy", Ground::put_older),
    ("snap/", "anything", |on, _| {
        fs::create_dir_all(on.at("snap/in-1")).unwrap();
        on.write("snap/in-1/000007.sst", "x");
    }),
    ("snap/", "removed", Ground::remove),
    ("wal/, state/", "older copies of both", |on, _| ["wal/", "state/"].into_iter().for_each(|dir| on.put_older(dir))),
    ("./", "an older copy", Ground::put_older),
    ("./", "removed", Ground::remove),
];

impl Ground {
    /// The file's path; of several that fit, the newest.
    fn at(&self, file: &str) -> PathBuf {
        let file = file.replace("state-N", "state-00000001");
        match file.strip_suffix('*') {
            None if file == "./" => self.dir.clone(),
            None => self.dir.join(file.trim_end_matches('/')),
            Some(start) => {
                let (dir, start) = start.rsplit_once('/').unwrap();
                let found = files(&self.dir.join(dir), |name| name.starts_with(start));
                found.last().unwrap_or_else(|| panic!("no {file}")).clone()
            }
        }
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.at(file), content).unwrap();
    }

    fn remove(&self, file: &str) {
        success(&shell(&format!("rm -rf {}", text(&self.at(file)))));
    }

    fn put_older(&self, file: &str) {
        let to = self.at(file);
        self.remove(file);
        copy(&self.older.join(to.strip_prefix(&self.dir).unwrap()), &to);
    }

    fn flip(&self, file: &str, at: usize) {
        flip(&self.at(file), at);
    }

    /// The last digit of a JSON file becomes another one.
    fn change_digit(&self, file: &str) {
        let bytes = fs::read(self.at(file)).unwrap();
        self.flip(file, bytes.iter().rposition(u8::is_ascii_digit).unwrap());
    }

    fn cut_to(&self, file: &str, len: u64) {
        set_len(&self.at(file), len);
    }

    fn cut_by(&self, file: &str, bytes: u64) {
        let len = self.at(file).metadata().unwrap().len();
        self.cut_to(file, len - bytes);
    }

    fn empty(&self, file: &str) {
        self.write(file, "");
    }

    fn segment(&self, number: usize) -> PathBuf {
        self.segments().swap_remove(number)
    }

    /// The last of them was made ahead.
    fn segments(&self) -> Vec<PathBuf> {
        files(&self.at("wal"), |name| name.ends_with(".wal"))
    }

    /// The largest table file of a column family: its properties name the family.
    fn table(&self, family: &str) -> PathBuf {
        let named = format!("name{family}");
        let mut found = files(&self.at("state/state-N"), |name| name.ends_with(".sst"));
        found.retain(|path| {
            let bytes = fs::read(path).unwrap();
            bytes
                .windows(named.len())
                .any(|window| window == named.as_bytes())
        });
        found.sort_by_key(|path| path.metadata().unwrap().len());
        found.pop().unwrap_or_else(|| panic!("no table of {family}"))
    }
}

fn files(dir: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| is_wanted(text(Path::new(path.file_name().unwrap()))))
        .collect();
    paths.sort();
    paths
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn set_len(path: &Path, len: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

/// From the middle of what was written to the last segment on: up to where, the mark says.
fn zero_end(on: &Ground, _: &str) {
    let mark = fs::read(on.at("wal/mark")).unwrap();
    let number = |at: usize| u64::from_le_bytes(mark[at..at + 8].try_into().unwrap());
    let copies = [0, 4096].map(|copy| (number(copy + 16), number(copy + 24)));
    let (seq, end) = copies[0].max(copies[1]);
    let segment = on.at(&format!("wal/{seq:016x}.wal"));
    let mut bytes = fs::read(&segment).unwrap();
    bytes[(4096 + end as usize) / 2..].fill(0);
    fs::write(segment, bytes).unwrap();
}

/// The last segment that there was before the last start, as it was then.
fn older_segment(on: &Ground, _: &str) {
    let older = files(&on.older.join("wal"), |name| name.ends_with(".wal"));
    let segment = older.last().expect("a segment");
    let newer = on.at("wal").join(segment.file_name().unwrap());
    assert!(newer.exists(), "{} was purged", newer.display());
    fs::copy(segment, newer).unwrap();
}

/// A put is acknowledged, the member killed, and the put's frame damaged; the mark is one from before the put.
fn torn_batch(on: &Ground, _: &str) {
    const PUT: &[u8] = b"acknowledged";
    let before = fs::read(on.at("wal/mark")).unwrap();
    let member = Flags::alone(&on.dir).start();
    member.keys();
    member.etcdctl("put k-last acknowledged");
    member.kill();
    on.write("wal/mark", before);
    let found = on.segments().into_iter().find_map(|segment| {
        let bytes = fs::read(&segment).unwrap();
        let at = bytes.windows(PUT.len()).rposition(|window| window == PUT)?;
        Some((segment, at))
    });
    let (segment, at) = found.expect("the put is in the log");
    flip(&segment, at);
}
