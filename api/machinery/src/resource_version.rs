//! What a client means by `resourceVersion` and `resourceVersionMatch`.
//!
//! A resourceVersion is the keyspace's revision in decimal, so that lists and watches on any master agree.

use crate::{field_error::FieldError, gvk::GroupKind, status::Status};

/// Which state a read may be answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAt {
    /// Not given: everything acknowledged before the request.
    MostRecent,
    /// `0`: whatever this member has.
    Any,
    NotOlderThan(i64),
    Exact(i64),
}

/// Parses a client's resourceVersion; the empty one is 0.
pub fn parse(text: &str) -> Result<i64, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse::<i64>() {
        Ok(version) if version >= 0 => Ok(version),
        _ => Err(Status::bad_request(format!(
            "Invalid value: {text:?}: resourceVersion is not a valid number"
        ))),
    }
}

/// What a get means.
pub fn for_get(version: &str) -> Result<ReadAt, Status> {
    Ok(match (version, parse(version)?) {
        ("", _) => ReadAt::MostRecent,
        (_, 0) => ReadAt::Any,
        (_, version) => ReadAt::NotOlderThan(version),
    })
}

/// What a list means. A version with a limit and no match is exact: clients from before the match parameter
/// page that way.
pub fn for_list(
    version: &str,
    version_match: &str,
    has_limit: bool,
    continues: bool,
) -> Result<ReadAt, Status> {
    if continues {
        if !version_match.is_empty() {
            return Err(invalid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !version.is_empty() && version != "0" {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
    }
    let number = parse(version)?;
    match version_match {
        "" => Ok(match (version, number) {
            ("", _) => ReadAt::MostRecent,
            (_, 0) => ReadAt::Any,
            (_, n) if has_limit => ReadAt::Exact(n),
            (_, n) => ReadAt::NotOlderThan(n),
        }),
        _ if version.is_empty() => Err(invalid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        "NotOlderThan" => Ok(if number == 0 {
            ReadAt::Any
        } else {
            ReadAt::NotOlderThan(number)
        }),
        "Exact" if number == 0 => Err(invalid(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        "Exact" => Ok(ReadAt::Exact(number)),
        other => Err(Status::invalid(
            &list_options(),
            "",
            &[FieldError::not_supported(
                "resourceVersionMatch",
                other,
                &["Exact", "NotOlderThan", ""],
            )],
        )),
    }
}

fn list_options() -> GroupKind {
    GroupKind {
        group: "meta.k8s.io".into(),
        kind: "ListOptions".into(),
    }
}

fn invalid(field: &str, detail: &str) -> Status {
    Status::invalid(&list_options(), "", &[FieldError::forbidden(field, detail)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let check = |version: &str, version_match: &str, limit: bool, expect: Option<ReadAt>| {
            assert_eq!(
                for_list(version, version_match, limit, false).ok(),
                expect,
                "{version} {version_match}"
            );
        };
        check("", "", false, Some(ReadAt::MostRecent));
        check("0", "", true, Some(ReadAt::Any));
        check("7", "", false, Some(ReadAt::NotOlderThan(7)));
        check("7", "", true, Some(ReadAt::Exact(7)));
        check("7", "Exact", false, Some(ReadAt::Exact(7)));
        check("7", "NotOlderThan", true, Some(ReadAt::NotOlderThan(7)));
        check("0", "Exact", false, None);
        check("", "Exact", false, None);
        check("7", "Sometimes", false, None);
        check("x", "", false, None);
        check("-1", "", false, None);
    }

    #[test]
    fn a_continued_list_names_no_version() {
        assert!(for_list("7", "", true, true).is_err());
        assert!(for_list("", "Exact", true, true).is_err());
        assert_eq!(for_list("", "", true, true), Ok(ReadAt::MostRecent));
    }
}
