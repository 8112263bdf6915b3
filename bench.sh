#!/bin/sh
# Speed and memory, each beside a peer or the plain form in the same run: sh bench.sh small|full [DEMO] → runs/bench/SIZE
# small takes minutes, full hours and 20 GB. Trainings are measured on the demo's catalogue, which `make demo` has made.
set -eu
size=${1:-small}
demo=${2:-runs/demo}
out=runs/bench/$size
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" POLARS_MAX_THREADS="${POLARS_MAX_THREADS:-1}"
mkdir -p "$out"

if [ "$size" = full ]; then
    audience="users=1000000 plays=50000000 new=1000 shares=[0.1,0.3,1]"
    boundary="users=1000000 new=1000"
    index="sizes=[100000,1000000,5000000] repeats=15"
    prepare="plays=[1000000,5000000,20000000] spark=true"
    overhead="rounds=15"
    serve="users=1000000 songs=1000000 new=10000 plays=10000000 seconds=10"
else
    audience="users=50000 plays=1000000 songs=10000 new=100"
    boundary="users=50000 new=100"
    index="sizes=[20000,250000] repeats=15"
    prepare="plays=[200000,1000000] repeats=1"
    overhead="rounds=5"
    serve="users=50000 songs=50000 plays=500000 seconds=2"
fi
# shellcheck disable=SC2086  # options are words
{
    python -m benchmarks.speed.audience_scale $audience out="$out/audience_scale.json"
    python -m benchmarks.speed.boundary_scale $boundary out="$out/boundary_scale.json"
    python -m benchmarks.speed.index_scale    $index    out="$out/index_scale.json"
    python -m benchmarks.speed.prepare_scale  $prepare  out="$out/prepare_scale.json"
    python -m benchmarks.speed.train_overhead $overhead data="$demo/catalogue" features="$demo/features" out="$out/train_overhead.json"
    python -m benchmarks.speed.serve_load     $serve    work="$out/serve_load" out="$out/serve_load.json"
} > "$out/reports.txt"
python -m benchmarks.speed.speeds "$out"
