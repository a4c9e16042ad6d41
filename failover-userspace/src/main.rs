//! The `failover` command.

fn main() -> std::process::ExitCode {
    failover::cli::main()
}
