//! Debian's etcdctl against ours prints what it prints against Debian's etcd, once ids, addresses and the like are
//! masked. Revisions are not: both start from an empty store.

use std::time::Duration;

use barque_chaos::cluster::{Cluster, Etcdctl, Kind, Options};

/// Arguments, standard input. `LEASE` stands for the lease granted last.
const SESSION: &[(&str, &str)] = &[
    ("put k v", ""),
    ("get k", ""),
    ("get k --write-out=fields", ""),
    ("get k --print-value-only", ""),
    ("get absent", ""),
    ("put k v2 --prev-kv", ""),
    ("put k --ignore-value", ""),
    ("put absent --ignore-value", ""),
    ("put a/1 one", ""),
    ("put a/2 two", ""),
    ("put a/3 three", ""),
    ("get a/ --prefix", ""),
    ("get a/ --prefix --keys-only", ""),
    ("get a/ --prefix --limit=2", ""),
    ("get a/ --prefix --sort-by=MODIFY --order=DESCEND", ""),
    ("get a/ --prefix --count-only --write-out=fields", ""),
    ("get a/2 a/9", ""),
    ("get a/2 --from-key", ""),
    ("get k --rev=2", ""),
    ("get k --rev=9999", ""),
    ("get k --consistency=s", ""),
    ("del a/1 --prev-kv", ""),
    ("del a/ --prefix", ""),
    ("del absent", ""),
    ("txn", "mod(\"k\") > \"0\"\n\nput k then\nget k\n\nput k else\n\n"),
    (
        "txn",
        "value(\"k\") = \"nothing\"\n\nput k then\n\nput k else\nget k\n\n",
    ),
    (
        "txn",
        "create(\"new\") = \"0\"\n\nput new 1\ndel k\n\nget new\n\n",
    ),
    ("lease grant 600", ""),
    ("put leased v --lease=LEASE", ""),
    ("put leased v --lease=1234", ""),
    ("lease timetolive LEASE", ""),
    ("lease timetolive LEASE --keys", ""),
    ("lease keep-alive LEASE --once", ""),
    ("lease list", ""),
    ("lease revoke LEASE", ""),
    ("lease revoke LEASE", ""),
    ("lease timetolive LEASE", ""),
    ("get leased", ""),
    ("compact 5", ""),
    ("compact 5", ""),
    ("compact 9999", ""),
    ("get k --rev=3", ""),
    ("member list", ""),
    ("member list --write-out=fields", ""),
    ("endpoint status", ""),
    ("endpoint health", ""),
    ("endpoint hashkv", ""),
    ("put", ""),
];

struct Session {
    etcdctl: Etcdctl,
    lease: String,
}

impl Session {
    /// What one command printed, masked: exit code, standard output, and the error that a person would read.
    async fn run(&mut self, command: &str, input: &str) -> String {
        let command = command.replace("LEASE", &self.lease);
        let arguments: Vec<&str> = command.split(' ').collect();
        let output = self.etcdctl.run_with_input(&arguments, input).await.unwrap();
        if let Some(granted) = output
            .stdout
            .strip_prefix("lease ")
            .filter(|_| command.starts_with("lease grant"))
        {
            self.lease = granted.split(' ').next().expect("an id").to_owned();
        }
        let errors: Vec<&str> = output
            .stderr
            .lines()
            .filter(|line| !line.starts_with('{'))
            .collect();
        let text = format!(
            "{:?}\n{}{}",
            output.status.code(),
            output.stdout,
            errors.join("\n")
        );
        text.lines().map(masked).collect::<Vec<_>>().join("\n")
    }
}

/// Words that differ between any two clusters give way to what they are.
fn masked(line: &str) -> String {
    let words = line.split_inclusive([' ', ',', '"', '(', ')']).map(|piece| {
        let cut = piece.trim_end_matches([' ', ',', '"', '(', ')']);
        format!("{}{}", kind_of(cut).unwrap_or(cut), &piece[cut.len()..])
    });
    let line: String = words.collect();
    // Sizes, versions, and Raft's own numbers of `endpoint status`; its two booleans stay.
    if line.starts_with("ADDRESS, ID, ") {
        let kept = line.split(", ").map(|field| {
            if ["true", "false"].contains(&field) {
                field
            } else {
                "-"
            }
        });
        return kept.collect::<Vec<_>>().join(", ");
    }
    // The hash covers the leases of keys, and lease ids are drawn at random; `hash_kv` is compared without any.
    if line
        .strip_prefix("ADDRESS, ")
        .is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return "ADDRESS, HASH".to_owned();
    }
    match line.split_once(" : ") {
        Some((name @ ("\"ClusterID\"" | "\"MemberID\"" | "\"RaftTerm\"" | "\"ID\""), _)) => {
            format!("{name} : -")
        }
        _ => line,
    }
}

fn kind_of(word: &str) -> Option<&'static str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let word = word.trim_end_matches(['s', ':']);
    if word.starts_with("http://127.0.0.1:") || word.starts_with("127.0.0.1:") {
        return Some("ADDRESS");
    }
    if word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some("ID");
    }
    let number = word.strip_suffix('m').or(word.strip_suffix('µ')).unwrap_or(word);
    let fraction = number
        .split_once('.')
        .is_some_and(|(whole, rest)| digits(whole) && digits(rest));
    fraction.then_some("DURATION")
}

async fn session(kind: Kind) -> (Cluster, Session) {
    let cluster = Cluster::start(kind, 1, Options::default()).await.unwrap();
    // As etcdctl's own default is written. Given a URL, this old etcdctl sends it whole as the HTTP/2 authority of
    // `endpoint status` and `endpoint hashkv`, which our HTTP library refuses as malformed.
    let address = cluster.endpoint(0).replace("http://", "");
    let etcdctl = Etcdctl::new(vec![address], None);
    (
        cluster,
        Session {
            etcdctl,
            lease: String::new(),
        },
    )
}

#[tokio::test]
async fn commands_print_the_same() {
    let (_theirs, mut theirs) = session(Kind::Etcd).await;
    let (_ours, mut ours) = session(Kind::Barque).await;
    let mut differing = Vec::new();
    for (command, input) in SESSION {
        let expected = theirs.run(command, input).await;
        let got = ours.run(command, input).await;
        if got != expected {
            differing.push(format!(
                "--- etcdctl {command}\nexpected {expected}\ngot      {got}"
            ));
        }
    }
    assert!(
        differing.is_empty(),
        "{} commands differ\n{}",
        differing.len(),
        differing.join("\n")
    );
}

/// The first lines of a watch over past and coming events.
async fn watched(kind: Kind, arguments: &[&str]) -> Vec<String> {
    let (_cluster, session) = session(kind).await;
    let etcdctl = &session.etcdctl;
    let put = async |value: &str| {
        etcdctl
            .run(&["put", "k", value])
            .await
            .unwrap()
            .success()
            .unwrap()
    };
    put("1").await;
    put("2").await;
    etcdctl.run(&["del", "k"]).await.unwrap().success().unwrap();
    let mut stream = etcdctl.stream(arguments).unwrap();
    let mut lines = Vec::new();
    // An event prints its type, its key and value, and before these the previous ones if asked for.
    for _ in 0..9 {
        lines.push(stream.expect_line(Duration::from_secs(30)).await.unwrap());
    }
    put("3").await;
    for _ in 0..3 {
        lines.push(stream.expect_line(Duration::from_secs(30)).await.unwrap());
    }
    lines
}

#[tokio::test]
async fn watches_print_the_same() {
    for arguments in [
        vec!["watch", "k", "--rev=1"],
        vec!["watch", "k", "--prefix", "--rev=2", "--prev-kv"],
    ] {
        let theirs = watched(Kind::Etcd, &arguments).await;
        assert_eq!(watched(Kind::Barque, &arguments).await, theirs, "{arguments:?}");
    }
}

#[test]
fn masks() {
    let cases = [
        (
            "lease 694d9aa2f0d7c30a granted with TTL(600s)",
            "lease ID granted with TTL(600s)",
        ),
        (
            "127.0.0.1:2379 is healthy: successfully committed proposal: took = 1.52ms",
            "ADDRESS is healthy: successfully committed proposal: took = DURATION",
        ),
        (
            "http://127.0.0.1:1, 8e9e05c52164694d, 3.4.23, 20 kB, true, false, 2, 4, 4, ",
            "-, -, -, -, true, false, -, -, -, -",
        ),
        ("127.0.0.1:2379, 2813261535", "ADDRESS, HASH"),
        ("value 12", "value 12"),
    ];
    for (line, expected) in cases {
        assert_eq!(masked(line), expected);
    }
}
