//! Answers: JSON bodies, Status errors, warnings.

use axum::body::Body;
use barque_machinery::status::Status;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

pub fn bytes(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    with_type(code, "application/json", body)
}

pub fn with_type(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    bytes(code, to_line(value))
}

/// JSON and a line feed, as kube-apiserver ends its answers.
pub fn to_line(value: &Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    text.into()
}

pub fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &status.to_value());
    if let Some(seconds) = status.retry_after_s() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if status.code == 401 {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Characters of all warnings of an answer, and of each where these are too many: kube-apiserver's.
const WARNINGS_CHARACTERS: usize = 4096;
const WARNING_CHARACTERS: usize = 256;

/// Adds a Warning header per text that fits; kubectl shows each to its user.
pub fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    for warning in fitting(warnings) {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// All as they are, or as many as fit, each cut.
fn fitting(warnings: &[String]) -> Vec<String> {
    let all: usize = warnings.iter().map(|warning| warning.chars().count()).sum();
    if all <= WARNINGS_CHARACTERS {
        return warnings.to_vec();
    }
    let cut = |warning: &String| warning.chars().take(WARNING_CHARACTERS).collect::<String>();
    let mut room = WARNINGS_CHARACTERS;
    let fits = |warning: &String| {
        let left = room.checked_sub(warning.chars().count());
        room = left.unwrap_or(0);
        left.is_some()
    };
    warnings.iter().map(cut).take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_fit_into_a_head() {
        let few = vec!["a".repeat(4000), "ü".repeat(96)];
        assert_eq!(fitting(&few), few);
        let many = vec!["ü".repeat(300); 100_000];
        assert_eq!(fitting(&many), vec!["ü".repeat(256); 16]);
        let mut response = bytes(StatusCode::OK, "{}");
        add_warnings(&mut response, &vec!["\"a\"".to_owned(); 100_000]);
        assert_eq!(
            response.headers().get_all(header::WARNING).iter().count(),
            4096 / 3
        );
    }
}
