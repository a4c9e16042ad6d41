//! The kernel's side: programs, maps, and the running of packets.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use failover::dataplane::BENCH_PROGRAMS;
use failover_common::bench::{self, TEMPLATE_LEN, TextbookKey, TextbookRecord};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::cases::Set;

/// `XDP_PASS`.
pub(crate) const PASS: u32 = 2;
/// `XDP_TX`.
pub(crate) const TX: u32 = 3;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Empty,
    Bare,
    Grow,
    Textbook,
    Failover,
}

impl Program {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 5] = [
        Self::Empty,
        Self::Bare,
        Self::Grow,
        Self::Textbook,
        Self::Failover,
    ];

    /// Its name in the object and in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Bare => "bare",
            Self::Grow => "grow",
            Self::Textbook => "textbook",
            Self::Failover => "failover",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! pod {
    ($($name:ident($inner:ty);)*) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            pub(crate) struct $name(pub(crate) $inner);
            // SAFETY: the type inside is `bytemuck::Pod`.
            unsafe impl aya::Pod for $name {}
        )*
    };
}

pod! {
    Template(bench::Template);
    Run(bench::Run);
    Key(TextbookKey);
    Record(TextbookRecord);
}

/// The wrapper, and the programs that need no names.
pub(crate) struct Bench {
    ebpf: Ebpf,
    target: ProgramArray<MapData>,
    templates: Array<MapData, Template>,
    run: Array<MapData, Run>,
    /// The first query, and how many there are.
    asked: (Vec<u8>, usize),
}

impl Bench {
    /// Loads all of it, with room for so many queries.
    pub(crate) fn load(queries: usize) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("TEMPLATES", u32::try_from(queries)?)
            .load(BENCH_PROGRAMS)?;
        for name in ["wrapper", "empty", "bare", "grow"] {
            program(&mut ebpf, name)?
                .load()
                .with_context(|| format!("load {name}"))?;
        }
        let mut take = |name| ebpf.take_map(name).context(name);
        Ok(Self {
            target: ProgramArray::try_from(take("TARGET")?)?,
            templates: Array::try_from(take("TEMPLATES")?)?,
            run: Array::try_from(take("RUN")?)?,
            ebpf,
            asked: (vec![], 0),
        })
    }

    /// Chooses what is asked.
    pub(crate) fn ask(&mut self, queries: &[Vec<u8>]) -> Result<()> {
        for (query, index) in queries.iter().zip(0..) {
            let mut template = bench::Template {
                len: query.len() as u64,
                bytes: [0; TEMPLATE_LEN],
            };
            template
                .bytes
                .get_mut(..query.len())
                .context("query too long")?
                .copy_from_slice(query);
            self.templates.set(index, Template(template), 0)?;
        }
        self.asked = (queries[0].clone(), queries.len());
        Ok(())
    }

    /// Chooses who is asked.
    pub(crate) fn put_under_test(&mut self, which: Program, set: &mut Set) -> Result<()> {
        let program = match which {
            Program::Failover => set.plane.program()?,
            Program::Textbook => program(&mut set.textbook.ebpf, which.name())?,
            Program::Empty | Program::Bare | Program::Grow => {
                program(&mut self.ebpf, which.name())?
            }
        };
        Ok(self.target.set(0, program.fd()?, 0)?)
    }

    /// Asks query number `index` once: verdict and reply.
    pub(crate) fn one(&mut self, index: usize, query: &[u8]) -> Result<(u32, Vec<u8>)> {
        self.start(index)?;
        let mut reply = vec![0; 4096];
        let result = program(&mut self.ebpf, "wrapper")?.test_run(TestRunOptions {
            data_in: Some(query),
            data_out: Some(&mut reply),
            ..TestRunOptions::new()
        })?;
        reply.truncate(result.data_size_out as usize);
        Ok((result.return_value, reply))
    }

    /// Asks `packets` queries: the last verdict, and nanoseconds of CPU time per packet.
    pub(crate) fn many(&mut self, packets: u32) -> Result<(u32, f64)> {
        self.start(0)?;
        let wrapper = program(&mut self.ebpf, "wrapper")?;
        let start = cpu_time();
        let result = wrapper.test_run(TestRunOptions {
            data_in: Some(&self.asked.0),
            repeat: packets,
            ..TestRunOptions::new()
        })?;
        let spent = cpu_time().saturating_sub(start);
        let Run(run) = self.run.get(&0, 0)?;
        ensure!(
            run.turns == u64::from(packets),
            "{} turns of {packets}",
            run.turns
        );
        Ok((
            result.return_value,
            spent.as_nanos() as f64 / f64::from(packets),
        ))
    }

    fn start(&mut self, next: usize) -> Result<()> {
        let run = bench::Run {
            templates: self.asked.1 as u64,
            next: next as u64,
            ..bench::Run::default()
        };
        Ok(self.run.set(0, Run(run), 0)?)
    }
}

/// The textbook program with its names.
pub(crate) struct Textbook {
    ebpf: Ebpf,
    _records: HashMap<MapData, Key, Record>,
}

impl Textbook {
    /// Loads it with `names` in wire format, `count` of them.
    pub(crate) fn load(names: impl Iterator<Item = Vec<u8>>, count: usize) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("RECORDS", count as u32)
            .map_max_entries("TEMPLATES", 1)
            .load(BENCH_PROGRAMS)?;
        program(&mut ebpf, "textbook")?
            .load()
            .context("load textbook")?;
        let records = ebpf.take_map("RECORDS").context("RECORDS")?;
        let mut records = HashMap::<_, Key, Record>::try_from(records)?;
        for name in names {
            let mut key = TextbookKey {
                qtype: 1u16.to_be(),
                class: 1u16.to_be(),
                name: [0; 256],
            };
            key.name[..name.len()].copy_from_slice(&name);
            let record = TextbookRecord {
                address: u32::from_ne_bytes([198, 51, 100, 134]),
                ttl: 30u32.to_be(),
            };
            records.insert(Key(key), Record(record), 0)?;
        }
        Ok(Self {
            ebpf,
            _records: records,
        })
    }
}

/// What the kernel says about a program.
#[derive(Clone, Debug)]
pub(crate) struct ProgramInfo {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier went through; the limit is a million.
    pub verified_instructions: Option<u32>,
    /// Octets of machine code.
    pub jited_octets: u32,
}

impl ProgramInfo {
    /// Asks the kernel.
    pub(crate) fn new(program: &Xdp) -> Result<Self> {
        let info = program.info()?;
        Ok(Self {
            name: info.name_as_str().unwrap_or_default().to_owned(),
            verified_instructions: info.verified_instruction_count(),
            jited_octets: info.size_jitted(),
        })
    }
}

/// Keeps this thread where it is: counters are per CPU, and caches stay warm.
pub(crate) fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu());
    Ok(sched_setaffinity(None, &cpus)?)
}

/// CPU time of this thread: what others do on this CPU is not in it.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp> {
    Ok(ebpf.program_mut(name).context(name)?.try_into()?)
}
