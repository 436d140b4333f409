# Chores. `just` lists them; `just ci` is what must pass before a change lands.

_default:
    @just --list --unsorted

# Format, clippy, generated code, tests, the demo: all that must hold
ci:
    .ci/run

# All tests: units, doctests, real clusters, tidy
test:
    cargo test --workspace

# The rules of STYLE.md that a program can check
tidy:
    cargo test --test tidy

# Format everything
fmt:
    cargo fmt --all

# Lints, warnings denied
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Three nodes under load, one killed half-way, and a verdict
demo *arguments:
    cargo run --release --bin loadgen -- demo {{arguments}}

# A thousand simulated clusters under every fault
sim *arguments:
    cargo run --release -p ringmain-sim -- {{arguments}}

# A cluster of one on 127.0.0.1:7400
serve *arguments:
    cargo run --release --bin ringmain -- serve {{arguments}}

# Make the wire format's generated code anew
schema:
    schema/fresh.sh

# Licences, bans, sources (needs cargo-deny)
deny:
    cargo deny check bans licenses sources

# Known vulnerabilities: needs the network (and cargo-deny)
advisories:
    cargo deny check advisories

# The documentation of all crates of ours
doc:
    cargo doc --workspace --no-deps
