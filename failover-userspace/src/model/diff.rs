//! What distinguishes two models, and what of the one lives on in the other. Pure.
//!
//! Things are the same when they have the same name; ids mean nothing beyond their model. The
//! [`Difference`] is for people; the [`Succession`] says, by ids, what a reload may keep.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::{
    Model, PortForward, Probe, ProbeId, Server, ServerId, Service, ServiceId, Settings, Wan, WanId,
    Webhook, Zone, ZoneId,
};

/// What a new model changes, by names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Keys of `[server]` whose values are others.
    pub settings: Vec<String>,
    /// Zones.
    pub zones: Changes,
    /// WAN links.
    pub wans: Changes,
    /// Services.
    pub services: Changes,
    /// Servers, as `service/server`.
    pub servers: Changes,
    /// Webhooks.
    pub webhooks: Changes,
    /// Keys of `[port_forward]` whose values are others.
    pub port_forward: Vec<String>,
}

/// What changes among things of one kind, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Only the new model has them.
    pub added: Vec<String>,
    /// Only the old model has them.
    pub removed: Vec<String>,
    /// Both have them, but not alike.
    pub altered: Vec<Altered>,
}

/// Something that both models have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Altered {
    /// Its name.
    pub name: String,
    /// The keys whose values are others.
    pub keys: Vec<String>,
}

/// What each thing of the new model was in the old one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Succession {
    /// Of each zone.
    pub zones: Vec<Option<(ZoneId, Content)>>,
    /// Of each WAN link.
    pub wans: Vec<Option<WanId>>,
    /// Of each service.
    pub services: Vec<Option<ServiceId>>,
    /// Of each server.
    pub servers: Vec<Option<ServerId>>,
    /// Of each probe.
    pub probes: Vec<Lineage>,
}

/// Whether a zone that both models have says the same, the addresses of services aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its records are the same, and so are the names of services in it.
    Same,
    /// They are not.
    Changed,
}

/// Where a probe comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// It is the same in every respect.
    Same(ProbeId),
    /// The same is tested in the same way, but at other times, by another count or by another
    /// version of a CA file: the verdict stays.
    Adjusted(ProbeId),
    /// Nothing is known of it.
    New,
}

impl Lineage {
    /// Whose verdict it takes over.
    #[must_use]
    pub const fn parent(self) -> Option<ProbeId> {
        match self {
            Self::Same(id) | Self::Adjusted(id) => Some(id),
            Self::New => None,
        }
    }
}

impl Changes {
    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.altered.is_empty()
    }
}

impl Difference {
    /// Whether nothing changes: the order of things aside, the models are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections().iter().all(|(_, keys)| keys.is_empty())
            && self.kinds().iter().all(|(_, changes)| changes.is_empty())
    }

    /// Sections of which there is one each, as people call them, and the keys that are altered.
    #[must_use]
    pub const fn sections(&self) -> [(&'static str, &Vec<String>); 2] {
        [
            ("settings", &self.settings),
            ("port forwarding", &self.port_forward),
        ]
    }

    /// Kinds of things, as people call them, and what changes among them.
    #[must_use]
    pub const fn kinds(&self) -> [(&'static str, &Changes); 5] {
        [
            ("services", &self.services),
            ("servers", &self.servers),
            ("links", &self.wans),
            ("zones", &self.zones),
            ("webhooks", &self.webhooks),
        ]
    }
}

impl fmt::Display for Difference {
    /// In one line, without names: for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        for (section, keys) in self.sections() {
            if !keys.is_empty() {
                words.push(format!("{section} ({})", keys.join(", ")));
            }
        }
        for (kind, changes) in self.kinds() {
            let counts = [
                (changes.added.len(), "added"),
                (changes.removed.len(), "removed"),
                (changes.altered.len(), "altered"),
            ];
            let counts = counts.into_iter().filter(|(count, _)| *count > 0);
            let counts: Vec<_> = counts
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            if !counts.is_empty() {
                words.push(format!("{kind} {}", counts.join(" ")));
            }
        }
        f.write_str(&words.join("; "))
    }
}

/// What `new` changes, and what of `old` it may keep.
#[must_use]
pub fn compare(old: &Model, new: &Model) -> (Difference, Succession) {
    let both = Both { old, new };
    let zones = Matched::new(&old.zones, &new.zones, |_, zone| zone.name.clone());
    let wans = Matched::new(&old.wans, &new.wans, |_, wan| &*wan.name);
    let services = Matched::new(&old.services, &new.services, |_, service| &*service.name);
    let webhooks = Matched::new(&old.webhooks, &new.webhooks, |_, webhook| &*webhook.name);
    let old_servers = server_names(old);
    let new_servers = server_names(new);
    let servers = Matched::named(&old_servers, &new_servers);

    let altered_servers = servers.altered(|o, n| both.server(&old.servers[o], &new.servers[n]));
    let changed_servers: HashSet<usize> = altered_servers.iter().map(|(n, _)| *n).collect();
    let difference = Difference {
        settings: owned(settings(&old.settings, &new.settings)),
        zones: zones.changes(
            |o, n| zone(&old.zones[o], &new.zones[n]),
            |zone| zone.to_string(),
        ),
        wans: wans.changes(
            |o, n| both.wan(&old.wans[o], &new.wans[n]),
            |name| (*name).to_owned(),
        ),
        services: services.changes(
            |o, n| {
                let (o, n) = (&old.services[o], &new.services[n]);
                let server_changed = n
                    .server_ids()
                    .any(|id| changed_servers.contains(&id.index()));
                both.service(o, n, server_changed)
            },
            |name| (*name).to_owned(),
        ),
        servers: servers.to_changes(altered_servers, |(service, server)| {
            format!("{service}/{server}")
        }),
        webhooks: webhooks.changes(
            |o, n| webhook(&old.webhooks[o], &new.webhooks[n]),
            |name| (*name).to_owned(),
        ),
        port_forward: owned(port_forward(old.port_forward, new.port_forward)),
    };
    let services = services.parents(ServiceId);
    let succession = Succession {
        zones: both.zones(&zones.parents(ZoneId)),
        probes: both.probes(&servers.of_new, &wans.of_new),
        wans: wans.parents(WanId),
        services,
        servers: servers.parents(ServerId),
    };
    (difference, succession)
}

/// Things of both models, matched by name.
struct Matched<K> {
    old_names: Vec<K>,
    new_names: Vec<K>,
    /// Of each of the new the index of the old.
    of_new: Vec<Option<usize>>,
    /// Those of the old that live on.
    kept: HashSet<usize>,
}

impl<K: Clone + Eq + Hash> Matched<K> {
    fn new<'a, T>(old: &'a [T], new: &'a [T], name: impl Fn(usize, &'a T) -> K) -> Self {
        let names = |list: &'a [T]| -> Vec<K> {
            let list = list.iter().enumerate();
            list.map(|(index, thing)| name(index, thing)).collect()
        };
        Self::named(&names(old), &names(new))
    }

    fn named(old: &[K], new: &[K]) -> Self {
        let places: HashMap<&K, usize> = old.iter().zip(0..).collect();
        let of_new: Vec<_> = new.iter().map(|name| places.get(name).copied()).collect();
        Self {
            kept: of_new.iter().flatten().copied().collect(),
            of_new,
            old_names: old.to_vec(),
            new_names: new.to_vec(),
        }
    }

    /// Those that both have and for which `keys`, given both indices, finds any.
    fn altered(
        &self,
        keys: impl Fn(usize, usize) -> Vec<&'static str>,
    ) -> Vec<(usize, Vec<&'static str>)> {
        let both = self.of_new.iter().enumerate();
        let both = both.filter_map(|(new, old)| Some((new, keys((*old)?, new))));
        both.filter(|(_, keys)| !keys.is_empty()).collect()
    }

    fn changes(
        &self,
        keys: impl Fn(usize, usize) -> Vec<&'static str>,
        shown: impl Fn(&K) -> String,
    ) -> Changes {
        self.to_changes(self.altered(keys), shown)
    }

    fn to_changes(
        &self,
        altered: Vec<(usize, Vec<&'static str>)>,
        shown: impl Fn(&K) -> String,
    ) -> Changes {
        let added = self.new_names.iter().zip(&self.of_new);
        let removed = self.old_names.iter().enumerate();
        Changes {
            added: added
                .filter(|(_, old)| old.is_none())
                .map(|(name, _)| shown(name))
                .collect(),
            removed: removed
                .filter(|(old, _)| !self.kept.contains(old))
                .map(|(_, name)| shown(name))
                .collect(),
            altered: altered
                .into_iter()
                .map(|(new, keys)| Altered {
                    name: shown(&self.new_names[new]),
                    keys: owned(keys),
                })
                .collect(),
        }
    }

    fn parents<I>(&self, id: impl Fn(u32) -> I) -> Vec<Option<I>> {
        let of_new = self.of_new.iter();
        of_new.map(|old| old.map(|old| id(old as u32))).collect()
    }
}

fn owned(keys: Vec<&'static str>) -> Vec<String> {
    keys.into_iter().map(str::to_owned).collect()
}

/// Service and server of each server.
fn server_names(model: &Model) -> Vec<(&str, &str)> {
    let servers = model.servers.iter();
    servers
        .map(|server| (&*model.service(server.service).name, &*server.name))
        .collect()
}

/// The keys that go with `true`.
fn keys<const N: usize>(pairs: [(&'static str, bool); N]) -> Vec<&'static str> {
    let pairs = pairs.into_iter();
    pairs
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key)
        .collect()
}

/// Named one by one, so that a new setting is not forgotten.
fn settings(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let Settings {
        interfaces,
        listen,
        port,
        xdp,
        edns_udp_size,
        nsid,
        cookies,
        control_socket,
        control,
        state_dir,
        bpf_dir,
        max_stale,
        metrics,
    } = old;
    keys([
        ("interfaces", *interfaces != new.interfaces),
        ("listen", *listen != new.listen),
        ("port", *port != new.port),
        ("xdp", *xdp != new.xdp),
        ("edns_udp_size", *edns_udp_size != new.edns_udp_size),
        ("nsid", *nsid != new.nsid),
        ("cookies", *cookies != new.cookies),
        ("control_socket", *control_socket != new.control_socket),
        ("control_read", control.read != new.control.read),
        ("control_change", control.change != new.control.change),
        ("state_dir", *state_dir != new.state_dir),
        ("bpf_dir", *bpf_dir != new.bpf_dir),
        ("max_stale", *max_stale != new.max_stale),
        ("metrics", *metrics != new.metrics),
    ])
}

fn port_forward(old: Option<PortForward>, new: Option<PortForward>) -> Vec<&'static str> {
    let snat = match (old, new) {
        (Some(PortForward { snat }), Some(new)) => snat != new.snat,
        _ => false,
    };
    keys([("enabled", old.is_some() != new.is_some()), ("snat", snat)])
}

fn webhook(old: &Webhook, new: &Webhook) -> Vec<&'static str> {
    let Webhook {
        name: _,
        host,
        port,
        tls,
        authority,
        path,
        headers,
        timeout,
        kinds,
        services,
    } = old;
    let is_same_url = *host == new.host
        && *port == new.port
        && tls.is_some() == new.tls.is_some()
        && *authority == new.authority
        && *path == new.path;
    keys([
        ("url", !is_same_url),
        ("tls", tls.is_some() == new.tls.is_some() && *tls != new.tls),
        ("headers", *headers != new.headers),
        ("timeout", *timeout != new.timeout),
        ("events", *kinds != new.kinds),
        ("services", *services != new.services),
    ])
}

fn zone(old: &Zone, new: &Zone) -> Vec<&'static str> {
    let Zone {
        name: _,
        file,
        soa,
        ns_ttl,
        name_servers,
        records,
        serial,
        allow_transfer,
        notify,
    } = old;
    let records = *soa != new.soa
        || *ns_ttl != new.ns_ttl
        || *name_servers != new.name_servers
        || *records != new.records;
    keys([
        ("file", *file != new.file),
        ("records", records),
        ("serial", *serial != new.serial),
        ("allow_transfer", *allow_transfer != new.allow_transfer),
        ("notify", *notify != new.notify),
    ])
}

/// Comparisons for which ids must be looked up.
#[derive(Clone, Copy)]
struct Both<'a> {
    old: &'a Model,
    new: &'a Model,
}

impl<'a> Both<'a> {
    fn wan(self, old: &Wan, new: &Wan) -> Vec<&'static str> {
        let Wan {
            name: _,
            interface,
            targets,
            min_up,
        } = old;
        let same_targets = targets.len() == new.targets.len()
            && targets
                .iter()
                .zip(&new.targets)
                .all(|(o, n)| o.label == n.label);
        let pairs = targets
            .iter()
            .zip(&new.targets)
            .map(|(o, n)| (self.old.probe(o.probe), self.new.probe(n.probe)));
        let source = pairs
            .clone()
            .any(|(o, n)| o.egress.source != n.egress.source);
        let timing = pairs.clone().any(|(o, n)| o.timing != n.timing);
        keys([
            ("interface", *interface != new.interface),
            ("targets", !same_targets),
            ("source", same_targets && source),
            ("check", same_targets && timing),
            ("min_up", *min_up != new.min_up),
        ])
    }

    fn service(self, old: &Service, new: &Service, server_changed: bool) -> Vec<&'static str> {
        let Service {
            name: _,
            fqdn,
            ttl,
            port,
            redundancy_only,
            on_all_down,
            max_answers,
            wan,
            servers: _,
        } = old;
        let fqdn_same = fqdn
            .iter()
            .map(|fqdn| &fqdn.name)
            .eq(new.fqdn.iter().map(|n| &n.name));
        let wan_same = wan.len() == new.wan.len()
            && wan.iter().zip(&new.wan).all(|(o, n)| {
                self.old.wan(o.wan).name == self.new.wan(n.wan).name
                    && (o.address, o.weight) == (n.address, n.weight)
            });
        let old_servers = old.server_ids().map(|id| &self.old.server(id).name);
        let new_servers = new.server_ids().map(|id| &self.new.server(id).name);
        keys([
            ("fqdn", !fqdn_same),
            ("ttl", *ttl != new.ttl),
            ("port", *port != new.port),
            ("redundancy_only", *redundancy_only != new.redundancy_only),
            ("on_all_down", *on_all_down != new.on_all_down),
            ("max_answers", *max_answers != new.max_answers),
            ("wan", !wan_same),
            ("servers", server_changed || !old_servers.eq(new_servers)),
        ])
    }

    fn server(self, old: &Server, new: &Server) -> Vec<&'static str> {
        let Server {
            name: _,
            service: _,
            address,
            port,
            priority,
            site,
            weight,
            probes,
        } = old;
        let old_probes = probes.iter().map(|id| self.old.probe(*id));
        let new_probes = new.probes.iter().map(|id| self.new.probe(*id));
        keys([
            ("address", *address != new.address),
            ("port", *port != new.port),
            ("priority", *priority != new.priority),
            ("offsite", *site != new.site),
            ("weight", *weight != new.weight),
            ("check", !old_probes.eq(new_probes)),
        ])
    }

    fn zones(self, parents: &[Option<ZoneId>]) -> Vec<Option<(ZoneId, Content)>> {
        let old_names = names_of_services(self.old);
        let new_names = names_of_services(self.new);
        let with_content = |(parent, id): (&Option<ZoneId>, usize)| {
            let parent = (*parent)?;
            let (old, new) = (self.old.zone(parent), &self.new.zones[id]);
            let same = old.serial == new.serial
                && !zone(old, new).contains(&"records")
                && old_names[parent.index()] == new_names[id];
            let content = if same {
                Content::Same
            } else {
                Content::Changed
            };
            Some((parent, content))
        };
        parents.iter().zip(0..).map(with_content).collect()
    }

    /// By the probe itself, or else by what a server or a link of the same name has tested.
    fn probes(self, servers: &[Option<usize>], wans: &[Option<usize>]) -> Vec<Lineage> {
        let known: HashMap<&Probe, ProbeId> =
            self.old.probes.iter().zip((0..).map(ProbeId)).collect();
        let same = |probe: &Probe| known.get(probe).copied().map(Lineage::Same);
        let probes = self.new.probes.iter();
        let mut lineages: Vec<Lineage> = probes
            .map(|probe| same(probe).unwrap_or(Lineage::New))
            .collect();
        let mut adopt = |id: ProbeId, candidates: &[ProbeId]| {
            if lineages[id.index()] != Lineage::New {
                return;
            }
            let fingerprint = self.new.probe(id).fingerprint();
            let is_parent = |old: &&ProbeId| self.old.probe(**old).fingerprint() == fingerprint;
            if let Some(parent) = candidates.iter().find(is_parent) {
                lineages[id.index()] = Lineage::Adjusted(*parent);
            }
        };
        for (server, parent) in self.new.servers.iter().zip(servers) {
            let Some(parent) = *parent else { continue };
            for id in &server.probes {
                adopt(*id, &self.old.servers[parent].probes);
            }
        }
        for (wan, parent) in self.new.wans.iter().zip(wans) {
            let Some(parent) = *parent else { continue };
            let of_old = self.old.wans[parent].targets.iter();
            let of_old: Vec<ProbeId> = of_old.map(|target| target.probe).collect();
            for target in &wan.targets {
                adopt(target.probe, &of_old);
            }
        }
        lineages
    }
}

/// The names of services in each zone, and whose they are.
fn names_of_services(model: &Model) -> Vec<HashMap<&super::Name, &str>> {
    let mut names = vec![HashMap::new(); model.zones.len()];
    for service in &model.services {
        for fqdn in &service.fqdn {
            names[fqdn.zone.index()].insert(&fqdn.name, &*service.name);
        }
    }
    names
}
