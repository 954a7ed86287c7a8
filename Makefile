# Two commands matter: `make run` and `make test`. Both set up what they need.

OUT := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
export ACEQUIA_TEST_OUT := $(OUT)
CARGO ?= cargo

.PHONY: help run test build plugins check fmt bench docs clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s "$$(printf '\t')"

run: build ## Start the daemon on examples/quickstart
	@mkdir -p "$(OUT)/quickstart"
	@cp -n examples/quickstart/*.toml "$(OUT)/quickstart/" 2>/dev/null || true
	@echo "next: edit $(OUT)/quickstart/even.toml (say, rows_per_second = 10), save, and watch it reload; Ctrl-C ends it" >&2
	@exec "$(OUT)/release/acequia" run "$(OUT)/quickstart" --plugins "$(OUT)/plugins" --state "$(OUT)/quickstart-state" --listen 127.0.0.1:8083

build: plugins ## Build the daemon and the bundled plugins
	$(CARGO) build --release --locked -p acequia

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
	$(CARGO) run --release --locked -p acequia-bench

docs: build ## Renew the generated pages of docs/
	"$(OUT)/release/acequia" reference > docs/configuration.md

clean: ## Remove what was built
	$(CARGO) clean
