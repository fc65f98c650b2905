//! Range: a read barrier unless serializable, then one view of the local store.

use barque_proto::etcd::etcdserverpb::{
    RangeRequest, RangeResponse,
    range_request::{SortOrder, SortTarget},
};

use crate::{
    Error,
    server::Shared,
    translate::{self, Responses},
    validate,
};

/// Up to this many keys are read where the request was received.
const SMALL_RANGE_KEYS: i64 = 1000;

impl Shared {
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        validate::range(&request)?;
        if !request.serializable {
            self.refuse_on_learner()?;
            self.barrier().await?;
        }
        let small = is_small(&request);
        let query = translate::range(request);
        let result = if small {
            self.replica.store().reader().range(&query)?
        } else {
            self.read_at_length(move |reader| Ok(reader.range(&query)?))
                .await?
        };
        Ok(Responses {
            header: self.header(result.revision),
        }
        .range(result))
    }
}

/// Whether answering touches few keys: one key, a count, or a limit that can be pushed down.
pub(crate) fn is_small(request: &RangeRequest) -> bool {
    if request.range_end.is_empty() || request.count_only {
        return true;
    }
    // As the store tells it: a negative bound is one too.
    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    let in_key_order = request.sort_target() == SortTarget::Key && request.sort_order() != SortOrder::Descend;
    (1..=SMALL_RANGE_KEYS).contains(&request.limit) && !filtered && in_key_order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_look_at_every_key_is_not_small() {
        let page = RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            limit: 500,
            ..Default::default()
        };
        assert!(is_small(&page));
        assert!(is_small(&RangeRequest {
            key: "a".into(),
            ..Default::default()
        }));
        assert!(is_small(&RangeRequest {
            limit: 0,
            count_only: true,
            ..page.clone()
        }));
        assert!(!is_small(&RangeRequest {
            limit: 0,
            ..page.clone()
        }));
        assert!(!is_small(&RangeRequest {
            limit: 1001,
            ..page.clone()
        }));
        assert!(!is_small(&RangeRequest {
            sort_order: 2,
            ..page.clone()
        }));
        assert!(!is_small(&RangeRequest {
            sort_target: 3,
            ..page.clone()
        }));
        assert!(!is_small(&RangeRequest {
            min_mod_revision: 1,
            ..page.clone()
        }));
        let bounds: [fn(&mut RangeRequest) -> &mut i64; 4] = [
            |request| &mut request.min_mod_revision,
            |request| &mut request.max_mod_revision,
            |request| &mut request.min_create_revision,
            |request| &mut request.max_create_revision,
        ];
        for (i, bound) in bounds.iter().enumerate() {
            let mut filtered = page.clone();
            *bound(&mut filtered) = -1;
            assert!(!is_small(&filtered), "bound {i}");
        }
    }
}
