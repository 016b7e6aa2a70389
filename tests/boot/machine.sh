#!/bin/sh
# Boots a machine on an overlay: machine.sh ROOT MOUNTPOINT NAME NETWORK-ARGUMENT
# Runs as PID 1 of a PID namespace with mounts of its own: whatever ends that namespace takes the machine, its files and
# its mounts with it.
set -eu
mount -t tmpfs -o mode=0755 machine "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
# nspawn leaves lock files and directories here when it is killed.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 nspawn /run/systemd/nspawn
# What nspawn takes from a container and a real host's root has: CAP_NET_ADMIN where a namespace is joined, and
# pidfd_getfd always.
exec systemd-nspawn --quiet --boot --register=no --keep-unit "$4" --capability=CAP_NET_ADMIN \
  --system-call-filter=pidfd_getfd --machine="$3" --directory="$2/root" --console=pipe
