//! The series of metrics with labels: made when something is first counted, and taken off the page when the object
//! that they are about is gone.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use prometheus::{
    Registry,
    core::{Collector, MetricVec, MetricVecBuilder},
};

/// The labels of one series: name and value.
pub struct Labels<'a>(HashMap<&'a str, &'a str>);

impl Labels<'_> {
    /// The value of a label; `None` where the metric has no such label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).copied()
    }
}

/// The registry, and a second list of the metrics with labels, from which series can be taken: a registry only
/// shows what it has. Clones share both.
#[derive(Clone, Default)]
pub(super) struct Families {
    registry: Registry,
    labelled: Arc<Mutex<Vec<Box<dyn Family>>>>,
}

impl Families {
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Registers a metric with labels.
    pub fn labelled<B>(&self, metric: prometheus::Result<MetricVec<B>>) -> MetricVec<B>
    where
        B: MetricVecBuilder + 'static,
        MetricVec<B>: Collector + Clone + 'static,
    {
        let metric = super::register(self, metric);
        self.labelled.lock().push(Box::new(metric.clone()));
        metric
    }

    pub fn retain(&self, keep: &dyn Fn(&Labels<'_>) -> bool) {
        self.labelled.lock().iter().for_each(|family| family.retain(keep));
    }
}

/// A metric with labels, of whatever kind.
trait Family: Send + Sync {
    fn retain(&self, keep: &dyn Fn(&Labels<'_>) -> bool);
}

impl<B: MetricVecBuilder + 'static> Family for MetricVec<B> {
    fn retain(&self, keep: &dyn Fn(&Labels<'_>) -> bool) {
        for family in self.collect() {
            for series in family.get_metric() {
                let labels = series.get_label().iter().map(|label| (label.name(), label.value()));
                let labels = Labels(labels.collect());
                if !keep(&labels) {
                    // That it is not there any more is not worth an error.
                    let _ = self.remove(&labels.0);
                }
            }
        }
    }
}
