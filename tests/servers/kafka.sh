#!/usr/bin/env bash
# A Kafka broker for the tests: KRaft, one node, without containers.
#
#   kafka.sh install
#   kafka.sh start DATA PORT CONTROLLER_PORT [--sasl PORT] [--tls PORT] [--proxied PORT:ADVERTISED]
#       [--set KEY=VALUE]...
#   kafka.sh wait DATA        until it answers
#   kafka.sh stop DATA
#   kafka.sh tool CLASS [ARGUMENT...]
#
# start stays in the foreground and is the broker: end it with a signal. --sasl adds a listener with users (SASL_PLAINTEXT;
# PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; user `alice`, password `alice-secret`), --tls one with TLS (DATA/tls/cert.pem is
# what a client has to trust), --proxied one more plain one that tells clients to come to the port ADVERTISED, --set one of the broker's own properties. `tool` runs one of Kafka's own console tools, such as org.apache.kafka.tools.TopicCommand.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
VERSION=4.3.1
LIBS="$CACHE/kafka-$VERSION/libs"

fill() { copy_jars "$HERE/kafka/pom.xml"; }

# tool CLASS...: short-lived, so the first compiler is enough. The first run of a tool leaves what the JVM read of its
# classes, and the next ones map that and take half the time. An archive of other jars or another JVM is not used.
tool() {
    [ -d "$LIBS" ] || die "Kafka is not installed: run 'tests/servers/$NAME install'"
    local archive status=0
    local java=(java -Xmx512M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Xlog:disable -Xlog:all=error:stderr
        -Dlog4j2.configurationFile="$HERE/kafka/log4j2.properties" -cp "$LIBS/*")
    archive="${LIBS%/libs}/$1-$(stat -L -c %Y "$(command -v java)").jsa"
    if [ -e "$archive" ]; then
        exec "${java[@]}" -XX:SharedArchiveFile="$archive" "$@"
    elif ! [ -w "${LIBS%/libs}" ]; then
        exec "${java[@]}" "$@"
    fi
    "${java[@]}" -XX:ArchiveClassesAtExit="$archive.$$" "$@" || status=$?
    [ ! -e "$archive.$$" ] || mv -f "$archive.$$" "$archive"
    exit "$status"
}

configure() {
    local data="$1" plain="$2" controller="$3" sasl="$4" tls="$5" proxied="$6"
    shift 6
    local listeners="PLAINTEXT://127.0.0.1:$plain"
    [ -z "$sasl" ] || listeners+=",SASL_PLAINTEXT://127.0.0.1:$sasl"
    [ -z "$tls" ] || listeners+=",SSL://127.0.0.1:$tls"
    local advertised="$listeners"
    if [ -n "$proxied" ]; then
        listeners+=",PROXIED://127.0.0.1:${proxied%:*}"
        advertised+=",PROXIED://127.0.0.1:${proxied#*:}"
    fi
    cat <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=$listeners,CONTROLLER://127.0.0.1:$controller
advertised.listeners=$advertised
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,PROXIED:PLAINTEXT
log.dirs=$data/data
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=500
# A topic that is missing has to be missed.
auto.create.topics.enable=false
log.retention.hours=-1
END
    if [ -n "$sasl" ]; then
        cat <<'END'
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="alice-secret";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
END
    fi
    if [ -n "$tls" ]; then
        cat <<END
ssl.keystore.type=PEM
ssl.keystore.location=$data/tls/both.pem
ssl.truststore.type=PEM
ssl.truststore.location=$data/tls/cert.pem
END
    fi
    # Of two lines with one key the last holds.
    [ $# = 0 ] || printf '%s\n' "$@"
}

start() {
    [ $# -ge 3 ] || usage
    local data plain="$2" controller="$3" sasl='' tls='' proxied='' set=()
    data="$(realpath -m "$1")"
    shift 3
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || usage
        case "$1" in
            --sasl) sasl="$2" ;;
            --tls) tls="$2" ;;
            --proxied) proxied="$2" ;;
            --set) set+=("$2") ;;
            *) usage ;;
        esac
        shift 2
    done
    [ -d "$LIBS" ] || die "Kafka is not installed: run 'tests/servers/$NAME install'"
    need_java
    prepare "$data" plain="$plain" controller="$controller" ${sasl:+sasl="$sasl"} ${tls:+tls="$tls"} ${proxied:+proxied="${proxied%:*}"}
    [ -z "$tls" ] || certificate "$data"
    configure "$data" "$plain" "$controller" "$sasl" "$tls" "$proxied" "${set[@]}" >"$data/server.properties"
    if ! [ -e "$data/data/meta.properties" ]; then
        local scram=()
        if [ -n "$sasl" ]; then
            for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
                scram+=(--add-scram "$mechanism=[name=alice,password=alice-secret]")
            done
        fi
        (tool kafka.tools.StorageTool format --cluster-id YWNlcXVpYS10ZXN0cy0xMQ \
            --config "$data/server.properties" "${scram[@]}") >"$data/log" 2>&1 ||
            { cat "$data/log" >&2; die "the broker's folder can't be formatted"; }
    fi
    become "$data" java -Xms256M -Xmx512M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
        -Dlog4j2.configurationFile="$HERE/kafka/log4j2.properties" -cp "$LIBS/*" kafka.Kafka "$data/server.properties"
}

case "${1:-}" in
    install) install_into "kafka-$VERSION" fill ;;
    start) shift; start "$@" ;;
    wait) [ $# = 2 ] || usage; wait_until "$2" 90 listens "$2" ;;
    stop) [ $# = 2 ] || usage; stop "$2" ;;
    tool) shift; [ $# -ge 1 ] || usage; tool "$@" ;;
    *) usage ;;
esac
