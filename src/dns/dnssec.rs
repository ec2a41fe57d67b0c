//! Signs answers while they are made (RFC 4035), because who is answered with what is not known before: ECDSA P-256 with
//! SHA-256 (RFC 6605), each key at once for the zone and for its keys.
//!
//! A signature takes many times what an answer takes, so signatures are kept by what they sign. Their times move in steps
//! for that reason, and every step of a quarter of their validity makes new ones.

use std::{sync::Arc, time::Duration};

use hickory_proto::{
    ProtoError,
    dnssec::{
        Algorithm, DigestType, SigningKey, TBS,
        crypto::EcdsaSigningKey,
        rdata::{DNSKEY, DNSSECRData, DS, RRSIG, sig::SigInput},
    },
    rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber},
};
use moka::sync::Cache;

use super::zones::{Zones, seconds};
use crate::config::{Config, Dnssec};

/// The keys of all zones, and what they have signed.
pub(super) struct Signer {
    /// The first signs.
    keys: Box<[Key]>,
    /// In seconds.
    validity: u32,
    kept: Cache<Box<[u8]>, Arc<[u8]>>,
}

struct Key {
    signing: EcdsaSigningKey,
    public: DNSKEY,
    tag: u16,
}

impl Signer {
    pub fn new(config: &Dnssec) -> Self {
        let keys = config.keys.iter().map(|key| Key::new(key.signing()));
        Self {
            keys: keys.collect(),
            validity: seconds(config.signature_validity),
            kept: Cache::new(MOST_KEPT),
        }
    }

    /// The DNSKEY records of a zone.
    pub fn keys<'a>(&'a self, zone: &'a Name, ttl: u32) -> impl Iterator<Item = Record> + 'a {
        let data = self.keys.iter().map(|key| RData::DNSSEC(DNSSECRData::DNSKEY(key.public.clone())));
        data.map(move |data| Record::from_rdata(zone.clone(), ttl, data))
    }

    /// Adds the signatures of some records that are the first of `records`, all of one name and type.
    ///
    /// # Errors
    /// A record that cannot be one.
    pub fn sign(&self, records: &mut Vec<Record>, zone: &Name, unix_seconds: u64) -> Result<(), ProtoError> {
        let Some(first) = records.first() else { return Ok(()) };
        // Keys vouch for one another, so that the next can take over.
        let count = if first.record_type() == RecordType::DNSKEY { self.keys.len() } else { 1 };
        let (name, ttl, kind) = (first.name.clone(), first.ttl, first.record_type());
        let step = (self.validity / 4).max(1);
        let begun = unix_seconds as u32 / step * step;
        for key in &self.keys[..count] {
            let input = SigInput {
                type_covered: kind,
                algorithm: Algorithm::ECDSAP256SHA256,
                num_labels: name.num_labels(),
                original_ttl: ttl,
                sig_expiration: SerialNumber::new(begun.wrapping_add(self.validity)),
                sig_inception: SerialNumber::new(begun.wrapping_sub(CLOCKS_APART)),
                key_tag: key.tag,
                signer_name: zone.clone(),
            };
            let signed = TBS::from_input(&name, DNSClass::IN, &input, records.iter())?;
            let signature = match self.kept.get(signed.as_ref()) {
                Some(kept) => kept,
                None => {
                    let made = key.signing.sign(&signed).map_err(|error| error.to_string())?;
                    let made: Arc<[u8]> = made.into();
                    self.kept.insert(signed.as_ref().into(), made.clone());
                    made
                }
            };
            let data = DNSSECRData::RRSIG(RRSIG::from_sig(input, signature.to_vec()));
            records.push(Record::from_rdata(name.clone(), ttl, RData::DNSSEC(data)));
        }
        Ok(())
    }
}

impl Key {
    fn new(signing: EcdsaSigningKey) -> Self {
        let public = signing.to_public_key().expect("a key pair has a public key");
        let public = DNSKEY::new(true, true, false, public);
        let tag = public.calculate_key_tag().expect("a key can be written");
        Self { signing, public, tag }
    }
}

/// The DS records that the zones above are to have, a line each as zone files have them: of every zone, and of every key
/// whose time has come or is to come. Empty where nothing is signed.
pub fn delegation_signers(config: &Config) -> Vec<String> {
    let Some(dns) = &config.dns else { return Vec::new() };
    let Some(dnssec) = &dns.dnssec else { return Vec::new() };
    let signer = Signer::new(dnssec);
    let zones = Zones::new(dns, config.gslb.as_deref());
    let mut lines: Vec<_> = zones
        .apexes()
        .flat_map(|apex| signer.keys.iter().filter_map(move |key| key.delegation_signer(apex)))
        .collect();
    lines.sort();
    lines
}

impl Key {
    fn delegation_signer(&self, zone: &Name) -> Option<String> {
        let digest = self.public.to_digest(zone, DigestType::SHA256).ok()?;
        let ds = DS::new(self.tag, Algorithm::ECDSAP256SHA256, DigestType::SHA256, digest.as_ref().to_vec());
        Some(format!("{zone} IN DS {ds}"))
    }
}

/// Signatures. With what they sign they take about 300 bytes each.
const MOST_KEPT: u64 = 32_768;

/// In seconds: how far a resolver's clock may be behind.
const CLOCKS_APART: u32 = Duration::from_secs(3600).as_secs() as u32;
