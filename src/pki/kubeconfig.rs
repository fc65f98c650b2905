//! A kubeconfig with everything embedded, so that the one file can be copied away.

use std::path::Path;

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{KeyPairPaths, Tree};
use crate::files;

pub struct Kubeconfig<'a> {
    pub cluster: &'a str,
    pub user: &'a str,
    pub server: &'a str,
}

impl Kubeconfig<'_> {
    pub fn write(&self, tree: &Tree, pair: &KeyPairPaths, path: &Path) -> anyhow::Result<()> {
        let context = format!("{}@{}", self.user, self.cluster);
        // JSON is YAML: nothing to quote by hand.
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": self.cluster, "cluster": {
                "server": self.server,
                "certificate-authority-data": embed(&tree.kubernetes_ca())?,
            }}],
            "users": [{"name": self.user, "user": {
                "client-certificate-data": embed(&pair.cert)?,
                "client-key-data": embed(&pair.key)?,
            }}],
            "contexts": [{"name": context, "context": {"cluster": self.cluster, "user": self.user}}],
        });
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        files::replace(path, files::PRIVATE, text.as_bytes())
    }
}

fn embed(path: &Path) -> anyhow::Result<String> {
    let content = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(STANDARD.encode(content))
}
