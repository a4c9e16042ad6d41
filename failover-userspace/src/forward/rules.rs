//! What is to be forwarded, as plain data: from the model and where each service's connections
//! go, to the addresses that stand in the rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::model::{Model, ServerId, ServiceId};
use crate::policy::{Destination, Forward};

/// The most slots that a spread over few servers takes: shares are right to within one of them.
const SLOTS: u32 = 256;

/// All that is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// All forwarded connections come from this host.
    pub(super) snat: bool,
    /// By WAN address and port.
    pub(super) entries: BTreeMap<SocketAddr, Arc<Entry>>,
}

/// Where connections to one WAN address and port go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// A new connection takes one of these at random; a server has as many as it has weight.
    pub(super) slots: Vec<SocketAddr>,
    /// Servers with which established connections may go on.
    pub(super) keep: BTreeSet<SocketAddr>,
}

/// The rules that a model and its states call for, kept up to date.
#[derive(Debug)]
pub(super) struct Wanted {
    model: Arc<Model>,
    /// Whose state decides, of services that share an address: the first one's.
    owners: HashMap<SocketAddr, ServiceId>,
    rules: Rules,
}

impl Wanted {
    /// The rules of a model with port forwarding, with where the connections of each of its
    /// services go.
    pub(super) fn new(model: Arc<Model>, snat: bool, forwards: &[Forward]) -> Self {
        let mut owners = HashMap::new();
        for (id, place) in places(&model) {
            owners.entry(place).or_insert(id);
        }
        let mut wanted = Self {
            model,
            owners,
            rules: Rules {
                snat,
                entries: BTreeMap::new(),
            },
        };
        for (id, forward) in (0..).map(ServiceId).zip(forwards) {
            wanted.change(id, forward);
        }
        wanted
    }

    /// The connections of a service go somewhere else.
    pub(super) fn change(&mut self, id: ServiceId, forward: &Forward) {
        let service = self.model.service(id);
        for wan in &service.wan {
            let place = SocketAddr::new(wan.address, service.port.get());
            if self.owners.get(&place) != Some(&id) {
                continue;
            }
            match forward.of(wan.address) {
                Some(to) => {
                    let entry = Arc::new(Entry::new(&self.model, to));
                    self.rules.entries.insert(place, entry);
                }
                None => {
                    self.rules.entries.remove(&place);
                }
            }
        }
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// The WAN addresses of all services with their ports.
fn places(model: &Model) -> impl Iterator<Item = (ServiceId, SocketAddr)> {
    let services = (0..).map(ServiceId).zip(&model.services);
    services.flat_map(|(id, service)| {
        let port = service.port.get();
        let addresses = service.wan.iter().map(|wan| wan.address);
        addresses.map(move |address| (id, SocketAddr::new(address, port)))
    })
}

impl Entry {
    fn new(model: &Model, to: &Destination) -> Self {
        let address = |id: &ServerId| {
            let server = model.server(*id);
            SocketAddr::new(server.address, server.port.get())
        };
        let weights: Vec<NonZeroU16> = to
            .servers
            .iter()
            .map(|id| model.server(*id).weight)
            .collect();
        let slots = to.servers.iter().zip(spread(&weights));
        Self {
            slots: slots
                .flat_map(|(id, count)| std::iter::repeat_n(address(id), count as usize))
                .collect(),
            keep: to.keep.iter().map(address).collect(),
        }
    }
}

/// Slots for each of these weights: exactly in proportion where few suffice, and else nearly, but
/// never none.
fn spread(weights: &[NonZeroU16]) -> Vec<u32> {
    let divisor = weights
        .iter()
        .fold(0, |divisor, weight| gcd(divisor, u64::from(weight.get())))
        .max(1);
    let reduced = weights
        .iter()
        .map(|weight| u64::from(weight.get()) / divisor);
    let total: u64 = reduced.clone().sum();
    let slots = u64::from(SLOTS);
    let share = |weight: u64| {
        if total <= slots {
            weight
        } else {
            ((weight * slots + total / 2) / total).max(1)
        }
    };
    // At most a weight, or all the slots.
    reduced.map(|weight| share(weight) as u32).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::controller::testing::example;
    use crate::health::Effective;
    use crate::policy::{self, View};

    /// `shop` shares an address and the servers of `www`; it also has an IPv6 address, which leads
    /// nowhere.
    const SHOP: &str = r#"
[port_forward]
enabled = true
[[service]]
name = "shop"
fqdn = ["shop.example.com"]
port = 80
wan = [
  { link = "wan2", address = "203.0.113.70" },
  { link = "wan2", address = "203.0.113.71" },
  { link = "wan2", address = "2001:db8::71" },
]
[[service.server]]
name = "shop-b"
address = "192.168.10.11"
priority = "backup"
[[service.server]]
name = "shop-a"
address = "192.168.10.10"
"#;

    /// With these states of web-a, web-b, web-c, shop-b and shop-a: `u` up, `d` down.
    fn forwards(model: &Model, states: &str) -> Vec<Forward> {
        let state = |letter| match letter {
            'u' => Effective::Up,
            _ => Effective::Down,
        };
        let servers: Vec<Effective> = states.chars().map(state).collect();
        let view = View {
            servers: &servers,
            wans: &[],
        };
        let services = model.services.iter();
        services
            .map(|service| policy::forward(service, model, view))
            .collect()
    }

    fn shown(rules: &Rules) -> Vec<String> {
        let entries = rules.entries.iter();
        entries
            .map(|(place, entry)| format!("{place} {:?} {:?}", entry.slots, entry.keep))
            .collect()
    }

    #[test]
    fn of_services_that_share_an_address_the_first_decides() {
        let model = Arc::new(example(SHOP));
        let all = forwards(&model, "uuuuu");
        let mut wanted = Wanted::new(Arc::clone(&model), false, &all);
        let a = "[192.168.10.10:80] {192.168.10.10:80, 192.168.10.11:80}";
        let b = "[192.168.10.11:80] {192.168.10.11:80}";
        let is = |www: &str, shop: &str| {
            [
                format!("198.51.100.134:80 {www}"),
                format!("203.0.113.70:80 {www}"),
                format!("203.0.113.71:80 {shop}"),
            ]
        };
        assert_eq!(shown(wanted.rules()), is(a, a));
        wanted.change(ServiceId(1), &forwards(&model, "uuuud")[1]);
        assert_eq!(shown(wanted.rules()), is(a, b));
        wanted.change(ServiceId(0), &forwards(&model, "duuud")[0]);
        assert_eq!(shown(wanted.rules()), is(b, b));
        wanted.change(ServiceId(1), &Forward::default());
        let rest = &is(b, b)[..2];
        assert_eq!(shown(wanted.rules()), rest);
    }

    fn spread_of(weights: &[u16]) -> Vec<u32> {
        let weights: Vec<NonZeroU16> = weights
            .iter()
            .map(|weight| NonZeroU16::new(*weight).unwrap())
            .collect();
        spread(&weights)
    }

    #[test]
    fn few_slots_where_few_suffice() {
        for (weights, want) in [
            (&[1][..], &[1][..]),
            (&[7], &[1]),
            (&[1, 1], &[1, 1]),
            (&[100, 300], &[1, 3]),
            (&[2, 3, 5], &[2, 3, 5]),
            (&[100, 156], &[25, 39]),
            (&[255, 1], &[255, 1]),
            (&[65_535, 1], &[256, 1]),
            (&[1000, 999], &[128, 128]),
        ] {
            assert_eq!(spread_of(weights), want, "{weights:?}");
        }
    }

    proptest! {
        #[test]
        fn shares_are_right(weights in vec(1..=u16::MAX, 1..40)) {
            let slots = spread_of(&weights);
            let all: u32 = slots.iter().sum();
            prop_assert!(all <= SLOTS + weights.len() as u32);
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (weight, slots) in weights.iter().zip(&slots) {
                prop_assert!(*slots > 0);
                let (is, should) = (f64::from(*slots) / f64::from(all), f64::from(*weight) / total);
                // Half a slot by rounding, one for those who would get none; and the sum moves by
                // as much for each server.
                let bound = (1.5 + weights.len() as f64) / f64::from(SLOTS);
                prop_assert!((is - should).abs() <= bound, "{is} instead of {should}");
            }
        }

        #[test]
        fn small_weights_are_exact(weights in vec(1..7_u16, 1..40)) {
            let slots = spread_of(&weights);
            for (a, b) in weights.iter().zip(&slots).zip(weights.iter().zip(&slots).skip(1)) {
                prop_assert_eq!(u32::from(*a.0) * b.1, u32::from(*b.0) * a.1);
            }
        }
    }
}
