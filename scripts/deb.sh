#!/bin/sh
# Builds out/conn-sidecar_<version>_amd64.deb. The same commit gives the same bytes.
#   scripts/deb.sh            publishes the binary first
#   scripts/deb.sh --no-publish   packs the out/conn-sidecar that is there
# Works as root and as anybody else; everything it writes is under out/.
set -eu
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C.UTF-8

publish=yes
case "${1-}" in
  '') ;;
  --no-publish) publish=no ;;
  *) echo "usage: scripts/deb.sh [--no-publish]" >&2; exit 2 ;;
esac

# One version: the project's. The changelog's first entry must agree, or a release was forgotten there.
version=$(sed -n 's:.*<VersionPrefix>\(.*\)</VersionPrefix>.*:\1:p' Directory.Build.props)
logged=$(dpkg-parsechangelog --file packaging/deb/debian/changelog --show-field Version)
if [ "$version" != "$logged" ]; then
  echo "scripts/deb.sh: Directory.Build.props says $version, packaging/deb/debian/changelog says $logged" >&2
  exit 1
fi

# Every time stamp in the package is the commit's; from a tarball without history, the changelog's.
if [ -z "${SOURCE_DATE_EPOCH-}" ]; then
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) ||
    SOURCE_DATE_EPOCH=$(dpkg-parsechangelog --file packaging/deb/debian/changelog --show-field Timestamp)
fi
export SOURCE_DATE_EPOCH

if [ "$publish" = yes ]; then
  scripts/publish.sh
fi

stage="out/deb/conn-sidecar-$version"
rm -rf out/deb
mkdir -p "$stage"
cp -R packaging/deb/. "$stage/"
install -m 0755 out/conn-sidecar "$stage/conn-sidecar"
# What operators read, and the pages that the alerts point at.
for page in README.md SECURITY.md docs/configuration.md docs/how-it-decides.md docs/safety.md docs/upgrade.md docs/site-hangs.md docs/measure.md docs/audit.md docs/metrics.md docs/http.md docs/journal.md docs/runbook; do
  if [ -e "$page" ]; then
    cp -R "$page" "$stage/"
    basename "$page" >> "$stage/debian/conn-sidecar.docs"
  fi
done

log="out/deb/build.log"
if ! (cd "$stage" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >"../build.log" 2>&1); then
  cat "$log" >&2
  exit 1
fi
mv "out/deb/conn-sidecar_${version}_amd64.deb" out/
echo "out/conn-sidecar_${version}_amd64.deb"
