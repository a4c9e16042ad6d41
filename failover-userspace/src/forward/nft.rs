//! The program `nft`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::Error;

/// Where programs of administrators are, which `PATH` may lack.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// What it gets for one transaction: ten thousand services take a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// Characters of its complaint that are shown.
const SHOWN: usize = 300;

/// The program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nft(PathBuf);

impl Nft {
    /// From `PATH` or the sbin directories.
    pub(super) fn find() -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(SBIN.iter().map(PathBuf::from));
        Self::find_in(directories)
    }

    fn find_in(directories: impl IntoIterator<Item = PathBuf>) -> Result<Self, Error> {
        let program = |directory: PathBuf| directory.join("nft");
        let mut programs = directories.into_iter().map(program);
        // Started in "/": a name relative to our directory would be another.
        let is_program = |file: &PathBuf| file.is_absolute() && is_executable(file);
        programs.find(is_program).map(Self).ok_or(Error::NoProgram)
    }

    /// Executes the commands of a script in one transaction: all of them or none.
    ///
    /// It inherits nothing of us but rights; those are the calling thread's.
    pub(super) async fn run(&self, script: &str) -> Result<(), Error> {
        let mut child = Command::new(&self.0)
            .args(["-f", "-"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::Start)?;
        let stdin = child.stdin.take();
        let work = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    stdin.write_all(script.as_bytes()).await?;
                    stdin.shutdown().await?;
                }
                io::Result::Ok(())
            };
            // It may complain before it has read all; what it says then is what counts.
            let (written, output) = tokio::join!(write, child.wait_with_output());
            let output = output.map_err(Error::Start)?;
            if !output.status.success() {
                return Err(Error::Refused(shown(&output.stderr, output.status)));
            }
            written.map_err(Error::Start)
        };
        timeout(PATIENCE, work)
            .await
            .unwrap_or(Err(Error::TooSlow(PATIENCE)))
    }
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The first line of what it wrote, which says what is wrong; below it quotes the script.
fn shown(stderr: &[u8], status: std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.map_or_else(
        || status.to_string(),
        |line| line.trim().chars().take(SHOWN).collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_is_found_or_missed() {
        let dir = tempfile::tempdir().unwrap();
        let error = Nft::find_in([dir.path().to_owned(), "relative".into()]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("package nftables"), "{error}");
        let file = dir.path().join("nft");
        fs::write(&file, "no program").unwrap();
        assert!(Nft::find_in([dir.path().to_owned()]).is_err());
        fs::remove_file(&file).unwrap();
        symlink("/bin/sh", &file).unwrap();
        assert_eq!(Nft::find_in([dir.path().to_owned()]).unwrap(), Nft(file));
    }

    /// The shell takes the arguments of nft, and reads commands, too.
    #[tokio::test]
    async fn what_it_says_is_said() {
        let shell = Nft("/bin/sh".into());
        let long = ": one of many\n".repeat(100_000);
        for (script, want) in [
            ("", None),
            (&long, None),
            ("test $(pwd) = / && test -z \"$HOME\"", None),
            (
                "printf '\\n/dev/stdin:1:1-3: Error: no\\nadd\\n^^^\\n' >&2; exit 1",
                Some("/dev/stdin:1:1-3: Error: no"),
            ),
            // Before it has read all.
            (
                &format!("echo 'Error: at once' >&2; exit 1\n{long}"),
                Some("Error: at once"),
            ),
            ("exit 3", Some("exit status: 3")),
        ] {
            let what = &script[..script.len().min(60)];
            match (shell.run(script).await, want) {
                (Ok(()), None) => {}
                (Err(Error::Refused(why)), Some(want)) => assert_eq!(why, want, "{what}"),
                (done, _) => panic!("{what}: {done:?}"),
            }
        }
        let missing = Nft("/nonexistent/nft".into()).run("").await;
        assert!(matches!(missing, Err(Error::Start(_))), "{missing:?}");
    }
}
