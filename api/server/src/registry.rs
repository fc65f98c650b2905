//! The generic registry: how any resource's objects are created, changed and removed.
//!
//! Every write is one transaction that compares what the decision rested on: the object's mod revision, its
//! namespace's, and what it claims. The decision is taken again only after a definite conflict.

use std::sync::Arc;

use barque_machinery::{
    metadata::{self, Meta},
    name,
    status::{CONFLICT_TEXT, Status},
};
use barque_proto::command::{Put, Txn};
use barque_store::{KeyValue, Revision};
use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    codec::{self, Encoded, StoredRef},
    resource::{Claim, Draw, Resource, Subresource},
    resources,
    selection::{indexed_field, terms_of},
    storage::{self, Storage},
};

/// An object as it was read, to decide upon.
pub struct Stored {
    pub object: Value,
    pub kv: KeyValue,
}

/// What is to become of an object.
pub enum Change {
    Put(Value),
    Delete,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Updated,
    Deleted,
    Unchanged,
}

/// A write's result: the object as clients see it.
#[derive(Debug, Clone)]
pub struct Written {
    pub outcome: Outcome,
    pub body: Bytes,
    pub uid: String,
    pub name: String,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Not 0: the leader's own work, refused in any other term.
    pub fence_term: u64,
}

/// Where an object lies.
#[derive(Clone)]
pub struct Place {
    pub resource: &'static Resource,
    pub namespace: String,
    pub name: String,
}

impl Place {
    pub fn key(&self) -> Bytes {
        self.resource.key(&self.namespace, &self.name)
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.resource.group_resource(), &self.name)
    }

    pub fn conflict(&self, why: &str) -> Status {
        Status::conflict(&self.resource.group_resource(), &self.name, why)
    }
}

/// Where timestamps come from.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

#[derive(Clone)]
pub struct Registry {
    storage: Storage,
    service_cidr: (std::net::Ipv4Addr, u8),
    now: Clock,
}

/// Names are drawn again when taken, and addresses; so many times.
const MAX_DRAWS: usize = 8;

impl Registry {
    pub fn new(storage: Storage, service_cidr: (std::net::Ipv4Addr, u8), now: Clock) -> Self {
        Self {
            storage,
            service_cidr,
            now,
        }
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    pub fn timestamp(&self) -> String {
        metadata::timestamp((self.now)())
    }

    pub fn clock(&self) -> Clock {
        self.now.clone()
    }

    pub fn now(&self) -> OffsetDateTime {
        (self.now)()
    }

    /// Creates an object whose fields are already known and defaulted nowhere.
    pub async fn create(
        &self,
        resource: &'static Resource,
        namespace: &str,
        mut object: Value,
        options: WriteOptions,
    ) -> Result<Written, Status> {
        self.prepare_create(resource, namespace, &mut object)?;
        let base = Meta::of(&object).text("generateName").to_owned();
        let draws_name = Meta::of(&object).name().is_empty() && !base.is_empty();
        for draw in 1..=MAX_DRAWS {
            if draws_name {
                let name = name::generate(&base, || rand::rng().random());
                metadata::set_text(&mut object, "name", &name);
            }
            let place = Place {
                resource,
                namespace: namespace.into(),
                name: Meta::of(&object).name().to_owned(),
            };
            match self.insert(&place, &mut object, options).await {
                Err(status) if draws_name && status.reason == "AlreadyExists" && draw < MAX_DRAWS => {}
                result => return result,
            }
        }
        unreachable!("the last draw returns")
    }

    fn prepare_create(&self, resource: &Resource, namespace: &str, object: &mut Value) -> Result<(), Status> {
        if !Meta::of(object).resource_version().is_empty() {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        place_in_namespace(object, namespace)?;
        for field in [
            "uid",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
        ] {
            metadata::set_text(object, field, "");
        }
        metadata::set_text(object, "creationTimestamp", &self.timestamp());
        metadata::set_text(object, "uid", &uuid::Uuid::new_v4().to_string());
        if resource.has_generation {
            metadata::set(object, "generation", json!(1));
        }
        if resource.has(Subresource::Status) && !resource.strategy.keeps_status_on_create() {
            remove(object, "status");
        }
        resource.strategy.set_defaults(object);
        resource.strategy.prepare_create(object);
        Ok(())
    }

    async fn insert(
        &self,
        place: &Place,
        object: &mut Value,
        options: WriteOptions,
    ) -> Result<Written, Status> {
        let resource = place.resource;
        let mut errors = metadata::validate(object, resource.namespaced, resource.name_check);
        resource.strategy.validate(object, &mut errors);
        if !errors.is_empty() {
            return Err(Status::invalid(&resource.group_kind(), &place.name, &errors));
        }
        let key = place.key();
        let mut namespace = self.namespace_of(place, None).await?;
        let asked = object.clone();
        for draw in 1..=MAX_DRAWS {
            *object = asked.clone();
            let allocated = self.allocate(resource, object);
            let claims = resource.strategy.claims(object);
            let encoded = codec::encode(object)?;
            if options.dry_run {
                self.check_absent(place, &key).await?;
                return written(Outcome::Created, object, object.to_string().into());
            }
            let lease = if resource.expires {
                self.storage.event_lease().await?
            } else {
                0
            };
            let txn = insertion(resource, &key, object, &encoded, lease, &namespace, &claims);
            let response = self.storage.txn(txn, options.fence_term).await?;
            if response.succeeded {
                let body = codec::spliced(stored_ref(&key, &encoded, response.revision))?;
                return written(Outcome::Created, object, body);
            }
            if storage::found(&response, 0)?.is_some() {
                return Err(Status::already_exists(&resource.group_resource(), &place.name));
            }
            if namespace.is_some() {
                let current = storage::found(&response, 1)?;
                namespace = self.namespace_of(place, Some(current)).await?;
            }
            let first_claim = 1 + usize::from(namespace.is_some());
            for (i, claim) in claims.iter().enumerate() {
                let taken = storage::found(&response, first_claim + i)?.is_some();
                if taken && (!allocated || draw == MAX_DRAWS) {
                    return Err(Status::invalid(
                        &resource.group_kind(),
                        &place.name,
                        std::slice::from_ref(&claim.taken),
                    ));
                }
            }
        }
        Err(Status::too_many_requests(
            "the namespace keeps changing, please try again later",
            1,
        ))
    }

    fn allocate(&self, resource: &Resource, object: &mut Value) -> bool {
        let mut random = || rand::rng().random();
        resource.strategy.allocate(
            object,
            &mut Draw {
                random: &mut random,
                service_cidr: self.service_cidr,
            },
        )
    }

    async fn check_absent(&self, place: &Place, key: &Bytes) -> Result<(), Status> {
        self.storage.barrier().await?;
        match self.storage.get_local(key)? {
            Some(_) => Err(Status::already_exists(
                &place.resource.group_resource(),
                &place.name,
            )),
            None => Ok(()),
        }
    }

    /// The key and revision of the namespace that an object is created in. Compared in the creation's own
    /// transaction: nothing can be created in a namespace that is being deleted, and so be left behind.
    /// `known`: what the keyspace has at the moment, when the caller knows.
    async fn namespace_of(
        &self,
        place: &Place,
        known: Option<Option<KeyValue>>,
    ) -> Result<Option<(Bytes, Revision)>, Status> {
        if !place.resource.namespaced {
            return Ok(None);
        }
        let key = resources::namespaces().key("", &place.namespace);
        let found = match known {
            Some(found) => found,
            None => match self.storage.get_local(&key)? {
                Some(found) => Some(found),
                // This member may lag behind the namespace's creation.
                None => {
                    self.storage.barrier().await?;
                    self.storage.get_local(&key)?
                }
            },
        };
        let group_resource = resources::namespaces().group_resource();
        let kv = found.ok_or_else(|| Status::not_found(&group_resource, &place.namespace))?;
        if indexed_field(&kv.terms, "status.phase") == Some(b"Terminating") {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                place.namespace
            );
            let resource = place.resource.group_resource();
            let cause = format!("namespace {} is being terminated", place.namespace);
            // Controllers look for the cause, and do not try again.
            return Err(Status::forbidden(&resource, &place.name, &why).with_cause(
                "NamespaceTerminating",
                &cause,
                "metadata.namespace",
            ));
        }
        Ok(Some((key, kv.mod_revision)))
    }

    /// Reads an object, lets `decide` say what becomes of it, and writes that if nothing changed meanwhile;
    /// otherwise decides again. Refusals are never based on a state that may be behind.
    pub async fn modify(
        &self,
        place: &Place,
        options: WriteOptions,
        decide: &mut (dyn FnMut(&Stored) -> Result<Change, Status> + Send),
    ) -> Result<Written, Status> {
        let key = place.key();
        let mut current = self.storage.get_local(&key)?;
        let mut is_current = false;
        let mut draws = 0;
        loop {
            let attempt = match current.take() {
                Some(kv) => {
                    let stored = Stored {
                        object: codec::decode(kv_ref(&kv))?,
                        kv,
                    };
                    decide(&stored).and_then(|change| self.plan(place, stored, change))
                }
                None => Err(place.not_found()),
            };
            let mut plan = match attempt {
                Ok(plan) if is_current || plan.txn.is_some() => plan,
                Err(status) if is_current => return Err(status),
                // Decided on what this member has, which may be old: look again behind a barrier.
                _ => {
                    self.storage.barrier().await?;
                    current = self.storage.get_local(&key)?;
                    is_current = true;
                    continue;
                }
            };
            let Some(txn) = plan.txn.take().filter(|_| !options.dry_run) else {
                return plan.answer.finish(plan.stored_revision);
            };
            let txn = self.with_lease(place.resource, txn).await?;
            let response = self.storage.txn(txn, options.fence_term).await?;
            if response.succeeded {
                return plan.answer.finish(response.revision);
            }
            current = storage::found(&response, 0)?;
            let is_same = current
                .as_ref()
                .is_some_and(|kv| kv.mod_revision == plan.stored_revision);
            draws += usize::from(is_same);
            if is_same && (!plan.allocated || draws == MAX_DRAWS) {
                return Err(plan.claim_taken(place, &response)?);
            }
            is_current = true;
        }
    }

    /// Turns a decision into its transaction and the answer for when it succeeds.
    fn plan(&self, place: &Place, stored: Stored, change: Change) -> Result<Plan, Status> {
        let resource = place.resource;
        let key = stored.kv.key.clone();
        let revision = stored.kv.mod_revision;
        let old_claims = resource.strategy.claims(&stored.object);
        let unchanged = |stored: Stored| Plan {
            txn: None,
            claims: Vec::new(),
            allocated: false,
            stored_revision: revision,
            answer: Answer::of(
                Outcome::Unchanged,
                &stored.object,
                kv_encoded(&stored.kv),
                key.clone(),
            ),
        };
        let mut object = match change {
            Change::Nothing => return Ok(unchanged(stored)),
            Change::Delete => {
                let answer = Answer::of(
                    Outcome::Deleted,
                    &stored.object,
                    kv_encoded(&stored.kv),
                    key.clone(),
                );
                let txn = deletion(&key, revision, &old_claims);
                let (claims, allocated) = (Vec::new(), false);
                return Ok(Plan {
                    txn: Some(txn),
                    claims,
                    allocated,
                    stored_revision: revision,
                    answer,
                });
            }
            Change::Put(object) => object,
        };
        let allocated = self.allocate(resource, &mut object);
        let encoded = codec::encode(&object)?;
        if encoded.value == stored.kv.value {
            return Ok(unchanged(stored));
        }
        let claims = resource.strategy.claims(&object);
        let (txn, fresh) = replacement(resource, &key, revision, &object, &encoded, &old_claims, &claims);
        let answer = Answer::of(Outcome::Updated, &object, encoded, key);
        Ok(Plan {
            txn: Some(txn),
            claims: fresh,
            allocated,
            stored_revision: revision,
            answer,
        })
    }

    async fn with_lease(&self, resource: &Resource, mut txn: Txn) -> Result<Txn, Status> {
        if !resource.expires {
            return Ok(txn);
        }
        let lease = self.storage.event_lease().await?;
        for operation in &mut txn.success {
            if let Some(barque_proto::command::operation::Op::Put(put)) = &mut operation.op {
                put.lease = lease;
            }
        }
        Ok(txn)
    }
}

/// A decided write, ready to be proposed.
struct Plan {
    /// `None`: nothing would change.
    txn: Option<Txn>,
    /// Claimed by the write and not held before, in the order of the gets behind the object's own.
    claims: Vec<Claim>,
    /// Some of that was chosen here: when it is taken, choose again.
    allocated: bool,
    stored_revision: Revision,
    answer: Answer,
}

impl Plan {
    fn claim_taken(&self, place: &Place, response: &barque_store::TxnResponse) -> Result<Status, Status> {
        for (i, claim) in self.claims.iter().enumerate() {
            if storage::found(response, 1 + i)?.is_some() {
                let kind = place.resource.group_kind();
                return Ok(Status::invalid(
                    &kind,
                    &place.name,
                    std::slice::from_ref(&claim.taken),
                ));
            }
        }
        Err(Status::internal(
            "a transaction failed though everything that it compared holds",
        ))
    }
}

struct Answer {
    outcome: Outcome,
    name: String,
    uid: String,
    encoded: Encoded,
    key: Bytes,
}

impl Answer {
    fn of(outcome: Outcome, object: &Value, encoded: Encoded, key: Bytes) -> Self {
        let meta = Meta::of(object);
        Self {
            outcome,
            name: meta.name().into(),
            uid: meta.uid().into(),
            encoded,
            key,
        }
    }

    fn finish(self, revision: Revision) -> Result<Written, Status> {
        let body = codec::spliced(stored_ref(&self.key, &self.encoded, revision))?;
        Ok(Written {
            outcome: self.outcome,
            body,
            uid: self.uid,
            name: self.name,
        })
    }
}

fn insertion(
    resource: &Resource,
    key: &Bytes,
    object: &Value,
    encoded: &Encoded,
    lease: i64,
    namespace: &Option<(Bytes, Revision)>,
    claims: &[Claim],
) -> Txn {
    let mut txn = Txn::default();
    txn.compare.push(storage::absent(key));
    txn.failure.push(storage::get(key));
    if let Some((key, revision)) = namespace {
        txn.compare.push(storage::unchanged(key, *revision));
        txn.failure.push(storage::get(key));
    }
    txn.success
        .push(storage::put(put_of(resource, key, object, encoded, lease)));
    for claim in claims {
        txn.compare.push(storage::absent(&claim.key));
        txn.failure.push(storage::get(&claim.key));
        txn.success.push(storage::put(claim_put(claim, key)));
    }
    txn
}

/// Also returns the claims that are new, in the order of their gets.
fn replacement(
    resource: &Resource,
    key: &Bytes,
    revision: Revision,
    object: &Value,
    encoded: &Encoded,
    old_claims: &[Claim],
    claims: &[Claim],
) -> (Txn, Vec<Claim>) {
    let mut txn = Txn::default();
    txn.compare.push(storage::unchanged(key, revision));
    txn.failure.push(storage::get(key));
    txn.success
        .push(storage::put(put_of(resource, key, object, encoded, 0)));
    let has = |list: &[Claim], claim: &Claim| list.iter().any(|c| c.key == claim.key);
    let fresh: Vec<Claim> = claims.iter().filter(|c| !has(old_claims, c)).cloned().collect();
    for claim in &fresh {
        txn.compare.push(storage::absent(&claim.key));
        txn.failure.push(storage::get(&claim.key));
        txn.success.push(storage::put(claim_put(claim, key)));
    }
    for claim in old_claims.iter().filter(|c| !has(claims, c)) {
        txn.success.push(storage::delete(&claim.key));
    }
    (txn, fresh)
}

fn deletion(key: &Bytes, revision: Revision, claims: &[Claim]) -> Txn {
    let mut success = vec![storage::delete(key)];
    success.extend(claims.iter().map(|c| storage::delete(&c.key)));
    Txn {
        compare: vec![storage::unchanged(key, revision)],
        success,
        failure: vec![storage::get(key)],
    }
}

fn put_of(resource: &Resource, key: &Bytes, object: &Value, encoded: &Encoded, lease: i64) -> Put {
    Put {
        key: key.clone(),
        value: encoded.value.clone(),
        lease,
        terms: terms_of(resource, object),
        splice_offset: encoded.splice_offset,
        ..Default::default()
    }
}

/// A claim's value names its holder, for whoever looks.
fn claim_put(claim: &Claim, holder: &Bytes) -> Put {
    Put {
        key: claim.key.clone(),
        value: holder.clone(),
        ..Default::default()
    }
}

fn written(outcome: Outcome, object: &Value, body: Bytes) -> Result<Written, Status> {
    let meta = Meta::of(object);
    Ok(Written {
        outcome,
        body,
        uid: meta.uid().into(),
        name: meta.name().into(),
    })
}

pub fn kv_ref(kv: &KeyValue) -> StoredRef<'_> {
    StoredRef {
        key: &kv.key,
        value: &kv.value,
        splice_offset: kv.splice_offset,
        revision: kv.mod_revision.0,
    }
}

fn kv_encoded(kv: &KeyValue) -> Encoded {
    Encoded {
        value: kv.value.clone(),
        splice_offset: kv.splice_offset,
    }
}

fn stored_ref<'a>(key: &'a [u8], encoded: &'a Encoded, revision: Revision) -> StoredRef<'a> {
    StoredRef {
        key,
        value: &encoded.value,
        splice_offset: encoded.splice_offset,
        revision: revision.0,
    }
}

/// Gives the object the namespace of the request, or refuses another one.
pub fn place_in_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    match Meta::of(object).namespace() {
        "" => {
            metadata::set_text(object, "namespace", namespace);
            Ok(())
        }
        same if same == namespace => Ok(()),
        _ => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

pub fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// Refuses an update that rests on another version than the stored one, or on none where one must be named.
pub fn check_version(place: &Place, new: &Value, stored: &Stored) -> Result<(), Status> {
    let resource = place.resource;
    match Meta::of(new).resource_version() {
        "" | "0" if resource.strategy.allows_unconditional_update() => Ok(()),
        "" | "0" => Err(Status::version_required(&resource.group_resource(), &place.name)),
        version if version == stored.kv.mod_revision.0.to_string() => Ok(()),
        _ => Err(place.conflict(CONFLICT_TEXT)),
    }
}
