#!/bin/sh
# The whole road on the built-in world: about 2,000 made-up songs, 3,000 listeners, 2 CPU cores, some four minutes.
# Every line reads a folder and writes a folder; stop it anywhere and run it again: finished training is kept.
# A line that ends in & runs beside those up to the next `wait`, which do not need it.
# DEMO_WORLD, DEMO_TRAINING and DEMO_RANKER are further options of the world, of all trainings and of the ranker,
# for a smaller one.
set -eu
demo=${1:-runs/demo}
export TOKENIZERS_PARALLELISM=false
beside=
# it ends when another line fails, and before this does: it may be writing what the next run reads
trap '[ -z "$beside" ] || { kill "$beside" 2> /dev/null && wait "$beside"; } || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

python -m pipeline.world    out="$demo/world" ${DEMO_WORLD:-}
python -m pipeline.prepare  source="$demo/world" out="$demo/catalogue" split.cutoff=2026-06-01
python train.py clip        --config configs/demo/clip.yaml data="$demo/catalogue" out="$demo/clip" ${DEMO_TRAINING:-}
python -m pipeline.embed    clip="$demo/clip" data="$demo/catalogue" out="$demo/features"

# half of the processors for each of two lines
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(python -c 'import os; print(max(1, (os.cpu_count() or 1) // 2))')}"
python train.py boundary    --config configs/demo/boundary.yaml data="$demo/catalogue" features="$demo/features" out="$demo/boundary" ${DEMO_TRAINING:-} trainer.progress=false & beside=$!
python train.py i2i         --config configs/demo/i2i.yaml data="$demo/catalogue" features="$demo/features" out="$demo/i2i" ${DEMO_TRAINING:-}
python train.py i2i         --config configs/demo/i2i.yaml data="$demo/catalogue" features="$demo/features" out="$demo/cb2cf" objective.bcl_weight=0 ${DEMO_TRAINING:-}
python -m pipeline.index    run="$demo/i2i" out="$demo/index"
python -m pipeline.index    run="$demo/cb2cf" out="$demo/cb2cf_index"
python -m pipeline.audience --config configs/demo/targeting.yaml mode=i2i2u index="$demo/index" out="$demo/audience"
wait "$beside"
python -m pipeline.audience --config configs/demo/targeting.yaml mode=boundary index="$demo/index" boundary="$demo/boundary" out="$demo/audience_boundary" & beside=$!
python train.py rank        --config configs/demo/targeting.yaml data="$demo/catalogue" i2i="$demo/i2i" boundary="$demo/boundary" out="$demo/rank" ${DEMO_RANKER:-}
wait "$beside"
python -m pipeline.evaluate --config configs/demo/targeting.yaml data="$demo/catalogue" index="$demo/index" cb2cf="$demo/cb2cf_index" features="$demo/features" \
                            boundary="$demo/boundary" rank="$demo/rank" truth="$demo/world/truth.parquet" out="$demo/evaluation" & beside=$!
python -m pipeline.export   run="$demo/i2i" out="$demo/export/i2i"
python -m pipeline.export   run="$demo/boundary" out="$demo/export/boundary"
python -m pipeline.export   run="$demo/clip" out="$demo/export/clip"
python -m pipeline.service  --config configs/demo/targeting.yaml index="$demo/index" boundary="$demo/boundary" rank="$demo/rank" out="$demo/service"
wait "$beside"
cp "$demo/evaluation/metrics.json" "$demo/evaluation/report.html" "$demo/"
echo "open $demo/report.html; and make serve, to send a song of your own"
