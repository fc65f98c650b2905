//! A member's wall clock, which can be set wrong: [`Clocks`].

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;

use super::launch::beside_this_program;

const LIBRARY: &str = "libbarque_chaos_clock.so";
/// Of each of the two numbers in a file.
const SIZE: usize = size_of::<i64>();

/// One file for each member, by which its clock is wrong; see the crate `barque-chaos-clock`.
#[derive(Debug, Clone)]
pub struct Clocks {
    dir: PathBuf,
    library: PathBuf,
}

impl Clocks {
    pub fn new(dir: &Path) -> anyhow::Result<Clocks> {
        let Some(library) = beside_this_program(LIBRARY)? else {
            bail!("there is no {LIBRARY} beside this program: build the whole workspace");
        };
        Ok(Clocks {
            dir: dir.to_owned(),
            library,
        })
    }

    /// Before the member is started.
    pub(super) fn give(&self, member: &str, command: &mut Command) -> anyhow::Result<()> {
        let file = self.file(member);
        if !file.exists() {
            fs::write(&file, [0; 2 * SIZE])?;
        }
        command.env("LD_PRELOAD", &self.library);
        command.env("BARQUE_CLOCK", file);
        Ok(())
    }

    /// How wrong the member's clock is from now on.
    pub(super) fn set(&self, member: &str, wrong_by_s: i64) -> anyhow::Result<()> {
        let file = File::options().write(true).open(self.file(member))?;
        file.write_all_at(&(wrong_by_s * 1_000_000_000).to_ne_bytes(), 0)?;
        Ok(())
    }

    /// How often the member was told a wrong time.
    pub(super) fn told(&self, member: &str) -> anyhow::Result<i64> {
        let mut number = [0; SIZE];
        File::open(self.file(member))?.read_exact_at(&mut number, SIZE as u64)?;
        Ok(i64::from_ne_bytes(number))
    }

    fn file(&self, member: &str) -> PathBuf {
        self.dir.join(format!("{member}.clock"))
    }
}
