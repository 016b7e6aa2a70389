#!/bin/sh
# Runs all tests, or one kind alone:
#
#   scripts/test.sh                 everything
#   scripts/test.sh lab [NAME]      the lab tests whose name contains NAME
#   scripts/test.sh boot [NAME]     the package and the booted Debian, likewise
#   scripts/test.sh simulation      a million connection-hours of the simulator
#
# The last line is the sum over all test projects: "N passed, N failed".
set -u
cd "$(dirname "$0")/.."

results=$(mktemp -d)
# What a run that was interrupted leaves behind is removed here.
trap 'rm -rf "$results"; [ "$(id -u)" -ne 0 ] || dotnet run --project tests/lab --no-build -- reap >/dev/null 2>&1' EXIT
trap 'exit 130' INT TERM

scripts/prerequisites.sh lab deb || exit 1
scripts/publish.sh || exit 1
dotnet build Sidecar.sln --nologo -v quiet -nodeReuse:false || exit 1

status=0
run() {
  project=$1
  shift
  dotnet test "tests/$project" --no-build --nologo --logger "trx;LogFileName=$results/$project.trx" --logger "console;verbosity=normal" "$@" || status=1
  # A project that ends without results (a crash) must not pass for one without tests.
  [ -s "$results/$project.trx" ] || status=1
}

# A million simulated hours take an optimised build.
simulation() {
  if dotnet build tests/simulation --configuration Release --nologo -v quiet -nodeReuse:false; then
    run simulation --configuration Release
  else
    status=1
  fi
}

case ${1:-} in
  lab) run labtests ${2:+--filter "FullyQualifiedName~$2"} ;;
  simulation) simulation ;;
  boot) run boot ${2:+--filter "FullyQualifiedName~$2"} ;;
  *)
    run unit
    simulation
    run labtests
    run boot
    ;;
esac

count() {
  cat "$results"/*.trx 2>/dev/null | grep -o "<Counters [^>]*" | grep -o " $1=\"[0-9]*\"" | tr -dc '0-9\n' | awk '{ n += $1 } END { print n + 0 }'
}

passed=$(count passed)
total=$(count total)
# What is neither passed nor failed (skipped, not run) did not pass.
failed=$((total - passed))
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] || status=1
mkdir -p artifacts
echo "$passed passed, $failed failed" | tee artifacts/test-summary
exit $status
