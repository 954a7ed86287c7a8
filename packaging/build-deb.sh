#!/bin/sh
# Builds the Debian package from what `make build` leaves.
# usage: packaging/build-deb.sh BINARY PLUGINS EXAMPLES OUTPUT
#   BINARY    the daemon, e.g. target/release/acequia
#   PLUGINS   a folder of .wasm files, e.g. target/plugins
#   EXAMPLES  a folder of configurations, e.g. examples
#   OUTPUT    the folder that the package is put into; its path is printed
# The version is the workspace's; SOURCE_DATE_EPOCH makes the package reproducible.
set -eu

[ $# -eq 4 ] || { sed -n '3,8s/^# //p' "$0" >&2; exit 2; }
binary=$1 plugins=$2 examples=$3 output=$4
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$here/../Cargo.toml")
[ -n "$version" ] || { echo "no version in $here/../Cargo.toml" >&2; exit 1; }
architecture=$(dpkg --print-architecture)
[ -x "$binary" ] || { echo "$binary: no such program; run \`make build\`" >&2; exit 1; }
ls "$plugins"/*.wasm > /dev/null 2>&1 || { echo "$plugins: no plugins; run \`make build\`" >&2; exit 1; }
[ -d "$examples" ] || { echo "$examples: no such folder" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
umask 022

install -D -m 755 "$binary" "$root/usr/bin/acequia"
for plugin in "$plugins"/*.wasm; do
    install -D -m 644 "$plugin" "$root/usr/lib/acequia/plugins/$(basename "$plugin")"
done
install -D -m 644 "$here/acequia.service" "$root/lib/systemd/system/acequia.service"
install -D -m 644 "$here/acequia.sysusers" "$root/usr/lib/sysusers.d/acequia.conf"
install -D -m 640 "$here/default" "$root/etc/default/acequia"
install -d -m 755 "$root/etc/acequia" "$root/usr/share/doc/acequia/examples"
cp -r "$examples/." "$root/usr/share/doc/acequia/examples/"
find "$root/usr/share/doc/acequia" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +

mkdir "$root/DEBIAN"
echo /etc/default/acequia > "$root/DEBIAN/conffiles"
cat > "$root/DEBIAN/control" <<CONTROL
Package: acequia
Version: $version
Architecture: $architecture
Maintainer: The Acequia developers <acequia@localhost>
Installed-Size: $(du -k -s --exclude DEBIAN "$root" | cut -f 1)
Depends: libc6 (>= 2.36), libgcc-s1, libssl3, systemd, zlib1g
Section: net
Priority: optional
Description: plugin host for data pipelines
 Drop a TOML file into /etc/acequia, and rows flow from a source through
 transforms, which are WebAssembly plugins in any language, into sinks.
CONTROL
cat > "$root/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    systemd-sysusers acequia.conf
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        if [ -z "$2" ]; then
            systemctl enable --now acequia.service
        else
            systemctl try-restart acequia.service
        fi
    else
        systemctl enable acequia.service > /dev/null 2>&1 || true
    fi
fi
POSTINST
cat > "$root/DEBIAN/prerm" <<'PRERM'
#!/bin/sh
set -e
if [ "$1" = remove ]; then
    if [ -d /run/systemd/system ]; then
        systemctl stop acequia.service
    fi
    systemctl disable acequia.service > /dev/null 2>&1 || true
fi
PRERM
cat > "$root/DEBIAN/postrm" <<'POSTRM'
#!/bin/sh
set -e
# A purge takes checkpoints and dead letters too; configurations in /etc/acequia are the administrator's.
if [ "$1" = purge ]; then
    rm -rf /var/lib/acequia
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
POSTRM
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"

mkdir -p "$output"
package="$output/acequia_${version}_${architecture}.deb"
dpkg-deb --root-owner-group --build "$root" "$package" > /dev/null
echo "$package"
