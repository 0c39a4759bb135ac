#!/usr/bin/env bash
# Makes the most of some minutes on a machine with a GPU, in one call: training/on_gpu.sh PACK OUT [MINUTES [SHARE]]
# PACK: made beforehand with `python -m moodline.training.gpu pack`. OUT: where checkpoints go; what is finished there is not made again.
# MINUTES: for all networks together, 9 by default. SHARE: of the training images, below 1 to rehearse on a CPU.
# PYTHON: an interpreter with torch, numpy, msgspec; where it has TensorFlow too, the serving path on it is measured at the end.
# Afterwards, here: `python -m moodline.training.import_torch --state OUT/large.pt --kind large …` makes a run of a student.
set -euo pipefail
pack=$(realpath "$1") out=$2 minutes=${3:-9} share=${4:-1}
mkdir -p "$out"
out=$(realpath "$out")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

say() { echo "$(date +%T) $*"; }

say "interpreter: $("$python" -c 'import sys, torch; print(sys.version.split()[0], "torch", torch.__version__, "cuda", torch.cuda.is_available())')"
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,memory.total --format=csv,noheader || say "no nvidia-smi here"
"$python" -m moodline.training.gpu train --pack "$pack" --out "$out" --minutes "$minutes" --share "$share" 2>&1 | tee "$out/train.log"

if "$python" -c 'import tensorflow' 2> /dev/null; then
  say "serving path on TensorFlow"
  "$python" -m bench.classifier fer-2-small --rounds 3 --threads 1 2>&1 | tee "$out/serving.log" || say "the serving path failed: see $out/serving.log"
else
  say "no TensorFlow here: the serving path is not measured"
fi
say "done; $(find "$out" -type f | wc -l) files, $(du -sh "$out" | cut -f1)"
