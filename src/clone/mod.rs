//! stub
use std::{net::{SocketAddr,IpAddr}, sync::Arc, borrow::Cow};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use crate::{config, metrics::Metrics, names::{PoolName, VsName}};
pub struct ClonePool { pool: PoolName }
#[derive(Clone, Copy)] pub enum BodyKind { None, Length(u64), Unknown }
pub struct CopyHead<'a> { pub method: &'a str, pub target: &'a str, pub host: &'a str, pub headers: &'a http::HeaderMap, pub session: u64, pub seq: u64, pub request_id: &'a str, pub drop_cookie: Option<&'a str>, pub body: BodyKind }
pub struct Tap;
impl Tap { pub fn data(&mut self, _b: &Bytes) {} pub fn end(self) {} }
impl ClonePool {
    pub fn new(section: &config::CloneSection, _m: &config::Pool, _vs: &VsName, _me: &Metrics, _c: CancellationToken) -> Arc<Self> { Arc::new(Self{pool: section.pool.clone()}) }
    pub fn pool(&self) -> &PoolName { &self.pool }
    pub fn tap(&self, _to: SocketAddr, _h: CopyHead<'_>) -> Option<Tap> { None }
}
