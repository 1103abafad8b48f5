//! Deferred work done to its end.

use std::sync::Arc;

use crate::stage::{Silence, Stage, load, shop};

#[test]
fn all_of_it_can_be_done_in_both_ways() {
    let silence = Silence::new();
    let stage = Stage::with(&shop(silence.address()));
    let generation = stage.edge.current();
    assert_eq!(edge::deferred::run(&generation, &stage.metrics), Ok(()));
    edge::deferred::run_in_background(generation, stage.metrics.clone()).unwrap().join().unwrap();
    silence.check();
}

#[test]
fn a_host_that_leads_elsewhere_is_found() {
    let silence = Silence::new();
    let stage = Stage::with(&shop(silence.address()));
    let wrong = load(&stage.loader, &shop(silence.address()), |snapshot| snapshot.hosts = Default::default());
    let errors = edge::deferred::run(&wrong, &stage.metrics).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].code, "deferred-work");
    assert!(errors[0].message.contains("\"shop.example\""), "{}", errors[0]);
    // In the background it is told, and the thread ends well.
    let background = edge::deferred::run_in_background(Arc::new(wrong), stage.metrics.clone());
    background.unwrap().join().unwrap();
}
