//! A master's configuration, validated once: what the rest of the process may take for granted.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use barque_replica::PeerTls;
use rustls::ServerConfig;

use super::{
    Flags, membership,
    tokens::{self, Holder},
};
use crate::{
    logging::{Format, Level},
    tls::{self, ClientCertificates},
    urls::{self, Url},
};

const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";
pub const DEFAULT_PEER_URL: &str = "http://localhost:2380";
const DEFAULT_API_URL: &str = "https://localhost:6443";
/// What etcd adds to twice the election timeout for its own requests.
const CORRUPT_CHECK_TIME_MIN: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT_BASE: Duration = Duration::from_secs(5);
/// etcd's.
const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;
/// An entry of the log and a message between members hold 64 MiB.
const LARGEST_REQUEST_BYTES: usize = 32 << 20;
/// Commands for one log entry are gathered up to this.
const BATCH_BYTES: usize = 4 << 20;
/// What a request may grow by when it becomes a batch of its own.
const BATCH_ENVELOPE_BYTES: usize = 64 << 10;

pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub client: Serving,
    pub advertise_client_urls: Vec<String>,
    pub peer_urls: Vec<Url>,
    pub peer_tls: Option<PeerTls>,
    pub metrics: Serving,
    pub api: Option<Api>,
    pub initial_cluster: Vec<barque_replica::MemberConfig>,
    pub initial_cluster_token: String,
    pub new_cluster: bool,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub request_timeout: Duration,
    pub snapshot_entries: u64,
    pub snapshot_bytes: u64,
    pub snapshot_bytes_per_second: u64,
    /// 0: never.
    pub scrub_every: Duration,
    pub limits: Limits,
    pub compaction: AutoCompaction,
    /// What is taken as it was given and was hardly meant; for the log.
    pub warnings: Vec<String>,
    pub log_level: Level,
    pub log_format: Format,
}

/// Listeners that share one certificate.
pub struct Serving {
    pub urls: Vec<Url>,
    /// Used for the https URLs among them.
    pub tls: Option<Arc<ServerConfig>>,
}

pub struct Api {
    pub serving: Serving,
    pub tokens: HashMap<String, Holder>,
    pub allow_etcd_writes: bool,
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// 0: no limit.
    pub quota_backend_bytes: u64,
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    pub watch_ring_bytes: usize,
    pub block_cache_bytes: usize,
    pub watch_progress_notify_interval: Duration,
    pub wal_segment_bytes: u64,
}

impl Limits {
    /// The largest batch of commands in one log entry. A request of the largest size always fits in, and the
    /// entry fits a file of the log.
    pub fn batch_bytes(&self) -> usize {
        let segment = self.wal_segment_bytes as usize;
        let largest_request = self.max_request_bytes + BATCH_ENVELOPE_BYTES.min(segment / 4);
        BATCH_BYTES.min(segment / 2).max(largest_request)
    }
}

/// What the keyspace forgets by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    Off,
    /// Revisions older than this.
    Periodic(Duration),
    /// All but so many revisions.
    Revisions(i64),
}

impl Config {
    pub fn new(flags: Flags) -> anyhow::Result<Config> {
        let flags = flags.with_file()?.with_pki_dir();
        let name = flags.name.clone().unwrap_or_else(|| "default".to_owned());
        if name.is_empty() || name.contains([',', '=']) {
            bail!("--name \"{name}\" cannot be a member's name");
        }
        let (heartbeat_interval, election_timeout) = timers(&flags)?;
        let client = client_serving(&flags)?;
        let metrics = metrics_serving(&flags, &client)?;
        let peer_urls = list(&flags.listen_peer_urls, "listen-peer-urls", DEFAULT_PEER_URL)?;
        refuse_plain_urls(&flags, &client.urls, &peer_urls)?;
        let peer_tls = peer_tls(&flags, &peer_urls)?;
        let initial_cluster = membership::initial_cluster(&flags, &name, peer_tls.is_some())?;
        check_loggers(&flags)?;
        let warnings = plain_url_warnings(&flags, &client.urls, &peer_urls);
        Ok(Config {
            data_dir: flags
                .data_dir
                .clone()
                .unwrap_or_else(|| format!("{name}.barque").into()),
            pid_file: flags.pid_file.clone(),
            advertise_client_urls: advertise_client_urls(&flags)?,
            client,
            peer_urls,
            peer_tls,
            metrics,
            api: api(&flags)?,
            initial_cluster,
            initial_cluster_token: flags
                .initial_cluster_token
                .clone()
                .unwrap_or_else(|| "etcd-cluster".to_owned()),
            new_cluster: new_cluster(&flags)?,
            heartbeat_interval,
            election_timeout,
            request_timeout: REQUEST_TIMEOUT_BASE + 2 * election_timeout,
            snapshot_entries: above_0(flags.snapshot_count, 100_000),
            snapshot_bytes: above_0(flags.snapshot_bytes, 256 << 20),
            snapshot_bytes_per_second: flags.snapshot_bytes_per_second.unwrap_or(100 << 20),
            scrub_every: scrub_every(&flags)?,
            limits: limits(&flags)?,
            compaction: auto_compaction(&flags)?,
            warnings,
            log_level: flags.log_level.unwrap_or_default(),
            log_format: flags.log_format.unwrap_or_default(),
            name,
        })
    }
}

/// As etcd takes 0 where it could only do harm.
fn above_0(given: Option<u64>, default: u64) -> u64 {
    given.filter(|given| *given > 0).unwrap_or(default)
}

/// Who gives a directory of certificates wants them used.
fn refuse_plain_urls(flags: &Flags, client: &[Url], peer: &[Url]) -> anyhow::Result<()> {
    if flags.pki_dir.is_none() {
        return Ok(());
    }
    for (flag, urls) in [("listen-client-urls", client), ("listen-peer-urls", peer)] {
        if let Some(url) = urls.iter().find(|url| !url.https) {
            bail!("--{flag} has {url}, which no certificate of --pki-dir would protect: it must be https");
        }
    }
    Ok(())
}

/// etcd serves http URLs beside certificate files, too, and says so.
fn plain_url_warnings(flags: &Flags, client: &[Url], peer: &[Url]) -> Vec<String> {
    let plain = |urls: &[Url], given: bool, options: &'static str| {
        let plain = urls.iter().filter(move |url| given && !url.https);
        plain
            .map(move |url| format!("{url} is served in plain text, and {options} are not used for it"))
            .collect::<Vec<_>>()
    };
    let client_given = flags.cert_file.is_some() || flags.trusted_ca_file.is_some();
    let peer_given = flags.peer_cert_file.is_some() || flags.peer_trusted_ca_file.is_some();
    let mut warnings = plain(
        client,
        client_given,
        "--cert-file, --key-file and --client-cert-auth",
    );
    warnings.extend(plain(
        peer,
        peer_given,
        "--peer-cert-file, --peer-key-file and --peer-client-cert-auth",
    ));
    warnings
}

fn timers(flags: &Flags) -> anyhow::Result<(Duration, Duration)> {
    let heartbeat_ms = flags.heartbeat_interval.unwrap_or(100);
    let election_ms = flags.election_timeout.unwrap_or(1000);
    if heartbeat_ms == 0 {
        bail!("--heartbeat-interval must be >0 (set to 0ms)");
    }
    if 5 * heartbeat_ms > election_ms {
        bail!(
            "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
        );
    }
    if election_ms > 50_000 {
        bail!("--election-timeout[{election_ms}ms] is too long, and should be set less than 50000ms");
    }
    Ok((
        Duration::from_millis(heartbeat_ms),
        Duration::from_millis(election_ms),
    ))
}

fn client_serving(flags: &Flags) -> anyhow::Result<Serving> {
    let urls = list(
        &flags.listen_client_urls,
        "listen-client-urls",
        DEFAULT_CLIENT_URL,
    )?;
    let required = flags.client_cert_auth.unwrap_or(false);
    let clients = match (&flags.trusted_ca_file, required) {
        // etcd asks for certificates as soon as it knows whom to trust.
        (Some(ca), _) => ClientCertificates::Required(ca),
        (None, true) => bail!("--client-cert-auth needs --trusted-ca-file"),
        (None, false) => ClientCertificates::Ignored,
    };
    let pair = Pair {
        cert: ("cert-file", &flags.cert_file),
        key: ("key-file", &flags.key_file),
    };
    let tls = pair.server(&urls, clients)?;
    Ok(Serving { urls, tls })
}

fn metrics_serving(flags: &Flags, client: &Serving) -> anyhow::Result<Serving> {
    let Some(list) = &flags.listen_metrics_urls else {
        return Ok(Serving {
            urls: Vec::new(),
            tls: None,
        });
    };
    let urls = urls::parse_list("listen-metrics-urls", list)?;
    for url in urls.iter().filter(|url| url.https) {
        if client.tls.is_none() {
            bail!(
                "--listen-metrics-urls has {url}, and there is no --cert-file and --key-file to serve it with"
            );
        }
    }
    check_bindable(&urls)?;
    Ok(Serving {
        urls,
        tls: client.tls.clone(),
    })
}

fn peer_tls(flags: &Flags, urls: &[Url]) -> anyhow::Result<Option<PeerTls>> {
    let required = flags.peer_client_cert_auth.unwrap_or(false);
    let pair = Pair {
        cert: ("peer-cert-file", &flags.peer_cert_file),
        key: ("peer-key-file", &flags.peer_key_file),
    };
    let clients = match (&flags.peer_trusted_ca_file, required) {
        (Some(ca), _) => ClientCertificates::Required(ca),
        (None, true) => bail!("--peer-client-cert-auth needs --peer-trusted-ca-file"),
        (None, false) => ClientCertificates::Ignored,
    };
    let Some(server) = pair.server(urls, clients)? else {
        return Ok(None);
    };
    let Some(ca) = &flags.peer_trusted_ca_file else {
        bail!("https peer URLs need --peer-trusted-ca-file: a member must know which peers to trust")
    };
    if urls.iter().any(|url| !url.https) {
        bail!("--listen-peer-urls mixes http and https");
    }
    let client = tls::client(ca, pair.both(), &[b"h2"])?;
    Ok(Some(PeerTls { server, client }))
}

fn advertise_client_urls(flags: &Flags) -> anyhow::Result<Vec<String>> {
    if flags.listen_client_urls.is_some() && flags.advertise_client_urls.is_none() {
        bail!("--advertise-client-urls is required when --listen-client-urls is set explicitly");
    }
    let text = flags
        .advertise_client_urls
        .as_deref()
        .unwrap_or(DEFAULT_CLIENT_URL);
    let urls = urls::parse_list("advertise-client-urls", text)?;
    if let Some(url) = urls.iter().find(|url| url.host == "0.0.0.0" || url.host == "::") {
        bail!("--advertise-client-urls has {url}, which no other machine can connect to");
    }
    Ok(urls.iter().map(Url::to_string).collect())
}

fn api(flags: &Flags) -> anyhow::Result<Option<Api>> {
    if !flags.api.unwrap_or(true) {
        if flags.listen_api.is_some() {
            bail!("--listen-api contradicts --api=false");
        }
        return Ok(None);
    }
    let text = flags.listen_api.as_deref().unwrap_or(DEFAULT_API_URL);
    let urls: anyhow::Result<Vec<Url>> = text.split(',').map(Url::parse_or_host_port).collect();
    let urls = urls.with_context(|| format!("invalid value \"{text}\" for --listen-api"))?;
    if let Some(url) = urls.iter().find(|url| !url.https) {
        bail!("--listen-api has {url}: the Kubernetes API is served over https only");
    }
    if flags.tls_cert_file.is_none() || flags.tls_private_key_file.is_none() {
        bail!(
            "the Kubernetes API needs --tls-cert-file and --tls-private-key-file (barque pki makes them); \
             --api=false makes this a pure datastore"
        );
    }
    let clients = match &flags.client_ca_file {
        Some(ca) => ClientCertificates::Optional(ca),
        None if flags.token_auth_file.is_some() => ClientCertificates::Ignored,
        None => bail!("the Kubernetes API needs --client-ca-file or --token-auth-file: nobody could use it"),
    };
    let pair = Pair {
        cert: ("tls-cert-file", &flags.tls_cert_file),
        key: ("tls-private-key-file", &flags.tls_private_key_file),
    };
    let tls = pair.server(&urls, clients)?;
    Ok(Some(Api {
        serving: Serving { urls, tls },
        tokens: flags
            .token_auth_file
            .as_deref()
            .map(tokens::read)
            .transpose()?
            .unwrap_or_default(),
        allow_etcd_writes: flags.api_allow_etcd_writes.unwrap_or(false),
    }))
}

fn limits(flags: &Flags) -> anyhow::Result<Limits> {
    let size = |value: Option<u64>, default: u64| {
        usize::try_from(value.unwrap_or(default)).context("a size that this machine cannot count")
    };
    let limits = Limits {
        quota_backend_bytes: quota_backend_bytes(flags),
        max_txn_ops: size(flags.max_txn_ops, 128)?,
        max_request_bytes: size(flags.max_request_bytes, 1536 * 1024)?,
        watch_ring_bytes: size(flags.watch_ring_bytes, 64 << 20)?,
        block_cache_bytes: size(flags.block_cache_bytes, 128 << 20)?,
        watch_progress_notify_interval: progress_interval(flags)?,
        wal_segment_bytes: flags.wal_segment_bytes.unwrap_or(64 << 20),
    };
    if limits.max_txn_ops == 0 || limits.max_request_bytes == 0 {
        bail!("--max-txn-ops and --max-request-bytes must be above 0");
    }
    let segment = limits.wal_segment_bytes;
    if !segment.is_multiple_of(4096) || !(64 << 10..=1 << 30).contains(&segment) {
        bail!("--wal-segment-bytes must be a multiple of 4096 from 65536 to 1073741824, not {segment}");
    }
    if limits.max_request_bytes > LARGEST_REQUEST_BYTES {
        bail!(
            "--max-request-bytes must be at most {LARGEST_REQUEST_BYTES}, as the log and the messages between \
             members carry no more, not {}",
            limits.max_request_bytes
        );
    }
    // A request is one log entry at most, and that lies within one file.
    if limits.max_request_bytes as u64 > segment / 2 {
        bail!(
            "--max-request-bytes must be at most half of --wal-segment-bytes, that is {}, not {}",
            segment / 2,
            limits.max_request_bytes
        );
    }
    Ok(limits)
}

/// As etcd has it: 0 is the default, and less is no limit.
fn quota_backend_bytes(flags: &Flags) -> u64 {
    match flags.quota_backend_bytes {
        None | Some(0) => DEFAULT_QUOTA_BYTES,
        Some(bytes) => u64::try_from(bytes).unwrap_or(0),
    }
}

fn progress_interval(flags: &Flags) -> anyhow::Result<Duration> {
    let text = flags.watch_progress_notify_interval.as_deref().unwrap_or("10m");
    let wrong = || format!("invalid value \"{text}\" for --watch-progress-notify-interval");
    let interval = humantime::parse_duration(text).with_context(wrong)?;
    if interval < Duration::from_millis(100) {
        bail!("--watch-progress-notify-interval must be at least 100ms, not {text}");
    }
    Ok(interval)
}

/// etcd's flag, which is off there by default. Here the check reads slowly and is on: twice a day finds what went bad
/// while the other members can still mend it.
fn scrub_every(flags: &Flags) -> anyhow::Result<Duration> {
    let text = flags.corrupt_check_time.as_deref().unwrap_or("12h");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let every = humantime::parse_duration(text)
        .with_context(|| format!("invalid value \"{text}\" for --corrupt-check-time"))?;
    if !every.is_zero() && every < CORRUPT_CHECK_TIME_MIN {
        bail!("--corrupt-check-time must be 0 or at least 1s, not {text}");
    }
    Ok(every)
}

fn auto_compaction(flags: &Flags) -> anyhow::Result<AutoCompaction> {
    let mode = flags.auto_compaction_mode.as_deref().unwrap_or("periodic");
    let text = flags.auto_compaction_retention.as_deref().unwrap_or("0");
    let wrong = || format!("invalid value \"{text}\" for --auto-compaction-retention");
    match mode {
        "revision" => match text.parse::<i64>().with_context(wrong)? {
            0 => Ok(AutoCompaction::Off),
            revisions if revisions > 0 => Ok(AutoCompaction::Revisions(revisions)),
            _ => bail!("{}", wrong()),
        },
        "periodic" => {
            // etcd: a bare number means hours.
            let period = match text.parse::<u64>() {
                Ok(hours) => Duration::from_secs(hours.checked_mul(3600).with_context(wrong)?),
                Err(_) => humantime::parse_duration(text).with_context(wrong)?,
            };
            Ok(if period.is_zero() {
                AutoCompaction::Off
            } else {
                AutoCompaction::Periodic(period)
            })
        }
        other => bail!("unsupported compaction mode {other}: periodic or revision"),
    }
}

fn new_cluster(flags: &Flags) -> anyhow::Result<bool> {
    match flags.initial_cluster_state.as_deref().unwrap_or("new") {
        "new" => Ok(true),
        "existing" => Ok(false),
        other => bail!("invalid value \"{other}\" for --initial-cluster-state: new or existing"),
    }
}

fn check_loggers(flags: &Flags) -> anyhow::Result<()> {
    if flags.logger.as_deref().is_some_and(|logger| logger != "zap") {
        bail!("--logger knows \"zap\" only");
    }
    if flags
        .log_outputs
        .as_deref()
        .is_some_and(|outputs| !["default", "stderr"].contains(&outputs))
    {
        bail!("--log-outputs knows \"default\" and \"stderr\" only");
    }
    Ok(())
}

fn list(given: &Option<String>, flag: &str, default: &str) -> anyhow::Result<Vec<Url>> {
    let urls = urls::parse_list(flag, given.as_deref().unwrap_or(default))?;
    check_bindable(&urls).with_context(|| format!("--{flag}"))?;
    Ok(urls)
}

fn check_bindable(urls: &[Url]) -> anyhow::Result<()> {
    urls.iter().try_for_each(|url| url.bind_address().map(drop))
}

/// A certificate and its key by the flags that give them, so that errors can name those.
struct Pair<'a> {
    cert: (&'a str, &'a Option<PathBuf>),
    key: (&'a str, &'a Option<PathBuf>),
}

impl<'a> Pair<'a> {
    fn both(&self) -> Option<(&'a Path, &'a Path)> {
        Some((self.cert.1.as_deref()?, self.key.1.as_deref()?))
    }

    /// What serves the https URLs; `None` when there are none. Half a pair is a mistake either way.
    fn server(
        &self,
        urls: &[Url],
        clients: ClientCertificates<'_>,
    ) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        let (cert_flag, key_flag) = (self.cert.0, self.key.0);
        if self.cert.1.is_some() != self.key.1.is_some() {
            bail!("--{cert_flag} and --{key_flag} go together");
        }
        let Some(https) = urls.iter().find(|url| url.https) else {
            return Ok(None);
        };
        let Some((cert, key)) = self.both() else {
            bail!("{https} needs --{cert_flag} and --{key_flag}")
        };
        tls::server(cert, key, clients).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_etcds() {
        for (given, bytes) in [
            (None, 2 << 30),
            (Some(0), 2 << 30),
            (Some(-1), 0),
            (Some(4 << 20), 4 << 20),
        ] {
            let flags = Flags {
                quota_backend_bytes: given,
                ..Flags::default()
            };
            assert_eq!(limits(&flags).unwrap().quota_backend_bytes, bytes, "{given:?}");
        }
    }

    fn plain(pki_dir: bool, cert_file: bool) -> (bool, usize) {
        let flags = Flags {
            pki_dir: pki_dir.then(|| "/pki".into()),
            cert_file: cert_file.then(|| "/cert".into()),
            ..Flags::default()
        };
        let client = ["http://127.0.0.1:1", "https://127.0.0.1:2"].map(|url| Url::parse(url).unwrap());
        let peer = [Url::parse("http://127.0.0.1:3").unwrap()];
        let refused = refuse_plain_urls(&flags, &client, &peer).is_err();
        (refused, plain_url_warnings(&flags, &client, &peer).len())
    }

    #[test]
    fn plain_urls_beside_certificates_are_told_of_and_beside_a_directory_of_them_refused() {
        assert_eq!(plain(false, false), (false, 0));
        assert_eq!(plain(false, true), (false, 1));
        assert!(plain(true, true).0);
    }

    #[test]
    fn a_directory_of_certificates_makes_the_defaults_secure() {
        let flags = |client_cert_auth| {
            let flags = Flags {
                pki_dir: Some("/pki".into()),
                client_cert_auth,
                ..Flags::default()
            };
            flags.with_pki_dir()
        };
        let filled = flags(None);
        let urls = [
            &filled.listen_client_urls,
            &filled.advertise_client_urls,
            &filled.listen_peer_urls,
            &filled.initial_advertise_peer_urls,
        ];
        for url in urls {
            assert!(
                url.as_deref()
                    .is_some_and(|url| url.starts_with("https://localhost:23"))
            );
        }
        assert!(filled.trusted_ca_file.is_some());
        assert_eq!(flags(Some(false)).trusted_ca_file, None);
    }

    #[test]
    fn a_log_of_nothing_is_the_default() {
        assert_eq!(
            [None, Some(0), Some(7)].map(|given| above_0(given, 100)),
            [100, 100, 7]
        );
    }

    fn sizes(request: u64, segment: u64) -> anyhow::Result<Limits> {
        limits(&Flags {
            max_request_bytes: Some(request),
            wal_segment_bytes: Some(segment),
            ..Flags::default()
        })
    }

    #[test]
    fn requests_that_nothing_carries_are_refused() {
        let refusal = |request, segment| sizes(request, segment).unwrap_err().to_string();
        assert_eq!(
            refusal((32 << 20) + 1, 1 << 30),
            "--max-request-bytes must be at most 33554432, as the log and the messages between members carry no \
             more, not 33554433"
        );
        assert_eq!(
            refusal(40 << 10, 64 << 10),
            "--max-request-bytes must be at most half of --wal-segment-bytes, that is 32768, not 40960"
        );
    }

    #[test]
    fn a_batch_holds_the_largest_request_and_fits_the_log() {
        for (request, segment, batch) in [
            (1536 << 10, 64 << 20, 4 << 20),
            (4 << 20, 64 << 20, (4 << 20) + (64 << 10)),
            (32 << 20, 64 << 20, (32 << 20) + (64 << 10)),
            (32 << 20, 1 << 30, (32 << 20) + (64 << 10)),
            (32 << 10, 64 << 10, 48 << 10),
            (1 << 10, 64 << 10, 32 << 10),
        ] {
            let limits = sizes(request, segment).unwrap();
            assert_eq!(limits.batch_bytes(), batch, "{request} {segment}");
            let log = barque_replica::WalConfig {
                segment_bytes: segment,
                ..barque_replica::WalConfig::default()
            };
            assert!(batch <= log.max_entry_bytes(), "{request} {segment}");
        }
    }
}
