# The package on a Debian 12: installed, started, told to reload, hung, followed by the next version, stopped, removed.
set -u
PATH=/usr/sbin:/usr/bin
busybox=/story/busybox
passed=0
failed=0
# The next version is one more in this file.
session=/run/session
# until_true COMMAND: tries until it succeeds, for three minutes at most.
until_true() {
    tries=0
    until "$@" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 900 ] || return 1
        sleep 0.2
    done
}
# check WHAT COMMAND: one step of the story.
check() {
    what=$1
    shift
    if "$@" > /run/said 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL package/$what: $*"
        cat /run/said
    fi
}
# expect WHAT BEGINNING HEARD: one step of the story.
expect() {
    case $3 in
        "$2"*) passed=$((passed + 1)) ;;
        *)
            failed=$((failed + 1))
            echo "FAIL package/$1: expected \"$2\", got:"
            echo "$3"
            ;;
    esac
}
not() { ! "$@"; }
# begin ADDRESS: a client that stays.
begin() {
    rm -f $session.*
    mkfifo $session.says
    ip netns exec client $busybox nc 198.51.100.1 25 -s "$1" < $session.says > $session.hears 2> /dev/null &
    client=$!
    exec 3> $session.says
}
hears() { grep -q "^$1" $session.hears; }
# finish: it says goodbye, and hears it.
finish() {
    printf 'QUIT\r\n' >&3
    until_true hears '221 bye'
    exec 3>&-
    wait $client
    cat $session.hears
}
# meet ADDRESS: what a client hears first that comes, is let in and leaves, or is turned away.
meet() {
    begin "$1"
    until_true hears '[245][0-9][0-9] '
    hears '220 ' && printf 'QUIT\r\n' >&3 2> /dev/null
    exec 3>&-
    wait $client
    head -n 1 $session.hears
}
main_pid() { systemctl show --value -p MainPID mxscreen; }
screener() { cat "/proc/$(main_pid)"/task/*/children | tr ' ' '\n' | sort -n | sed -n '/./{p;q}'; }
status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
logged() { journalctl -u mxscreen -o cat --no-pager | grep -qF "$1"; }
# The kernel's programs but for systemd's own, which come and go with units.
programs() { bpftool prog show | sed -n 's/^[0-9]*: .* name \([^ ]*\) .*/\1/p' | grep -v '^sd_' | sort; }
maps() { bpftool map show | sed -n 's/^[0-9]*: .* name \([^ ]*\) .*/\1/p' | sort; }
nothing_is_left() {
    [ ! -e /sys/fs/bpf/mxscreen ] && [ "$(programs)" = "$programs_before" ] && [ "$(maps)" = "$maps_before" ] \
        && ! ip link show dev mail0 | grep -q xdp && [ -z "$(tc filter show dev mail0 ingress 2> /dev/null)" ] \
        && [ -z "$(ip rule show | grep -v -e local -e main -e default)" ]
}
# A mail server, and a network for its clients.
trap '' PIPE
ip link set lo up
ip netns add client
ip link add mail0 type veth peer name net0 netns client
ip addr add 198.51.100.1/24 dev mail0
ip link set mail0 up
for last in 2 3 4 5 6 7; do
    ip -n client addr add "198.51.100.$last/24" dev net0
done
ip -n client link set net0 up
cat > /run/server << SERVER
#!$busybox sh
printf '220 the mail server\r\n'
read -r line
printf '221 bye\r\n'
SERVER
chmod 755 /run/server
$busybox nc -ll -p 25 -e /run/server &
server=$!
programs_before=$(programs)
maps_before=$(maps)

check "it is installed" dpkg -i /story/mxscreen.deb
expect "nothing is started by surprise" "inactive" "$(systemctl is-active mxscreen)"
expect "nothing is enabled by surprise" "disabled" "$(systemctl is-enabled mxscreen)"
check "there is an account" id mxscreen
for file in /usr/share/man/man8/mxscreen.8.gz /usr/share/man/man5/mxscreen.toml.5.gz \
    /usr/share/bash-completion/completions/mxscreen /usr/share/zsh/vendor-completions/_mxscreen \
    /usr/share/fish/vendor_completions.d/mxscreen.fish; do
    check "a document" sh -c "test -s $file -o -s ${file%.gz}"
done
check "the configuration is right" mxscreen check
check "the units are right" systemd-analyze verify --man=no mxscreen.service mxscreen.socket
expect "systemd does not complain of them" "" "$(cat /run/said)"
check "the exposure is small" systemd-analyze security --no-pager --threshold=20 mxscreen.service
check "old logs are put aside" logrotate --debug /etc/logrotate.d/mxscreen

mkdir -p /etc/systemd/system/mxscreen.service.d
cat > /etc/systemd/system/mxscreen.service.d/story.conf << DROPIN
[Service]
LoadCredential=key:/story/key.pem
WatchdogSec=20s
DROPIN
check "at first it only watches" grep -q '^dry_run = true' /etc/mxscreen/mxscreen.toml
sed -i '/^dry_run/d' /etc/mxscreen/mxscreen.toml
cat >> /etc/mxscreen/mxscreen.toml << CONFIG
hostname = "mx.example.test"
pregreet.wait = "1s"
tls.level = "may"
tls.certificate = "/story/certificate.pem"
tls.key = "credential:key"
CONFIG
systemctl daemon-reload
check "it starts" systemctl start mxscreen
keeper=$(main_pid)
expect "the keeper has an account of its own" "$(id -u mxscreen)" "$(status_of "$keeper" Uid)"
expect "the keeper has few capabilities" "000000c000001404" "$(status_of "$keeper" CapEff)"
expect "the screener has none" "0000000000000000" "$(status_of "$(screener)" CapPrm)"
expect "a stranger is screened" "220-mx.example.test ESMTP" "$(meet 198.51.100.2)"
expect "a known client is not" "220 the mail server" "$(meet 198.51.100.2)"
check "a client is denied" mxscreen deny 198.51.100.3 --reason story
expect "the denied one is told so" "521 5.3.2 Service currently unavailable" "$(meet 198.51.100.3)"

check "it reloads" systemctl reload mxscreen
check "it says so" logged reloaded
cp /etc/mxscreen/mxscreen.toml /run/right
echo 'no.such.key = 1' >> /etc/mxscreen/mxscreen.toml
check "what is wrong is not loaded" not systemctl reload mxscreen
cp /run/right /etc/mxscreen/mxscreen.toml
expect "it goes on" "active" "$(systemctl is-active mxscreen)"

check "the screener hangs" kill -STOP "$(screener)"
expect "the known reach the mail server" "220 the mail server" "$(meet 198.51.100.2)"
check "the watchdog notices" until_true test "$(main_pid)" -ne "$keeper" -o "$(systemctl show --value -p NRestarts mxscreen)" -ne 0
until_true sh -c '[ "$(systemctl show --value -p NRestarts mxscreen)" -ge 1 ] && systemctl -q is-active mxscreen'
expect "it is started again" "1" "$(systemctl show --value -p NRestarts mxscreen)"
expect "it screens again" "220-mx.example.test ESMTP" "$(meet 198.51.100.4)"
expect "the denied one is still told so" "521 5.3.2 Service currently unavailable" "$(meet 198.51.100.3)"

keeper=$(main_pid)
before=$(screener)
begin 198.51.100.5
check "a session is open" until_true hears '220 the mail server'
check "the next version is installed" dpkg -i /story/next.deb
expect "it is the next one" "$(dpkg-deb -f /story/next.deb Version)" "$(dpkg-query -W -f '${Version}' mxscreen)"
check "it has taken over" logged "another version takes over"
expect "by the same process" "$keeper" "$(main_pid)"
check "which runs the new program" test "$(readlink "/proc/$keeper/exe")" = /usr/sbin/mxscreen
check "the former screener has the session" test -d "/proc/$before"
expect "the session ends well" "220-mx.example.test ESMTP" "$(finish)"
check "the former screener ends" until_true test ! -d "/proc/$before"
expect "strangers are screened" "220-mx.example.test ESMTP" "$(meet 198.51.100.6)"

check "it stops" systemctl stop mxscreen
expect "well" "inactive" "$(systemctl is-active mxscreen)"
expect "the kernel goes on" "521 5.3.2 Service currently unavailable" "$(meet 198.51.100.3)"
expect "strangers meet the mail server" "220 the mail server" "$(meet 198.51.100.7)"
check "what was stopped is removed" dpkg -r mxscreen
check "nothing of the stopped one is left" until_true nothing_is_left
expect "the denied one is let in" "220 the mail server" "$(meet 198.51.100.3)"
check "the configuration stays" test -f /etc/mxscreen/mxscreen.toml

check "it comes back" dpkg -i /story/mxscreen.deb
check "it starts as it was" systemctl start mxscreen
begin 198.51.100.7
check "a session is open" until_true hears '220 the mail server'
dpkg -r mxscreen > /run/removal 2>&1 &
removal=$!
check "the port is given back" until_true sh -c '! test -e /sys/fs/bpf/mxscreen/links/steer'
expect "the session ends well" "220-mx.example.test ESMTP" "$(finish)"
wait $removal
expect "it is removed" "0" "$?"
check "nothing is left" until_true nothing_is_left
check "no process either" not grep -qs mxscreen /proc/[0-9]*/comm

check "it comes back for the socket" dpkg -i /story/mxscreen.deb
kill $server
$busybox nc -ll -p 2525 -e /run/server &
server=$!
cat >> /etc/mxscreen/mxscreen.toml << CONFIG
layout = "front"
forward.to = ["127.0.0.1:2525"]
CONFIG
rm -rf /etc/systemd/system/mxscreen.service.d
systemctl daemon-reload
sed -i '/^tls/d' /etc/mxscreen/mxscreen.toml
check "the socket is opened" systemctl start mxscreen.socket
expect "the first client starts the gate" "220-mx.example.test ESMTP" "$(meet 198.51.100.2)"
check "it uses the socket" not logged "is not among these addresses"
check "it is removed with its socket" dpkg -r mxscreen
check "nothing is left of that either" until_true nothing_is_left
check "it is purged" dpkg -P mxscreen
for path in /etc/mxscreen/mxscreen.toml /var/lib/mxscreen /var/log/mxscreen /run/mxscreen \
    /usr/lib/systemd/system/mxscreen.service.d; do
    check "it leaves no trace" test ! -e "$path"
done
kill $server
[ $failed = 0 ] || journalctl -u mxscreen -o cat --no-pager | tail -n 200
[ $failed = 0 ] || cat /run/removal
echo "$passed passed, $failed failed"
echo "$(cat /story/done) $([ $failed = 0 ]; echo $?)"
sync
systemctl poweroff --force --force
