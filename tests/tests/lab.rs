//! The lab itself: what it promises to the tests that use it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use std::{fs, iter};

use anyhow::Result;
use failover_tests::lab::{Host, Lab, LinkState, Purpose, Server, Wan, clean_stale};
use failover_tests::privileged;

/// Connecting from a host of the lab.
fn connect(lab: &Lab, from: Host, to: &str) -> Result<Result<(), ErrorKind>> {
    let to: SocketAddr = to.parse()?;
    lab.netns(from).enter(|| {
        let connected = TcpStream::connect_timeout(&to, Duration::from_millis(500));
        Ok(connected.map(drop).map_err(|error| error.kind()))
    })
}

/// Whether an address that nothing listens on refuses connections, which proves the way there
/// and back. The kernel may take note of a link's carrier, and turn to other routes, a second
/// after the link was changed: asks until it is refused, within bounds.
fn refuses(lab: &Lab, from: Host, to: &str) -> Result<bool> {
    for _ in 0..20 {
        if connect(lab, from, to)? == Err(ErrorKind::ConnectionRefused) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn start() -> Result<Lab> {
    let serve = vec![OsString::from(env!("CARGO_BIN_EXE_lab-serve"))];
    Lab::start(Purpose::Test, serve, &[])
}

#[test]
fn servers_answer_refuse_and_vanish() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = start()?;
    for to in [
        "192.168.10.10:80",
        "192.168.10.11:80",
        "192.0.2.200:80",
        "192.0.2.53:53",
        "192.0.2.54:53",
        "[2001:db8:10::10]:80",
        "[2001:db8:10::11]:80",
        "[2001:db8:200::200]:80",
    ] {
        assert_eq!(connect(&lab, Host::Ns, to)?, Ok(()), "{to}");
    }

    lab.kill(Server::WebA)?;
    assert_eq!(
        connect(&lab, Host::Ns, "192.168.10.10:80")?,
        Err(ErrorKind::ConnectionRefused)
    );
    assert_eq!(connect(&lab, Host::Ns, "192.168.10.11:80")?, Ok(()));
    lab.revive(Server::WebA)?;
    assert_eq!(connect(&lab, Host::Ns, "192.168.10.10:80")?, Ok(()));

    lab.black_hole(Server::WebA)?;
    assert_eq!(
        connect(&lab, Host::Ns, "192.168.10.10:80")?,
        Err(ErrorKind::TimedOut)
    );
    lab.revive(Server::WebA)?;
    assert_eq!(connect(&lab, Host::Ns, "192.168.10.10:80")?, Ok(()));
    Ok(())
}

/// With both WAN links down the name server and the offsite server are still reached, by the
/// third way.
#[test]
fn the_third_way() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = start()?;
    let ways = [
        "198.51.100.130:9",
        "203.0.113.66:9",
        "[2001:db8:1::130]:9",
        "[2001:db8:2::66]:9",
    ];
    let all_refuse = |when: &str| -> Result<()> {
        for way in ways {
            assert!(refuses(&lab, Host::Client, way)?, "{way} {when}");
        }
        Ok(())
    };
    all_refuse("with all links up")?;
    for wan in [Wan::Wan1, Wan::Wan2] {
        lab.set_link(wan, LinkState::Down)?;
    }
    all_refuse("by the third way")?;
    assert_eq!(connect(&lab, Host::Ns, "192.0.2.200:80")?, Ok(()));
    assert_eq!(connect(&lab, Host::Ns, "[2001:db8:200::200]:80")?, Ok(()));
    for wan in [Wan::Wan1, Wan::Wan2] {
        lab.set_link(wan, LinkState::Up)?;
    }
    all_refuse("with the links back")?;

    lab.set_link(Wan::Wan1, LinkState::BlackHole)?;
    assert_eq!(
        connect(&lab, Host::Client, ways[0])?,
        Err(ErrorKind::TimedOut)
    );
    assert!(refuses(&lab, Host::Client, ways[1])?);
    Ok(())
}

#[test]
fn nothing_is_left_behind() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = start()?;
    let (dir, netns) = (
        lab.dir().to_owned(),
        Host::ALL.map(|host| lab.netns(host).path()),
    );
    assert!(dir.exists() && netns.iter().all(|path| path.exists()));
    drop(lab);
    assert!(!dir.exists() && netns.iter().all(|path| !path.exists()));
    Ok(())
}

/// What a killed process left behind is found by all tests that start next.
#[test]
fn many_clean_up_at_once() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    const CLEANERS: usize = 8;
    let lab = start()?;
    let record = lab.dir().join("lab.json");
    let mut orphan: serde_json::Value = serde_json::from_slice(&fs::read(&record)?)?;
    // No process of today started with the kernel.
    orphan["started"] = 0.into();
    fs::write(&record, orphan.to_string())?;

    let barrier = Barrier::new(CLEANERS);
    let clean = || {
        barrier.wait();
        let cleaned = clean_stale();
        // Whoever cleaned it up: it is gone for all of them.
        assert!(!lab.dir().exists());
        cleaned
    };
    let cleaned: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = iter::repeat_with(|| scope.spawn(clean))
            .take(CLEANERS)
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut times = 0;
    for cleaned in cleaned {
        let ids = cleaned.expect("cleaning up does not panic")?;
        times += ids.iter().filter(|id| *id == lab.id()).count();
    }
    // Or once by another test that starts meanwhile.
    assert!(times <= 1, "cleaned up {times} times");
    for host in Host::ALL {
        assert!(!lab.netns(host).path().exists(), "{host}");
    }
    Ok(())
}
