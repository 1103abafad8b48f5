//! Answers one question of one connection.

use std::collections::HashSet;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use api::analytics::{Filter, Item, MAX_EVENTS, MAX_QUERY_BYTES, Query, RequestView};
use base::event::wire::records;
use base::happening::Happening;
use base::time::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::collector::{Recent, Told};
use crate::service::{Shared, now};
use crate::view;

/// Time for a question to come, and for each part of its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether who follows is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Where items go.
struct Answer(BufWriter<UnixStream>);

impl Answer {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, item)?;
        self.0.write_all(b"\n")
    }

    /// Whether the other side has closed.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.0.get_ref(), PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&at_once)).is_err()
            || fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }
}

pub(crate) fn answer(stream: UnixStream, shared: &Shared) {
    if let Err(error) = try_answer(stream, shared) {
        tracing::debug!(%error, "a question was not answered to its end");
    }
}

fn try_answer(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).take(MAX_QUERY_BYTES as u64).read_line(&mut line)?;
    let mut answer = Answer(BufWriter::new(stream));
    match serde_json::from_str::<Query>(&line) {
        Err(error) => {
            let message = format!("analytics of this Rempart does not know this question: {error}");
            answer.item(&Item::Refused { message })?;
        }
        Ok(Query::Top) => {
            let status = shared.store.status();
            let top = shared.collector().top(now(), status);
            answer.item(&Item::Top(Box::new(top)))?;
            answer.item(&Item::End)?;
        }
        Ok(Query::Minutes { since, site }) => minutes(&mut answer, shared, since, site.as_deref())?,
        Ok(Query::Events { filter, limit, follow }) => {
            let limit = limit.min(MAX_EVENTS);
            if !follow {
                let recent = shared.collector().recent();
                past(&mut answer, shared, &filter, limit, &recent)?;
                answer.item(&Item::End)?;
            } else {
                let following = shared.collector().follow();
                let Some((recent, told)) = following else {
                    let message = "too many follow events already".to_owned();
                    answer.item(&Item::Refused { message })?;
                    return answer.0.flush();
                };
                past(&mut answer, shared, &filter, limit, &recent)?;
                answer.item(&Item::Caught)?;
                drop(recent);
                follow_on(&mut answer, &filter, &told)?;
            }
        }
    }
    answer.0.flush()
}

fn minutes(answer: &mut Answer, shared: &Shared, since: Timestamp, site: Option<&str>) -> io::Result<()> {
    match shared.store.reader().and_then(|database| database.minutes(since, site)) {
        Ok(minutes) => {
            for minute in minutes {
                answer.item(&Item::Minute(Box::new(minute)))?;
            }
            answer.item(&Item::End)
        }
        Err(error) => {
            answer.item(&Item::Refused { message: format!("the database cannot be read: {error}") })
        }
    }
}

/// What there is, oldest first: samples of long ago, everything of a moment ago.
fn past(
    answer: &mut Answer,
    shared: &Shared,
    filter: &Filter,
    limit: u32,
    recent: &Recent,
) -> io::Result<()> {
    let (mut requests, mut happenings) = stored(shared, filter, limit);
    let known: HashSet<String> = requests.iter().map(|request| request.id.clone()).collect();
    for record in recent.frames.iter().flat_map(|frame| records(frame)).flatten() {
        if filter.takes_request(record.site, record.status, record.at) && !known.contains(record.id) {
            requests.push(view::of_record(&record));
        }
    }
    let known: HashSet<_> = happenings.iter().map(|one| (one.at, one.message.clone())).collect();
    for happening in &recent.happenings {
        if filter.takes_happening(happening) && !known.contains(&(happening.at, happening.message.clone())) {
            happenings.push(Happening::clone(happening));
        }
    }
    let mut items: Vec<(Timestamp, Item)> = requests
        .into_iter()
        .map(|request| (request.at, Item::Request(Box::new(request))))
        .chain(happenings.into_iter().map(|one| (one.at, Item::Happening(Box::new(one)))))
        .collect();
    items.sort_by_key(|(at, _)| *at);
    let skipped = items.len().saturating_sub(limit as usize);
    for (_, item) in items.iter().skip(skipped) {
        answer.item(item)?;
    }
    answer.0.flush()
}

/// From the database; what cannot be read from it is not there, and the status of the database says why.
fn stored(shared: &Shared, filter: &Filter, limit: u32) -> (Vec<RequestView>, Vec<Happening>) {
    let Ok(database) = shared.store.reader() else { return (Vec::new(), Vec::new()) };
    let requests = if filter.requests { database.samples(filter, limit) } else { Ok(Vec::new()) };
    let happenings = if filter.operations { database.happenings(filter, limit) } else { Ok(Vec::new()) };
    for error in requests.as_ref().err().into_iter().chain(happenings.as_ref().err()) {
        tracing::warn!(%error, "the database of events cannot be read");
    }
    (requests.unwrap_or_default(), happenings.unwrap_or_default())
}

/// What comes from now on, until the other side has closed.
fn follow_on(answer: &mut Answer, filter: &Filter, told: &Receiver<Told>) -> io::Result<()> {
    loop {
        answer.0.flush()?;
        let mut next = match told.recv_timeout(LOOK) {
            Ok(told) => Some(told),
            Err(RecvTimeoutError::Timeout) if answer.is_gone() => return Ok(()),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        while let Some(told_now) = next {
            match told_now {
                Told::Missed(requests) => answer.item(&Item::Missed { requests })?,
                Told::Happening(happening) if filter.takes_happening(&happening) => {
                    answer.item(&Item::Happening(Box::new(Happening::clone(&happening))))?;
                }
                Told::Happening(_) => {}
                Told::Frame(frame) => {
                    for record in records(&frame).flatten() {
                        if filter.takes_request(record.site, record.status, record.at) {
                            answer.item(&Item::Request(Box::new(view::of_record(&record))))?;
                        }
                    }
                }
            }
            next = told.try_recv().ok();
        }
    }
}
