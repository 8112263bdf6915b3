#!/bin/bash
# The same under SLURM, from the repository's folder with the environment activated:
#
#   sbatch configs/cluster/slurm.sh i2i data=… features=… out=… trainer.checkpoint_steps=500
#
# Preempted, or three minutes before its time is up, the job writes a checkpoint, goes back into the queue and, when its
# turn comes, goes on at the very step, in the same run folder and the same W&B run.
#SBATCH --job-name=firstplay
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
NODES=$SLURM_NNODES
RANKS=${SLURM_GPUS_ON_NODE:-1}
JOB=$SLURM_JOB_ID
export HEAD NODES RANKS JOB

requeue() {
  echo "job $SLURM_JOB_ID: stopping, to go on later"
  kill -TERM "$step" 2>/dev/null
  wait "$step"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap requeue TERM

srun sh configs/cluster/torchrun.sh "$@" & # one task a node, which starts a process a GPU
step=$!
wait "$step"
