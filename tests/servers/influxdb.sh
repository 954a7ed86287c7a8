#!/usr/bin/env bash
# An InfluxDB 2 server for the tests, without containers and without its web page.
#
#   influxdb.sh install
#   influxdb.sh start DATA PORT [--tls]
#   influxdb.sh wait DATA     until it answers and is set up
#   influxdb.sh stop DATA
#
# start stays in the foreground and is the server: end it with a signal. `wait` sets it up: user `admin` with password
# `admin-password`, ORG=my-org, BUCKET=streaming, TOKEN=my-token (the environment says otherwise). --tls takes nothing but
# TLS (DATA/tls/cert.pem is what a client has to trust).
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
VERSION=2.8.0
INFLUXD="$CACHE/influxd-$VERSION/influxd"
ORG="${ORG:-my-org}"
BUCKET="${BUCKET:-streaming}"
TOKEN="${TOKEN:-my-token}"

# No release of it is in a registry, so it is built: a Go tool of the module in influxdb/, whose go.sum pins all of it.
fill() {
    need_go 1.24 InfluxDB
    need cc gcc libc6-dev
    command -v cargo >/dev/null || die "the command cargo is missing: see https://rustup.rs"
    export GOFLAGS=-buildvcs=false GOWORK=off CGO_ENABLED=1
    local out="$PWD" work="$PWD/work" module="$HERE/influxdb" flux
    say "building InfluxDB: about 12 minutes of processor time"
    # Its parser is written in Rust; the sources are in the Go module flux.
    flux="$(cd "$module" && go mod download -json github.com/influxdata/flux | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')"
    [ -n "$flux" ] || die "the Go module flux can't be fetched"
    # Without the feature `strict`, which takes the warnings of newer compilers for errors; and not from its own folder,
    # where a toolchain file would make rustup fetch an old compiler.
    env -u CARGO_BUILD_TARGET RUSTFLAGS=--cap-lints=allow CARGO_PROFILE_RELEASE_LTO=off cargo rustc --quiet --locked --release --lib \
        --crate-type staticlib --manifest-path "$flux/libflux/flux/Cargo.toml" --no-default-features --features cffi \
        --target-dir "$work/libflux" >&2
    cat >"$work/pkg-config" <<END
#!/bin/sh
case "\$*" in
    *--cflags*) echo "-I$flux/libflux/include" ;;
    *--libs*) echo "-L$work/libflux/release -lflux -ldl -lm -lpthread" ;;
esac
END
    chmod +x "$work/pkg-config"
    # -extldflags: Go remembers what pkg-config said in an earlier build, and would look for the parser there.
    (cd "$module" && PKG_CONFIG="$work/pkg-config" go build -mod=readonly -trimpath \
        -tags sqlite_foreign_keys,sqlite_json -ldflags "-s -w -extldflags '-L$work/libflux/release'" \
        -o "$out/influxd" github.com/influxdata/influxdb/v2/cmd/influxd >&2)
    "$out/influxd" version >&2
    rm -rf "$work"
}

start() {
    [ $# -ge 2 ] || usage
    local data port="$2" tls=()
    data="$(realpath -m "$1")"
    [ -x "$INFLUXD" ] || die "InfluxDB is not installed: run 'tests/servers/$NAME install'"
    prepare "$data" plain="$port"
    rm -f "$data/secure"
    case "${3:-}" in
        '') ;;
        --tls)
            certificate "$data"
            touch "$data/secure"
            tls=(--tls-cert "$data/tls/cert.pem" --tls-key "$data/tls/key.pem")
            ;;
        *) usage ;;
    esac
    become "$data" "$INFLUXD" --http-bind-address "127.0.0.1:$port" --bolt-path "$data/influxd.bolt" \
        --sqlite-path "$data/influxd.sqlite" --engine-path "$data/engine" --reporting-disabled --log-level warn \
        "${tls[@]}"
}

# ask DATA PATH CURL_ARGUMENT...
ask() {
    local data="$1" path="$2" scheme=http trust=()
    shift 2
    if [ -e "$data/secure" ]; then
        scheme=https
        trust=(--cacert "$data/tls/cert.pem")
    fi
    curl -fsS --noproxy '*' --max-time 20 "${trust[@]}" "$@" "$scheme://127.0.0.1:$(port "$data" plain)$path"
}

healthy() { ask "$1" /health | grep -q '"status": *"pass"'; }

wait_ready() {
    need curl curl
    wait_until "$1" 90 healthy "$1"
    if ask "$1" /api/v2/setup | grep -q '"allowed": *true'; then
        ask "$1" /api/v2/setup -H 'Content-Type: application/json' -o /dev/null -d "{
            \"username\": \"admin\", \"password\": \"admin-password\",
            \"org\": \"$ORG\", \"bucket\": \"$BUCKET\", \"token\": \"$TOKEN\"}" || die "the server refused its set-up"
    fi
}

case "${1:-}" in
    install) install_into "influxd-$VERSION" fill ;;
    start) shift; start "$@" ;;
    wait) [ $# = 2 ] || usage; wait_ready "$2" ;;
    stop) [ $# = 2 ] || usage; stop "$2" ;;
    *) usage ;;
esac
