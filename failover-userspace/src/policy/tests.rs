mod forward;
mod lab;
mod properties;

use self::lab::{Lab, States, WAN1, WAN2, ip, lab, reference};
use super::*;
use Site::{Offsite, Onsite};
use Tier::{Backup, Backup2, Backup3, Primary};

#[test]
fn reference_case() {
    let both = "primary: 198.51.100.134 203.0.113.70";
    reference().check("uu", "udu", both);
    let one = reference().redundancy_only();
    one.check("uu", "udu", "primary: 198.51.100.134");
    one.check("du", "udu", "primary: 203.0.113.70");
    reference().check("uu", "ddu", "backup2: 192.0.2.200");
    reference().check("dd", "uuu", "backup2: 192.0.2.200");
}

#[test]
fn highest_tier_with_a_candidate_wins() {
    let lab = lab()
        .server("192.0.2.3", Backup3, Offsite)
        .server("192.0.2.2", Backup2, Offsite)
        .server("192.0.2.1", Backup, Offsite)
        .server("192.0.2.0", Primary, Offsite);
    lab.check("", "uuuu", "primary: 192.0.2.0");
    lab.check("", "uuud", "backup: 192.0.2.1");
    lab.check("", "uudd", "backup2: 192.0.2.2");
    lab.check("", "uddd", "backup3: 192.0.2.3");
    lab.check("", "dudu", "primary: 192.0.2.0");
    lab.check("", "dddd", "open primary: 192.0.2.0");
}

#[test]
fn only_up_is_a_candidate() {
    let lab = lab()
        .server("192.0.2.1", Primary, Offsite)
        .server("192.0.2.2", Backup, Offsite);
    lab.check("", "uu", "primary: 192.0.2.1");
    for state in ["d", "r", "m", "?"] {
        lab.check("", &format!("{state}u"), "backup: 192.0.2.2");
    }
}

#[test]
fn disabled_servers_are_never_answered() {
    let lab = lab()
        .wan(WAN1)
        .disabled("192.168.10.10", Onsite)
        .disabled("192.0.2.1", Offsite)
        .server("192.0.2.2", Backup, Offsite);
    lab.check("u", "uuu", "backup: 192.0.2.2");
    lab.check("u", "uud", "open backup: 192.0.2.2");
}

#[test]
fn all_candidates_of_a_tier_are_answered_in_configured_order() {
    let offsite = lab()
        .server("192.0.2.3", Primary, Offsite)
        .server("192.0.2.9", Backup, Offsite)
        .server("192.0.2.1", Primary, Offsite)
        .server("192.0.2.2", Primary, Offsite);
    offsite.check("", "uuuu", "primary: 192.0.2.3 192.0.2.1 192.0.2.2");
    offsite.check("", "uudu", "primary: 192.0.2.3 192.0.2.2");
    offsite.check("", "dudd", "backup: 192.0.2.9");

    // However many onsite servers there are, the WAN addresses stand for all of them.
    let onsite = lab()
        .wan(WAN2)
        .wan(WAN1)
        .server("192.168.10.10", Primary, Onsite)
        .server("192.168.10.11", Primary, Onsite);
    for servers in ["uu", "ud", "du"] {
        onsite.check("uu", servers, "primary: 203.0.113.70 198.51.100.134");
    }
}

#[test]
fn onsite_and_offsite_mix_within_a_tier() {
    let lab = lab()
        .wan(WAN1)
        .wan(WAN2)
        .server("192.0.2.1", Primary, Offsite)
        .server("192.168.10.10", Primary, Onsite)
        .server("192.0.2.2", Backup, Offsite);
    // WAN addresses come first.
    lab.check(
        "uu",
        "uuu",
        "primary: 198.51.100.134 203.0.113.70 192.0.2.1",
    );
    lab.check("du", "uuu", "primary: 203.0.113.70 192.0.2.1");
    lab.check("uu", "duu", "primary: 198.51.100.134 203.0.113.70");
    // Without an onsite candidate, no WAN address.
    lab.check("uu", "udu", "primary: 192.0.2.1");
    lab.check("dd", "uuu", "primary: 192.0.2.1");
    // Neither its server nor a link: the next tier.
    lab.check("dd", "duu", "backup: 192.0.2.2");
    // `redundancy_only` limits the WAN addresses, not the offsite servers.
    let one = lab.redundancy_only();
    one.check("uu", "uuu", "primary: 198.51.100.134 192.0.2.1");
}

#[test]
fn links_that_are_not_up_are_not_answered() {
    for state in ["d", "r", "m", "?"] {
        reference().check(&format!("{state}u"), "uuu", "primary: 203.0.113.70");
        reference().check(&format!("u{state}"), "uuu", "primary: 198.51.100.134");
        reference().check(&state.repeat(2), "uuu", "backup2: 192.0.2.200");
    }
}

#[test]
fn redundancy_only_answers_the_first_of_each_family() {
    let lab = lab()
        .wan(WAN1)
        .same_link("2001:db8:1::134")
        .wan(WAN2)
        .same_link("2001:db8:2::70")
        .server("192.168.10.10", Primary, Onsite)
        .redundancy_only();
    lab.check("uu", "u", "primary: 198.51.100.134 2001:db8:1::134");
    lab.check("du", "u", "primary: 203.0.113.70 2001:db8:2::70");
}

#[test]
fn ipv6_is_answered_like_ipv4() {
    let lab = lab()
        .wan("2001:db8:1::134")
        .wan(WAN2)
        .server("fd00::10", Primary, Onsite)
        .server("2001:db8:ff::200", Backup, Offsite);
    lab.check("uu", "uu", "primary: 2001:db8:1::134 203.0.113.70");
    lab.check("du", "uu", "primary: 203.0.113.70");
    lab.check("uu", "du", "backup: 2001:db8:ff::200");
}

#[test]
fn weights_come_from_what_is_answered() {
    let tier = Priority::Tier(Primary);
    let lab = lab()
        .weighted_wan(WAN1, 3)
        .weighted_wan(WAN2, 1)
        .weighted_server("192.168.10.10", tier, Onsite, 50)
        .weighted_server("192.0.2.1", tier, Offsite, 5);
    lab.check(
        "uu",
        "uu",
        "primary: 198.51.100.134*3 203.0.113.70 192.0.2.1*5",
    );
}

#[test]
fn equal_addresses_are_merged_at_the_first_place() {
    let tier = Priority::Tier(Primary);
    let two_ports = lab()
        .weighted_server("192.0.2.1", tier, Offsite, 2)
        .weighted_server("192.0.2.2", tier, Offsite, 1)
        .weighted_server("192.0.2.1", tier, Offsite, 3);
    two_ports.check("", "uuu", "primary: 192.0.2.1*5 192.0.2.2");
    // Only those that are up add their weight.
    two_ports.check("", "duu", "primary: 192.0.2.2 192.0.2.1*3");

    let heavy = lab()
        .weighted_server("192.0.2.1", tier, Offsite, u16::MAX)
        .weighted_server("192.0.2.1", tier, Offsite, 2);
    heavy.check("", "uu", "primary: 192.0.2.1*65535");

    let wan_too = lab()
        .weighted_wan(WAN1, 2)
        .weighted_server("192.168.10.10", tier, Onsite, 1)
        .weighted_server(WAN1, tier, Offsite, 4);
    wan_too.check("u", "uu", "primary: 198.51.100.134*6");
}

#[test]
fn fail_open_is_as_if_everything_were_up() {
    let both = "open primary: 198.51.100.134 203.0.113.70";
    reference().check("uu", "ddd", both);
    reference().check("du", "ddd", both);
    reference().check("dd", "uud", both);
    reference().check("dd", "ddd", both);
    reference().check("??", "???", both);
    let one = reference().redundancy_only();
    one.check("du", "ddd", "open primary: 198.51.100.134");
    // The whole tier, onsite and offsite.
    let mixed = reference().server("192.0.2.1", Primary, Offsite);
    let all = "open primary: 198.51.100.134 203.0.113.70 192.0.2.1";
    mixed.check("uu", "dddd", all);
    // Nobody serves as primary: the highest tier there is.
    let backups = lab()
        .server("192.0.2.3", Backup3, Offsite)
        .server("192.0.2.2", Backup2, Offsite);
    backups.check("", "dd", "open backup2: 192.0.2.2");
}

#[test]
fn fail_open_leaves_out_what_the_operator_took_out() {
    for state in ["r", "m"] {
        // A link; all links; a server; all servers of the site.
        reference().check(&format!("{state}d"), "ddd", "open primary: 203.0.113.70");
        reference().check(&state.repeat(2), "uud", "open backup2: 192.0.2.200");
        let both = "198.51.100.134 203.0.113.70";
        reference().check("uu", &format!("{state}dd"), &format!("open backup: {both}"));
        reference().check(
            "uu",
            &format!("{state}{state}d"),
            "open backup2: 192.0.2.200",
        );
        // Everything: then it is better than nothing.
        reference().check("uu", &state.repeat(3), &format!("open primary: {both}"));
    }
}

#[test]
fn fail_open_may_find_nothing() {
    lab()
        .disabled("192.0.2.1", Offsite)
        .check("", "u", "nothing, no address");
    lab()
        .server("192.168.10.10", Primary, Onsite)
        .check("", "u", "nothing, no address");
    lab().check("", "", "nothing, no address");
}

#[test]
fn last_answer_is_kept() {
    let lab = reference().on_all_down(OnAllDown::Last);
    let open = "open primary: 198.51.100.134 203.0.113.70";
    lab.check("uu", "ddd", open);
    let kept = lab.clone().last(&["192.0.2.200"]);
    kept.check("uu", "ddd", "last: 192.0.2.200");
    // It matters only while there is no candidate.
    kept.check("uu", "duu", "backup: 198.51.100.134 203.0.113.70");
    // Addresses that a reload has taken away are not answered any more.
    lab.clone()
        .last(&["192.0.2.66", WAN2])
        .check("uu", "ddd", "last: 203.0.113.70");
    lab.clone().last(&["192.0.2.66"]).check("uu", "ddd", open);
    // Nor are those of servers disabled since.
    lab.clone()
        .disabled("192.0.2.66", Offsite)
        .last(&["192.0.2.66"])
        .check("uu", "dddu", open);
    // An onsite server's own address never was an answer.
    lab.last(&["192.168.10.10"]).check("uu", "ddd", open);
}

#[test]
fn other_ways_to_answer_when_all_are_down() {
    let when_down = |on_all_down| reference().on_all_down(on_all_down).last(&[WAN1]);
    when_down(OnAllDown::Empty).check("uu", "ddd", "empty, no address");
    when_down(OnAllDown::Servfail).check("uu", "ddd", "servfail, error");
    let list = ["192.0.2.8", "2001:db8::8", "192.0.2.8"].map(ip).to_vec();
    when_down(OnAllDown::Addresses(list)).check("uu", "ddd", "list: 192.0.2.8*2 2001:db8::8");
    when_down(OnAllDown::Addresses(Vec::new())).check("uu", "ddd", "list, no address");
}

#[test]
fn states_that_are_missing_count_as_unknown() {
    let lab = reference().on_all_down(OnAllDown::Empty);
    lab.check("", "", "empty, no address");
    lab.check("u", "u", "primary: 198.51.100.134");
}

#[test]
fn explanation_names_the_part_of_each() {
    #[track_caller]
    fn check(lab: &Lab, wans: &str, servers: &str, want: &str) {
        assert_eq!(lab.explain(&States::new(wans, servers)).to_string(), want);
    }
    let lab = reference()
        .disabled("192.0.2.201", Offsite)
        .server("192.0.2.202", Backup3, Offsite);

    check(
        &lab,
        "du",
        "ruudu",
        "\
service www
  wan wan1 198.51.100.134: link is down
  wan wan2 203.0.113.70: answered
  server web1 192.168.10.10 (primary, onsite): drain
  server web2 192.168.10.11 (backup, onsite): answered
  server web3 192.0.2.200 (backup2, offsite): a higher tier wins
  server web4 192.0.2.201 (disabled, offsite): disabled
  server web5 192.0.2.202 (backup3, offsite): a higher tier wins
  backup is the highest tier with a candidate
  answer: 203.0.113.70",
    );
    check(
        &lab.clone().redundancy_only(),
        "uu",
        "u?uud",
        "\
service www
  wan wan1 198.51.100.134: answered
  wan wan2 203.0.113.70: not the first (redundancy_only)
  server web1 192.168.10.10 (primary, onsite): answered
  server web2 192.168.10.11 (backup, onsite): unknown
  server web3 192.0.2.200 (backup2, offsite): a higher tier wins
  server web4 192.0.2.201 (disabled, offsite): disabled
  server web5 192.0.2.202 (backup3, offsite): down
  primary is the highest tier with a candidate
  answer: 198.51.100.134",
    );
    check(
        &lab,
        "md",
        "umuuu",
        "\
service www
  wan wan1 198.51.100.134: link is maint
  wan wan2 203.0.113.70: link is down
  server web1 192.168.10.10 (primary, onsite): up, but no WAN address is on a link that is up
  server web2 192.168.10.11 (backup, onsite): maint
  server web3 192.0.2.200 (backup2, offsite): answered
  server web4 192.0.2.201 (disabled, offsite): disabled
  server web5 192.0.2.202 (backup3, offsite): a higher tier wins
  backup2 is the highest tier with a candidate
  answer: 192.0.2.200",
    );
    check(
        &lab,
        "ud",
        "ddddd",
        "\
service www
  wan wan1 198.51.100.134: answered
  wan wan2 203.0.113.70: answered although its link is down
  server web1 192.168.10.10 (primary, onsite): answered although down
  server web2 192.168.10.11 (backup, onsite): down
  server web3 192.0.2.200 (backup2, offsite): down
  server web4 192.0.2.201 (disabled, offsite): disabled
  server web5 192.0.2.202 (backup3, offsite): down
  no candidate: primary, as if everything were up
  answer: 198.51.100.134, 203.0.113.70",
    );
    check(
        &reference().on_all_down(OnAllDown::Servfail),
        "uu",
        "ddd",
        "\
service www
  wan wan1 198.51.100.134: no onsite server is answered
  wan wan2 203.0.113.70: no onsite server is answered
  server web1 192.168.10.10 (primary, onsite): down
  server web2 192.168.10.11 (backup, onsite): down
  server web3 192.0.2.200 (backup2, offsite): down
  no candidate: SERVFAIL, as configured
  answer: SERVFAIL",
    );
}

#[test]
fn explanation_as_json() {
    let lab = lab()
        .weighted_wan(WAN1, 2)
        .server("192.168.10.10", Primary, Onsite);
    let explanation = lab.explain(&States::new("u", "d"));
    let json = serde_json::to_value(&explanation).expect("JSON");
    let want = serde_json::json!({
        "service": "www",
        "wans": [{
            "link": "wan1", "address": "198.51.100.134", "weight": 2,
            "effective": "up", "standing": "answered",
        }],
        "servers": [{
            "name": "web1", "address": "192.168.10.10", "priority": "primary",
            "site": "onsite", "weight": 1, "effective": "down", "standing": "answered",
        }],
        "answer": { "addresses": [{ "address": "198.51.100.134", "weight": 2 }] },
        "reason": { "all_down": { "fail_open": "primary" } },
    });
    assert_eq!(json, want);
    let read: Explanation = serde_json::from_value(json).expect("an explanation");
    assert_eq!(read, explanation);
}
