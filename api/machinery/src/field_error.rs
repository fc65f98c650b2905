//! What is wrong with one field of an object, in kube-apiserver's words; and how much of it is looked for.

use std::fmt;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// `spec.containers[0].name`
    pub field: String,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    Required(String),
    Invalid {
        value: Value,
        detail: String,
    },
    NotSupported {
        value: String,
        supported: Vec<String>,
    },
    Forbidden(String),
    Duplicate(Value),
    TooLong {
        max_bytes: usize,
    },
    /// Names something that the object does not have.
    NotFound(String),
}

pub const IMMUTABLE: &str = "field is immutable";

impl FieldError {
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: Problem::Required(detail.into()),
        }
    }

    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: Problem::Invalid {
                value: value.into(),
                detail: detail.into(),
            },
        }
    }

    pub fn not_supported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let supported = supported.iter().map(|s| s.to_string()).collect();
        Self {
            field: field.into(),
            problem: Problem::NotSupported {
                value: value.into(),
                supported,
            },
        }
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: Problem::Forbidden(detail.into()),
        }
    }

    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            field: field.into(),
            problem: Problem::Duplicate(value.into()),
        }
    }

    pub fn too_long(field: impl Into<String>, max_bytes: usize) -> Self {
        Self {
            field: field.into(),
            problem: Problem::TooLong { max_bytes },
        }
    }

    /// The machine's word for the problem: `reason` of a status cause.
    pub fn reason(&self) -> &'static str {
        match self.problem {
            Problem::Required(_) => "FieldValueRequired",
            Problem::Invalid { .. } => "FieldValueInvalid",
            Problem::NotSupported { .. } => "FieldValueNotSupported",
            Problem::Forbidden(_) => "FieldValueForbidden",
            Problem::Duplicate(_) => "FieldValueDuplicate",
            Problem::TooLong { .. } => "FieldValueTooLong",
            Problem::NotFound(_) => "FieldValueNotFound",
        }
    }

    /// The message without the field's path.
    pub fn body(&self) -> String {
        match &self.problem {
            Problem::Required(detail) if detail.is_empty() => "Required value".into(),
            Problem::Required(detail) => format!("Required value: {detail}"),
            Problem::Invalid { value, detail } => format!("Invalid value: {value}: {detail}"),
            Problem::NotSupported { value, supported } => {
                let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
                format!(
                    "Unsupported value: {value:?}: supported values: {}",
                    list.join(", ")
                )
            }
            Problem::Forbidden(detail) => format!("Forbidden: {detail}"),
            Problem::Duplicate(value) => format!("Duplicate value: {value}"),
            Problem::NotFound(name) => format!("Not found: {name:?}"),
            Problem::TooLong { max_bytes } => format!("Too long: may not be more than {max_bytes} bytes"),
        }
    }
}

/// So many problems of one object are told. Nobody reads more, and a request can be made of nothing else: a
/// million empty containers have millions of problems, each many times as long as what it complains about.
pub const MAX_ERRORS: usize = 100;

/// Checks `items`, with their positions, until more than [`MAX_ERRORS`] problems are found. Every list and map
/// that a client fills is checked through this, so that the problems of an object are bounded.
pub fn check_each<T>(
    items: impl IntoIterator<Item = T>,
    errors: &mut Vec<FieldError>,
    mut check: impl FnMut(usize, T, &mut Vec<FieldError>),
) {
    for (i, item) in items.into_iter().enumerate() {
        if errors.len() > MAX_ERRORS {
            break;
        }
        check(i, item, errors);
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |error: FieldError, text: &str| assert_eq!(error.to_string(), text);
        check(
            FieldError::required("spec.containers", ""),
            "spec.containers: Required value",
        );
        check(
            FieldError::invalid("spec.type", "x", IMMUTABLE),
            "spec.type: Invalid value: \"x\": field is immutable",
        );
        check(
            FieldError::not_supported("spec.restartPolicy", "Now", &["Always", "Never"]),
            "spec.restartPolicy: Unsupported value: \"Now\": supported values: \"Always\", \"Never\"",
        );
        check(
            FieldError::duplicate("spec.ports[1].name", "a"),
            "spec.ports[1].name: Duplicate value: \"a\"",
        );
    }

    #[test]
    fn one_problem_more_than_is_told_is_looked_for() {
        let mut errors = vec![FieldError::required("spec", "")];
        let mut checked = 0;
        check_each(0..1_000_000, &mut errors, |i, item, errors| {
            assert_eq!(i, item);
            checked += 1;
            if item % 2 == 1 {
                errors.push(FieldError::required(format!("spec[{i}]"), ""));
            }
        });
        assert_eq!((errors.len(), checked), (MAX_ERRORS + 1, 2 * MAX_ERRORS));
        check_each(["a"], &mut errors, |_, _, _| panic!("there are enough"));
    }
}
