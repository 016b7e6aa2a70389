#!/bin/sh
# Simulates the agent among workers, routers and servers that misbehave, and checks that it does nothing wrong:
#
#   scripts/simulate.sh [--hours N] [--seed N]    a million connection-hours, or N
#   scripts/simulate.sh --replay SEED             one world, step by step
#
# Exit code 0 when every property held, 1 when one did not; each failure is printed with the command that repeats it.
set -eu
cd "$(dirname "$0")/.."
dotnet build tests/simulator --configuration Release --nologo -v quiet -nodeReuse:false
exec dotnet tests/simulator/bin/Release/net10.0/Sidecar.Simulator.dll "$@"
