//! What holds for every model and every state of it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::*;
use super::lab::{Lab, States, ip, lab};
use Site::{Offsite, Onsite};

fn any_state() -> impl Strategy<Value = Effective> {
    use Effective::{Down, Drain, Maint, Unknown, Up};
    select(vec![Up, Up, Up, Down, Down, Down, Drain, Maint, Unknown])
}

/// From a small pool, so that some are equal.
fn any_address() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..12).prop_map(|host| format!("192.0.2.{host}")),
        (0..12).prop_map(|host| format!("2001:db8::{host}")),
    ]
}

pub(super) fn any_lab() -> impl Strategy<Value = (Lab, States)> {
    let wans = vec((any_address(), 1..4_u16, any_state()), 0..4);
    let priority = prop_oneof![
        1 => Just(Priority::Disabled),
        6 => select(&Tier::ALL[..]).prop_map(Priority::Tier),
    ];
    let server = (
        any_address(),
        priority,
        select(vec![Onsite, Offsite]),
        1..4_u16,
        any_state(),
    );
    let list = || vec(any_address().prop_map(|it| ip(&it)), 0..4);
    let on_all_down = prop_oneof![
        Just(OnAllDown::Primary),
        Just(OnAllDown::Last),
        Just(OnAllDown::Empty),
        Just(OnAllDown::Servfail),
        list().prop_map(OnAllDown::Addresses),
    ];
    let last = option::of(list().prop_map(|list| {
        Answer::merged(list.into_iter().map(|address| Weighted {
            address,
            weight: NonZeroU16::MIN,
        }))
    }));
    (wans, vec(server, 0..7), any::<bool>(), on_all_down, last).prop_map(
        |(wans, servers, redundancy_only, on_all_down, last)| {
            let mut lab = lab().on_all_down(on_all_down);
            let mut states = States::new("", "");
            lab.service_mut().redundancy_only = redundancy_only;
            lab.last = last;
            for (address, weight, state) in wans {
                lab = lab.weighted_wan(&address, weight);
                states.wans.push(state);
            }
            for (address, priority, site, weight, state) in servers {
                lab = lab.weighted_server(&address, priority, site, weight);
                states.servers.push(state);
            }
            (lab, states)
        },
    )
}

/// The rules once more, as sets instead of steps.
impl Lab {
    fn up_wans(&self, states: &States) -> Vec<WanAddress> {
        let mut wans = self.service().wan.clone();
        wans.retain(|wan| states.wans[wan.wan.index()].is_up());
        wans
    }

    fn candidates(&self, states: &States) -> Vec<(Tier, Server)> {
        let site_is_up = !self.up_wans(states).is_empty();
        self.service()
            .server_ids()
            .filter(|id| states.servers[id.index()].is_up())
            .map(|id| self.model.server(id).clone())
            .filter(|server| server.site == Offsite || site_is_up)
            .filter_map(|server| match server.priority {
                Priority::Tier(tier) => Some((tier, server)),
                Priority::Disabled => None,
            })
            .collect()
    }

    /// Every address that could ever be answered from health, in configured order.
    fn order(&self) -> Vec<IpAddr> {
        let wans = self.service().wan.iter().map(|wan| wan.address);
        let offsite = servers(self.service(), &self.model)
            .filter(|(_, server)| server.site == Offsite)
            .map(|(_, server)| server.address);
        wans.chain(offsite).collect()
    }
}

fn addresses(answer: &Answer) -> Vec<IpAddr> {
    answer.addresses().iter().map(|it| it.address).collect()
}

/// Tiers by quality, having none last.
fn rank(decision: &Decision) -> (bool, Option<Tier>) {
    (!decision.had_candidate(), decision.reason.tier())
}

proptest! {
    #[test]
    fn best_tier_with_a_candidate_wins((lab, states) in any_lab()) {
        let decision = lab.decide(&states);
        let best = lab.candidates(&states).iter().map(|&(tier, _)| tier).min();
        prop_assert_eq!(decision.had_candidate(), best.is_some());
        if let Some(best) = best {
            prop_assert_eq!(decision.reason, Reason::Tier(best));
        }
    }

    #[test]
    fn with_a_candidate_exactly_what_is_up_is_answered((lab, states) in any_lab()) {
        let decision = lab.decide(&states);
        let Reason::Tier(won) = decision.reason else { return Ok(()) };
        let winners: Vec<_> = lab
            .candidates(&states)
            .into_iter()
            .filter(|&(tier, _)| tier == won)
            .map(|(_, server)| server)
            .collect();
        let mut wans = lab.up_wans(&states);
        if !winners.iter().any(|server| server.site == Onsite) {
            wans.clear();
        }
        if lab.service().redundancy_only {
            let first = |v4| wans.iter().position(|wan| wan.address.is_ipv4() == v4);
            let keep = [first(true), first(false)];
            let mut i = 0..;
            wans.retain(|_| keep.contains(&i.next()));
        }
        let want = wans
            .iter()
            .map(|wan| (wan.address, wan.weight))
            .chain(
                winners
                    .iter()
                    .filter(|server| server.site == Offsite)
                    .map(|server| (server.address, server.weight)),
            );
        let mut weights = HashMap::<_, u16>::new();
        for (address, weight) in want {
            *weights.entry(address).or_default() += weight.get();
        }

        prop_assert!(!weights.is_empty());
        let got = decision.answer.addresses();
        prop_assert_eq!(got.len(), weights.len());
        for it in got {
            prop_assert_eq!(Some(&it.weight.get()), weights.get(&it.address));
        }
    }

    #[test]
    fn each_address_stands_once_and_in_configured_order((lab, states) in any_lab()) {
        let decision = lab.decide(&states);
        let answer = addresses(&decision.answer);
        let distinct: HashSet<_> = answer.iter().collect();
        prop_assert_eq!(distinct.len(), answer.len());
        prop_assert_ne!(&decision.answer, &Answer::Addresses(Vec::new()));
        if decision.reason.tier().is_some() {
            // A subsequence: each is found behind the one before.
            let mut order = lab.order().into_iter();
            prop_assert!(answer.iter().all(|&address| order.any(|it| it == address)));
        }
    }

    #[test]
    fn a_server_or_link_that_comes_up_never_makes_it_worse(
        (lab, mut states) in any_lab(), index: Index, link: bool,
    ) {
        let before = lab.decide(&states);
        let all = if link { &mut states.wans } else { &mut states.servers };
        let one = index.index(all.len());
        all[one] = Effective::Up;
        let after = lab.decide(&states);
        if before.had_candidate() {
            prop_assert!(rank(&after) <= rank(&before));
        }
    }

    #[test]
    fn down_and_unknown_are_the_same((lab, mut states) in any_lab()) {
        let before = lab.decide(&states);
        for state in states.servers.iter_mut().chain(&mut states.wans) {
            if *state == Effective::Unknown {
                *state = Effective::Down;
            }
        }
        prop_assert_eq!(lab.decide(&states), before);
    }

    /// Failing open answers what would be answered if all that is down came up at once.
    #[test]
    fn failing_open_is_as_if_everything_were_up((lab, mut states) in any_lab()) {
        let decision = lab.decide(&states);
        let Reason::AllDown(Fallback::FailOpen(tier)) = decision.reason else { return Ok(()) };
        let mut bring_up = |these: &[Effective]| {
            for state in states.servers.iter_mut().chain(&mut states.wans) {
                if these.contains(state) {
                    *state = Effective::Up;
                }
            }
            lab.decide(&states)
        };
        let mut all_up = bring_up(&[Effective::Down, Effective::Unknown]);
        if !all_up.had_candidate() {
            all_up = bring_up(&[Effective::Drain, Effective::Maint]);
        }
        prop_assert_eq!(all_up.reason, Reason::Tier(tier));
        prop_assert_eq!(all_up.answer, decision.answer);
    }

    #[test]
    fn other_services_do_not_matter((lab, mut states) in any_lab(), state in any_state()) {
        let before = lab.decide(&states);
        states.servers[0] = state;
        states.wans[0] = state;
        prop_assert_eq!(lab.decide(&states), before);
    }

    #[test]
    fn last_matters_only_without_a_candidate((lab, states) in any_lab()) {
        let without = Lab { last: None, ..lab.clone() }.decide(&states);
        let with = lab.decide(&states);
        if with.reason != Reason::AllDown(Fallback::Last) {
            prop_assert_eq!(with, without);
        } else {
            prop_assert!(!without.had_candidate());
            let (order, last) = (lab.order(), lab.last.expect("a last answer"));
            let last = addresses(&last);
            for address in addresses(&with.answer) {
                prop_assert!(order.contains(&address) && last.contains(&address));
            }
        }
    }

    /// What the rows of an explanation say is what is answered.
    #[test]
    fn explanation_agrees_with_the_decision((lab, states) in any_lab()) {
        let explanation = lab.explain(&states);
        prop_assert_eq!(&explanation.decision, &lab.decide(&states));

        let wans = explanation.wans.iter().filter(|wan| wan.standing == WanStanding::Answered);
        let servers = explanation
            .servers
            .iter()
            .filter(|server| server.standing == ServerStanding::Answered);
        let rows = wans
            .map(|wan| (wan.address, wan.weight))
            .chain(
                servers
                    .filter(|server| server.site == Offsite)
                    .map(|server| (server.address, server.weight)),
            )
            .map(|(address, weight)| Weighted { address, weight });
        let answered = Answer::merged(rows);
        if explanation.decision.reason.tier().is_some() {
            prop_assert_eq!(&answered, &explanation.decision.answer);
        } else {
            prop_assert_eq!(answered, Answer::Empty);
        }

        for server in &explanation.servers {
            if server.standing == ServerStanding::LowerTier {
                let Priority::Tier(tier) = server.priority else { panic!("disabled") };
                prop_assert!(Reason::Tier(tier) != explanation.decision.reason);
                prop_assert!(explanation.decision.had_candidate());
            }
            if server.standing == ServerStanding::NotUp {
                prop_assert!(!server.effective.is_up());
            }
        }
        for wan in &explanation.wans {
            if wan.standing == WanStanding::NotUp {
                prop_assert!(!wan.effective.is_up());
            }
        }
    }
}
