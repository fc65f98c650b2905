//! Whether a connection is of use to anybody: [`Activity`] counts its requests, until the last byte of their answers.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body::{Body, Frame, SizeHint};

/// Of one connection; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    begun: AtomicU64,
}

/// A request that is under way, until this is dropped.
#[derive(Debug)]
pub struct Busy(Activity);

impl Activity {
    pub fn begin(&self) -> Busy {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Resolves when for at least so long, and less than twice that, there was no request. Requests pay no more than
    /// for being counted: nobody is woken by one.
    pub async fn idle(&self, timeout: Duration) {
        let mut before = None;
        loop {
            let begun = self.0.begun.load(Ordering::Relaxed);
            let is_open = self.0.open.load(Ordering::Relaxed) > 0;
            if !is_open && before == Some(begun) {
                return;
            }
            // What is open now may end right afterwards: that is when its time begins.
            before = (!is_open).then_some(begun);
            tokio::time::sleep(timeout).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body, with the request that it keeps open.
pub struct Answer<B> {
    body: B,
    _busy: Busy,
}

impl Busy {
    pub fn until_answered<B>(self, response: Response<B>) -> Response<Answer<B>> {
        response.map(|body| Answer { body, _busy: self })
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
