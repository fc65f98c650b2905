//! Floods, trickles and full rooms.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
};

use super::*;

const NEVER: Duration = Duration::from_secs(3600);

fn bounds(newcomers: usize, connections: usize) -> Bounds {
    Bounds {
        newcomers,
        newcomers_per_address: newcomers,
        connections,
        connections_per_address: connections,
        patience: NEVER,
    }
}

fn host(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 1234).into()
}

/// The client's end, and the listener's if it was let in.
fn connect(entrance: &Entrance, from: u8) -> (DuplexStream, Option<Visitor<DuplexStream>>) {
    let (client, server) = tokio::io::duplex(64);
    (client, entrance.enter(server, host(from)))
}

fn enter(entrance: &Entrance, from: u8) -> (DuplexStream, Visitor<DuplexStream>) {
    let (client, visitor) = connect(entrance, from);
    (client, visitor.expect("there is room"))
}

async fn speak((client, visitor): &mut (DuplexStream, Visitor<DuplexStream>)) {
    client.write_all(b"x").await.unwrap();
    assert_eq!(visitor.read_u8().await.unwrap(), b'x');
}

async fn ended(visitor: &mut Visitor<DuplexStream>) -> io::ErrorKind {
    visitor.read_u8().await.unwrap_err().kind()
}

#[tokio::test]
async fn the_oldest_that_is_silent_goes() {
    let entrance = Entrance::new("test", bounds(3, 100));
    let mut a = enter(&entrance, 1);
    let mut b = enter(&entrance, 1);
    let mut c = enter(&entrance, 1);
    speak(&mut a).await;
    let mut d = enter(&entrance, 1);
    assert_eq!(ended(&mut b.1).await, io::ErrorKind::ConnectionAborted);
    let mut e = enter(&entrance, 1);
    assert_eq!(ended(&mut c.1).await, io::ErrorKind::ConnectionAborted);
    // Those that speak go only when no silent one is left.
    speak(&mut d).await;
    speak(&mut e).await;
    let _f = enter(&entrance, 1);
    assert_eq!(ended(&mut a.1).await, io::ErrorKind::ConnectionAborted);
    let figures = entrance.figures();
    assert_eq!(
        (figures.newcomers, figures.connections, figures.displaced),
        (3, 3, 3)
    );
}

#[tokio::test]
async fn a_pending_read_ends_when_the_place_is_taken() {
    let entrance = Entrance::new("test", bounds(1, 100));
    let (_client, mut visitor) = enter(&entrance, 1);
    let reading = tokio::spawn(async move { ended(&mut visitor).await });
    tokio::task::yield_now().await;
    let _next = enter(&entrance, 1);
    assert_eq!(reading.await.unwrap(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_silent_flood_from_the_same_address_takes_nobodys_place_who_speaks() {
    let entrance = Entrance::new("test", bounds(8, 100));
    let mut peer = enter(&entrance, 1);
    speak(&mut peer).await;
    let mut flood = Vec::new();
    for _ in 0..10_000 {
        flood.push(enter(&entrance, 1));
    }
    speak(&mut peer).await;
    peer.1.ticket().settle();
    let figures = entrance.figures();
    assert_eq!((figures.connections, figures.newcomers), (8, 7));
    assert_eq!(figures.displaced, 10_000 - 7);
    drop(flood);
    speak(&mut peer).await;
    assert_eq!(entrance.figures().connections, 1);
}

#[tokio::test]
async fn one_address_takes_its_own_places_only() {
    let limits = Bounds {
        newcomers_per_address: 2,
        connections_per_address: 3,
        ..bounds(100, 100)
    };
    let entrance = Entrance::new("test", limits);
    let mut other = enter(&entrance, 2);
    let mut ours: Vec<_> = (0..3).map(|_| enter(&entrance, 1)).collect();
    assert_eq!(ended(&mut ours[0].1).await, io::ErrorKind::ConnectionAborted);
    speak(&mut other).await;
    ours[1].1.ticket().settle();
    ours[2].1.ticket().settle();
    let third = enter(&entrance, 1);
    third.1.ticket().settle();
    // Three have settled: of this address nobody else comes in, and nobody goes for it.
    assert!(connect(&entrance, 1).1.is_none());
    assert!(connect(&entrance, 3).1.is_some());
    for settled in &mut ours[1..] {
        speak(settled).await;
    }
    assert_eq!(entrance.figures().refused, 1);
}

#[tokio::test]
async fn settled_connections_stay_and_a_closed_one_makes_room() {
    let entrance = Entrance::new("test", bounds(10, 2));
    let (mut first, second) = (enter(&entrance, 1), enter(&entrance, 2));
    first.1.ticket().settle();
    second.1.ticket().settle();
    assert!(connect(&entrance, 3).1.is_none());
    speak(&mut first).await;
    let ticket = second.1.ticket();
    drop(second);
    ticket.settle();
    let third = enter(&entrance, 3);
    assert_eq!(entrance.figures().connections, 2);
    drop((first, third));
    assert_eq!(entrance.figures().connections, 0);
    assert!(entrance.inner.room.lock().origins.is_empty());
}

#[tokio::test]
async fn bytes_one_by_one_buy_no_time() {
    let entrance = Entrance::new(
        "test",
        Bounds {
            patience: Duration::from_millis(20),
            ..bounds(10, 10)
        },
    );
    let (mut client, mut visitor) = enter(&entrance, 1);
    let trickle = tokio::spawn(async move { while client.write_all(b"x").await.is_ok() {} });
    let error = loop {
        if let Err(error) = visitor.read_u8().await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(visitor);
    trickle.await.unwrap();
    let figures = entrance.figures();
    assert_eq!((figures.late, figures.connections), (1, 0));
}

#[tokio::test]
async fn what_has_settled_has_all_the_time() {
    let entrance = Entrance::new(
        "test",
        Bounds {
            patience: Duration::ZERO,
            ..bounds(10, 10)
        },
    );
    let mut settled = enter(&entrance, 1);
    settled.1.ticket().settle();
    let mut late = enter(&entrance, 1);
    assert_eq!(ended(&mut late.1).await, io::ErrorKind::TimedOut);
    late.1.ticket().settle();
    speak(&mut settled).await;
    assert_eq!(entrance.figures().connections, 1);
}

#[tokio::test]
async fn an_accept_that_fails_frees_what_is_not_needed_yet() {
    let entrance = Entrance::new("test", bounds(10, 10));
    let mut newcomers: Vec<_> = (0..4).map(|_| enter(&entrance, 1)).collect();
    let failed = Err::<(DuplexStream, SocketAddr), _>(io::Error::other("too many open files"));
    assert!(entrance.admit(failed).await.is_none());
    assert_eq!(entrance.figures().newcomers, 2);
    assert_eq!(ended(&mut newcomers[1].1).await, io::ErrorKind::ConnectionAborted);
    speak(&mut newcomers[2]).await;
}

/// With real sockets: one listener, hundreds that say nothing, and one that asks and is answered.
#[tokio::test]
async fn a_client_is_served_beside_hundreds_of_silent_ones() {
    let entrance = Entrance::new("test", bounds(64, 100));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = entrance.clone();
    let server = tokio::spawn(async move {
        loop {
            let Some(mut visitor) = serving.admit(listener.accept().await).await else {
                continue;
            };
            tokio::spawn(async move {
                while let Ok(byte) = visitor.read_u8().await {
                    visitor.ticket().settle();
                    visitor.write_u8(byte + 1).await.unwrap();
                }
            });
        }
    });
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_u8(1).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 2);
    // The first of the silent is closed, and the client is not, whoever comes.
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    client.write_u8(7).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 8);
    server.abort();
}
