#!/bin/sh
# Simulates the agent among workers, routers and servers that misbehave, and checks that it does nothing wrong:
#
#   scripts/simulate.sh [--hours N] [--seed N] [--kind KIND]   a million connection-hours, or N; of one kind of world, or of all
#   scripts/simulate.sh --replay SEED [--kind KIND]            one world, step by step
#
# KIND is one of ordinary (the worlds of the seeds in use before), router, synproxy, bundle, blackhole, failover, limits, late, publisher,
# stopped, forked.
#
# Exit code 0 when every property held, 1 when one did not; each failure is printed with the command that repeats it.
set -eu
cd "$(dirname "$0")/.."
dotnet build tests/simulator --configuration Release --nologo -v quiet -nodeReuse:false
exec dotnet tests/simulator/bin/Release/net10.0/Sidecar.Simulator.dll "$@"
