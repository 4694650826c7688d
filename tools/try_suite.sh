#!/usr/bin/env bash
# Run the whole suite of the last commit on another Python, in a clean clone with its own environment.
#
#     tools/try_suite.sh PYTHON [MORE FOR PYTEST...]
#
# A Python that this machine does not have, in a Debian that has it (as root):
#
#     mmdebstrap --include=python3.14-venv,git,make forky root/ && git clone . root/src
#     chroot root/ /src/tools/try_suite.sh python3.14          # with /proc and /dev mounted in it
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:?"which Python? e.g. python3.13"}
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git -c safe.directory='*' clone --quiet "$root" "$work/clone"
cd "$work/clone"
unset PYTHONPATH
make test PYTHON="$python" PYTEST="$*"
echo "the suite passes on $(.venv/bin/python --version)"
