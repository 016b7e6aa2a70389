#!/bin/sh
# Makes out/release/: what is published of a version.
#
#   RELEASE_KEY=FILE scripts/release.sh [--draft] [--no-build] [--into DIRECTORY] [OTHER.deb]...
#
# FILE holds the secret key that signs, as gpg --export-secret-keys writes it, without a passphrase; it is used in a
# directory of its own and left nowhere. Each OTHER.deb goes into the repository as well: earlier versions, other
# architectures. Without --draft the changelog has to name the day of the release; with --no-build the package is the one
# that is in out/.
#
#   apt/                      a repository: InRelease and Release.gpg signed, the public key beside them
#   conn-sidecar_*.deb        the package
#   conn-sidecar_*.cdx.json   what is in it (CycloneDX)
#   RELEASE-NOTES.md          the version's part of CHANGELOG.md
#   SHA256SUMS, SHA256SUMS.asc
set -eu
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C.UTF-8

draft=no
build=yes
into=out/release
while [ $# -gt 0 ]; do
  case $1 in
    --draft) draft=yes; shift ;;
    --no-build) build=no; shift ;;
    --into) into=$2; shift 2 ;;
    -*) echo "usage: RELEASE_KEY=FILE scripts/release.sh [--draft] [--no-build] [--into DIRECTORY] [OTHER.deb]..." >&2; exit 2 ;;
    *) break ;;
  esac
done
if [ ! -s "${RELEASE_KEY-}" ]; then
  echo "scripts/release.sh: RELEASE_KEY names no file with the secret key that signs" >&2
  exit 2
fi

version=$(sed -n 's:.*<VersionPrefix>\(.*\)</VersionPrefix>.*:\1:p' Directory.Build.props)
notes=$(awk -v head="## [$version]" 'index($0, "## [") == 1 { shown = index($0, head) == 1 } shown' CHANGELOG.md)
if [ -z "$notes" ]; then
  echo "scripts/release.sh: CHANGELOG.md says nothing of $version" >&2
  exit 1
fi
if [ "$draft" = no ] && printf '%s\n' "$notes" | head -n 1 | grep -q unreleased; then
  echo "scripts/release.sh: CHANGELOG.md says that $version is unreleased: give it its day, or make a draft (--draft)" >&2
  exit 1
fi

[ "$build" = no ] || scripts/deb.sh
deb="conn-sidecar_${version}_amd64.deb"

rm -rf "$into"
mkdir -p "$into/apt/pool/main/c/conn-sidecar" "$into/apt/dists/stable"
cp "out/$deb" "$into/"
printf '%s\n' "$notes" | sed "1s/.*/# conn-sidecar $version/" >"$into/RELEASE-NOTES.md"
python3 scripts/sbom.py "$into/$deb" >"$into/${deb%_amd64.deb}.cdx.json"

# Under the names that the index looks for, however they are called outside.
for each in "out/$deb" "$@"; do
  cp "$each" "$into/apt/pool/main/c/conn-sidecar/$(dpkg-deb --show --showformat='${Package}_${Version}_${Architecture}.deb' "$each")"
done
(
  cd "$into/apt"
  # An index for each architecture that there is a package of.
  for architecture in $(for each in pool/main/c/conn-sidecar/*.deb; do dpkg-deb --field "$each" Architecture; done | sort -u); do
    mkdir -p "dists/stable/main/binary-$architecture"
    apt-ftparchive --arch "$architecture" packages pool >"dists/stable/main/binary-$architecture/Packages"
    gzip -9nk "dists/stable/main/binary-$architecture/Packages"
    echo "$architecture"
  done >../architectures
  apt-ftparchive \
    -o APT::FTPArchive::Release::Origin=conn-sidecar -o APT::FTPArchive::Release::Label=conn-sidecar \
    -o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
    -o APT::FTPArchive::Release::Components=main \
    -o APT::FTPArchive::Release::Architectures="$(paste -sd ' ' ../architectures)" \
    release dists/stable >../Release
  mv ../Release dists/stable/Release
  rm ../architectures
)

keys=$(mktemp -d)
trap 'gpgconf --homedir "$keys" --kill all 2>/dev/null || true; rm -rf "$keys"' EXIT
chmod 0700 "$keys"
sign() {
  gpg --homedir "$keys" --batch --quiet --pinentry-mode loopback --passphrase '' --yes "$@"
}
sign --import "$RELEASE_KEY"
sign --armor --detach-sign --output "$into/apt/dists/stable/Release.gpg" "$into/apt/dists/stable/Release"
sign --clearsign --output "$into/apt/dists/stable/InRelease" "$into/apt/dists/stable/Release"
sign --export --output "$into/apt/conn-sidecar.gpg"
(cd "$into" && find . -type f ! -name 'SHA256SUMS*' -printf '%P\n' | sort | xargs sha256sum >SHA256SUMS)
sign --armor --detach-sign --output "$into/SHA256SUMS.asc" "$into/SHA256SUMS"
echo "$into"
