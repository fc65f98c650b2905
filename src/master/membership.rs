//! `--initial-cluster`, and whether it agrees with what this member says of itself; etcd's rules and words.

use anyhow::{Context, bail};
use barque_replica::MemberConfig;

use super::{Flags, config::DEFAULT_PEER_URL};
use crate::urls::{self, Url};

pub fn initial_cluster(flags: &Flags, name: &str, peers_have_tls: bool) -> anyhow::Result<Vec<MemberConfig>> {
    let advertised = flags
        .initial_advertise_peer_urls
        .as_deref()
        .unwrap_or(DEFAULT_PEER_URL);
    let advertised = urls::parse_list("initial-advertise-peer-urls", advertised)?;
    let members = match &flags.initial_cluster {
        Some(text) => parse(text)?,
        None => vec![member(name, &advertised)],
    };
    check_own_urls(&members, name, &advertised)?;
    check_schemes(&members, peers_have_tls)?;
    Ok(members)
}

/// `a=https://h1:2380,b=https://h2:2380`; a repeated name adds a URL to its member.
fn parse(text: &str) -> anyhow::Result<Vec<MemberConfig>> {
    let wrong = || format!("invalid value \"{text}\" for --initial-cluster");
    let mut members: Vec<MemberConfig> = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (name, url) = part
            .trim()
            .split_once('=')
            .context("a member is NAME=URL")
            .with_context(wrong)?;
        let url = Url::parse(url).with_context(wrong)?.to_string();
        if members.iter().any(|member| member.peer_urls.contains(&url)) {
            bail!("{}: {url} is there twice", wrong());
        }
        match members.iter_mut().find(|member| member.name == name) {
            Some(member) => member.peer_urls.push(url),
            None => members.push(MemberConfig {
                name: name.to_owned(),
                peer_urls: vec![url],
            }),
        }
    }
    if members.is_empty() {
        bail!("{}: no member", wrong());
    }
    Ok(members)
}

fn check_own_urls(members: &[MemberConfig], name: &str, advertised: &[Url]) -> anyhow::Result<()> {
    let Some(own) = members.iter().find(|member| member.name == name) else {
        bail!("couldn't find local name \"{name}\" in the initial cluster configuration");
    };
    let advertised: Vec<String> = advertised.iter().map(Url::to_string).collect();
    if let Some(url) = advertised.iter().find(|url| !own.peer_urls.contains(url)) {
        bail!("--initial-cluster must include {name}={url} given by --initial-advertise-peer-urls");
    }
    if let Some(url) = own.peer_urls.iter().find(|url| !advertised.contains(url)) {
        bail!("--initial-cluster has {name}={url} but missing from --initial-advertise-peer-urls");
    }
    Ok(())
}

fn check_schemes(members: &[MemberConfig], peers_have_tls: bool) -> anyhow::Result<()> {
    let scheme = if peers_have_tls { "https://" } else { "http://" };
    let urls = members
        .iter()
        .flat_map(|member| member.peer_urls.iter().map(move |url| (&member.name, url)));
    for (name, url) in urls {
        if !url.starts_with(scheme) {
            bail!("--initial-cluster has {name}={url}, but this member's peer listeners speak {scheme}");
        }
    }
    Ok(())
}

fn member(name: &str, urls: &[Url]) -> MemberConfig {
    MemberConfig {
        name: name.to_owned(),
        peer_urls: urls.iter().map(Url::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(advertise: &str, cluster: &str) -> Result<usize, String> {
        let flags = Flags {
            initial_advertise_peer_urls: Some(advertise.to_owned()),
            initial_cluster: Some(cluster.to_owned()),
            ..Flags::default()
        };
        initial_cluster(&flags, "a", false)
            .map(|members| members.len())
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn members_and_their_urls() {
        assert_eq!(
            check("http://h1:1", "a=http://h1:1,b=http://h2:1,c=http://h3:1"),
            Ok(3)
        );
        assert_eq!(
            check("http://h1:1,http://h1:2", "a=http://h1:1,a=http://h1:2"),
            Ok(1)
        );
    }

    #[test]
    fn disagreement_is_told_in_etcds_words() {
        let cases = [
            ("http://h1:1", "b=http://h1:1", "couldn't find local name \"a\""),
            (
                "http://h1:9",
                "a=http://h1:1",
                "--initial-cluster must include a=http://h1:9 given by",
            ),
            (
                "http://h1:1",
                "a=http://h1:1,a=http://h1:2",
                "but missing from --initial-advertise-peer-urls",
            ),
            ("http://h1:1", "a=http://h1:1,b=http://h1:1", "is there twice"),
            (
                "http://h1:1",
                "a=http://h1:1,b=https://h2:1",
                "peer listeners speak http://",
            ),
            ("http://h1:1", "a", "a member is NAME=URL"),
            ("http://h1:1", ",", "no member"),
        ];
        for (advertise, cluster, why) in cases {
            let error = check(advertise, cluster).unwrap_err();
            assert!(error.contains(why), "{cluster}: {error}");
        }
    }
}
