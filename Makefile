# Everything starts here, on a machine that has Python 3.11, pip, make and git.
# .venv/stamps/X says that the environment holds what requirements/X.txt pins; a rerun with nothing changed costs nothing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMPS := .venv/stamps
# Compiled at once: else the first start of every program would wait for it.
UV_INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
PYTEST := $(BIN)/python -m pytest
# A worker takes a module after the other, so that what its tests share is made once; WORKERS=0 is one process, as for --pdb.
SPREAD = -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart=0
# Where bytecode is not kept, each of the hundreds of programs that tests start would be compiled anew.
unexport PYTHONDONTWRITEBYTECODE
# Behind a company's proxy the machine trusts its authority; uv asks the machine, as pip and curl do.
export UV_SYSTEM_CERTS ?= 1
ARGS ?=
WORKERS ?= 2
QUICK ?= --quick
PEER ?=
PLACEMENT_PEER ?=
GATEWAY_PEER ?=
TRACES ?=
TABLE ?=
VLLM ?= .cache/vllm
KIND ?= cpu

.PHONY: help demo test-fast test test-long check format bench performance vllm lock clean system-demo system-test

help: ## Show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMPS)/demo system-demo ## From an empty machine to a paid token: the whole road, on this machine
	@$(BIN)/bessemer demo $(ARGS)

test-fast: $(STAMPS)/dev ## Tests that need no server, guest or browser (2 minutes at most)
	@$(PYTEST) -m "not real and not long" $(SPREAD) $(ARGS)

test: $(STAMPS)/dev $(STAMPS)/npm-test $(STAMPS)/npm-issuer system-demo system-test $(STAMPS)/ldap ## All tests of CI, with the real guest, engine, kubectl and browser
	@$(PYTEST) -m "not long" $(SPREAD) --durations=10 $(ARGS)

test-long: vllm $(STAMPS)/dev $(STAMPS)/npm-long $(STAMPS)/npm-test $(STAMPS)/npm-issuer system-demo system-test $(STAMPS)/ldap ## Soaks, failover and crash matrices in full (TABLE=write keeps it)
	@HYPOTHESIS_PROFILE=default BESSEMER_LONG_TABLE=$(TABLE) VLLM=$(VLLM) $(PYTEST) -m long -o faulthandler_timeout=5400 $(ARGS)

check: $(STAMPS)/dev ## Format, lint, types and the direction of imports
	@failed=; \
	for command in "ruff format --check --quiet ." "ruff check ." mypy "lint-imports --no-cache"; do \
	    echo "== $$command"; \
	    $(BIN)/$$command || failed="$$failed, $${command%% -*}"; \
	done; \
	[ -z "$$failed" ] || { echo "Failed: $${failed#, }" >&2; exit 1; }

format: $(STAMPS)/dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMPS)/dev system-demo ## The programs of bench/, each within a minute, and what they say (QUICK= for full runs)
	@for program in bench/[a-z]*.py; do echo "== $$program"; $(BIN)/python "$$program" $(QUICK) $(ARGS); done

performance: $(STAMPS)/dev system-demo ## All of them in full, kept in docs/performance*.md: an hour of quiet (PEER=DIR, DATA=DIR)
	@$(BIN)/python bench/_report.py $(if $(PEER),--peer "$(PEER)") $(if $(PLACEMENT_PEER),--placement-peer "$(PLACEMENT_PEER)") $(if $(GATEWAY_PEER),--gateway-peer "$(GATEWAY_PEER)") $(if $(DATA),--data "$(DATA)") $(if $(TRACES),--traces "$(TRACES)") $(ARGS)

vllm: $(STAMPS)/bootstrap ## vLLM in an environment of its own, outside of the lock: 3 GB (VLLM=DIR, KIND=cuda)
	@tools/vllm $(VLLM) $(KIND)

lock: $(STAMPS)/bootstrap ## Pin requirements/*.txt anew (UPGRADE=--upgrade moves versions)
	@tools/lock

clean: ## Remove what make made: the environment, caches and state
	@for state in .state/*/; do if [ -x $(BIN)/bessemer ] && [ -d "$$state" ]; then $(BIN)/bessemer down --state "$$state" || true; fi; done
	@rm -rf .venv .state .cache .out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

system-demo:
	@tools/system-packages demo

system-test:
	@tools/system-packages demo test

# One environment for all; a set only adds to it, and the three files agree on every version (tools/lock sees to that).
$(STAMPS)/bootstrap: requirements/bootstrap.txt tools/bootstrap
	@tools/bootstrap
	@mkdir -p $(@D) && touch $@

# What npm alone has, by a lock of its own: tests/npm.
$(STAMPS)/npm-%: tests/npm/%/package-lock.json $(STAMPS)/dev
	@echo "Installing tests/npm/$* into .cache/npm"
	@$(BIN)/python -m tests.npm $*
	@touch $@

# It is built against what system-test installs.
$(STAMPS)/ldap: | system-test $(STAMPS)/dev

$(STAMPS)/%: requirements/%.txt $(STAMPS)/bootstrap pyproject.toml
	@echo "Installing requirements/$*.txt into .venv"
	@$(UV_INSTALL) --require-hashes -r $<
	@$(UV_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
