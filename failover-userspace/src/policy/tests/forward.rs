//! Where connections to the WAN addresses go.

use proptest::prelude::*;

use super::lab::{Lab, States, WAN1, WAN2, lab, reference};
use super::properties::any_lab;
use super::*;
use crate::model::ServerId;
use Site::{Offsite, Onsite};
use Tier::{Backup, Backup2, Primary};

const WAN1_V6: &str = "2001:db8:1::134";

impl Lab {
    fn forward(&self, states: &States) -> Forward {
        forward(self.service(), &self.model, states.view())
    }

    /// With these states of its links and of its servers, connections are forwarded so: for each
    /// family `TIER: SERVER…`, servers by the last part of their address, and behind `+` others
    /// whose established connections go on.
    #[track_caller]
    fn check_forward(&self, wans: &str, servers: &str, want: &str) {
        let forward = self.forward(&States::new(wans, servers));
        let name = |id: &ServerId| {
            let address = self.model.server(*id).address.to_string();
            let last = address.rsplit(['.', ':']).next().map(str::to_owned);
            last.unwrap_or_default()
        };
        let shown = |destination: &Destination| {
            let mut shown = format!("{}:", destination.tier);
            for id in &destination.servers {
                shown += &format!(" {}", name(id));
            }
            for id in &destination.keep {
                if !destination.servers.contains(id) {
                    shown += &format!(" +{}", name(id));
                }
            }
            shown
        };
        let families = [&forward.v4, &forward.v6];
        let shown: Vec<String> = families.into_iter().flatten().map(shown).collect();
        assert_eq!(
            shown.join("; "),
            want,
            "wans {wans:?}, servers {servers:?}: {forward:?}"
        );
    }
}

#[test]
fn reference_case_is_forwarded() {
    for (servers, want) in [
        ("udu", "primary: 10"),
        ("duu", "backup: 11"),
        // The one that lost to a higher tier may finish.
        ("uuu", "primary: 10 +11"),
        // The offsite server wins, but clients have the WAN addresses in their caches.
        ("ddu", "primary: 10"),
        ("ddd", "primary: 10"),
        // Taken out by the operator: drained it may finish, in maintenance not.
        ("ruu", "backup: 11 +10"),
        ("muu", "backup: 11"),
        ("mdu", "backup: 11"),
        ("rdd", "backup: 11 +10"),
        ("rmu", "primary: 10"),
        ("mmd", "primary: 10"),
        ("?uu", "backup: 11 +10"),
        ("??u", "primary: 10 +11"),
    ] {
        // Links do not matter: who connects has come by one.
        for wans in ["uu", "ud", "dd", "mm"] {
            reference().check_forward(wans, servers, want);
        }
    }
}

#[test]
fn every_server_of_the_tier_takes_connections() {
    let lab = lab()
        .wan(WAN1)
        .server("192.168.10.1", Primary, Onsite)
        .server("192.168.10.2", Primary, Onsite)
        .server("192.168.10.3", Backup, Onsite)
        .disabled("192.168.10.4", Onsite);
    lab.check_forward("u", "uuuu", "primary: 1 2 +3");
    lab.check_forward("u", "uduu", "primary: 1 +3");
    lab.check_forward("u", "druu", "backup: 3 +2");
    lab.check_forward("u", "dddu", "primary: 1 2");
    lab.check_forward("u", "dmdu", "primary: 1");
    lab.check_forward("u", "mmmu", "primary: 1 2");
}

#[test]
fn families_are_forwarded_apart() {
    let lab = lab()
        .wan(WAN1)
        .wan(WAN1_V6)
        .server("192.168.10.1", Primary, Onsite)
        .server("2001:db8:10::2", Primary, Onsite)
        .server("2001:db8:10::3", Backup, Onsite);
    lab.check_forward("uu", "uuu", "primary: 1; primary: 2 +3");
    lab.check_forward("uu", "udu", "primary: 1; backup: 3");
    lab.check_forward("uu", "duu", "primary: 1; primary: 2 +3");
}

#[test]
fn nothing_to_forward_to() {
    let v6 = lab().wan(WAN1_V6);
    v6.clone()
        .server("192.168.10.1", Primary, Onsite)
        .check_forward("u", "u", "");
    v6.clone()
        .disabled("2001:db8:10::1", Onsite)
        .server("2001:db8:10::2", Primary, Offsite)
        .check_forward("u", "uu", "");
    lab()
        .server("192.0.2.1", Primary, Offsite)
        .check_forward("", "u", "");
}

#[test]
fn a_mixed_tier_is_forwarded_to_its_onsite_servers() {
    let lab = lab()
        .wan(WAN1)
        .wan(WAN2)
        .server("192.0.2.1", Primary, Offsite)
        .server("192.168.10.2", Primary, Onsite)
        .server("192.168.10.3", Backup2, Onsite);
    lab.check_forward("uu", "uuu", "primary: 2 +3");
    lab.check_forward("uu", "udu", "backup2: 3");
}

proptest! {
    /// The rules once more, from the other end: where a client may come out.
    #[test]
    fn forwarding_follows_the_answer((lab, states) in any_lab()) {
        let forward = lab.forward(&states);
        let decision = lab.decide(&states);
        let onsite = |id: &ServerId| {
            let server = lab.model.server(*id);
            server.site == Onsite && server.priority != Priority::Disabled
        };
        for (family, destination) in [(4, &forward.v4), (6, &forward.v6)] {
            let is_family = |address: &std::net::IpAddr| address.is_ipv4() == (family == 4);
            let here: Vec<ServerId> = lab
                .service()
                .server_ids()
                .filter(|id| onsite(id) && is_family(&lab.model.server(*id).address))
                .collect();
            let wanted = lab.service().wan.iter().any(|wan| is_family(&wan.address));
            let Some(destination) = destination else {
                prop_assert!(!wanted || here.is_empty());
                continue;
            };
            prop_assert!(wanted && !destination.servers.is_empty());
            let state = |id: &ServerId| states.servers[id.index()];
            let up = here.iter().filter(|id| state(id).is_up());
            let up: Vec<&ServerId> = up.collect();
            for id in &destination.servers {
                prop_assert!(here.contains(id) && destination.keep.contains(id));
                prop_assert_eq!(lab.model.server(*id).priority, Priority::Tier(destination.tier));
                // Nobody is sent to a server that is not up while there is one that is.
                prop_assert!(up.is_empty() || state(id).is_up());
            }
            for id in &destination.keep {
                let ends = matches!(state(id), Effective::Down | Effective::Maint);
                prop_assert!(destination.servers.contains(id) || !ends);
            }
            // The answer leads to an onsite server of this family: it is the one.
            let winner = decision.had_candidate().then(|| decision.reason.tier()).flatten();
            let reachable = lab.service().wan.iter().any(|wan| states.wans[wan.wan.index()].is_up());
            let candidate = up.iter().any(|id| Some(lab.model.server(**id).priority) == winner.map(Priority::Tier));
            if reachable && candidate {
                prop_assert_eq!(Some(destination.tier), winner);
            }
        }
    }
}
