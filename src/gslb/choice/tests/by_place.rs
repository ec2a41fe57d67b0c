//! By where clients and members are.

use super::{fixtures::*, *};
use crate::config::GeoDatabase;

fn database() -> GeoDatabase {
    GeoDatabase::small(&[
        ("192.0.2.0", 24, 50.1, 8.7),
        ("198.51.100.0", 24, 51.5, -0.1),
        ("203.0.113.0", 24, -36.8, 174.8),
    ])
}

#[test]
fn geo_takes_the_nearest_member_that_is_up() {
    let directory = three(GslbAlgorithm::Geo, |service, gslb| {
        gslb.geo_database = Some(database());
        service.groups[0].choosing.fallback_algorithm = GslbAlgorithm::PreferenceOrder;
    });
    for (client, down, chosen, reason) in [
        ("192.0.2.1", "", "site_A", Reason::Geo),
        ("192.0.2.1", "site_A", "site_B", Reason::Geo),
        ("198.51.100.1", "", "site_B", Reason::Geo),
        ("203.0.113.1", "", "site_C", Reason::Geo),
        ("203.0.113.1", "site_C", "site_A", Reason::Geo),
        ("10.0.0.1", "", "site_A", Reason::Fallback),
    ] {
        let found = choose(&directory, &at(client), &Ill::of(&[(down, Availability::Down)]), 3);
        assert_eq!(found, (chosen.to_owned(), reason), "{client} without {down}");
    }
    let client = Client::subnet("192.0.2.0".parse().unwrap(), 28);
    let choice = service(&directory).choose(&client, Family::V4, &WELL, Instant::now(), 1);
    assert_eq!(choice.scope, 24, "for all of the database's network");
}

#[test]
fn a_members_own_place_counts_before_its_sites_and_that_before_the_databases() {
    let directory = three(GslbAlgorithm::Geo, |service, gslb| {
        gslb.geo_database = Some(database());
        service.groups[0].members[0].location = Some(Location { latitude: -36.8, longitude: 174.8 });
        gslb.sites[2].location = None;
        service.groups[0].members[2].public_ip = Some("198.51.100.9".parse().unwrap());
    });
    for (client, chosen) in [("203.0.113.1", "site_A"), ("198.51.100.1", "site_C"), ("192.0.2.1", "site_B")] {
        assert_eq!(choose(&directory, &at(client), &WELL, 1).0, chosen, "{client}");
    }
}

#[test]
fn pool_algorithm_geo_takes_the_group_with_the_nearest_member() {
    let directory = three(GslbAlgorithm::PreferenceOrder, |service, gslb| {
        gslb.geo_database = Some(database());
        service.pool_algorithm = PoolAlgorithm::Geo;
        let mut members = std::mem::take(&mut service.groups[0].members);
        let far = members.split_off(1);
        let order = GslbAlgorithm::PreferenceOrder;
        service.groups = vec![group(30, order, members), group(20, order, far)];
    });
    for (client, down, chosen) in [
        ("192.0.2.1", "", "site_A"),
        ("192.0.2.1", "site_A", "site_B"),
        ("203.0.113.1", "", "site_B"),
        ("203.0.113.1", "site_B", "site_C"),
        ("10.0.0.1", "", "site_A"),
    ] {
        let found = choose(&directory, &at(client), &Ill::of(&[(down, Availability::Down)]), 3).0;
        assert_eq!(found, chosen, "{client} without {down}");
    }
}
