//! A client that is being answered: what of it mattered so far, which is the scope of the answer.

use std::net::IpAddr;

use super::{Client, globe::Point, networks::NetworkMap};
use crate::config::{GeoDatabase, Location};

/// What the federation knows of where clients are. Shared by all services.
#[derive(Debug)]
pub struct Places {
    /// Clients inside.
    pub private: NetworkMap<()>,
    /// By client: which of `lists`.
    pub topology: NetworkMap<u32>,
    /// Sites, by their place in the federation's file, the best first.
    pub lists: Box<[Box<[u16]>]>,
    pub geo: Option<GeoDatabase>,
}

/// A client, and how many leading bits of its address have mattered.
pub struct Asker<'a> {
    client: &'a Client,
    places: &'a Places,
    scope: u8,
    point: Option<Option<Point>>,
}

impl<'a> Asker<'a> {
    pub fn new(client: &'a Client, places: &'a Places) -> Self {
        Self { client, places, scope: 0, point: None }
    }

    /// Whether it gets public addresses.
    pub fn is_outside(&mut self) -> bool {
        let (inside, scope) = self.places.private.find(self.client.address);
        self.mattered(scope);
        inside.is_none()
    }

    /// Where it is, if that is known.
    pub fn point(&mut self) -> Option<Point> {
        if self.point.is_none() {
            self.point = Some(self.location().map(Point::from));
        }
        self.point.flatten()
    }

    pub fn location(&mut self) -> Option<Location> {
        let (location, scope) = self.places.geo.as_ref()?.locate(self.client.address);
        self.mattered(scope);
        location
    }

    /// The sites that are best for it, if the topology knows.
    pub fn sites(&mut self) -> Option<&'a [u16]> {
        let (list, scope) = self.places.topology.find(self.client.address);
        self.mattered(scope);
        Some(&self.places.lists[list? as usize])
    }

    /// The same for all clients with the same leading bits: `mask` of an IPv4 address, `mask6` of an IPv6 address.
    pub fn hash(&mut self, mask: u8, mask6: u8) -> u64 {
        match self.client.address {
            IpAddr::V4(ip) => {
                self.mattered(mask);
                u64::from(ip.to_bits() & u32::MAX.checked_shl(32 - u32::from(mask)).unwrap_or(0))
            }
            IpAddr::V6(ip) => {
                self.mattered(mask6);
                let bits = ip.to_bits() & u128::MAX.checked_shl(128 - u32::from(mask6)).unwrap_or(0);
                super::rank::mix((bits >> 64) as u64) ^ bits as u64
            }
        }
    }

    /// The prefix for which the answer holds. Never longer than the client's own: nobody knows the bits beyond.
    pub fn scope(&self) -> u8 {
        if self.client.from_ecs { self.scope.min(self.client.prefix) } else { 0 }
    }

    fn mattered(&mut self, bits: u8) {
        self.scope = self.scope.max(bits);
    }
}
