//! The binary as an operator meets it: what it refuses and how, what it issues, how a cluster comes and goes.

mod chaos;
mod damage;
mod lifecycle;
mod pki;
mod program;
mod proxy;
mod refusals;
