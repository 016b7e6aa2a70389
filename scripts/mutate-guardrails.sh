#!/bin/sh
# Takes the guardrails out one at a time, in copies of the tree, and proves that a test notices each loss.
#
#   scripts/mutate-guardrails.sh           all of tests/mutants.txt
#   scripts/mutate-guardrails.sh WORD      those whose name, file or tests contain WORD: agent/Core/Remedies
#
# JOBS=n tries out so many at a time, each in a copy of its own; a copy for each processor otherwise. The last line is the sum.
# Fails when a mutant survives, when a replacement no longer applies to the source, or when a mutant does not compile.
set -eu
cd "$(dirname "$0")/.."
exec python3 scripts/mutate_guardrails.py "$@"
