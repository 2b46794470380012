# Every target does its own set-up, once: a virtual environment in .venv with the versions of constraints.txt.
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
ARTIFACTS ?= outputs/artifacts

BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS := minilm,wandb,tensorboard,surgery,bench,dev

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The stamp holds the folder it was made for: an environment that was moved or copied is made anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): again
endif

.DEFAULT_GOAL := help
.PHONY: help demo setup test test-slow check wheel first-results sample-arms bench proxy-economy autosem gc clean again

help: ## this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:[^#]*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## four ways to choose auxiliary rows on generated data, and their table: minutes, no network after set-up
	@$(BIN)/fastmtl -m experiment=demo selection=none,random,feature_similarity,full

setup: $(STAMP) ## the environment alone; the other targets see to it themselves
	@echo "ready: $(BIN)/fastmtl --help"

test: $(STAMP) ## the tests but for the slow ones
	@$(BIN)/python -m pytest -q

test-slow: $(STAMP) ## the tests that take longer
	@$(BIN)/python -m pytest -q -m slow

check: $(STAMP) ## lint, format, types and spelling; changes nothing
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "to format: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/typos
	@echo "check: clean"

wheel: $(STAMP) ## dist/fastmtl-*.whl
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation

first-results: $(STAMP) ## the runs behind the first results
	@PATH="$(abspath $(BIN)):$$PATH" bash experiments/first_results/run.sh

sample-arms: $(STAMP) ## the demo's arms over three seeds
	@PATH="$(abspath $(BIN)):$$PATH" bash experiments/sample_arms/run.sh

bench: $(STAMP) ## speed against the reference path and the machine's own bound: about a quarter of an hour
	@$(BIN)/python experiments/throughput/bench.py

proxy-economy: $(STAMP) ## what cheaper ways to score lose; GLUE=FOLDER for real rows, else the sample
	@$(BIN)/python experiments/proxy_economy/study.py $(if $(GLUE),--root $(GLUE))

autosem: $(STAMP) ## AutoSeM on the sample and, with GLUE=FOLDER, on real rows: an hour or two
	@$(BIN)/python experiments/autosem/study.py sample
	@$(if $(GLUE),$(BIN)/python experiments/autosem/study.py glue --root $(GLUE))
	@$(BIN)/python experiments/autosem/study.py report $(if $(GLUE),--root $(GLUE))

gc: $(STAMP) ## remove what killed runs left half-written among the artifacts; running ones keep theirs
	@$(BIN)/python -c "$$GC_SCRIPT" '$(ARTIFACTS)'

clean: ## remove .venv, build products and caches; outputs stay
	@rm -rf .venv dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name outputs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "fastmtl needs Python 3.11 or newer, which '$(PYTHON)' is not; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@{ test "$$(cat $@ 2>/dev/null)" = '$(CURDIR)' && $(BIN)/python -m pip --version >/dev/null 2>&1; } || \
	  $(PYTHON) -m venv --clear .venv >/dev/null 2>&1 || \
	  { echo "'$(PYTHON)' cannot create a virtual environment in .venv; install its venv module (Debian: python3-venv)" >&2; exit 1; }
	@echo "setting up .venv, once: takes minutes"
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	  $(BIN)/python -m pip install -qq --no-input -e '.[$(EXTRAS)]'
	@printf '%s\n' '$(CURDIR)' >$@

define GC_SCRIPT
import pathlib, shutil, sys
from filelock import FileLock, Timeout

root = pathlib.Path(sys.argv[1])
left = {(p.parent, p.name.split(".")[1]) for ending in ("draft", "lock") for p in root.glob(f"*/.*.{ending}")}
removed = 0
for stage, key in sorted(left):
    lock = stage / f".{key}.lock"
    try:
        with FileLock(lock, timeout=0):
            for draft in stage.glob(f".{key}.*.draft"):
                shutil.rmtree(draft, ignore_errors=True)
                removed += 1
            lock.unlink(missing_ok=True)
    except Timeout:
        print(f"in use: {stage.name}/{key}")
print(f"{removed} half-written artifacts removed from {root}")
endef
export GC_SCRIPT
