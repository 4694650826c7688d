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
# The time on a day. In spring, clocks skip an hour: a time in it is read by the clock of the day before, so it is one hour
# later. "tomorrow $time" would also be invalid if $time is skipped today; noon is not.
at() {
    day=$(date -d "$1 12:00" +%F) || return
    date -d "$day $time" +%s 2>/dev/null || date -d "$day $time $(date -d "$day 12:00 yesterday" +%z)" +%s
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
