#!/usr/bin/env bash
# Show on one GPU what only a GPU can show, in at most eight minutes and without a network:
#   benchmarks/gpu.sh [--data.root FOLDER] [tests] [speed] [run]
# Parts that are not named are left out; none named: all of them. Everything it writes lies in
# $RESULTS (outputs/gpu). It takes .venv where there is one, else python3 with its own PyTorch, and
# installs the wheels in the folder $WHEELS (.whl) beside that. Without a GPU the same steps go
# through small sizes on the CPU.
set -uo pipefail
cd "$(dirname "$0")/.."

data=""
if [ "${1:-}" = --data.root ]; then data=$2; shift 2; fi
parts=" ${*:-tests speed run} "
results=$(realpath -m "${RESULTS:-outputs/gpu}")
wheels=${WHEELS:-.whl}
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
mkdir -p "$results"

if [ "$python" = python3 ] && compgen -G "$wheels/*.whl" >/dev/null; then
  site=$(mktemp -d)
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$site" "$wheels"/*.whl || exit 1
  # For its version alone: the code is that of this folder.
  python3 -m pip install -q --no-index --no-deps --no-build-isolation --target "$site" . || exit 1
  export PYTHONPATH=$site
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 DO_NOT_TRACK=1
export PREFECT_HOME=${PREFECT_HOME:-$results/prefect}

"$python" - <<'PYTHON'
import platform, torch
print("Python", platform.python_version(), "| PyTorch", torch.__version__)
if torch.cuda.is_available():
    properties = torch.cuda.get_device_properties(0)
    print(properties.name, f"{properties.total_memory / 2**30:.0f} GiB", "| CUDA",
          torch.version.cuda, "| cuDNN", torch.backends.cudnn.version())
else:
    print("PyTorch sees no GPU: small sizes on the CPU")
PYTHON

failed=0
has() { case "$parts" in *" $1 "*) true ;; *) false ;; esac; }
step() { echo "== $1 ($SECONDS s)"; }

if has tests; then
  step "tests marked gpu"
  "$python" -m pytest -q -n 4 -m gpu --device auto tests/training tests/inference/test_{predictor,sharpness}.py -p no:cacheprovider || failed=1
fi
if has speed; then
  step "speed"
  "$python" -m benchmarks.gpu --out "$results" ${data:+--data.root "$data"} || failed=1
fi
if has run; then
  step "the main job"
  gpu=$("$python" -c 'import torch; print(int(torch.cuda.is_available()))')
  if [ "$gpu" = 1 ]; then
    settings="--vae.batch_size 8 --vae.lr 2.8e-4 --vae.epochs 60"
  else
    settings="--images.size 64 --vae.epochs 1 --data.phantom_images 40"
  fi
  "$python" flows/main.py --config configs/fast.yaml $settings ${data:+--data.root "$data"} \
    --store.root "$results/store" --store.scratch "$results/scratch" || failed=1
  images=${data:-$results/scratch/phantom}
  bundle=$(echo "$results"/store/bundle/*)
  "$python" -m cxrmodel predict "$bundle" "$images" --out "$results/scores.parquet" || failed=1
  "$python" flows/score.py --bundle "$bundle" --data.root "$images" --out "$results/scores" || failed=1
  stored="--store.root $results/store --store.scratch $results/scratch"
  "$python" flows/monitor.py --bundle "$bundle" --data.root "$images" --scores "$results/scores" \
    $stored || failed=1
  "$python" flows/evaluate.py --bundle "$bundle" --data.root "$images" --leave_out_overlap \
    --out "$results/evaluated" $stored || failed=1
  cp "$results"/store/report/*/{report.html,metrics.json} "$results"/store/vae/*/manifest.json "$results" || failed=1
fi
step "done"
exit $failed
