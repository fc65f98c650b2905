//! How a range read is to be answered besides which keys it reads: [`Shape`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{KeyValue, Revision};

/// As etcd applies it: filters first, then the order, then the limit, and what is not asked for is left out at last. The
/// count is of all keys of the range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    pub order: Order,
    pub keys_only: bool,
    pub count_only: bool,
    /// Revisions that a version must have been changed and created at, at least and at most; 0: any.
    pub min_mod: Revision,
    pub max_mod: Revision,
    pub min_create: Revision,
    pub max_create: Revision,
}

/// Of keys and values alone: no two versions are alike in them, so there is one right order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    #[default]
    ByKey,
    ByKeyDescending,
    ByValue,
    ByValueDescending,
}

impl Shape {
    /// Nothing is asked for but the keys and what they hold.
    pub fn is_plain(&self) -> bool {
        *self == Shape::default()
    }

    pub fn passes(&self, kv: &KeyValue) -> bool {
        let within = |revision, min, max| revision >= min && (max == 0 || revision <= max);
        within(kv.mod_revision, self.min_mod, self.max_mod)
            && within(kv.create_revision, self.min_create, self.max_create)
    }

    /// What is answered of the keys of a range, which are given in the order of keys; and whether the limit cut it.
    pub fn apply(&self, kvs: Vec<KeyValue>, limit: usize) -> (Vec<KeyValue>, bool) {
        if self.count_only {
            return (Vec::new(), false);
        }
        let mut kvs: Vec<KeyValue> = kvs.into_iter().filter(|kv| self.passes(kv)).collect();
        match self.order {
            Order::ByKey => {}
            Order::ByKeyDescending => kvs.reverse(),
            Order::ByValue => kvs.sort_by(|one, other| one.value.cmp(&other.value)),
            Order::ByValueDescending => kvs.sort_by(|one, other| other.value.cmp(&one.value)),
        }
        let is_cut = limit > 0 && limit < kvs.len();
        if is_cut {
            kvs.truncate(limit);
        }
        if self.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        (kvs, is_cut)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            Order::ByKey => {}
            order => write!(out, " {order:?}")?,
        }
        let flags = [(self.keys_only, " keys only"), (self.count_only, " count only")];
        for (_, name) in flags.iter().filter(|(on, _)| *on) {
            out.write_str(name)?;
        }
        let bounds = [
            (self.min_mod, " mod >= "),
            (self.max_mod, " mod <= "),
            (self.min_create, " create >= "),
            (self.max_create, " create <= "),
        ];
        for (bound, name) in bounds.iter().filter(|(bound, _)| *bound != 0) {
            write!(out, "{name}{bound}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str, create_revision: Revision, mod_revision: Revision) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
            create_revision,
            mod_revision,
            version: 1,
            lease: 0,
        }
    }

    fn shown(shape: Shape, limit: usize) -> (String, bool) {
        let kvs = vec![kv("a", "3", 2, 9), kv("b", "1", 3, 3), kv("c", "2", 5, 7)];
        let (kvs, is_cut) = shape.apply(kvs, limit);
        let names = kvs.iter().map(|kv| format!("{}{} ", kv.key, kv.value));
        (names.collect::<String>().trim_end().to_owned(), is_cut)
    }

    #[test]
    fn filters_come_before_the_order_and_the_limit_after_it() {
        let check = |shape, limit, expected: (&str, bool)| {
            let (names, is_cut) = shown(shape, limit);
            assert_eq!((names.as_str(), is_cut), expected, "{shape:?}");
        };
        let plain = Shape::default();
        check(plain, 0, ("a3 b1 c2", false));
        check(plain, 2, ("a3 b1", true));
        check(
            Shape {
                order: Order::ByValue,
                ..plain
            },
            2,
            ("b1 c2", true),
        );
        check(
            Shape {
                order: Order::ByKeyDescending,
                ..plain
            },
            1,
            ("c2", true),
        );
        check(
            Shape {
                min_mod: 4,
                order: Order::ByValueDescending,
                ..plain
            },
            0,
            ("a3 c2", false),
        );
        check(Shape { min_mod: 4, ..plain }, 2, ("a3 c2", false));
        check(
            Shape {
                max_create: 3,
                max_mod: 8,
                ..plain
            },
            0,
            ("b1", false),
        );
        check(
            Shape {
                keys_only: true,
                order: Order::ByValue,
                ..plain
            },
            2,
            ("b c", true),
        );
        check(
            Shape {
                count_only: true,
                ..plain
            },
            2,
            ("", false),
        );
    }
}
