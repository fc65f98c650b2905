//! What may be called what: DNS labels and subdomains, label keys and values; generated names.
//!
//! Each check answers what is wrong, in kube-apiserver's words, or `None`.

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
     must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
     'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Names of most objects.
pub fn dns1123_subdomain(name: &str) -> Option<String> {
    too_long(name, 253).or_else(|| (!name.split('.').all(is_label)).then(|| SUBDOMAIN.into()))
}

/// Names of namespaces and containers.
pub fn dns1123_label(name: &str) -> Option<String> {
    too_long(name, 63).or_else(|| (!is_label(name)).then(|| LABEL_1123.into()))
}

/// Names of services.
pub fn dns1035_label(name: &str) -> Option<String> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    too_long(name, 63).or_else(|| (!starts_well || !is_label(name)).then(|| LABEL_1035.into()))
}

/// Keys of labels and annotations: `name` or `example.com/name`.
pub fn qualified_name(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if name.contains('/') {
        return Some(format!(
            "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            QUALIFIED.trim_start_matches("name part ")
        ));
    }
    match prefix {
        Some("") => return Some("prefix part must be non-empty".into()),
        Some(prefix) => {
            if let Some(problem) = dns1123_subdomain(prefix) {
                return Some(format!("prefix part {problem}"));
            }
        }
        None => {}
    }
    if name.is_empty() {
        return Some("name part must be non-empty".into());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".into());
    }
    (!is_word(name)).then(|| QUALIFIED.into())
}

pub fn label_value(value: &str) -> Option<String> {
    too_long(value, 63).or_else(|| (!value.is_empty() && !is_word(value)).then(|| LABEL_VALUE.into()))
}

/// Keys of the data of config maps and secrets.
pub fn config_key(key: &str) -> Option<String> {
    if let Some(problem) = too_long(key, 253) {
        return Some(problem);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || !key.chars().all(allowed) {
        return Some(CONFIG_KEY.into());
    }
    match key {
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        key if key.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

/// What a path segment may not be; every object's name must pass.
pub fn path_segment(name: &str) -> Option<String> {
    match name {
        "." => Some("may not be '.'".into()),
        ".." => Some("may not be '..'".into()),
        name if name.contains('/') => Some("may not contain '/'".into()),
        name if name.contains('%') => Some("may not contain '%'".into()),
        _ => None,
    }
}

/// `base` and five random characters; vowels and look-alikes are left out, so that no words appear.
pub fn generate(base: &str, mut random: impl FnMut() -> u32) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const MAX_BASE: usize = 63 - 5;
    let mut end = base.len().min(MAX_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    name.extend((0..5).map(|_| ALPHABET[random() as usize % ALPHABET.len()] as char));
    name
}

fn too_long(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} bytes"))
}

fn is_label(text: &str) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
}

fn is_word(text: &str) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_refused() {
        let check = |test: fn(&str) -> Option<String>, good: &[&str], bad: &[&str]| {
            for name in good {
                assert_eq!(test(name), None, "{name}");
            }
            for name in bad {
                assert!(test(name).is_some(), "{name}");
            }
        };
        check(
            dns1123_subdomain,
            &["a", "a.b-c", "1"],
            &["", "A", "a_b", "-a", "a.", "a..b", &"a".repeat(254)],
        );
        check(dns1123_label, &["a", "1-2"], &["a.b", "", &"a".repeat(64)]);
        check(dns1035_label, &["a1"], &["1a", "", "a-"]);
        check(
            qualified_name,
            &["a", "A_b.c", "x.io/a"],
            &["", "/a", "x.io/", "X/a", "a/b/c", "-a"],
        );
        check(label_value, &["", "A.b_c-1"], &["-", "a b", &"a".repeat(64)]);
        check(config_key, &["a.conf", "_A"], &["", ".", "..", "..a", "a/b"]);
    }

    #[test]
    fn generated_names_stay_labels() {
        let name = generate(&"x".repeat(100), || 7);
        assert_eq!(name.len(), 63);
        assert_eq!(dns1123_label(&name), None);
    }
}
