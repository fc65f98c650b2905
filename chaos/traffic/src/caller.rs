//! Makes one call of the history's kind, and records it: [`Caller`].

use std::{collections::BTreeMap, time::Duration};

use barque_checks::history::{Answer, Outcome, Request, Response};
use barque_proto::etcd::etcdserverpb as pb;
use pb::{
    alarm_request::AlarmAction, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient,
};
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

use crate::{Recorder, Target, outcome, translate};

/// One client's connections, one for each member that it ever called.
pub struct Caller {
    pub number: u32,
    pub target: Target,
    recorder: Recorder,
    timeout: Duration,
    channels: BTreeMap<u32, Channel>,
}

impl Caller {
    pub fn new(number: u32, target: Target, timeout: Duration, recorder: Recorder) -> Caller {
        Caller {
            number,
            target,
            recorder,
            timeout,
            channels: BTreeMap::new(),
        }
    }

    fn channel(&mut self, member: u32) -> Channel {
        let dial = &self.target.dial;
        self.channels
            .entry(member)
            .or_insert_with(|| dial(self.number, member))
            .clone()
    }

    pub async fn call(&mut self, member: u32, request: Request) -> Outcome {
        let channel = self.channel(member);
        let operation = self
            .recorder
            .call(&self.target, self.number, member, request.clone());
        let outcome = match timeout(self.timeout, send(channel, request)).await {
            Ok(Ok(response)) => Outcome::Done(response),
            Ok(Err(status)) => outcome::of(&status),
            Err(_) => Outcome::Unknown("the client gave up".into()),
        };
        self.recorder.answer(&self.target, operation, outcome.clone());
        outcome
    }
}

impl Caller {
    /// Asks for the NOSPACE alarm of a member, or of all (0); the members that have it. It leaves no record.
    pub async fn alarm(&mut self, member: u32, action: AlarmAction, of: u64) -> Option<Vec<u64>> {
        let mut maintenance = MaintenanceClient::new(self.channel(member));
        let request = pb::AlarmRequest {
            action: action.into(),
            member_id: of,
            alarm: pb::AlarmType::Nospace.into(),
        };
        let answer = timeout(self.timeout, maintenance.alarm(request))
            .await
            .ok()?
            .ok()?;
        let alarms = answer.into_inner().alarms;
        Some(alarms.into_iter().map(|alarm| alarm.member_id).collect())
    }
}

async fn send(channel: Channel, request: Request) -> Result<Response, Status> {
    let mut kv = KvClient::new(channel.clone());
    let mut lease = LeaseClient::new(channel);
    let response = match request {
        Request::Put {
            key,
            value,
            prev_kv,
            lease,
        } => {
            let request = translate::put(&key, &value, prev_kv, lease);
            translate::put_answer(kv.put(request).await?.into_inner())
        }
        Request::Delete { key, prev_kv } => {
            let request = translate::delete(&key, "", prev_kv);
            translate::delete_answer(kv.delete_range(request).await?.into_inner())
        }
        Request::DeleteRange { from, to, prev_kv } => {
            let request = translate::delete(&from, &to, prev_kv);
            translate::delete_answer(kv.delete_range(request).await?.into_inner())
        }
        Request::Get {
            key,
            serializable,
            revision,
        } => {
            let request = translate::range(&key, "", serializable, revision, 0);
            translate::range_answer(kv.range(request).await?.into_inner())
        }
        Request::Range {
            from,
            to,
            serializable,
            revision,
            limit,
            shape,
        } => {
            let request = translate::range(&from, &to, serializable, revision, limit);
            let request = translate::shaped(request, &shape);
            translate::range_answer(kv.range(request).await?.into_inner())
        }
        Request::Txn {
            compares,
            then,
            otherwise,
        } => {
            let request = translate::txn(&compares, &then, &otherwise);
            translate::txn_answer(kv.txn(request).await?.into_inner())
        }
        Request::Compact { revision } => {
            let request = pb::CompactionRequest {
                revision,
                physical: false,
            };
            let answer = kv.compact(request).await?.into_inner();
            response(&answer.header, Answer::Compact)
        }
        Request::LeaseGrant { id, ttl } => {
            let request = pb::LeaseGrantRequest { id, ttl };
            let answer = lease.lease_grant(request).await?.into_inner();
            let (id, ttl) = (answer.id, answer.ttl);
            response(&answer.header, Answer::LeaseGrant { id, ttl })
        }
        Request::LeaseRevoke { id } => {
            let answer = lease
                .lease_revoke(pb::LeaseRevokeRequest { id })
                .await?
                .into_inner();
            response(&answer.header, Answer::LeaseRevoke)
        }
        Request::LeaseKeepAlive { id } => {
            let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
            let mut answers = lease.lease_keep_alive(request).await?.into_inner();
            let answer = answers.message().await?;
            let answer = answer.ok_or_else(|| Status::unavailable("the stream ended without an answer"))?;
            response(&answer.header, Answer::LeaseKeepAlive { ttl: answer.ttl })
        }
        Request::LeaseTimeToLive { id } => {
            let request = pb::LeaseTimeToLiveRequest { id, keys: false };
            let answer = lease.lease_time_to_live(request).await?.into_inner();
            let (ttl, granted_ttl) = (answer.ttl, answer.granted_ttl);
            response(&answer.header, Answer::LeaseTimeToLive { ttl, granted_ttl })
        }
    };
    Ok(response)
}

fn response(header: &Option<pb::ResponseHeader>, answer: Answer) -> Response {
    Response {
        revision: translate::revision(header),
        answer,
    }
}
