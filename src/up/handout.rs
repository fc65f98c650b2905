//! What `barque up` tells its user once the cluster serves.

use crate::cluster_dir::{Cluster, ClusterDir};

pub fn print(dir: &ClusterDir, cluster: &Cluster, detached: bool) {
    let path = dir.path().display();
    let masters = cluster.masters.len();
    println!(
        "\nThe cluster is up: {masters} {}.\n",
        if masters == 1 { "master" } else { "masters" }
    );
    println!("  kubectl:  export KUBECONFIG={}", dir.kubeconfig().display());
    println!("            kubectl get namespaces");
    println!("  etcdctl:  . {}", dir.etcd_env().display());
    println!("            etcdctl endpoint status -w table");
    println!("  members:  barque status --dir {path}");
    println!("  logs:     {path}/logs, pids: {path}/pids");
    println!(
        "  metrics:  curl http://127.0.0.1:{}/metrics",
        cluster.masters[0].metrics_port
    );
    if masters > 2 {
        println!("\nKill any one master (kill -9 $(cat {path}/pids/m1.pid)): both go on working.");
    }
    match detached {
        true => println!("Stop it with: barque down --dir {path}"),
        false => println!("Ctrl-C stops it; the data stays."),
    }
}
