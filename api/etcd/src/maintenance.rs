//! The Maintenance service: what an operator asks of this one member.

use std::{future::ready, pin::Pin};

use barque_proto::{
    command::{self, alarm::Kind, command::Op},
    etcd::etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
        DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
        HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
        StatusRequest, StatusResponse, alarm_request::AlarmAction, maintenance_server::Maintenance,
    },
};
use barque_replica::MemberId;
use barque_store::Revision;
use futures_util::Stream;
use tonic::{Request, Response, Status};

use crate::{
    ETCD_CLUSTER_VERSION, ETCD_VERSION, Error, EtcdServer, Method,
    server::{Shared, at_length},
    translate,
};

impl Shared {
    async fn status(&self, _: StatusRequest) -> Result<StatusResponse, Error> {
        let status = self.replica.status();
        let sizes = self.replica.store().sizes();
        // A leader that was cut off is none, whatever it thinks itself.
        let leader = status.leader.filter(|_| self.has_leader());
        let leader = leader.map_or(0, |leader| leader.0);
        let no_leader = (leader == 0).then(|| Error::NoLeader.text());
        let alarms = self.replica.store().alarms().into_iter();
        let alarms = alarms.map(|(member, kind)| {
            let alarm = alarm_type(kind).as_str_name();
            format!("memberID:{member} alarm:{alarm} ")
        });
        Ok(StatusResponse {
            header: Some(self.current_header()),
            version: ETCD_VERSION.to_owned(),
            db_size: sizes.total_bytes as i64,
            db_size_in_use: sizes.in_use_bytes as i64,
            db_size_quota: self.config.quota_backend_bytes as i64,
            leader,
            raft_index: status.last_log_index,
            raft_applied_index: status.applied_index,
            raft_term: status.term,
            errors: no_leader.into_iter().chain(alarms).collect(),
            is_learner: status.is_learner,
            storage_version: ETCD_CLUSTER_VERSION.to_owned(),
            downgrade_info: Some(DowngradeInfo::default()),
        })
    }

    async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Error> {
        self.refuse_on_learner()?;
        self.barrier().await?;
        let kind = alarm_kind(request.alarm());
        let active = self.replica.store().alarms();
        let asked = request.alarm();
        let matching = active
            .iter()
            .filter(|(_, active)| asked == AlarmType::None || alarm_type(*active) == asked);
        let alarms = match request.action() {
            AlarmAction::Get => matching.copied().collect(),
            // Every kind at once is nothing that can be switched.
            _ if kind == Kind::None => Vec::new(),
            AlarmAction::Activate => {
                self.switch_alarm(request.member_id, kind, true).await?;
                vec![(request.member_id, kind)]
            }
            AlarmAction::Deactivate => {
                let of_member = matching.filter(|(member, _)| *member == request.member_id);
                let switched: Vec<_> = of_member.copied().collect();
                for (member, kind) in &switched {
                    self.switch_alarm(*member, *kind, false).await?;
                }
                switched.into_iter().take(1).collect()
            }
        };
        Ok(AlarmResponse {
            header: Some(self.current_header()),
            alarms: alarms
                .into_iter()
                .map(|(member, kind)| alarm_member(member, kind))
                .collect(),
        })
    }

    async fn switch_alarm(&self, member_id: u64, kind: Kind, active: bool) -> Result<(), Error> {
        let op = Op::Alarm(command::Alarm {
            kind: kind.into(),
            member_id,
            active,
        });
        match self.replica.propose(translate::command(op)).await? {
            barque_store::Response::Alarm { .. } => Ok(()),
            other => translate::unexpected("an alarm", &other),
        }
    }

    /// The chained state hash folded to etcd's width: equal on members that have applied the same entries.
    async fn hash(&self, _: HashRequest) -> Result<HashResponse, Error> {
        self.refuse_on_learner()?;
        let (_, [a, b, c, d, ..]) = self.replica.store().state_hash();
        Ok(HashResponse {
            header: Some(self.current_header()),
            hash: u32::from_be_bytes([a, b, c, d]),
        })
    }

    async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, Error> {
        self.refuse_on_learner()?;
        let asked = Revision(request.revision.max(0));
        let hashed = move |reader: barque_store::Reader| {
            let head = reader.head().revision;
            let (hash, compact_revision) = reader.hash_kv(asked)?;
            Ok((hash, compact_revision, head))
        };
        let (hash, compact_revision, head) = self.read_at_length(hashed).await?;
        Ok(HashKvResponse {
            header: Some(self.header(head)),
            hash,
            compact_revision: compact_revision.0,
            hash_revision: if asked.0 == 0 { head.0 } else { asked.0 },
        })
    }

    async fn move_leader(&self, request: MoveLeaderRequest) -> Result<MoveLeaderResponse, Error> {
        self.refuse_on_learner()?;
        if !self.leadership.borrow().is_self {
            return Err(Error::NotLeader);
        }
        let target = MemberId(request.target_id);
        let members = self.replica.members();
        if !members
            .iter()
            .any(|member| member.id == target && !member.is_learner)
        {
            return Err(Error::BadLeaderTransferee);
        }
        self.replica.transfer_leadership(Some(target)).await?;
        Ok(MoveLeaderResponse {
            header: Some(self.current_header()),
        })
    }

    /// Space is reclaimed in the background too; this does all of it now, of what was compacted before.
    async fn defragment(&self, _: DefragmentRequest) -> Result<DefragmentResponse, Error> {
        self.refuse_on_learner()?;
        let store = self.replica.store().clone();
        self.replica
            .physically_compacted(store.head().compact_revision)
            .await?;
        at_length(&self.defragmenting, move || Ok(store.defragment()?)).await?;
        Ok(DefragmentResponse {
            header: Some(self.current_header()),
        })
    }
}

fn alarm_kind(alarm: AlarmType) -> Kind {
    match alarm {
        AlarmType::None => Kind::None,
        AlarmType::Nospace => Kind::Nospace,
        AlarmType::Corrupt => Kind::Corrupt,
    }
}

/// A member whose own files are damaged is shown as CORRUPT: etcd's clients know no other word.
fn alarm_type(kind: Kind) -> AlarmType {
    match kind {
        Kind::None => AlarmType::None,
        Kind::Nospace => AlarmType::Nospace,
        Kind::Corrupt | Kind::Damaged => AlarmType::Corrupt,
    }
}

fn alarm_member(member_id: u64, kind: Kind) -> AlarmMember {
    AlarmMember {
        member_id,
        alarm: alarm_type(kind).into(),
    }
}

#[tonic::async_trait]
impl Maintenance for EtcdServer {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        self.shared
            .unary(Method::Alarm, request, |request| self.shared.alarm(request))
            .await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.shared
            .unary(Method::Status, request, |request| self.shared.status(request))
            .await
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.shared
            .unary(Method::Defragment, request, |request| {
                self.shared.defragment(request)
            })
            .await
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.shared
            .unary(Method::Hash, request, |request| self.shared.hash(request))
            .await
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        self.shared
            .unary(Method::HashKv, request, |request| self.shared.hash_kv(request))
            .await
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let what = "a snapshot as a bbolt file";
        self.shared
            .unary(Method::Snapshot, request, |_| {
                ready(Err(Error::Unimplemented { what }))
            })
            .await
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.shared
            .unary(Method::MoveLeader, request, |request| {
                self.shared.move_leader(request)
            })
            .await
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let what = "downgrading";
        self.shared
            .unary(Method::Downgrade, request, |_| {
                ready(Err(Error::Unimplemented { what }))
            })
            .await
    }
}
