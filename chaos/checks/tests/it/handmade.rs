//! Small histories written by hand: [`Handmade`], and what is right or wrong about some of them.

use barque_checks::{
    History, Verdict,
    history::{Answer, Compare, KeyValue, Operation, Outcome, Relation, Request, Response, Shape, Target},
    linearizability::by_values,
    minimal::minimal,
};

use super::{assert_caught, check, store::Store};

pub const VALUES: &str = "linearizable by values";
pub const REVISIONS: &str = "linearizable by revision";

/// Operations that are run one after the other on a store which a test may meddle with.
pub struct Handmade {
    pub store: Store,
    pub operations: Vec<Operation>,
}

impl Handmade {
    pub fn new() -> Handmade {
        Handmade {
            store: Store::new(),
            operations: Vec::new(),
        }
    }

    /// Called at the moment, done and answered in the two that follow.
    pub fn run(&mut self, client: u32, call: u64, request: Request) -> usize {
        self.run_within(client, call, call + 1, call + 2, request)
    }

    pub fn run_within(&mut self, client: u32, call: u64, effect: u64, ret: u64, request: Request) -> usize {
        let outcome = match self.store.run(&request, effect) {
            Ok(response) => Outcome::Done(response),
            Err(error) => Outcome::NotApplied(error),
        };
        self.record(client, call, Some(ret), request, outcome)
    }

    /// As it was answered, whatever the store would say.
    pub fn claim(&mut self, client: u32, call: u64, request: Request, answer: Answer) -> usize {
        let revision = self.store.revision;
        let outcome = Outcome::Done(Response { revision, answer });
        self.record(client, call, Some(call + 2), request, outcome)
    }

    pub fn unknown(&mut self, client: u32, call: u64, request: Request) -> usize {
        self.record(
            client,
            call,
            None,
            request,
            Outcome::Unknown("timed out".to_owned()),
        )
    }

    fn record(
        &mut self,
        client: u32,
        call: u64,
        ret: Option<u64>,
        request: Request,
        outcome: Outcome,
    ) -> usize {
        self.operations.push(Operation {
            client,
            member: 0,
            life: 0,
            call,
            ret,
            request,
            outcome,
        });
        self.operations.len() - 1
    }

    pub fn history(&self) -> History {
        History {
            operations: self.operations.clone(),
            committed: Some(self.store.committed()),
            ..History::default()
        }
    }
}

/// A range that shows these values of `x` and `y`.
fn both(x: Option<&str>, y: Option<&str>) -> Answer {
    let shown = |key: &str, value: Option<&str>| {
        value.map(|value| KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
            ..KeyValue::default()
        })
    };
    let kvs: Vec<KeyValue> = shown("x", x).into_iter().chain(shown("y", y)).collect();
    Answer::Range {
        count: kvs.len() as i64,
        kvs,
        more: false,
    }
}

fn everything() -> Request {
    Request::Range {
        from: "a".to_owned(),
        to: "z".to_owned(),
        serializable: false,
        revision: 0,
        limit: 0,
        shape: Shape::default(),
    }
}

/// Two concurrent writes to two keys, which two readers see in different orders: right on each key, wrong on both.
#[test]
fn readers_that_disagree_about_the_order_of_two_keys() {
    let mut made = Handmade::new();
    made.run_within(1, 0, 50, 100, Request::put("x", "1/1"));
    made.run_within(2, 0, 51, 100, Request::put("y", "2/1"));
    made.claim(3, 10, everything(), both(Some("1/1"), None));
    let reader = made.claim(4, 10, everything(), both(None, Some("2/1")));
    let history = made.history();
    assert_caught(&history, VALUES, "x, y");
    let found = minimal(&history).expect("a contradiction");
    assert!(
        found.operations.contains(&reader) && found.all().len() == 4,
        "{found:?}"
    );

    let mut agreeing = history;
    agreeing.operations[reader].outcome = Outcome::Done(Response {
        revision: 0,
        answer: both(None, None),
    });
    assert!(by_values(&agreeing).passed());
}

/// A write of unknown outcome may take effect long after, but once.
#[test]
fn an_unknown_write_takes_effect_late_and_once() {
    let late = |made: &mut Handmade| {
        made.unknown(1, 0, Request::put("x", "1/1"));
        made.run(2, 10, Request::put("x", "2/1"));
        let sneaked = made.store.run(&Request::put("x", "1/1"), 20);
        sneaked.expect("a put");
        made.run(2, 30, Request::get("x"));
    };
    let mut made = Handmade::new();
    late(&mut made);
    assert!(check(&made.history(), VALUES).passed());
    assert!(check(&made.history(), REVISIONS).passed());

    made.run(2, 40, Request::put("x", "2/2"));
    made.store.run(&Request::put("x", "1/1"), 50).expect("a put");
    let read = made.run(2, 60, Request::get("x"));
    assert_caught(&made.history(), VALUES, "no order");
    assert_caught(
        &made.history(),
        REVISIONS,
        "applied twice, at revision 3 and at 5",
    );
    let found = minimal(&made.history()).expect("a contradiction");
    assert!(found.operations.contains(&read), "{found:?}");
}

/// Deletes look alike: any of those that were called in time may have been the one.
#[test]
fn unknown_deletes_are_told_apart_by_time() {
    let mut made = Handmade::new();
    made.run(1, 0, Request::put("x", "1/1"));
    made.unknown(2, 10, Request::delete("x"));
    made.store.run(&Request::delete("x"), 20).expect("a delete");
    made.run(1, 30, Request::get("x"));
    made.run(1, 40, Request::put("x", "1/2"));
    made.unknown(3, 50, Request::delete("x"));
    made.store.run(&Request::delete("x"), 60).expect("a delete");
    let right = made.history();
    assert!(check(&right, REVISIONS).passed(), "{}", check(&right, REVISIONS));
    assert!(check(&right, VALUES).passed());

    let mut one_too_few = right;
    one_too_few.operations.remove(4);
    assert_caught(&one_too_few, REVISIONS, "applied twice");
    one_too_few.operations.remove(1);
    assert_caught(&one_too_few, REVISIONS, "nobody issued");
}

#[test]
fn an_unknown_delete_does_not_happen_before_its_call() {
    let mut made = Handmade::new();
    made.run(1, 0, Request::put("x", "1/1"));
    made.store.run(&Request::delete("x"), 20).expect("a delete");
    made.run(1, 30, Request::get("x"));
    let delete = made.unknown(2, 40, Request::delete("x"));
    assert_caught(&made.history(), REVISIONS, "before it was called");
    assert_caught(&made.history(), VALUES, "no order");
    made.operations[delete].call = 31;
    assert!(check(&made.history(), REVISIONS).passed());
    assert!(check(&made.history(), VALUES).passed());
}

/// Answers that touch are not in order.
#[test]
fn what_touches_is_concurrent() {
    let mut made = Handmade::new();
    made.run_within(1, 0, 1, 10, Request::put("x", "1/1"));
    made.claim(
        2,
        10,
        Request::get("x"),
        Answer::Range {
            kvs: Vec::new(),
            count: 0,
            more: false,
        },
    );
    assert!(check(&made.history(), VALUES).passed());
    made.operations[1].call = 11;
    assert!(check(&made.history(), VALUES).failed());
}

/// What others write besides is none of our business, if the scope says so.
#[test]
fn keys_out_of_scope() {
    let mut made = Handmade::new();
    made.run(1, 0, Request::put("ours/a", "1/1"));
    made.store.run(&Request::put("theirs", "?"), 5).expect("a put");
    made.run(1, 10, Request::get("ours/a"));
    let mut history = made.history();
    assert_caught(&history, REVISIONS, "nobody issued");
    history.scope = Some(barque_checks::history::KeySpan::new("ours/", "ours0"));
    assert!(
        check(&history, REVISIONS).passed(),
        "{}",
        check(&history, REVISIONS)
    );
    assert!(check(&history, VALUES).passed());
}

/// A txn that can have gone more ways than are tried: less is asked, and that is said.
#[test]
fn a_txn_with_too_many_branches() {
    let nested = |at: usize| Request::Txn {
        compares: Vec::new(),
        then: vec![Request::put(format!("n{at}"), format!("1/{at}"))],
        otherwise: vec![Request::put(format!("n{at}"), format!("1/{at}/else"))],
    };
    let mut made = Handmade::new();
    let txn = Request::Txn {
        compares: Vec::new(),
        then: (0..8).map(nested).collect(),
        otherwise: Vec::new(),
    };
    made.unknown(1, 0, txn.clone());
    made.store.run(&txn, 10).expect("a txn");
    made.run(1, 20, Request::get("n3"));
    let found = check(&made.history(), VALUES);
    assert!(matches!(found.verdict, Verdict::Undecided { .. }), "{found}");
    made.run(1, 30, Request::get("n4"));
    made.claim(1, 40, Request::get("n4"), both(None, None));
    assert_caught(&made.history(), VALUES, "no order");
}

/// Of what nobody answered for, two things happened and left everything as it was, as far as anybody ever read: a
/// delete, and a put that is overwritten unread. Dozens of others never happened. The search must not try all sets of
/// those before it finds that the two did.
#[test]
fn what_happened_and_left_no_trace_is_found_at_once() {
    let mut made = Handmade::new();
    let when = |key: &str, target: Target, relation: Relation, then: Request| Request::Txn {
        compares: vec![Compare {
            key: key.to_owned(),
            to: String::new(),
            target,
            relation,
        }],
        then: vec![then],
        otherwise: Vec::new(),
    };
    let exists = |key: &str, then: Request| when(key, Target::CreateRevision(0), Relation::NotEqual, then);
    // None of those that did not happen is of the one key that it is about.
    for (at, key) in (0u32..).zip('b'..='t') {
        let (key, moment) = (key.to_string(), 10 * u64::from(at));
        made.run(1, moment, Request::put(&*key, format!("1/{at}")));
        made.unknown(
            100 + at,
            moment + 5,
            Request::put(&*key, format!("{}/1", 100 + at)),
        );
        made.unknown(200 + at, moment + 5, exists(&key, Request::delete(&*key)));
    }
    made.run(1, 1000, Request::put("a", "1/100"));
    made.run(1, 1010, everything());
    made.run(1, 1020, Request::put("a", "1/101"));
    let unread = when("a", Target::Version(3), Relation::Less, Request::put("a", "3/1"));
    made.unknown(2, 1030, Request::delete("a"));
    made.unknown(3, 1030, unread.clone());
    for (moment, request) in [(1040, Request::delete("a")), (1041, unread)] {
        made.store.run(&request, moment).expect("it is applied");
    }
    made.run(1, 1050, Request::get("b"));
    made.run(1, 1060, exists("a", Request::put("a", "1/102")));
    made.run(1, 1070, everything());
    // For which each of those would do.
    for (moment, key) in (1100u64..).step_by(10).zip('b'..='t') {
        let key = key.to_string();
        made.run(
            1,
            moment,
            exists(&key, Request::put(&*key, format!("1/{moment}"))),
        );
    }
    let history = made.history();
    assert!(
        check(&history, REVISIONS).passed(),
        "{}",
        check(&history, REVISIONS)
    );
    assert!(check(&history, VALUES).passed(), "{}", check(&history, VALUES));
}
