#!/bin/sh
# Everything at once in the lab, for a long time: load, forgotten connections, outages, loss, slow queries, stopped workers,
# a stopped, reloaded and flooded agent. The report at the end tells what was done, whether any of it was wrong, and
# whether memory or descriptors grew; the exit code is 1 then.
#
#   scripts/soak.sh [MINUTES [SEED]]     an hour, and the first seed, unless given
set -eu
cd "$(dirname "$0")/.."
scripts/prerequisites.sh lab
scripts/publish.sh
dotnet build tests/lab --configuration Release --nologo -v quiet -nodeReuse:false
exec dotnet tests/lab/bin/Release/net10.0/sidecar-lab.dll soak "${1:-60}" "${2:-1}"
