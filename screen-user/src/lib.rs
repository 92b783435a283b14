//! The user half of mxscreen.

pub mod access;
pub mod cache;
pub mod config;
pub mod dns;
pub mod kernel;
pub mod screen;
