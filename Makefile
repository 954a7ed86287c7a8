# Two commands matter: `make run` and `make test`. Both set up what they need.

OUT := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
export ACEQUIA_TEST_OUT := $(OUT)
CARGO ?= cargo
# Where `make run` puts its copy of examples/quickstart, and where its daemon can be asked.
QUICKSTART ?= $(OUT)/quickstart
LISTEN ?= 127.0.0.1:8083

.PHONY: help run test build plugins check fmt bench deb docs clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | awk '{ name = $$1; $$1 = ""; printf "%-9s%s\n", name, $$0 }' 

run: build ## Start the daemon on a copy of examples/quickstart
	@mkdir -p "$(QUICKSTART)"
	@cp -n examples/quickstart/*.toml "$(QUICKSTART)/" 2>/dev/null || true
	@echo 'next: in $(QUICKSTART)/even.toml change rows_per_second to 10, save, and watch it reload; Ctrl-C ends it' >&2
	@exec "$(OUT)/release/acequia" run "$(QUICKSTART)" --plugins "$(OUT)/plugins" --state "$(QUICKSTART)-state" --listen $(LISTEN)

# Always the whole workspace: cargo unites the features of the packages that it is asked for, so asking for one of them
# would build the large dependencies a second time.
build: plugins ## Build the daemon and the bundled plugins
	$(CARGO) build --release --locked --workspace

plugins: ## Build the bundled plugins as WebAssembly components
	plugins/build.sh

test: build check ## Install what the tests need and run them all
	$(CARGO) test --release --locked --workspace --no-fail-fast

check: ## Formatting, lints, licences and advisories
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	scripts/deny.sh

fmt: ## Format the sources
	$(CARGO) fmt --all

bench: build ## Measure the host-guest boundary and rate -> even -> blackhole
	"$(OUT)/release/acequia-bench"

deb: build ## Build the Debian package
	packaging/build-deb.sh "$(OUT)/release/acequia" "$(OUT)/plugins" examples "$(OUT)"

docs: build ## Renew the generated pages of docs/
	"$(OUT)/release/acequia" reference > docs/configuration.md

clean: ## Remove what was built
	$(CARGO) clean
