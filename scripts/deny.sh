#!/usr/bin/env bash
# Licences, sources and duplicates of the dependencies; advisories too where the database can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo deny --version >/dev/null 2>&1; then
    echo "scripts/deny.sh: cargo-deny is not installed: 'cargo install --locked cargo-deny' brings it; skipped" >&2
    exit 0
fi
cargo deny --locked check licenses sources bans
# The advisory database is fetched from the network at run time: a machine without it is no reason to fail.
cargo deny --locked check advisories || echo "scripts/deny.sh: advisories could not be checked" >&2
