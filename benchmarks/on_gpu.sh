#!/usr/bin/env bash
# On a machine with a GPU: is it right, then how fast is it? Writes everything that docs/gpu.md asks for, within LIMIT.
#
#     pip install '.[cuda,decode-cuda,train,bench]' pytest pytest-timeout
#     benchmarks/on_gpu.sh [FOLDER]
#
# Each part has its own time limit and writes its own files in FOLDER (gpu-results) before the next begins, so that an
# early end loses nothing but the parts that had not begun. The most wanted figures come first.
#
# LIMIT   seconds for all parts (560)          DEVICE   as `batchland score --device` takes it (cuda)
# PYTHON  interpreter (python3)                COUNT    photos of 500 x 375; 12-megapixel ones are a tenth (4000)
# SECONDS_EACH  that each rate is measured for (2)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

out=${1:-gpu-results}
limit=${LIMIT:-560}
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
count=${COUNT:-4000}
work=$out/work
begin=$SECONDS
mkdir -p "$out" "$work"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD/tests:$PWD${PYTHONPATH:+:$PYTHONPATH}" XDG_CACHE_HOME="$work/cache"

left() { echo $((limit - SECONDS + begin)); }

# part NAME SECONDS COMMAND...: runs for at most that long, and no longer than what is left; its output is FOLDER/NAME.txt
part() {
    local name=$1 most=$2
    shift 2
    [ "$(left)" -lt "$most" ] && most=$(left)
    if [ "$most" -lt 10 ]; then
        echo "== $name: no time left" | tee "$out/$name.txt"
        return
    fi
    echo "== $name, at most $most s"
    timeout -k 5 "$most" "$@" >"$out/$name.txt" 2>&1
    local status=$?
    [ "$status" -eq 124 ] && echo "ended after $most s" >>"$out/$name.txt"
    tail -n 12 "$out/$name.txt"
    return "$status"
}

# figures NAME SECONDS ARGUMENTS...: of benchmarks.gpu, which writes after each way
figures() {
    local name=$1 most=$2
    shift 2
    part "$name" "$most" "$python" -m benchmarks.gpu --device "$device" --rounds 1 --seconds "${SECONDS_EACH:-2}" \
        --batch-size 64 --limit 60 --out "$out/$name" --work "$work" "$@"
}

part machine 20 bash -c 'nvidia-smi; nvidia-smi -q | head -n 60; '"$python"' -m pip list 2>/dev/null | grep -iE "onnx|torch|nvidia|batchland"'
part usable 60 "$python" -c '
import sys
from batchland.models.devices import gpu_problem
import onnxruntime
print("onnxruntime", onnxruntime.__version__, onnxruntime.__file__)
if sys.argv[1] != "cpu":
    raise SystemExit(gpu_problem())' "$device" || exit 5
part doctor 60 "$python" -m batchland doctor
# other versions than the constraints' may warn, and warnings are errors in the suite
part correct 200 "$python" -m pytest tests/models/gpu/test_on_gpu.py -rA -q -p no:cacheprovider -W default --timeout 100 \
    --junitxml "$out/correct.xml"

part prepare 150 "$python" -c '
import sys
from pathlib import Path
from benchmarks.models import find_model
from benchmarks.photos import draw_photos
work, count = Path(sys.argv[1]), int(sys.argv[2])
for name in ("transfer", "transfer-fp16", "scratch", "scratch-fp16"):
    print(find_model(name, work))
for size, photos in (("small", count), ("12mp", count // 10)):
    print(draw_photos(work / "photos", size, photos))' "$work" "$count"

small=(--sizes small --count "$count")
figures resnet50-small 150 --models transfer "${small[@]}" --ways fp16 pipeline_fp16 decode torch_fp16 fp32 agreement \
    decode_cuda pipeline_fp16_decode_cuda copies pipeline_fp32 leave
figures resnet50-12mp 100 --models transfer --sizes 12mp --count "$((count / 10))" --ways decode pipeline_fp16 \
    decode_cuda pipeline_fp16_decode_cuda
figures scratch-small 60 --models scratch "${small[@]}" --ways fp16 pipeline_fp16 fp32 torch_fp16 decode
figures resnet50-again 60 --models transfer "${small[@]}" --ways fp16 fp32 tf32 torch_fp16 torch_fp32
cp -r "$XDG_CACHE_HOME/batchland/tuning" "$out/tuning" 2>/dev/null
echo "== $((SECONDS - begin)) s; results are in $out"
