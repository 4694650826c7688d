#!/bin/bash
# Each task of a Slurm array scores one shard; the tasks are independent. Adapt paths and resources, then:
#
#     job=$(sbatch --parsable cron/slurm-array.sh)
#     sbatch --dependency=afterok:$job --wrap "/opt/batchland/.venv/bin/batchland merge predictions/all --out predictions/all.parquet"
#
# If shards are missing or unfinished, the merge names them and exits with 66. Submit the script again for those alone
# (sbatch --array=3,7-9 cron/slurm-array.sh): they continue where they stopped; finished shards are not scored again.
#
#SBATCH --job-name=batchland
#SBATCH --array=0-15
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --output=batchland-%A_%a.log
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
# One GPU per task:
##SBATCH --gres=gpu:1

# Not $SLURM_ARRAY_TASK_COUNT, which differs when only some shards are submitted again.
SHARDS=16

cd /srv/batchland || exit
# exec, so that Slurm's SIGTERM, two minutes before the time limit, reaches the program, which then stops cleanly.
exec /opt/batchland/.venv/bin/batchland score photos --model models/transfer.onnx \
    --out predictions/all --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"
