#!/bin/sh
# Run a job every day at a time, in a container without cron:  every-night.sh 03:30 jobs/nightly.toml
# SIGTERM reaches a run that is under way, which writes its finished images; then this script ends, too.
set -u
time=$1
shift
child=
stop() {
    [ -n "$child" ] && kill -TERM "$child" 2>/dev/null && wait "$child"
    exit 143
}
trap stop TERM INT
while :; do
    now=$(date +%s)
    next=$(date -d "$time" +%s) || exit 2
    [ "$next" -gt "$now" ] || next=$(date -d "tomorrow $time" +%s)
    sleep $((next - now)) &
    child=$!
    wait "$child"
    batchland run "$@" &
    child=$!
    wait "$child" || echo "the run ended with exit code $?" >&2
    child=
done
