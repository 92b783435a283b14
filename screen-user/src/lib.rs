//! The user half of mxscreen.

pub mod access;
pub mod config;
pub mod screen;
