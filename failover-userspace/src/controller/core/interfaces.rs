//! The interfaces that the program belongs on, and the links that are watched.

use std::time::{Duration, Instant};

use super::{Command, Core, Event, Now, Subject};
use crate::dataplane::AttachedMode;
use crate::probe::LinkEvent;

/// Until an interface that has refused the program is asked again.
const ATTACH_RETRY: Duration = Duration::from_secs(10);

/// An interface the program belongs on.
#[derive(Clone, Debug)]
pub(in crate::controller) struct InterfaceState {
    pub(in crate::controller) name: String,
    /// The netlink table has been read.
    known: bool,
    index: Option<u32>,
    attached: Option<u32>,
    pub(in crate::controller) mode: Option<AttachedMode>,
    /// The operator knows that it is missing.
    missed: bool,
    pub(super) retry: Option<Instant>,
}

impl InterfaceState {
    /// Nothing is known of it.
    pub(super) const fn new(name: String) -> Self {
        Self {
            name,
            known: false,
            index: None,
            attached: None,
            mode: None,
            missed: false,
            retry: None,
        }
    }
}

impl Core {
    /// The program is on an interface.
    pub fn attached(&mut self, interface: &str, index: u32, mode: AttachedMode) {
        if let Some(interface) = self.interface(interface) {
            interface.attached = Some(index);
            interface.mode = Some(mode);
            interface.retry = None;
        }
    }

    /// The program is not on an interface any more: [`Core::settle`] asks for it.
    pub fn lost(&mut self, interface: &str, now: Now) {
        if let Some(interface) = self.interface(interface) {
            interface.attached = None;
            interface.mode = None;
            interface.retry = Some(now.at);
        }
    }

    /// The program is not on an interface: [`Core::settle`] asks again later.
    /// Tells whether that is news.
    pub fn not_attached(&mut self, interface: &str, now: Now) -> bool {
        self.interface(interface).is_some_and(|interface| {
            let retry = interface.retry.replace(now.at + ATTACH_RETRY);
            retry.is_none()
        })
    }

    pub(super) fn on_link(&mut self, event: &LinkEvent, now: Now) {
        self.links.insert(event.interface.clone(), event.clone());
        let mut first = false;
        let wans = self.index.wans.get(&event.interface);
        for wan in wans.cloned().unwrap_or_default() {
            first |= self.carriers[wan.index()].replace(event.carrier).is_none();
            self.refresh(Subject::Wan(wan), now);
        }
        let mut gone = false;
        if let Some(interface) = self.interface(&event.interface) {
            first |= !std::mem::replace(&mut interface.known, true);
            interface.index = event.index;
            // Whatever has changed, it may be what the program was refused for.
            interface.retry = None;
            if interface.attached.is_some() && interface.attached != event.index {
                interface.attached = None;
                interface.mode = None;
                gone = true;
            }
            if event.index.is_some() {
                interface.missed = false;
            }
        }
        if gone {
            self.commands.push(Command::Forget {
                interface: event.interface.clone(),
            });
        }
        if first {
            self.await_one_less();
        }
    }

    pub(super) fn interface(&mut self, name: &str) -> Option<&mut InterfaceState> {
        self.interfaces
            .iter_mut()
            .find(|interface| interface.name == name)
    }

    /// Asks for the program where it is missing.
    pub(super) fn want_attached(&mut self, now: Now) {
        for interface in &mut self.interfaces {
            let name = || interface.name.clone();
            match interface.index {
                Some(index) if interface.attached.is_none() => {
                    if interface.retry.is_none_or(|time| now.at >= time) {
                        let interface = name();
                        self.commands.push(Command::Attach { interface, index });
                    }
                }
                None if !std::mem::replace(&mut interface.missed, true) => {
                    let name = name();
                    self.commands
                        .push(Command::Log(Event::NoInterface { name }));
                }
                Some(_) | None => {}
            }
        }
    }
}
