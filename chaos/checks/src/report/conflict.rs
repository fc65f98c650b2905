//! Operations that contradict each other, drawn: one row a client, a bar from each call to its return.

use std::collections::{BTreeMap, BTreeSet};

use super::svg::{COLOURS, Svg};
use crate::history::{History, Operation, Outcome};

const LEFT: u64 = 90;
const STEP: u64 = 90;
const ROW: u64 = 62;
const BAR: u64 = 18;
const MAX_DRAWN: usize = 60;

/// Moments are drawn in order and evenly, not to scale: a conflict is about what came before what.
pub(super) fn conflict(history: &History, operations: &[usize]) -> String {
    let drawn: Vec<(usize, &Operation)> = operations
        .iter()
        .take(MAX_DRAWN)
        .map(|index| (*index, &history.operations[*index]))
        .collect();
    let moments: BTreeSet<u64> = drawn
        .iter()
        .flat_map(|(_, operation)| [Some(operation.call), end(operation)])
        .flatten()
        .collect();
    let columns: BTreeMap<u64, u64> = moments.into_iter().zip(1..).collect();
    let clients: BTreeSet<u32> = drawn.iter().map(|(_, operation)| operation.client).collect();
    let rows: BTreeMap<u32, u64> = clients.into_iter().zip(0..).collect();
    let edge = LEFT + STEP * (columns.len() as u64 + 2);
    let mut svg = Svg::new(edge + 40);
    for (client, row) in &rows {
        let y = row * ROW + 22;
        svg.text((4, y), "name", &format!("client {client}"));
        svg.line((LEFT, row * ROW + ROW - 2), (edge, row * ROW + ROW - 2));
    }
    for (index, operation) in &drawn {
        let top = rows[&operation.client] * ROW + 8;
        let from = LEFT + STEP * columns[&operation.call];
        let until = end(operation).map_or(edge, |ret| LEFT + STEP * columns[&ret]);
        bar(
            &mut svg,
            *index,
            operation,
            (from, top),
            until.saturating_sub(from),
        );
    }
    svg.done(
        rows.len() as u64 * ROW + 4,
        "The operations that contradict each other",
    )
}

/// An operation of unknown outcome may take effect at any later moment.
fn end(operation: &Operation) -> Option<u64> {
    operation.ret.filter(|_| !operation.is_unknown())
}

fn bar(svg: &mut Svg, index: usize, operation: &Operation, at: (u64, u64), width: u64) {
    let colour = COLOURS[if operation.request.may_write() { 1 } else { 0 }];
    let title = format!("operation {index}, {operation}, called at {} µs", operation.call);
    match operation.outcome {
        Outcome::Done(_) => svg.rect(at, (width, BAR), colour, &title),
        _ => svg.dashed(at, (width, BAR), colour, &title),
    }
    let room = usize::try_from(width / 6).unwrap_or_default().max(14);
    let (x, y) = at;
    svg.text(
        (x + 2, y + BAR + 13),
        "small",
        &cut(&operation.request.to_string(), room),
    );
    svg.text(
        (x + 2, y + BAR + 26),
        "small",
        &cut(&format!("→ {}", operation.outcome), room),
    );
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{kept}…")
}
