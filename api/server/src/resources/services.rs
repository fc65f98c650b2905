//! Services: cluster IPs and node ports are given out once each, as keys claimed in the service's transactions.

use std::net::Ipv4Addr;

use barque_machinery::{field_error::FieldError, gvk::GroupVersion, name};
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
    create_on_update: false,
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
        for (i, port) in items(spec, "ports").enumerate() {
            let number = port["nodePort"].as_i64().unwrap_or(0);
            let key = format!(
                "/registry/ranges/servicenodeports/{number}-{}",
                text(port, "protocol")
            );
            if number != 0 && !claims.iter().any(|c| c.key == key) {
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
    default(port, "protocol", "TCP");
    let number = port.get("port").cloned().unwrap_or_default();
    let is_zero = port.get("targetPort").is_some_and(|t| t == 0);
    if is_zero {
        port.remove("targetPort");
    }
    if !number.is_null() {
        default(port, "targetPort", number);
    }
}

/// A port that says nothing keeps the node port that the same port had.
fn keep_node_ports(new: &mut Value, old: &Value) {
    if !matches!(text(&new["spec"], "type"), "NodePort" | "LoadBalancer") {
        objects_at(&mut new["spec"], "ports").for_each(|port| drop(port.remove("nodePort")));
        return;
    }
    for port in objects_at(&mut new["spec"], "ports") {
        let same =
            |o: &&Value| o.get("port") == port.get("port") && o.get("protocol") == port.get("protocol");
        let kept = items(&old["spec"], "ports")
            .find(same)
            .and_then(|o| o.get("nodePort"))
            .cloned();
        if let (None, Some(kept)) = (port.get("nodePort"), kept) {
            port.insert("nodePort".into(), kept);
        }
    }
}

fn validate_ports(spec: &Value, errors: &mut Vec<FieldError>) {
    let several = items(spec, "ports").count() > 1;
    let mut names = Vec::new();
    for (i, port) in items(spec, "ports").enumerate() {
        let path = format!("spec.ports[{i}]");
        let name = text(port, "name");
        if name.is_empty() && several {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if let Some(problem) = name::dns1123_label(name).filter(|_| !name.is_empty()) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, problem));
        } else if !name.is_empty() && names.contains(&name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        names.push(name);
        pod_template::check_port(&port["port"], &format!("{path}.port"), errors);
        pod_template::check_one_of(port, &path, "protocol", &["SCTP", "TCP", "UDP"], errors);
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 && !u32::try_from(node_port).is_ok_and(|p| NODE_PORTS.contains(&p)) {
            let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            errors.push(FieldError::invalid(format!("{path}.nodePort"), node_port, detail));
        }
    }
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
