//! Writing files that matter: private modes, never half a file, never over another one unasked.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, bail};

pub const PRIVATE: u32 = 0o600;
pub const PUBLIC: u32 = 0o644;

/// Makes the directory and those above it, for the owner only.
pub fn make_private_dir(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("make directory {}", dir.display()))
}

/// Writes a new file; one that is there already is an error unless `force`.
pub fn write_new(path: &Path, mode: u32, force: bool, content: &[u8]) -> anyhow::Result<()> {
    if !force && path.exists() {
        bail!("{} exists already (--force replaces it)", path.display());
    }
    replace(path, mode, content)
}

/// Puts `content` in place of whatever was there, in one step and durably.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
    replace_io(path, mode, content).with_context(|| format!("write {}", path.display()))
}

fn replace_io(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&new)?;
    // The mode given at creation is cut by the umask and not applied to a file left over.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // A name is as durable as the directory that holds it.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}
