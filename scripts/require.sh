#!/usr/bin/env bash
# Says which of the given programs are missing, and how to get them.
set -euo pipefail
missing=()
for program in "$@"; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if ((${#missing[@]})); then
  echo "Missing: ${missing[*]}. Needed: Rust 1.95 (rustup), Node 20 with npm, Python 3 with venv, a C compiler." >&2
  exit 1
fi
