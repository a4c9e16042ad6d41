//! `lab-serve ADDRESS:PORT NAME`: the lab's TCP server, for tests.

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, name] = args.as_slice() else {
        bail!("usage: lab-serve ADDRESS:PORT NAME");
    };
    let address = address
        .parse()
        .with_context(|| format!("{address:?} is no socket address"))?;
    failover_tests::lab::serve(address, name)
}
