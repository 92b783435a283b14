# A mail server, the gate that comes to it, and a client that is screened, then known, then denied.
set -u
# The shell would take busybox's own.
ip=/bin/ip
# A client that was refused is gone when it is told to leave.
trap '' PIPE
passed=0
failed=0
# gate WORDS: a command to the running gate.
gate() {
    ./mxscreen "$@" --control /run/gate/control.sock
}
# until_true COMMAND: tries until it succeeds, for a minute at most.
until_true() {
    tries=0
    until "$@" > /dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || return 1
        sleep 0.1
    done
}
# hear ADDRESS: what a client hears that waits for its greeting, and then leaves.
hear() {
    rm -f /run/said /run/heard
    mkfifo /run/said
    $ip netns exec client nc -w 20 "$1" 25 < /run/said > /run/heard &
    exec 3> /run/said
    until_true grep -q '^[245][0-9][0-9] ' /run/heard
    echo QUIT >&3 2> /dev/null
    exec 3>&-
    wait $!
    cat /run/heard
}
# expect WHAT BEGINNING HEARD: one step of the story.
expect() {
    case $3 in
        "$2"*) passed=$((passed + 1)) ;;
        *)
            failed=$((failed + 1))
            echo "FAIL story/$1: expected \"$2\", heard:"
            echo "$3"
            ;;
    esac
}

$ip netns add client
$ip link add mail0 type veth peer name net0 netns client
$ip addr add 198.51.100.1/24 dev mail0
$ip addr add 2001:db8::1/64 dev mail0 nodad
$ip link set mail0 up
$ip -n client addr add 198.51.100.2/24 dev net0
$ip -n client addr add 2001:db8::2/64 dev net0 nodad
$ip -n client link set net0 up
mkdir -p /run/gate
cat > /run/gate/mxscreen.toml << CONFIG
hostname = "mx.example.test"
state.directory = "/run/gate/state"
control.socket = "/run/gate/control.sock"
pregreet.wait = "1s"
user = "root"
CONFIG
cat > /run/gate/server << SERVER
#!/bin/sh
printf '220 the mail server\r\n'
read -r line
printf '221 bye\r\n'
SERVER
chmod 755 /run/gate/server
nc -ll -p 25 -e /run/gate/server &
server=$!
./mxscreen run --config /run/gate/mxscreen.toml > /run/gate/log 2>&1 &
screener=$!
until_true gate status || {
    echo "FAIL story/the gate does not start"
    cat /run/gate/log
    exit 1
}
expect "the interface" "mode: generic" "$(gate status | grep -o 'mode: .*')"
for net in 198.51.100. 2001:db8::; do
    expect "a stranger is screened ($net)" "220-mx.example.test ESMTP" "$(hear "${net}1")"
    expect "a known client is not ($net)" "220 the mail server" "$(hear "${net}1")"
    gate deny "${net}2" --reason test > /dev/null
    expect "a denied one is told so ($net)" "521 5.3.2 Service currently unavailable" "$(hear "${net}1")"
done
gate stop --detach
wait $screener
expect "the end" "0" "$?"
[ $failed = 0 ] || cat /run/gate/log
kill $server
echo "$passed passed, $failed failed"
[ $failed = 0 ]
