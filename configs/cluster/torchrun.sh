#!/bin/sh
# One training on several machines. On each of them, from the repository's folder, with the same HEAD, NODES and JOB:
#
#   HEAD=machine0 NODES=2 RANKS=8 sh configs/cluster/torchrun.sh i2i data=… features=… out=…
#
# `embed` in the place of a task starts pipeline.embed, which goes on with the songs that are left:
#
#   HEAD=machine0 NODES=2 RANKS=8 sh configs/cluster/torchrun.sh embed clip=… data=… out=…
#
# HEAD    the machine where the others meet (its port PORT must be open)          NODES   machines
# RANKS   processes on each machine, one a GPU                                    JOB     a name of this training
#
# Data and out= must be on storage that all machines see. A process that dies takes the others with it, and all start
# again from the last checkpoint, RESTARTS times at most (trainer.checkpoint_steps=500 loses at most 500 steps).
set -eu
: "${NODES:=1}" "${RANKS:=1}" "${HEAD:=localhost}" "${PORT:=29400}" "${JOB:=firstplay}" "${RESTARTS:=3}"
# A store of its own for every start: torchrun otherwise keeps one, and after a restart the ranks would look for each
# other where the dead ones were.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
if [ "${1:-}" = embed ]; then
  shift
  set -- -m pipeline.embed "$@" nodes="$NODES" devices="$RANKS"
else
  set -- train.py "$@" trainer.nodes="$NODES" trainer.devices="$RANKS"
fi
exec torchrun --nnodes="$NODES" --nproc-per-node="$RANKS" --max-restarts="$RESTARTS" \
  --rdzv-backend=c10d --rdzv-endpoint="$HEAD:$PORT" --rdzv-id="$JOB" \
  "$@"
