//! What is dubious and not wrong.

use super::*;

#[test]
fn a_key_file_that_others_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for name in ["site-a.yaml", "federation.yaml"] {
        fs::copy(project("conf/two-sites").join(name), folder.path().join(name)).unwrap();
    }
    let key = folder.path().join("site-cookie.key");
    fs::write(&key, "0f".repeat(32)).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = load(&folder.path().join("site-a.yaml"), &[]).unwrap();
        assert_eq!(loaded.warnings.len(), warnings, "mode {mode:o}: {:?}", loaded.warnings);
    }
}

#[test]
fn a_member_that_is_no_virtual_service_here_is_a_warning() {
    let site = fs::read_to_string(project("conf/two-sites/site-a.yaml")).unwrap();
    let Loaded { warnings, .. } =
        load_text(&site.replace("virtualservice-dc87", "virtualservice-0000")).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0]
            .to_string()
            .starts_with("federation.yaml:54: gslb_services[gs-1].groups[group1].members[0]: ")
    );
}

#[test]
fn an_app_that_may_be_silent_longer_than_peers_wait_is_a_warning() {
    let site = fs::read_to_string(project("conf/two-sites/site-a.yaml")).unwrap();
    let with = |timeout: &str| {
        let text = site.replacen("- name: pay\n", &format!("- name: pay\n    read_timeout: {timeout}\n"), 1);
        assert_ne!(text, site);
        load_text(&text).unwrap().warnings
    };
    assert!(with("64s").is_empty());
    let warnings = with("2m");
    let said = "pool `pay` may be silent for 2m (`read_timeout`), and peer sites wait 65s for this home; \
                raise `home_read_timeout` of `gap-1` above it";
    assert!(warnings.len() == 1 && warnings[0].to_string().ends_with(said), "{warnings:?}");
}

#[test]
fn a_name_of_two_gslb_services_is_a_warning() {
    let mut files = FILES.clone();
    let federation = "
gslb:
  federation_id: demo
  sites: [{ name: local, cluster_uuid: cluster-a }]
gslb_services:
  - { name: gs-1, uuid: g-1, domain_names: [a.com], is_federated: true, groups: &groups [{ name: g, members: [{ ip: 192.0.2.1, services: [{ port: 80 }] }] }] }
  - { name: gs-2, uuid: g-2, domain_names: [b.com, a.com], is_federated: true, groups: *groups }
  - { name: gs-3, uuid: g-3, domain_names: [b.com], enabled: false, is_federated: true, groups: *groups }
";
    files.insert("own.yaml".into(), federation.into());
    files.insert(
        "homing.yaml".into(),
        "federation: own.yaml\nsite: { name: local, cluster_uuid: cluster-a }".into(),
    );
    let loaded =
        load_from(&files, Path::new("homing.yaml"), &RULES).unwrap_or_else(|problems| panic!("{problems}"));
    let said = "`a.com` is a name of two GSLB services, and DNS answers with the members of `gs-1`; take it out of \
                `gs-2`, unless DNS is not ours";
    let warnings = loaded.warnings;
    assert!(warnings.len() == 1 && warnings[0].to_string().ends_with(said), "{warnings:?}");
}

#[test]
fn a_token_file_that_others_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (file, token) = (folder.path().join("homing.yaml"), folder.path().join("admin.token"));
    fs::write(&file, "admin: { listen: 0.0.0.0:9901, token_file: admin.token }").unwrap();
    fs::write(&token, "0123456789abcdef\n").unwrap();
    for (mode, warnings) in [(0o600, 0), (0o400, 0), (0o644, 1)] {
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = load(&file, &[]).unwrap();
        assert_eq!(loaded.warnings.len(), warnings, "mode {mode:o}: {:?}", loaded.warnings);
        assert!(loaded.warnings.iter().all(|it| it.help.starts_with("chmod 600 ")), "{:?}", loaded.warnings);
    }
}
