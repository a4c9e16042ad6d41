//! The data plane: loads the XDP program, attaches it, and publishes answers to it.
//!
//! [`DataPlane`] is the one writer of the maps. Its parts: `tables` publishes snapshots, `services`
//! says what services answer, `names` is the hash table of names, `pool` hands out slots, `grace` knows
//! when readers have gone, `mapped` holds the memory, `attach` keeps the program on its interfaces and
//! `pins` beyond the daemon's end, `rest` is where that program finds the one for what is not usual,
//! `meters` counts, `log` follows what the program says. `succession` hands everything over to the next
//! one, as its maps are made for one model.

mod attach;
mod grace;
mod log;
mod mapped;
mod meters;
mod names;
mod pins;
mod pool;
mod rest;
mod services;
mod succession;
mod tables;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::maps::{Map, MapData, MapError, ProgramArray};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use failover_common::counters::{Counter, Counters, ServiceHits};
use failover_common::layout::Cell;
use failover_common::question::MAX_NAME_LEN;
use failover_common::settings::Settings as ProgramSettings;

use crate::authority::{Authority, Directory, Entry, Otherwise};
pub use crate::model::Generation;
use crate::model::{Model, ServiceId};
use crate::policy::Answer;
pub use crate::wire::Change;
use crate::wire::{AddressAnswer, Family};
pub use attach::{Attached, AttachedMode, Place};
use grace::Grace;
use log::ProgramLog;
use mapped::Mapped;
pub use meters::{Meters, Readings};
use names::{Names, Shape};
pub use pins::{Pins, PinsError};
use pool::Pool;
use rest::Rest;
use services::Services;
pub use succession::Bridged;
pub use tables::Staged;
use tables::{Published, Tables};

/// The compiled program.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/failover-xdp"));
/// The programs that `cargo xtask bench` compares it with. Nothing in the daemon refers to it,
/// so that the linker leaves it out there.
#[doc(hidden)]
pub static BENCH_PROGRAMS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/failover-bench"));
/// Name of the program that answers.
const PROGRAM_NAME: &str = "failover";
/// Name of the program that it leaves to what is not usual.
const REST_PROGRAM_NAME: &str = "failover_rest";
/// Name of the program that tells the time.
const TICKS_PROGRAM_NAME: &str = "failover_ticks";
/// Name of the program that runs another one.
const BRIDGE_PROGRAM_NAME: &str = "failover_bridge";
/// Name of the program that passes everything.
const PASS_PROGRAM_NAME: &str = "failover_pass";

/// Code of the NSID option (RFC 5001).
const NSID: u32 = 3;

/// Why the data plane refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program or its maps could not be loaded.
    #[error("load the XDP program")]
    Load(#[from] EbpfError),
    /// The verifier refused the program, or it could not be attached.
    #[error("XDP program")]
    Program(#[from] ProgramError),
    /// A map could not be used.
    #[error("map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// A map could not be mapped into memory.
    #[error("map {map} into memory")]
    Mmap {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A map is not what this version expects.
    #[error("map {map}: unexpected {what}")]
    Layout {
        /// Its name.
        map: &'static str,
        /// What differs.
        what: &'static str,
    },
    /// A map has no room for a publication.
    #[error("map {map} is full: {needed} needed, {available} free")]
    Full {
        /// Its name.
        map: &'static str,
        /// Slots needed.
        needed: usize,
        /// Slots free.
        available: usize,
    },
    /// A name does not fit.
    #[error("name {name} does not fit")]
    Name {
        /// The name.
        name: String,
    },
    /// The slow path has no sockets.
    #[error(transparent)]
    Listen(#[from] crate::listen::BindError),
    /// There is no XDP program to attach.
    #[error("XDP is off")]
    Off,
    /// There is nothing yet that another model could take the place of.
    #[error("nothing has been published yet")]
    Unpublished,
    /// A thread could not be started.
    #[error("start a thread")]
    Thread(#[from] std::io::Error),
}

/// Program, maps and attachments.
pub struct DataPlane {
    ebpf: Ebpf,
    tables: Tables,
    /// Until the maps are filled.
    directory: Option<Directory>,
    meters: Arc<Meters>,
    attached: Vec<Attached>,
    /// `None`: attachments end with the daemon.
    pins: Option<Arc<Pins>>,
    /// What the bridge leads to.
    bridge: ProgramArray<MapData>,
    rest: Rest,
    log: Option<ProgramLog>,
}

impl DataPlane {
    /// Loads the program with maps for `model`. Generations continue after `last`.
    pub fn load(model: &Model, last: Generation) -> Result<Self, Error> {
        let directory = Authority::new(model).directory();
        let shape = Shape::find(directory.entries.iter().map(|entry| &entry.name));
        let sizes = Sizes::new(model, &directory);
        let settings = program_settings(model, &directory, shape);
        let log_level = log_level();
        let mut loader = EbpfLoader::new();
        loader
            .override_global("SETTINGS", bytemuck::bytes_of(&settings), true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries("NAMES", shape.buckets)
            .map_max_entries("LONG_NAMES", shape.long_names)
            .map_max_entries("SERVICES_A", sizes.services)
            .map_max_entries("SERVICES_AAAA", sizes.services)
            .map_max_entries("NODES", sizes.nodes)
            .map_max_entries("ZONES", sizes.zones)
            .map_max_entries("SERVICE_HITS", sizes.services + 1)
            .map_max_entries("ANSWERS", sizes.small)
            .map_max_entries("LARGE_ANSWERS", sizes.large)
            .map_max_entries("TAILS", sizes.tails);
        let mut ebpf = loader.load(PROGRAM)?;
        program(&mut ebpf, PROGRAM_NAME)?.load()?;
        program(&mut ebpf, REST_PROGRAM_NAME)?.load()?;
        program(&mut ebpf, TICKS_PROGRAM_NAME)?.load()?;

        let tables = Tables {
            state: Mapped::new("STATE", take(&mut ebpf, "STATE")?)?,
            names: Names::new(
                shape,
                Mapped::new("NAMES", take(&mut ebpf, "NAMES")?)?,
                Pool::new(
                    "LONG_NAMES",
                    Mapped::new("LONG_NAMES", take(&mut ebpf, "LONG_NAMES")?)?,
                ),
            ),
            nodes: Pool::new("NODES", Mapped::new("NODES", take(&mut ebpf, "NODES")?)?),
            zones: Mapped::new("ZONES", take(&mut ebpf, "ZONES")?)?,
            services: Services::new(
                Mapped::new("SERVICES_A", take(&mut ebpf, "SERVICES_A")?)?,
                Mapped::new("SERVICES_AAAA", take(&mut ebpf, "SERVICES_AAAA")?)?,
            ),
            small: Pool::new(
                "ANSWERS",
                Mapped::new("ANSWERS", take(&mut ebpf, "ANSWERS")?)?,
            ),
            large: Pool::new(
                "LARGE_ANSWERS",
                Mapped::new("LARGE_ANSWERS", take(&mut ebpf, "LARGE_ANSWERS")?)?,
            ),
            tails: Pool::new("TAILS", Mapped::new("TAILS", take(&mut ebpf, "TAILS")?)?),
            grace: Grace::new()?,
            shared: None,
            published: Published::default(),
            generation: last,
        };
        let meters = Meters::new(
            take(&mut ebpf, "COUNTERS")?,
            take(&mut ebpf, "SERVICE_HITS")?,
            sizes.services,
        )?;
        let rest = take(&mut ebpf, Rest::MAP)?;
        let rest = Rest::new(rest, program(&mut ebpf, REST_PROGRAM_NAME)?.fd()?)?;
        let bridge = take(&mut ebpf, "BRIDGE")?;
        Ok(Self {
            bridge: ProgramArray::try_from(bridge).map_err(on_bridge)?,
            rest,
            meters: Arc::new(meters),
            ebpf,
            tables,
            directory: Some(directory),
            attached: Vec::new(),
            pins: None,
            log: None,
        })
    }

    /// Writes what does not change before the model does: names, zones, static replies. Takes
    /// most of the time of the first publication, and changes nothing for anybody.
    pub fn fill(&mut self, model: &Model) -> Result<(), Error> {
        match self.directory.take() {
            Some(directory) => self.tables.fill(model, &directory),
            None => Ok(()),
        }
    }

    /// The first publication: all names and the answers of all services, in one step.
    pub fn publish_all(&mut self, model: &Model, changes: &[Change]) -> Result<Generation, Error> {
        self.fill(model)?;
        let staged = self.tables.stage_all(self.generation(), changes, &[])?;
        Ok(self.tables.commit(staged))
    }

    /// Publishes changed answers in one step.
    ///
    /// The cost is in proportion to the number of changes. It blocks for a grace period
    /// (milliseconds) only if answers are replaced faster than readers can leave them.
    pub fn publish(&mut self, changes: &[Change]) -> Result<Generation, Error> {
        self.tables.publish(changes)
    }

    /// How many of the two answers of a service the program finds beside the pointers to them, see
    /// [`failover_common::layout::InlineAnswer`].
    #[must_use]
    pub fn inline_answers(&self, service: ServiceId) -> usize {
        self.tables.inline_answers(service)
    }

    /// Blocks until no packet is in the program any more that was there when the last publication
    /// became visible.
    pub fn wait_for_readers(&mut self) {
        let ticket = self.tables.grace.start();
        self.tables.grace.wait(ticket);
    }

    /// The published generation.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.tables.generation
    }

    /// Vouches for the snapshot for `max_stale` from now; `None`: for ever.
    pub fn beat(&mut self, max_stale: Option<Duration>) {
        let valid_until = match max_stale.map(|max_stale| self.ticks_after(max_stale)) {
            None => u64::MAX,
            Some(Ok(ticks)) => ticks,
            Some(Err(error)) => {
                // Without a heartbeat, user space answers in the end.
                tracing::error!(error = &error as &dyn std::error::Error, "heartbeat");
                return;
            }
        };
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.map_or(0, |since| since.as_secs() as u32);
        self.tables.beat(valid_until, time);
    }

    /// The kernel's ticks at a time from now, see [`failover_common::layout::State`].
    fn ticks_after(&mut self, duration: Duration) -> Result<u64, Error> {
        // The program writes them into the packet.
        let mut packet = [0; 64];
        let options = TestRunOptions {
            data_in: Some(&[0; 64]),
            data_out: Some(&mut packet),
            ..TestRunOptions::new()
        };
        program(&mut self.ebpf, TICKS_PROGRAM_NAME)?.test_run(options)?;
        let now = packet.first_chunk().copied().map_or(0, u64::from_ne_bytes);
        let ticks = duration.as_nanos() / tick().as_nanos().max(1);
        Ok(now.saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX)))
    }

    /// The time of the last heartbeat, in seconds since 1970: that of server cookies.
    #[must_use]
    pub fn time(&self) -> u32 {
        self.tables.time()
    }

    /// What it counts; stays readable when the data plane is gone.
    #[must_use]
    pub const fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// As [`Meters::counters`].
    pub fn counters(&self) -> Result<Counters, Error> {
        self.meters.counters()
    }

    /// As [`Meters::service_hits`].
    pub fn service_hits(&self, service: ServiceId) -> Result<ServiceHits, Error> {
        self.meters.service_hits(service)
    }

    /// The program that answers, for tests that run it without a network.
    pub fn program(&mut self) -> Result<&mut Xdp, Error> {
        program(&mut self.ebpf, PROGRAM_NAME)
    }

    /// The one that it leaves to what is not usual.
    pub fn rest_program(&mut self) -> Result<&mut Xdp, Error> {
        program(&mut self.ebpf, REST_PROGRAM_NAME)
    }
}

/// The time between two of the kernel's ticks: what its coarse clocks count in.
fn tick() -> Duration {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(tick.tv_sec as u64, tick.tv_nsec as u32)
}

/// Loads the program that passes everything and attaches it to an interface until it is dropped.
pub fn attach_pass(interface: &str) -> Result<Ebpf, Error> {
    let mut ebpf = EbpfLoader::new().load(PROGRAM)?;
    let pass = program(&mut ebpf, PASS_PROGRAM_NAME)?;
    pass.load()?;
    pass.attach(interface, aya::programs::XdpMode::default())?;
    Ok(ebpf)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Layout {
        map: name,
        what: "absence",
    })?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, Error> {
    ebpf.take_map(name).ok_or(Error::Layout {
        map: name,
        what: "absence",
    })
}

const fn on_bridge(source: MapError) -> Error {
    Error::Map {
        map: "BRIDGE",
        source,
    }
}

/// The program's log level, from the daemon's own.
fn log_level() -> u8 {
    use tracing::level_filters::LevelFilter;
    match LevelFilter::current() {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => 1,
        LevelFilter::WARN => 2,
        LevelFilter::INFO => 3,
        LevelFilter::DEBUG => 4,
        LevelFilter::TRACE => 5,
    }
}

fn program_settings(model: &Model, directory: &Directory, shape: Shape) -> ProgramSettings {
    let settings = &model.settings;
    let labels = |entry: &Entry| entry.name.iter().count() - 1;
    let max_labels = directory.entries.iter().map(labels).max();
    let mut program = ProgramSettings {
        multipliers: shape.multipliers,
        name_homes: shape.homes,
        port: settings.port.get().to_be(),
        edns_udp_size: settings.edns_udp_size,
        passed_options: u32::from(settings.nsid.is_some()) << NSID,
        max_labels: max_labels.unwrap_or(0) as u32,
        services: model.services.len() as u32,
        cookies: u32::from(settings.cookies.is_some()),
        cookie_secret: settings
            .cookies
            .map_or([0; 2], |secret| bytemuck::cast(secret.0)),
        ..ProgramSettings::NONE
    };
    for zone in &model.zones {
        program.zone_ends.add(zone.name.as_slice());
    }
    let v4 = settings.listen.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(_) => None,
    });
    program.listen_v4_len = fill(&mut program.listen_v4, v4);
    let v6 = settings.listen.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(bytemuck::cast(address.octets())),
    });
    program.listen_v6_len = fill(&mut program.listen_v6, v6);
    program
}

/// Fills places with items, of which the configuration has no more than that, and what is left with
/// the first one. Returns how many items there are.
fn fill<T: Copy>(places: &mut [T], mut items: impl Iterator<Item = T>) -> u32 {
    let Some(first) = items.next() else { return 0 };
    places.fill(first);
    let rest = places.iter_mut().skip(1).zip(items);
    1 + rest.map(|(place, item)| *place = item).count() as u32
}

/// Sizes of the maps for a model.
struct Sizes {
    nodes: u32,
    zones: u32,
    services: u32,
    small: u32,
    large: u32,
    tails: u32,
}

impl Sizes {
    /// Room for two of every answer, so that all of them can be replaced in one publication.
    fn new(model: &Model, directory: &Directory) -> Self {
        let mut small = 0;
        let mut large = 0;
        for service in &model.services {
            for family in Family::ALL {
                match most_addresses(model, service, family) {
                    AddressAnswer::Records(records)
                        if AddressAnswer::Records(records.clone()).is_small() =>
                    {
                        small += 1;
                    }
                    // A large service may shrink to a small one.
                    AddressAnswer::Records(_) => {
                        small += 1;
                        large += 1;
                    }
                    AddressAnswer::NoData | AddressAnswer::Servfail => {}
                }
            }
        }
        /// More than the usual number of publications during one grace period.
        const SPARE: u32 = 1024;
        let large = if large == 0 { 1 } else { 2 * large + SPARE };
        let nodes = directory
            .entries
            .iter()
            .filter(|e| e.more.is_some())
            .count();
        let zones = model.zones.len() as u32;
        Self {
            nodes: nodes.max(1) as u32,
            zones: zones.max(1),
            services: model.services.len().max(1) as u32,
            small: (2 * small + SPARE).min(Cell::LARGE - 1),
            large: large.min(Cell::LARGE - 1),
            tails: tails(directory) + 2 * zones + SPARE,
        }
    }
}

/// Tails that stay: that without records, one for each length of names of services in each
/// zone, those for wildcards, and the static replies.
fn tails(directory: &Directory) -> u32 {
    let mut lengths = std::collections::HashSet::new();
    let mut replies = 0;
    for entry in &directory.entries {
        if entry.service.is_some() {
            lengths.insert((entry.zone, entry.name.len()));
        }
        if let Some(more) = &entry.more {
            replies += more
                .replies
                .iter()
                .filter(|(_, reply)| reply.is_some())
                .count();
            replies += usize::from(matches!(more.otherwise, Otherwise::Reply(_)));
        }
    }
    let of_wildcards = directory.wildcard_zones.len() * (MAX_NAME_LEN + 1);
    (1 + lengths.len() + of_wildcards + replies) as u32
}

/// An answer with as many addresses of a family as a service could ever give.
fn most_addresses(model: &Model, service: &crate::model::Service, family: Family) -> AddressAnswer {
    use crate::model::OnAllDown;
    use crate::policy::Weighted;
    let of_family = |addresses: &mut dyn Iterator<Item = IpAddr>| -> Vec<Weighted> {
        addresses
            .filter(|address| family.holds(*address))
            .map(|address| Weighted {
                address,
                weight: crate::wire::WEIGHT_ONE,
            })
            .collect()
    };
    let servers = service.server_ids().map(|id| model.server(id).address);
    let usual = of_family(&mut service.wan.iter().map(|wan| wan.address).chain(servers));
    let all_down = match &service.on_all_down {
        OnAllDown::Addresses(list) => of_family(&mut list.iter().copied()),
        OnAllDown::Primary | OnAllDown::Last | OnAllDown::Empty | OnAllDown::Servfail => vec![],
    };
    let most = if all_down.len() > usual.len() {
        all_down
    } else {
        usual
    };
    AddressAnswer::new(service, &Answer::Addresses(most), family)
}

/// Counters by name, in the order of the program's.
#[must_use]
pub fn named_counters(counters: &Counters) -> Vec<(&'static str, u64)> {
    Counter::ALL
        .iter()
        .map(|counter| (counter.name(), counters.get(*counter)))
        .collect()
}
