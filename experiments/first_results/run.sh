#!/usr/bin/env bash
# The runs of README.md. ROOT is a folder with <task>/<split>.parquet of the GLUE tasks, SEEDS a number of seeds.
# Stopped, it goes on where it was; more seeds add their cells alone.
set -euo pipefail
ROOT=${ROOT:-../shared/glue}
SEEDS=${SEEDS:-2}
[ -d "$ROOT" ] || { echo "no folder $ROOT: set ROOT to a folder of GLUE Parquet files, or use data=glue" >&2; exit 2; }
fastmtl -m data=glue_local data.root="$ROOT" data.rows_per_task=8000 encoder=minilm primary=rte \
  selection=none,random,feature_similarity budget=4000 "seed=range($SEEDS)" \
  proxy.fit.epochs=2 multitask.fit.epochs=1 finetune.fit.epochs=2
