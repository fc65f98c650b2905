//! How an answer differs from what it must be: [`difference`].

use crate::history::{Answer, KeyValue, Response};

/// The first difference; `None`: none. A nested response may leave its revision out.
pub(super) fn difference(expected: &Response, got: &Response) -> Option<String> {
    if expected.revision != got.revision {
        return Some(format!(
            "revision {} instead of {}",
            got.revision, expected.revision
        ));
    }
    in_answer(&expected.answer, &got.answer)
}

fn in_answer(expected: &Answer, got: &Answer) -> Option<String> {
    match (expected, got) {
        (Answer::Put { prev_kv: expected }, Answer::Put { prev_kv: got }) => {
            in_versions("previous", expected.as_slice(), got.as_slice())
        }
        (
            Answer::Delete { deleted, prev_kvs },
            Answer::Delete {
                deleted: got_deleted,
                prev_kvs: got,
            },
        ) => in_number("deleted", *deleted, *got_deleted).or_else(|| in_versions("previous", prev_kvs, got)),
        (
            Answer::Range { kvs, count, more },
            Answer::Range {
                kvs: got,
                count: got_count,
                more: got_more,
            },
        ) => in_versions("read", kvs, got)
            .or_else(|| in_number("count", *count, *got_count))
            .or_else(|| in_number("more", i64::from(*more), i64::from(*got_more))),
        (
            Answer::Txn { succeeded, responses },
            Answer::Txn {
                succeeded: got_succeeded,
                responses: got,
            },
        ) => in_number("succeeded", i64::from(*succeeded), i64::from(*got_succeeded))
            .or_else(|| in_nested(responses, got)),
        (expected, got) => (expected != got).then(|| format!("{got} instead of {expected}")),
    }
}

fn in_nested(expected: &[Response], got: &[Response]) -> Option<String> {
    if expected.len() != got.len() {
        return Some(format!(
            "{} nested responses instead of {}",
            got.len(),
            expected.len()
        ));
    }
    expected
        .iter()
        .zip(got)
        .enumerate()
        .find_map(|(at, (expected, got))| {
            let found = match got.revision {
                0 => in_answer(&expected.answer, &got.answer),
                _ => difference(expected, got),
            };
            found.map(|text| format!("nested response {at}: {text}"))
        })
}

fn in_number(what: &str, expected: i64, got: i64) -> Option<String> {
    (expected != got).then(|| format!("{what} {got} instead of {expected}"))
}

fn in_versions(what: &str, expected: &[KeyValue], got: &[KeyValue]) -> Option<String> {
    let longest = expected.len().max(got.len());
    let at = (0..longest).find(|at| expected.get(*at) != got.get(*at))?;
    let shown = |kvs: &[KeyValue]| kvs.get(at).map_or("nothing".to_owned(), ToString::to_string);
    Some(format!("{what} {} instead of {}", shown(got), shown(expected)))
}
