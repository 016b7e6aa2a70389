#!/bin/sh
# Publishes the agent as one self-contained file: out/conn-sidecar, and beside it out/conn-sidecar.deps.json, which says
# what is in it.
#
# Does nothing when that file is newer than everything it is made of.
set -eu
cd "$(dirname "$0")/.."

sources="agent probes docs/runbook Directory.Build.props Directory.Packages.props global.json nuget.config scripts/publish.sh"
# shellcheck disable=SC2086 # a list of paths
if [ -x out/conn-sidecar ] && [ -e out/conn-sidecar.deps.json ] && [ -z "$(find $sources \( -name bin -o -name obj \) -prune -o -type f -newer out/conn-sidecar -print | head -n 1)" ]; then
  exit 0
fi

published=$(mktemp -d)
trap 'rm -rf "$published"' EXIT
# Publishing needs the trimmer besides, and has lock files of its own. What is published is what they say, to the byte; after a
# change of a package they are made anew with RESTORE_LOCKED=false.
dotnet publish agent -c Release -r linux-x64 -p:PublishSingleFile=true -p:NuGetLockFilePath=publish.lock.json \
  -p:RestoreLockedMode="${RESTORE_LOCKED:-true}" -o "$published" --nologo -v quiet -nodeReuse:false
mkdir -p out
cp agent/obj/Release/net10.0/linux-x64/conn-sidecar.deps.json out/
# Renamed into place, so that an agent that runs from the old file goes on.
cp "$published/conn-sidecar" out/conn-sidecar.new
mv out/conn-sidecar.new out/conn-sidecar
