//! Bodies as kubectl 1.32 sends them, byte for byte, and what they say.

use serde_json::{Value, json};

use super::{ProtobufError, decode};

const CONFIG_MAP: &[u8] = b"\
    k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x124\x0a\x18\x0a\x08settings\x12\0\x1a\0\"\0*\x002\x008\0B\0\
    \x12\x0d\x0a\x05color\x12\x04blue\x12\x09\x0a\x04size\x12\x013\x1a\0\"\0";
const SECRET: &[u8] = b"\
    k8s\0\x0a\x0c\x0a\x02v1\x12\x06Secret\x12(\x0a\x15\x0a\x05token\x12\0\x1a\0\"\0*\x002\x008\0B\0\x12\x0d\
    \x0a\x03key\x12\x06s3cret\x1a\0\x1a\0\"\0";
const NAMESPACE: &[u8] = b"\
    k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x1c\x0a\x14\x0a\x04team\x12\0\x1a\0\"\0*\x002\x008\0B\0\x12\
    \0\x1a\x02\x0a\0\x1a\0\"\0";
const DEPLOYMENT: &[u8] = b"\
    k8s\0\x0a\x15\x0a\x07apps/v1\x12\x0aDeployment\x12\xbd\x01\x0a\x1f\x0a\x03web\x12\0\x1a\0\"\0*\x002\x008\
    \0B\0Z\x0a\x0a\x03app\x12\x03web\x12\x8b\x01\x08\x02\x12\x0c\x0a\x0a\x0a\x03app\x12\x03web\x1aq\x0a\
    \x1c\x0a\0\x12\0\x1a\0\"\0*\x002\x008\0B\0Z\x0a\x0a\x03app\x12\x03web\x12Q\x123\x0a\x05nginx\x12\x0angin\
    x:1.27*\x002\x0a\x0a\0\x10\0\x18P\"\0*\0B\0j\0r\0\x80\x01\0\x88\x01\0\x90\x01\0\xa2\x01\0\x1a\x002\0B\0J\
    \0R\0X\0`\0h\0\x82\x01\0\x8a\x01\0\x9a\x01\0\xc2\x01\0\"\x02\x0a\0(\x008\0\x1a\x0c\x08\0\x10\0\x18\0\
    \x20\0(\x008\0\x1a\0\"\0";
const SERVICE: &[u8] = b"\
    k8s\0\x0a\x0d\x0a\x02v1\x12\x07Service\x12o\x0a#\x0a\x05front\x12\0\x1a\0\"\0*\x002\x008\0B\0Z\x0c\x0a\
    \x03app\x12\x05front\x12D\x0a\x1b\x0a\x0780-8080\x12\x03TCP\x18P\"\x07\x08\0\x10\x90?\x1a\0(\0\x12\
    \x0c\x0a\x03app\x12\x05front\x1a\0\"\x09ClusterIP:\0B\0R\0Z\0`\0h\0\x1a\x02\x0a\0\x1a\0\"\0";
const ACCESS_REVIEW: &[u8] = b"\
    k8s\0\x0a2\x0a\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x12<\x0a\x10\x0a\0\x12\0\
    \x1a\0\"\0*\x002\x008\0B\0\x12\x1e\x0a\x1c\x0a\x07default\x12\x03get\x1a\0\"\0*\x04pods2\0:\0\x1a\x08\
    \x08\0\x12\0\x1a\0\x20\0\x1a\0\"\0";

const ALL: &[&[u8]] = &[CONFIG_MAP, SECRET, NAMESPACE, DEPLOYMENT, SERVICE, ACCESS_REVIEW];

#[test]
fn what_kubectl_creates() {
    let check = |body: &[u8], expect: Value| assert_eq!(decode(body), Ok(expect));
    check(
        CONFIG_MAP,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "settings" },
            "data": { "color": "blue", "size": "3" },
        }),
    );
    check(
        SECRET,
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "token" },
            "data": { "key": "czNjcmV0" },
        }),
    );
    check(
        NAMESPACE,
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "team" }, "spec": {}, "status": {},
        }),
    );
    check(
        SERVICE,
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "front", "labels": { "app": "front" } },
            "spec": {
                "ports": [{ "name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080 }],
                "selector": { "app": "front" },
                "type": "ClusterIP",
            },
            "status": { "loadBalancer": {} },
        }),
    );
    check(
        ACCESS_REVIEW,
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": { "resourceAttributes": { "namespace": "default", "verb": "get", "resource": "pods" } },
            "status": { "allowed": false },
        }),
    );
}

#[test]
fn a_deployment_with_its_pod_template() {
    let expect = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "containers": [
                        { "name": "nginx", "image": "nginx:1.27", "ports": [{ "containerPort": 80 }], "resources": {} },
                    ],
                },
            },
            "strategy": {},
        },
        "status": {},
    });
    assert_eq!(decode(DEPLOYMENT), Ok(expect));
}

/// Cut off anywhere, a body is an error or a smaller object; with any bit changed, it is anything but a panic. (The
/// last four bytes are two empty texts of the envelope.)
#[test]
fn damaged_bodies_never_panic() {
    for body in ALL {
        for length in 0..body.len() - 4 {
            let cut = decode(&body[..length]);
            assert_ne!(cut, decode(body), "{length}");
        }
        for place in 0..body.len() {
            for bit in 0..8 {
                let mut damaged = body.to_vec();
                damaged[place] ^= 1 << bit;
                let _no_panic = decode(&damaged);
            }
        }
    }
}

#[test]
fn envelopes_that_are_refused() {
    assert_eq!(decode(b""), Err(ProtobufError::Magic));
    assert_eq!(decode(b"k8s"), Err(ProtobufError::Magic));
    assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
    let unknown = |kind: &str| ProtobufError::UnknownKind {
        api_version: String::new(),
        kind: kind.to_owned(),
    };
    assert_eq!(decode(b"k8s\0"), Err(unknown("")));
    assert_eq!(decode(b"k8s\0\x0a\x05\x12\x03Job"), Err(unknown("Job")));
    let encoded = decode(b"k8s\0\x1a\x04gzip");
    assert_eq!(encoded, Err(ProtobufError::Envelope("its content is encoded")));
    let json = decode(b"k8s\0\x22\x10application/json");
    assert_eq!(json, Err(ProtobufError::Envelope("its content is not protobuf")));
}

#[test]
fn options_of_a_delete_are_part_of_every_group() {
    let body = b"k8s\0\x0a\x17\x0a\x06v1test\x12\x0dDeleteOptions\x12\x0c\x08\0\x22\x08Orphan!!";
    let expect = json!({
        "apiVersion": "v1test", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "propagationPolicy": "Orphan!!",
    });
    assert_eq!(decode(body), Ok(expect));
}
