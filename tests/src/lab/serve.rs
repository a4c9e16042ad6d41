//! The lab's TCP server: answers each connection with a line that names it.
//!
//! HTTP gets one response. Anything else is answered line by line, for as long as the client
//! likes: `nc 192.168.10.10 80`.

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
    if ![&b"GET "[..], b"HEAD "]
        .iter()
        .any(|method| request.starts_with(method))
    {
        return talk(stream, name);
    }
    let body = format!("this is {name}\n");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Says who it is, and again whenever the client says something.
fn talk(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    loop {
        writeln!(stream, "this is {name}")?;
        if stream.read(&mut [0; 2048])? == 0 {
            return Ok(());
        }
    }
}
