# The package on a Debian 12: installed, started, told to reload, hung, followed by the next version, stopped, removed.
. /story/steps.sh
main_pid() { systemctl show --value -p MainPID mxscreen; }
screener() { cat "/proc/$(main_pid)"/task/*/children | tr ' ' '\n' | sort -n | sed -n '/./{p;q}'; }
status_of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
starts_again() { systemctl show --value -p NRestarts mxscreen; }
is_started_again() { [ "$(starts_again)" -ge 1 ] && systemctl -q is-active mxscreen; }
# A mail server, and a network for its clients.
network 2 3 4 5 6 7 8
cat > /run/server << SERVER
#!$busybox sh
printf '220 the mail server\r\n'
read -r line
printf '221 bye\r\n'
SERVER
chmod 755 /run/server
$busybox nc -ll -p 25 -e /run/server &
server=$!
remember_what_is_there

check "it is installed" dpkg -i /story/mxscreen.deb || end
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
expect_nothing "systemd does not complain of them" "$(cat /run/said)"
check "the exposure is small" systemd-analyze security --no-pager --threshold=20 mxscreen.service
check "old logs are put aside" logrotate --debug /etc/logrotate.d/mxscreen

mkdir -p /etc/systemd/system/mxscreen.service.d
cat > /etc/systemd/system/mxscreen.service.d/story.conf << DROPIN
[Service]
LoadCredential=key:/story/key.pem
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
check "it starts" systemctl start mxscreen || end
keeper=$(main_pid)
expect "the keeper has an account of its own" "$(id -u mxscreen)" "$(status_of "$keeper" Uid)"
expect "the keeper has few capabilities" "000000c000001404" "$(status_of "$keeper" CapEff)"
expect "the screener has none" "0000000000000000" "$(status_of "$(screener)" CapPrm)"
expect "a stranger is screened" "220-mx.example.test ESMTP" "$(meet 198.51.100.2)"
expect "a known client is not" "220 the mail server" "$(meet 198.51.100.2)"
check "a client is denied" mxscreen deny 198.51.100.3 --reason story
expect "the denied one is told so" "521 5.3.2 Service currently unavailable" "$(meet 198.51.100.3)"

check "the configuration is right, beside the service" mxscreen check
check "nothing is wrong with this host" mxscreen doctor

check "it reloads" systemctl reload mxscreen
check "it says so" logged reloaded
cp /etc/mxscreen/mxscreen.toml /run/right
echo 'no.such.key = 1' >> /etc/mxscreen/mxscreen.toml
check "what is wrong is not loaded" not systemctl reload mxscreen
cp /run/right /etc/mxscreen/mxscreen.toml
expect "it goes on" "active" "$(systemctl is-active mxscreen)"

printf '[Service]\nWatchdogSec=60s\n' > /etc/systemd/system/mxscreen.service.d/impatient.conf
systemctl daemon-reload
check "it is watched more closely" systemctl restart mxscreen || end
check "the screener hangs" kill -STOP "$(screener)"
expect "the known reach the mail server" "220 the mail server" "$(meet 198.51.100.2)"
check "the watchdog notices, and it is started again" until_true is_started_again
expect "it screens again" "220-mx.example.test ESMTP" "$(meet 198.51.100.4)"
expect "the denied one is still told so" "521 5.3.2 Service currently unavailable" "$(meet 198.51.100.3)"

rm /etc/systemd/system/mxscreen.service.d/impatient.conf
systemctl daemon-reload
check "it is watched as usual" systemctl restart mxscreen || end

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
check "it starts as it was" systemctl start mxscreen || end
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
expect "the first client starts the gate" "220-mx.example.test ESMTP" "$(meet 198.51.100.8)"
check "it uses the socket" not logged "is not among these addresses"
check "it is removed with its socket" dpkg -r mxscreen
check "nothing is left of that either" until_true nothing_is_left
check "it is purged" dpkg -P mxscreen
for path in /etc/mxscreen/mxscreen.toml /var/lib/mxscreen /var/log/mxscreen /run/mxscreen \
    /usr/lib/systemd/system/mxscreen.service.d; do
    check "it leaves no trace" test ! -e "$path"
done
kill $server
[ $failed = 0 ] || cat /run/removal
end
