#!/bin/sh
# Checks the unit: `systemd-analyze verify` must print nothing, and the exposure must be below 3.
# usage: packaging/check.sh [UNIT]
set -eu

unit=${1:-"$(dirname "$0")/acequia.service"}
name=$(basename "$unit")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The daemon need not be installed: a stand-in takes its place. That it was named right is checked here.
grep -q '^ExecStart=/usr/bin/acequia run /etc/acequia --listen 127\.0\.0\.1:8083$' "$unit" || {
    echo "$unit: ExecStart is not what the package installs" >&2
    exit 1
}
printf '#!/bin/sh\n' > "$folder/acequia"
chmod +x "$folder/acequia"
sed "s|^ExecStart=/usr/bin/acequia |ExecStart=$folder/acequia |" "$unit" > "$folder/$name"

verified=$(systemd-analyze verify --man=no --generators=no "$folder/$name" 2>&1) || {
    echo "$verified" >&2
    exit 1
}
if [ -n "$verified" ]; then
    echo "$verified" >&2
    exit 1
fi

# The threshold is ten times the exposure; it is an error to be above it.
systemd-analyze security --offline=true --no-pager --threshold=29 "$folder/$name" > "$folder/report" 2>&1 || {
    cat "$folder/report" >&2
    exit 1
}
grep 'Overall exposure level' "$folder/report"
