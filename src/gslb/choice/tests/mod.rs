//! The choice by a table of each algorithm, and properties that hold for any federation.

mod algorithms;
mod answers;
mod by_place;
mod fixtures;
mod properties;
mod tiers;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Instant};

use super::*;
use crate::config::{
    DownResponse, Gslb, GslbAlgorithm, GslbMember, GslbService, Location, PoolAlgorithm, TopologyRule,
};
