//! Names of kinds and resources: group, version, kind, resource.

use std::fmt;

/// A group and a version; the core group is the empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersion {
    pub group: &'static str,
    pub version: &'static str,
}

impl GroupVersion {
    pub const fn new(group: &'static str, version: &'static str) -> Self {
        Self { group, version }
    }

    pub const fn with_kind(self, kind: &'static str) -> GroupVersionKind {
        GroupVersionKind {
            group: self.group,
            version: self.version,
            kind,
        }
    }
}

/// As in `apiVersion`: `v1`, `apps/v1`.
impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.version),
            group => write!(f, "{group}/{}", self.version),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

impl GroupVersionKind {
    pub const fn group_version(&self) -> GroupVersion {
        GroupVersion {
            group: self.group,
            version: self.version,
        }
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind {
            group: self.group.into(),
            kind: self.kind.into(),
        }
    }
}

/// A kind whatever its version; prints as `Deployment.apps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKind {
    pub group: String,
    pub kind: String,
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_group(f, &self.kind, &self.group)
    }
}

/// A resource whatever its version; prints as `deployments.apps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupResource {
    pub group: String,
    pub resource: String,
}

impl GroupResource {
    pub fn new(group: &str, resource: &str) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
        }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_group(f, &self.resource, &self.group)
    }
}

fn write_with_group(f: &mut fmt::Formatter<'_>, what: &str, group: &str) -> fmt::Result {
    match group {
        "" => f.write_str(what),
        group => write!(f, "{what}.{group}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_group_is_not_printed() {
        assert_eq!(GroupVersion::new("", "v1").to_string(), "v1");
        assert_eq!(GroupVersion::new("apps", "v1").to_string(), "apps/v1");
        assert_eq!(
            GroupResource::new("apps", "deployments").to_string(),
            "deployments.apps"
        );
        assert_eq!(
            GroupVersion::new("", "v1")
                .with_kind("Pod")
                .group_kind()
                .to_string(),
            "Pod"
        );
    }
}
