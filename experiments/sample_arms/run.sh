#!/usr/bin/env bash
# The demo's four arms over SEEDS paired seeds. Stopped, it goes on where it was; more seeds add their cells alone.
set -euo pipefail
fastmtl -m experiment=demo selection=none,random,feature_similarity,full "seed=range(${SEEDS:-3})"
