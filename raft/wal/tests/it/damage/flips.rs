//! One bit, at the first, a middle and the last byte of everything that there is.

use super::{Image, Moment, Outcome, REFUSED, TORN, WHOLE, built, check, frames, outcome};

fn flip(name: &str, offset: usize) -> impl Fn(&mut Image) {
    move |image| image.get_mut(name).unwrap()[offset] ^= 0x10
}

fn first_middle_last(from: usize, len: usize) -> [usize; 3] {
    [from, from + len / 2, from + len - 1]
}

#[test]
fn a_flip_in_a_segment_that_was_left() {
    let built = built();
    let segments = built.segments();
    for name in &segments[..segments.len() - 2] {
        let frames = frames(&built.images[0][name]);
        for at in first_middle_last(0, 32) {
            check(
                &built,
                &format!("header of {name} at {at}"),
                REFUSED,
                flip(name, at),
            );
        }
        for at in [32, 48, 2048, 4095] {
            check(
                &built,
                &format!("rest of the header of {name}"),
                WHOLE,
                flip(name, at),
            );
        }
        let (start, middle, seal) = (frames[0], frames[frames.len() / 2], frames[frames.len() - 1]);
        for (frame, (offset, _, payload)) in [("start", start), ("middle", middle), ("seal", seal)] {
            for at in first_middle_last(offset, 32 + payload) {
                check(
                    &built,
                    &format!("{frame} of {name} at {at}"),
                    REFUSED,
                    flip(name, at),
                );
            }
        }
    }
}

#[test]
fn a_flip_in_the_current_segment() {
    let built = built();
    let segments = built.segments();
    let current = &segments[segments.len() - 2];
    let frames = frames(&built.images[0][current]);
    let (first_of_last, last) = (frames[frames.len() - 2], frames[frames.len() - 1]);
    for (offset, _, payload) in &frames[..frames.len() - 2] {
        for at in first_middle_last(*offset, 32 + payload) {
            check(
                &built,
                &format!("before the last batch at {at}"),
                REFUSED,
                flip(current, at),
            );
        }
    }
    for (offset, _, payload) in [first_of_last, last] {
        for at in first_middle_last(offset, 32 + payload) {
            check(
                &built,
                &format!("the last batch at {at}"),
                TORN,
                flip(current, at),
            );
        }
    }
    // The committed index that a close writes.
    let closed = built.at(Moment::Closed);
    let end = last.0 + last.1;
    assert_eq!(closed[current][end + 8], 4);
    for at in first_middle_last(end, 32) {
        let mut damaged = closed.clone();
        flip(current, at)(&mut damaged);
        assert_eq!(
            outcome(&built, &damaged),
            Outcome::Refused,
            "the last frame at {at}"
        );
    }
}

#[test]
fn a_flip_beside_the_segments_in_use() {
    let built = built();
    let segments = built.segments();
    let ahead = &segments[segments.len() - 1];
    for at in first_middle_last(0, 32) {
        check(
            &built,
            &format!("{ahead}, made ahead, at {at}"),
            REFUSED,
            flip(ahead, at),
        );
    }
    check(
        &built,
        "behind the header of the one made ahead",
        WHOLE,
        flip(ahead, 5000),
    );
    for at in [0, 20, 4096, 4096 + 70] {
        check(
            &built,
            &format!("the spare at {at}"),
            WHOLE,
            flip(&built.spare(), at),
        );
    }
    // One of the two copies; the other may be the older one.
    for at in [0, 9, 20, 55, 4096, 4096 + 9, 4096 + 20, 4096 + 55, 2000] {
        check(&built, &format!("the mark at {at}"), WHOLE, flip("mark", at));
    }
    check(&built, "both copies of the mark", REFUSED, |image| {
        flip("mark", 3)(image);
        flip("mark", 4096 + 3)(image);
    });
}
