//! Looks at the origins that do not go through Rempart: only while they answer is a failure Rempart's own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::exchange::exchange;
use crate::origin::COUNT;
use crate::plan::{HOSTS, get, page};
use crate::traffic::Witness;
use crate::wire::Wire;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// How long an origin may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The page that is asked for.
const PAGE: u64 = 1;

/// What one look found.
#[derive(Clone, Copy, Debug)]
pub struct Probed {
    /// When.
    pub at: Duration,
    /// Which origin.
    pub origin: usize,
    /// Whether it answered as it should.
    pub reached: bool,
}

/// Looks at each origin until the witness says that it is over.
pub async fn look_on(origins: [SocketAddr; COUNT], witness: Witness) {
    while !witness.is_over() {
        for (origin, address) in origins.into_iter().enumerate() {
            let at = witness.clock.now();
            witness.note_probe(Probed { at, origin, reached: look(address).await });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(address: SocketAddr) -> bool {
    let asked = timeout(PATIENCE, async {
        let mut wire = Wire::connect(address, None).await?;
        exchange(&mut wire, &get(HOSTS[0], &format!("/page/{PAGE}"))).await
    });
    matches!(asked.await, Ok(Ok(answer)) if answer.status == 200 && answer.body == page(HOSTS[0], PAGE))
}
