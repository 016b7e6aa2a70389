#!/bin/sh
# Makes a Debian root with systemd, uWSGI and what the application needs, and with balancers, which do not run until a test
# starts them: debian-root.sh DIRECTORY [MORE,PACKAGES]
# The archive is the one that this machine's apt uses. Nothing of it is changed afterwards: machines put an overlay on it.
set -eu
directory=$1

archive=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
  awk '$2 == "bookworm" && $3 == "main" { print $1; exit }')
if [ -z "$archive" ]; then
  echo "debian-root: no archive with bookworm/main in apt's sources" >&2
  exit 1
fi

rm -rf "$directory.new"
packages=systemd,systemd-sysv,dbus,procps,iproute2,man-db,bash-completion
packages=$packages,uwsgi-core,uwsgi-plugin-python3,python3-psycopg2,curl,haproxy,nginx-light${2:+,$2}
debootstrap --variant=minbase --include="$packages" bookworm "$directory.new" "$archive"

echo debian >"$directory.new/etc/hostname"
# Timers that could hold apt's lock while a test installs, or write files between two listings.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer man-db.timer e2scrub_all.timer fstrim.timer \
  systemd-tmpfiles-clean.timer; do
  ln -s /dev/null "$directory.new/etc/systemd/system/$unit"
done
rm "$directory.new/etc/systemd/system/multi-user.target.wants/haproxy.service" "$directory.new/etc/systemd/system/multi-user.target.wants/nginx.service"
mv "$directory.new" "$directory"
