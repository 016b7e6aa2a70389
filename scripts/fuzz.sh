#!/bin/sh
# Gives everything that the agent reads to it damaged, hostile or in the wrong order, and checks that it neither ends,
# hangs, grows nor believes what it should not:
#
#   scripts/fuzz.sh [--inputs N] [--seed N] [--threads N]   all targets; N is a million unless given
#   scripts/fuzz.sh --target NAME [--inputs N]              one of them
#   scripts/fuzz.sh --target NAME --replay SEED             one input
#
# Exit code 0 when nothing went wrong, 1 when something did; each finding is printed with the command that repeats it.
# The target dns needs root, for a namespace of its own.
set -eu
cd "$(dirname "$0")/.."
dotnet build tests/fuzz --configuration Release --nologo -v quiet -nodeReuse:false
exec dotnet tests/fuzz/bin/Release/net10.0/Sidecar.Fuzz.dll "$@"
