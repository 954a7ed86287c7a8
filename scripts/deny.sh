#!/usr/bin/env bash
# Licences, sources and bans of the dependencies; advisories too where their database can be had. cargo-deny takes minutes to
# build, so it is not installed here: continuous integration asks for it with CARGO_DENY=required, everybody else uses it if it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo deny --version >/dev/null 2>&1; then
    echo "scripts/deny.sh: cargo-deny is not installed: 'cargo install --locked cargo-deny' brings it" >&2
    [ "${CARGO_DENY:-}" != required ] || exit 1
    exit 0
fi
cargo deny --locked check licenses sources bans
# The advisory database is fetched from the network at run time: a machine without it is no reason to fail.
cargo deny --locked check advisories || echo "scripts/deny.sh: advisories could not be checked" >&2
