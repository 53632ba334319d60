# nognet: `make help` lists the targets.
VENV    ?= .venv
WORKERS ?= 2
PYTHON  ?= python3
DEMO    ?= data/demo
SEED    ?= 1
RUN     := $(VENV)/bin
READY   := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
# One thread a process: on few cores, processes side by side are faster than threads that wait.
export OMP_NUM_THREADS ?= 1
export FLWR_TELEMETRY_ENABLED ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo demo-deployed test lint types test-fast test-federation fault-matrix test-slow test-real bench bench-overhead bench-robustness docs golden clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt deploy/setup_venv.sh
	PYTHON=$(PYTHON) deploy/setup_venv.sh $(VENV)
	@touch $@

$(READY_DEV): $(READY)
	PYTHON=$(PYTHON) deploy/setup_venv.sh $(VENV) dev
	@touch $@

demo: $(READY) ## three phantom hospitals: DICOM, pairs, federation, report (about 5 minutes); CHAOS="drop:hospital_b@3" lets sites fail
	PATH="$(abspath $(RUN)):$$PATH" sh deploy/demo/demo.sh $(DEMO) $(SEED) "$(CHAOS)"

demo-deployed: $(READY) ## the demo as processes over TLS on this machine; CHAOS as above
	PATH="$(abspath $(RUN)):$$PATH" sh deploy/demo/deployed.sh $(DEMO) $(SEED) "$(CHAOS)"

# What starts processes runs alone; the rest a file on each core.
test: lint types ## lint, types, then every test but the slow ones, with branch coverage
	$(RUN)/python -m pytest -m "not slow and not real_data and not gpu and not federation" -n $(WORKERS) --dist loadfile \
		--cov --cov-report= --cov-fail-under=0
	$(RUN)/python -m pytest -m "federation and not slow" --cov --cov-append --cov-report=term:skip-covered

lint: $(READY_DEV) ## ruff (format and lint) and the import contracts
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/lint-imports

types: $(READY_DEV) ## mypy, strict
	$(RUN)/mypy

test-fast: $(READY_DEV) ## the tests without processes, without coverage
	$(RUN)/python -m pytest -m "not slow and not real_data and not gpu and not federation" -q

test-federation: $(READY_DEV) ## server and clients as processes over TLS on loopback
	$(RUN)/python -m pytest -m federation

fault-matrix: $(READY_DEV) ## every process killed in every phase of a round (about 33 minutes); the table of docs/reliability.md
	$(RUN)/python -m pytest tests/federation/test_fault_matrix.py --fault-table faults.md

test-slow: $(READY_DEV) ## the tests that take more than a few seconds
	$(RUN)/python -m pytest -m slow

test-real: $(READY_DEV) ## tests on real CT in $$NOGNET_REAL_DATA (default ../shared/data)
	$(RUN)/python -m pytest -m real_data

bench: $(READY_DEV) ## time and memory of the steps of the way; figures for docs/benchmarks.md
	$(RUN)/nognet benchmark step

bench-robustness: $(READY_DEV) ## one bad site among seven, strategy by strategy (about 10 minutes); figures for docs/benchmarks.md
	$(RUN)/python -m nognet_server.robustness --out runs/robustness --force --commit "$$(git rev-parse HEAD)"

golden: $(READY_DEV) ## write the figures of the golden runs anew; look at the diff before committing
	$(RUN)/python -m pytest -q --regenerate-golden tests/federation/test_simulation_command.py -k stored_figures
	git diff --stat -- tests

bench-overhead: $(READY_DEV) ## a round's seconds that are not work, beside a plain Flower app (about 5 minutes); fails above half of its
	$(RUN)/python -m tests.overhead

docs: $(READY) ## the JSON Schemas of the configuration files, into docs/schema; docs/codes.md
	mkdir -p docs/schema
	$(RUN)/nognet config schema study > docs/schema/study.json
	$(RUN)/nognet config schema site > docs/schema/site.json
	$(RUN)/nognet inspect --codes > docs/codes.md

clean: ## remove caches, the demo's data and its run (not runs of your own)
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* dist
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
