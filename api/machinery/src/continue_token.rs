//! Continue tokens of paged lists: the revision of the first page and the key to go on from.
//!
//! Spelled as kube-apiserver spells them (URL-safe base64 of JSON), though clients must not look inside.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::status::Status;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContinueToken {
    /// The revision to read at; −1 when the history is gone and the client accepted an inconsistent rest.
    pub revision: i64,
    /// The first key wanted, below the list's prefix.
    pub start: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

impl ContinueToken {
    pub fn encode(&self) -> String {
        let wire = Wire {
            v: VERSION.into(),
            rv: self.revision,
            start: String::from_utf8_lossy(&self.start).into_owned(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    pub fn decode(text: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|e| bad(&e.to_string()))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if wire.v != VERSION {
            return Err(bad(&format!(
                "server does not recognize this encoded version {:?}",
                wire.v
            )));
        }
        if wire.rv == 0 || wire.rv < -1 {
            return Err(bad("incorrect encoded start resourceVersion"));
        }
        // A key that climbs out of the prefix would read what the caller was not admitted to.
        if wire.start.is_empty() || wire.start.starts_with('/') || wire.start.split('/').any(|s| s == "..") {
            return Err(bad(&format!("{:?}", wire.start)));
        }
        Ok(Self {
            revision: wire.rv,
            start: wire.start.into_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let token = ContinueToken {
            revision: 42,
            start: b"default/a\0".to_vec(),
        };
        assert_eq!(ContinueToken::decode(&token.encode()), Ok(token));
    }

    #[test]
    fn rubbish_is_a_bad_request() {
        for text in [
            "",
            "!!",
            "e30",
            &URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":3,"start":"../x"}"#),
        ] {
            assert_eq!(
                ContinueToken::decode(text).map_err(|s| s.code),
                Err(400),
                "{text}"
            );
        }
    }
}
