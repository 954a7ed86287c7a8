//! Acequia: a Kafka Connect-style plugin host.

pub mod cli;
pub mod config;
pub mod connectors;
