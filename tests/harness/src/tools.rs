//! Programs of other people that tests drive. A missing one fails the test with what to do about it.

use std::env;
use std::path::{Path, PathBuf};

/// What to do when a tool is missing.
const HINT: &str = "run `cargo xtask ci --only setup`, which installs what the tests need";

/// A program from `PATH` or the system folders that are often not in it.
pub fn program(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into(), "/usr/bin".into()]);
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed; {HINT}"))
}

/// The folder of tools that no package manager of the system provides.
pub fn folder() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    cache.unwrap_or_else(|| panic!("neither XDG_CACHE_HOME nor HOME is set")).join("rempart-tools")
}

/// The Python interpreter of the virtual environment that holds `requirements.txt`.
pub fn python() -> PathBuf {
    existing(folder().join("python/bin/python3"))
}

/// The folder of the npm packages in `package.json`.
pub fn node_modules() -> PathBuf {
    existing(folder().join("node/node_modules"))
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} does not exist; {HINT}", path.display());
    path
}

/// The project's folder. Where it is now: a program out of a cache may have been built elsewhere.
pub fn root() -> PathBuf {
    let crate_folder = env::var_os("CARGO_MANIFEST_DIR").expect("tests are run by cargo");
    Path::new(&crate_folder).join("../..")
}

/// A script of the `foreign` folder of the harness.
pub fn script(name: &str) -> PathBuf {
    let path = root().join("tests/harness/foreign").join(name);
    assert!(path.is_file(), "{} does not exist", path.display());
    path
}
