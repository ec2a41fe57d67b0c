//! Whom a member believes: cookies and hops that were changed, clocks that jump, and hops with certificates.

use std::{sync::Arc, time::Duration};

use openssl::{pkey::PKey, x509::X509};
use proptest::prelude::*;

use super::{
    Cookie, Membership,
    fixtures::{self, A, B, C, NOW, TestSite},
};
use crate::{
    clock::Clock,
    config::{CaCerts, Gslb, SiteTls},
    site_cookie::{ClientScheme, Hop, HopFields, HopRefusal, Refusal, ReplayGuard},
};

/// The `name=value` pair of a cookie that a site issues.
fn issued(by: &Membership, now: u64) -> Vec<u8> {
    let set_cookie = by.issue_cookie(now, [1; 12], true, None);
    set_cookie.split(';').next().expect("a pair").as_bytes().to_vec()
}

/// A hop header that a site signs for a GET of `a.com/`.
fn signed(by: &Membership, to: TestSite, rid: &str, ts: u64) -> String {
    let fields = HopFields {
        dst: to.cluster,
        ts,
        rid,
        client: "192.0.2.7".parse().expect("an address"),
        scheme: ClientScheme::Https,
        tls_session: None,
    };
    by.hop.sign(&fields, "GET", "a.com", "/").expect("good fields")
}

fn verify(
    home: &Membership,
    header: &str,
    certified: Option<&str>,
    now: u64,
    replay: &ReplayGuard,
) -> Result<Hop, HopRefusal> {
    home.verify_hop(header, ("GET", "a.com", "/"), certified, now, replay)
}

#[test]
fn a_cookie_is_good_by_the_clock_that_reads_it_wherever_that_jumps() {
    let (clock, a) = (Clock::virtual_at(Duration::from_secs(NOW)), fixtures::membership(A));
    let (cookie, lifetime) = (issued(&a, clock.unix_seconds()), 8 * 3600);
    let read = |now| a.read_cookie([&cookie[..]], now).cookie;
    clock.advance(Duration::from_secs(60));
    assert_eq!(read(clock.unix_seconds()), Cookie::Ours { stale: false });
    for (now, expected) in [
        (NOW - 300, Cookie::Ours { stale: false }),
        (NOW - 301, Cookie::Refused(Refusal::Future)),
        (0, Cookie::Refused(Refusal::Future)),
        (NOW + lifetime / 2 + 1, Cookie::Ours { stale: true }),
        (NOW + lifetime, Cookie::Refused(Refusal::Expired)),
        (u64::MAX, Cookie::Refused(Refusal::Expired)),
        (NOW + 120, Cookie::Ours { stale: false }),
    ] {
        assert_eq!(read(now), expected, "at {now}");
    }
    // What a site issued while its clock was ahead is like no cookie once the clock is right again.
    let ahead = issued(&a, NOW + 3600);
    assert_eq!(a.read_cookie([&ahead[..]], NOW + 3600).cookie, Cookie::Ours { stale: false });
    assert_eq!(a.read_cookie([&ahead[..]], NOW).cookie, Cookie::Refused(Refusal::Future));
}

#[test]
fn a_hop_is_good_once_and_for_half_a_minute_wherever_clocks_jump() {
    let (a, b, replay) = (fixtures::membership(A), fixtures::membership(B), ReplayGuard::new());
    for (rid, ts, now, refusal) in [
        ("1", NOW, NOW, None),
        ("1", NOW, NOW, Some(HopRefusal::Replayed)),
        ("2", NOW, NOW + 31, Some(HopRefusal::Skewed)),
        ("2", NOW, NOW - 31, Some(HopRefusal::Skewed)),
        ("2", NOW, NOW - 30, None),
        ("3", NOW, NOW + 86_400, Some(HopRefusal::Skewed)),
        ("4", NOW + 86_400, NOW + 86_400, None),
        ("1", NOW, NOW + 10, Some(HopRefusal::Replayed)),
        ("5", u64::MAX, NOW, Some(HopRefusal::Skewed)),
        ("5", 0, NOW, Some(HopRefusal::Skewed)),
    ] {
        let verified = verify(&a, &signed(&b, A, rid, ts), None, now, &replay);
        assert_eq!(verified.err(), refusal, "{rid}, dated {ts}, at {now}");
    }
}

/// The fixtures' federation with TLS everywhere, where this site has a certificate.
fn certified(required: bool) -> Gslb {
    let made =
        rcgen::generate_simple_self_signed(["sp.site_a".to_owned()]).expect("a certificate can be made");
    let certificate = X509::from_der(made.cert.der()).expect("it is a certificate");
    let key = PKey::private_key_from_pem(made.signing_key.serialize_pem().as_bytes()).expect("it is a key");
    let ca_certs = CaCerts::new(vec![certificate.clone()]).expect("there is one");
    let pair = (vec![certificate], key);
    let site_tls = SiteTls::new(&A.name.into(), "demo", pair, ca_certs, required).map(Arc::new);
    let gslb = fixtures::gslb_with(|members| {
        members.iter_mut().flat_map(|member| &mut member.services).for_each(|port| port.enable_ssl = true);
    });
    Gslb { site_tls, ..gslb }
}

#[test]
fn where_sites_have_certificates_a_hop_needs_that_of_the_site_that_signed_it() {
    let gslb = certified(true);
    let [home, peer] = [A, B].map(|site| fixtures::membership_in(site, &gslb));
    let replay = ReplayGuard::new();
    let hop = signed(&peer, A, "1", NOW);
    for certificate in [None, Some(C.cluster), Some("")] {
        let refused = verify(&home, &signed(&peer, A, "0", NOW), certificate, NOW, &ReplayGuard::new());
        assert_eq!(refused.err(), Some(HopRefusal::NoCertificate), "{certificate:?}");
    }
    assert_eq!(verify(&home, &hop, None, NOW, &replay), Err(HopRefusal::NoCertificate));
    let proven = verify(&home, &hop, Some(B.cluster), NOW, &replay).map(|hop| hop.src);
    assert_eq!(proven.as_deref(), Ok(B.cluster), "who only overheard the header has not used it up");
    let misdirected = signed(&peer, C, "2", NOW);
    assert_eq!(verify(&home, &misdirected, None, NOW, &replay), Err(HopRefusal::NoCertificate));
    assert_eq!(verify(&home, &misdirected, Some(B.cluster), NOW, &replay), Err(HopRefusal::WrongSite));
}

#[test]
fn a_certificate_is_not_asked_for_while_sites_get_theirs_or_in_clear() {
    let plain = Gslb { site_tls: certified(true).site_tls, ..fixtures::gslb() };
    for gslb in [certified(false), plain] {
        let [home, peer] = [A, B].map(|site| fixtures::membership_in(site, &gslb));
        assert!(verify(&home, &signed(&peer, A, "1", NOW), None, NOW, &ReplayGuard::new()).is_ok());
    }
}

proptest! {
    #[test]
    fn any_byte_of_a_cookie_changed_means_none(at: prop::sample::Index, byte: u8, site in 0..3usize) {
        let (a, reader) = (fixtures::membership(A), fixtures::membership([A, B, C][site]));
        let mut cookie = issued(&a, NOW);
        // The value; another name is another cookie.
        let at = 4 + at.index(cookie.len() - 4);
        prop_assume!(cookie[at] != byte);
        cookie[at] = byte;
        let read = reader.read_cookie([&cookie[..]], NOW).cookie;
        prop_assert!(matches!(read, Cookie::None | Cookie::Refused(_)), "{read:?}");
    }

    #[test]
    fn any_byte_of_a_hop_changed_means_none(at: prop::sample::Index, to in "[ -~]") {
        let (a, b) = (fixtures::membership(A), fixtures::membership(B));
        let good = signed(&b, A, "rid-1", NOW);
        let mut hop = good.clone();
        let at = at.index(hop.len());
        hop.replace_range(at..=at, &to);
        let verified = verify(&a, &hop, None, NOW, &ReplayGuard::new());
        prop_assert_eq!(verified.is_ok(), hop == good, "{}", hop);
    }
}
