//! Who asks: a client certificate, a bearer token, or nobody.

use std::collections::HashMap;

use barque_machinery::{gvk::GroupResource, status::Status};
use http::HeaderMap;
use serde_json::{Value, json};
use time::OffsetDateTime;
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

/// The client's certificate, DER, verified by the TLS acceptor; an extension of the request.
#[derive(Debug, Clone)]
pub struct PeerCertificate(pub Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

pub const ANONYMOUS: &str = "system:anonymous";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const MASTERS: &str = "system:masters";

impl User {
    fn authenticated(name: String, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { name, groups }
    }

    fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// `authentication.k8s.io` UserInfo.
    pub fn to_value(&self) -> Value {
        json!({ "username": self.name, "groups": self.groups })
    }
}

/// The user of a request. Credentials that are given and wrong are refused, never taken for anonymous.
pub fn authenticate(
    certificate: Option<&PeerCertificate>,
    headers: &HeaderMap,
    tokens: &HashMap<String, User>,
    now: OffsetDateTime,
) -> Result<User, Status> {
    let user = if let Some(header) = headers.get(http::header::AUTHORIZATION) {
        let token = header
            .to_str()
            .ok()
            .and_then(|h| h.strip_prefix("Bearer "))
            .map(str::trim);
        let known = token
            .and_then(|t| tokens.get(t))
            .ok_or_else(Status::unauthorized)?;
        User::authenticated(known.name.clone(), known.groups.clone())
    } else if let Some(certificate) = certificate {
        from_certificate(&certificate.0, now)?
    } else {
        User::anonymous()
    };
    impersonate(user, headers)
}

/// CN is the user, each O a group. A connection may outlive its certificate, so each request looks again.
fn from_certificate(der: &[u8], now: OffsetDateTime) -> Result<User, Status> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Status::unauthorized())?;
    let now = ASN1Time::from_timestamp(now.unix_timestamp()).map_err(Status::internal)?;
    if !certificate.validity().is_valid_at(now) {
        return Err(Status::unauthorized());
    }
    let subject = certificate.subject();
    let name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok());
    let name = name.filter(|n| !n.is_empty()).ok_or_else(Status::unauthorized)?;
    let groups = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok())
        .map(str::to_owned);
    Ok(User::authenticated(name.to_owned(), groups.collect()))
}

/// `kubectl --as`: whoever may do everything may also act as somebody else.
fn impersonate(user: User, headers: &HeaderMap) -> Result<User, Status> {
    let text = |h: &http::HeaderValue| {
        h.to_str()
            .map(str::to_owned)
            .map_err(|_| Status::bad_request("bad header"))
    };
    let groups = headers
        .get_all("impersonate-group")
        .iter()
        .map(text)
        .collect::<Result<Vec<_>, _>>()?;
    let Some(name) = headers.get("impersonate-user").map(text).transpose()? else {
        if groups.is_empty() {
            return Ok(user);
        }
        return Err(Status::bad_request(
            "requested groups to impersonate without impersonating a user",
        ));
    };
    if !user.is_in(MASTERS) {
        let why = format!(
            "User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            user.name
        );
        return Err(Status::forbidden(&GroupResource::new("", "users"), &name, &why));
    }
    Ok(if name == ANONYMOUS {
        User::anonymous()
    } else {
        User::authenticated(name, groups)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| {
                (
                    http::HeaderName::from_static(k),
                    http::HeaderValue::from_static(v),
                )
            })
            .collect()
    }

    #[test]
    fn tokens_and_impersonation() {
        let tokens = HashMap::from([
            (
                "good".to_owned(),
                User {
                    name: "root".into(),
                    groups: vec![MASTERS.into()],
                },
            ),
            (
                "weak".to_owned(),
                User {
                    name: "joe".into(),
                    groups: vec![],
                },
            ),
        ]);
        let check = |pairs: &[(&'static str, &'static str)], expect: Result<&str, u16>| {
            let found = authenticate(None, &headers(pairs), &tokens, OffsetDateTime::UNIX_EPOCH);
            assert_eq!(
                found.as_ref().map(|u| u.name.as_str()).map_err(|s| s.code),
                expect,
                "{pairs:?}"
            );
        };
        check(&[], Ok(ANONYMOUS));
        check(&[("authorization", "Bearer good")], Ok("root"));
        check(&[("authorization", "Bearer bad")], Err(401));
        check(&[("authorization", "Basic good")], Err(401));
        check(
            &[("authorization", "Bearer good"), ("impersonate-user", "jane")],
            Ok("jane"),
        );
        check(
            &[("authorization", "Bearer weak"), ("impersonate-user", "jane")],
            Err(403),
        );
        check(
            &[("impersonate-user", "root"), ("impersonate-group", MASTERS)],
            Err(403),
        );
        check(
            &[("authorization", "Bearer good"), ("impersonate-group", MASTERS)],
            Err(400),
        );
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_refused() {
        let found = authenticate(
            Some(&PeerCertificate(vec![1, 2, 3])),
            &HeaderMap::new(),
            &HashMap::new(),
            OffsetDateTime::UNIX_EPOCH,
        );
        assert_eq!(found.map_err(|s| s.code), Err(401));
    }

    #[test]
    fn a_certificate_is_good_from_its_first_second_to_its_last() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        params.not_before = rcgen::date_time_ymd(2027, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 2, 1);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let peer = PeerCertificate(certificate.der().to_vec());
        let user_at = |seconds: i64| {
            let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let found = authenticate(Some(&peer), &HeaderMap::new(), &HashMap::new(), now);
            found.map(|user| user.name).map_err(|status| status.code)
        };
        let first = rcgen::date_time_ymd(2027, 1, 1).unix_timestamp();
        let last = rcgen::date_time_ymd(2027, 2, 1).unix_timestamp();
        assert_eq!(user_at(first - 1), Err(401));
        assert_eq!(user_at(first), Ok("jane".to_owned()));
        assert_eq!(user_at(last), Ok("jane".to_owned()));
        assert_eq!(user_at(last + 1), Err(401));
    }
}
