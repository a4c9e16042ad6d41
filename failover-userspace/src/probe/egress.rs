//! How the packets of a probe leave this host.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::Socket;

use super::Failure;
use crate::model::Egress;

impl Egress {
    /// Ties `socket`, which is going to talk to `target`, to the interface and the source address.
    ///
    /// A source address of the other family than the target's is left out: the interface
    /// alone decides then.
    pub(super) fn apply(&self, socket: &Socket, target: IpAddr) -> Result<(), Failure> {
        if let Some(interface) = &self.interface {
            bind_device(socket, interface)
                .map_err(|error| Failure::local(format_args!("interface {interface}"), &error))?;
        }
        match self.source {
            Some(source) if source.is_ipv4() == target.is_ipv4() => socket
                .bind(&SocketAddr::new(source, 0).into())
                .map_err(|error| Failure::local(format_args!("source {source}"), &error)),
            _ => Ok(()),
        }
    }
}

/// Needs no capability for a socket that is not bound yet (since Linux 5.7).
fn bind_device(socket: &Socket, interface: &str) -> io::Result<()> {
    socket.bind_device(Some(interface.as_bytes()))
}
