//! Reading a whole database once, so that every block's checksum is compared.
//!
//! Nothing else finds bit rot in what nobody reads: a block is checked when it is read, and the history or the tail of
//! the keyspace may not be for weeks. [`walk`] reads in bounded pieces and lets its caller pace it, or stop it, between two.

use super::{Bounds, Family, View};
use crate::StoreError;

/// Called with the bytes of rows read since the last call; `false` stops. To keep to a rate, sleep in it.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Between two calls of [`OnProgress`] no more than this is read, and one row.
const PIECE_BYTES: u64 = 1 << 20;

/// Reads every row of every family. `Ok` means that all that was read is whole: everything, unless the caller stopped it.
pub(super) fn walk(view: &dyn View, on_progress: OnProgress<'_>) -> Result<(), StoreError> {
    let mut piece = 0;
    for family in Family::ALL {
        let mut rows = view.cursor(family, Bounds::ALL)?;
        while let Some((key, value)) = rows.row() {
            piece += (key.len() + value.len()) as u64;
            if piece >= PIECE_BYTES && !on_progress(std::mem::take(&mut piece)) {
                return Ok(());
            }
            rows.advance()?;
        }
    }
    on_progress(piece);
    Ok(())
}
