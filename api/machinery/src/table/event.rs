//! The row of an event.

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Column, Layout, age_of,
    cells::{int_at, str_at, text},
    unconditional,
};

pub(super) static LAYOUT: Layout = Layout {
    columns: &[
        Column::new("Last Seen", "string", "Time since this last happened."),
        Column::new("Type", "string", "Normal or Warning."),
        Column::new("Reason", "string", "Why this happened, in one word."),
        Column::new("Object", "string", "What it happened to."),
        Column::new("Subobject", "string", "The part of the object it happened to.").wide(),
        Column::new("Source", "string", "Who reports it.").wide(),
        Column::new("Message", "string", "What happened."),
        Column::new("First Seen", "string", "Time since this first happened.").wide(),
        Column::new("Count", "string", "How often this happened.").wide(),
        Column {
            priority: 1,
            ..Column::name("The event's name.")
        },
    ],
    cells,
    conditions: unconditional,
};

fn cells(event: &Value, now: OffsetDateTime) -> Vec<Value> {
    let (first, last) = seen(event, now);
    vec![
        last.into(),
        text(event, "/type"),
        text(event, "/reason"),
        object(event).into(),
        text(event, "/involvedObject/fieldPath"),
        source(event).into(),
        str_at(event, "/message").trim().into(),
        first.into(),
        occurrences(event).into(),
        text(event, "/metadata/name"),
    ]
}

/// Ages of the first and the last occurrence. Newer reporters set `eventTime` and `series` alone.
fn seen(event: &Value, now: OffsetDateTime) -> (String, String) {
    let is_set = |field: &str| event[field].is_string();
    let first = if is_set("firstTimestamp") {
        "/firstTimestamp"
    } else {
        "/eventTime"
    };
    let last = match () {
        () if event["series"].is_object() => "/series/lastObservedTime",
        () if is_set("lastTimestamp") => "/lastTimestamp",
        () => first,
    };
    (age_of(event, first, now), age_of(event, last, now))
}

fn occurrences(event: &Value) -> i64 {
    match () {
        () if event["series"].is_object() => int_at(event, "/series/count"),
        () => int_at(event, "/count").max(1),
    }
}

fn object(event: &Value) -> String {
    let kind = str_at(event, "/involvedObject/kind").to_lowercase();
    match str_at(event, "/involvedObject/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let (component, instance) = match str_at(event, "/source/component") {
        "" => (
            str_at(event, "/reportingComponent"),
            str_at(event, "/reportingInstance"),
        ),
        component => (component, str_at(event, "/source/host")),
    };
    if instance.is_empty() {
        component.into()
    } else {
        format!("{component}, {instance}")
    }
}
