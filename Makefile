# As root on Debian 12: `make demo` shows a relocation, `make test` runs every test.

SHELL := /bin/bash
# The virtual machine sees this host's files, so the interpreter must lie where every Debian has it.
PYTHON ?= /usr/bin/python3
PACKAGES := gcc python3-dev python3-venv numactl \
    qemu-system-x86 linux-image-amd64 busybox-static e2fsprogs file udev
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find schedhook plugins -type f -not -name '*.py[co]' -not -name '*.so')

# Tiers that need several NUMA nodes, and the Debian packages that only some tests need.
NUMA_TIERS := tests/numa tests/slurm
UNIT_PACKAGES := fish zsh
TIER_PACKAGES := apparmor dmsetup linux-perf munge slurmctld slurmd slurm-client clustershell \
    iproute2 systemd

.PHONY: bench demo fuzz man test check unit numa packages unit-packages tier-packages

demo: $(VENV)/installed
	$(BIN)/python -m tests.vm once --unless 2 --timeout 1200 -- demo/demo.sh $(abspath $(BIN))

# Every tier runs even if one failed; the summary counts a tier that did not run as a failure.
test:
	@rm -rf results
	@$(MAKE) --no-print-directory --keep-going check unit numa; status=$$?; \
	$(BIN)/python -m tests.vm summary unit $(notdir $(NUMA_TIERS)) && exit $$status

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy && $(BIN)/mypy --package schedhook_plugins

# Safe path: a test's `python -c` must find the installed schedhook, not the sources in front of it.
# More workers than processors: many tests wait, for a time limit or for each other's hooks.
unit: $(VENV)/installed unit-packages
	PYTHONSAFEPATH=1 $(BIN)/pytest -n 4 --dist loadfile tests/unit tests/contract tests/pbs \
	    --junit-xml=results/unit/junit.xml

numa: $(VENV)/installed tier-packages
	$(BIN)/python -m tests.numa.programs
	$(BIN)/python -m tests.vm test $(NUMA_TIERS)

man: $(VENV)/installed
	$(BIN)/python -P docs/man.py build/man

# A million inputs for each parser and the C core: an hour or so. FUZZ="--runs N TARGET" for less.
fuzz: $(VENV)/installed
	$(BIN)/pip install --quiet '.[fuzz]'
	$(BIN)/python -m tests.unit.fuzz $(FUZZ)

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

# build/ is setuptools' and keeps modules that are gone from the sources.
$(VENV)/installed: $(SOURCES) | packages
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -rf build
	$(BIN)/pip install --quiet '.[dev]' virtme-ng
	touch $@

# Installs what is missing. A foreign source that does not answer is no reason to stop.
define install
@missing=$$(for package in $(1); do \
    dpkg-query --show --showformat '$${Status}' $$package 2> /dev/null \
        | grep --quiet 'ok installed' || echo $$package; \
done); \
if [ -n "$$missing" ]; then \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update || true; \
    apt-get install --yes --no-install-recommends $$missing; \
fi
endef

packages:
	$(call install,$(PACKAGES))

unit-packages:
	$(call install,$(UNIT_PACKAGES))

tier-packages:
	$(call install,$(TIER_PACKAGES))
