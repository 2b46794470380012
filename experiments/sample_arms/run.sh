#!/usr/bin/env bash
# The demo's five arms over SEEDS paired seeds. Rerun it to resume; more seeds add their cells alone.
set -euo pipefail
fastmtl -m experiment=demo selection=none,primary_only,random,feature_similarity,full "seed=range(${SEEDS:-10})"
