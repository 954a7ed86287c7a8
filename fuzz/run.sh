#!/usr/bin/env bash
# Fuzz every target, or those named, for SECONDS each: `fuzz/run.sh SECONDS [TARGET...]`. See CONTRIBUTING.md, "Fuzzing".
# With ACEQUIA_FUZZ_SEED the inputs are the same ones each time, as far as the time goes and the code is the same.
#
# The workspace's own crates are compiled once more, with coverage; the dependencies are those of the normal build.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?give the seconds for each target}
shift
out="${CARGO_TARGET_DIR:-$PWD/target}"
work="$out/fuzz"
mkdir -p "$work"
RUSTC_WORKSPACE_WRAPPER="$PWD/fuzz/rustc.sh" "${CARGO:-cargo}" build --release --locked --workspace \
    --features acequia-fuzz/libfuzzer --bin acequia-fuzz
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for folder in fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done
fi
for target in "${targets[@]}"; do
    found="$work/$target"
    log="$work/$target.log"
    mkdir -p "$found" "fuzz/corpus/$target"
    options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1)
    [ -z "${ACEQUIA_FUZZ_SEED:-}" ] || options+=(-seed="$ACEQUIA_FUZZ_SEED")
    [ ! -f "fuzz/$target.dict" ] || options+=(-dict="fuzz/$target.dict")
    if ACEQUIA_FUZZ_TARGET=$target nice "$out/release/acequia-fuzz" "${options[@]}" -artifact_prefix="$found-" \
        "$found" "fuzz/corpus/$target" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        reached=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1)
        echo "fuzz: $target: $runs runs, $reached" >&2
        continue
    fi
    grep -vE '^#[0-9]+|^(NEW|REDUCE|INFO)' "$log" | tail -n 40 >&2
    file=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    echo "fuzz: the target $target fails on ${file:-an input, see $log}" >&2
    if [ -n "$file" ]; then
        echo "fuzz: keep it, and run it again without the fuzzer:" >&2
        echo "  mkdir -p fuzz/crashes/$target && cp '$file' fuzz/crashes/$target/" >&2
        echo "  cargo test --release --workspace --test replay $target" >&2
    fi
    exit 1
done
