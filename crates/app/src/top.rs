//! `rempart top`: how it goes at present, once a second on the whole terminal, or once as text.

mod frame;
mod screen;

use std::io::IsTerminal as _;

use anyhow::bail;
use api::analytics::{Item, Query, Top};
use clap::Args;

use self::frame::Look;
use crate::cli::Place;
use crate::events::ask;
use crate::report::Terminal;
use crate::{EXIT_OK, EXIT_UNREACHED};

/// Size of what is shown where there is no terminal to ask.
const WIDTH: usize = 100;
const HEIGHT: usize = 60;

/// Arguments of `top`.
#[derive(Args, Debug)]
pub struct TopArguments {
    /// Show it once and end.
    #[arg(long)]
    once: bool,
    /// Where the running Rempart is found.
    #[command(flatten)]
    place: Place,
}

/// `rempart top`.
pub fn top(arguments: &TopArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let first = match look(&arguments.place) {
        Ok(first) => first,
        Err(error) => {
            terminal.complain(&format!("rempart: {error:#}"));
            return Ok(EXIT_UNREACHED);
        }
    };
    if terminal.json {
        terminal.print_json(&first);
    } else if arguments.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let look = Look { width: WIDTH, height: HEIGHT, colour: terminal.colour, live: false };
        let lines = frame::frame(&first, look);
        terminal.print(&lines.join("\n"));
    } else {
        screen::show(|| look(&arguments.place), terminal.colour)?;
    }
    Ok(EXIT_OK)
}

fn look(place: &Place) -> anyhow::Result<Top> {
    match ask(place, &Query::Top)?.next()? {
        Some(Item::Top(top)) => Ok(*top),
        other => bail!("analytics answered something else: {other:?}"),
    }
}
