#!/bin/bash
# One task of a Slurm array scores one shard; the tasks know nothing of each other. Mend paths and resources, then:
#
#     job=$(sbatch --parsable cron/slurm-array.sh)
#     sbatch --dependency=afterok:$job --wrap "/opt/batchland/.venv/bin/batchland merge predictions/all --out predictions/all.parquet"
#
# A merge that finds shards missing or unfinished names them and ends with 66. The same script, submitted for those alone
# (sbatch --array=3,7-9 cron/slurm-array.sh), goes on where they stopped; finished shards are not scored again.
#
#SBATCH --job-name=batchland
#SBATCH --array=0-15
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --output=batchland-%A_%a.log
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
# One GPU a task:
##SBATCH --gres=gpu:1

# Not $SLURM_ARRAY_TASK_COUNT: that is another number when only some shards are submitted again.
SHARDS=16

cd /srv/batchland || exit
# exec: Slurm's SIGTERM, two minutes before the time is over, shall reach the program, which writes what it has.
exec /opt/batchland/.venv/bin/batchland score photos --model models/transfer.onnx \
    --out predictions/all --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"
