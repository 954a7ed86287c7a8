//! Acequia: a Kafka Connect-style plugin host.

pub mod config;
pub mod connectors;
