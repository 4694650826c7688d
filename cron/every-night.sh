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
# The time on a day. In spring, clocks skip an hour: a time in it is one hour later then.
at() {
    hour=${time%%:*}
    date -d "$1 $time" +%s 2>/dev/null || date -d "$1 $((${hour#0} + 1)):${time#*:}" +%s
}
while :; do
    now=$(date +%s)
    next=$(at today) || exit 2
    [ "$next" -gt "$now" ] || next=$(at tomorrow) || exit 2
    sleep $((next - now)) &
    child=$!
    wait "$child"
    batchland run "$@" &
    child=$!
    wait "$child" || echo "the run ended with exit code $?" >&2
    child=
done
