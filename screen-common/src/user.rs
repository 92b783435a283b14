//! What aya needs to know to hand the map types across the system call.
#![allow(unsafe_code, reason = "a promise about memory layout, which the assertions in `abi` back")]

use crate::{
    abi::{
        Client, Correction, Deny, HalfOpen, Hung, Proxy, Refused, RelayClient, RelayKey, ServerKey, Settings, SynKey,
        Total, TotalKey, Until,
    },
    address::IpKey,
    cookie::Keys,
    reply::Text,
};

macro_rules! plain {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)`, `Copy`, without padding or pointers.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

plain!(
    ServerKey,
    Keys,
    Text,
    Client,
    Correction,
    Deny,
    HalfOpen,
    Hung,
    IpKey,
    Proxy,
    Refused,
    RelayClient,
    RelayKey,
    Settings,
    SynKey,
    Total,
    TotalKey,
    Until
);
