# Two commands matter: `make run` and `make test`. Both set up what they need.

OUT := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
export ACEQUIA_TEST_OUT := $(OUT)
CARGO ?= cargo
# Where `make run` puts its copy of examples/quickstart, and where its daemon can be asked.
QUICKSTART ?= $(OUT)/quickstart
LISTEN ?= 127.0.0.1:8083

# Where `make services-up` keeps its servers' data.
SERVICES ?= $(OUT)/services

# What `make chaos` does, and what of it is a part of `make test`.
SEED ?= 1
MINUTES ?= 10
CHAOS_SEEDS ?= 1,2,3
CHAOS_MINUTES ?= 10

.PHONY: help run test chaos build native plugins servers check fmt fuzz bench peers bench-peers deb docs services-up services-down clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | awk '{ name = $$1; $$1 = ""; printf "%-15s%s\n", name, $$0 }' 

run: build ## Start the daemon on a copy of examples/quickstart
	@mkdir -p "$(QUICKSTART)"
	@cp -n examples/quickstart/*.toml "$(QUICKSTART)/" 2>/dev/null || true
	@echo 'next: in $(QUICKSTART)/even.toml change rows_per_second to 10, save, and watch it reload; Ctrl-C ends it' >&2
	@exec "$(OUT)/release/acequia" run "$(QUICKSTART)" --plugins "$(OUT)/plugins" --state "$(QUICKSTART)-state" --listen $(LISTEN)

# Always the whole workspace: cargo unites the features of the packages that it is asked for, so asking for one of them
# would build the large dependencies a second time.
build: native plugins ## Build the daemon and the bundled plugins
	$(CARGO) build --release --locked --workspace

native:
	@scripts/native.sh

plugins: ## Build the bundled plugins as WebAssembly components
	plugins/build.sh

# InfluxDB has to be built, which takes longest of all: it begins at once, beside our own build, and is waited for only
# before the tests.
test: ## Install what the tests need and run them all
	@mkdir -p "$(OUT)"
	@setsid tests/servers/services.sh install >"$(OUT)/servers.log" 2>&1 & servers=$$!; \
	trap 'kill -- -$$servers 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	$(MAKE) build check || exit; \
	echo 'waiting for the servers of the tests; see $(OUT)/servers.log' >&2; \
	wait $$servers || { cat "$(OUT)/servers.log" >&2; exit 1; }; \
	trap - EXIT
	$(CARGO) test --release --locked --workspace --no-fail-fast
	ACEQUIA_FUZZ_SEED=1 $(MAKE) fuzz
	$(MAKE) chaos SEED=$(CHAOS_SEEDS) MINUTES=$(CHAOS_MINUTES)

chaos: build servers ## Attack pipelines on real servers, and count: SEED=1 MINUTES=10
	"$(OUT)/release/acequia-chaos" --seeds $(SEED) --minutes $(MINUTES) --slow-sink

servers: ## Install the servers of the tests: Kafka, Cassandra, InfluxDB
	tests/servers/services.sh install

check: native ## Formatting, lints, licences and advisories
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	scripts/deny.sh

fmt: ## Format the sources
	$(CARGO) fmt --all

# How long each target is fuzzed, and which.
SECONDS ?= 10
FUZZ ?= cassandra config format influxdb kafka plugin rest state
fuzz: native ## Look for inputs that break what outsiders control, SECONDS=10 for each target
	fuzz/run.sh $(SECONDS) $(FUZZ)

bench: build servers ## Measure: the host-guest boundary, whole pipelines, start, memory, real servers
	"$(OUT)/release/acequia-bench"

peers: servers ## Install what bench-peers compares with: Kafka Connect, Spark, Bento, polars, jq
	benches/peers/install.sh install

bench-peers: build peers ## Measure the same jobs with Kafka Connect, Bento, Spark, jq and polars
	"$(OUT)/release/acequia-bench" peers

deb: build ## Build the Debian package
	packaging/build-deb.sh "$(OUT)/release/acequia" "$(OUT)/plugins" examples "$(OUT)"

docs: build ## Renew the generated pages of docs/
	"$(OUT)/release/acequia" reference > docs/configuration.md

services-up: ## Start Kafka, Cassandra and InfluxDB, for trying things by hand
	@tests/servers/services.sh up "$(SERVICES)"

services-down: ## Stop them again
	@tests/servers/services.sh down "$(SERVICES)"

clean: ## Remove what was built
	$(CARGO) clean
