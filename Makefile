# Everything a fresh machine needs: `make demo` for the result, `make test` for the proof.
# The environment is made once in .venv; a stamp file there says which part of it is complete.

VENV := .venv
PY := $(VENV)/bin/python
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
PIP := $(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt
# Address of a package index that holds CPU builds of torch, for machines whose default index has none.
TORCH_INDEX ?=
# Tests run side by side, one thread each.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); [ $$n -gt 4 ] && n=4; echo $$n)

.DEFAULT_GOAL := help
.PHONY: help install demo demo-scenes test test-fast test-npu test-torch-npu lint types floors audit docs docs-check ship constraints clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(VENV)/.installed-demo ## Make .venv and install the package with pinned versions

demo: install ## Make the digits data, train three stages, evaluate, write the report
	$(BIN)/mllm-npu data digits --out data/digits
	$(BIN)/mllm-npu train experiment=digits
	$(BIN)/mllm-npu evaluate runs/digits
	@echo "The report is in runs/digits/report.html, its figures are in runs/digits/report.json"

demo-scenes: install ## The same for the scenes world
	$(BIN)/mllm-npu data scenes --out data/scenes
	$(BIN)/mllm-npu train experiment=scenes
	$(BIN)/mllm-npu evaluate runs/scenes
	@echo "The report is in runs/scenes/report.html, its figures are in runs/scenes/report.json"

test: lint types floors ## Lint, types, floors and every test
# Servers and browsers are started once for a file, so a file stays on one worker.
	$(BIN)/pytest -n $(JOBS) --dist loadfile tests/serve tests/commands/test_serving.py
	$(BIN)/pytest -n $(JOBS) --ignore=tests/serve --ignore=tests/commands/test_serving.py

test-fast: $(VENV)/.installed-dev ## The tests that take less than ten seconds each
	$(BIN)/pytest -n $(JOBS) -m "not slow"

test-npu: $(VENV)/.installed-dev ## The package on the simulated NPU (part of test)
	$(BIN)/pytest -n $(JOBS) tests/npusim

test-torch-npu: $(VENV)/.installed-dev ## The package on the real torch_npu with stand-ins for CANN (44 MB)
	$(PY) scripts/torch_npu_job.py

lint: $(VENV)/.installed-dev ## Style of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## Types of the package
	$(BIN)/mypy

floors: $(VENV)/.installed-dev ## Imports go down only
	$(BIN)/lint-imports

audit: $(VENV)/.installed-dev ## Licences, pins and known vulnerabilities of all dependencies
	-test -x .venv-audit/bin/pip-audit || { sh scripts/make_venv.sh .venv-audit && .venv-audit/bin/python -m pip install -qq pip-audit; }
	$(PY) scripts/audit_dependencies.py

docs: $(VENV)/.installed-dev ## Build the documentation into site/, English and Chinese
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The pages are in site/index.html; with search: $(PY) -m http.server -d site"

ship: install ## Put the model that make demo has trained into the package, with its hashes
	$(BIN)/mllm-npu zoo ship runs/digits --as digits

docs-check: $(VENV)/.installed-dev ## Commands, paths and options named in the documentation exist
	$(BIN)/pytest tests/architecture/test_docs.py

constraints: $(VENV)/.installed-dev ## Write constraints.txt from what is installed in .venv
	$(PY) scripts/freeze_constraints.py

clean: ## Remove caches and build outputs; .venv, data and runs stay
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find mllm_npu tests scripts demo benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	sh scripts/make_venv.sh $(VENV)

# torch goes first and alone, so that no later requirement can choose another build of it.
$(VENV)/.installed-torch: constraints.txt | $(PY)
	sh scripts/install_torch.sh $(PY) $(TORCH) $(TORCH_INDEX)
	@touch $@

$(VENV)/.installed-demo: pyproject.toml $(VENV)/.installed-torch
	$(PIP) -e ".[demo,serve]"
	$(PY) scripts/install_page.py
	$(PY) scripts/check_install.py
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed-torch
	sh scripts/install_compiler.sh $(PY)
	sh scripts/install_browser.sh
	$(PIP) -e ".[dev]"
	$(PY) scripts/install_page.py
	$(PY) scripts/check_install.py
	@touch $@
