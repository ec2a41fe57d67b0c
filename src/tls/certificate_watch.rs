//! Looks after the certificates that are served, and says once when the time of one passes.
//!
//! What a certificate is like when it is loaded, the warnings of the configuration say.

use std::{
    collections::HashMap,
    mem::{Discriminant, discriminant},
    time::SystemTime,
};

use crate::config::{Certificate, DateConcern, Validity};

/// What was seen of each certificate, by name.
#[derive(Debug, Default)]
pub struct CertificateWatch {
    seen: HashMap<String, (Validity, Option<Discriminant<DateConcern>>)>,
}

impl CertificateWatch {
    /// Looks at what is served, and logs what has come up since the last look. Returns how much that is.
    pub fn look<'a>(&mut self, served: impl IntoIterator<Item = &'a Certificate>, now: SystemTime) -> usize {
        let mut news = 0;
        let mut seen = HashMap::new();
        for certificate in served {
            let Some(validity) = certificate.validity else { continue };
            let concern = validity.concern(now);
            let state = (validity, concern.as_ref().map(discriminant));
            let before = self.seen.get(&certificate.name).filter(|(before, _)| *before == validity);
            let is_news = before.is_some_and(|before| *before != state);
            if seen.insert(certificate.name.clone(), state).is_some() || !is_news {
                continue;
            }
            let (name, file) = (&certificate.name, certificate.certificate_file.display());
            news += 1;
            match concern {
                Some(concern) => tracing::warn!(name, %file, "the certificate {concern}; {}", concern.help()),
                None => tracing::info!(name, %file, "the certificate is within its time"),
            }
        }
        self.seen = seen;
        news
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use openssl::x509::X509;

    use super::*;

    fn certificate(name: &str, until: (i32, u8)) -> Certificate {
        let mut params = rcgen::CertificateParams::new(vec!["a.com".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, 1);
        let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let validity = Validity::of(&X509::from_pem(pem.as_bytes()).unwrap());
        Certificate {
            name: name.into(),
            certificate_file: "a.pem".into(),
            key_file: "a.key".into(),
            validity,
        }
    }

    #[test]
    fn what_passes_while_it_is_served_is_told_once() {
        let (old, long) = (certificate("old", (2031, 1)), certificate("long", (2040, 1)));
        let end = old.validity.expect("OpenSSL reads it").until();
        let day = |days: u64, before: bool| {
            let days = Duration::from_secs(days * 86_400);
            if before { end - days } else { end + days }
        };
        let mut watch = CertificateWatch::default();
        for (now, news) in [
            (day(60, true), 0),
            (day(29, true), 1),
            (day(28, true), 0),
            (day(1, false), 1),
            (day(2, false), 0),
            // A clock that was wrong.
            (day(60, true), 1),
            (day(3, false), 1),
        ] {
            assert_eq!(watch.look([&old, &long, &old], now), news);
        }
        let renewed = certificate("old", (2032, 1));
        assert_eq!(watch.look([&renewed, &long], day(3, false)), 0, "loading it said what there was to say");
        assert_eq!(watch.look([&old], day(3, false)), 0, "so did this");
    }
}
