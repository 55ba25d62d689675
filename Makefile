# What a person types. `make help` lists the targets; .ci/run calls the same ones.
.DEFAULT_GOAL := help
.PHONY: help demo check check-format check-lint check-types check-imports check-units test test-unit test-tools test-release test-torture
.PHONY: test-image test-debian torture mutants image pyz man docs changelog bench bench-quick bench-report fmt clean

VENV := .venv
BIN := $(VENV)/bin
PROGRAMS := python3-venv skopeo curl umoci docker-registry tar util-linux mount
PACKAGES := $(PROGRAMS)
# what only tests and the benchmark need: a read-only medium, other clients of a registry, shells to complete in, faults
# and file systems; and what does not depend on the Debian it is tried on: a browser, the image, other installations, a
# mount of object storage
TRIED := squashfs-tools openssl openssh-client par2 docker.io mandoc zsh fish strace e2fsprogs xfsprogs btrfs-progs
TEST_PACKAGES := $(TRIED) chromium mmdebstrap buildah pipx fuse3
# Debian's docker.io has the command docker in it up to 12
DOCKER_COMMAND := docker-cli
OTHER := trixie
DEBIAN := $(shell . /etc/os-release; echo $$VERSION_CODENAME)
ifeq ($(DEBIAN),$(OTHER))
# without its network program buildah of 13 does nothing, though a build here needs none
NETAVARK := /usr/lib/podman/netavark
TEST_PACKAGES += $(DOCKER_COMMAND) netavark
endif
WORKERS ?= 2
RESULTS ?= results/bench.json
# compiled modules are kept: without them each start of regwrap in a test compiles it anew
unexport PYTHONDONTWRITEBYTECODE
# unit tests copy small trees again and again; in memory that takes half the time
MEMORY := $(shell test -w /dev/shm && echo /dev/shm || echo /tmp)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(BIN)/regwrap .packages ## the main job on real input with an embedded registry, shown step by step
	examples/demo/run.sh

# Two at a time, of which one waits for most of its time: for faults to pass, for processes to die, for packages.
TOGETHER = $(MAKE) --no-print-directory --jobs=$(WORKERS) --output-sync=line
test: $(BIN)/regwrap .packages .test-packages ## everything, with the real programs
	$(TOGETHER) READY= test-release $(CHECKS:check-units=test-unit) test-torture
	$(TOGETHER) READY= test-image test-tools test-debian

# what a test with programs needs; make would first begin all that needs none, and then the longest last
READY = $(BIN)/regwrap .packages .test-packages

CHECKS := check-format check-lint check-types check-imports check-units
check: $(BIN)/regwrap ## before each commit; .pre-commit-config.yaml has a hook for each
	@$(TOGETHER) --jobs=$(SHARES) $(CHECKS)

check-format: $(BIN)/regwrap ## is everything formatted as `make fmt` does it?
	$(BIN)/ruff format --check --quiet .

check-lint: $(BIN)/regwrap ## ruff's rules
	$(BIN)/ruff check --quiet .

check-types: $(BIN)/regwrap ## mypy, strict
	$(BIN)/mypy

check-imports: $(BIN)/regwrap ## which room may import which (import-linter)
	@log=$$($(BIN)/lint-imports --no-cache) || { echo "$$log"; exit 1; }

# shares of the files side by side: pytest-xdist would take a quarter more to talk about each test; one share more than
# there are processors, since tests of timeouts wait
SHARES := $(shell expr $(WORKERS) + 1)
UNITS := $(shell seq -f .unit-%.0f $(SHARES))
check-units: CHOICE := -m "not exhaustive and not slow"
check-units: $(UNITS) ## unit tests but for those that try every moment or size, and the one in twenty that takes long

test-unit: $(UNITS) ## unit tests, all of them

# rm takes a tenth of the time that pytest takes to remove what the tests have made
.unit-%: $(BIN)/regwrap
	@place=$$(mktemp -d -p $(MEMORY)); trap 'rm -rf "$$place"' EXIT; trap 'exit 130' INT TERM; \
	TMPDIR=$$place $(BIN)/pytest --share $*/$(SHARES) $(CHOICE) tests/unit

test-tools: $(READY) ## each tools/ module against its program
	$(BIN)/pytest -n 6 tests/tools

test-release: $(READY) ## the command line from images.list to a pull from the deployed storage
	$(BIN)/pytest -n 4 tests/release

# Those of test-release that hang on the system: on skopeo's words, Python's TLS, names and proxies. The others are about our
# own words, pages, lists, requests and limits; overlay, workspace and bake are tried in the image, which is Debian 13
# too. Where this machine is Debian 13, all of it has been tried already.
ON_OTHER := tour push configured supplied field_logins field_certificates
test-debian: $(READY) ## test-tools, test-release and test-torture in a root of Debian 13
ifneq ($(DEBIAN),$(OTHER))
	PACKAGES="$(PROGRAMS) $(TRIED) $(DOCKER_COMMAND)" PYTHON=$(BIN)/python tests/debian/run $(OTHER) sh -ec '\
	  pytest="/opt/python/bin/python -m pytest -p no:cacheprovider"; \
	  $$pytest -n 6 tests/tools; \
	  $$pytest -n 4 $(ON_OTHER:%=tests/release/test_%.py); \
	  $$pytest tests/torture'
endif

test-image: $(READY) ## the container image, the examples for CI and make, installations
	TMPDIR=$(MEMORY) $(BIN)/pytest -n 2 --dist loadfile tests/image

image: $(BIN)/regwrap ## the container image by buildah or docker, an archive of it, its bill of materials: build/image
	container/build

pyz: build/libraries ## regwrap as one file that python3 runs, build/regwrap.pyz: for a site without a package index
	PYTHONPATH=$< $(BIN)/python -m regwrap.cli.pyz build/regwrap.pyz

# those of the image, by their hashes: so each build of a commit is the same file
build/libraries: container/requirements.txt | $(BIN)/regwrap
	@rm -rf $@ $@.part
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --only-binary :all: \
	  --require-hashes -r $< --target $@.part
	@mv $@.part $@ && touch $@

man: build/regwrap.1 ## the manual page, from the help

build/regwrap.1: regwrap/__init__.py $(wildcard regwrap/cli/*.py) | $(BIN)/regwrap
	@mkdir -p $(@D)
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null)} $(BIN)/python -m regwrap.cli.manpage >$@.part
	@mv $@.part $@

test-torture: $(READY) ## a fixed slice of the fault campaign
	$(BIN)/pytest tests/torture

# make torture SECONDS=600 SEED=7, or CASE=name for one case alone
SECONDS := 600
torture: $(BIN)/regwrap .packages .test-packages ## the fault campaign; its table is in docs/reliability.md
	$(BIN)/python -m tests.torture --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE))

# make mutants MODULES="storage bundle/read" COUNT=1000 SEED=7, or MUTANT=name for one alone
mutants: $(BIN)/regwrap ## what the unit tests do not notice: the code changed at random places, in memory
	TMPDIR=$(MEMORY) $(BIN)/python -m tests.mutants $(if $(MODULES),--modules "$(MODULES)") $(if $(COUNT),--count $(COUNT)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(findstring command,$(origin SECONDS)),--seconds $(SECONDS)) $(MUTANT:%=--mutant %)

# make bench ONLY="start package" BEFORE=../other-checkout/.venv/bin/regwrap: beside another state of the code
bench: $(BIN)/regwrap .packages .test-packages ## side by side with the peers, 25 min; ONLY="sync gc": some groups; MINUTES=30: more rounds
	$(BIN)/python bench/bench.py $(ONLY:%=--only %) $(BEFORE:%=--before %) $(MINUTES:%=--minutes %)

bench-quick: $(BIN)/regwrap .packages .test-packages ## the same on a twentieth of the corpus, under 3 min
	$(BIN)/python bench/bench.py --scale 0.05 --rounds 2 --minutes 2 --json results/bench-quick.json $(ONLY:%=--only %)

bench-report: $(BIN)/regwrap ## docs/benchmarks.md and its plots from RESULTS, the results of one run
	$(BIN)/python bench/report.py $(RESULTS)

docs: $(BIN)/regwrap ## the site in build/site/index.html; links, commands, options, exit codes and messages checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file docs/site/mkdocs.yml

changelog: $(BIN)/regwrap ## before a release: the files of docs/changes become the section VERSION of the changelog
	$(BIN)/python docs/site/changes.py "$(VERSION)" "$$(date +%F)"

fmt: $(BIN)/regwrap ## format and sort; the tables of docs/days/at-3-am.md
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/python docs/site/seen.py

# Debian's packages, only where a program is missing; a plain user gets told by `regwrap doctor` instead.
.PHONY: .packages
.packages:
	@for program in skopeo curl umoci docker-registry setpriv tar mount; do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; $(MAKE) --no-print-directory .apt; fi

# after the others: two apts at the same time refuse each other
.PHONY: .test-packages
.test-packages: .packages
	@for program in mksquashfs openssl dockerd docker mandoc zsh fish strace mkfs.ext4 mkfs.xfs mkfs.btrfs \
	  chromium mmdebstrap buildah pipx fusermount3 $(NETAVARK); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	[ -z "$$missing" ] || $(MAKE) --no-print-directory .apt PACKAGES="$(TEST_PACKAGES)"

.PHONY: .apt
.apt:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(PACKAGES) >/dev/null

$(BIN)/regwrap: pyproject.toml
	@python3 -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory .apt
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs]'
	@touch $@

clean: ## remove what was made
	rm -rf $(VENV) build dist results .mypy_cache .ruff_cache .pytest_cache
