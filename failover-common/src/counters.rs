//! Per-CPU counters of the XDP program.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident, $field:ident;)*) => {
        /// What became of a packet: the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[$doc])* $variant,)*
        }

        /// The counters of one CPU, in packets.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Counter {
            /// All counters, in the order of the fields of [`Counters`].
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name of the counter's field.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field)),* }
            }
        }

        impl Counters {
            /// The value of one counter.
            #[must_use]
            pub const fn get(&self, counter: Counter) -> u64 {
                match counter { $(Counter::$variant => self.$field),* }
            }

            /// Adds the counters of another CPU.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }
        }
    };
}

counters! {
    /// Answered with addresses.
    Answered, answered;
    /// Answered NOERROR without addresses (NODATA, RFC 2308 section 2.2).
    AnsweredNodata, answered_nodata;
    /// Answered that a name does not exist (NXDOMAIN, RFC 2308 section 2.1).
    AnsweredNxdomain, answered_nxdomain;
    /// Answered with records of a zone file.
    AnsweredStatic, answered_static;
    /// Answered SERVFAIL, as `on_all_down = "servfail"` asks.
    AnsweredServfail, answered_servfail;
    /// Passed: not IP, not UDP, or not to our port.
    PassedOther, passed_other;
    /// Passed: to our port, but not to one of our addresses.
    PassedNotOurs, passed_not_ours;
    /// Passed: Ethernet multicast or broadcast.
    PassedMulticast, passed_multicast;
    /// Passed: more than two VLAN tags.
    PassedVlan, passed_vlan;
    /// Passed: IPv4 with options.
    PassedIpOptions, passed_ip_options;
    /// Passed: a fragment.
    PassedFragment, passed_fragment;
    /// Passed: lengths of frame, IP, UDP disagree, or too short to be a query.
    PassedLength, passed_length;
    /// Passed: wrong IPv4 header checksum, or no UDP checksum over IPv6.
    PassedChecksum, passed_checksum;
    /// Passed: a source nobody may send from, or source port 0.
    PassedSource, passed_source;
    /// Passed: not a standard query with one question and at most one additional record.
    PassedHeader, passed_header;
    /// Passed: no question name, or an over-long one.
    PassedQuestion, passed_question;
    /// Passed: class other than IN.
    PassedClass, passed_class;
    /// Passed: malformed OPT record, other additional record, or bytes after it.
    PassedOpt, passed_opt;
    /// Passed: EDNS version other than 0.
    PassedEdnsVersion, passed_edns_version;
    /// Passed: an EDNS option that user space answers.
    PassedEdnsOption, passed_edns_option;
    /// Passed: a name that user space answers: outside our zones, below a delegation, made from
    /// a wildcard; compressed and malformed names, too.
    PassedName, passed_name;
    /// Passed: a type that user space answers for this name.
    PassedType, passed_type;
    /// Passed: the answer is larger than the client takes.
    PassedTooLarge, passed_too_large;
    /// Passed: nothing published yet, or the controller's heartbeat is too old.
    PassedStale, passed_stale;
    /// Passed: the driver gave no room for the answer.
    PassedNoRoom, passed_no_room;
    /// Passed: several publications overtook the look-up.
    PassedOvertaken, passed_overtaken;
}

/// Answers given per service, the clock of its rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceHits {
    /// Queries for A answered.
    pub a: u64,
    /// Queries for AAAA answered.
    pub aaaa: u64,
}

impl ServiceHits {
    /// Adds those of another CPU.
    pub const fn add(&mut self, other: &Self) {
        self.a = self.a.wrapping_add(other.a);
        self.aaaa = self.aaaa.wrapping_add(other.aaaa);
    }
}

impl Counters {
    /// Queries answered, of whatever kind.
    #[must_use]
    pub const fn total_answered(&self) -> u64 {
        self.answered
            + self.answered_nodata
            + self.answered_nxdomain
            + self.answered_static
            + self.answered_servfail
    }

    /// Packets passed, for whatever reason.
    #[must_use]
    pub fn total_passed(&self) -> u64 {
        Counter::ALL.iter().map(|c| self.get(*c)).sum::<u64>() - self.total_answered()
    }
}

#[cfg(feature = "user")]
mod user {
    use super::{Counters, ServiceHits};

    // SAFETY: `repr(C)`, `u64` fields only: no padding, every bit pattern is valid.
    unsafe impl bytemuck::Zeroable for Counters {}
    // SAFETY: as above.
    unsafe impl bytemuck::Pod for Counters {}
    // SAFETY: as above.
    unsafe impl bytemuck::Zeroable for ServiceHits {}
    // SAFETY: as above.
    unsafe impl bytemuck::Pod for ServiceHits {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_index_their_fields() {
        assert_eq!(Counter::ALL.len() * 8, size_of::<Counters>());
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }

    #[test]
    fn totals_cover_every_counter() {
        let counters = Counters {
            answered: 1,
            answered_nodata: 2,
            passed_other: 4,
            passed_overtaken: 8,
            ..Counters::default()
        };
        assert_eq!(
            (counters.total_answered(), counters.total_passed()),
            (3, 12)
        );
    }
}
