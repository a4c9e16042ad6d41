//! What is answered, octet by octet.

use crate::lab::{Lab, privileged};
use crate::packet::{Dns, Frame, check_reply};

const A: u16 = 1;

#[test]
fn the_reference_case() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::usual();
    for query in [
        Dns::new("www.example.com", A),
        Dns::plain("www.example.com", A),
    ] {
        let frame = Frame::v4(query.bytes());
        let reply = lab.answer(&frame.bytes());
        let reply = check_reply(&frame, &reply);
        println!("{reply:?}");
    }
}
