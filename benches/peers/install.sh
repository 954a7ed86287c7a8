#!/usr/bin/env bash
# What `make bench-peers` compares with: Kafka Connect, Spark, Bento, polars and jq, in the cache of the test servers.
#
#   install.sh install
#   install.sh paths          where they are, as NAME=PATH lines, for acequia-bench
#
# The versions are pinned by tests/servers/kafka.sh (Kafka Connect is of the broker's version) and by the files in
# bento/, spark/ and polars/. jq is the system's; on Debian it is installed where root runs this.
PEERS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
SERVERS="$(cd "$PEERS/../../tests/servers" && pwd)"
# shellcheck source-path=SCRIPTDIR source=../../tests/servers/lib.sh
. "$SERVERS/lib.sh"

# shellcheck disable=SC2153 # NAME is lib.sh's
say() { echo "benches/peers/$NAME: $*" >&2; }

# pinned FILE PATTERN: the version in it.
pinned() {
    local version
    version="$(sed -n "s|^$2||p" "$PEERS/$1" | head -n1)"
    [ -n "$version" ] || die "$1 pins no version of what it is for"
    echo "$version"
}

BENTO="bento-$(pinned bento/go.mod 'require github.com/warpstreamlabs/bento v')"
SPARK="pyspark-$(pinned spark/requirements.txt pyspark==)"
POLARS="polars-$(pinned polars/requirements.txt polars==)"
KAFKA="kafka-$(sed -n 's/^VERSION=//p' "$SERVERS/kafka.sh")"

# Its releases are in no registry, but its module is: bento/ is a program of its public packages.
build_bento() {
    need_go 1.25 Bento
    say "building Bento"
    (cd "$PEERS/bento" && GOFLAGS=-buildvcs=false GOWORK=off CGO_ENABLED=0 \
        go build -mod=readonly -trimpath -ldflags '-s -w' -o "$OLDPWD/bento" . >&2)
    ./bento --version >&2
}

install_all() {
    "$SERVERS/kafka.sh" install
    need_java
    install_into "$BENTO" build_bento
    make_venv "$SPARK" "$PEERS/spark/requirements.txt"
    make_venv "$POLARS" "$PEERS/polars/requirements.txt"
    need jq jq
}

# Nothing is installed here: a benchmark that is run by hand says what is missing.
paths() {
    local name path
    for name in java jq; do
        path="$(command -v "$name")" || die "the command $name is missing: run 'benches/peers/install.sh install'"
        echo "$name=$path"
    done
    while read -r name path; do
        [ -e "$CACHE/$path" ] || die "$CACHE/$path is missing: run 'benches/peers/install.sh install'"
        echo "$name=$CACHE/$path"
    done <<END
connect $KAFKA/libs
bento $BENTO/bento
spark $SPARK/bin/python
polars $POLARS/bin/python
END
}

case "${1:-}" in
    install) install_all ;;
    paths) paths ;;
    *) usage ;;
esac
