#!/bin/bash
# podrun.sh FOLDER HOSTNAME MOUNTS command...   (root, util-linux)
# Runs a command as PID 1 of new pid, mount, uts and ipc namespaces, on a throw-away overlay of /:
# it has its own files, hostname and signals, as in a container. Shared with the machine: the
# network, /dev, what / held at the start (to read), and MOUNTS (from:to,...), to read and write.
set -e
mkdir -p "$1/t" "$1/root"
exec unshare -m -p -f -u -i --kill-child=SIGKILL --propagation private bash -c '
set -e; D=$1 M=$3; hostname "$2"; shift 3
mount -t tmpfs -o mode=755 tmpfs "$D/t"; mkdir "$D/t/upper" "$D/t/work"
mount -t overlay -o lowerdir=/,upperdir="$D/t/upper",workdir="$D/t/work" overlay "$D/root"
mount --rbind /dev "$D/root/dev"; mount -t proc proc "$D/root/proc"
IFS=,; for pair in $M; do
  mkdir -p "$D/root${pair##*:}"; mount --bind "${pair%%:*}" "$D/root${pair##*:}"
done; unset IFS
exec chroot "$D/root" "$@"' podrun "$@"
