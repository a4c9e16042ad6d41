//! The DNS cases of `tests/cases`, over both transports; see the README there.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use domain::base::iana::Rtype;
use domain::base::{Message, Name, Record, ToName};
use domain::rdata::AllRecordData;
use failover::authority::{Authority, Origin, Snapshot, Transport};
use failover::dataplane::{Change, Generation};
use failover::health::Effective;
use failover::model::{Model, Server, ServiceId};
use failover::policy::{self, View};
use failover::wire::{AddressAnswer, Family};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

#[test]
fn replies_are_as_the_cases_say() {
    let loaded = failover::config::load(&directory().join("failover.toml"));
    let model = loaded.unwrap_or_else(|errors| panic!("{errors}")).model;
    let authority = Authority::new(&model);
    let snapshot = all_up(&model);
    let mut files: Vec<_> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cases")
        })
        .collect();
    files.sort();
    let mut failures = String::new();
    let mut count = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for case in cases(&text) {
            count += 1;
            for transport in case.transports() {
                let origin = Origin {
                    client: [192, 0, 2, 77].into(),
                    transport,
                    time: 0,
                };
                let reply = authority.answer(&snapshot, &case.query, &origin, 0);
                let found = reply.map_or_else(|| vec!["< silence".to_owned()], |r| render(&r));
                if found != case.expected {
                    let name = file.file_name().unwrap_or_default().display();
                    let (line, expected) = (case.line, case.expected.join("\n"));
                    writeln!(
                        failures,
                        "\n{name}:{line} {transport:?}\n--- expected\n{expected}\n+++ found\n{}",
                        found.join("\n")
                    )
                    .unwrap();
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(count > 50, "only {count} cases were found");
}

/// The answers of all services with everything up but the servers called `down`.
fn all_up(model: &Model) -> Snapshot {
    let state = |server: &Server| match server.name.as_str() {
        "down" => Effective::Down,
        _ => Effective::Up,
    };
    let view = View {
        servers: &model.servers.iter().map(state).collect::<Vec<_>>(),
        wans: &vec![Effective::Up; model.wans.len()],
    };
    let changes: Vec<_> = model
        .services
        .iter()
        .zip(0..)
        .map(|(service, id)| {
            let answer = policy::decide(service, model, view, None).answer;
            Change {
                service: ServiceId(id),
                a: AddressAnswer::new(service, &answer, Family::V4),
                aaaa: AddressAnswer::new(service, &answer, Family::V6),
            }
        })
        .collect();
    Snapshot::new(Generation(1), &changes)
}

struct Case {
    line: usize,
    query: Vec<u8>,
    over: Vec<Transport>,
    expected: Vec<String>,
}

impl Case {
    fn transports(&self) -> impl Iterator<Item = Transport> + use<> {
        self.over.clone().into_iter()
    }
}

fn cases(text: &str) -> Vec<Case> {
    let lines: Vec<_> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.starts_with(';'))
        .collect();
    let mut sets: HashMap<&str, Vec<String>> = HashMap::new();
    let mut cases = Vec::new();
    for block in lines.split(|(_, line)| line.trim().is_empty()) {
        let Some((&(line, first), rest)) = block.split_first() else {
            continue;
        };
        let rest = rest
            .iter()
            .flat_map(|(_, line)| match line.strip_prefix('@') {
                Some(name) => sets
                    .get(name)
                    .unwrap_or_else(|| panic!("no set {name}"))
                    .clone(),
                None => vec![(*line).to_owned()],
            });
        let rest: Vec<String> = rest.collect();
        if let Some(name) = first.strip_prefix("set ") {
            sets.insert(name, rest);
        } else if let Some(query) = first.strip_prefix("> ") {
            let (query, over) = query_of(query);
            cases.push(Case {
                line,
                query,
                over,
                expected: rest,
            });
        } else {
            panic!("line {line}: expected `set` or `>`, found {first}");
        }
    }
    cases
}

fn query_of(text: &str) -> (Vec<u8>, Vec<Transport>) {
    let tcp = Transport::Tcp {
        idle: Duration::from_secs(10),
    };
    let mut over = vec![Transport::Udp, tcp];
    let mut words = text.split_whitespace();
    let name = words.next().unwrap();
    if name == "raw" {
        return (hex(&words.collect::<String>()), over);
    }
    let name = Name::<Vec<u8>>::from_str(name).unwrap();
    let qtype = Rtype::from_str(words.next().unwrap()).unwrap();
    let (mut flags, mut class, mut header_only) = (0_u16, 1_u16, false);
    let (mut has_opt, mut version, mut size, mut edns_flags) = (false, 0_u8, 1232_u16, 0_u16);
    let mut options = Vec::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        has_opt |= matches!(key, "+edns" | "+bufsize" | "+do" | "+ednsflags" | "+option");
        match key {
            "+qr" => flags |= 0x8000,
            "+aa" => flags |= 0x0400,
            "+tc" => flags |= 0x0200,
            "+rd" => flags |= 0x0100,
            "+ra" => flags |= 0x0080,
            "+z" => flags |= 0x0040,
            "+ad" => flags |= 0x0020,
            "+cd" => flags |= 0x0010,
            "+opcode" => flags |= value.parse::<u16>().unwrap() << 11,
            "+class" => {
                class = match value {
                    "CH" => 3,
                    "HS" => 4,
                    "NONE" => 254,
                    "ANY" => 255,
                    _ => panic!("class {value}"),
                }
            }
            "+edns" if value.is_empty() => {}
            "+edns" => version = value.parse().unwrap(),
            "+bufsize" => size = value.parse().unwrap(),
            "+do" => edns_flags |= 0x8000,
            "+ednsflags" => edns_flags |= u16::from_str_radix(value, 16).unwrap(),
            "+option" => {
                let (code, content) = value.split_once(':').unwrap_or((value, ""));
                let content = hex(content);
                options.extend(code.parse::<u16>().unwrap().to_be_bytes());
                options.extend((content.len() as u16).to_be_bytes());
                options.extend(content);
            }
            "+udp" => over = vec![Transport::Udp],
            "+tcp" => over = vec![tcp],
            "+header-only" => header_only = true,
            _ => panic!("unknown word {word}"),
        }
    }
    let mut query = vec![0x12, 0x34];
    query.extend(flags.to_be_bytes());
    if header_only {
        query.extend([0; 8]);
        return (query, over);
    }
    query.extend([0, 1, 0, 0, 0, 0, 0, u8::from(has_opt)]);
    query.extend(name.as_slice());
    query.extend(qtype.to_int().to_be_bytes());
    query.extend(class.to_be_bytes());
    if has_opt {
        query.extend([0, 0, 41]);
        query.extend(size.to_be_bytes());
        query.extend([0, version]);
        query.extend(edns_flags.to_be_bytes());
        query.extend((options.len() as u16).to_be_bytes());
        query.extend(options);
    }
    (query, over)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let octet = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

/// A reply in the words of a case.
fn render(reply: &[u8]) -> Vec<String> {
    let message = Message::from_octets(reply).expect("a header");
    let header = message.header();
    assert_eq!(header.id(), 0x1234);
    let mut status = message.opt_rcode().to_string();
    let bits = [
        ("qr", header.qr()),
        ("aa", header.aa()),
        ("tc", header.tc()),
        ("rd", header.rd()),
        ("ra", header.ra()),
        ("z", header.z()),
        ("ad", header.ad()),
        ("cd", header.cd()),
    ];
    for (bit, _) in bits.into_iter().filter(|(_, is_set)| *is_set) {
        write!(status, " {bit}").unwrap();
    }
    if header.opcode().to_int() != 0 {
        write!(status, " opcode={}", header.opcode().to_int()).unwrap();
    }
    if message.header_counts().qdcount() == 0 {
        status += " no-question";
    }
    let mut lines = vec![format!("< {status}")];
    let (_, answer, authority, additional) = message.sections().expect("sections");
    let mut used = 0;
    for (section, records) in [
        ("answer", answer),
        ("authority", authority),
        ("additional", additional),
    ] {
        for record in records.limit_to::<AllRecordData<_, _>>() {
            let record: Record<_, AllRecordData<_, _>> = record.expect("a record");
            used += 1;
            if record.rtype() == Rtype::OPT {
                continue;
            }
            let owner = record.owner().fmt_with_dot();
            let (ttl, rtype, data) = (record.ttl().as_secs(), record.rtype(), record.data());
            lines.push(format!("{section} {owner} {ttl} {rtype} {data}"));
        }
    }
    let counts = message.header_counts();
    let total = counts.ancount() + counts.nscount() + counts.arcount();
    assert_eq!(used, total, "records of unknown format");
    if let Some(opt) = message.opt() {
        assert_eq!(opt.udp_payload_size(), 1232);
        let mut line = format!("edns {}", opt.version());
        if opt.dnssec_ok() {
            line += " do";
        }
        for option in opt.opt().iter::<domain::base::opt::UnknownOptData<_>>() {
            let option = option.expect("an option");
            write!(line, " {}:", option.code().to_int()).unwrap();
            for octet in option.as_slice() {
                write!(line, "{octet:02x}").unwrap();
            }
        }
        lines.push(line);
    }
    lines
}
