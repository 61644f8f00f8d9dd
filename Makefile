# `make serve` and `make test` are each enough on a machine that has python3 (3.11 or newer), pip and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install serve test lab guests bench conformance conformance-npm conformance-libuv lint format clean

help: ## show this list
	@echo "pyvmm: forks virtual machines"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-24s%s\n", $$1, $$2 }'

install: $(VENV)/.installed ## create .venv and install pyvmm into it

serve: $(VENV)/.installed ## answer on http://127.0.0.1:8080 (builds the template at the first start); SERVE="--port 9000"
	@exec $(BIN)/pyvmm serve $(SERVE)

# Without a usable /dev/kvm the template cannot be built: say why, and run the tests that do without.
test: $(VENV)/.installed-dev ## run the tests; TESTS="tests/kvm -k fork" for some of them
	-@$(BIN)/pyvmm template build python
	@$(BIN)/python -m pytest $(TESTS)

lab: $(VENV)/.installed-dev ## run tests on an emulated AMD host with hardware KVM (needs QEMU); LAB="process -x" for some of them
	@$(BIN)/pyvmm lab test $(LAB)

guests: ## assemble the teaching guests anew (needs GNU binutils); only for who changes them
	@$(MAKE) --no-print-directory -C guest/bare

bench: $(VENV)/.installed-dev ## measure forks against their floors and print the ratios
	@$(BIN)/python -m bench $(BENCH)

conformance: $(VENV)/.installed-dev ## run CPython's own suite in forks against the host; CONFORMANCE="--tier A"
	@$(BIN)/python -m tests.conformance $(CONFORMANCE)

conformance-npm: $(VENV)/.installed-dev ## run the tests of npm packages in forks against the host (needs npm); CONFORMANCE="qs"
	@$(BIN)/python -m tests.conformance.npm $(CONFORMANCE)

conformance-libuv: $(VENV)/.installed-dev ## run libuv's own tests in forks against the host (needs CMake and a C compiler)
	@$(BIN)/python -m tests.conformance.libuv $(CONFORMANCE)

# mypy knows nothing of import hooks, so api/ and guest/ are shown to it under their import names through links.
lint: $(VENV)/.installed-dev ## ruff (rules and format) and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@rm -rf build/types && mkdir -p build/types/pyvmm
	@ln -s $(CURDIR)/pyvmm/* $(CURDIR)/api $(CURDIR)/guest build/types/pyvmm/
	@MYPYPATH=build/types $(BIN)/mypy -p pyvmm

format: $(VENV)/.installed-dev ## let ruff put the code into shape
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

clean: ## remove .venv and everything that was made in the checkout (templates in the cache stay)
	rm -rf $(VENV) build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Some Debian machines have python3 without ensurepip (package python3-venv): the host's pip or virtualenv then fills the venv.
$(VENV)/.created:
	@rm -rf $(VENV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pyvmm needs Python 3.11 or newer: $(PYTHON) is `$(PYTHON) -V 2>&1`; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "==> creating $(VENV)"
	@if $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -m virtualenv --version >/dev/null 2>&1; then $(PYTHON) -m virtualenv --quiet $(VENV); \
	elif $(PYTHON) -m venv --without-pip $(VENV) 2>/dev/null && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; then :; \
	else rm -rf $(VENV); echo "cannot make a virtual environment: this Python has neither ensurepip nor virtualenv nor a pip that can" \
	  "fill one. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; fi
	@touch $@

$(VENV)/.installed: pyproject.toml setup.py | $(VENV)/.created
	@echo "==> installing pyvmm into $(VENV)"
	@$(PIP) install --progress-bar on --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml setup.py | $(VENV)/.created
	@echo "==> installing pyvmm and its tools for tests into $(VENV)"
	@$(PIP) install --progress-bar on --editable '.[dev]'
	@touch $@ $(VENV)/.installed
