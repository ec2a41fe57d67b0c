//! The series of metrics with labels: made when something is first counted, and taken off the page when the object
//! that they are about is gone. And what is told of a metric before it has any.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, MetricVec, MetricVecBuilder},
    proto::MetricType,
};

/// The labels of one series: name and value.
pub struct Labels<'a>(HashMap<&'a str, &'a str>);

impl Labels<'_> {
    /// The value of a label; `None` where the metric has no such label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).copied()
    }
}

/// What a metric is, whether it has a series yet or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Description {
    pub name: String,
    /// `counter`, `gauge`, `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub help: String,
}

impl Description {
    /// What a collector has. One that has no series yet still tells its kind.
    fn all_of(collector: &dyn Collector) -> Vec<Self> {
        let families = collector.collect();
        let kind = |name: &str| {
            let family = families.iter().find(|family| family.name() == name);
            family.map_or("untyped", |family| match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                MetricType::SUMMARY => "summary",
                MetricType::UNTYPED => "untyped",
            })
        };
        let descs = collector.desc().into_iter();
        descs
            .map(|desc| Self {
                name: desc.fq_name.clone(),
                kind: kind(&desc.fq_name),
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            })
            .collect()
    }
}

/// The registry, with two things that it does not do: it only shows what it has, so there is a second list of the
/// metrics with labels, from which series can be taken; and it does not tell of metrics without a series. Clones
/// share everything.
#[derive(Clone, Default)]
pub(super) struct Families {
    registry: Registry,
    labelled: Arc<Mutex<Vec<Box<dyn Family>>>>,
    descriptions: Arc<Mutex<Vec<Description>>>,
}

impl Families {
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every metric, in the order of their names.
    pub fn descriptions(&self) -> Vec<Description> {
        let mut descriptions = self.descriptions.lock().clone();
        descriptions.sort();
        descriptions
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.labelled(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.labelled(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub fn durations(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        self.labelled(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.single(IntCounter::new(name, help))
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.single(IntGauge::new(name, help))
    }

    /// A gauge of seconds, which are seldom whole.
    pub fn seconds(&self, name: &str, help: &str) -> Gauge {
        self.single(Gauge::new(name, help))
    }

    pub fn retain(&self, keep: &dyn Fn(&Labels<'_>) -> bool) {
        self.labelled.lock().iter().for_each(|family| family.retain(keep));
    }

    /// Registers what fits together by itself.
    pub fn collector(&self, collector: impl Collector + 'static) {
        self.descriptions.lock().extend(Description::all_of(&collector));
        let registered = self.registry.register(Box::new(collector));
        registered.expect("the names of metrics are distinct");
    }

    fn labelled<B>(&self, metric: prometheus::Result<MetricVec<B>>) -> MetricVec<B>
    where
        B: MetricVecBuilder + 'static,
        MetricVec<B>: Collector + Clone + 'static,
    {
        let metric = self.single(metric);
        self.labelled.lock().push(Box::new(metric.clone()));
        metric
    }

    fn single<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("the names and labels of metrics are valid");
        self.collector(metric.clone());
        metric
    }
}

/// A metric with labels, of whatever kind.
pub(super) trait Family: Send + Sync {
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
