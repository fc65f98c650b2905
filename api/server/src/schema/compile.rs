//! Schemas in a form that is quick to walk: nodes in an arena, properties by name.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::generate::SCHEMA_PATH;

pub type NodeId = usize;

#[derive(Debug)]
pub enum Node {
    /// `name`: the Go type's, for error texts.
    Object {
        name: String,
        fields: HashMap<String, NodeId>,
    },
    Map(NodeId),
    Array(NodeId),
    Text,
    /// Bits of the integer: 32 or 64.
    Integer(u8),
    Number,
    Boolean,
    Quantity,
    IntOrText,
    Any,
    /// A named definition that is being compiled, or is compiled, elsewhere.
    Alias(NodeId),
}

/// All definitions, compiled.
#[derive(Debug)]
pub struct SchemaSet {
    nodes: Vec<Node>,
    by_name: HashMap<String, NodeId>,
}

impl SchemaSet {
    pub fn compile(definitions: &Map<String, Value>) -> Self {
        let mut set = Self {
            nodes: Vec::new(),
            by_name: HashMap::new(),
        };
        for name in definitions.keys() {
            let id = set.push(Node::Any);
            set.by_name.insert(name.clone(), id);
        }
        for (name, schema) in definitions {
            let id = set.by_name[name];
            set.nodes[id] = set.node_of(name, schema);
        }
        set
    }

    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// A node that is no alias.
    pub fn node(&self, mut id: NodeId) -> &Node {
        while let Node::Alias(to) = &self.nodes[id] {
            id = *to;
        }
        &self.nodes[id]
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn add(&mut self, schema: &Value) -> NodeId {
        let node = self.node_of("", schema);
        self.push(node)
    }

    fn node_of(&mut self, name: &str, schema: &Value) -> Node {
        if let Some(target) = reference(schema).and_then(|r| self.find(r)) {
            return Node::Alias(target);
        }
        if name.ends_with(".Quantity") {
            return Node::Quantity;
        }
        if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
            return Node::IntOrText;
        }
        if let Some(properties) = schema["properties"].as_object() {
            let fields = properties
                .iter()
                .map(|(field, schema)| (field.clone(), self.add(schema)));
            let fields = fields.collect();
            return Node::Object {
                name: go_name(name),
                fields,
            };
        }
        if schema["additionalProperties"].is_object() {
            return Node::Map(self.add(&schema["additionalProperties"]));
        }
        match schema["type"].as_str().unwrap_or_default() {
            "array" => Node::Array(self.add(&schema["items"])),
            "string" => Node::Text,
            "integer" if schema["format"] == "int32" => Node::Integer(32),
            "integer" => Node::Integer(64),
            "number" => Node::Number,
            "boolean" => Node::Boolean,
            _ => Node::Any,
        }
    }
}

/// The definition that a schema refers to, directly or beside a description.
fn reference(schema: &Value) -> Option<&str> {
    let direct = schema["$ref"].as_str();
    let reference = direct.or_else(|| schema["allOf"][0]["$ref"].as_str())?;
    reference.strip_prefix(SCHEMA_PATH)
}

fn go_name(definition: &str) -> String {
    definition.rsplit('.').next().unwrap_or_default().into()
}
