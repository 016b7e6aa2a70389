#!/bin/sh
# Publishes the agent as one self-contained file: out/conn-sidecar.
# Intermediate files stay under out/, so the source tree stays as it is.
set -eu
cd "$(dirname "$0")/.."

dotnet publish agent/Sidecar.Agent.csproj \
  --configuration Release --runtime linux-x64 \
  --artifacts-path "$PWD/out/publish" \
  -p:PublishSingleFile=true \
  -nodeReuse:false -v quiet --nologo "$@"
install -m 0755 out/publish/publish/Sidecar.Agent/release_linux-x64/conn-sidecar out/conn-sidecar
