//! Wire types: the etcd v3 API, what peers say to each other, and the command envelope of the log.
//!
//! Generated from the `.proto` files beside `src`. Byte fields are `bytes::Bytes` that borrow from the
//! buffer they were decoded from: copy what is to be kept.

/// What a Raft log entry carries.
// The message `Command` brings a module of its name for its oneof.
#[allow(clippy::module_inception)]
pub mod command {
    tonic::include_proto!("barque.command.v1");
}

/// The etcd v3 API: messages, and both sides of each service.
pub mod etcd {
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }
    pub mod authpb {
        tonic::include_proto!("authpb");
    }
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}

/// `grpc.health.v1`.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// What the members of a cluster say to each other, and Raft's records on disk.
pub mod peer {
    tonic::include_proto!("barque.peer.v1");
}
