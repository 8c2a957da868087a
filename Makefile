# As root on Debian 12: `make demo` shows a relocation, `make test` runs every test.

SHELL := /bin/bash
# The virtual machine sees this host's files, so the interpreter must lie where every Debian has it.
PYTHON ?= /usr/bin/python3
PACKAGES := gcc libc6-dev python3-dev python3-venv numactl \
    qemu-system-x86 linux-image-amd64 busybox-static e2fsprogs file udev
VENV := .venv
EDITABLE ?= --editable
BIN := $(VENV)/bin
# What an editable install has to be made anew for: the C core and the packages it needs.
C_FILES = $(shell git ls-files "*.c" "*.h")
SOURCES := pyproject.toml $(wildcard schedhook/*/*.[ch] schedhook/*/*/*.[ch])

# The Debian packages that only some tests need.
DEB_PACKAGES := debhelper dpkg-dev mmdebstrap
RPM_PACKAGES := python3-pip rpm rpmlint
UNIT_PACKAGES := chromium fish openssl prometheus zsh
TIER_PACKAGES := apparmor dmsetup libslurm-dev linux-perf munge slurmctld slurmd slurm-client openssh-server \
    iproute2 systemd redis-server postgresql stress-ng util-linux-extra openssh-client xfsprogs
# Newer kernels than the distribution's own, which the tests run on by default: the newest of these
# suites.
KERNELS := build/kernels/bookworm-backports build/kernels/trixie-backports
# Root directories with Debian 13 and sid, in which tests run on their kernel, Slurm and Python.
TRIXIE := build/roots/trixie-tests
SID := build/roots/sid-tests
# A root for arm64, with Debian 13's kernel that has pages of 16 KiB: its programs run emulated.
ARM64 := build/roots/arm64-tests
ARM64_PACKAGES := gcc libc6-dev python3-dev python3-venv numactl busybox-static e2fsprogs udev linux-image-arm64-16k \
    $(filter-out libslurm-dev munge slurm% openssh-server,$(TIER_PACKAGES))
# What `make test` runs there: the kernel's contract, and of Slurm's tier what a newer Slurm may change.
ON_TRIXIE := tests/contract tests/numa/test_contract_native.py \
    $(patsubst %,tests/slurm/test_%.py,job_migrate second_step names restarts hooks)

.PHONY: ansible bench chaos check deb deb-test demo dist docs fuzz man matrix mutants numa rpm test unit versions \
    arm64 packages deb-packages rpm-packages unit-packages tier-packages compiled trixie sid guide-test

demo: $(VENV)/installed compiled
	$(BIN)/python -m tests.vm once --unless 2 --timeout 1200 -- demo/demo.sh $(abspath $(BIN))

# Every tier runs even if one failed; the summary counts a tier that did not run as a failure.
test:
	@rm -rf results
	@$(MAKE) --no-print-directory --keep-going EDITABLE= check docs dist unit numa; status=$$?; \
	$(BIN)/python -m tests.vm summary unit numa-1 numa-2 numa-3 numa-dirty numa-test_memory_only.py \
	    slurm $(notdir $(TRIXIE)) && exit $$status

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy && $(BIN)/mypy --package schedhook_plugins && $(BIN)/mypy benchmarks
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

# All unit tests, or with T=PATH those of one file or folder.
# Safe path: a test's `python -c` must find the installed schedhook, not the sources in front of it.
# More workers than processors: many tests wait, for a time limit or for each other's hooks.
ifdef T
unit: $(VENV)/installed
	PYTHONSAFEPATH=1 $(BIN)/pytest $(T)
else
unit: $(VENV)/installed unit-packages
	PYTHONSAFEPATH=1 $(BIN)/pytest -n 4 --dist loadfile tests/unit tests/contract tests/pbs \
	    --junit-xml=results/unit/junit.xml
endif

# If there is no root with Debian 13, the other guests run all the same. Not `$(MAKE)`, for which
# `make -n` would run these lines.
numa: $(VENV)/installed tier-packages compiled
	$(BIN)/python -m tests.numa.programs
	status=0; \
	make --no-print-directory trixie || status=1; \
	$(BIN)/python -m tests.vm test tests/slurm --in-parts tests/numa --dirty tests/numa \
	    --elsewhere $(TRIXIE) $(ON_TRIXIE) || status=1; \
	$(BIN)/python -m tests.vm test --force-vm --memory-only 1 tests/numa/test_memory_only.py \
	    || status=1; \
	exit $$status

# Slurm on cgroups of version 1; huge pages of 1 GiB, on large nodes; Slurm and the kernel's contract
# on Debian 13 and on sid, and each situation of a page on sid's kernel; tests/numa on arm64 with
# pages of 16 KiB; and on every kind of host: clean and dirty, without NUMA balancing and with it, on
# the distribution's kernel and on those of the backports. Some hours.
matrix: $(VENV)/installed tier-packages compiled trixie $(KERNELS:%=%/done)
	$(BIN)/python -m tests.numa.programs
	status=0; \
	$(BIN)/python -m tests.vm test tests/slurm_v1 || status=1; \
	$(BIN)/python -m tests.vm test --force-vm --mib-per-node 6144 --gib-pages 3 \
	    tests/numa/test_folios.py || status=1; \
	$(BIN)/python -m tests.vm test --root $(TRIXIE) tests/slurm tests/contract \
	    tests/numa/test_contract_native.py || status=1; \
	make --no-print-directory sid && \
	    $(BIN)/python -m tests.vm test --root $(SID) tests/slurm tests/contract \
	    tests/numa/test_contract_native.py tests/numa/test_page_situations.py || status=1; \
	make --no-print-directory arm64 && \
	    $(BIN)/python -m tests.vm test --root $(ARM64) --mib-per-node 2560 --timeout 9000 \
	    tests/contract --in-parts tests/numa || status=1; \
	$(BIN)/python -m tests.vm matrix tests/numa --with $(KERNELS:%=%/boot/vmlinuz-*) || status=1; \
	exit $$status

$(KERNELS:%=%/done): build/kernels/%/done:
	tests/vm/debian_kernel.sh $* $(@D)
	touch $@

# $(call in_root,ROOT) COMMAND: run it in a root directory, with this project in /mnt, where it does
# not hide the environment.
in_root = unshare --mount bash -c 'mount --bind . $(1)/mnt && \
    exec chroot $(1) env --chdir=/mnt "$$@"' in_root

# The stable interface makes the C core one for all versions of Python: what is installed here is
# installed there, be it a copy or the sources where they stand.
trixie sid: %: build/roots/%-tests/done compiled
	rm -rf $(<D)$(abspath $(VENV))/lib/python3*/site-packages/*schedhook*
	cp -a $(VENV)/lib/python3*/site-packages/*schedhook* \
	    $(<D)$(abspath $(VENV))/lib/python3*/site-packages/
	unshare --mount bash -c 'mount --bind . $(<D)$(CURDIR) && chroot $(<D) \
	    python3 -P -m compileall -q $(addprefix $(CURDIR)/,schedhook plugins tests)'

# Under emulation the tests' programs are made here: in the guest the compiler takes minutes.
arm64: $(ARM64)/done $(VENV)/installed
	$(call in_root,$(ARM64)) $(abspath $(BIN))/pip install --quiet --no-deps --no-build-isolation .
	$(call in_root,$(ARM64)) $(abspath $(BIN))/python -m tests.numa.programs --page 16384
	$(call in_root,$(ARM64)) python3 -P -m compileall -q plugins tests

$(ARM64)/done: tests/vm/debian_root.sh pyproject.toml | $(VENV)/installed deb-packages arm64-packages
	ARCH=arm64 tests/vm/debian_root.sh trixie $(@D) $(ARM64_PACKAGES)
	$(call in_root,$(@D)) python3 -m venv $(abspath $(VENV))
	$(call in_root,$(@D)) $(abspath $(BIN))/pip install --quiet ".[test]"
	touch $@

build/roots/%-tests/done: tests/vm/debian_root.sh pyproject.toml | $(VENV)/installed deb-packages
	tests/vm/debian_root.sh $* $(@D) \
	    $(filter-out qemu-system-x86 python3-dev,$(PACKAGES)) $(TIER_PACKAGES)
	mkdir $(@D)/wheel
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(@D)/wheel .
	chroot $(@D) python3 -m venv $(abspath $(VENV))
	wheel=$$(cd $(@D) && echo wheel/*.whl) && \
	    chroot $(@D) $(abspath $(VENV))/bin/pip install --quiet "/$$wheel[test]"
	touch $@

# An hour of everything at random, where `make test` has two minutes; a hundred random kills of each
# kind, as many rebinds of memory policies, and two hundred job-migrates. CHAOS=600, KILLS=1000,
# REBINDS=1000 and MIGRATIONS=1000 for less or more; SEED=N, which is printed, for the same again.
CHAOS ?= 3600
KILLS ?= 100
REBINDS ?= 100
MIGRATIONS ?= 200
SEED := $(or $(SEED),$(shell date +%s))
chaos: $(VENV)/installed tier-packages compiled
	@echo "SEED=$(SEED)"
	SCHEDHOOK_SEED=$(SEED) SCHEDHOOK_CHAOS_SECONDS=$(CHAOS) \
	    SCHEDHOOK_KILLS=$(KILLS) SCHEDHOOK_REBINDS=$(REBINDS) SCHEDHOOK_MIGRATIONS=$(MIGRATIONS) \
	    $(BIN)/python -m tests.vm test \
	    --timeout 14400 tests/numa/test_chaos.py $(wildcard tests/numa/test_killed*.py) \
	    tests/numa/test_rebind_disturbed.py tests/slurm/test_killed.py \
	    tests/slurm/test_back_and_forth.py

# Small changes of the modules that guard jobs, one at a time: do the unit tests notice? Some hours;
# MUTANTS="--sample 10 MODULE" for less.
mutants: $(VENV)/installed
	nice -n 19 $(BIN)/python -m tests.mutants $(MUTANTS)

# The site, in build/site: a warning is an error.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

# What is published: the source distribution, and the wheel that is built from it.
dist: $(VENV)/installed man
	rm -rf dist && mkdir -p build
	$(BIN)/python -m build --no-isolation --outdir dist . > build/dist.log 2>&1 \
	    || (cat build/dist.log; exit 1)
	$(BIN)/check-manifest --no-build-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/abi3audit --strict --summary dist/*.whl

# A Debian package of that wheel, for Debian 12 and 13, in dist/.
deb: dist deb-packages
	$(BIN)/python packaging/deb.py dist/*.whl dist

# Installed, used on four nodes, upgraded and purged, in a fresh Debian 12 and 13. Ten minutes or so.
ROOTS := bookworm trixie
deb-test: deb tier-packages
	rm -rf build/roots/new $(ROOTS:%=build/roots/%) && mkdir -p build/roots/new
	$(BIN)/python packaging/deb.py dist/*.whl build/roots/new 2
	set -e; for suite in $(ROOTS); do \
	    root=build/roots/$$suite; stage="tests/release/deb.sh"; \
	    mmdebstrap --variant=minbase --quiet $$suite $$root http://deb.debian.org/debian; \
	    $$stage install $$root dist/*.deb; \
	    $(BIN)/python -m tests.vm once --unless 3 --timeout 600 -- $$stage relocate $$root; \
	    $$stage upgrade $$root build/roots/new/*.deb; \
	    $$stage purge $$root; \
	    rm -rf $$root; \
	done

# The guides for Slurm, line by line, on a fresh Debian 13 with systemd and Slurm's own units.
GUIDE := build/roots/guide
guide-test: dist tier-packages deb-packages
	tests/vm/debian_root.sh trixie $(GUIDE) linux-image-amd64 busybox-static udev iproute2 \
	    systemd-sysv dbus python3-venv munge slurmctld slurmd slurm-client
	$(BIN)/python -P tests/release/slurm_guide.py install $(GUIDE) dist/*.whl
	$(BIN)/python -m tests.vm once --root $(GUIDE) --systemd --timeout 1200 -- \
	    /usr/bin/python3 -P tests/release/slurm_guide.py use
	rm -rf $(GUIDE)

# An RPM package for RHEL 9 and 10, as far as this distribution's rpm can build it, in build/rpm/.
rpm: dist rpm-packages
	rm -rf build/rpm
	packaging/rpm/build.sh $(BIN)/python dist/*.tar.gz build/rpm
	rpmlint --config packaging/rpm/rpmlint.toml packaging/rpm/schedhook.spec build/rpm/*.rpm

# Ansible's role, checked, and run on a fresh root of this distribution.
ANSIBLE := build/ansible
ansible: deb
	test -x $(ANSIBLE)/bin/ansible-lint || $(PYTHON) -m venv $(ANSIBLE)
	$(ANSIBLE)/bin/pip install --quiet ansible ansible-lint
	cd packaging/ansible && PATH=$(abspath $(ANSIBLE)/bin):$$PATH ansible-lint --offline --profile production
	rm -rf build/roots/ansible && mkdir -p build/roots
	mmdebstrap --variant=minbase --quiet --include=python3-apt,systemd bookworm build/roots/ansible \
	    http://deb.debian.org/debian
	tests/release/ansible.sh $(ANSIBLE)/bin build/roots/ansible dist/*.deb
	rm -rf build/roots/ansible

# Every command with the lowest and the newest versions and with a distribution's own, as wheel and as
# package, on the Pythons 3.11, 3.13 and 3.14. UNITS=--units for the unit tests, too: two hours.
SUITES := bookworm trixie sid
versions: deb
	$(BIN)/python -m tests.release.versions dist --suite $(SUITES) $(UNITS)

# Manual pages and completions, in contrib/, where what is shipped lies.
man: $(VENV)/installed
	$(BIN)/python -P docs/man.py contrib

# A million inputs for each parser and the C core: an hour or so. FUZZ="--runs N TARGET" for less.
fuzz: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.unit.fuzz $(FUZZ)

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

# Editable: Python files are used where they stand, and only the C core is built. `make test` in a
# new clone installs a copy, as users do: a service in its sandbox may not see the clone.
$(VENV)/installed: $(SOURCES) | packages
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -rf $(filter-out build/kernels build/roots,$(wildcard build/*))
	$(BIN)/pip install --quiet $(EDITABLE) '.[dev]' virtme-ng
	touch $@

# The guest writes no bytecode, and would compile every module in every process.
compiled: $(VENV)/installed
	$(BIN)/python -m compileall -q schedhook plugins tests

# Installs what is missing, without starting its services: the tests start what they need. A foreign
# source that does not answer is no reason to stop.
define install
@missing=$$(for package in $(1); do \
    dpkg-query --show --showformat '$${Status}' $$package 2> /dev/null \
        | grep --quiet 'ok installed' || echo $$package; \
done); \
if [ -n "$$missing" ]; then \
    export DEBIAN_FRONTEND=noninteractive policy=/usr/sbin/policy-rc.d; \
    if [ ! -e $$policy ]; then \
        trap "rm -f $$policy" EXIT; \
        printf '#!/bin/sh\nexit 101\n' > $$policy && chmod +x $$policy; \
    fi; \
    apt-get update || true; \
    apt-get install --yes --no-install-recommends $$missing; \
fi
endef

packages:
	$(call install,$(PACKAGES))

unit-packages:
	$(call install,$(UNIT_PACKAGES))

deb-packages:
	$(call install,$(DEB_PACKAGES))

arm64-packages:
	$(call install,qemu-system-arm qemu-user-static arch-test)

rpm-packages:
	$(call install,$(RPM_PACKAGES))

tier-packages:
	$(call install,$(TIER_PACKAGES))
