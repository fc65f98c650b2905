//! Brings what a client sent into the form that a typed decoder would make of it: unknown fields and nulls go,
//! quantities are strings; wrong types are refused.

use barque_machinery::quantity::Quantity;
use serde_json::Value;

use super::compile::{Node, NodeId, SchemaSet};

/// So many unknown fields are named; all are dropped.
const MAX_UNKNOWN: usize = 100;

impl SchemaSet {
    /// Normalises `value` against the definition `name`. Answers the paths of the fields that it does not
    /// know and that were dropped, or what has a wrong type, as Go's decoder says it.
    pub fn normalize(&self, name: &str, value: &mut Value) -> Result<Vec<String>, String> {
        let Some(root) = self.find(name) else {
            return Ok(Vec::new());
        };
        let mut walk = Walk {
            set: self,
            path: String::new(),
            unknown: Vec::new(),
        };
        walk.visit(root, value, "")?;
        Ok(walk.unknown)
    }
}

struct Walk<'s> {
    set: &'s SchemaSet,
    path: String,
    unknown: Vec<String>,
}

impl<'s> Walk<'s> {
    /// `owner`: the struct that holds the value.
    fn visit(&mut self, id: NodeId, value: &mut Value, owner: &'s str) -> Result<(), String> {
        match (self.set.node(id), &mut *value) {
            (Node::Any, _) | (_, Value::Null) => Ok(()),
            (Node::Object { name, fields }, Value::Object(object)) => {
                let mut names: Vec<String> = object.keys().cloned().collect();
                for field in names.drain(..) {
                    let here = self.enter(&field);
                    match (fields.get(&field), object.get_mut(&field)) {
                        (Some(_), Some(Value::Null)) => drop(object.remove(&field)),
                        (Some(id), Some(value)) => self.visit(*id, value, name)?,
                        _ => {
                            if self.unknown.len() < MAX_UNKNOWN {
                                self.unknown.push(self.path.clone());
                            }
                            object.remove(&field);
                        }
                    }
                    self.path.truncate(here);
                }
                Ok(())
            }
            (Node::Map(id), Value::Object(object)) => {
                let is_text = matches!(self.set.node(*id), Node::Text);
                for (key, value) in object.iter_mut() {
                    let here = self.enter(key);
                    if is_text && value.is_null() {
                        *value = "".into();
                    }
                    self.visit(*id, value, owner)?;
                    self.path.truncate(here);
                }
                Ok(())
            }
            (Node::Array(id), Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    let here = self.path.len();
                    self.path.push_str(&format!("[{i}]"));
                    self.visit(*id, item, owner)?;
                    self.path.truncate(here);
                }
                Ok(())
            }
            (Node::Text, Value::String(_)) | (Node::Boolean, Value::Bool(_)) => Ok(()),
            (Node::Number, Value::Number(_)) => Ok(()),
            (Node::Quantity, Value::String(text)) => canonical(text).map(|text| *value = text),
            (Node::IntOrText, Value::String(_)) => Ok(()),
            (Node::Integer(bits), Value::Number(number)) if fits(number, *bits) => Ok(()),
            (Node::IntOrText, Value::Number(number)) if fits(number, 32) => Ok(()),
            (Node::Quantity, Value::Number(number)) => {
                canonical(&number.to_string()).map(|text| *value = text)
            }
            (node, value) => Err(self.mismatch(node, value, owner)),
        }
    }

    /// Appends a field to the path; answers the length to go back to.
    fn enter(&mut self, field: &str) -> usize {
        let here = self.path.len();
        if here > 0 {
            self.path.push('.');
        }
        self.path.push_str(field);
        here
    }

    fn mismatch(&self, node: &Node, value: &Value, owner: &str) -> String {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".into(),
            Value::Number(number) => format!("number {number}"),
            Value::String(_) => "string".into(),
            Value::Array(_) => "array".into(),
            Value::Object(_) => "object".into(),
        };
        let expected = self.go_type(node);
        if owner.is_empty() {
            return format!("json: cannot unmarshal {found} into Go value of type {expected}");
        }
        // Go names the fields of structs only, not the places in arrays.
        let path: String = self
            .path
            .split('.')
            .map(|s| s.split('[').next().unwrap_or(s))
            .collect::<Vec<_>>()
            .join(".");
        format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {expected}")
    }

    fn go_type(&self, node: &Node) -> String {
        match node {
            Node::Object { name, .. } => format!("v1.{name}"),
            Node::Map(id) => format!("map[string]{}", self.go_type(self.set.node(*id))),
            Node::Array(id) => format!("[]{}", self.go_type(self.set.node(*id))),
            Node::Text => "string".into(),
            Node::Integer(bits) => format!("int{bits}"),
            Node::Number => "float64".into(),
            Node::Boolean => "bool".into(),
            Node::Quantity => "resource.Quantity".into(),
            Node::IntOrText => "intstr.IntOrString".into(),
            Node::Any | Node::Alias(_) => "interface {}".into(),
        }
    }
}

/// A quantity as Kubernetes writes it.
fn canonical(text: &str) -> Result<Value, String> {
    text.parse::<Quantity>()
        .map(|q| q.to_string().into())
        .map_err(|e| e.to_string())
}

fn fits(number: &serde_json::Number, bits: u8) -> bool {
    match number.as_i64() {
        Some(n) if bits == 32 => i32::try_from(n).is_ok(),
        Some(_) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::MAX_UNKNOWN;
    use crate::schema::schemas;

    #[test]
    fn very_many_unknown_fields_go_and_some_are_named() {
        let mut pod: Value = (0..100_000).map(|n| (format!("f{n}"), json!(1))).collect();
        let unknown = schemas().normalize("io.k8s.api.core.v1.Pod", &mut pod);
        assert_eq!((unknown.unwrap().len(), pod), (MAX_UNKNOWN, json!({})));
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "foo": 1,
            "metadata": {"name": "a", "creationTimestamp": null, "labels": {"any": "x", "none": null}, "lables": {}},
            "spec": {
                "containers": [{"name": "c", "imagePullPolice": "x", "resources": {"limits": {"cpu": 2}}}],
                "bar": {"deep": 1},
            },
        });
        let mut unknown = schemas().normalize("io.k8s.api.core.v1.Pod", &mut pod).unwrap();
        unknown.sort();
        assert_eq!(
            unknown,
            [
                "foo",
                "metadata.lables",
                "spec.bar",
                "spec.containers[0].imagePullPolice"
            ]
        );
        assert_eq!(
            pod,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "labels": {"any": "x", "none": ""}},
                "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
            })
        );
    }

    #[test]
    fn wrong_types_read_as_from_go() {
        let check = |spec: serde_json::Value, text: &str| {
            let mut object = json!({"spec": spec});
            let error = schemas()
                .normalize("io.k8s.api.apps.v1.Deployment", &mut object)
                .unwrap_err();
            assert_eq!(error, text);
        };
        check(
            json!({"replicas": "three"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        );
        check(
            json!({"replicas": 3_000_000_000u64}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        );
        check(
            json!({"template": {"spec": {"containers": [{"image": 5}]}}}),
            "json: cannot unmarshal number 5 into Go struct field Container.spec.template.spec.containers.image of \
             type string",
        );
        check(
            json!([]),
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        );
    }
}
