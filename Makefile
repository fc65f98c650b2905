# run: three masters on this machine.  test: every check and test.  Both install what is missing first.
.PHONY: run test chaos bench build install

export CARGO_TARGET_DIR ?= $(HOME)/.cache/barque/target

run: build
	@exec $(CARGO_TARGET_DIR)/release/barque up

test: install
	@.ci/test

# An hour of trouble: every planted bug is found, then new seeds, then real processes.
chaos: build
	@.ci/chaos

# Ours beside Debian's etcd, then the Kubernetes API; it prints figures and judges nothing.
bench: build
	@$(CARGO_TARGET_DIR)/release/barque-bench compare
	@$(CARGO_TARGET_DIR)/release/barque-bench kubernetes

build: install
	@.ci/build

install:
	@.ci/install
