//! Clients of the Kubernetes API: writers that create, change and delete a few objects, and watchers that go from
//! master to master: [`Api`].

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use barque_chaos::{
    cluster::Cluster,
    http::{Connection, Refusal, Server},
};
use barque_checks::history::{
    KubernetesCall, KubernetesError, KubernetesOutcome, KubernetesRecord, KubernetesType, KubernetesVerb,
    KubernetesWrite,
};
use barque_traffic::Recorder;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{site::Site, watching::Clock};

const SELECTION: &str = "/api/v1/namespaces/default/configmaps";
const WRITERS: u32 = 2;
const WATCHERS: u32 = 3;
const OBJECTS: u32 = 6;
const ATTEMPT: Duration = Duration::from_secs(4);
/// Of what a master says instead of an event, the beginning is kept.
const LONGEST_TEXT: usize = 500;

/// The masters, and where what was seen is written down.
#[derive(Clone)]
pub struct Api {
    servers: Arc<Vec<Server>>,
    now_us: Clock,
    recorder: Recorder,
    seed: u64,
}

impl Api {
    pub fn of(cluster: &Cluster, now_us: Clock, recorder: Recorder, seed: u64) -> anyhow::Result<Api> {
        let certificate = cluster.admin_certificate();
        let server = |index| {
            let url = cluster
                .api_endpoint(index)
                .context("the cluster has no Kubernetes API")?;
            Server::new(&url, certificate.as_ref())
        };
        Ok(Api {
            servers: Arc::new((0..cluster.len()).map(server).collect::<anyhow::Result<_>>()?),
            now_us,
            recorder,
            seed,
        })
    }

    /// Tasks that run until the recorder is told to stop, or they are dropped.
    pub fn tasks(&self) -> Vec<BoxFuture<'static, ()>> {
        let writers =
            (0..WRITERS).map(|number| Box::pin(self.clone().write(number)) as BoxFuture<'static, ()>);
        let watchers =
            (0..WATCHERS).map(|number| Box::pin(self.clone().watch(number)) as BoxFuture<'static, ()>);
        writers.chain(watchers).collect()
    }

    fn dice(&self, number: u32) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (u64::from(number) << 32))
    }

    fn any(&self, dice: &mut StdRng) -> usize {
        dice.random_range(0..self.servers.len())
    }

    // --- writing ---

    async fn write(self, number: u32) {
        let mut dice = self.dice(number);
        let mut master = self.any(&mut dice);
        let mut connection = None;
        for count in 0u64.. {
            if self.recorder.is_stopping() {
                return;
            }
            sleep(Duration::from_millis(dice.random_range(20..120))).await;
            if connection.is_none() || dice.random_bool(0.05) {
                (master, connection) = (self.any(&mut dice), None);
            }
            let verb = match dice.random_range(0..10) {
                0..4 => KubernetesVerb::Create,
                4..8 => KubernetesVerb::Patch,
                _ => KubernetesVerb::Delete,
            };
            let name = format!("object-{}", dice.random_range(0..OBJECTS));
            let value = format!("{number}/{count}");
            let change = change(&self.servers[master], &mut connection, verb, &name, &value);
            let changed = self.call(master, verb, change).await;
            match changed {
                Ok(Some(done)) => self.acknowledged(number, master, done),
                Ok(None) => {}
                Err(error) if is_refusal(verb, &error) => {}
                // What came of it nobody knows.
                Err(_) => connection = None,
            }
        }
    }

    /// Notes what becomes of it, and gives it up when it takes too long.
    async fn call<T>(
        &self,
        master: usize,
        verb: KubernetesVerb,
        asked: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let call = (self.now_us)();
        let answered = timeout(ATTEMPT, asked).await;
        let answered = answered.unwrap_or_else(|_| Err(anyhow!("no answer within {ATTEMPT:?}")));
        let outcome = match &answered {
            Ok(_) => KubernetesOutcome::Done,
            Err(error) if is_refusal(verb, error) => {
                KubernetesOutcome::Refused(shortened(&format!("{error:#}")))
            }
            Err(error) => KubernetesOutcome::Failed(shortened(&format!("{error:#}"))),
        };
        let record = KubernetesCall {
            master: Site::id(master),
            call,
            ret: (self.now_us)(),
            verb,
            outcome,
        };
        self.recorder
            .history(|history| history.kubernetes_calls.push(record));
        answered
    }

    fn acknowledged(&self, writer: u32, master: usize, done: Done) {
        let write = KubernetesWrite {
            writer,
            master: Site::id(master),
            time: (self.now_us)(),
            selection: SELECTION.to_owned(),
            resource_version: done.object.version,
            kind: done.kind,
            name: done.object.name,
            uid: done.object.uid,
        };
        self.recorder
            .history(|history| history.kubernetes_writes.push(write));
    }

    // --- watching ---

    async fn watch(self, number: u32) {
        let mut dice = self.dice(WRITERS + number);
        let mut last = None;
        while !self.recorder.is_stopping() {
            let master = self.any(&mut dice);
            let watcher = Watcher {
                api: &self,
                number,
                master,
            };
            let until = Instant::now() + Duration::from_millis(dice.random_range(500..15_000));
            if let Err(error) = watcher.follow(&mut last, until).await {
                tracing::debug!(%error, master, "a watch of objects ended");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One watch at one master.
struct Watcher<'a> {
    api: &'a Api,
    number: u32,
    master: usize,
}

impl Watcher<'_> {
    /// From `last` on, or from a list when there is none.
    async fn follow(&self, last: &mut Option<i64>, until: Instant) -> anyhow::Result<()> {
        let from = match *last {
            Some(last) => last,
            None => {
                self.api
                    .call(self.master, KubernetesVerb::List, self.list())
                    .await?
            }
        };
        *last = Some(from);
        let followed = self.watch(from, last, until).await;
        if let Err(error) = &followed {
            self.ended(error, last);
        }
        followed
    }

    async fn list(&self) -> anyhow::Result<i64> {
        let mut connection = self.api.servers[self.master].connect().await?;
        let body = connection.send(Method::GET, SELECTION, "").await?;
        let list: Value = serde_json::from_slice(&body)?;
        let version = version_of(&list)?;
        let items = list["items"].as_array().context("a list without items")?;
        let items: Vec<Object> = items.iter().map(Object::of).collect::<anyhow::Result<_>>()?;
        self.note(KubernetesType::Listed, Object::nameless(version));
        items
            .into_iter()
            .for_each(|item| self.note(KubernetesType::Item, item));
        Ok(version)
    }

    async fn watch(&self, from: i64, last: &mut Option<i64>, until: Instant) -> anyhow::Result<()> {
        let opened = self.api.call(self.master, KubernetesVerb::Watch, self.open(from));
        let (_connection, events) = opened.await?;
        let followed = timeout_at(until, self.events(events, last)).await;
        followed.unwrap_or(Ok(()))
    }

    /// The events last as long as the connection.
    async fn open(&self, from: i64) -> anyhow::Result<(Connection, Incoming)> {
        let path = format!("{SELECTION}?watch=true&allowWatchBookmarks=true&resourceVersion={from}");
        let mut connection = self.api.servers[self.master].connect().await?;
        let events = connection.stream(&path).await?;
        Ok((connection, events))
    }

    /// Notes a watch that its master ended. After a compaction only a list can tell what happened meanwhile.
    fn ended(&self, error: &anyhow::Error, last: &mut Option<i64>) {
        let said = error.downcast_ref::<Ended>().map(|ended| ended.code);
        let gone = StatusCode::GONE.as_u16();
        let refused = status_of(error).filter(|status| *status == StatusCode::GONE);
        let Some(code) = said.or(refused.map(|_| gone)) else {
            return;
        };
        let record = KubernetesError {
            watcher: self.number,
            master: Site::id(self.master),
            time: (self.api.now_us)(),
            selection: SELECTION.to_owned(),
            resource_version: last.unwrap_or_default(),
            code,
            text: shortened(&format!("{error:#}")),
        };
        self.api
            .recorder
            .history(|history| history.kubernetes_errors.push(record));
        if code == gone {
            *last = None;
        }
    }

    async fn events(&self, mut body: Incoming, last: &mut Option<i64>) -> anyhow::Result<()> {
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                *last = Some(self.line(&line)?);
            }
        }
        Ok(())
    }

    /// The resourceVersion up to which the watch is told by it.
    fn line(&self, line: &[u8]) -> Result<i64, Ended> {
        let ended = |code| Ended {
            code,
            said: String::from_utf8_lossy(line).trim_end().to_owned(),
        };
        let Ok(event) = serde_json::from_slice::<Value>(line) else {
            return Err(ended(0));
        };
        if event["type"] == "ERROR" {
            let code = event["object"]["code"].as_u64();
            let code = code.and_then(|code| u16::try_from(code).ok());
            return Err(ended(code.unwrap_or_default()));
        }
        self.event(&event).map_err(|_| ended(0))
    }

    fn event(&self, event: &Value) -> anyhow::Result<i64> {
        let object = &event["object"];
        let kind = match event["type"].as_str().unwrap_or_default() {
            "ADDED" => KubernetesType::Added,
            "MODIFIED" => KubernetesType::Modified,
            "DELETED" => KubernetesType::Deleted,
            "BOOKMARK" => {
                let version = version_of(object)?;
                self.note(KubernetesType::Bookmark, Object::nameless(version));
                return Ok(version);
            }
            other => bail!("{other:?} is no type of event"),
        };
        let object = Object::of(object)?;
        let version = object.version;
        self.note(kind, object);
        Ok(version)
    }

    fn note(&self, kind: KubernetesType, object: Object) {
        let record = KubernetesRecord {
            watcher: self.number,
            master: Site::id(self.master),
            time: (self.api.now_us)(),
            selection: SELECTION.to_owned(),
            resource_version: object.version,
            kind,
            name: object.name,
            uid: object.uid,
        };
        self.api
            .recorder
            .history(|history| history.kubernetes.push(record));
    }
}

/// What identifies an object, and one of its versions.
struct Object {
    name: String,
    uid: String,
    version: i64,
}

impl Object {
    fn of(object: &Value) -> anyhow::Result<Object> {
        let text = |field: &str| {
            let text = object["metadata"][field].as_str();
            text.map(str::to_owned)
                .with_context(|| format!("no {field} in {object}"))
        };
        Ok(Object {
            name: text("name")?,
            uid: text("uid")?,
            version: version_of(object)?,
        })
    }

    fn nameless(version: i64) -> Object {
        Object {
            name: String::new(),
            uid: String::new(),
            version,
        }
    }
}

fn version_of(object: &Value) -> anyhow::Result<i64> {
    let version = object["metadata"]["resourceVersion"].as_str();
    let version = version.and_then(|version| version.parse().ok());
    version.with_context(|| format!("no resourceVersion in {object}"))
}

/// An acknowledged change, as watchers must be told of it.
struct Done {
    kind: KubernetesType,
    object: Object,
}

impl Done {
    fn of(answer: &[u8], kind: KubernetesType) -> anyhow::Result<Done> {
        let object = Object::of(&serde_json::from_slice(answer)?)?;
        Ok(Done { kind, object })
    }
}

/// On the connection, or on a new one. Without what was done of a delete, whose answer says no resourceVersion.
async fn change(
    server: &Server,
    connection: &mut Option<Connection>,
    verb: KubernetesVerb,
    name: &str,
    value: &str,
) -> anyhow::Result<Option<Done>> {
    if connection.is_none() {
        *connection = Some(server.connect().await?);
    }
    let open = connection.as_mut().context("just connected")?;
    let path = format!("{SELECTION}/{name}");
    match verb {
        KubernetesVerb::Create => {
            let object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name},
                "data": {"value": value},
            });
            let answer = open.send(Method::POST, SELECTION, &object.to_string()).await?;
            Done::of(&answer, KubernetesType::Added).map(Some)
        }
        KubernetesVerb::Patch => {
            let patch = json!({"data": {"value": value}});
            let answer = open.patch(&path, &patch.to_string()).await?;
            Done::of(&answer, KubernetesType::Modified).map(Some)
        }
        _ => open.send(Method::DELETE, &path, "").await.map(|_| None),
    }
}

/// What a master said last in a watch: an ERROR event, or none at all.
#[derive(Debug)]
struct Ended {
    /// Of the Status; 0: it is no event.
    code: u16,
    said: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the watch says {}", self.said)
    }
}

impl std::error::Error for Ended {}

fn status_of(error: &anyhow::Error) -> Option<StatusCode> {
    error.downcast_ref::<Refusal>().map(|refusal| refusal.status)
}

/// Not found or a conflict, or compacted: an answer by the rules. A list of what is current is never refused.
fn is_refusal(verb: KubernetesVerb, error: &anyhow::Error) -> bool {
    let Some(status) = status_of(error) else {
        return false;
    };
    match verb {
        KubernetesVerb::List => false,
        KubernetesVerb::Watch => status == StatusCode::GONE,
        _ => [StatusCode::NOT_FOUND, StatusCode::CONFLICT].contains(&status),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}
