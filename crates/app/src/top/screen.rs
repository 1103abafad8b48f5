//! The whole terminal, for as long as somebody looks; afterwards it is as it was.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::analytics::Top;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGTERM};

use super::frame::{Look, frame};

/// Size assumed of a terminal that does not tell.
const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;
/// Second screen, no cursor, no line wrap; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Keys come one by one and unseen until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let this = Self(before);
        io::stdout().write_all(ENTER.as_bytes())?;
        Ok(this)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        crate::ignore(io::stdout().write_all(LEAVE.as_bytes()).and_then(|()| io::stdout().flush()));
        crate::ignore(tcsetattr(io::stdin(), OptionalActions::Now, &self.0));
    }
}

/// Shows what `look` finds, once a second, until `q`, Ctrl-C or the end of the terminal.
pub fn show(look: impl Fn() -> anyhow::Result<Top>, colour: bool) -> anyhow::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone())?;
    }
    let _raw = Raw::enter()?;
    while !ended.load(Ordering::Relaxed) {
        let size = tcgetwinsize(io::stdout()).ok();
        let width = usize::from(size.map_or(0, |size| size.ws_col).max(WIDTH / 2));
        let height = usize::from(size.map(|size| size.ws_row).filter(|rows| *rows > 0).unwrap_or(HEIGHT));
        let lines = match look() {
            Ok(top) => frame(&top, Look { width, height, colour, live: true }),
            Err(error) => vec![format!("rempart: {error:#}"), "tried again every second; q ends".to_owned()],
        };
        // Each line is cleared to its end, and what is below the last one: nothing flickers.
        let mut text = String::from("\x1b[H");
        for (index, line) in lines.iter().take(height).enumerate() {
            text += if index == 0 { "" } else { "\r\n" };
            text += line;
            text += "\x1b[K";
        }
        text += "\x1b[J";
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        if is_over()? {
            break;
        }
    }
    Ok(())
}

/// Waits a second for a key; whether it was one that ends.
fn is_over() -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut keys = [0; 64];
    let count = stdin.lock().read(&mut keys)?;
    let typed = keys.get(..count).unwrap_or_default();
    // Nothing at all is the end of the terminal; 3 is Ctrl-C, a lone 27 Escape.
    Ok(typed.is_empty() || typed == [27] || typed.iter().any(|key| matches!(key, b'q' | b'Q' | 3)))
}
