//! Order, bounds and hand-over of the queue: nobody is overtaken, nothing free is forgotten.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use base::random::Random;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::io::Io;

const LONG: Duration = Duration::from_secs(3600);

type Waiting = Pin<Box<dyn Future<Output = Result<Grant, Refused>>>>;

/// Polls once, outside the runtime's budget.
async fn look<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    // Else the runtime takes one who looks so often for greedy, and shows nothing as ready.
    tokio::task::unconstrained(poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx)))).await
}

fn room() -> Rc<Room> {
    Rc::default()
}

fn permit(waited: Poll<Result<Grant, Refused>>) -> Permit {
    match waited {
        Poll::Ready(Ok(Grant::Permit(permit))) => permit,
        Poll::Ready(Ok(_)) => panic!("something else than a permit"),
        Poll::Ready(Err(refused)) => panic!("{refused:?}"),
        Poll::Pending => panic!("still waiting"),
    }
}

async fn connection(room: &Rc<Room>, most: usize) -> OriginConnection {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut connection = OriginConnection::new(Io::Tcp(stream));
    connection.permit = room.enter(most);
    assert!(connection.permit.is_some());
    connection
}

#[tokio::test]
async fn who_comes_first_is_served_first_and_the_queue_has_an_end() {
    let room = room();
    let held = [room.enter(2).unwrap(), room.enter(2).unwrap()];
    assert!(room.enter(2).is_none());
    let (mut first, mut second) = (pin!(room.wait(false, 2, LONG)), pin!(room.wait(false, 2, LONG)));
    assert!(look(first.as_mut()).await.is_pending() && look(second.as_mut()).await.is_pending());
    assert_eq!(room.wait(false, 2, LONG).await.err(), Some(Refused::Full));
    assert_eq!(room.wait(false, 0, LONG).await.err(), Some(Refused::Full));
    drop(held);
    // Both places are given away already: who comes now is not before them.
    assert!(room.enter(2).is_none());
    let (second, first) = (permit(look(second).await), permit(look(first).await));
    drop((first, second));
    assert!(room.enter(2).is_some());
}

#[tokio::test]
async fn who_has_left_is_passed_over_before_and_after_the_hand_over() {
    let room = room();
    let held = room.enter(1).unwrap();
    let mut last = pin!(room.wait(false, 9, LONG));
    {
        let mut gone = Box::pin(room.wait(false, 9, LONG));
        let mut gone_later = Box::pin(room.wait(false, 9, LONG));
        assert!(look(gone.as_mut()).await.is_pending() && look(gone_later.as_mut()).await.is_pending());
        assert!(look(last.as_mut()).await.is_pending());
        drop(gone);
        drop(held);
        assert!(look(last.as_mut()).await.is_pending(), "the one before it has it");
        drop(gone_later);
    }
    drop(permit(look(last).await));
    assert!(!room.is_awaited() && room.enter(1).is_some());
}

#[tokio::test]
async fn those_who_have_left_do_not_fill_the_queue() {
    let room = room();
    let _held = room.enter(1).unwrap();
    for _ in 0..10 {
        let mut gone = Box::pin(room.wait(false, 1, LONG));
        assert!(look(gone.as_mut()).await.is_pending());
    }
    assert_eq!(room.wait(false, 1, Duration::ZERO).await.err(), Some(Refused::Late));
    assert!(room.waiting.borrow().len() <= 1);
}

#[tokio::test]
async fn a_connection_that_is_free_goes_to_who_waits_with_its_place() {
    let room = room();
    let used = connection(&room, 1).await;
    let mut waiting = pin!(room.wait(true, 9, LONG));
    let mut next = pin!(room.wait(true, 9, LONG));
    assert!(look(waiting.as_mut()).await.is_pending() && look(next.as_mut()).await.is_pending());
    assert!(room.offer(used).is_none());
    let Poll::Ready(Ok(Grant::Connection(used))) = look(waiting).await else { panic!("not handed over") };
    assert!(look(next.as_mut()).await.is_pending());
    drop(used);
    drop(permit(look(next).await));
    let back = room.offer(connection(&room, 1).await);
    assert!(back.is_some(), "nobody waits");
}

#[tokio::test]
async fn a_raised_limit_serves_those_who_wait_before_who_comes() {
    let room = room();
    let _held = room.enter(1).unwrap();
    let mut waiting = pin!(room.wait(false, 9, LONG));
    assert!(look(waiting.as_mut()).await.is_pending());
    assert!(room.enter(2).is_none(), "the second place is for who waits");
    let held = permit(look(waiting).await);
    assert!(room.enter(3).is_some());
    // A lowered one closes nothing, and lets nobody in until it is kept.
    drop(held);
    assert!(room.enter(1).is_none());
}

/// Many requests with random ends: closed, given back, given up while waiting or just after the hand-over.
#[tokio::test]
async fn nothing_is_lost_however_requests_end() {
    for seed in 0..200 {
        let (room, mut random) = (room(), Random::seeded(seed));
        let mut held: Vec<Permit> = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        for _ in 0..300 {
            match random.below(4) {
                0 if !held.is_empty() => drop(held.swap_remove(random.below(held.len() as u32) as usize)),
                1 if !waiting.is_empty() => {
                    drop(waiting.remove(random.below(waiting.len() as u32) as usize));
                }
                2 if !waiting.is_empty() => {
                    let at = random.below(waiting.len() as u32) as usize;
                    if let Poll::Ready(granted) = look(waiting[at].as_mut()).await {
                        drop(waiting.remove(at));
                        held.push(permit(Poll::Ready(granted)));
                    }
                }
                _ => match room.enter(3) {
                    Some(entered) => held.push(entered),
                    None => {
                        let room = room.clone();
                        let mut request: Waiting =
                            Box::pin(async move { room.wait(false, 1000, LONG).await });
                        assert!(
                            look(request.as_mut()).await.is_pending(),
                            "what is free was given away before"
                        );
                        waiting.push(request);
                    }
                },
            }
            assert!(room.open.get() <= 3);
        }
        drop(held);
        // In order, one after the other, as long as each ends.
        for request in waiting {
            let mut request = request;
            drop(permit(look(request.as_mut()).await));
        }
        assert_eq!((room.open.get(), room.is_awaited()), (0, false), "seed {seed}");
    }
}

#[tokio::test]
async fn who_waits_for_a_connection_being_opened_fails_with_it_or_goes_on_when_it_is_abandoned() {
    let room = room();
    assert!(room.opening().is_none());
    let far = Instant::now() + LONG;
    for outcome in [None, Some(Failure::OriginRefused)] {
        let begun = room.begin_opening();
        let opening = room.opening().unwrap();
        let mut waiting = pin!(opening.wait(far));
        assert!(look(waiting.as_mut()).await.is_pending());
        outcome.into_iter().for_each(|failure| begun.fail(failure));
        drop(begun);
        assert_eq!(look(waiting).await, Poll::Ready(outcome.map_or(Ok(()), Err)));
        assert!(room.opening().is_none(), "the next one opens");
    }
    let _begun = room.begin_opening();
    assert_eq!(room.opening().unwrap().wait(Instant::now()).await, Err(Failure::OriginConnectTimeout));
    let mut crowd = Vec::new();
    while let Some(opening) = room.opening() {
        let mut waiting = Box::pin(async move { opening.wait(far).await });
        assert!(look(waiting.as_mut()).await.is_pending());
        crowd.push(waiting);
    }
    assert_eq!(crowd.len(), STREAMS_EXPECTED - 1, "beyond that, another connection is opened");
    let begun = room.begin_opening();
    assert!(room.opening().is_some());
    begun.learn(false);
    assert!(room.opening().is_none(), "what shares nothing is not waited for");
}
