#!/usr/bin/env bash
# Build sdist and wheel, install the wheel into a new environment, and run a night from there, without the repository.
#
#     tools/try_package.sh [PYTHON]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install --quiet uv
uv() { "$work/tools/bin/python" -m uv "$@"; }

uv build --quiet --out-dir "$work/dist" "$root"  # the wheel is built from the sdist
"$python" -m venv "$work/env"
uv pip install --quiet --python "$work/env/bin/python" --constraint "$root/constraints.txt" "$work"/dist/*.whl
cd "$work"
PATH=$work/env/bin:/usr/bin:/bin
unset PYTHONPATH
batchland --version
ls "$work/env/share/batchland"
batchland init site
test -f site/jobs/nightly.toml -a -f site/jobs/job.schema.json -a -f site/README.md
python - <<'PYTHON'
import onnx
from onnx import TensorProto, helper
shape = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
node = helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)  # the strongest colour wins
graph = helper.make_graph([node], "toy", [shape], [logits], [axes])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), "toy.onnx")
PYTHON
printf 'red\ngreen\nblue\n' > labels.txt
batchland adopt toy.onnx --classes labels.txt --preprocess unit --output logits --out site/models/current.onnx
batchland sample sample --images 80 >/dev/null
mkdir site/incoming/2026-11-23
find sample/test -type f | while read -r photo; do cp "$photo" site/incoming/2026-11-23/; done
cd site
batchland job check jobs/nightly.toml || test $? = 66  # nothing is delivered for yesterday
batchland run jobs/nightly.toml --date 2026-11-23 --set settle=0s --set device=cpu
batchland history nightly
batchland trend nightly --out trend.html
batchland doctor
echo "the package works on $(python --version)"
