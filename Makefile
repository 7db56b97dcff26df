# The few words of this project: make help lists them.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; \
	done; echo python3)
JOBS   ?= $(shell nproc 2>/dev/null || echo 1)
BIN    := .venv/bin
TESTS  ?= tests
CONF   ?= conf/quickstart.conf
FUZZ_SECONDS ?= 60
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
SOURCES := setup.py $(shell find proxy -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' 2>/dev/null)
# as root, workers would become "nobody" and could not read a checkout below /root
AS_ROOT := $(if $(filter 0,$(shell id -u)),-g "user root;")

.PHONY: help run build build-debug test bench bench-functions bench-protocols bench-quick bench-micro bench-faults fuzz lint docs clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: .stamp-needs-run build ## build, then serve conf/quickstart.conf (or CONF=FILE) in the foreground
	@mkdir -p var
	@echo
	@echo "Headrace listens on http://127.0.0.1:8080 (Ctrl-C ends it). In another terminal, try:"
	@sed -n 's/^# try: /    /p' $(CONF)
	@echo
	@exec $(BIN)/python -m proxy -p . -c $(CONF) $(AS_ROOT)

# bytecode beside the sources, as pip leaves it: without, each start compiles for 100 ms
BYTECODE := $(BIN)/python -m compileall -q proxy

build: .stamp-needs-run .stamp-release ## compile, in place, for speed
	@$(BYTECODE)

build-debug: .stamp-needs-run .stamp-debug ## compile, in place, with the checks that tests run with
	@$(BYTECODE)

test: .stamp-needs-test .venv/.has-test .stamp-debug ## everything that must hold
	@$(BYTECODE)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

bench: .stamp-needs-bench .venv/.has-bench build ## CPU and memory beside nginx, HAProxy and Envoy
	$(BIN)/python bench/run.py

bench-functions: .stamp-needs-bench .venv/.has-test build ## what functions cost: cold, bursts, faults, calls
	$(BIN)/python bench/functions.py --write

bench-protocols: .stamp-needs-bench .venv/.has-bench build ## gRPC, WebSockets, MQTT, and what waits
	$(BIN)/python bench/protocols.py --write

bench-quick: .stamp-needs-bench .venv/.has-bench build ## the same in a minute, less exact
	$(BIN)/python bench/run.py --quick

bench-micro: .venv/.has-test build ## parser, router and bucket alone
	$(BIN)/python -m pytest bench/micro.py --benchmark-columns=median,iqr,ops,rounds

bench-faults: .stamp-needs-bench build ## reloads and killed workers under load: what clients notice
	$(BIN)/python bench/faults.py

fuzz: .stamp-needs-test .venv/.has-test .stamp-debug ## codecs against their oracles, FUZZ_SECONDS each
	@for target in tests/*/fuzz_*.py; do \
		echo "$$target"; \
		PYTHONPATH=.:tests $(BIN)/python $$target $(FUZZ_SECONDS) || exit 1; \
	done

lint: .venv/.has-test ## style and types
	$(BIN)/ruff check proxy tests bench conf setup.py
	$(BIN)/mypy
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/cython-lint proxy

docs: .venv/.has-build build ## write conf/DIRECTIVES.md from the declarations
	$(BIN)/python -m proxy.conf.reference > conf/DIRECTIVES.md.new
	mv conf/DIRECTIVES.md.new conf/DIRECTIVES.md

clean: ## remove what was built; .venv stays
	rm -rf build dist *.egg-info .stamp-* .pytest_cache .mypy_cache .ruff_cache
	find proxy -name '*.so' -delete
	find proxy -name '*.pyx' | sed 's/pyx$$/c/' | xargs rm -f

# -- stamps: what was done once and need not be done again ---------------------------------------
.stamp-needs-run: .ci/needs
	@.ci/needs run $(PYTHON)
	@touch $@

.stamp-needs-test: .ci/needs
	@.ci/needs test $(PYTHON)
	@touch $@

.stamp-needs-bench: .ci/needs
	@.ci/needs bench $(PYTHON)
	@touch $@

$(BIN)/python: | .stamp-needs-run
	$(PYTHON) -m venv .venv

.venv/.has-build: pyproject.toml | $(BIN)/python
	$(PIP) install $$($(BIN)/python .ci/requirements.py build)
	@touch $@

.venv/.has-test: pyproject.toml .venv/.has-build
	$(PIP) install $$($(BIN)/python .ci/requirements.py test)
	@touch $@

.venv/.has-bench: pyproject.toml .venv/.has-build
	$(PIP) install $$($(BIN)/python .ci/requirements.py bench)
	@touch $@

# One build stands in the tree at a time: changing between the two compiles everything again.
.stamp-release: $(SOURCES) | .venv/.has-build
	$(BIN)/python setup.py -q build_ext --inplace -j $(JOBS) $(if $(wildcard .stamp-debug),--force)
	@rm -f .stamp-debug && touch $@

.stamp-debug: $(SOURCES) | .venv/.has-build
	HEADRACE_DEBUG=1 $(BIN)/python setup.py -q build_ext --inplace -j $(JOBS) \
		$(if $(wildcard .stamp-debug),,--force)
	@rm -f .stamp-release && touch $@
