//! The connectors of this build. A new one is a crate, a Cargo feature and a line here.

use acequia_connector_api::Registry;

/// Every connector that this build has.
pub fn registry() -> Registry {
    #[allow(unused_mut, reason = "a build without any connector is legal")]
    let mut registry = Registry::default();
    #[cfg(feature = "blackhole")]
    registry.sink::<acequia_connector_blackhole::BlackholeConfig>();
    #[cfg(feature = "cassandra")]
    registry
        .source::<acequia_connector_cassandra::CassandraSource>()
        .sink::<acequia_connector_cassandra::CassandraSink>();
    #[cfg(feature = "console")]
    registry.sink::<acequia_connector_console::ConsoleConfig>();
    #[cfg(feature = "file")]
    registry.source::<acequia_connector_file::FileSource>().sink::<acequia_connector_file::FileSink>();
    #[cfg(feature = "influxdb")]
    registry.source::<acequia_connector_influxdb::InfluxSource>().sink::<acequia_connector_influxdb::InfluxSink>();
    #[cfg(feature = "kafka")]
    registry.source::<acequia_connector_kafka::KafkaSource>().sink::<acequia_connector_kafka::KafkaSink>();
    #[cfg(feature = "rate")]
    registry.source::<acequia_connector_rate::RateConfig>();
    #[cfg(feature = "socket")]
    registry.source::<acequia_connector_socket::SocketConfig>();
    registry
}
