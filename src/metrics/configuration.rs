//! The configuration in force, and the attempts to load another.

use std::collections::BTreeMap;

use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec};

use super::{
    Labels,
    series::{Families, Family},
};

/// The metrics of the configuration.
#[derive(Clone)]
pub struct ConfigMetrics {
    /// Reloads. `result`.
    pub reloads: IntCounterVec,
    /// 1 if the last reload, or the start, was a success.
    pub last_reload_successful: IntGauge,
    /// When the configuration in force was loaded.
    pub last_reload_success_timestamp: Gauge,
    /// What the last reload took.
    pub last_reload_duration: Gauge,
    /// Counts the configurations that were put in force.
    pub generation: IntGauge,
    info: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
}

impl ConfigMetrics {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            reloads: families.counters(
                "homing_config_reloads_total",
                "Configurations loaded, by result.",
                &["result"],
            ),
            last_reload_successful: families.gauge(
                "homing_config_last_reload_successful",
                "1 if the last reload, or the start, was a success, else 0.",
            ),
            last_reload_success_timestamp: families.seconds(
                "homing_config_last_reload_success_timestamp_seconds",
                "When the configuration in force was loaded, in seconds since 1970.",
            ),
            last_reload_duration: families
                .seconds("homing_config_last_reload_duration_seconds", "What the last reload took."),
            generation: families.gauge(
                "homing_config_generation",
                "How many configurations this process has put in force; 1 since the start.",
            ),
            info: families.gauges(
                "homing_config_info",
                "The configuration in force: checksums of what its file and the federation's file say.",
                &["checksum", "federation_checksum"],
            ),
            certificate_expiry: families.gauges(
                "homing_certificate_expiry_timestamp_seconds",
                "When a certificate in use, or one sent with it, expires, in seconds since 1970. This site's own for its peers has the name that they ask for.",
                &["certificate"],
            ),
        }
    }

    /// This configuration is in force now.
    pub fn in_force(&self, checksum: &str, federation_checksum: &str) {
        self.generation.inc();
        self.info.with_label_values(&[checksum, federation_checksum]).set(1);
        self.info.retain(&|labels| {
            labels.get("checksum") == Some(checksum)
                && labels.get("federation_checksum") == Some(federation_checksum)
        });
    }

    /// These certificates are in use now, with the end of each in seconds since 1970.
    pub fn certificates(&self, ends: &BTreeMap<String, i64>) {
        for (certificate, end) in ends {
            self.certificate_expiry.with_label_values(&[certificate]).set(*end);
        }
        let in_use = |labels: &Labels<'_>| labels.get("certificate").is_some_and(|it| ends.contains_key(it));
        self.certificate_expiry.retain(&in_use);
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    fn shown(metrics: &Metrics, name: &str) -> Vec<String> {
        let page = metrics.page();
        page.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    #[test]
    fn only_the_configuration_in_force_is_shown() {
        let metrics = Metrics::new();
        for (checksum, federation) in [("a", ""), ("b", ""), ("b", "f")] {
            metrics.config.in_force(checksum, federation);
        }
        assert_eq!(
            shown(&metrics, "homing_config_info"),
            [r#"homing_config_info{checksum="b",federation_checksum="f"} 1"#]
        );
        assert_eq!(shown(&metrics, "homing_config_generation"), ["homing_config_generation 3"]);
    }

    #[test]
    fn only_certificates_in_use_are_shown() {
        let metrics = Metrics::new();
        let ends = |certificates: &[(&str, i64)]| {
            metrics
                .config
                .certificates(&certificates.iter().map(|&(name, end)| (name.to_owned(), end)).collect());
            shown(&metrics, "homing_certificate_expiry")
        };
        assert_eq!(ends(&[("a", 5), ("b", 6)]).len(), 2);
        let renewed = r#"homing_certificate_expiry_timestamp_seconds{certificate="b"} 9"#;
        assert_eq!(ends(&[("b", 9)]), [renewed]);
    }
}
