#!/bin/sh
# Runs all tests, or one kind alone:
#
#   scripts/test.sh                 everything but the slow ones
#   scripts/test.sh lab [NAME]      the lab tests whose name contains NAME
#   scripts/test.sh slow [NAME]     the lab tests that take minutes each, which nothing else runs
#   scripts/test.sh boot [NAME]     the package and the booted Debian, likewise
#   scripts/test.sh release [NAME]  what is published, the ways in which hosts get it, and ten minutes of a default install;
#                                   nothing else runs them
#   scripts/test.sh simulation      a million connection-hours of the simulator
#
# The last line is the sum over all test projects: "N passed, N failed".
set -u
cd "$(dirname "$0")/.."

results=$(mktemp -d)
# What a run that was interrupted leaves behind is removed here.
trap 'rm -rf "$results"; [ "$(id -u)" -ne 0 ] || dotnet run --project tests/lab --no-build -- reap >/dev/null 2>&1' EXIT
trap '[ -z "$hours" ] || pkill -P "$hours"; echo "interrupted: $stages"; exit 130' INT TERM
hours=
stages="begun $(date +%T)"
stage() {
  stages="$stages, $1 $(date +%T)"
}

scripts/prerequisites.sh lab deb || exit 1
[ "${1:-}" != release ] || scripts/prerequisites.sh release release-test || exit 1
scripts/publish.sh || exit 1
# Packages are those of the committed lock files, to the byte: what differs is an error (NU1004), not restored.
export RestoreLockedMode=true
stage build
dotnet build Sidecar.sln --nologo -v quiet -nodeReuse:false || exit 1

status=0
run() {
  project=$1
  shift
  stage "$project"
  dotnet test "tests/$project" --no-build --nologo --logger "trx;LogFileName=$results/$project.trx" --results-directory "$results/$project" --logger "console;verbosity=normal" "$@" || status=1
  # A project that ends without results (a crash) must not pass for one without tests.
  [ -s "$results/$project.trx" ] || status=1
}

# A test that hangs is named and fails its project; the others still have their say.
guarded() {
  run "$@" --blame-hang-timeout "${patience:-10m}" --blame-hang-dump-type none
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
  lab) guarded labtests --filter "Speed!=slow${2:+&FullyQualifiedName~$2}" ;;
  slow) run labtests --filter "Speed=slow${2:+&FullyQualifiedName~$2}" ;;
  simulation) simulation ;;
  boot) guarded boot --filter "Speed!=slow${2:+&FullyQualifiedName~$2}" ;;
  release) patience=20m guarded boot --filter "Speed=slow${2:+&FullyQualifiedName~$2}" ;;
  *)
    run core
    run unit
    # The lab waits most of the time: what it leaves of the processors is enough for the simulation.
    (
      chrt --idle --pid 0 "$(exec sh -c 'echo "$PPID"')"
      simulation
      exit "$status"
    ) >"$results/simulation.log" 2>&1 &
    hours=$!
    guarded labtests --filter "Speed!=slow"
    guarded boot --filter "Speed!=slow"
    stage simulation
    wait "$hours" || status=1
    hours=
    cat "$results/simulation.log"
    ;;
esac

count() {
  cat "$results"/*.trx 2>/dev/null | grep -o "<Counters [^>]*" | grep -o " $1=\"[0-9]*\"" | tr -dc '0-9\n' | awk '{ n += $1 } END { print n + 0 }'
}

passed=$(count passed)
total=$(count total)
# What is neither passed nor failed (skipped, not run) did not pass.
failed=$((total - passed))
[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] || status=1
mkdir -p artifacts
stage end
echo "$stages"
# Each failure once more where it is found at once: its message and the top of its stack, then one line for each.
cat "$results"/*.trx 2>/dev/null | tr -d '\r' | awk '
  /<UnitTestResult / {
    shown = /outcome="(Passed|NotExecuted)"/ ? 0 : 40; stdout = message = 0; text = ""
    name = $0; sub(/.* testName="/, "", name); sub(/".*/, "", name); sub(/^Sidecar\.[A-Za-z]*Tests\./, "", name)
  }
  /<StdOut>/ { stdout = 1 }
  shown > 0 && !stdout {
    print; shown--
    message = message || /<Message>/
    if (message) { line = $0; sub(/.*<Message>(Shouldly.ShouldAssertException : )?/, "", line); sub(/<\/Message>.*/, "", line); gsub(/&#xD;|^ +/, "", line); text = text " " line }
  }
  /<\/Message>/ { message = 0 }
  /<\/StdOut>/ { stdout = 0 }
  /<\/UnitTestResult>/ { if (text) lines = lines "failed: " name ":" substr(text, 1, 300) "\n"; shown = 0; text = "" }
  END { printf "%s", lines }'
echo "$passed passed, $failed failed" | tee artifacts/test-summary
exit $status
