//! Cipher suites as services may be told to offer: OpenSSL's lists, of which it silently passes over what it does not
//! know. Here that is a problem.

use openssl::ssl::{SslContextBuilder, SslMethod};

use super::{
    problem::{Wrong, shown},
    words,
    yaml::Node,
};

/// A list for TLS 1.2, such as `ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE+AESGCM`.
pub(super) fn list(node: &Node) -> Result<String, Wrong> {
    read(node, |context, list| context.set_cipher_list(list).is_ok())
}

/// A list for TLS 1.3, such as `TLS_AES_128_GCM_SHA256`.
pub(super) fn suites(node: &Node) -> Result<String, Wrong> {
    read(node, |context, list| context.set_ciphersuites(list).is_ok())
}

fn read(node: &Node, set: impl Fn(&mut SslContextBuilder, &str) -> bool) -> Result<String, Wrong> {
    let list = words::text(node)?;
    let mut context = SslContextBuilder::new(SslMethod::tls_server())
        .map_err(|_| Wrong::new("OpenSSL cannot be asked about ciphers", "see to its installation"))?;
    // OpenSSL takes other separators, too.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+!@=:".contains(&byte);
    if !list.bytes().all(fits) {
        let help = "write names as of `openssl ciphers -v`, with colons between them";
        return Err(Wrong::new(format!("{} is no list of ciphers", shown(&list)), help));
    }
    for part in list.split(':') {
        let excludes = part.starts_with(['!', '-', '+']);
        let weak = WEAK.iter().find(|weak| part.split('+').any(|word| word.eq_ignore_ascii_case(weak)));
        if let Some(weak) = weak.filter(|_| !excludes) {
            let help = "leave it out: it protects nobody";
            return Err(Wrong::new(format!("{} offers {weak}", shown(part)), help));
        }
        if part.starts_with('@') && part != "@STRENGTH" {
            return Err(Wrong::new(format!("{} is not for this list", shown(part)), "leave it out"));
        }
        if !excludes && !part.starts_with('@') && !set(&mut context, part) {
            let help = "write names as of `openssl ciphers -v`, with colons between them";
            return Err(Wrong::new(format!("{} is no cipher that OpenSSL has here", shown(part)), help));
        }
    }
    match set(&mut context, &list) {
        true => Ok(list),
        false => Err(Wrong::new(format!("{} leaves no cipher", shown(&list)), "exclude less")),
    }
}

/// Words of lists that stand for what nobody should offer.
const WEAK: [&str; 16] = [
    "ALL",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "NULL",
    "eNULL",
    "aNULL",
    "ADH",
    "AECDH",
    "EXPORT",
    "LOW",
    "RC4",
    "MD5",
    "DES",
    "3DES",
    "IDEA",
    "SEED",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_if_openssl_knows_each_part_and_none_is_weak() {
        let read = |parse: fn(&Node) -> Result<String, Wrong>, text: &str| {
            parse(&Node::parse(&format!("'{text}'")).ok().expect("it is YAML")).is_ok()
        };
        for (text, taken) in [
            ("ECDHE-RSA-AES128-GCM-SHA256", true),
            ("ECDHE+AESGCM:ECDHE+CHACHA20:!AESCCM:@STRENGTH", true),
            ("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA25", false),
            ("ECDHE-RSA-AES128-GCM-SHA256,AES256-SHA", false),
            ("ECDHE+AESGCM:NULL", false),
            ("ECDHE+AESGCM:!aNULL:!MD5", true),
            ("ECDHE+AESGCM:@SECLEVEL=0", false),
            ("ECDHE+AESGCM:!ECDHE", false),
            ("TLS_AES_128_GCM_SHA256", false),
        ] {
            assert_eq!(read(list, text), taken, "{text}");
        }
        for (text, taken) in [
            ("TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256", true),
            ("TLS_AES_128_GCM_SHA25", false),
            ("ECDHE-RSA-AES128-GCM-SHA256", false),
        ] {
            assert_eq!(read(suites, text), taken, "{text}");
        }
    }
}
