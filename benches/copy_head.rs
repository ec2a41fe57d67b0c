//! What a copy costs the app's path: making its head. `cargo bench --bench copy_head`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use homing::{
    clone::{BodyKind, CopyHead, MarkKeys, Recipe},
    config::CloneSection,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SMALL: &[(&str, &str)] = &[("host", "a.com"), ("user-agent", "curl/8"), ("accept", "*/*")];

/// As a browser sends them.
const BROWSER: &[(&str, &str)] = &[
    ("host", "pay.a.com"),
    ("connection", "keep-alive"),
    ("sec-ch-ua", r#""Chromium";v="140", "Not=A?Brand";v="24""#),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", r#""Linux""#),
    ("upgrade-insecure-requests", "1"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    ),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("referer", "https://pay.a.com/accounts"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("cookie", "SID=0f1e2d3c4b5a69788796a5b4c3d2e1f0; theme=dark; consent=1; site=AQEBAQEBAQEBAQEBAQEBAQ"),
    ("authorization", "Basic dXNlcjpwYXNzd29yZA=="),
];

fn heads(c: &mut Criterion) {
    let marks = MarkKeys::new([], &[7; 16]);
    let recipe = Recipe::new(&CloneSection::of("analysers".into()), &"pay@site_A".into(), &marks);
    let mut group = c.benchmark_group("copy_head");
    for (name, fields) in [("small", SMALL), ("of a browser", BROWSER)] {
        let headers = headers(fields);
        let mut copy = Vec::with_capacity(2048);
        let mut write = |seq| {
            let head = head(&headers, seq);
            copy.clear();
            recipe.write(&head, &mut copy).expect("the request is well formed");
            copy.len()
        };
        group.throughput(Throughput::Bytes(write(1) as u64));
        let mut seq = 1;
        group.bench_function(name, |b| {
            b.iter(|| {
                seq += 1;
                black_box(write(seq))
            });
        });
    }
    group.finish();
}

fn head(headers: &HeaderMap, seq: u64) -> CopyHead<'_> {
    CopyHead {
        method: &Method::GET,
        target: b"/accounts/12345678/transfers?page=2",
        host: "pay.a.com",
        headers,
        client: "192.0.2.1",
        secure: true,
        session: 0x9f86_d081_884c_7d65,
        seq,
        request_id: "00c0ffee00c0ffee",
        drop_cookies: [Some("site"), None],
        body: BodyKind::None,
    }
}

fn headers(fields: &'static [(&str, &str)]) -> HeaderMap {
    let fields = fields.iter();
    fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

criterion_group!(benches, heads);
criterion_main!(benches);
