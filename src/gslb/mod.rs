//! stub
use std::{net::SocketAddr, sync::Arc};
use crate::{config::{self, HmDownRecovery}, names::*, site_cookie::*};
pub struct Membership;
pub struct PeerMember { pub id: MemberId, pub addr: SocketAddr, pub cluster_uuid: ClusterUuid }
pub struct MemberId; impl MemberId { pub fn of(_a: &ClusterUuid, _b: &VsUuid) -> Self { Self } } impl std::fmt::Display for MemberId { fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
#[derive(Clone, Copy, PartialEq)] pub enum Outcome { FromPeer, Rehomed, Aborted, Proxied }
impl Outcome { pub const ALL: [Outcome; 1] = [Outcome::Proxied]; pub fn as_str(self) -> &'static str { "" } }
pub enum Origin { Client, Peer, Loop }
pub enum Decision { Local { outcome: Outcome, issue: bool }, Proxy { peer: Arc<PeerMember> }, Abort }
impl Membership {
  pub fn of(_v: &config::VirtualService, _s: &config::Site, _g: &config::Gslb) -> Result<Option<Self>, std::io::Error> { todo!() }
  pub fn recovery(&self) -> HmDownRecovery { todo!() }
  pub fn cookie_name(&self) -> &str { todo!() }
  pub fn service_uuid(&self) -> &GslbServiceUuid { todo!() }
  pub fn service_name(&self) -> &GslbServiceName { todo!() }
  pub fn profile_name(&self) -> &str { todo!() }
  pub fn peer_at(&self, _a: SocketAddr) -> Option<&PeerMember> { todo!() }
  pub fn peer(&self, _a: &MemberId) -> Option<&PeerMember> { todo!() }
  pub fn verify_hop(&self, _h: &str, _m: &str, _a: &str, _p: &str, _n: u64) -> Result<Hop, HopRefusal> { todo!() }
  pub fn sign_hop(&self, _f: &HopFields<'_>, _m: &str, _a: &str, _p: &str) -> Result<String, HopError> { todo!() }
  pub fn cdn_loop_token(&self) -> &str { todo!() }
  pub fn open_cookie<'a>(&self, _v: impl Iterator<Item=&'a str>, _n: u64) -> Option<Result<Opened, Refusal>> { todo!() }
  pub fn decide(&self, _o: Origin, _c: Option<Result<Opened, Refusal>>, _n: u64, _u: impl Fn(&PeerMember)->bool) -> Decision { todo!() }
  pub fn without_cookie(&self, _c: &str) -> Option<String> { todo!() }
  pub fn carried_session(&self, _c: &[u8]) -> [u8;16] { todo!() }
  pub fn set_cookie(&self, _now: u64, _n: [u8;12], _s: bool) -> String { todo!() }
  pub fn cache_control(&self, _c: Option<&str>) -> Option<String> { todo!() }
}
pub mod sp_pool { use super::*; pub fn describe(_m: &Membership) -> config::Pool { todo!() } pub fn uuid(_m: &Membership) -> String { todo!() } 
 pub const GRACEFUL_DISABLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60); pub const CONNECTION_RAMP_DURATION: std::time::Duration = std::time::Duration::from_secs(60);pub const REQUEST_QUEUE_DEPTH: u32=1; pub const DESCRIPTION: &str=""; pub const SERVER_DESCRIPTION: &str=""; }
