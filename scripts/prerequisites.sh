#!/bin/sh
# Installs the Debian packages that a part of this repository needs and that are missing.
#
#   scripts/prerequisites.sh [lab|deb|release|release-test|bench]...      (default: lab)
#
# Quick when nothing is missing. Needs root or sudo only when something is.
set -eu

# The lab: namespaces and router, a C compiler for its many sockets, PostgreSQL 15, uWSGI with a psycopg2 application, setpriv and capsh, a library that
# fakes the wall clock; and what else stands between workers and back-ends: gunicorn, pgbouncer, redis, HAProxy, nginx, Apache with mod_wsgi, Squid, MariaDB; and
# Prometheus with promtool, which watches.
lab="gcc libc6-dev iproute2 nftables conntrack procps util-linux libcap2-bin postgresql-15 uwsgi-core uwsgi-plugin-python3 python3-psycopg2"
lab="$lab libfaketime gunicorn pgbouncer redis-server python3-redis haproxy prometheus nginx-light apache2 libapache2-mod-wsgi-py3 squid mariadb-server openssl"
# The package: its build, its lint, a Debian root to install it in, the parser of its AppArmor profile, and shells that complete.
deb="debhelper dh-apparmor fakeroot lintian debootstrap systemd-container man-db binutils apparmor zsh fish"
# A release: indexes of the repository and its signature. Its tests: whoever installs it on many hosts.
release="apt-utils gnupg"
release_test="ansible-core"
# The benchmarks: the lab, and what a scan is compared with.
bench="$lab prometheus-node-exporter"

[ $# -gt 0 ] || set -- lab
wanted=
for set_name in "$@"; do
  case $set_name in
    lab) wanted="$wanted $lab" ;;
    deb) wanted="$wanted $deb" ;;
    release) wanted="$wanted $release" ;;
    release-test) wanted="$wanted $release_test" ;;
    bench) wanted="$wanted $bench" ;;
    *) echo "prerequisites: no such set: $set_name (lab, deb, release, release-test, bench)" >&2; exit 2 ;;
  esac
done

missing=
for package in $wanted; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
  as_root="env"
elif command -v sudo >/dev/null 2>&1; then
  as_root="sudo env"
else
  echo "prerequisites: these packages are missing and neither root nor sudo is at hand:$missing" >&2
  exit 1
fi

install() {
  $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    -o Dpkg::Options::=--force-confold "$@"
}

# The lists may be absent (a fresh container) or too old for the archive: update once when the first try fails.
install_updating() {
  if ! install --simulate "$@" >/dev/null 2>&1 || ! install "$@"; then
    $as_root apt-get update -q
    install "$@"
  fi
}

put_back() {
  [ ! -e "${conf:-}.sidecar-saved" ] || $as_root mv "$conf.sidecar-saved" "$conf"
  [ -z "${policy:-}" ] || $as_root rm -f "$policy"
}
trap put_back EXIT

# pgbouncer, redis-server, nginx, apache2 and prometheus start services of their own; the lab starts what it needs, and the host keeps its ports.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  policy=/usr/sbin/policy-rc.d
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
  $as_root chmod 0755 "$policy"
fi

# postgresql-15 makes and starts a cluster of its own.
case " $missing " in
  *" postgresql-15 "*)
    install_updating postgresql-common
    conf=/etc/postgresql-common/createcluster.conf
    $as_root cp -p "$conf" "$conf.sidecar-saved"
    $as_root sed -i 's/^#\?create_main_cluster *=.*/create_main_cluster = false/' "$conf"
    ;;
esac

# shellcheck disable=SC2086 # a list of package names
install_updating $missing
