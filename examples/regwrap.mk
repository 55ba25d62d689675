# include regwrap.mk
#
# sync, package, release and verify as targets with file dependencies: `make release-v1.1.tar` does nothing when neither the
# list, nor its lock, nor regwrap.yaml, nor what is set here has changed since. Set before the include, or on make's command line:
#   IMAGES   the list                      VERSION  of the release; the last tag of git unless set
#   RELEASE  the bundle                    ARCHIVE  where images are kept     SOURCE   where lines without a registry come from
#   REGWRAP  the program, with options such as --config
IMAGES ?= images.list
VERSION ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo dev)
RELEASE ?= release-$(VERSION).tar
REGWRAP ?= regwrap
ARCHIVE ?=
SOURCE ?=

regwrap_lock := $(wildcard $(basename $(IMAGES)).lock)
regwrap_inputs := $(IMAGES) $(regwrap_lock) $(wildcard regwrap.yaml)
regwrap_locked := $(if $(regwrap_lock),--locked)
regwrap_synced := .regwrap-$(basename $(notdir $(IMAGES))).synced
regwrap_archive := $(if $(ARCHIVE),--archive $(ARCHIVE))
regwrap_source := $(if $(SOURCE),--source $(SOURCE))

# what is set is an input like the list: the file has it, and is written when it has changed
regwrap_how := $(strip $(REGWRAP) $(regwrap_source) $(regwrap_archive))
regwrap_set := .regwrap-$(basename $(notdir $(IMAGES))).set
ifneq ($(strip $(file <$(regwrap_set))),$(regwrap_how))
.PHONY: $(regwrap_set)
$(regwrap_set):
	@printf '%s\n' '$(regwrap_how)' >$@
endif

.PHONY: sync package release verify
sync: $(regwrap_synced) ## images.list -> archive
package: sync $(RELEASE) ## exactly the listed images -> one tar
release: $(RELEASE).verified ## all of it, and the bundle verified
verify: ## the bundle as it is, against the list
	$(REGWRAP) verify $(RELEASE) --list $(IMAGES)

# stamps: a tool's exit code 0 is what they stand for, so a failed step is tried again
$(regwrap_synced): $(regwrap_inputs) $(regwrap_set)
	$(REGWRAP) sync $(IMAGES) $(regwrap_locked) $(regwrap_source) $(regwrap_archive)
	@touch $@

# regwrap writes aside and renames, so a bundle that is there is whole
define regwrap_package
$(REGWRAP) package $(IMAGES) $(regwrap_locked) $(regwrap_archive) --strategy select -o $@
endef
.PRECIOUS: release-%.tar
release-%.tar: $(regwrap_synced)
	$(regwrap_package)
ifeq ($(filter release-%.tar,$(RELEASE)),)
$(RELEASE): $(regwrap_synced)
	$(regwrap_package)
endif

%.tar.verified: %.tar
	$(REGWRAP) verify $< --list $(IMAGES)
	@touch $@
