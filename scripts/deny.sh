#!/usr/bin/env bash
# Licences, sources and bans of the dependencies; advisories too where their database can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=0.20.2
TOOLS="${CARGO_TARGET_DIR:-$PWD/target}/tools"
PATH="$TOOLS/bin:$PATH"
mkdir -p "$TOOLS"

if ! cargo deny --version >/dev/null 2>&1; then
    echo "scripts/deny.sh: installing cargo-deny $VERSION into $TOOLS" >&2
    CARGO_TARGET_DIR="$TOOLS/build" cargo install --quiet --locked --version "$VERSION" --root "$TOOLS" cargo-deny
    rm -rf "$TOOLS/build"
fi
cargo deny --locked check licenses sources bans
# The advisories' database is fetched from the network each time: a machine that can't reach it has still checked the rest.
if ! cargo deny --locked check advisories 2>"$TOOLS/advisories.log"; then
    if grep -q "failed to fetch advisory database" "$TOOLS/advisories.log"; then
        echo "scripts/deny.sh: the advisories' database can't be reached: advisories were not checked" >&2
    else
        cat "$TOOLS/advisories.log" >&2
        exit 1
    fi
fi
