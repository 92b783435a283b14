# What the stories on the machine are made of: steps that are counted, waits with an end, clients in a network of their own.
set -u
PATH=/usr/sbin:/usr/bin
busybox=/story/busybox
passed=0
failed=0
# The files of a client: what it says, and what it hears.
session=/run/session
# Since the machine was started.
seconds() { cut -d. -f1 /proc/uptime; }
# until_true COMMAND: tries until it succeeds, for three minutes at most.
until_true() {
    end=$(($(seconds) + 180))
    until "$@" > /dev/null 2>&1; do
        [ "$(seconds)" -lt $end ] || return 1
        sleep 0.2
    done
}
# check WHAT COMMAND: one step of the story. Without some of them there is no going on: `check ... || end`.
check() {
    what=$1
    shift
    if "$@" > /run/said 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL package/$what: $*"
        cat /run/said
        return 1
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
# expect_nothing WHAT HEARD: one step of the story.
expect_nothing() {
    check "$1" test -z "$2"
}
not() { ! "$@"; }
# The story's end, as its service's.
end() {
    echo "$passed passed, $failed failed"
    exit $((failed > 0))
}
# network LAST...: the mail server's network is 198.51.100.0/24, with clients of these last numbers in it.
network() {
    ip link set lo up
    ip netns add client
    ip link add mail0 type veth peer name net0 netns client
    ip addr add 198.51.100.1/24 dev mail0
    ip link set mail0 up
    for last in "$@"; do
        ip -n client addr add "198.51.100.$last/24" dev net0
    done
    ip -n client link set net0 up
    # A client that is gone ends no story.
    trap '' PIPE
}
# from ADDRESS: the clients that come next have this one.
from() { ip -n client route replace 198.51.100.1 dev net0 src "$1"; }
# begin ADDRESS: a client that stays.
begin() {
    rm -f $session.*
    mkfifo $session.says
    from "$1"
    ip netns exec client $busybox nc 198.51.100.1 25 < $session.says > $session.hears 2> /dev/null &
    client=$!
    exec 3> $session.says
}
hears() { grep -q "^$1" $session.hears; }
# leave: nothing more is said; one that is not let go by then goes.
leave() {
    exec 3>&-
    until_true test ! -e "/proc/$client/exe" || kill $client
    wait $client
}
# finish: it says goodbye, and hears it.
finish() {
    printf 'QUIT\r\n' >&3
    until_true hears '221 '
    leave
    cat $session.hears
}
# meet ADDRESS: what a client hears first that comes, is let in and leaves, or is turned away.
meet() {
    begin "$1"
    until_true hears '[245][0-9][0-9] '
    hears '220 ' && printf 'QUIT\r\n' >&3 2> /dev/null
    leave
    head -n 1 $session.hears
}
# The kernel's programs but for systemd's own, which come and go with units.
programs() { bpftool prog show | sed -n 's/^[0-9]*: .* name \([^ ]*\) .*/\1/p' | grep -v '^sd_' | sort; }
maps() { bpftool map show | sed -n 's/^[0-9]*: .* name \([^ ]*\) .*/\1/p' | sort; }
# What was there before the gate; `network` comes first.
remember_what_is_there() {
    programs_before=$(programs)
    maps_before=$(maps)
}
nothing_is_left() {
    [ ! -e /sys/fs/bpf/mxscreen ] && [ "$(programs)" = "$programs_before" ] && [ "$(maps)" = "$maps_before" ] \
        && ! ip link show dev mail0 | grep -q xdp && [ -z "$(tc filter show dev mail0 ingress 2> /dev/null)" ] \
        && [ -z "$(ip rule show | grep -v -e local -e main -e default)" ]
}
logged() { journalctl -u mxscreen -o cat --no-pager | grep -qF "$1"; }
