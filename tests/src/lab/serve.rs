//! The lab's TCP server: answers each connection with a line that names it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Serves HTTP on `address` until the process is killed.
///
/// # Errors
///
/// When the address cannot be listened on.
pub fn serve(address: SocketAddr, name: &str) -> Result<()> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    for stream in listener.incoming().flatten() {
        let name = name.to_owned();
        // A prober that resets its connection is no error of ours.
        thread::spawn(move || answer(stream, &name).ok());
    }
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = [0; 2048];
    if stream.read(&mut request)? == 0 {
        return Ok(());
    }
    let body = format!("this is {name}\n");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}
