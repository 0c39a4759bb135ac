# Moodline's chores. `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Extras stay in the locks, and one version serves all Pythons where there is one: docs/decisions/0007-locks.md.
UV_VERSION := 0.13.9
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-strip-extras --fork-strategy fewest
LOCK_PART = $(COMPILE) --constraint requirements.lock
# What every distributed worker needs. Each part is locked to the versions that the tests run with.
WORKER = --extra kafka --extra redis --extra tracing

# Tests wait more than they reckon, so two share even one core well; a file's tests stay together, for they share fixtures.
TEST_WORKERS ?= 2
PYTEST = MOODLINE_TEST_KAFKA_LIBS=$(CURDIR)/.local/kafka/libs $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

SERVER_TESTS = tests/integration tests/files tests/cameras_of_the_world tests/security tests/e2e tests/clusters tests/chaos

# Installers of the past, which tests hold every lock against.
OLD_PIPS := $(wildcard tests/old-pips/*.lock)

.DEFAULT_GOAL := help
.PHONY: help install demo camera test lint test-unit system kafka kubernetes-tools services services-stop chaos chaos-kafka test-clusters test-pythons bench lock dist sbom train clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|'

$(VENV)/.installed: requirements.lock requirements-installer.lock $(OLD_PIPS) pyproject.toml
	deploy/local/virtual-environment.sh "$(PYTHON)" $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
	for lock in $(OLD_PIPS); do $(BIN)/python -m pip install --quiet --no-deps --upgrade --require-hashes \
		--target $(VENV)/old-pips/$$(basename $$lock .lock) -r $$lock || exit; done
	touch $@

# What the service needs to run in one process: no TensorFlow, no test tools.
$(VENV)/.embedded: requirements-embedded.lock requirements-installer.lock pyproject.toml
	deploy/local/virtual-environment.sh "$(PYTHON)" $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-embedded.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
	touch $@

install: $(VENV)/.installed ## Make the virtual environment with everything pinned

demo: $(VENV)/.embedded ## Run the embedded service on a built-in sample: its timeline as a table and a PNG
	$(BIN)/moodline demo --plot out/demo.png

camera: $(VENV)/.embedded ## Serve a camera to try things out: CLIP=path, or a built-in scene
	$(BIN)/moodline camera $(CLIP)

test: $(VENV)/.installed system kafka kubernetes-tools lint ## Install what tests need (Kafka, Redis, …) and run all of them
	@failed=0; \
	$(PYTEST) -n $(TEST_WORKERS) -m 'not quiet' -p no:schemathesis --cov --cov-report= tests/unit tests/contract || failed=1; \
	coverage=$$($(BIN)/coverage report --format=total) || failed=1; \
	echo "Branch coverage of the product by tests/unit and tests/contract: $$coverage%"; \
	$(PYTEST) -n $(TEST_WORKERS) -m 'not quiet' $(SERVER_TESTS) || failed=1; \
	$(PYTEST) -m quiet || failed=1; \
	exit $$failed

test-pythons: $(VENV)/.installed ## Run the embedded service on every supported Python that is found
	MOODLINE_TEST_PYTHONS=all $(BIN)/python -m pytest tests/e2e/test_pythons.py

test-unit: $(VENV)/.installed ## Run the tests of single units, without sockets, processes and networks, in seconds
	$(BIN)/python -m pytest -n logical --dist loadfile -p no:schemathesis --hypothesis-profile=quick -m 'not outside and not slow and not quiet' tests/unit

lint: $(VENV)/.installed ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile

system: ## Install Debian packages that tests need (root only; elsewhere it says what is missing)
	deploy/local/system-packages.sh

kafka: system ## Fetch Apache Kafka's artefacts into .local/
	deploy/local/kafka-setup.sh

# Needs Go; without it, and outside of CI, the tests of the chart are skipped.
kubernetes-tools: ## Build helm and kubeconform into .local/
	deploy/local/kubernetes-tools.sh || [ "$$CI" != true ]

services: system kafka ## Start Kafka and Redis as local processes, no Docker
	deploy/local/services.sh start

services-stop: ## Stop them
	deploy/local/services.sh stop

chaos: $(VENV)/.installed system kafka ## Kill, pause and restart everything for a long time and compare timelines
	MOODLINE_TEST_KAFKA_LIBS=$(CURDIR)/.local/kafka/libs MOODLINE_TEST_CHAOS=long $(BIN)/python -m pytest tests/chaos -v -s

chaos-kafka: $(VENV)/.installed ## Answer Kafka requests with errors at random: SEED=1 MINUTES=60
	MOODLINE_TEST_CHAOS_SEED=$(or $(SEED),1) MOODLINE_TEST_CHAOS_MINUTES=$(or $(MINUTES),60) $(BIN)/python -m pytest tests/chaos/test_kafka_faults.py -v -s

test-clusters: $(VENV)/.installed system kafka ## Let brokers and Redis nodes die for long, and compare timelines
	MOODLINE_TEST_KAFKA_LIBS=$(CURDIR)/.local/kafka/libs MOODLINE_TEST_CLUSTERS=long $(BIN)/python -m pytest tests/clusters -v -s

bench: $(VENV)/.installed system kafka ## Measure the pipeline against a hand-written loop
	$(BIN)/python -m bench.pipeline
	$(BIN)/python -m bench.store
	$(BIN)/python -m bench.registry
	$(BIN)/python -m bench.cameras
	$(BIN)/python -m bench.api
	$(BIN)/python -m bench.scaling

# Needs moodline[train]. Hours; call it again after an interruption.
train: ## Train the shipped classifier from nothing: DATA=fer2013 VOTES=ferplus-votes.csv CLIPS=folder
	PYTHON=$(BIN)/python training/all.sh $(DATA) $(VOTES) $(CLIPS)

lock: ## Resolve the dependencies again and pin them with their hashes
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	echo 'setuptools>=77' | $(COMPILE) --extra dev pyproject.toml - -o requirements.lock
	echo 'pip' | $(COMPILE) - -o requirements-installer.lock
	echo 'setuptools>=77' | $(LOCK_PART) --extra embedded pyproject.toml - -o requirements-embedded.lock
	$(LOCK_PART) $(WORKER) pyproject.toml -o deploy/requirements/aggregator.lock
	$(LOCK_PART) $(WORKER) --extra pictures pyproject.toml -o deploy/requirements/pictures.lock
	$(LOCK_PART) $(WORKER) --extra detector pyproject.toml -o deploy/requirements/detector.lock
	$(LOCK_PART) $(WORKER) --extra ingest pyproject.toml -o deploy/requirements/ingest.lock
	$(LOCK_PART) $(WORKER) --extra classifier pyproject.toml -o deploy/requirements/classifier.lock
	$(LOCK_PART) $(WORKER) --extra api --extra ui --extra ingest pyproject.toml -o deploy/requirements/api.lock
	$(LOCK_PART) --extra ingest --extra sample pyproject.toml -o deploy/requirements/demo.lock
	echo 'setuptools>=77' | $(LOCK_PART) - -o deploy/requirements/build.lock
	echo 'tensorflow[and-cuda]>=2.20' | $(LOCK_PART) $(WORKER) --extra classifier pyproject.toml - -o deploy/requirements/classifier-gpu.lock

dist: $(VENV)/.installed ## Build the source distribution and the wheel into dist/
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(MAKE) sbom

sbom: ## Write dist/moodline.cdx.json, the bill of materials of what is installed (CycloneDX)
	mkdir -p dist && $(PYTHON) deploy/sbom.py requirements.lock > dist/moodline.cdx.json

clean: ## Remove the virtual environment, caches and local servers' data
	-deploy/local/services.sh stop
	rm -rf $(VENV) .local out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
