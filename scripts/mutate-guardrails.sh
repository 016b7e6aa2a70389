#!/bin/sh
# Takes the guardrails out one at a time, in a copy of the tree, and proves that a test notices each loss.
#
#   scripts/mutate-guardrails.sh           all of tests/mutants.txt
#   scripts/mutate-guardrails.sh WORD      those whose name contains WORD
#
# Fails when a mutant survives, when a replacement no longer applies to the source, or when a mutant does not compile.
set -eu
cd "$(dirname "$0")/.."
exec python3 scripts/mutate_guardrails.py "$@"
