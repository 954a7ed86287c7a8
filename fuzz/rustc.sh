#!/bin/sh
# What `make fuzz` compiles the workspace's own crates with: libFuzzer's coverage, and the checks that an optimised build leaves
# out. Cargo calls it for members of the workspace only, so the dependencies are those of the normal build.
case " $* " in
*" --test "* | *" build_script_build "*) ;;
*" --crate-name acequia "*" --crate-type lib "* | *" --crate-name acequia_format "* | *" --crate-name acequia_connector_"*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=yes -Coverflow-checks=yes
    ;;
esac
exec "$@"
