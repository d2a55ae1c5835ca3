#!/usr/bin/env bash
# sbatch --nodes=2 scripts/slurm.sh STAGE CONFIG WORKDIR [--config.FIELD=VALUE ...], STAGE being pretrain, pairs or train
#
# One process a GPU, on one node or several; WORKDIR is on a file system that all of them see. Five minutes before its
# time is up, or when it is preempted, a job saves, ends with status 75 and queues itself again: it goes on where it was.
#SBATCH --job-name=dd_jax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
stage=$1 config=$2 workdir=$3
shift 3
srun --kill-on-bad-exit=0 python -m dd_jax.main --coordinator=auto \
  --stage="$stage" --config="$config" --workdir="$workdir" "$@" &
trap '' TERM # the signal is for the processes
wait $!
status=$?
if [ "$status" = 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
