//! Compiles our own `.proto` files with protox, so that no protoc is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "barque/command.proto",
        "barque/peer.proto",
        "etcd/server/kv.proto",
        "etcd/server/watch.proto",
        "etcd/server/lease.proto",
        "etcd/server/cluster.proto",
        "etcd/server/maintenance.proto",
        "etcd/server/auth.proto",
        "grpc/health.proto",
    ];
    println!("cargo:rerun-if-changed=barque");
    println!("cargo:rerun-if-changed=etcd");
    println!("cargo:rerun-if-changed=grpc");
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
