//! The options of a master as an operator spells them: etcd's flags where etcd has them, Kubernetes' for the
//! API. One structure takes them from the command line, from `ETCD_*` variables and from a YAML file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    logging::{Format, Level},
    pki::MasterPaths,
    process::Tie,
};

/// Options given nowhere stay `None`; their defaults are set in one place, `Config::new`.
///
/// A flag wins over its environment variable, and both win over the file.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[command(
    after_help = "Every option may stand in the YAML file of --config-file under the same name. \
    Flags win over environment variables, those over the file."
)]
pub struct Flags {
    /// YAML file with any of these options, keyed by the flags' names
    #[arg(long, value_name = "FILE", env = "ETCD_CONFIG_FILE", help_heading = "Member")]
    #[serde(skip)]
    pub config_file: Option<PathBuf>,
    /// Name of this member [default: default]
    #[arg(long, env = "ETCD_NAME", help_heading = "Member")]
    pub name: Option<String>,
    /// Directory of the member's data [default: NAME.barque]
    #[arg(long, value_name = "DIR", env = "ETCD_DATA_DIR", help_heading = "Member")]
    pub data_dir: Option<PathBuf>,
    /// URLs to serve etcd clients on [default: http://localhost:2379]
    #[arg(
        long,
        value_name = "URLS",
        env = "ETCD_LISTEN_CLIENT_URLS",
        help_heading = "Member"
    )]
    pub listen_client_urls: Option<String>,
    /// Client URLs told to the rest of the cluster [default: http://localhost:2379]
    #[arg(
        long,
        value_name = "URLS",
        env = "ETCD_ADVERTISE_CLIENT_URLS",
        help_heading = "Member"
    )]
    pub advertise_client_urls: Option<String>,
    /// URLs to serve peers on [default: http://localhost:2380]
    #[arg(
        long,
        value_name = "URLS",
        env = "ETCD_LISTEN_PEER_URLS",
        help_heading = "Member"
    )]
    pub listen_peer_urls: Option<String>,
    /// URLs of additional plain listeners for /metrics and /health
    #[arg(
        long,
        value_name = "URLS",
        env = "ETCD_LISTEN_METRICS_URLS",
        help_heading = "Member"
    )]
    pub listen_metrics_urls: Option<String>,
    /// What `barque pki issue --master` made: the files of all the security options below, and client
    /// certificates required; clients and peers are served over https only then
    #[arg(long, value_name = "DIR", help_heading = "Member")]
    pub pki_dir: Option<PathBuf>,
    /// Write the process's id here
    #[arg(long, value_name = "FILE", help_heading = "Member")]
    pub pid_file: Option<PathBuf>,

    /// Peer URLs of this member as the cluster knows them [default: http://localhost:2380]
    #[arg(
        long,
        value_name = "URLS",
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        help_heading = "Cluster"
    )]
    pub initial_advertise_peer_urls: Option<String>,
    /// All members: name=URL,name=URL; a name with several URLs is repeated
    #[arg(
        long,
        value_name = "MEMBERS",
        env = "ETCD_INITIAL_CLUSTER",
        help_heading = "Cluster"
    )]
    pub initial_cluster: Option<String>,
    /// "new" to form a cluster, whose members all wait for one another at their very first start; "existing" to
    /// join one [default: new]
    #[arg(
        long,
        value_name = "STATE",
        env = "ETCD_INITIAL_CLUSTER_STATE",
        help_heading = "Cluster"
    )]
    pub initial_cluster_state: Option<String>,
    /// What tells this cluster from others with the same URLs [default: etcd-cluster]
    #[arg(
        long,
        value_name = "TOKEN",
        env = "ETCD_INITIAL_CLUSTER_TOKEN",
        help_heading = "Cluster"
    )]
    pub initial_cluster_token: Option<String>,
    /// Milliseconds between a leader's heartbeats [default: 100]
    #[arg(
        long,
        value_name = "MS",
        env = "ETCD_HEARTBEAT_INTERVAL",
        help_heading = "Cluster"
    )]
    pub heartbeat_interval: Option<u64>,
    /// Milliseconds without a heartbeat before a member stands for election [default: 1000]
    #[arg(
        long,
        value_name = "MS",
        env = "ETCD_ELECTION_TIMEOUT",
        help_heading = "Cluster"
    )]
    pub election_timeout: Option<u64>,
    /// Log entries kept for members that are behind; 0 means the default [default: 100000]
    #[arg(long, value_name = "N", env = "ETCD_SNAPSHOT_COUNT", help_heading = "Cluster")]
    pub snapshot_count: Option<u64>,
    /// Log bytes kept for members that are behind; 0 means the default [default: 268435456]
    #[arg(long, value_name = "BYTES", help_heading = "Cluster")]
    pub snapshot_bytes: Option<u64>,
    /// How often all members check all their rows and compare them; 0 is never [default: 12h]
    #[arg(
        long,
        visible_alias = "experimental-corrupt-check-time",
        value_name = "DURATION",
        env = "ETCD_CORRUPT_CHECK_TIME",
        help_heading = "Cluster"
    )]
    pub corrupt_check_time: Option<String>,
    /// How fast a snapshot is sent to a member that is behind; 0 is no limit [default: 104857600]
    #[arg(long, value_name = "BYTES", help_heading = "Cluster")]
    pub snapshot_bytes_per_second: Option<u64>,

    /// Certificate of the client listeners
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCD_CERT_FILE",
        help_heading = "Client security"
    )]
    pub cert_file: Option<PathBuf>,
    /// Its key
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCD_KEY_FILE",
        help_heading = "Client security"
    )]
    pub key_file: Option<PathBuf>,
    /// Require a certificate of every client
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", env = "ETCD_CLIENT_CERT_AUTH", help_heading = "Client security")]
    pub client_cert_auth: Option<bool>,
    /// The authority of clients' certificates
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCD_TRUSTED_CA_FILE",
        help_heading = "Client security"
    )]
    pub trusted_ca_file: Option<PathBuf>,

    /// Certificate shown to peers, as server and as client
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCD_PEER_CERT_FILE",
        help_heading = "Peer security"
    )]
    pub peer_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCD_PEER_KEY_FILE",
        help_heading = "Peer security"
    )]
    pub peer_key_file: Option<PathBuf>,
    /// Require a certificate of every peer
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", env = "ETCD_PEER_CLIENT_CERT_AUTH", help_heading = "Peer security")]
    pub peer_client_cert_auth: Option<bool>,
    /// The authority of peers' certificates
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCD_PEER_TRUSTED_CA_FILE",
        help_heading = "Peer security"
    )]
    pub peer_trusted_ca_file: Option<PathBuf>,

    /// Serve the Kubernetes API; --api=false makes this a pure datastore [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Kubernetes API")]
    pub api: Option<bool>,
    /// Where to serve the Kubernetes API: https URLs, or host:port [default: https://localhost:6443]
    #[arg(long, value_name = "URLS", help_heading = "Kubernetes API")]
    pub listen_api: Option<String>,
    /// Certificate of the Kubernetes API
    #[arg(
        long,
        value_name = "FILE",
        alias = "api-cert-file",
        help_heading = "Kubernetes API"
    )]
    #[serde(alias = "api-cert-file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(
        long,
        value_name = "FILE",
        alias = "api-key-file",
        help_heading = "Kubernetes API"
    )]
    #[serde(alias = "api-key-file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The authority of Kubernetes clients' certificates
    #[arg(
        long,
        value_name = "FILE",
        alias = "api-client-ca-file",
        help_heading = "Kubernetes API"
    )]
    #[serde(alias = "api-client-ca-file")]
    pub client_ca_file: Option<PathBuf>,
    /// Static bearer tokens: lines of token,user,uid,"group,group"
    #[arg(long, value_name = "FILE", help_heading = "Kubernetes API")]
    pub token_auth_file: Option<PathBuf>,
    /// Allow writes to the Kubernetes API's keys through the etcd API
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Kubernetes API")]
    pub api_allow_etcd_writes: Option<bool>,

    /// Refuse what grows, and raise the alarm NOSPACE, when so much of the database is in use; 0 is the default,
    /// less is no limit [default: 2147483648]
    #[arg(
        long,
        value_name = "BYTES",
        allow_negative_numbers = true,
        env = "ETCD_QUOTA_BACKEND_BYTES",
        help_heading = "Limits"
    )]
    pub quota_backend_bytes: Option<i64>,
    /// Most operations in a transaction [default: 128]
    #[arg(long, value_name = "N", env = "ETCD_MAX_TXN_OPS", help_heading = "Limits")]
    pub max_txn_ops: Option<u64>,
    /// Largest request, at most 33554432 [default: 1572864]
    #[arg(
        long,
        value_name = "BYTES",
        env = "ETCD_MAX_REQUEST_BYTES",
        help_heading = "Limits"
    )]
    pub max_request_bytes: Option<u64>,
    /// "periodic" or "revision" [default: periodic]
    #[arg(
        long,
        value_name = "MODE",
        env = "ETCD_AUTO_COMPACTION_MODE",
        help_heading = "Limits"
    )]
    pub auto_compaction_mode: Option<String>,
    /// A duration (hours when it has no unit) or a number of revisions; 0 is off [default: 0]
    #[arg(
        long,
        value_name = "RETENTION",
        env = "ETCD_AUTO_COMPACTION_RETENTION",
        help_heading = "Limits"
    )]
    pub auto_compaction_retention: Option<String>,
    /// How often an idle watch that asked for it is told how far it is, such as 10m [default: 10m]
    #[arg(
        long,
        visible_alias = "experimental-watch-progress-notify-interval",
        value_name = "DURATION",
        env = "ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL",
        help_heading = "Limits"
    )]
    pub watch_progress_notify_interval: Option<String>,
    /// Size of a file of the Raft log, a multiple of 4096 [default: 67108864]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub wal_segment_bytes: Option<u64>,
    /// Memory for recent events [default: 67108864]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub watch_ring_bytes: Option<u64>,
    /// Memory for the database's block cache [default: 134217728]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub block_cache_bytes: Option<u64>,

    /// Least severe lines that are logged [default: info]
    #[arg(long, value_name = "LEVEL", env = "ETCD_LOG_LEVEL", help_heading = "Logging")]
    pub log_level: Option<Level>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Logging")]
    pub log_format: Option<Format>,
    /// Taken for etcd's sake: "zap" is the only value, and changes nothing
    #[arg(
        long,
        value_name = "LOGGER",
        env = "ETCD_LOGGER",
        hide_short_help = true,
        help_heading = "Logging"
    )]
    pub logger: Option<String>,
    /// Taken for etcd's sake: "default" or "stderr", where the lines go anyway
    #[arg(
        long,
        value_name = "OUTPUTS",
        env = "ETCD_LOG_OUTPUTS",
        hide_short_help = true,
        help_heading = "Logging"
    )]
    pub log_outputs: Option<String>,

    #[arg(long, hide = true, value_parser = Tie::parse)]
    #[serde(skip)]
    pub tie: Option<Tie>,
}

impl Flags {
    /// Fills in from `--config-file` what neither flags nor environment gave.
    pub fn with_file(self) -> anyhow::Result<Flags> {
        let Some(path) = self.config_file.clone() else {
            return Ok(self);
        };
        let mut merged = read_file(&path)?;
        for (key, value) in given(&self)? {
            merged.insert(key, value);
        }
        let flags: Flags = serde_json::from_value(Value::Object(merged))?;
        Ok(Flags {
            config_file: Some(path),
            tie: self.tie,
            ..flags
        })
    }
}

impl Flags {
    /// Fills in what `--pki-dir` stands for; an option given by itself stays as it is. Listeners that nobody named are
    /// secure then, too.
    pub fn with_pki_dir(self) -> Flags {
        let Some(dir) = &self.pki_dir else { return self };
        let paths = MasterPaths::of(dir);
        let https = |port: u16| Some(format!("https://localhost:{port}"));
        let serves_by_default = self.listen_client_urls.is_none();
        // As in etcd, clients are asked for certificates as soon as an authority is known.
        let asks_clients = self.client_cert_auth.unwrap_or(true);
        Flags {
            listen_client_urls: self.listen_client_urls.or(https(2379)),
            advertise_client_urls: self
                .advertise_client_urls
                .or(https(2379).filter(|_| serves_by_default)),
            listen_peer_urls: self.listen_peer_urls.or(https(2380)),
            initial_advertise_peer_urls: self.initial_advertise_peer_urls.or(https(2380)),
            cert_file: self.cert_file.or(Some(paths.etcd.cert)),
            key_file: self.key_file.or(Some(paths.etcd.key)),
            trusted_ca_file: self.trusted_ca_file.or(asks_clients.then_some(paths.etcd_ca)),
            client_cert_auth: Some(asks_clients),
            peer_cert_file: self.peer_cert_file.or(Some(paths.peer.cert)),
            peer_key_file: self.peer_key_file.or(Some(paths.peer.key)),
            peer_trusted_ca_file: self.peer_trusted_ca_file.or(Some(paths.peer_ca)),
            peer_client_cert_auth: self.peer_client_cert_auth.or(Some(true)),
            tls_cert_file: self.tls_cert_file.or(Some(paths.api.cert)),
            tls_private_key_file: self.tls_private_key_file.or(Some(paths.api.key)),
            client_ca_file: self.client_ca_file.or(Some(paths.kubernetes_ca)),
            ..self
        }
    }
}

/// The options of a file, checked: an unknown one is an error that names it.
fn read_file(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let document: Value = serde_saphyr::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), first_line(&error.to_string())))?;
    let options = match document {
        Value::Object(options) => options,
        Value::Null => Map::new(),
        _ => bail!("{} is not a YAML mapping of options", path.display()),
    };
    let options = lift_sections(options).with_context(|| path.display().to_string())?;
    let flags: Flags = serde_json::from_value(Value::Object(options))
        .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), without_list(&error.to_string())))?;
    given(&flags)
}

/// etcd's file has its TLS options in two sections of their own; both spellings are taken here.
fn lift_sections(options: Map<String, Value>) -> anyhow::Result<Map<String, Value>> {
    let mut flat = Map::new();
    for (key, value) in options {
        let prefix = match key.as_str() {
            "client-transport-security" => "",
            "peer-transport-security" => "peer-",
            _ => {
                flat.insert(key.clone(), scalar(&key, value));
                continue;
            }
        };
        let Value::Object(section) = value else {
            bail!("{key} is not a mapping")
        };
        for (name, value) in section {
            if !["cert-file", "key-file", "client-cert-auth", "trusted-ca-file"].contains(&name.as_str()) {
                bail!("unknown field `{name}` in {key}");
            }
            flat.insert(format!("{prefix}{name}"), value);
        }
    }
    Ok(flat)
}

/// YAML reads `auto-compaction-retention: 1` and `name: 7` as numbers.
fn scalar(key: &str, value: Value) -> Value {
    match value {
        Value::Number(number)
            if ["auto-compaction-retention", "name", "initial-cluster-token"].contains(&key) =>
        {
            Value::String(number.to_string())
        }
        other => other,
    }
}

fn given(flags: &Flags) -> anyhow::Result<Map<String, Value>> {
    let Value::Object(mut all) = serde_json::to_value(flags)? else {
        bail!("options are not a mapping")
    };
    all.retain(|_, value| !value.is_null());
    Ok(all)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// serde's message ends with all the names that it would have known.
fn without_list(text: &str) -> &str {
    text.split(", expected one of").next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(yaml: &str) -> anyhow::Result<Flags> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("master.yaml");
        std::fs::write(&path, yaml)?;
        let config_file = Some(path);
        Flags {
            config_file,
            name: Some("from-flag".into()),
            ..Flags::default()
        }
        .with_file()
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let flags =
            file("name: from-file\ndata-dir: /d\nclient-cert-auth: true\nheartbeat-interval: 50\n").unwrap();
        assert_eq!(flags.name.as_deref(), Some("from-flag"));
        assert_eq!(flags.data_dir, Some("/d".into()));
        assert_eq!(
            (flags.client_cert_auth, flags.heartbeat_interval),
            (Some(true), Some(50))
        );
    }

    #[test]
    fn etcds_sections_are_the_flat_options() {
        let flags = file(
            "peer-transport-security:\n  cert-file: /p.crt\nclient-transport-security:\n  cert-file: /c.crt\n",
        );
        let flags = flags.unwrap();
        assert_eq!(
            (flags.cert_file, flags.peer_cert_file),
            (Some("/c.crt".into()), Some("/p.crt".into()))
        );
    }

    #[test]
    fn an_unknown_field_is_named() {
        for (yaml, named) in [
            ("nmae: x\n", "unknown field `nmae`"),
            (
                "client-transport-security:\n  auto-tls: true\n",
                "unknown field `auto-tls`",
            ),
            ("- a\n", "not a YAML mapping"),
            ("heartbeat-interval: soon\n", "invalid type"),
        ] {
            let error = format!("{:#}", file(yaml).unwrap_err());
            assert!(error.contains(named), "{yaml}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn numbers_where_text_is_wanted() {
        assert_eq!(
            file("auto-compaction-retention: 1\n")
                .unwrap()
                .auto_compaction_retention
                .as_deref(),
            Some("1")
        );
    }
}
