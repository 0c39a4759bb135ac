#!/usr/bin/env bash
# Makes the shipped classifiers from nothing: training/all.sh DATA VOTES [CLIPS]
# DATA: FER-2013, image folders or fer2013.csv. VOTES: FER+ votes CSV. CLIPS: folder with the clip of a neutral speaker, for the card.
# Each step is left out where its result is there, and goes on where it was stopped: call it again after whatever happened.
# PYTHON: an interpreter with moodline[train]; OUT: where the models go, by default training/runs/models.
set -euo pipefail
data=$(realpath "$1") votes=$(realpath "$2") clips=${3:+$(realpath "$3")}
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python} runs=training/runs out=${OUT:-training/runs/models}
mkdir -p "$runs"
cp -u "$votes" "$runs/votes.csv"

train() { # a configuration's name
  [[ -f $runs/$1/result.json ]] || "$python" -c 'from moodline.services.cli.app import main; main()' train --config "training/configs/$1.toml" --data "$data" --resume
}
soft() { # a run's name, a file's name
  [[ -f $runs/$2 ]] || "$python" -m moodline.training.soft_labels --model "$runs/$1" --data "$data" --out "$runs/$2"
}
export_model() { # a run's name, the model's
  "$python" -m moodline.training.export --run "$runs/$1" --data "$data" --votes "$runs/votes.csv" --views mirror \
    ${clips:+--clips "$clips"} --name "$2" --out "$out/$2"
}

# fer-1: from random weights, by the labels alone.
train shipped
soft shipped soft.npz
train shipped-2
soft shipped-2 soft-2.npz
train shipped-3
[[ -f $runs/fer-1/result.json ]] ||
  "$python" -m moodline.training.soup --run "$runs/shipped-2" --run "$runs/shipped-3" --data "$data" --out "$runs/fer-1"

# fer-2-small: from there, by people's votes and the labels.
train fer-2-small-1
train fer-2-small
# The moving average as of the last epoch: of two mirrored views it is better than the epoch that was best with one.
[[ -f $runs/fer-2-small-last/result.json ]] ||
  "$python" -m moodline.training.soup --run "$runs/fer-2-small" --data "$data" --out "$runs/fer-2-small-last"
export_model fer-2-small-last fer-2-small

# fer-2: a larger network, which begins as fer-2-small.
[[ -f $runs/fer-2-start/result.json ]] ||
  "$python" -m moodline.training.widen --run "$runs/fer-2-small-last" --kind large --data "$data" --out "$runs/fer-2-start"
soft fer-2-small-last soft-fer-2-small.npz
train fer-2
export_model fer-2 fer-2
