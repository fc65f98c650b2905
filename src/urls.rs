//! Listen and advertise URLs, by etcd's rules: a scheme, a host, a port, and nothing else.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context, bail};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub https: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl Url {
    pub fn parse(text: &str) -> anyhow::Result<Url> {
        let text = text.trim();
        let (https, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => bail!("URL scheme must be http or https: {text}"),
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if !path.is_empty() {
            bail!("URL must not contain a path: {text}");
        }
        let (host, port) = host_and_port(authority)
            .with_context(|| format!("URL address does not have the form \"host:port\": {text}"))?;
        Ok(Url { https, host, port })
    }

    /// `host:port` without a scheme means https.
    pub fn parse_or_host_port(text: &str) -> anyhow::Result<Url> {
        if text.contains("://") {
            return Self::parse(text);
        }
        Self::parse(&format!("https://{text}"))
    }

    /// Where to bind: an IP address, or `localhost`; a name could mean another machine tomorrow.
    pub fn bind_address(&self) -> anyhow::Result<SocketAddr> {
        if self.host == "localhost" {
            return Ok((Ipv4Addr::LOCALHOST, self.port).into());
        }
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Ok((ip, self.port).into()),
            Err(_) => bail!("expected IP in URL for binding ({self})"),
        }
    }

    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "{}://[{}]:{}", self.scheme(), self.host, self.port);
        }
        write!(f, "{}://{}:{}", self.scheme(), self.host, self.port)
    }
}

/// A comma-separated list given to `flag`.
pub fn parse_list(flag: &str, list: &str) -> anyhow::Result<Vec<Url>> {
    let urls: anyhow::Result<Vec<Url>> = list
        .split(',')
        .filter(|part| !part.trim().is_empty())
        .map(Url::parse)
        .collect();
    let urls = urls.with_context(|| format!("invalid value \"{list}\" for --{flag}"))?;
    if urls.is_empty() {
        bail!("--{flag} has no URL");
    }
    Ok(urls)
}

fn host_and_port(authority: &str) -> anyhow::Result<(String, u16)> {
    let (host, port) = authority.rsplit_once(':').context("no port")?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').context("no closing bracket")?,
        None if host.contains(':') => bail!("an IPv6 address wants brackets"),
        None => host,
    };
    if host.is_empty() || host.contains(['@', ' ']) {
        bail!("no host");
    }
    Ok((host.to_owned(), port.parse().context("no valid port")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_url() {
        for good in [
            "http://127.0.0.1:2379",
            "https://[::1]:2380",
            "https://db-1.example:2379",
        ] {
            assert_eq!(Url::parse(good).unwrap().to_string(), good);
        }
        let refusals = [
            ("127.0.0.1:2379", "URL scheme must be"),
            ("ftp://127.0.0.1:2379", "URL scheme must be"),
            ("http://127.0.0.1", "does not have the form \"host:port\""),
            ("http://127.0.0.1:port", "does not have the form \"host:port\""),
            ("http://:2379", "does not have the form \"host:port\""),
            ("http://::1:2379", "does not have the form \"host:port\""),
            ("http://127.0.0.1:70000", "does not have the form \"host:port\""),
            ("http://127.0.0.1:2379/", "must not contain a path"),
            ("http://127.0.0.1:2379/v3", "must not contain a path"),
        ];
        for (bad, why) in refusals {
            let error = format!("{:#}", Url::parse(bad).unwrap_err());
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn names_are_for_advertising_only() {
        assert!(
            Url::parse("http://example.com:1")
                .unwrap()
                .bind_address()
                .is_err()
        );
        assert_eq!(
            Url::parse("http://localhost:1").unwrap().bind_address().unwrap(),
            "127.0.0.1:1".parse().unwrap()
        );
    }
}
