#!/usr/bin/env bash
# Kafka, Cassandra and InfluxDB on their well known ports, for trying things by hand.
#
#   services.sh install     all three, as the tests need them, and what moves a clock
#   services.sh up DIR      start them in the background; their data is in DIR
#   services.sh down DIR    stop exactly those; their data stays
#
# KAFKA_PORT, KAFKA_CONTROLLER_PORT, CASSANDRA_PORT, CASSANDRA_STORAGE_PORT and INFLUXDB_PORT are used in place of 9092,
# 9093, 9042, 7000 and 8086.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
KAFKA_PORT="${KAFKA_PORT:-9092}"
KAFKA_CONTROLLER_PORT="${KAFKA_CONTROLLER_PORT:-9093}"
CASSANDRA_PORT="${CASSANDRA_PORT:-9042}"
CASSANDRA_STORAGE_PORT="${CASSANDRA_STORAGE_PORT:-7000}"
INFLUXDB_PORT="${INFLUXDB_PORT:-8086}"
ALL=(kafka cassandra influxdb)

# launch DIR NAME ARGUMENT...: in a session of its own, so that Ctrl-C in this terminal is not for it.
launch() {
    local folder="$1/$2" script="$HERE/$2.sh"
    shift 2
    STARTED+=("$folder")
    # No pid of an earlier life, or waiting would give up at once.
    rm -f "$folder/pid"
    setsid "$script" start "$folder" "$@" </dev/null >/dev/null &
}

# What was started is stopped again if not all of them come up.
undo() {
    for folder in "${STARTED[@]}"; do
        [ ! -d "$folder" ] || stop "$folder"
    done
}

up() {
    local dir="$1" name
    for name in "${ALL[@]}"; do
        ! running "$dir/$name" >/dev/null || die "$name runs already, in $dir/$name: 'make services-down' stops it"
    done
    refuse_taken "$KAFKA_PORT" "$KAFKA_CONTROLLER_PORT" "$CASSANDRA_PORT" "$CASSANDRA_STORAGE_PORT" "$INFLUXDB_PORT"
    install_all
    mkdir -p "$dir"
    STARTED=()
    trap undo EXIT
    launch "$dir" kafka "$KAFKA_PORT" "$KAFKA_CONTROLLER_PORT" --set auto.create.topics.enable=true
    launch "$dir" cassandra "$CASSANDRA_PORT" "$CASSANDRA_STORAGE_PORT"
    launch "$dir" influxdb "$INFLUXDB_PORT"
    for name in "${ALL[@]}"; do
        wait_until "$dir/$name" 60 test -e "$dir/$name/pid"
        "$HERE/$name.sh" wait "$dir/$name"
    done
    trap - EXIT
    cat <<END
Kafka      127.0.0.1:$KAFKA_PORT
Cassandra  127.0.0.1:$CASSANDRA_PORT
InfluxDB   http://127.0.0.1:$INFLUXDB_PORT  org my-org, bucket streaming, token my-token
data       $dir
END
}

down() {
    local dir="$1" name
    for name in "${ALL[@]}"; do
        if running "$dir/$name" >/dev/null; then
            stop "$dir/$name"
            echo "$name is stopped"
        fi
    done
}

install_all() {
    for name in "${ALL[@]}"; do
        "$HERE/$name.sh" install
    done
    # What the campaign of faults moves the daemon's clock with.
    need faketime faketime
}

case "${1:-}" in
    install) install_all ;;
    up) [ $# = 2 ] || usage; up "$(realpath -m "$2")" ;;
    down) [ $# = 2 ] || usage; down "$(realpath -m "$2")" ;;
    *) usage ;;
esac
