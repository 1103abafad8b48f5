//! The loop: commands, questions, time; and the tasks that ask sites, send messages and serve the page.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::roles::{NotifyChannel, WatchSettings, WatchedSite};
use base::happening::Happening;
use base::time::Timestamp;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::core::{Core, Tell};
use super::place::Place;
use super::questions::{Answer, MAX_QUESTION, Question, Tested};
use super::web;
use crate::notify::{SENDING, send};
use crate::probe::{self, Outcome};
use crate::view::MAX_SITES;

/// How often time is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Without a supervisor for so long, it is gone: one that becomes another binary is away for a moment.
pub const GRACE: Duration = Duration::from_secs(10);
/// Questions answered at a time, and the time for one.
const QUESTIONS: usize = 16;
const QUESTION: Duration = Duration::from_secs(SENDING.as_secs() + 5);
/// Sites asked at the same time.
const ASKED: usize = 16;
/// A site of which it is not settled whether it works is asked again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// Part of the time between two visits that is left to chance.
const SPREAD: u32 = 10;

/// What it is told.
pub enum Command {
    /// What shall be done from now on; answered when it is.
    Settings(WatchSettings, oneshot::Sender<Result<(), String>>),
    /// What happened elsewhere.
    Happened(Vec<Happening>),
    /// The supervisor went away without a word.
    Gone,
    /// Write down what you hold, and end; answered when that is done.
    End(oneshot::Sender<Result<(), String>>),
}

/// What it takes to begin.
pub struct Start<'a> {
    /// Where everything is kept.
    pub folder: &'a Path,
    /// Drawn at random.
    pub seed: u64,
    /// The time.
    pub now: fn() -> Timestamp,
    /// Without a supervisor for so long, it is gone; usually `GRACE`.
    pub grace: Duration,
    /// Tells the supervisor, if there is one, what was found out here.
    pub tell: Tell,
}

/// Serves until it is told to end, another watch takes over, or its folder is gone.
pub fn run(start: Start<'_>, commands: mpsc::Receiver<Command>) -> io::Result<()> {
    let (place, questions) = Place::take(start.folder)?;
    // Held until the very end: whoever takes over wants the page's address too.
    let place = Rc::new(place);
    questions.set_nonblocking(true)?;
    let core = Core::open(place.folder(), start.seed, start.now, start.tell)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let done = local.block_on(&runtime, async {
        let watch = Watch {
            now: start.now,
            place: place.clone(),
            grace: start.grace,
            core: Rc::new(RefCell::new(core)),
            owed: Rc::new(Notify::new()),
            leaving: Rc::new(Notify::new()),
            asking: Arc::new(Semaphore::new(ASKED)),
            page: None,
            channels: HashMap::new(),
            sites: HashMap::new(),
        };
        watch.serve(UnixListener::from_std(questions)?, commands).await
    });
    // Tasks go with the set; a name that is being looked up is not waited for.
    drop(local);
    runtime.shutdown_background();
    drop(place);
    done
}

struct Watch {
    now: fn() -> Timestamp,
    place: Rc<Place>,
    grace: Duration,
    core: Rc<RefCell<Core>>,
    /// Something happened: channels look what they are owed.
    owed: Rc<Notify>,
    leaving: Rc<Notify>,
    asking: Arc<Semaphore>,
    page: Option<(std::net::SocketAddr, Task)>,
    channels: HashMap<String, (NotifyChannel, Task)>,
    sites: HashMap<String, (WatchedSite, u64, Task)>,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn spawn(task: impl Future<Output = ()> + 'static) -> Task {
    Task(tokio::task::spawn_local(task))
}

impl Watch {
    async fn serve(
        mut self,
        questions: UnixListener,
        mut commands: mpsc::Receiver<Command>,
    ) -> io::Result<()> {
        if let Some(settings) = self.place.settings() {
            self.set(settings);
        }
        let _answering = spawn(answer_questions(questions, self.core.clone(), self.leaving.clone()));
        let mut gone_since: Option<tokio::time::Instant> = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv(), if gone_since.is_none() => match command {
                    None | Some(Command::Gone) => gone_since = Some(tokio::time::Instant::now()),
                    Some(Command::End(answer)) => {
                        self.core.borrow_mut().passed();
                        // Whoever asked may have gone.
                        drop(answer.send(Ok(())));
                        return Ok(());
                    }
                    Some(Command::Settings(settings, answer)) => {
                        let mut kept = Ok(());
                        if !settings.as_before {
                            kept = self.place.keep(&settings);
                            self.set(settings);
                        }
                        self.core.borrow_mut().supervised(true);
                        let kept = kept.map_err(|error| format!("the settings could not be kept: {error}"));
                        drop(answer.send(kept));
                    }
                    Some(Command::Happened(happenings)) => self.core.borrow_mut().happened(&happenings),
                },
                _ = tick.tick() => {
                    self.core.borrow_mut().passed();
                    if gone_since.is_some_and(|since| since.elapsed() >= self.grace) {
                        self.core.borrow_mut().supervised(false);
                    }
                    if self.place.is_gone() {
                        return Ok(());
                    }
                }
                () = self.leaving.notified() => return Ok(()),
            }
            self.owed.notify_waiters();
        }
    }

    /// What stays as it is goes on undisturbed.
    fn set(&mut self, settings: WatchSettings) {
        if self.page.as_ref().map(|(address, _)| *address) != settings.listen {
            self.page = None;
            let serve = |address| (address, spawn(web::serve(address, self.core.clone())));
            self.page = settings.listen.map(serve);
        }
        self.core.borrow_mut().set(settings.clone());
        self.set_channels(&settings);
        self.set_sites(&settings);
    }

    fn set_channels(&mut self, settings: &WatchSettings) {
        let mut before = std::mem::take(&mut self.channels);
        for channel in &settings.channels {
            let running = match before.remove(&channel.name) {
                Some((known, task)) if known == *channel => task,
                _ => spawn(tell(channel.clone(), self.core.clone(), self.owed.clone())),
            };
            self.channels.insert(channel.name.clone(), (channel.clone(), running));
        }
    }

    fn set_sites(&mut self, settings: &WatchSettings) {
        let mut before = std::mem::take(&mut self.sites);
        let every = settings.probe_seconds;
        let watched = if every == 0 { &[] } else { settings.sites.as_slice() };
        for site in watched.iter().take(MAX_SITES) {
            let running = match before.remove(&site.name) {
                Some((known, known_every, task)) if known == *site && known_every == every => task,
                _ => spawn(visit(site.clone(), every, self.now, self.core.clone(), self.asking.clone())),
            };
            self.sites.insert(site.name.clone(), (site.clone(), every, running));
        }
    }
}

/// Asks one site again and again. What works, as far as is known, is first asked after one interval: what was only just
/// started may yet be starting.
async fn visit(
    site: WatchedSite,
    every: u64,
    now: fn() -> Timestamp,
    core: Rc<RefCell<Core>>,
    asking: Arc<Semaphore>,
) {
    let mut unsettled = core.borrow().is_failing(&site.name);
    loop {
        let every = Duration::from_secs(every);
        let wait = if unsettled { every.min(AGAIN) } else { every };
        let spread = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX) / SPREAD;
        let spread = core.borrow_mut().below(spread.max(1));
        tokio::time::sleep(wait + Duration::from_millis(u64::from(spread))).await;
        let outcome: Outcome = {
            let Ok(_place) = asking.acquire().await else { return };
            let proxies = core.borrow().settings().proxies.clone();
            probe::ask(&site, &proxies, now()).await
        };
        unsettled = core.borrow_mut().asked(&site.name, outcome);
    }
}

/// Sends one channel what it is owed. Others do not wait for it.
async fn tell(channel: NotifyChannel, core: Rc<RefCell<Core>>, owed: Rc<Notify>) {
    loop {
        let due = core.borrow_mut().due(&channel.name);
        let Some((notice, message)) = due else {
            // Back-off and rate are looked at anew after a while.
            drop(tokio::time::timeout(TICK, owed.notified()).await);
            continue;
        };
        let outcome = send(&channel, &message).await.map_err(|error| error.to_string());
        core.borrow_mut().sent(&channel.name, &notice, outcome);
    }
}

async fn answer_questions(listener: UnixListener, core: Rc<RefCell<Core>>, leaving: Rc<Notify>) {
    let room = Arc::new(Semaphore::new(QUESTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(TICK).await;
            continue;
        };
        let (core, leaving) = (core.clone(), leaving.clone());
        tokio::task::spawn_local(async move {
            if let Ok(Err(error)) = tokio::time::timeout(QUESTION, answer(stream, &core, &leaving)).await {
                tracing::debug!(%error, "a question was not answered");
            }
            drop(place);
        });
    }
}

async fn answer(stream: UnixStream, core: &Rc<RefCell<Core>>, leaving: &Notify) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    (&mut stream).take(MAX_QUESTION as u64).read_until(b'\n', &mut line).await?;
    let question: Question = serde_json::from_slice(&line)?;
    let answer = match question {
        Question::Incidents { all } => {
            let core = core.borrow();
            let wanted = core.incidents().all().iter().filter(|incident| all || incident.is_open());
            let incidents = wanted.cloned().collect();
            Answer::Incidents { supervised: core.is_supervised(), page: core.url(), incidents }
        }
        Question::Test => Answer::Tested { channels: test(core).await },
        Question::Leave => Answer::Leaving,
    };
    stream.get_mut().write_all(&serde_json::to_vec(&answer)?).await?;
    stream.get_mut().shutdown().await?;
    if question == Question::Leave {
        leaving.notify_one();
    }
    Ok(())
}

/// One message through every channel, all at the same time.
async fn test(core: &Rc<RefCell<Core>>) -> Vec<Tested> {
    let messages: Vec<_> = {
        let core = core.borrow();
        let channels = core.settings().channels.iter();
        channels.map(|channel| (channel.clone(), core.test(&channel.name))).collect()
    };
    let sending = messages.into_iter().map(|(channel, message)| async move {
        let error = send(&channel, &message).await.err().map(|error| error.to_string());
        Tested { channel: channel.name, error }
    });
    futures_util::future::join_all(sending).await
}
