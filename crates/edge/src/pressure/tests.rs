//! Levels, room and what is told of them, from made-up figures.

use super::*;

fn usage(used: u64, limit: u64) -> Usage {
    Usage { used: Some(used), limit: Some(limit) }
}

#[test]
fn levels_of_memory_hold_until_there_is_some_relief() {
    use Level::{Critical, Normal, Pressing};
    for (before, share, expected) in [
        (Normal, 0, Normal),
        (Normal, 99, Normal),
        (Normal, 100, Pressing),
        (Normal, 114, Pressing),
        (Normal, 200, Critical),
        (Pressing, 96, Pressing),
        (Pressing, 94, Normal),
        (Pressing, 115, Critical),
        (Critical, 111, Critical),
        (Critical, 109, Pressing),
        (Critical, 96, Pressing),
        (Critical, 94, Normal),
    ] {
        assert_eq!(of_memory(before, usage(share * 1_000, 100_000)), expected, "{before:?} at {share} %");
    }
}

#[test]
fn what_is_not_known_sheds_nobody() {
    let unknown = Usage::default();
    for usage in [unknown, Usage { limit: Some(1), ..unknown }, Usage { used: Some(u64::MAX), ..unknown }] {
        assert_eq!(of_memory(Level::Critical, usage), Level::Normal);
        assert_eq!(of_descriptors(Level::Critical, usage), Level::Normal);
    }
    assert_eq!(room(unknown, 5), usize::MAX);
}

#[test]
fn descriptors_are_short_when_only_the_reserve_is_left() {
    use Level::{Critical, Normal, Pressing};
    for (before, used, limit, expected) in [
        (Normal, 100, 1_024, Normal),
        (Normal, 959, 1_024, Normal),
        (Normal, 960, 1_024, Pressing),
        (Pressing, 950, 1_024, Pressing),
        (Pressing, 900, 1_024, Normal),
        (Normal, 992, 1_024, Critical),
        (Critical, 980, 1_024, Critical),
        (Critical, 970, 1_024, Pressing),
        (Normal, 1_000_000, 1_048_576, Normal),
        (Normal, 1_048_000, 1_048_576, Pressing),
        (Normal, 40, 100, Normal),
        (Normal, 50, 100, Pressing),
    ] {
        assert_eq!(of_descriptors(before, usage(used, limit)), expected, "{before:?}, {used} of {limit}");
    }
}

#[test]
fn connections_fit_with_a_second_descriptor_for_those_at_work() {
    for (used, limit, connections, expected) in [
        // Half of what is free now, and when those who came are idle, more.
        (50, 1_024, 0, 455),
        (500, 1_024, 450, 680),
        (530, 1_024, 480, 695),
        // Three quarters of what is not in reserve, whatever is free.
        (730, 1_024, 690, 720),
        // When each has a second one, nobody comes any more.
        (960, 1_024, 455, 455),
        // Others hold most of it.
        (900, 1_024, 10, 40),
        (1_024, 1_024, 200, 200),
        (1_024, 1_024, 0, ALWAYS),
        (100, 1 << 20, 0, 523_726),
        (700_100, 1 << 20, 700_000, 785_664),
    ] {
        assert_eq!(room(usage(used, limit), connections), expected, "{used} of {limit}, {connections} open");
    }
}

#[test]
fn a_change_of_level_is_told_once() {
    let pressure = Pressure::default();
    let (enough, short) = (usage(10, 1_024), usage(100, 100));
    let few = usage(50, 100);
    assert_eq!(pressure.look(few, enough, 1_000), None);
    assert_eq!(pressure.look(short, enough, 1_000), Some((Level::Pressing, Level::Normal)));
    assert_eq!(pressure.look(short, enough, 1_000), None);
    assert_eq!((pressure.level(), pressure.warnings().len()), (Level::Pressing, 1));
    assert_eq!(pressure.look(usage(97, 100), enough, 1_000), None);
    assert_eq!(pressure.look(few, enough, 1_000), Some((Level::Normal, Level::Normal)));
    assert_eq!((pressure.level(), pressure.warnings().len()), (Level::Normal, 0));
    assert_eq!(pressure.look(short, enough, ALWAYS), None, "with nobody to shed, nobody is refused");
    assert!(!pressure.has_room(507) && pressure.has_room(400));
}
