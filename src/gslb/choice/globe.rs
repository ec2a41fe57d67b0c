//! Distances on the globe.

use crate::config::Location;

/// A point on the globe, as the unit vector from its centre: which of two is nearer takes three multiplications.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point([f64; 3]);

impl From<Location> for Point {
    fn from(location: Location) -> Self {
        let (latitude, longitude) = (location.latitude.to_radians(), location.longitude.to_radians());
        Self([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()])
    }
}

impl Point {
    /// Grows with the distance and is not one: 0 at the same place, 2 at the other end of the world.
    pub fn apart(self, other: Self) -> f64 {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        1.0 - (a * x + b * y + c * z)
    }

    /// The distance along the surface.
    pub fn kilometres(self, other: Self) -> f64 {
        (1.0 - self.apart(other)).clamp(-1.0, 1.0).acos() * EARTH_RADIUS
    }
}

/// In kilometres, on average.
const EARTH_RADIUS: f64 = 6371.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_an_atlas() {
        let at = |latitude, longitude| Point::from(Location { latitude, longitude });
        let berlin = at(52.52, 13.405);
        for (other, kilometres) in [
            (berlin, 0.0),
            (at(48.857, 2.352), 878.0),
            (at(40.713, -74.006), 6385.0),
            (at(-52.52, -166.595), 20015.0),
        ] {
            let found = berlin.kilometres(other);
            assert!((found - kilometres).abs() < 5.0, "{found} of {kilometres}");
        }
        assert!(berlin.apart(at(48.857, 2.352)) < berlin.apart(at(40.713, -74.006)));
        let (east, west) = (at(0.0, 179.0), at(0.0, -179.0));
        assert!(east.kilometres(west) < 300.0, "the date line is nowhere");
    }
}
