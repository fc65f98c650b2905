//! Certificates: usable for what they are for, by OpenSSL's judgement, and refused everywhere else.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use crate::program::{barque, refusal, shell, stderr, stdout, success, text};

const AUTHORITIES: [&str; 3] = ["peer", "etcd", "kubernetes"];

fn verify(dir: &Path, ca: &str, purpose: &str, cert: &str) -> Output {
    let dir = text(dir);
    shell(&format!(
        "openssl verify -CAfile {dir}/{ca}/ca.crt -purpose {purpose} {dir}/{cert}"
    ))
}

fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = text(dir.path());
    success(&barque(&["pki", "init", "--dir", path]));
    let hosts = ["--host", "127.0.0.1", "--host", "db-1.example"];
    success(&barque(
        &[&["pki", "issue", "--dir", path, "--master", "m1"], &hosts[..]].concat(),
    ));
    let groups = ["--group", "readers", "--group", "writers"];
    success(&barque(
        &[&["pki", "issue", "--dir", path, "--user", "ann"], &groups[..]].concat(),
    ));
    success(&barque(&["pki", "issue", "--dir", path, "--etcd-user", "app"]));
    dir
}

#[test]
fn a_certificate_of_one_authority_is_refused_by_the_others() {
    let dir = made();
    let issued = [
        ("peer", "sslserver", "masters/m1/peer.crt"),
        ("peer", "sslclient", "masters/m1/peer.crt"),
        ("etcd", "sslserver", "masters/m1/etcd.crt"),
        ("etcd", "sslclient", "etcd-users/admin.crt"),
        ("etcd", "sslclient", "etcd-users/app.crt"),
        ("kubernetes", "sslserver", "masters/m1/api.crt"),
        ("kubernetes", "sslclient", "users/admin.crt"),
        ("kubernetes", "sslclient", "users/ann.crt"),
    ];
    for (issuer, purpose, cert) in issued {
        for ca in AUTHORITIES {
            let output = verify(dir.path(), ca, purpose, cert);
            assert_eq!(
                output.status.success(),
                ca == issuer,
                "{ca} {cert}: {}{}",
                stdout(&output),
                stderr(&output)
            );
        }
    }
}

#[test]
fn a_certificate_is_for_its_own_purpose_only() {
    let dir = made();
    for (ca, purpose, cert) in [
        ("etcd", "sslclient", "masters/m1/etcd.crt"),
        ("kubernetes", "sslclient", "masters/m1/api.crt"),
        ("etcd", "sslserver", "etcd-users/app.crt"),
        ("kubernetes", "sslserver", "users/ann.crt"),
    ] {
        let output = verify(dir.path(), ca, purpose, cert);
        assert!(!output.status.success(), "{purpose} {cert}: {}", stdout(&output));
    }
}

#[test]
fn names_and_groups() {
    let dir = made();
    let describe = |cert: &str| {
        success(&shell(&format!(
            "openssl x509 -noout -text -in {}/{cert}",
            text(dir.path())
        )))
    };
    let peer = describe("masters/m1/peer.crt");
    assert!(
        peer.contains("DNS:db-1.example") && peer.contains("IP Address:127.0.0.1"),
        "{peer}"
    );
    assert!(peer.contains("prime256v1"), "{peer}");
    assert!(describe("masters/m1/api.crt").contains("DNS:kubernetes.default.svc"));
    let ann = describe("users/ann.crt");
    assert!(
        ann.contains("O = readers") && ann.contains("O = writers") && ann.contains("CN = ann"),
        "{ann}"
    );
    assert!(describe("users/admin.crt").contains("O = system:masters, CN = admin"));
    let ca = describe("kubernetes/ca.crt");
    assert!(
        ca.contains("CA:TRUE, pathlen:0") && ca.contains("Certificate Sign"),
        "{ca}"
    );
}

#[test]
fn keys_are_private_and_nothing_is_overwritten_unasked() {
    let dir = made();
    let path = text(dir.path());
    for key in ["peer/ca.key", "users/ann.key", "masters/m1/peer.key"] {
        let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let mode = fs::metadata(dir.path().join("masters/m1"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);

    let before = fs::read(dir.path().join("peer/ca.key")).unwrap();
    for args in [
        &["init"][..],
        &["issue", "--user", "ann"],
        &["issue", "--master", "m1", "--host", "::1"],
    ] {
        let (code, line) = refusal(&barque(&[&["pki"], args, &["--dir", path]].concat()));
        assert!(
            code == 1 && line.contains("exists already (--force replaces it)"),
            "{line}"
        );
    }
    assert_eq!(fs::read(dir.path().join("peer/ca.key")).unwrap(), before);
    success(&barque(&[
        "pki", "issue", "--dir", path, "--user", "ann", "--force",
    ]));
}

#[test]
fn what_cannot_be_issued() {
    let dir = made();
    let issue = |args: &[&str]| {
        refusal(&barque(
            &[&["pki", "issue", "--dir", text(dir.path())], args].concat(),
        ))
    };
    for (args, why) in [
        (
            &["--user", "../evil"][..],
            "cannot be the name of a certificate's file",
        ),
        (
            &["--master", "m2", "--host", "not a name"],
            "neither an IP address nor a DNS name",
        ),
        (
            &["--user", "u", "--group", "a", "--group", "b", "--group", "c"],
            "at most 2 groups",
        ),
        (
            &["--user", "u", "--host", "127.0.0.1"],
            "--host goes with --master",
        ),
    ] {
        let (code, line) = issue(args);
        assert!(code == 1 && line.contains(why), "{line}");
    }
}
