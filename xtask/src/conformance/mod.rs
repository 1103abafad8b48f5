//! stub while compiling
use crate::shell::Workspace;
#[derive(clap::Args)]
pub struct Options {}
pub fn run(_: &Workspace, _: &Options) -> anyhow::Result<()> {
    anyhow::bail!("x")
}
