//! Writes small MaxMind-format files: networks and where they are (MaxMind DB file format 2.0).
//!
//! As little as a reader needs: one search tree with records of 32 bits, one record of data for each network, and the
//! metadata.

use std::net::IpAddr;

/// The file. `networks`: an address, how many leading bits of it count, latitude and longitude.
pub fn mmdb(networks: &[(&str, u8, f64, f64)]) -> Vec<u8> {
    let mut tree = Tree::default();
    let mut data = Vec::new();
    for (address, len, latitude, longitude) in networks {
        let bits = match address.parse().expect("an address") {
            IpAddr::V6(ip) => (ip.to_bits(), *len),
            // IPv4 stands in ::/96 of the tree.
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), len + 96),
        };
        tree.insert(bits, data.len());
        map(&mut data, 1);
        text(&mut data, "location");
        map(&mut data, 2);
        for (name, degrees) in [("latitude", latitude), ("longitude", longitude)] {
            text(&mut data, name);
            // Type 3: a double of 8 bytes.
            data.push(3 << 5 | 8);
            data.extend(degrees.to_be_bytes());
        }
    }
    let mut file = tree.written();
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    map(&mut file, 9);
    text(&mut file, "database_type");
    text(&mut file, "Test-City");
    for (name, value) in [("binary_format_major_version", 2_u16), ("binary_format_minor_version", 0)] {
        text(&mut file, name);
        uint16(&mut file, value);
    }
    text(&mut file, "build_epoch");
    // Extended type 9: a number of 64 bits.
    file.extend([8, 2]);
    file.extend(1_700_000_000_u64.to_be_bytes());
    text(&mut file, "description");
    map(&mut file, 1);
    text(&mut file, "en");
    text(&mut file, "for tests");
    text(&mut file, "ip_version");
    uint16(&mut file, 6);
    text(&mut file, "languages");
    // Extended type 11: a list of one.
    file.extend([1, 4]);
    text(&mut file, "en");
    text(&mut file, "node_count");
    file.push(6 << 5 | 4);
    file.extend((tree.0.len() as u32).to_be_bytes());
    text(&mut file, "record_size");
    uint16(&mut file, 32);
    file
}

/// Nodes with what is left and right of each: a node, data, or nothing.
struct Tree(Vec<[Side; 2]>);

#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    Data(usize),
}

impl Default for Tree {
    fn default() -> Self {
        Self(vec![[Side::Nothing; 2]])
    }
}

impl Tree {
    fn insert(&mut self, (address, len): (u128, u8), data: usize) {
        let mut node = 0;
        for depth in 0..len {
            let side = (address >> (127 - depth) & 1) as usize;
            if depth + 1 == len {
                self.0[node][side] = Side::Data(data);
                break;
            }
            node = match self.0[node][side] {
                Side::Node(next) => next,
                above => {
                    // What a wider network said goes on holding beside the narrower one.
                    self.0.push([above; 2]);
                    let next = self.0.len() - 1;
                    self.0[node][side] = Side::Node(next);
                    next
                }
            };
        }
    }

    fn written(&self) -> Vec<u8> {
        let count = self.0.len();
        let record = |side: &Side| match side {
            Side::Nothing => count,
            Side::Node(node) => *node,
            Side::Data(at) => count + 16 + at,
        };
        self.0.iter().flatten().flat_map(|side| (record(side) as u32).to_be_bytes()).collect()
    }
}

/// The head of a map with so many pairs.
fn map(to: &mut Vec<u8>, pairs: u8) {
    to.push(7 << 5 | pairs);
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.push(2 << 5 | text.len() as u8);
    to.extend(text.as_bytes());
}

fn uint16(to: &mut Vec<u8>, value: u16) {
    to.push(5 << 5 | 2);
    to.extend(value.to_be_bytes());
}
