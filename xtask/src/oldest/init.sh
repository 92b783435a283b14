#!/bin/busybox sh
# The first program of the emulated machine: prepares it, runs the tests and the story, says how they ended, and turns the machine off.
/bin/busybox mkdir /busybox
/bin/busybox --install -s /busybox
export PATH=/bin:/busybox HOME=/ CI=true
ln -s /busybox/sh /bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/ip link set lo up
for module in /modules/*.ko; do
    insmod "$module"
done
# As Debian has it by default: nobody without privileges may load programs.
echo 2 > /proc/sys/kernel/unprivileged_bpf_disabled
echo 'root:x:0:0:root:/:/bin/sh' > /etc/passwd
echo 'root:x:0:' > /etc/group
kept=$(cat /work/kept)
mkdir -p "$kept"
cd /work
failed=0
# shellcheck disable=SC2046 # a test's name has no spaces
./kernel_programs --test-threads 3 $(cat tests) 2>&1 || failed=1
sh ./story.sh 2>&1 || failed=1
cat "$kept"/verifier-*.log > /dev/ttyS1 2> /dev/null
echo "$(cat done) $failed"
poweroff -f
