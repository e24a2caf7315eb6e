#!/bin/bash
# Within a guest: systemd as the first process of a PID namespace, with what is staged in STAGE installed and nothing
# started but what that needs.  Runs the command as a service, and ends as it ends.
#
# Never outside of a guest: systemd takes /tmp, /run and all cgroups for its own.
set -eu
[ -e /results/uname ] && [ "$(stat -f -c %T /)" = overlayfs ] || { echo "this is no guest" >&2; exit 2; }
stage=$1
shift

mkdir -p /run/units /run/log/journal
cp -a "$stage/usr/local/." /usr/local/
cp -a "$stage/etc/." /etc/
mount -t tmpfs none /etc/systemd/system  # what this machine has enabled is nothing of the guest's

units=/run/units:/etc/systemd/system:/usr/local/lib/systemd/system

# Only these units of Debian's, without those that their links pull in: the guest has no udev to wait for.
for unit in basic sysinit local-fs local-fs-pre sockets timers paths slices network shutdown umount final exit; do
    ln -s "/usr/lib/systemd/system/$unit.target" /run/units/
done
ln -s /usr/lib/systemd/system/systemd-{journald.service,journald.socket,journald-dev-log.socket,exit.service} /run/units/
ln -s /usr/lib/systemd/system/prometheus.service /run/units/  # which nothing starts before a test does
cat >/run/units/test.service <<EOF
[Unit]
Wants=systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
After=systemd-journald.service
SuccessAction=exit-force
FailureAction=exit-force
FailureActionExitStatus=1
[Service]
Type=exec
WorkingDirectory=$PWD
Environment=SYSTEMD_UNIT_PATH=$units
Environment=PATH=$PATH HOME=$HOME TMPDIR=$TMPDIR LANG=$LANG
ExecStart=$*
StandardOutput=file:/results/output
StandardError=inherit
EOF
export container=guest SYSTEMD_UNIT_PATH=$units
# Shared, as systemd makes it itself where it is no container: credentials come to a service through another namespace.
systemd='/usr/lib/systemd/systemd --system --unit=test.service --log-target=console --show-status=no'
unshare --pid --fork --mount --mount-proc --kill-child sh -c "mount --make-rshared / && exec $systemd"
