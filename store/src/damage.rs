//! The first sign that this member's own data is damaged, and whoever is to be told of it.
//!
//! A block that cannot be read is an error of the one read that met it, and the next read may be fine: without a place
//! where that is noted, the member would answer most of its readers and be taken for healthy.

use parking_lot::Mutex;

use crate::StoreError;

type Listener = Box<dyn FnOnce(String) + Send>;

/// Noted once; told once, to the one who listens, whichever of the two comes first.
#[derive(Default)]
pub(crate) struct Damage(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    what: Option<String>,
    listener: Option<Listener>,
}

impl Damage {
    /// Takes note of an error, if it says that data is damaged.
    pub fn note(&self, error: &StoreError) {
        if !error.is_damage() {
            return;
        }
        let mut noted = self.0.lock();
        if noted.what.is_some() {
            return;
        }
        noted.what = Some(error.to_string());
        tell(noted);
    }

    pub fn listen(&self, listener: Listener) {
        let mut noted = self.0.lock();
        noted.listener = Some(listener);
        tell(noted);
    }

    pub fn what(&self) -> Option<String> {
        self.0.lock().what.clone()
    }
}

fn tell(mut noted: parking_lot::MutexGuard<'_, Noted>) {
    let Some(what) = noted.what.clone() else { return };
    let Some(listener) = noted.listener.take() else {
        return;
    };
    // Whatever it does, it may ask for what is noted.
    drop(noted);
    listener(what);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn corrupt(detail: &str) -> StoreError {
        StoreError::Corrupt {
            what: "record",
            detail: detail.to_owned(),
        }
    }

    fn listening(damage: &Damage) -> Arc<Mutex<Vec<String>>> {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let hears = Arc::clone(&heard);
        damage.listen(Box::new(move |what| hears.lock().push(what)));
        heard
    }

    #[test]
    fn the_first_damage_is_told_once() {
        let damage = Damage::default();
        let heard = listening(&damage);
        damage.note(&StoreError::Engine("IO error: no space left".into()));
        assert!(heard.lock().is_empty() && damage.what().is_none());
        damage.note(&corrupt("a"));
        damage.note(&corrupt("b"));
        assert_eq!(*heard.lock(), ["corrupt record: a"]);
        assert_eq!(damage.what().as_deref(), Some("corrupt record: a"));
    }

    #[test]
    fn whoever_comes_late_hears_of_it_too() {
        let damage = Damage::default();
        damage.note(&StoreError::Engine(
            "Corruption: block checksum mismatch in 7.sst".into(),
        ));
        let heard = listening(&damage);
        assert_eq!(
            *heard.lock(),
            ["storage engine: Corruption: block checksum mismatch in 7.sst"]
        );
    }
}
