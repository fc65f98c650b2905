//! One watch response as it goes over the wire: a few fields of its own around events that are encoded already.
//!
//! An event is encoded by whichever watcher needs it first, once without and once with the version before, and
//! its bytes are shared by all others.

use barque_proto::etcd::{
    etcdserverpb::ResponseHeader,
    mvccpb::{self, event::EventType},
};
use barque_store::{
    KeyValue,
    watch::{Event, EventKind, WatchId},
};
use bytes::{BufMut, Bytes};
use prost::{
    Message,
    encoding::{self, WireType, encoded_len_varint, key_len},
};

/// The numbers of `etcdserverpb.WatchResponse`'s fields.
mod field {
    pub const HEADER: u32 = 1;
    pub const WATCH_ID: u32 = 2;
    pub const CREATED: u32 = 3;
    pub const CANCELED: u32 = 4;
    pub const COMPACT_REVISION: u32 = 5;
    pub const CANCEL_REASON: u32 = 6;
    pub const FRAGMENT: u32 = 7;
    pub const EVENTS: u32 = 11;
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub header: ResponseHeader,
    pub watch_id: WatchId,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: String,
    pub fragment: bool,
    events: Vec<Bytes>,
    /// What the events take in the frame, their tags and lengths included.
    events_len: usize,
}

impl Frame {
    pub fn new(header: ResponseHeader, watch_id: WatchId) -> Self {
        Self {
            header,
            watch_id,
            ..Self::default()
        }
    }

    pub fn canceled(header: ResponseHeader, watch_id: WatchId) -> Self {
        Self {
            canceled: true,
            ..Self::new(header, watch_id)
        }
    }

    pub fn push(&mut self, event: Bytes) {
        self.events_len += key_len(field::EVENTS) + encoded_len_varint(event.len() as u64) + event.len();
        self.events.push(event);
    }

    pub fn events(&self) -> usize {
        self.events.len()
    }

    pub fn encoded_len(&self) -> usize {
        let mut len = encoding::message::encoded_len(field::HEADER, &self.header) + self.events_len;
        if self.watch_id != 0 {
            len += encoding::int64::encoded_len(field::WATCH_ID, &self.watch_id);
        }
        if self.compact_revision != 0 {
            len += encoding::int64::encoded_len(field::COMPACT_REVISION, &self.compact_revision);
        }
        if !self.cancel_reason.is_empty() {
            len += encoding::string::encoded_len(field::CANCEL_REASON, &self.cancel_reason);
        }
        for flag in [self.created, self.canceled, self.fragment] {
            // The numbers are all below 16: a tag of one byte, a value of one.
            len += if flag { 2 } else { 0 };
        }
        len
    }

    /// Byte for byte what a generated encoder would write.
    pub fn encode(&self, buffer: &mut impl BufMut) {
        encoding::message::encode(field::HEADER, &self.header, buffer);
        if self.watch_id != 0 {
            encoding::int64::encode(field::WATCH_ID, &self.watch_id, buffer);
        }
        encode_flag(field::CREATED, self.created, buffer);
        encode_flag(field::CANCELED, self.canceled, buffer);
        if self.compact_revision != 0 {
            encoding::int64::encode(field::COMPACT_REVISION, &self.compact_revision, buffer);
        }
        if !self.cancel_reason.is_empty() {
            encoding::string::encode(field::CANCEL_REASON, &self.cancel_reason, buffer);
        }
        encode_flag(field::FRAGMENT, self.fragment, buffer);
        for event in &self.events {
            encoding::encode_key(field::EVENTS, WireType::LengthDelimited, buffer);
            encoding::encode_varint(event.len() as u64, buffer);
            buffer.put_slice(event);
        }
    }

    /// The same events in frames of at most `max_bytes` (or one event), all but the last marked as fragments.
    pub fn fragments(mut self, max_bytes: usize) -> Vec<Frame> {
        if self.encoded_len() <= max_bytes || self.events.len() < 2 {
            return vec![self];
        }
        let events = std::mem::take(&mut self.events);
        self.events_len = 0;
        let mut done = Vec::new();
        let mut current = Frame {
            fragment: true,
            ..self.clone()
        };
        for event in events {
            // The event's own tag and length are less than 16 bytes.
            if current.events() > 0 && current.encoded_len() + event.len() + 16 > max_bytes {
                done.push(std::mem::replace(
                    &mut current,
                    Frame {
                        fragment: true,
                        ..self.clone()
                    },
                ));
            }
            current.push(event);
        }
        current.fragment = false;
        done.push(current);
        done
    }
}

fn encode_flag(number: u32, flag: bool, buffer: &mut impl BufMut) {
    if flag {
        encoding::bool::encode(number, &flag, buffer);
    }
}

/// The event's wire form, made now or earlier. With `prev_kv` the version before it must have been read.
pub(crate) fn encoded(event: &Event, prev_kv: bool) -> Bytes {
    let plain = || event.encodings.etcd.get_or_init(|| encode(event, None));
    let bytes = match event.prev.get() {
        Some(prev) if prev_kv => event
            .encodings
            .etcd_with_prev
            .get_or_init(|| encode(event, Some(prev))),
        _ => plain(),
    };
    bytes.clone()
}

fn encode(event: &Event, prev: Option<&KeyValue>) -> Bytes {
    let kind = match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    };
    let message = mvccpb::Event {
        r#type: kind.into(),
        kv: Some(crate::translate::key_value(event.kv.clone())),
        prev_kv: prev.map(|prev| crate::translate::key_value(prev.clone())),
    };
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use barque_proto::etcd::etcdserverpb::WatchResponse;
    use barque_store::{LeaseId, Revision, watch::Previous};
    use proptest::prelude::*;

    use super::*;

    fn event(key: &str, value: usize, prev: bool) -> Event {
        let kv = KeyValue {
            key: key.to_owned().into(),
            value: vec![b'v'; value].into(),
            create_revision: Revision(2),
            mod_revision: Revision(7),
            version: 3,
            lease: LeaseId(11),
            ..Default::default()
        };
        let prev = prev.then(|| KeyValue {
            mod_revision: Revision(5),
            version: 2,
            ..kv.clone()
        });
        Event {
            kind: EventKind::Put,
            kv,
            prev: prev.map_or(Previous::NONE, Previous::inline),
            encodings: Default::default(),
        }
    }

    fn header() -> ResponseHeader {
        ResponseHeader {
            cluster_id: u64::MAX,
            member_id: 3,
            revision: 7,
            raft_term: 2,
        }
    }

    fn decoded(frame: &Frame) -> WatchResponse {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), frame.encoded_len());
        WatchResponse::decode(bytes.as_slice()).unwrap()
    }

    proptest! {
        #[test]
        fn a_frame_is_what_prost_would_have_written(
            watch_id in any::<i64>(),
            created in any::<bool>(),
            canceled in any::<bool>(),
            fragment in any::<bool>(),
            compact_revision in prop_oneof![Just(0), any::<i64>()],
            cancel_reason in prop_oneof![Just(String::new()), ".{1,40}"],
            values in prop::collection::vec(0usize..300, 0..5),
            prev_kv in any::<bool>(),
        ) {
            let mut frame = Frame {
                created, canceled, fragment, compact_revision,
                cancel_reason: cancel_reason.clone(),
                ..Frame::new(header(), watch_id)
            };
            let mut expected = WatchResponse {
                header: Some(header()), watch_id, created, canceled, compact_revision, cancel_reason, fragment,
                events: Vec::new(),
            };
            for value in values {
                let event = event("key", value, value % 2 == 0);
                frame.push(encoded(&event, prev_kv));
                expected.events.push(mvccpb::Event {
                    r#type: 0,
                    kv: Some(crate::translate::key_value(event.kv.clone())),
                    prev_kv: event.prev.get().cloned().filter(|_| prev_kv).map(crate::translate::key_value),
                });
            }
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), frame.encoded_len());
            prop_assert_eq!(&bytes, &expected.encode_to_vec());
        }
    }

    #[test]
    fn an_event_is_encoded_once_for_all_watchers() {
        let with_prev = event("key", 100, true);
        assert_eq!(
            encoded(&with_prev, true).as_ptr(),
            encoded(&with_prev, true).as_ptr()
        );
        assert_eq!(
            encoded(&with_prev, false).as_ptr(),
            encoded(&with_prev, false).as_ptr()
        );
        let created = event("key", 100, false);
        assert_eq!(
            encoded(&created, true).as_ptr(),
            encoded(&created, false).as_ptr()
        );
    }

    #[test]
    fn a_deletion_carries_key_and_revision_alone() {
        let kv = KeyValue {
            key: "gone".into(),
            mod_revision: Revision(9),
            ..Default::default()
        };
        let deletion = Event {
            kind: EventKind::Delete,
            kv,
            prev: Previous::NONE,
            encodings: Default::default(),
        };
        let message = mvccpb::Event::decode(encoded(&deletion, true)).unwrap();
        let kv = mvccpb::KeyValue {
            key: "gone".into(),
            mod_revision: 9,
            ..Default::default()
        };
        assert_eq!(
            message,
            mvccpb::Event {
                r#type: 1,
                kv: Some(kv),
                prev_kv: None
            }
        );
    }

    #[test]
    fn fragments_are_bounded_and_hold_every_event_once() {
        let mut frame = Frame::new(header(), 4);
        for n in 0..50 {
            frame.push(encoded(&event(&format!("key{n:02}"), 100, false), false));
        }
        let whole = decoded(&frame).events;
        let parts: Vec<_> = frame.clone().fragments(1000).iter().map(decoded).collect();
        assert!(parts.len() > 5);
        assert!(
            parts
                .iter()
                .all(|part| part.encoded_len() <= 1000 && part.watch_id == 4)
        );
        let (last, others) = parts.split_last().unwrap();
        assert!(!last.fragment && others.iter().all(|part| part.fragment));
        assert_eq!(
            parts
                .iter()
                .flat_map(|part| part.events.clone())
                .collect::<Vec<_>>(),
            whole
        );
        assert_eq!(frame.clone().fragments(usize::MAX).len(), 1);
        assert_eq!(frame.fragments(1).len(), 50, "an event is never split");
    }
}
