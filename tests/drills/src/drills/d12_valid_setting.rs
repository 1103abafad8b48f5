//! Drill 12: a setting of one site that is valid in every way reaches a fault nobody has met; that site alone goes back.

use std::time::Duration;

use api::admin::{ModuleStatus, RevertedSite};
use base::happening::{Happening, What};

use super::{HOPELESS, QUIET, codes, counted};
use crate::cluster::wait_for;
use crate::comms::{Comms, Known};
use crate::feeds::happenings;
use crate::{Control, Drill, DrillError, Need, Stage};

/// How soon the site goes back, and how soon it is known who had set what.
const BACK: Duration = Duration::from_secs(2);
const NAMED: Duration = Duration::from_secs(60);
/// The site, its setting, and a word by which it is recognised.
const SITE: &str = "shop";
const SETTING: &str = "[site.policy]\nforbid = [{ name = \"Rempart-Trial\", value = \"panic\" }]\n";
const WORD: &str = "rempart-trial";
/// What changes elsewhere later on.
const MORE: &str = "more";

/// Drill 12.
pub const DRILL: Drill = Drill {
    number: 12,
    name: "valid-setting",
    title: "Valid setting, latent bug",
    outage: "Fastly, 8 June 2021",
    story: "A customer gives one site a setting that is valid, passes every check and every golden request, and makes a module \
            panic on each request of a visitor to that site. Then somebody else adds a site, and the setting is still there; at \
            last it is taken away.",
    needs: &[Need::Faults],
    controls: &[
        Control { without: "site-revert", fails: "back" },
        Control { without: "quarantine", fails: "quarantined" },
    ],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let comms = Comms::start()?;
    let good = stage.cluster.config() + &comms.config();
    stage.cluster.write("rempart.toml", &good)?;
    let before = stage.cluster.start_and_wait()?;
    stage.begin_traffic()?;
    stage.pass(QUIET);
    stage.inject("a valid setting that makes a module panic on every request of one site");
    let since = stage.clock.now();
    let outcome = stage.cluster.configure(&with_setting(&good))?;
    let (taken, number) = (outcome.active && outcome.changed, outcome.number);
    stage.expect("taken", "No check can see it: premise of what follows", "taken", codes(&outcome), taken);
    let back = goes_back(stage, before.number, number);
    let known = Known { words: &["trial (shop)", "taken back"], works: &["delivery", "site-news"], since };
    // What has not gone back is nothing to wait for.
    if back {
        comms.on_page(stage, "on-page", &known);
        comms.told(stage, "told", &known);
    }
    quarantined(stage, &comms)?;
    if back {
        comms.on_page(stage, "still-on-page", &Known { since: stage.clock.now(), ..known });
    }
    taken_away(stage, &good)?;
    stage.pass(QUIET);
    stage.end_traffic();
    Ok(())
}

/// The setting, for the first site.
fn with_setting(config: &str) -> String {
    let hosts = format!("hosts = [\"{SITE}.test\"]\n");
    config.replacen(&hosts, &format!("{hosts}\n{SETTING}"), 1)
}

fn reverted(stage: &Stage) -> ModuleStatus {
    stage.cluster.status().map(|status| status.modules).unwrap_or_default()
}

/// Whether the site went back.
fn goes_back(stage: &mut Stage, before: u64, number: u64) -> bool {
    let seen = stage.clock.now();
    let is_back = || reverted(stage).reverted.iter().any(|site| site.site == SITE);
    wait_for(HOPELESS, is_back);
    let told = |what: What| happenings(&stage.cluster).into_iter().filter(move |one| one.what == what);
    let of_this = |one: &Happening| one.generation == Some(number);
    wait_for(HOPELESS, || told(What::SiteReverted).any(|one| of_this(&one)));
    let named = stage.clock.now().saturating_sub(seen);
    let activated = told(What::GenerationActivated).find(of_this);
    let back: Vec<Happening> = told(What::SiteReverted).collect();
    let first = back.iter().find(|one| of_this(one)).cloned();
    let took = first.as_ref().zip(activated.as_ref());
    let took = took.map(|(back, from)| Duration::from_micros(back.at.0.saturating_sub(from.at.0)));
    stage.within("back", "The site goes back, counted from its change", BACK, took);
    let status = reverted(stage);
    let only = matches!(&*status.reverted, [RevertedSite { site, generation, .. }] if site == SITE && *generation == before)
        && status.breakers.is_empty()
        && back.len() == 1;
    let sites: Vec<String> =
        status.reverted.iter().map(|it| format!("{} to generation {}", it.site, it.generation)).collect();
    let limit = format!("{SITE} to generation {before}");
    stage.expect(
        "only",
        "No other site goes back, and no module is passed over",
        &limit,
        counted(&sites, "went back"),
        only,
    );
    let author = activated.as_ref().and_then(|one| one.by.clone());
    let right = first.as_ref().is_some_and(|one| {
        one.site.as_deref() == Some(SITE)
            && author.is_some()
            && one.by == author
            && one.message.contains(WORD)
            && one.message.contains("brought by")
    });
    let is_told = first.is_some();
    let measured = first.map_or_else(|| "nothing was told".to_owned(), |one| one.message);
    stage.expect("author", "The setting is named, with its author and time", "all three", measured, right);
    stage.within("named", "That is known", NAMED, is_told.then_some(named));
    is_told
}

/// Somebody else changes something else: the setting stays out.
fn quarantined(stage: &mut Stage, comms: &Comms) -> Result<(), DrillError> {
    stage.inject("somebody adds a site, and the setting is still there");
    let outcome =
        stage.cluster.configure(&with_setting(&(stage.cluster.config_with(&[MORE]) + &comms.config())))?;
    stage.expect(
        "another",
        "That change is taken",
        "taken",
        codes(&outcome),
        outcome.active && outcome.changed,
    );
    let served = stage.cluster.look(&format!("{MORE}.test")).is_ok_and(|seen| seen.status == 200);
    stage.expect("serves", "The new site", "serves", if served { "serves" } else { "does not" }, served);
    // Visitors of the site have met it again by now, if they could.
    stage.pass(QUIET);
    let told = happenings(&stage.cluster);
    let again =
        told.iter().filter(|one| one.what == What::SiteReverted && one.generation == Some(outcome.number));
    let again = again.count();
    let stays = reverted(stage).reverted.iter().any(|site| site.site == SITE);
    let measured = format!("{}, met {again} times anew", if stays { "out" } else { "in force" });
    let right = stays && again == 0;
    stage.expect("quarantined", "The setting stays out", "out, met 0 times anew", measured, right);
    Ok(())
}

/// Whoever set it takes it away: the site is served as configured again.
fn taken_away(stage: &mut Stage, good: &str) -> Result<(), DrillError> {
    stage.inject("the setting is taken away");
    let outcome = stage.cluster.configure(good)?;
    let status = reverted(stage);
    let right = outcome.active && status.reverted.is_empty() && status.breakers.is_empty();
    let sites: Vec<String> = status.reverted.into_iter().map(|site| site.site).collect();
    stage.expect(
        "mended",
        "Sites that are served otherwise than configured",
        "0",
        counted(&sites, "served otherwise"),
        right,
    );
    Ok(())
}
