//! Each mistake is one clear line on stderr and a non-zero exit: 2 for the command line's form, 1 for the rest.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use crate::program::{barque, refusal, success, text};

#[track_caller]
fn refuses(args: &[&str], code: i32, why: &str) {
    let (found, line) = refusal(&barque(args));
    assert!(line.contains(why), "{args:?}: {line}");
    assert_eq!(found, code, "{args:?}: {line}");
}

/// `barque master` as a pure datastore with these arguments besides.
#[track_caller]
fn master_refuses(args: &[&str], why: &str) {
    refuses(&[&["master", "--api=false"], args].concat(), 1, why);
}

#[test]
fn the_form_of_the_command_line() {
    refuses(&[], 2, "a subcommand is missing");
    refuses(&["mastre"], 2, "unrecognized subcommand 'mastre'");
    refuses(
        &["master", "--no-such-flag"],
        2,
        "unexpected argument '--no-such-flag' found",
    );
    refuses(
        &["master", "--heartbeat-interval", "soon"],
        2,
        "invalid value 'soon'",
    );
    refuses(&["up", "--masters", "0"], 2, "invalid value '0'");
    refuses(&["proxy"], 2, "required arguments were not provided");
    refuses(
        &["pki", "issue", "--dir", "/d"],
        2,
        "required arguments were not provided",
    );
    refuses(
        &["status", "--cert", "c"],
        2,
        "required arguments were not provided",
    );
}

#[test]
fn help_and_version_are_no_mistakes() {
    assert!(success(&barque(&["master", "--help"])).contains("--initial-cluster-state"));
    assert!(success(&barque(&["version"])).starts_with("barque "));
    assert!(success(&barque(&["--version"])).starts_with("barque "));
}

#[test]
fn wrong_urls() {
    let client = |url| {
        [
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            "http://127.0.0.1:1",
        ]
    };
    master_refuses(
        &client("127.0.0.1:1"),
        "URL scheme must be http or https: 127.0.0.1:1",
    );
    master_refuses(&client("tcp://127.0.0.1:1"), "URL scheme must be http or https");
    master_refuses(
        &client("http://127.0.0.1"),
        "does not have the form \"host:port\"",
    );
    master_refuses(&client("http://127.0.0.1:1/v3"), "URL must not contain a path");
    master_refuses(
        &client("http://example.com:1"),
        "expected IP in URL for binding (http://example.com:1)",
    );
    master_refuses(&client(""), "--listen-client-urls has no URL");
    master_refuses(
        &["--listen-client-urls", "http://127.0.0.1:1"],
        "--advertise-client-urls is required when",
    );
    master_refuses(
        &["--advertise-client-urls", "http://0.0.0.0:1"],
        "no other machine can connect",
    );
}

#[test]
fn plain_urls_beside_a_directory_of_certificates() {
    let plain = "http://127.0.0.1:1";
    let client = ["--listen-client-urls", plain, "--advertise-client-urls", plain];
    master_refuses(
        &[&["--pki-dir", "/pki"], &client[..]].concat(),
        "--listen-client-urls has http://127.0.0.1:1, which no certificate of --pki-dir would protect",
    );
}

#[test]
fn a_cluster_that_does_not_add_up() {
    master_refuses(
        &["--name", "a", "--initial-cluster", "b=http://127.0.0.1:1"],
        "couldn't find local name \"a\"",
    );
    let args = ["--name", "a", "--initial-cluster", "a=http://127.0.0.1:1"];
    master_refuses(
        &args,
        "--initial-cluster must include a=http://localhost:2380 given by --initial-advertise-peer-urls",
    );
    master_refuses(&["--initial-cluster", "a"], "a member is NAME=URL");
    master_refuses(
        &["--initial-cluster-state", "old"],
        "for --initial-cluster-state: new or existing",
    );
    master_refuses(&["--name", "a=b"], "cannot be a member's name");
    master_refuses(
        &["--election-timeout", "200"],
        "should be at least as 5 times as --heartbeat-interval[100ms]",
    );
    master_refuses(
        &["--auto-compaction-retention", "long"],
        "for --auto-compaction-retention",
    );
    master_refuses(
        &["--auto-compaction-mode", "never"],
        "unsupported compaction mode never",
    );
    master_refuses(
        &[
            "--max-request-bytes",
            "536870912",
            "--wal-segment-bytes",
            "1073741824",
        ],
        "--max-request-bytes must be at most 33554432",
    );
    refuses(&["master"], 1, "--api=false makes this a pure datastore");
    refuses(
        &["master", "--api=false", "--listen-api", "127.0.0.1:1"],
        1,
        "contradicts",
    );
    refuses(
        &["master", "--listen-api", "http://127.0.0.1:1"],
        1,
        "served over https only",
    );
}

#[test]
fn configuration_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.yaml");
    let file = |content: &str| {
        fs::write(&path, content).unwrap();
        ["--config-file", text(&path)].map(str::to_owned)
    };
    for (content, why) in [
        ("nmae: a\n", "unknown field `nmae`"),
        ("name: [\n", "master.yaml"),
        ("- name\n", "not a YAML mapping"),
        ("heartbeat-interval: soon\n", "invalid type"),
        ("listen-client-urls: ftp://127.0.0.1:1\n", "URL scheme must be"),
    ] {
        let args = file(content);
        master_refuses(&[&args[0], &args[1]], why);
    }
    master_refuses(
        &["--config-file", "/no/such/file"],
        "read /no/such/file: No such file or directory",
    );
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.yaml");
    fs::write(
        &path,
        "name: of-the-file\napi: false\ninitial-cluster: x=http://127.0.0.1:1\n",
    )
    .unwrap();
    refuses(
        &["master", "--config-file", text(&path)],
        1,
        "couldn't find local name \"of-the-file\"",
    );
    let args = ["master", "--config-file", text(&path), "--name", "of-the-flag"];
    refuses(&args, 1, "couldn't find local name \"of-the-flag\"");
}

#[test]
fn a_busy_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("http://{address}");
    let args = [
        "--data-dir",
        text(dir.path()),
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
    ];
    let peers = ["--listen-peer-urls", "http://127.0.0.1:0"];
    master_refuses(
        &[&args[..], &peers].concat(),
        &format!("listen tcp {address}: bind: address already in use"),
    );
    let proxy = [
        "proxy",
        "--listen",
        &address.to_string(),
        "--backend",
        "127.0.0.1:1",
        "--log-level",
        "error",
    ];
    refuses(
        &proxy,
        1,
        &format!("listen tcp {address}: bind: address already in use"),
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing may be written before the ports are there"
    );
}

#[test]
fn certificates_and_keys() {
    let dir = tempfile::tempdir().unwrap();
    let pki = text(dir.path());
    success(&barque(&["pki", "init", "--dir", pki]));
    success(&barque(&[
        "pki",
        "issue",
        "--dir",
        pki,
        "--master",
        "a",
        "--host",
        "127.0.0.1",
    ]));
    success(&barque(&[
        "pki",
        "issue",
        "--dir",
        pki,
        "--master",
        "b",
        "--host",
        "127.0.0.1",
    ]));
    let a = dir.path().join("masters/a");
    let (cert, key, ca) = (a.join("etcd.crt"), a.join("etcd.key"), a.join("etcd-ca.crt"));
    let (cert, key, ca) = (text(&cert), text(&key), text(&ca));
    let https = [
        "--listen-client-urls",
        "https://127.0.0.1:1",
        "--advertise-client-urls",
        "https://127.0.0.1:1",
    ];
    let refuses = |args: &[&str], why: &str| master_refuses(&[&https[..], args].concat(), why);

    refuses(&[], "https://127.0.0.1:1 needs --cert-file and --key-file");
    refuses(&["--cert-file", cert], "--cert-file and --key-file go together");
    refuses(
        &["--cert-file", cert, "--key-file", key, "--client-cert-auth"],
        "--client-cert-auth needs --trusted-ca-file",
    );
    refuses(
        &["--cert-file", "/no/such", "--key-file", key],
        "read certificate /no/such",
    );
    refuses(
        &["--cert-file", cert, "--key-file", "/no/such"],
        "read key /no/such",
    );
    refuses(&["--cert-file", cert, "--key-file", cert], "is open to everybody");
    refuses(
        &["--cert-file", cert, "--key-file", key, "--trusted-ca-file", key],
        "holds no certificate",
    );
    let other = dir.path().join("masters/b/etcd.key");
    refuses(
        &["--cert-file", cert, "--key-file", text(&other)],
        "do not go together",
    );
    let peers = [
        "--initial-cluster",
        "default=https://127.0.0.1:2",
        "--initial-advertise-peer-urls",
        "https://127.0.0.1:2",
    ];
    master_refuses(
        &[&peers[..], &["--listen-peer-urls", "https://127.0.0.1:2"]].concat(),
        "needs --peer-cert-file",
    );
    master_refuses(&peers, "peer listeners speak http://");

    open_to_everybody(Path::new(key));
    refuses(
        &["--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca],
        "(mode 0644); chmod 600 it",
    );
}

fn open_to_everybody(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn directories_without_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(dir.path());
    refuses(&["status", "--dir", path], 1, "no cluster in");
    refuses(&["down", "--dir", path, "--purge"], 1, "no cluster in");
    refuses(&["proxy", "--dir", path], 1, "no cluster in");
    refuses(
        &["down", "--dir", "/no/such/dir"],
        1,
        "open directory /no/such/dir",
    );
    refuses(
        &["pki", "issue", "--dir", path, "--user", "u"],
        1,
        "is this a directory of `barque pki init`?",
    );
    assert!(dir.path().exists());
}
