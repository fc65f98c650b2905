//! The row of a service.

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    Column, Layout, age,
    cells::{NONE, equalities, int_at, list_at, or, str_at, text},
    unconditional,
};

pub(super) static LAYOUT: Layout = Layout {
    columns: &[
        Column::name("The service's name."),
        Column::new("Type", "string", "How the service is reached."),
        Column::new("Cluster-IP", "string", "Its address within the cluster."),
        Column::new("External-IP", "string", "Its addresses for the world."),
        Column::new(
            "Port(s)",
            "string",
            "Its ports, with the nodes' port where there is one.",
        ),
        Column::age(),
        Column::new("Selector", "string", "The labels of the pods behind it.").wide(),
    ],
    cells,
    conditions: unconditional,
};

fn cells(service: &Value, now: OffsetDateTime) -> Vec<Value> {
    let cluster_ip = match list_at(service, "/spec/clusterIPs")
        .first()
        .and_then(Value::as_str)
    {
        Some(ip) => ip,
        None => str_at(service, "/spec/clusterIP"),
    };
    vec![
        text(service, "/metadata/name"),
        text(service, "/spec/type"),
        or(cluster_ip, NONE).into(),
        external_ip(service).into(),
        ports(service).into(),
        age(service, now),
        or(&equalities(service.pointer("/spec/selector")), NONE).into(),
    ]
}

fn external_ip(service: &Value) -> String {
    let external: Vec<&str> = list_at(service, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match str_at(service, "/spec/type") {
        "ClusterIP" | "NodePort" => or(&external.join(","), NONE),
        "LoadBalancer" => {
            let mut addresses: Vec<&str> = vec![];
            for ingress in list_at(service, "/status/loadBalancer/ingress") {
                let address = [str_at(ingress, "/ip"), str_at(ingress, "/hostname")];
                addresses.extend(address.into_iter().find(|address| !address.is_empty()));
            }
            addresses.sort_unstable();
            addresses.dedup();
            addresses.extend(external);
            or(&addresses.join(","), "<pending>")
        }
        "ExternalName" => str_at(service, "/spec/externalName").into(),
        _ => "<unknown>".into(),
    }
}

fn ports(service: &Value) -> String {
    let each = list_at(service, "/spec/ports").iter().map(|port| {
        let number = int_at(port, "/port");
        let protocol = or(str_at(port, "/protocol"), "TCP");
        match int_at(port, "/nodePort") {
            0 => format!("{number}/{protocol}"),
            node_port => format!("{number}:{node_port}/{protocol}"),
        }
    });
    or(&Vec::from_iter(each).join(","), NONE)
}
