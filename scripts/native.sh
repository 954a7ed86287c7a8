#!/usr/bin/env bash
# What the build needs from the system beside Rust, a C compiler and make: OpenSSL's headers, for TLS to Kafka, Cassandra and
# InfluxDB. Installs them where it may, else says what to install.
set -euo pipefail
[ -z "${OPENSSL_DIR:-}${OPENSSL_LIB_DIR:-}" ] || exit 0
if pkg-config --exists openssl 2>/dev/null; then exit 0; fi
packages=(libssl-dev pkg-config)
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "scripts/native.sh: installing ${packages[*]}" >&2
    install=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -q -y --no-install-recommends "${packages[@]}")
    { "${install[@]}" || { apt-get update -q && "${install[@]}"; }; } >&2
    exit 0
fi
echo "scripts/native.sh: OpenSSL's headers and pkg-config are missing: install them (Debian: apt-get install ${packages[*]})" >&2
exit 1
