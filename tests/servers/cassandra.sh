#!/usr/bin/env bash
# A Cassandra node for the tests, without containers, and the Python driver to ask it with.
#
#   cassandra.sh install
#   cassandra.sh start DATA PORT STORAGE_PORT [--users] [--tls] [--durable]
#   cassandra.sh wait DATA    until it answers
#   cassandra.sh stop DATA
#   cassandra.sh cql ...      runs cql.py, which says how
#
# start stays in the foreground and is the node: end it with a signal. --users asks for a password (user and password are
# `cassandra`), --durable confirms a row only when it is in the commit log on disk, so that `kill -9` loses none, --tls takes nothing but TLS (DATA/tls/cert.pem is what a client has to trust).
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
VERSION=5.0.4
LIBS="$CACHE/cassandra-$VERSION/libs"
DRIVER="$(sed -n 's/^cassandra-driver==//p' "$HERE/cassandra/requirements.txt")"
PYTHON="$CACHE/cassandra-driver-$DRIVER/bin/python"

fill() { copy_jars "$HERE/cassandra/pom.xml"; }

configure() {
    local data="$1" port="$2" storage="$3" users="$4" tls="$5" durable="$6"
    cat <<END
cluster_name: acequia
num_tokens: 16
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "127.0.0.1:$storage"
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: $storage
native_transport_port: $port
start_native_transport: true
auto_snapshot: false
# Counting a million rows takes its time.
range_request_timeout: 300s
read_request_timeout: 300s
END
    if [ -n "$durable" ]; then
        printf '%s\n' 'commitlog_sync: group' 'commitlog_sync_group_window: 2ms'
    else
        printf '%s\n' 'commitlog_sync: periodic' 'commitlog_sync_period: 10000ms'
    fi
    [ -z "$users" ] || cat <<'END'
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
END
    [ -z "$tls" ] || cat <<END
client_encryption_options:
  enabled: true
  optional: false
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
  keystore: $data/tls/both.pem
END
}

start() {
    [ $# -ge 3 ] || usage
    local data port="$2" storage="$3" users='' tls='' durable=''
    data="$(realpath -m "$1")"
    shift 3
    for option in "$@"; do
        case "$option" in
            --users) users=1 ;;
            --tls) tls=1 ;;
            --durable) durable=1 ;;
            *) usage ;;
        esac
    done
    [ -d "$LIBS" ] || die "Cassandra is not installed: run 'tests/servers/$NAME install'"
    need_java
    prepare "$data" plain="$port" storage="$storage"
    rm -f "$data/users"
    [ -z "$users" ] || touch "$data/users"
    [ -z "$tls" ] || certificate "$data"
    configure "$data" "$port" "$storage" "$users" "$tls" "$durable" >"$data/cassandra.yaml"
    local java=(java) package
    # As root it would lock all of its heap in memory.
    if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
        ulimit -l 64
        java=(setpriv --inh-caps -ipc_lock --bounding-set -ipc_lock java)
    fi
    local flags=()
    for package in sun.nio.ch java.io java.nio jdk.internal.ref java.lang java.util java.util.concurrent \
        java.util.concurrent.atomic; do
        flags+=(--add-opens "java.base/$package=ALL-UNNAMED")
    done
    for package in java.base/jdk.internal.misc java.rmi/sun.rmi.registry \
        java.management.rmi/com.sun.jmx.remote.internal.rmi; do
        flags+=(--add-exports "$package=ALL-UNNAMED")
    done
    # No JMX: it would want a port of its own. The role's delay is for clusters that meet for the first time.
    become "$data" "${java[@]}" -Xms256M -Xmx1G -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto "${flags[@]}" \
        -Dcassandra.config="file://$data/cassandra.yaml" -Dcassandra.storagedir="$data/data" \
        -Dlogback.configurationFile="$HERE/cassandra/logback.xml" -Dcassandra.ring_delay_ms=0 \
        -Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.superuser_setup_delay_ms=0 \
        -Dcassandra.memtable.row_overhead_size=180 -Dcassandra-foreground=yes -cp "$LIBS/*" org.apache.cassandra.service.CassandraDaemon
}

# It opens its port last of all, but makes the first user only then.
ready() {
    listens "$1" || return 1
    [ -e "$1/users" ] || return 0
    [ -e "$1/users.made" ] || { grep -q "Created default superuser" "$1/log" && touch "$1/users.made"; }
}

case "${1:-}" in
    install)
        install_into "cassandra-$VERSION" fill
        make_venv "cassandra-driver-$DRIVER" "$HERE/cassandra/requirements.txt"
        ;;
    start) shift; start "$@" ;;
    wait) [ $# = 2 ] || usage; wait_until "$2" 300 ready "$2" ;;
    stop) [ $# = 2 ] || usage; stop "$2" ;;
    cql)
        shift
        [ -x "$PYTHON" ] || die "the driver is not installed: run 'tests/servers/$NAME install'"
        exec "$PYTHON" "$HERE/cql.py" "$@"
        ;;
    *) usage ;;
esac
