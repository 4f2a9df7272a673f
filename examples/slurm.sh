#!/bin/bash
# A night on a cluster. One node of eight GPUs, or two with `sbatch --nodes=2`:
#
#     sbatch examples/slurm.sh data=prepared data.data_dir=/shared/mine model=small
#
# What follows the script goes to `scdiff-data train`, which is train.py. Prepare the data before, on a
# machine with internet.
# A job that is requeued, preempted or loses a node goes on by itself, in its own run folder.
# docs/howto/slurm.md says what to expect, and what to change on your cluster.

#SBATCH --job-name=scdiff
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8      # a task a GPU: Lightning starts none of its own under Slurm
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --mem=0                  # all of the node's: what is free keeps the shards in memory
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=SIGUSR1@180     # three minutes before the end: longer than a step and a validation
#SBATCH --open-mode=append       # a job that starts again writes on
#SBATCH --output=slurm-%j.out

set -euo pipefail

# module load ...                # what your cluster needs; or: source /shared/env/bin/activate
TASKS=${SLURM_NTASKS_PER_NODE:?start this with sbatch}

overrides=("trainer=${TRAINER:-ddp}" "trainer.devices=$TASKS" "trainer.num_nodes=$SLURM_NNODES")

# COPY_TO=/local/scratch/mine: the shards are copied to each node's own disk first.
if [[ -n "${COPY_TO:-}" ]]; then
    from=${COPY_FROM:?say where the prepared directory is}
    srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 \
        bash -c 'mkdir -p "$1" && cp -rp "$0/config.json" "$0/processed" "$1"' "$from" "$COPY_TO"
    overrides+=(data=prepared "data.data_dir=$COPY_TO")
fi

# From Slurm 22.05 on, srun does not take this over from sbatch: all ranks would share a few cores.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec srun --kill-on-bad-exit=1 scdiff-data train "${overrides[@]}" "$@"
