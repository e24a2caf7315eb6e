#!/bin/bash
# The first program in the guest: makes it a place to work in, then runs /results/command there.
# debian_kernel.py attaches the two 9p exports and the disk, and reads what is left in /results.
set -eu
kernel=$1
shift

# virtme-ng's own root is 9p without a cache, from which `import bcc` takes a minute instead of 2 s.
# So the same files once more, cached, and writable: what is changed stays in the guest's memory.
mount -t tmpfs none /mnt
mkdir /mnt/host /mnt/upper /mnt/work /mnt/root
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose hostroot /mnt/host
# Programs that the tests start a hundred times, in memory: on 9p every open() is work for QEMU's main loop.
started=$(readlink -f /bin/{true,sh,bash,sleep,dd} /usr/bin/python3)
needed=$(ldd $started | awk '$3 ~ "^/" { print $3 } $1 ~ "^/.*/ld-" { print $1 }' | sort -u | xargs readlink -f)
for file in $started $needed /etc/ld.so.cache; do
    mkdir -p "/mnt/upper${file%/*}"
    cp -p "$file" "/mnt/upper$file"
done
mount -t overlay -o lowerdir=/mnt/host,upperdir=/mnt/upper,workdir=/mnt/work none /mnt/root
# virtme-ng has started udev, where the machine has it: it reads each disk that a test makes, and these are counted.
busybox killall -q systemd-udevd || :
cd /mnt/root
for dir in dev proc sys run; do mount --rbind "/$dir" "$dir"; done
mkdir -p old results scratch lib/modules
pivot_root . old  # not chroot, in which no user namespace can be made
exec </dev/null
umount -l /old
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 results /results
uname -r >/results/uname

ln -sfn "$kernel/lib/modules/$(uname -r)" "/lib/modules/$(uname -r)"
cp "$kernel"/boot/config-* /boot/
modprobe -a virtio_blk ext4 loop

mounted() { mountpoint -q "$3" || mount -t "$1" "$2" "$3"; }
mounted debugfs none /sys/kernel/debug
mounted tracefs none /sys/kernel/tracing
mounted cgroup2 none /sys/fs/cgroup
echo "+cpu +memory +io" >/sys/fs/cgroup/cgroup.subtree_control

# Disks by the names that guest.py gave them: /scratch, and the copies of directories (NAME:DIRECTORY…).
disk() {
    for serial in /sys/block/vd*/serial; do
        [ "$(cat "$serial")" != "$1" ] || basename "$(dirname "$serial")"
    done
}
mount "/dev/$(disk scratch)" /scratch
for copy in "$@"; do
    mkdir -p "${copy#*:}"
    mount "/dev/$(disk "${copy%%:*}")" "${copy#*:}"
done
busybox ip link set lo up

mkdir /run/home  # a fresh home: caches in the host's belong to another kernel
export HOME=/run/home TMPDIR=/scratch LANG=C.UTF-8
unset nr_open
status=0
bash /results/command || status=$?
echo "$status" >/results/status
