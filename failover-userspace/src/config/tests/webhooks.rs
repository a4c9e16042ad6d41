//! `[[notify]]`.

use super::*;
use crate::journal::Kind;
use crate::model::{Trust, Webhook};

/// The last line of the reference case, after which the sections stand.
const END: &str = "offsite = true\n";

fn section(lines: &str) -> String {
    format!("{END}\n[[notify]]\n{lines}\n")
}

/// Loads the reference case with a section and files beside it.
fn load_with_files(lines: &str, files: &[(&str, &str)]) -> Result<Loaded, Diagnostics> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("example.com.zone"), ZONE).unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let file = directory.path().join("failover.toml");
    fs::write(&file, REFERENCE.replacen(END, &section(lines), 1)).unwrap();
    load(&file)
}

#[track_caller]
fn webhook(lines: &str) -> Webhook {
    let mut webhooks = model(END, &section(lines)).webhooks;
    assert_eq!(webhooks.len(), 1);
    webhooks.remove(0)
}

#[test]
fn mistakes_have_their_place() {
    let https = "url = \"https://hooks.example.net/x\"";
    let rows = [
        ("url = ^3", "url: expected a string, found 3"),
        (
            "url = ^\"ftp://hooks.example.net\"",
            "url: expected \"http://HOST/…\" or \"https://HOST/…\"",
        ),
        (
            "url = ^\"hooks.example.net\"",
            "found \"hooks.example.net\"",
        ),
        ("url = ^\"https://\"", "url: expected"),
        ("url = ^\"https:///x\"", "url: expected"),
        ("url = ^\"https://u:p@hooks.example.net/\"", "without user"),
        ("url = ^\"https://hooks.example.net/#a\"", "fragment"),
        ("url = ^\"https://hooks.example.net:0/\"", "url: expected"),
        ("url = ^\"https://hooks.example.net:x/\"", "url: expected"),
        ("url = ^\"https://hooks.example.net:/\"", "url: expected"),
        ("url = ^\"https://hooks_.exam ple.net/\"", "url: expected"),
        ("{https}\nevents = ^\"server\"", "events: expected an array"),
        (
            "{https}\nevents = [\"wan\", ^\"sever\"]",
            "events: expected one of \"server\", \"wan\", \"service\", \"publication\", \"interface\", \"daemon\", \"admin\", \"reload\" (did you mean \"server\"?), found \"sever\"",
        ),
        ("{https}\nevents = ^[]", "events: expected at least one"),
        ("{https}\nservices = ^[]", "services: expected at least one"),
        (
            "{https}\nservices = [^\"w[\"]",
            "services: expected the name of a service, or a pattern",
        ),
        ("{https}\nheaders = ^[]", "headers: expected a table"),
        (
            "{https}\nheaders = { ^\"a b\" = \"x\" }",
            "headers: expected the name of a header",
        ),
        (
            "{https}\nheaders = { ^Content-Type = \"x\" }",
            "headers: \"Content-Type\" is not to be chosen",
        ),
        (
            "{https}\nheaders = { X-Token = ^\"a\\nb\" }",
            "headers: X-Token: expected a string of visible ASCII characters",
        ),
        (
            "{https}\ntimeout = ^\"1ms\"",
            "timeout: expected a duration",
        ),
        ("{https}\nverify = ^1", "verify: expected true or false"),
        ("{https}\nca_file = ^\"absent.pem\"", "absent.pem"),
        (
            "{https}\nverify = false\nca_file = ^\"ca.pem\"",
            "ca_file: verify = false needs none",
        ),
        (
            "url = \"http://hooks.example.net/\"\nverify = ^false",
            "verify: expected only with an https URL",
        ),
        (
            "{https}\nbearer_token_file = ^\"absent\"",
            "bearer_token_file: ",
        ),
        ("{https}\n^event = []", "did you mean \"events\"?"),
        (
            "{https}\n[[notify]]\nurl = ^\"https://hooks.example.net/y\"",
            "duplicate name of [[notify]], by default its host:",
        ),
        (
            "{https}\nname = \"a\"\n[[notify]]\nurl = \"http://192.0.2.1/\"\nname = ^\"a\"",
            "duplicate name of [[notify]]",
        ),
    ];
    let without = "offsite = true\n\n^[[notify]]\ntimeout = \"1s\"\n";
    check_edits(&[(END, without, "missing key \"url\"")]);
    for (lines, message) in rows {
        check_edits(&[(END, &section(&lines.replace("{https}", https)), message)]);
    }
}

#[test]
fn urls_are_taken_apart() {
    for (url, want) in [
        (
            "https://hooks.example.net",
            ("hooks.example.net", 443, "hooks.example.net", "/"),
        ),
        (
            "http://hooks.example.net:8080/a/b?c=d",
            (
                "hooks.example.net",
                8080,
                "hooks.example.net:8080",
                "/a/b?c=d",
            ),
        ),
        ("http://192.0.2.1/", ("192.0.2.1", 80, "192.0.2.1", "/")),
        (
            "https://[2001:db8::1]:8443/x",
            ("2001:db8::1", 8443, "[2001:db8::1]:8443", "/x"),
        ),
        (
            "https://[2001:db8::1]/x",
            ("2001:db8::1", 443, "[2001:db8::1]", "/x"),
        ),
    ] {
        let webhook = webhook(&format!("url = \"{url}\""));
        let found = (
            &*webhook.host,
            webhook.port,
            &*webhook.authority,
            &*webhook.path.0,
        );
        assert_eq!(found, want, "{url}");
        assert_eq!(webhook.tls.is_some(), url.starts_with("https"));
        assert_eq!(webhook.name, webhook.authority);
    }
}

#[test]
fn everything_said_and_nothing() {
    let nothing = webhook("url = \"https://hooks.example.net/x\"");
    assert_eq!(nothing.timeout, Duration::from_secs(5));
    assert_eq!((nothing.kinds, nothing.services.len()), (None, 0));
    assert_eq!(nothing.headers, []);
    assert_eq!(nothing.tls.map(|tls| tls.trust), Some(Trust::System));

    let lines = "name = \"chat\"\nurl = \"https://hooks.example.net/x\"\ntimeout = \"2s\"\n\
        verify = false\nevents = [\"server\", \"wan\"]\nservices = [\"www*\", \"mail\"]\n\
        headers = { X-Token = \"secret-1\" }\nbearer_token_file = \"token\"\n";
    let loaded = load_with_files(lines, &[("token", "secret-2\n")]).unwrap();
    let warnings: Vec<_> = loaded
        .warnings
        .iter()
        .map(|found| &*found.message)
        .collect();
    assert_eq!(warnings, ["services: no [[service]] is called \"mail\""]);
    let webhook = &loaded.model.webhooks[0];
    assert_eq!(webhook.name, "chat");
    assert_eq!(webhook.timeout, Duration::from_secs(2));
    assert_eq!(webhook.kinds, Some(vec![Kind::Server, Kind::Wan]));
    assert_eq!(webhook.tls.as_ref().unwrap().trust, Trust::Anybody);
    let headers = webhook.headers.iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    let want = [
        ("x-token", "secret-1"),
        ("authorization", "Bearer secret-2"),
    ];
    assert_eq!(headers, want);
    let shown = format!("{webhook:?}");
    assert!(
        !shown.contains("secret") && !shown.contains("/x"),
        "{shown}"
    );
}

#[test]
fn tokens_are_words_and_better_not_in_the_clear() {
    let https = "url = \"https://hooks.example.net/\"\nbearer_token_file = \"token\"";
    for token in ["", "\n", "two words", "two\nlines", "um\u{308}laut"] {
        let errors = load_with_files(https, &[("token", token)]).unwrap_err();
        let [error] = errors.0.as_slice() else {
            panic!("{errors}");
        };
        assert!(error.message.contains("expected one word"), "{error}");
        assert!(token.trim().is_empty() || !error.message.contains(token.trim()));
    }
    let both = format!("{https}\nheaders = {{ Authorization = \"Basic x\" }}");
    let errors = load_with_files(&both, &[("token", "x")]).unwrap_err();
    assert!(errors.to_string().contains("among the headers"), "{errors}");
    for (host, warned) in [
        ("hooks.example.net", true),
        ("192.0.2.1:80", true),
        ("localhost", false),
        ("127.0.0.1:8080", false),
        ("[::1]", false),
    ] {
        let lines = format!("url = \"http://{host}/\"\nbearer_token_file = \"token\"");
        let loaded = load_with_files(&lines, &[("token", "x")]).unwrap();
        assert_eq!(loaded.warnings.len(), usize::from(warned), "{host}");
    }
}
