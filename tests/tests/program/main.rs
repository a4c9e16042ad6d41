//! The XDP program under `BPF_PROG_TEST_RUN`: packets in, packets out.

mod answers;
mod lab;
mod packet;
