//! The reference case, edited.

use super::*;
use crate::controller::testing::edited;

/// One line for each kind of thing that changes.
fn shown(difference: &Difference) -> Vec<String> {
    let Difference {
        settings,
        zones,
        wans,
        services,
        servers,
        webhooks,
        port_forward,
    } = difference;
    let mut lines = Vec::new();
    for (section, keys) in [("settings", settings), ("port_forward", port_forward)] {
        if !keys.is_empty() {
            lines.push(format!("{section} {}", keys.join(" ")));
        }
    }
    for (kind, changes) in [
        ("zones", zones),
        ("wans", wans),
        ("services", services),
        ("servers", servers),
        ("webhooks", webhooks),
    ] {
        let mut words = vec![kind.to_owned()];
        words.extend(changes.added.iter().map(|name| format!("+{name}")));
        words.extend(changes.removed.iter().map(|name| format!("-{name}")));
        let altered = changes.altered.iter();
        words.extend(altered.map(|a| format!("{}:{}", a.name, a.keys.join(","))));
        if words.len() > 1 {
            lines.push(words.join(" "));
        }
    }
    lines
}

const WEB_C: &str = "name = \"web-c\"\naddress = \"192.0.2.200\"";
const NEW_SERVICE: &str = "[[service]]\nname = \"api\"\nfqdn = [\"api.example.com\"]\nport = 80\n\
    [[service.server]]\nname = \"a\"\naddress = \"192.0.2.201\"\noffsite = true\n\
    priority = \"primary\"\n\n[[service]]\nname = \"www\"";

#[test]
fn what_has_changed() {
    /// Edits, and the lines that follow.
    type Row = (
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    let rows: &[Row] = &[
        (&[], &[]),
        (&[("# One web service", "# A web service")], &[]),
        (
            &[(
                "listen = [\"198.51.100.130\", ",
                "port = 5353\nnsid = \"x\"\nlisten = [",
            )],
            &["settings listen port nsid"],
        ),
        (
            &[(
                "interfaces = []",
                "interfaces = [\"eth0\"]\nxdp = \"generic\"\nmax_stale = \"1m\"\nedns_udp_size = 1200\nstate_dir = \"s\"\nbpf_dir = \"b\"\ncontrol_socket = \"c\"",
            )],
            &["settings interfaces xdp edns_udp_size control_socket state_dir bpf_dir max_stale"],
        ),
        (
            &[(
                "interfaces = []",
                "interfaces = []\nmetrics = \"127.0.0.1:9153\"\ncontrol_read = \"all\"\ncontrol_change = [\"user:root\"]",
            )],
            &["settings control_read control_change metrics"],
        ),
        (
            &[(
                "[[service]]\nname = \"www\"",
                "[port_forward]\nenabled = true\n[[notify]]\nurl = \"http://192.0.2.1/\"\n[[service]]\nname = \"www\"",
            )],
            &["port_forward enabled", "webhooks +192.0.2.1"],
        ),
        (&[("ttl = \"30s\"", "ttl = \"31s\"")], &["services www:ttl"]),
        (
            &[
                (
                    "redundancy_only = false",
                    "redundancy_only = true\nmax_answers = 1",
                ),
                ("on_all_down = \"primary\"", "on_all_down = \"empty\""),
                ("\"www.example.com\"", "\"web.example.com\""),
                ("\"203.0.113.70\" }", "\"203.0.113.70\", weight = 2 }"),
            ],
            &["services www:fqdn,redundancy_only,on_all_down,max_answers,wan"],
        ),
        // The default port of the servers, too.
        (
            &[("port = 80", "port = 81")],
            &[
                "services www:port,servers",
                "servers www/web-a:port,check www/web-b:port,check www/web-c:port,check",
            ],
        ),
        (
            &[("192.168.10.11", "192.168.10.12")],
            &["services www:servers", "servers www/web-b:address,check"],
        ),
        (
            &[(
                "priority = \"backup\"",
                "priority = \"disabled\"\nweight = 3",
            )],
            &[
                "services www:servers",
                "servers www/web-b:priority,weight,check",
            ],
        ),
        (
            &[(WEB_C, "name = \"web-d\"\naddress = \"192.0.2.200\"")],
            &["services www:servers", "servers +www/web-d -www/web-c"],
        ),
        // The order of servers is that of the answer.
        (
            &[
                (
                    "name = \"web-a\"\naddress = \"192.168.10.10\"\npriority = \"primary\"",
                    "@@",
                ),
                (
                    "name = \"web-b\"\naddress = \"192.168.10.11\"\npriority = \"backup\"",
                    "name = \"web-a\"\naddress = \"192.168.10.10\"\npriority = \"primary\"",
                ),
                (
                    "@@",
                    "name = \"web-b\"\naddress = \"192.168.10.11\"\npriority = \"backup\"",
                ),
            ],
            &["services www:servers"],
        ),
        (
            &[("interval = \"1s\"", "interval = \"2s\"")],
            &[
                "wans wan1:check wan2:check",
                "services www:servers",
                "servers www/web-a:check www/web-b:check www/web-c:check",
            ],
        ),
        (
            &[("[[service]]\nname = \"www\"", NEW_SERVICE)],
            &["services +api", "servers +api/a"],
        ),
        (
            &[("name = \"www\"", "name = \"web\"")],
            &[
                "services +web -www",
                "servers +web/web-a +web/web-b +web/web-c -www/web-a -www/web-b -www/web-c",
            ],
        ),
        (
            &[(
                "name = \"wan1\"",
                "name = \"wan1\"\ninterface = \"eth1\"\nsource = \"198.51.100.130\"",
            )],
            &["wans wan1:interface,source"],
        ),
        (
            &[(", \"tcp:192.0.2.54:53\"]\nmin_up = 1", "]\nmin_up = 2")],
            &["wans wan1:targets,min_up"],
        ),
        (
            &[
                ("name = \"wan1\"", "name = \"wan3\""),
                ("link = \"wan1\"", "link = \"wan3\""),
            ],
            &["wans +wan3 -wan1", "services www:wan"],
        ),
        (
            &[(
                "file = \"example.com.zone\"",
                "file = \"example.com.zone\"\nserial = \"file\"\nallow_transfer = [\"192.0.2.53\"]",
            )],
            &["zones example.com:serial,allow_transfer,notify"],
        ),
        (
            &[
                ("$ORIGIN example.com.\n", ""),
                (
                    "[check]",
                    "[[zone]]\nname = \"example.org\"\nfile = \"example.com.zone\"\n[check]",
                ),
            ],
            &["zones +example.org"],
        ),
        (
            &[("198.51.100.140", "198.51.100.141")],
            &["zones example.com:records"],
        ),
    ];
    let old = edited(&[]);
    for (edits, want) in rows {
        let new = edited(edits);
        let (difference, _) = compare(&old, &new);
        assert_eq!(shown(&difference), *want, "{edits:?}");
        assert_eq!(difference.is_empty(), want.is_empty());
        // The other way round the same things change.
        let (back, _) = compare(&new, &old);
        assert_eq!(back.services.removed, difference.services.added);
        assert_eq!(back.servers.added, difference.servers.removed);
        assert_eq!(back.settings, difference.settings);
        assert_eq!(back.wans.altered, difference.wans.altered);
        assert!(compare(&new, &new).0.is_empty());
    }
}

/// Of each probe of the new model, by its target: the same, adjusted or new.
fn lineages(old: &Model, new: &Model) -> Vec<String> {
    let (_, succession) = compare(old, new);
    let probes = new.probes.iter().zip(&succession.probes);
    let lines = probes.map(|(probe, lineage)| {
        if let Some(parent) = lineage.parent() {
            assert_eq!(
                old.probe(parent).target.to_string(),
                probe.target.to_string()
            );
        }
        match lineage {
            Lineage::Same(_) => format!("= {}", probe.target),
            Lineage::Adjusted(_) => format!("~ {}", probe.target),
            Lineage::New => format!("+ {}", probe.target),
        }
    });
    lines.filter(|line| !line.starts_with('=')).collect()
}

#[test]
fn what_probes_were() {
    let old = edited(&[]);
    /// Edits, and the probes that are not the same.
    type Row = (
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    let rows: &[Row] = &[
        (&[], &[]),
        // Names are nothing to a TCP check.
        (&[("name = \"www\"", "name = \"web\"")], &[]),
        (
            &[("192.168.10.11", "192.168.10.12")],
            &["+ tcp:192.168.10.12:80"],
        ),
        (
            &[(
                "\"192.168.10.11\"",
                "\"192.168.10.11\"\ncheck = { rise = 5 }",
            )],
            &["~ tcp:192.168.10.11:80"],
        ),
        // Another server with other settings: its predecessor is not known by name.
        (
            &[(
                "name = \"web-b\"\naddress = \"192.168.10.11\"",
                "name = \"web-x\"\naddress = \"192.168.10.11\"\ncheck = { rise = 5 }",
            )],
            &["+ tcp:192.168.10.11:80"],
        ),
        (
            &[(
                "\"192.168.10.11\"",
                "\"192.168.10.11\"\ncheck = [{ type = \"tcp\" }, { type = \"icmp\" }]",
            )],
            &["+ icmp:192.168.10.11"],
        ),
        (
            &[("fall = 3", "fall = 4")],
            &[
                "~ icmp:198.51.100.129",
                "~ tcp:192.0.2.53:53",
                "~ tcp:192.0.2.54:53",
                "~ icmp:203.0.113.65",
                "~ tcp:192.168.10.10:80",
                "~ tcp:192.168.10.11:80",
                "~ tcp:192.0.2.200:80",
            ],
        ),
        // Another way there: wan2 goes on with the target that both had.
        (
            &[(
                "name = \"wan1\"",
                "name = \"wan1\"\nsource = \"198.51.100.130\"",
            )],
            &[
                "+ icmp:198.51.100.129",
                "+ tcp:192.0.2.53:53",
                "+ tcp:192.0.2.54:53",
            ],
        ),
    ];
    for (edits, want) in rows {
        assert_eq!(lineages(&old, &edited(edits)), *want, "{edits:?}");
    }
}

#[test]
fn ids_follow_names() {
    let old = edited(&[]);
    let new = edited(&[("[[service]]\nname = \"www\"", NEW_SERVICE)]);
    let (_, succession) = compare(&old, &new);
    assert_eq!(succession.services, [None, Some(ServiceId(0))]);
    assert_eq!(
        succession.servers,
        [
            None,
            Some(ServerId(0)),
            Some(ServerId(1)),
            Some(ServerId(2))
        ]
    );
    assert_eq!(succession.wans, [Some(WanId(0)), Some(WanId(1))]);
}

#[test]
fn what_a_zone_says() {
    let old = edited(&[]);
    let parent = Some((ZoneId(0), Content::Same));
    let changed = Some((ZoneId(0), Content::Changed));
    for (edits, want) in [
        (&[][..], parent),
        (&[("192.168.10.11", "192.168.10.12")], parent),
        // Its answers are compared when they are known.
        (&[("ttl = \"30s\"", "ttl = \"31s\"")], parent),
        (
            &[(
                "file = \"example.com.zone\"",
                "file = \"example.com.zone\"\nallow_transfer = [\"192.0.2.53\"]",
            )],
            parent,
        ),
        (&[("198.51.100.140", "198.51.100.141")], changed),
        (&[("2026112201", "2026112202")], changed),
        (&[("www.example.com", "web.example.com")], changed),
        (&[("[[service]]\nname = \"www\"", NEW_SERVICE)], changed),
        (&[("name = \"www\"", "name = \"web\"")], changed),
        (
            &[(
                "file = \"example.com.zone\"",
                "file = \"example.com.zone\"\nserial = \"file\"",
            )],
            changed,
        ),
    ] {
        let (_, succession) = compare(&old, &edited(edits));
        assert_eq!(succession.zones, [want], "{edits:?}");
    }
    let both = edited(&[
        ("$ORIGIN example.com.\n", ""),
        (
            "[[zone]]",
            "[[zone]]\nname = \"example.org\"\nfile = \"example.com.zone\"\n[[zone]]",
        ),
    ]);
    assert_eq!(compare(&old, &both).1.zones, [None, parent]);
}

#[test]
fn what_has_changed_of_a_webhook() {
    let with = |lines: &str| {
        let section = format!(
            "[port_forward]\nenabled = true\nsnat = {}\n[[notify]]\nurl = \"http://192.0.2.1/a\"\n\
             name = \"x\"\n",
            lines.contains("timeout")
        );
        let service = "[[service]]\nname = \"www\"";
        edited(&[(service, &format!("{section}{lines}\n{service}"))])
    };
    let before = with("");
    for (lines, want) in [
        ("", &[][..]),
        ("services = [\"w*\"]", &["webhooks x:services"]),
        ("headers = { a = \"b\" }", &["webhooks x:headers"]),
        (
            "timeout = \"1s\"\nevents = [\"server\"]",
            &["port_forward snat", "webhooks x:timeout,events"],
        ),
    ] {
        let (difference, _) = compare(&before, &with(lines));
        let mut lines = shown(&difference);
        lines.sort_unstable();
        assert_eq!(lines, want);
    }
}
