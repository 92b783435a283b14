//! The user half of mxscreen.
//!
//! A connection's way through the folders: [`kernel`] decides what it can, [`net`] accepts the rest, [`access`] and [`cache`] say
//! what is known of the client, [`screen`] tests it, [`dns`] answers what `screen` asks, [`forward`] hands it to the mail server,
//! [`gate`] is what all of them have in common, [`share`] what other edge hosts are told, [`journal`] what is kept of it all, and [`operate`] shows all of it to the operator.

pub mod access;
pub mod cache;
pub mod config;
pub mod dns;
pub mod forward;
pub mod gate;
pub mod journal;
pub mod keeper;
pub mod kernel;
pub mod net;
pub mod operate;
pub mod sandbox;
pub mod screen;
pub mod share;
mod unix_time;
