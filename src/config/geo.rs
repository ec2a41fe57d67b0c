//! Where things are on the globe, and where clients are as a MaxMind-format file has it.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc};

use maxminddb::Reader;
use serde::Deserialize;
use serde_yaml::Value;
use sha2::{Digest, Sha256};

use super::{
    files::unreadable,
    problem::{Wrong, shown},
    read::Object,
    shape::Shape,
    words,
    yaml::{Data, Node},
};

/// A point on the globe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    /// Degrees north, -90 to 90.
    pub latitude: f64,
    /// Degrees east, -180 to 180.
    pub longitude: f64,
}

/// A MaxMind-format file with locations, such as GeoLite2 City, in memory.
#[derive(Clone)]
pub struct GeoDatabase {
    pub path: PathBuf,
    reader: Arc<Reader<Vec<u8>>>,
    /// SHA-256 of the file.
    digest: [u8; 32],
}

impl Location {
    pub(super) fn read(o: &mut Object<'_>) -> Option<Self> {
        let latitude = o.required("latitude", degrees(90.0));
        let longitude = o.required("longitude", degrees(180.0));
        Some(Self { latitude: latitude?, longitude: longitude? })
    }
}

/// A number of degrees, up to `most` to either side.
fn degrees(most: f64) -> impl Fn(&Node) -> Result<f64, Wrong> {
    move |node| {
        let help = format!("write degrees from -{most} to {most}, as in `52.5`");
        let Data::Scalar(Value::Number(number)) = &node.data else {
            let wrong = Wrong::new(format!("{} where degrees are meant", node.described()), help);
            return Err(wrong.expecting(Shape::Number { least: -most, most }));
        };
        let value = number.as_f64().filter(|degrees| (-most..=most).contains(degrees));
        value.ok_or_else(|| Wrong::new(format!("`{number}` is out of range"), help))
    }
}

impl GeoDatabase {
    /// The file that a field names.
    pub(super) fn read(o: &mut Object<'_>, key: &'static str) -> Option<Self> {
        let path = o.source.beside(&o.field(key, words::file_name)?);
        let bytes = match o.source.files.read_up_to(&path, LARGEST_DATABASE) {
            Ok(bytes) => bytes,
            Err(error) => {
                let (what, help) = unreadable(&path, &error);
                o.wrong(key, what, help);
                return None;
            }
        };
        match Self::of(path.clone(), bytes) {
            Ok(database) => Some(database),
            Err(error) => {
                let what = format!("file {} is no MaxMind database: {error}", shown(&path.to_string_lossy()));
                o.wrong(key, what, "name a `.mmdb` file with locations, such as GeoLite2 City");
                None
            }
        }
    }

    /// Of networks and where they are.
    #[cfg(test)]
    pub fn small(networks: &[(&str, u8, f64, f64)]) -> Self {
        Self::of("geo.mmdb".into(), small::mmdb(networks)).expect("it is one")
    }

    fn of(path: PathBuf, bytes: Vec<u8>) -> Result<Self, maxminddb::MaxMindDbError> {
        let digest = Sha256::digest(&bytes).into();
        Ok(Self { path, reader: Arc::new(Reader::from_source(bytes)?), digest })
    }

    /// Where an address is, if the file knows, and the length of the prefix for which that holds.
    pub fn locate(&self, address: IpAddr) -> (Option<Location>, u8) {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let Ok(found) = self.reader.lookup(address) else { return (None, whole) };
        let prefix = found.network().map_or(whole, |network| network.prefix());
        let record = found.decode::<Record>().ok().flatten();
        let point = record.and_then(|record| record.location);
        let location =
            point.and_then(|point| Some(Location { latitude: point.latitude?, longitude: point.longitude? }));
        (location, prefix.min(whole))
    }
}

/// What is read of a record. The rest is skipped.
#[derive(Deserialize)]
struct Record {
    location: Option<Point>,
}

#[derive(Deserialize)]
struct Point {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

/// By content: the same file read again is the same database.
impl PartialEq for GeoDatabase {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.digest == other.digest
    }
}

impl fmt::Debug for GeoDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoDatabase").field("path", &self.path).finish_non_exhaustive()
    }
}

/// In bytes. The largest that MaxMind sells with locations have some 150 MB.
const LARGEST_DATABASE: u64 = 1 << 30;

/// Small databases for the tests of this module and those above.
#[cfg(test)]
#[path = "../../tests/it/support/mmdb.rs"]
pub(crate) mod small;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_where_the_narrowest_network_says_and_the_prefix_tells_for_whom_else() {
        let database = GeoDatabase::small(&[
            ("192.0.2.0", 24, 52.5, 13.4),
            ("192.0.2.128", 25, 48.9, 2.4),
            ("2001:db8::", 32, -33.9, 151.2),
        ]);
        for (address, place, prefix) in [
            ("192.0.2.1", Some((52.5, 13.4)), 25),
            ("192.0.2.200", Some((48.9, 2.4)), 25),
            ("2001:db8::1", Some((-33.9, 151.2)), 32),
            ("198.51.100.1", None, 6),
        ] {
            let (location, found) = database.locate(address.parse().unwrap());
            assert_eq!(location.map(|it| (it.latitude, it.longitude)), place, "{address}");
            assert_eq!(found, prefix, "{address}");
        }
    }

    #[test]
    fn what_is_no_database_is_refused() {
        assert!(GeoDatabase::of("x".into(), b"not a database".to_vec()).is_err());
        let whole = small::mmdb(&[("192.0.2.0", 24, 52.5, 13.4)]);
        for cut in 0..whole.len() {
            if let Ok(database) = GeoDatabase::of("x".into(), whole[..cut].to_vec()) {
                database.locate("192.0.2.1".parse().unwrap());
            }
        }
    }
}
