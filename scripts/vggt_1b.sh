#!/bin/sh
# VGGT-1B's own table, from nothing: weights, test sets that are there, baseline and gate, profile, plans, rounding,
# uniform schemes. What is done is kept: run it again to go on.
#
#   scripts/vggt_1b.sh [--weights PATH] [options of `python cli.py reproduce`]
#
# Data (docs/data.md): CO3D=data/co3d (the folder of categories with set_lists), SEVEN_SCENES=data/7scenes (the folder of
# scenes, chess/TestSplit.txt and so on), ETH3D=data/eth3d; what is not there is left out. Without --weights
# facebook/VGGT-1B is fetched (5 GB, once).
set -eu
cd "$(dirname "$0")/.."

model=vggt-1b
if [ "${1:-}" = --weights ]; then
    model=${2:?"--weights needs a path"}
    shift 2
fi

found=
for test in "co3d-test:${CO3D:-data/co3d}" "7scenes-test:${SEVEN_SCENES:-data/7scenes}" "eth3d:${ETH3D:-data/eth3d}"; do
    if [ -d "${test#*:}" ]; then
        found=yes
        set -- "$@" --on "$test"
    else
        echo "left out, not there: $test" >&2
    fi
done
if [ -z "$found" ]; then
    echo "error: no test set is there: give its folder, as CO3D=/data/co3d $0" >&2
    exit 2
fi
exec "${PYTHON:-python}" cli.py reproduce --model "$model" "$@"
