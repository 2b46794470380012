# Every target does its own set-up, once: a virtual environment in .venv with the versions of constraints.txt.
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
ARTIFACTS ?= outputs/artifacts
SCALE ?= smoke
WORKERS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS := minilm,wandb,tensorboard,surgery,launchers,bench,docs,dev

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# File by file in order: by the number of tests, as xdist has it, the few long ones would come last, on one core.
PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# The stamp holds the folder it was made for: an environment that was moved or copied is made anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): again
endif

.DEFAULT_GOAL := help
TABLES := table-budget table-runtime table-single-multi table-in-task table-loss table-proxy-size table-power table-primary-size
.PHONY: help demo setup test test-slow check docs wheel $(TABLES) table-autosem table-gains table-relations figure-tsne dashboard glue-submission \
  sample-arms transfer bench proxy-economy when-it-pays gc clean again
RUN_STUDY = @$(BIN)/python experiments/study.py $(1) --scale $(SCALE) $(if $(GLUE),--glue $(GLUE))

help: ## this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:[^#]*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## five ways to use auxiliary rows, over three seeds of generated data, and their page: minutes, no network after set-up
	@$(BIN)/fastmtl -m experiment=demo selection=none,primary_only,random,feature_similarity,full "seed=range(3)"

setup: $(STAMP) ## the environment alone; the other targets see to it themselves
	@echo "ready: $(BIN)/fastmtl --help"

test: $(STAMP) ## the tests but for the slow ones; WORKERS=N processes, ARGS="--no-bf16" as on a processor without bf16
	@$(PYTEST)

test-slow: $(STAMP) ## the tests that take longer
	@$(PYTEST) -m slow

check: $(STAMP) ## lint, format, types and spelling; changes nothing
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "to format: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/typos
	@echo "check: clean"

docs: $(STAMP) ## the documentation as a site, docs/_build/html/index.html; warnings are errors
	@rm -rf docs/_build
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

wheel: $(STAMP) ## dist/fastmtl-*.whl
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation

# Studies: SCALE=smoke (generated rows, a tiny encoder: a minute), cpu (GLUE=FOLDER, MiniLM: hours), full (BERT: days of a GPU)

table-budget: $(STAMP) ## score against budget, FastMTL's Figures 3-5; SCALE=smoke|cpu|full, GLUE=FOLDER for cpu
	$(call RUN_STUDY,budget)

table-runtime: $(STAMP) ## what each arm costs, stage by stage
	$(call RUN_STUDY,runtime)

table-single-multi: $(STAMP) ## single-task against multi-task, with the one-standard-deviation rule
	$(call RUN_STUDY,single_multi)

table-in-task: $(STAMP) ## feature similarity against random rows of the same tasks
	$(call RUN_STUDY,in_task_control)

table-loss: $(STAMP) ## cross-entropy against binary cross-entropy in the discriminator
	$(call RUN_STUDY,discriminator_loss)

table-proxy-size: $(STAMP) ## rows that the proxy is trained on
	$(call RUN_STUDY,proxy_size)

table-power: $(STAMP) ## low-resource primaries with large validation splits
	$(call RUN_STUDY,power)

table-primary-size: $(STAMP) ## gain against the number of the primary's rows: 100, 300, 1,000, all
	$(call RUN_STUDY,primary_size)

table-autosem: $(STAMP) ## AutoSeM's Tables 1-3 and posteriors
	@$(BIN)/python experiments/autosem/study.py all --scale $(SCALE) $(if $(GLUE),--root $(GLUE))

table-gains: $(STAMP) ## which task helps which, and what foretells it: SCALE, GLUE=FOLDER, MATRIX=glue|tagging
	@$(BIN)/python experiments/task_relations/gains.py $(or $(MATRIX),glue) --scale $(SCALE) $(if $(GLUE),--glue $(GLUE))

table-relations: $(STAMP) ## Bingel & Søgaard's gains and predictions from the logs of their runs: BINGEL=FOLDER
	@$(BIN)/python experiments/task_relations/study.py $(or $(BINGEL),$(error name the logs: make table-relations BINGEL=FOLDER))

figure-tsne: $(STAMP) ## pooled features without and with the task discriminator
	$(call RUN_STUDY,tsne)

dashboard: $(STAMP) ## W&B pages of a study: STUDY=NAME ENTITY=YOU PROJECT=fastmtl; DRY=1 writes what they would be
	@$(BIN)/python experiments/dashboard.py --study "$(STUDY)" --entity "$(ENTITY)" --project "$(or $(PROJECT),fastmtl)" \
	  $(if $(DRY),--dry-run)

glue-submission: $(STAMP) ## the GLUE server's zip: GLUE=FOLDER (else the Hub) TASKS=rte,mrpc OUT=x.zip ALLOW_MISSING=true ARGS="budget=500"
	@$(BIN)/python experiments/glue_submission/submission.py $(if $(TASKS),--tasks $(TASKS)) $(if $(OUT),--out $(OUT)) \
	  $(if $(filter true,$(ALLOW_MISSING)),--allow-missing) $(if $(GLUE),data=glue_local data.root=$(GLUE),data=glue) $(ARGS)

sample-arms: $(STAMP) ## the demo's arms over ten seeds; SEEDS=5 for five
	@PATH="$(abspath $(BIN)):$$PATH" bash experiments/sample_arms/run.sh

transfer: $(STAMP) ## how much of what the right rows are worth arrives: GLUE=FOLDER, ARGS="sst2 --seeds 2" for a part
	@$(BIN)/python experiments/transfer/study.py $(if $(GLUE),--glue $(GLUE)) $(ARGS)

bench: $(STAMP) ## speed against the reference path and the machine's own bound: about a quarter of an hour
	@$(BIN)/python experiments/throughput/bench.py

proxy-economy: $(STAMP) ## what cheaper ways to score lose; GLUE=FOLDER for real rows, else the sample
	@$(BIN)/python experiments/proxy_economy/study.py $(if $(GLUE),--root $(GLUE))

when-it-pays: $(STAMP) ## gain of chosen over random rows against the related share of the pile; GLUE=FOLDER, else a check in minutes
	@$(BIN)/python experiments/when_it_pays/study.py $(if $(GLUE),--glue $(GLUE)) $(ARGS)

gc: $(STAMP) ## list artifacts that no result needs, and what killed runs left; ARGS="--yes --older-than 30d" removes
	@$(BIN)/fastmtl gc --store '$(ARTIFACTS)' $(ARGS)

clean: ## remove .venv, build products and caches; outputs stay
	@rm -rf .venv dist build docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache
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
