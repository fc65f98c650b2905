//! A run told on one page: [`html`], and the same as text: [`markdown`].

mod conflict;
mod escape;
mod page;
mod summary;
mod svg;
mod text;
mod timeline;
mod told;

use crate::{history::History, verdict::Check};
use summary::Summary;

/// One self-contained page: no script, nothing to load. `command` is what reproduces the run.
pub fn html(history: &History, checks: &[Check], command: &str) -> String {
    page::page(history, &Summary::new(history, checks), command)
}

/// The same without the pictures.
pub fn markdown(history: &History, checks: &[Check], command: &str) -> String {
    text::text(history, &Summary::new(history, checks), command)
}
