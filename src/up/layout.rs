//! What a cluster's directory needs before its processes start: certificates, a configuration file per master,
//! a kubeconfig and an `etcd.env`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::json;

use crate::{
    cluster_dir::{Cluster, ClusterDir, Master},
    files,
    pki::{self, Host, Kubeconfig, Lifetime},
};

const CA_YEARS: u32 = 10;
const LEAF_DAYS: u32 = 365;
/// Certificates that end sooner are issued anew when the cluster is opened.
const RENEW_DAYS: u32 = 30;

pub fn prepare(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    certificates(dir, cluster)?;
    for master in &cluster.masters {
        write_master_config(dir, cluster, master)?;
    }
    write_kubeconfig(dir, cluster)?;
    write_etcd_env(dir, cluster)
}

fn certificates(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    let tree = dir.pki();
    let leaf = Lifetime::days(LEAF_DAYS);
    if !tree.dir().exists() {
        pki::init(&tree, Lifetime::years(CA_YEARS), leaf, false)?;
    }
    let ends = |cert: &std::path::Path| pki::expires_within(cert, RENEW_DAYS);
    if ends(&tree.etcd_admin().cert) {
        pki::issue_etcd_user(&tree, "admin", leaf, true)?;
    }
    if ends(&tree.admin().cert) {
        pki::issue_user(&tree, "admin", &["system:masters".to_owned()], leaf, true)?;
    }
    let hosts = [
        Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Host::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        Host::Dns("localhost".to_owned()),
    ];
    for master in &cluster.masters {
        let paths = tree.master(&master.name);
        if [&paths.peer, &paths.etcd, &paths.api]
            .iter()
            .any(|pair| ends(&pair.cert))
        {
            pki::issue_master(&tree, &master.name, &hosts, leaf, true)?;
        }
    }
    Ok(())
}

/// The same file can start the master by hand: `barque master --config-file FILE`.
fn write_master_config(dir: &ClusterDir, cluster: &Cluster, master: &Master) -> anyhow::Result<()> {
    let url = |port: u16| format!("https://127.0.0.1:{port}");
    let initial: Vec<String> = cluster
        .masters
        .iter()
        .map(|peer| format!("{}={}", peer.name, url(peer.peer_port)))
        .collect();
    let document = json!({
        "name": master.name,
        "data-dir": dir.data(&master.name),
        "pid-file": dir.pid_file(&master.name),
        "listen-client-urls": url(master.client_port),
        "advertise-client-urls": url(master.client_port),
        "listen-peer-urls": url(master.peer_port),
        "initial-advertise-peer-urls": url(master.peer_port),
        "initial-cluster": initial.join(","),
        "initial-cluster-token": cluster.token,
        "initial-cluster-state": "new",
        "pki-dir": dir.pki().master(&master.name).dir,
        "listen-api": url(master.api_port),
        "listen-metrics-urls": format!("http://127.0.0.1:{}", master.metrics_port),
    });
    let entries = document.as_object().into_iter().flatten();
    let mut text = "# Written by `barque up`, anew each time it opens the cluster.\n".to_owned();
    for (key, value) in entries {
        // A JSON scalar is a YAML scalar.
        text.push_str(&format!("{key}: {value}\n"));
    }
    files::replace(&dir.config_file(&master.name), files::PRIVATE, text.as_bytes())
}

fn write_kubeconfig(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    let tree = dir.pki();
    let server = format!("https://127.0.0.1:{}", cluster.proxy_port);
    Kubeconfig {
        cluster: &cluster.token,
        user: "admin",
        server: &server,
    }
    .write(&tree, &tree.admin(), &dir.kubeconfig())
}

fn write_etcd_env(dir: &ClusterDir, cluster: &Cluster) -> anyhow::Result<()> {
    let tree = dir.pki();
    let endpoints: Vec<String> = cluster
        .masters
        .iter()
        .map(|master| format!("https://127.0.0.1:{}", master.client_port))
        .collect();
    let pair = tree.etcd_admin();
    let variables = [
        ("ETCDCTL_API", "3".to_owned()),
        ("ETCDCTL_ENDPOINTS", endpoints.join(",")),
        ("ETCDCTL_CACERT", tree.etcd_ca().display().to_string()),
        ("ETCDCTL_CERT", pair.cert.display().to_string()),
        ("ETCDCTL_KEY", pair.key.display().to_string()),
    ];
    let lines: String = variables
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", shell_quoted(value)))
        .collect();
    files::replace(&dir.etcd_env(), files::PRIVATE, lines.as_bytes())
}

fn shell_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_path_stays_a_quote() {
        assert_eq!(shell_quoted("/it's"), r"'/it'\''s'");
    }
}
