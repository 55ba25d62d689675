# include regwrap.mk
#
# sync, lock, release, delta and verify as targets with file dependencies: `make release-v1.1.tar` does nothing when neither the list,
# nor its lock, nor regwrap.yaml, nor what is set here has changed since. Set before the include, or on make's command line:
#   IMAGES   the list                      VERSION  the release's name; the last tag of git unless set
#   RELEASE  the bundle                    ARCHIVE  where images are kept     SOURCE   where lines without a registry come from
#   SINCE    what a site has, for delta    REGWRAP  the program, with options such as --config
IMAGES ?= images.list
VERSION ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo dev)
RELEASE ?= release-$(VERSION).tar
REGWRAP ?= regwrap
ARCHIVE ?=
SOURCE ?=
SINCE ?=

regwrap_lock := $(wildcard $(basename $(IMAGES)).lock)
regwrap_inputs := $(IMAGES) $(regwrap_lock) $(wildcard regwrap.yaml)
regwrap_locked := $(if $(regwrap_lock),--locked)
regwrap_name := $(basename $(notdir $(IMAGES)))
regwrap_synced := .regwrap-$(regwrap_name).synced
regwrap_from := $(regwrap_locked) $(if $(SOURCE),--source $(SOURCE)) $(if $(ARCHIVE),--archive $(ARCHIVE))

# what is set is an input like the list: the file has it, and is written when it has changed
regwrap_how := $(strip $(REGWRAP) $(SOURCE) $(ARCHIVE))
regwrap_set := .regwrap-$(regwrap_name).set
ifneq ($(strip $(file <$(regwrap_set))),$(regwrap_how))
.PHONY: $(regwrap_set)
$(regwrap_set):
	@printf '%s\n' '$(regwrap_how)' >$@
endif

.PHONY: lock sync release delta verify
lock: ## pin every image of the list to its digest
	$(REGWRAP) lock $(IMAGES) $(if $(SOURCE),--source $(SOURCE))
sync: $(regwrap_synced) ## images.list -> archive
release: $(RELEASE) ## exactly the listed images -> one tar, verified, with its checksum and report beside it
delta: $(basename $(RELEASE)).delta.tar ## what a site lacks that has SINCE, a bundle or a receipt
verify: ## the bundle as it is: every byte, and the digests of the lock where there is one
	$(REGWRAP) verify $(RELEASE) --list $(or $(regwrap_lock),$(IMAGES))

# a stamp: the tool's exit code 0 is what it stands for, so a failed step is tried again
$(regwrap_synced): $(regwrap_inputs) $(regwrap_set)
	$(REGWRAP) sync $(IMAGES) $(regwrap_from)
	@touch $@

# regwrap writes aside and renames, so a bundle that is there is whole
define regwrap_release
$(REGWRAP) release $(IMAGES) $(regwrap_from) --name $(1) --report $(basename $@).report.json -o $@
endef
.PRECIOUS: release-%.tar
release-%.tar: $(regwrap_inputs) $(regwrap_set)
	$(call regwrap_release,$*)
ifeq ($(filter release-%.tar,$(RELEASE)),)
$(RELEASE): $(regwrap_inputs) $(regwrap_set)
	$(call regwrap_release,$(VERSION))
endif

# RELEASE is release-VERSION.tar or what was set; the delta is of the same release
$(basename $(RELEASE)).delta.tar: $(RELEASE)
	$(if $(SINCE),,$(error SINCE is not set: the bundle or receipt of what the site has))
	$(REGWRAP) release $(IMAGES) $(regwrap_from) --name $(VERSION) --since $(SINCE) -o $@
