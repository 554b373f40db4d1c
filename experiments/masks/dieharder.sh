#!/bin/sh
# dieharder (Debian's package of that name) on a stream of the mask generator:
#
#     experiments/masks/dieharder.sh positions|counts|seeds|replicas [words of each draw]
#
# The tests of `dieharder -a` but diehard_sums, of which dieharder itself says "do not
# use", and rgb_lagged_sum at most lags, which would read 224 GB; marsaglia_tsang_gcd
# and lag 7, long too, on "positions" only. They follow one another on one stream, so
# no two see the same words.
set -eu
PYTHON=${PYTHON:-python}

tests() {
    for test in $(seq 0 13) 15 16 100 101 102 $(seq 204 209); do echo "-d $test"; done
    for size in $(seq 1 12); do echo "-d 200 -n $size"; done
    for size in 2 3 4 5; do echo "-d 201 -n $size"; echo "-d 202 -n $size"; done
    for lag in 0 1 2 3; do echo "-d 203 -n $lag"; done
    if [ "$1" = positions ]; then echo "-d 203 -n 7"; echo "-d 17"; fi
}

"$PYTHON" -m experiments.masks.stream "$1" --words "${2:-4096}" | {
    exec 3<&0
    tests "$1" | while read -r options; do
        # shellcheck disable=SC2086  # options are words
        dieharder -g 200 $options <&3 | grep -E 'PASSED|WEAK|FAILED'
    done
}
