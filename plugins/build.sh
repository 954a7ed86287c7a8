#!/usr/bin/env bash
# Builds the bundled plugins, and the evil ones of the tests, as WebAssembly components, and installs what it needs for
# that. All in one cargo invocation with one environment and one target folder of its own: the standard library is then
# built once, and the host's builds are left alone.
#
#   plugins/build.sh            -> target/plugins/NAME.wasm, target/evil-plugins/NAME.wasm
#   plugins/build.sh CRATE...   -> CRATE/NAME.wasm of each: folders of plugins that live elsewhere
#   CARGO_TARGET_DIR=DIR ...    -> DIR in place of target
set -euo pipefail
CRATES=()
for crate in "$@"; do
    if ! [ -f "$crate/Cargo.toml" ]; then
        echo "plugins/build.sh: $crate is not the folder of a crate: there is no Cargo.toml in it" >&2
        exit 1
    fi
    CRATES+=("$(cd "$crate" && pwd)")
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TARGET=wasm32-unknown-unknown
OUT="${CARGO_TARGET_DIR:-$PWD/target}"
case "$OUT" in /*) ;; *) OUT="$PWD/$OUT" ;; esac

# Package -> file. The name of the file is the name that a pipeline's `plugin` key has.
PLUGINS=(even-filter word-count sine-wave triangle-wave uuid-plugin=uuid select)
EVIL=(evil evil-stateful evil-ticking)

# rustup's toolchain has the linker that makes a component of a module, whichever compiler is used.
SYSROOT="$(rustc --print sysroot)"
HOST="$(rustc -vV | sed -n 's/^host: //p')"
LINKERS="$SYSROOT/lib/rustlib/$HOST/bin"
DEBIAN_STD=/usr/lib/rustlib/src

say() { echo "plugins/build.sh: $*" >&2; }

has_target() { [ -d "$SYSROOT/lib/rustlib/$TARGET/lib" ]; }

# Debian's, if it is new enough for this workspace and has the sources.
has_debian() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] && [ -e "$DEBIAN_STD" ] || return 1
    local wanted have
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
    have="$(/usr/bin/rustc --version | cut -d' ' -f2)"
    [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ]
}

install_debian() {
    command -v apt-get >/dev/null || return 1
    local root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || return 1
        root=(sudo)
    fi
    say "installing Debian's Rust with the sources of the standard library (0.8 GB)"
    "${root[@]}" apt-get update -q &&
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            rustc-web cargo-web rust-web-src
}

if [ ! -x "$LINKERS/wasm-component-ld" ]; then
    say "no wasm-component-ld in $LINKERS: it comes with rustup's toolchains; see https://rustup.rs"
    exit 1
fi

# Where rustup can't have the target, it is not asked again each time: remove the mark to try once more.
NO_TARGET="$OUT/wasm/.no-rustup-target"
if ! has_target && [ ! -e "$NO_TARGET" ] && ! rustup target add "$TARGET"; then
    say "rustup can't fetch the target $TARGET: falling back to Debian's compiler"
    mkdir -p "$OUT/wasm"
    touch "$NO_TARGET"
fi

if ! has_target && ! has_debian && ! install_debian; then
    say "no compiler for $TARGET. Either run 'rustup target add $TARGET', or install a cargo and rustc with the sources of"
    say "the standard library (Debian: rustc-web cargo-web rust-web-src)"
    exit 1
fi

ARGS=(build --release --target "$TARGET" --target-dir "$OUT/wasm")
BUNDLED=()
for package in "${PLUGINS[@]%%=*}" "${EVIL[@]%%=*}"; do
    BUNDLED+=(-p "$package")
done

# One profile that is right for small modules: whole-program optimisation, and a panic is a trap. What the caller's
# environment says of compilers and flags must not get in: it would break the build, or make cargo do all of it again.
ENV=(
    -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS -u CARGO_BUILD_TARGET -u CARGO_INCREMENTAL
    -u RUSTC -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$LINKERS/wasm-component-ld"
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-C target-feature=+simd128 -C link-arg=--wasm-ld-path=$LINKERS/gcc-ld/wasm-ld"
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
    CARGO_PROFILE_RELEASE_LTO=fat
    CARGO_PROFILE_RELEASE_PANIC=abort
    CARGO_PROFILE_RELEASE_STRIP=true
)

build() {
    if has_target; then
        env "${ENV[@]}" cargo "${ARGS[@]}" "$@"
    else
        # Debian's stable compiler builds the standard library from its sources: hence the unstable flag.
        env -u RUSTUP_TOOLCHAIN "${ENV[@]}" PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 \
            /usr/bin/cargo "${ARGS[@]}" -Zbuild-std=std,panic_abort "$@"
    fi
}

# Put beside and renamed, so that a daemon that watches the folder never sees half a file.
copy() {
    local folder="$1" name source
    shift
    mkdir -p "$folder"
    for package in "$@"; do
        name="${package##*=}"
        source="$OUT/wasm/$TARGET/release/$(tr - _ <<<"${package%%=*}").wasm"
        if ! cmp -s "$source" "$folder/$name.wasm"; then
            cp "$source" "$folder/.$name.$$.new"
            mv "$folder/.$name.$$.new" "$folder/$name.wasm"
        fi
    done
}

if [ ${#CRATES[@]} = 0 ]; then
    build "${BUNDLED[@]}"
    copy "$OUT/plugins" "${PLUGINS[@]}"
    copy "$OUT/evil-plugins" "${EVIL[@]}"
fi
for crate in "${CRATES[@]}"; do
    package="$(sed -n '/^\[package\]/,/^\[/s/^name *= *"\(.*\)".*/\1/p' "$crate/Cargo.toml")"
    # Two crates of one name share this file, and cargo would take either for the other's.
    rm -f "$OUT/wasm/$TARGET/release/deps/$(tr - _ <<<"$package").wasm"
    build --manifest-path "$crate/Cargo.toml" -p "$package"
    copy "$crate" "$package"
    say "$crate/$package.wasm"
done
