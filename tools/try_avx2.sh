#!/usr/bin/env bash
# Run tests on an emulated CPU that has AVX2 but neither AVX-512, VNNI nor AMX. Needs root, Linux on x86-64 and Debian's qemu-user.
#
#     tools/try_avx2.sh .venv/bin/python tests/models/test_int8.py [MORE FOR PYTEST...]
#
# It takes ten to fifty times the CPU time. Tests have no timeout here; those that measure time may fail. Programs other
# than Python run on the real CPU.
set -euo pipefail
python=${1:?"which Python? e.g. .venv/bin/python"}
shift
export WORK REAL OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
WORK=$(mktemp -d)
REAL=$(readlink -f "$python")
trap 'rm -rf "$WORK"' EXIT

cp "$REAL" "$WORK/python"
cat >"$WORK/emulated" <<EOF
#!/bin/sh
exec qemu-x86_64 -cpu Haswell,-hle,-rtm,-pcid,-invpcid,-x2apic,-tsc-deadline -0 "\$0" "$WORK/python" "\$@"
EOF
chmod +x "$WORK/emulated"
sed -E 's/^(model name.*: ).*/\1Haswell (QEMU)/; /^flags/s/ (avx512\w*|amx_\w+|avx_\w+|vaes|vpclmulqdq|gfni)//g' \
    /proc/cpuinfo >"$WORK/cpuinfo"
# In a mount namespace of its own, every start of this Python is emulated.
# shellcheck disable=SC2016
unshare --mount --propagation private sh -euc '
    mount --bind "$WORK/cpuinfo" /proc/cpuinfo
    mount --bind "$WORK/emulated" "$REAL"
    exec "$@"' sh "$python" -m pytest -n 0 -p no:cacheprovider -o timeout=0 "$@"
