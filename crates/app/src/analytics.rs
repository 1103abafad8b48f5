//! The analytics process: collects events of every edge, keeps what the generation in force says, answers questions about them.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::analytics::{Service, Sockets};
use api::process::{Order, Task};
use api::roles::RoleSettings;

use crate::channel::Channel;
use crate::{EXIT_OK, role, state};

/// The database, in the state folder.
const DATABASE: &str = "events.db";
/// Time to write down what is held in memory when the process ends.
const END: Duration = Duration::from_secs(2);

/// Runs until the supervisor has nothing more to say.
pub fn run(state: &Path, stream: UnixStream) -> anyhow::Result<u8> {
    let (channel, seed) = role::begin(stream)?;
    let channel = Arc::new(channel);
    let sockets = Sockets {
        events: state::events(state),
        questions: state::analytics(state),
        database: state.join(DATABASE),
    };
    let told = channel.clone();
    let service = Service::start(&sockets, seed, move |happening| role::happened(&told, happening))?;
    obey(&channel, &service);
    write_down(&service);
    Ok(EXIT_OK)
}

/// Carries orders out until there are no more.
fn obey(channel: &Channel, service: &Service) {
    loop {
        let order = match channel.receive::<Order>() {
            Ok(Some((order, _))) => order,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "an order could not be read"),
        };
        let outcome = match order.task {
            Task::Happened { happenings } => {
                service.happened(happenings);
                continue;
            }
            Task::Settings { settings: RoleSettings::Analytics(settings) } => {
                service.set(settings).then_some(()).ok_or_else(|| "the database is busy".to_owned())
            }
            _ => Err("analytics does nothing of that".to_owned()),
        };
        role::answer(channel, order.id, "analytics", outcome);
    }
}

fn write_down(service: &Service) {
    if !service.finish(END) {
        tracing::warn!("the last events could not be written down in time");
    }
}
