//! Clients of the Kubernetes API: writers that create, change and delete a few objects, and watchers that go from
//! master to master: [`Api`].

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use barque_chaos::{
    cluster::Cluster,
    http::{Connection, Server},
};
use barque_checks::history::{KubernetesRecord, KubernetesType, KubernetesWrite};
use barque_traffic::Recorder;
use futures_util::future::BoxFuture;
use http::Method;
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
        let mut connection = None;
        for count in 0u64.. {
            if self.recorder.is_stopping() {
                return;
            }
            sleep(Duration::from_millis(dice.random_range(20..120))).await;
            if connection.is_none() || dice.random_bool(0.05) {
                let master = self.any(&mut dice);
                connection = timeout(ATTEMPT, self.servers[master].connect())
                    .await
                    .ok()
                    .and_then(Result::ok)
                    .map(|open| (master, open));
            }
            let Some((master, open)) = &mut connection else {
                continue;
            };
            let name = format!("object-{}", dice.random_range(0..OBJECTS));
            let value = format!("{number}/{count}");
            let tried = match dice.random_range(0..10) {
                0..4 => timeout(ATTEMPT, create(open, &name, &value)).await,
                4..8 => timeout(ATTEMPT, change(open, &name, &value)).await,
                _ => timeout(ATTEMPT, delete(open, &name)).await,
            };
            match tried {
                Ok(Ok(Some(done))) => self.acknowledged(number, *master, done),
                Ok(Ok(None)) => {}
                // What came of it nobody knows.
                Ok(Err(_)) | Err(_) => connection = None,
            }
        }
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
            let followed = timeout_at(until, watcher.follow(&mut last)).await;
            if let Ok(Err(error)) = followed {
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
    async fn follow(&self, last: &mut Option<i64>) -> anyhow::Result<()> {
        let server = &self.api.servers[self.master];
        let from = match *last {
            Some(last) => last,
            None => self.list(&mut server.connect().await?).await?,
        };
        *last = Some(from);
        let path = format!("{SELECTION}?watch=true&allowWatchBookmarks=true&resourceVersion={from}");
        let mut connection = server.connect().await?;
        let followed = match connection.stream(&path).await {
            Ok(events) => self.events(events, last).await,
            Err(error) => Err(error),
        };
        // Compacted: what happened meanwhile only a list can tell.
        if followed.as_ref().is_err_and(is_gone) {
            *last = None;
        }
        followed
    }

    async fn list(&self, connection: &mut Connection) -> anyhow::Result<i64> {
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

    async fn events(&self, mut body: Incoming, last: &mut Option<i64>) -> anyhow::Result<()> {
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                *last = Some(self.event(&serde_json::from_slice(&line)?)?);
            }
        }
        Ok(())
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
            _ => bail!("the watch says {event}"),
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

/// `None`: it is there already.
async fn create(connection: &mut Connection, name: &str, value: &str) -> anyhow::Result<Option<Done>> {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"value": value},
    });
    let answer = connection
        .send(Method::POST, SELECTION, &object.to_string())
        .await;
    acknowledged(answer, KubernetesType::Added)
}

/// `None`: there is none to change.
async fn change(connection: &mut Connection, name: &str, value: &str) -> anyhow::Result<Option<Done>> {
    let patch = json!({"data": {"value": value}});
    let answer = connection
        .patch(&format!("{SELECTION}/{name}"), &patch.to_string())
        .await;
    acknowledged(answer, KubernetesType::Modified)
}

/// The answer says no resourceVersion.
async fn delete(connection: &mut Connection, name: &str) -> anyhow::Result<Option<Done>> {
    let answer = connection
        .send(Method::DELETE, &format!("{SELECTION}/{name}"), "")
        .await;
    match answer {
        Err(error) if !is_refusal(&error) => Err(error),
        _ => Ok(None),
    }
}

fn acknowledged(answer: anyhow::Result<bytes::Bytes>, kind: KubernetesType) -> anyhow::Result<Option<Done>> {
    match answer {
        Ok(body) => {
            let object = Object::of(&serde_json::from_slice(&body)?)?;
            Ok(Some(Done { kind, object }))
        }
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The answer's status, or that in an event.
fn is_gone(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    text.contains(": 410 ") || text.contains("\"code\":410")
}

/// Not found, or a conflict: an answer by the rules.
fn is_refusal(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    text.contains(": 404 ") || text.contains(": 409 ")
}
