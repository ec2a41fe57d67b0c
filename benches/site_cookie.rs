//! What a site cookie costs: opening and sealing one, and reading it out of a request. `cargo bench --bench site_cookie`.
//!
//! With AES-NI, opening is to take at most 1 µs and sealing 1.5 µs.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use homing::{
    gslb::cookie_values,
    site_cookie::{Claims, Codec, Key, KeyFile, KeyRing, KeyState, LastOpened, Secret},
};

const NOW: u64 = 1_517_875_922;

fn codec() -> Codec {
    let key = Key {
        uuid: "509ceebd-0913-4a6f-8b1e-2f0d3c4b5a69".into(),
        state: KeyState::Active,
        secret: Secret::new([7; 32]),
        file: KeyFile::default(),
    };
    let ring = KeyRing::new(vec![key]).expect("a ring");
    Codec::new(&ring, "gslbservice-ff1b4e8d-663d-4cb9-932b-d007c81efba6", "FOO", None)
}

fn site_cookie(criterion: &mut Criterion) {
    let codec = codec();
    let claims = Claims { member_id: [9; 32], drain_epoch: 0, iat: NOW, exp: NOW + 3600, server_tag: [0; 8] };
    let value = codec.seal(&claims, [1; 12]);
    let forged = value.replacen('A', "B", 1);
    let header = format!("SID=0123456789abcdef; theme=dark; FOO={value}; lang=en");
    let mut group = criterion.benchmark_group("site_cookie");
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    group.bench_function("seal", |bencher| {
        bencher.iter(|| codec.seal(black_box(&claims), black_box([1; 12])));
    });
    group.bench_function("open", |bencher| {
        bencher.iter(|| codec.open(black_box(value.as_bytes()), NOW, |_| Some(0)).expect("it is good"));
    });
    group.bench_function("open forged", |bencher| {
        bencher.iter(|| codec.open(black_box(forged.as_bytes()), NOW, |_| Some(0)).expect_err("it is not"));
    });
    group.bench_function("read from a header", |bencher| {
        bencher.iter(|| {
            let values = cookie_values([black_box(header.as_bytes())], "FOO");
            let last = &mut LastOpened::default();
            codec.open_best(values, NOW, |_| Some(0), last).expect("there is one").expect("it is good")
        });
    });
    group.bench_function("read from a header again", |bencher| {
        let mut last = LastOpened::default();
        bencher.iter(|| {
            let values = cookie_values([black_box(header.as_bytes())], "FOO");
            codec.open_best(values, NOW, |_| Some(0), &mut last).expect("there is one").expect("it is good")
        });
    });
    group.finish();
}

criterion_group!(benches, site_cookie);
criterion_main!(benches);
