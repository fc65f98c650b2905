//! Services: cluster IPs and node ports are given out once each, as keys claimed in the service's transactions.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use barque_machinery::{
    field_error::{FieldError, check_each},
    gvk::GroupVersion,
    name,
};
use serde_json::{Map, Value, json};

use super::{default, items, object_at, objects_at, pod_template, text};
use crate::{
    registry,
    resource::{Claim, Draw, Resource, Strategy, Subresource},
};

pub static SERVICES: Resource = Resource {
    group_version: GroupVersion::new("", "v1"),
    plural: "services",
    singular: "service",
    kind: "Service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &[Subresource::Status],
    selectable: &["spec.clusterIP", "spec.type"],
    indexed: &[],
    name_check: name::dns1035_label,
    has_generation: false,
    create_on_update: true,
    expires: false,
    strategy: &Services,
};

struct Services;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const NODE_PORTS: std::ops::RangeInclusive<u32> = 30_000..=32_767;

impl Strategy for Services {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object_at(object, "spec") else {
            return;
        };
        default(spec, "type", "ClusterIP");
        default(spec, "sessionAffinity", "None");
        let kind = spec["type"].as_str().unwrap_or_default().to_owned();
        if kind != "ExternalName" {
            default(spec, "internalTrafficPolicy", "Cluster");
            default(spec, "ipFamilies", json!(["IPv4"]));
            default(spec, "ipFamilyPolicy", "SingleStack");
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            default(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            default(spec, "allocateLoadBalancerNodePorts", true);
        }
        for port in objects_at(&mut object["spec"], "ports") {
            port_defaults(port);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({ "loadBalancer": {} });
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if text(&new["spec"], "type") == "ExternalName" {
            for field in ["clusterIP", "clusterIPs"] {
                registry::remove(&mut new["spec"], field);
            }
            return;
        }
        for field in ["clusterIP", "clusterIPs"] {
            let is_empty = new["spec"][field].is_null() || new["spec"][field] == "";
            if is_empty && let Some(value) = old["spec"].get(field) {
                new["spec"][field] = value.clone();
            }
        }
        keep_node_ports(new, old);
    }

    fn allocate(&self, object: &mut Value, draw: &mut Draw<'_>) -> bool {
        let kind = text(&object["spec"], "type").to_owned();
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
            return false;
        };
        let mut chose = false;
        if kind != "ExternalName" {
            let ip = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default();
            if ip.is_empty() {
                let ip = draw_address(draw);
                spec.insert("clusterIP".into(), ip.clone().into());
                spec.insert("clusterIPs".into(), json!([ip]));
                chose = true;
            } else {
                let ip = ip.to_owned();
                default(spec, "clusterIPs", json!([ip]));
            }
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            for port in objects_at(&mut object["spec"], "ports") {
                if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) == 0 {
                    let span = NODE_PORTS.end() - NODE_PORTS.start() + 1;
                    port.insert(
                        "nodePort".into(),
                        (NODE_PORTS.start() + (draw.random)() % span).into(),
                    );
                    chose = true;
                }
            }
        }
        chose
    }

    fn claims(&self, object: &Value) -> Vec<Claim> {
        let spec = &object["spec"];
        let mut claims = Vec::new();
        let ip = text(spec, "clusterIP");
        if !matches!(ip, "" | "None") {
            let detail = format!("failed to allocate IP {ip}: provided IP is already allocated");
            claims.push(Claim {
                key: format!("/registry/ranges/serviceips/{ip}").into(),
                taken: FieldError::invalid("spec.clusterIPs", json!([ip]), detail),
            });
        }
        let mut claimed = HashSet::new();
        for (i, port) in items(spec, "ports").enumerate() {
            let number = port["nodePort"].as_i64().unwrap_or(0);
            let protocol = text(port, "protocol");
            if number != 0 && claimed.insert((number, protocol)) {
                let key = format!("/registry/ranges/servicenodeports/{number}-{protocol}");
                let field = format!("spec.ports[{i}].nodePort");
                let taken = FieldError::invalid(field, number, "provided port is already allocated");
                claims.push(Claim {
                    key: key.into(),
                    taken,
                });
            }
        }
        claims
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        pod_template::check_one_of(spec, "spec", "type", &TYPES, errors);
        pod_template::check_one_of(spec, "spec", "sessionAffinity", &["ClientIP", "None"], errors);
        let ip = text(spec, "clusterIP");
        if !matches!(ip, "" | "None") && ip.parse::<Ipv4Addr>().is_err() {
            errors.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                ip,
                "must be a valid IPv4 address",
            ));
        }
        let kind = text(spec, "type");
        if kind == "ExternalName" {
            if text(spec, "externalName").is_empty() {
                errors.push(FieldError::required("spec.externalName", ""));
            }
        } else if items(spec, "ports").next().is_none() && ip != "None" {
            errors.push(FieldError::required("spec.ports", ""));
        }
        validate_ports(spec, errors);
        barque_machinery::metadata::validate_labels("spec.selector", &spec["selector"], errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let (now, was) = (text(&new["spec"], "clusterIP"), text(&old["spec"], "clusterIP"));
        let external = [new, old]
            .iter()
            .any(|s| text(&s["spec"], "type") == "ExternalName");
        if now != was && !external {
            let detail = "may not change once set";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", json!([now]), detail));
        }
    }
}

fn port_defaults(port: &mut Map<String, Value>) {
    let number = port.get("port").cloned().unwrap_or_default();
    if number.is_null() {
        // Refused soon; filled in, very many of them would take a multiple of the request's memory.
        return;
    }
    default(port, "protocol", "TCP");
    let is_zero = port.get("targetPort").is_some_and(|t| t == 0);
    if is_zero {
        port.remove("targetPort");
    }
    default(port, "targetPort", number);
}

/// A port that says nothing keeps the node port that the same port had.
fn keep_node_ports(new: &mut Value, old: &Value) {
    if !matches!(text(&new["spec"], "type"), "NodePort" | "LoadBalancer") {
        objects_at(&mut new["spec"], "ports").for_each(|port| drop(port.remove("nodePort")));
        return;
    }
    let mut old_ports = HashMap::new();
    for port in items(&old["spec"], "ports") {
        let same = (port.get("port"), port.get("protocol"));
        old_ports.entry(same).or_insert(port.get("nodePort"));
    }
    for port in objects_at(&mut new["spec"], "ports") {
        let same = (port.get("port"), port.get("protocol"));
        let kept = old_ports.get(&same).copied().flatten().cloned();
        if let (None, Some(kept)) = (port.get("nodePort"), kept) {
            port.insert("nodePort".into(), kept);
        }
    }
}

fn validate_ports(spec: &Value, errors: &mut Vec<FieldError>) {
    let several = items(spec, "ports").count() > 1;
    let mut names = HashSet::new();
    check_each(items(spec, "ports"), errors, |i, port, errors| {
        let path = format!("spec.ports[{i}]");
        let name = text(port, "name");
        let is_new = names.insert(name);
        if name.is_empty() && several {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if let Some(problem) = name::dns1123_label(name).filter(|_| !name.is_empty()) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, problem));
        } else if !name.is_empty() && !is_new {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        pod_template::check_port(&port["port"], &format!("{path}.port"), errors);
        pod_template::check_one_of(port, &path, "protocol", &["SCTP", "TCP", "UDP"], errors);
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 && !u32::try_from(node_port).is_ok_and(|p| NODE_PORTS.contains(&p)) {
            let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            errors.push(FieldError::invalid(format!("{path}.nodePort"), node_port, detail));
        }
    });
}

/// An address of the service network, neither its first (the API's own service) nor its last.
fn draw_address(draw: &mut Draw<'_>) -> String {
    let (network, prefix) = draw.service_cidr;
    let size = 1u32.checked_shl(32 - u32::from(prefix)).unwrap_or(u32::MAX);
    let host = 2 + (draw.random)() % size.saturating_sub(3).max(1);
    Ipv4Addr::from(u32::from(network) + host).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        let mut service = json!({"metadata": {"name": "a"}, "spec": spec});
        Services.set_defaults(&mut service);
        service
    }

    fn allocate(object: &mut Value) -> bool {
        let mut n = 40;
        let mut random = || {
            n += 1;
            n
        };
        let service_cidr = (Ipv4Addr::new(10, 96, 0, 0), 12);
        Services.allocate(
            object,
            &mut Draw {
                random: &mut random,
                service_cidr,
            },
        )
    }

    #[test]
    fn addresses_and_ports_are_claimed() {
        let mut object = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
        assert!(allocate(&mut object));
        assert_eq!(object["spec"]["clusterIPs"], json!(["10.96.0.43"]));
        assert_eq!(object["spec"]["ports"][0]["targetPort"], 80);
        let keys: Vec<_> = Services.claims(&object).into_iter().map(|c| c.key).collect();
        assert_eq!(
            keys,
            [
                "/registry/ranges/serviceips/10.96.0.43",
                "/registry/ranges/servicenodeports/30042-TCP"
            ]
        );
        assert!(!allocate(&mut object), "what is there stays");
    }

    #[test]
    fn an_update_keeps_what_was_given_out() {
        let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
        allocate(&mut old);
        let mut new =
            service(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "name": "b"}]}));
        Services.prepare_update(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
        assert_eq!(
            new["spec"]["ports"][0]["nodePort"],
            old["spec"]["ports"][0]["nodePort"]
        );
        let mut errors = Vec::new();
        Services.validate_update(&new, &old, &mut errors);
        assert_eq!(errors, []);
    }

    #[test]
    fn a_node_port_is_kept_by_number_and_protocol_and_claimed_once() {
        let ports = json!([
            {"port": 1, "protocol": "UDP", "nodePort": 30001},
            {"port": 1, "protocol": "TCP", "nodePort": 30001},
            {"port": 1, "protocol": "TCP", "nodePort": 30002},
            {"port": 2},
        ]);
        let old = service(json!({"type": "NodePort", "clusterIP": "None", "ports": ports}));
        let keys: Vec<_> = Services.claims(&old).into_iter().map(|c| c.key).collect();
        let prefix = "/registry/ranges/servicenodeports";
        assert_eq!(
            keys,
            [
                format!("{prefix}/30001-UDP"),
                format!("{prefix}/30001-TCP"),
                format!("{prefix}/30002-TCP")
            ]
        );
        let mut new = service(json!({"type": "NodePort", "ports": [
            {"port": 2}, {"port": 1}, {"port": 1, "protocol": "SCTP"}, {"port": 1, "nodePort": 30009},
        ]}));
        Services.prepare_update(&mut new, &old);
        let kept: Vec<&Value> = items(&new["spec"], "ports").map(|p| &p["nodePort"]).collect();
        assert_eq!(kept, [&Value::Null, &json!(30001), &Value::Null, &json!(30009)]);
    }

    #[test]
    fn many_ports_are_gone_through_once() {
        const EACH: usize = 100_000;
        let named = |n: usize| json!({"port": n, "name": format!("p{n}"), "nodePort": n});
        let ports: Vec<Value> = (0..EACH).map(named).collect();
        let old = service(json!({"type": "NodePort", "clusterIP": "None", "ports": ports}));
        assert_eq!(Services.claims(&old).len(), EACH - 1, "all but port 0");
        let bare: Vec<Value> = (0..EACH).map(|n| json!({"port": n})).collect();
        let mut new = service(json!({"type": "NodePort", "ports": bare}));
        Services.prepare_update(&mut new, &old);
        assert_eq!(new["spec"]["ports"][EACH - 1]["nodePort"], EACH - 1);

        let distinct = |n: usize| json!({"port": 1, "name": format!("p{n}")});
        let mut ports: Vec<Value> = (0..EACH).map(distinct).collect();
        ports.push(distinct(EACH - 1));
        let mut errors = Vec::new();
        Services.validate(&service(json!({"ports": ports})), &mut errors);
        assert_eq!(
            errors,
            [FieldError::duplicate(
                format!("spec.ports[{EACH}].name"),
                format!("p{}", EACH - 1)
            )]
        );
        errors.clear();
        Services.validate(
            &service(json!({"ports": vec![json!({}); 1_000_000]})),
            &mut errors,
        );
        assert!((101..110).contains(&errors.len()), "{}", errors.len());
    }

    #[test]
    fn headless_and_external_claim_nothing() {
        for spec in [
            json!({"clusterIP": "None"}),
            json!({"type": "ExternalName", "externalName": "x.y"}),
        ] {
            let mut object = service(spec);
            assert!(!allocate(&mut object));
            assert_eq!(Services.claims(&object), []);
            let mut errors = Vec::new();
            Services.validate(&object, &mut errors);
            assert_eq!(errors, []);
        }
    }
}
