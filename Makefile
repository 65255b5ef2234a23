# Every target runs in .venv, which scripts/setup.sh makes on the first call and checks in well under a second later.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help run test check api bench bench-faults bench-operator histories cluster cluster-down e2e generate clean setup lint
.DEFAULT_GOAL := help

help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

run: setup ## train MNIST with a swarm of four on this machine; one particle is killed half-way
	swarm run examples/mnist/job.yaml --kill 2@50%

# Besides a bug, what may fail a test with processes is a machine that stands still for a while: it is run once more,
# for all to see. `make api` and `make e2e` give no second chance.
twice = pytest $(1) || { echo "make test: ONCE MORE, what failed of $(1):"; pytest $(1) --last-failed --lfnf=none; }

test: lint ## check, real processes killed, a real API server, five scenarios on kind
	$(call twice,tests/unit)
	$(call twice,tests/faults)
	$(call twice,tests/apiserver tests/controller)
	$(call twice,tests/e2e -m core)

api: setup ## CRD, chart and operator against a real API server; builds Kubernetes once, which takes a while
	pytest tests/apiserver tests/controller

check: lint ## format, lint, types, import rules, unit tests
	pytest tests/unit

histories: setup ## random histories of rounds by the ten thousand: the long form of a unit test
	pytest tests/unit/trainer/test_rounds_simulated.py --hypothesis-profile=histories --timeout=0

bench: setup ## every benchmark that needs no API server, one after the other
	@export PYTHONPATH=tests; for script in benchmarks/[!_]*.py; do echo "== $$script"; python "$$script" || exit; done

bench-faults: setup ## what kills, freezes and slow particles cost the others; a quarter of an hour
	PYTHONPATH=tests python benchmarks/faults.py --write
	PYTHONPATH=tests python benchmarks/crowd.py --write

bench-operator: setup ## the operator beside a bare client and the smallest kopf operator; builds Kubernetes once
	@PYTHONPATH=tests:benchmarks python benchmarks/controllers

cluster: setup ## a kind cluster with the operator in it; prints what to export
	@PYTHONPATH=tests python -m e2e up

cluster-down: setup ## remove every trace of it, caches excepted
	@PYTHONPATH=tests python -m e2e down

e2e: setup ## swarms on a cluster, and what may befall them
	pytest tests/e2e

generate: setup ## write what follows from the models: the CRD, its reference, the chart's README
	python -m swarm_api.crd
	python charts/readme.py

clean: ## remove .venv and the tools' caches; results in runs/ stay
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: ## make .venv, with torch and the program swarm; the other targets do this first
	@scripts/setup.sh

lint: setup
	ruff format --check
	ruff check
	mypy
	lint-imports
