# docs/first-hour.md, before a real Postfix: the commands are taken from there, and what they print is held against what is printed there.
. /story/steps.sh
document=/story/first-hour.md
transcript=/dev/ttyS1
# What is no other thing where the numbers, the names of messages in the queue or the width of a column are others. Clients stay who they are.
alike() {
    sed -E -e 's/198\.51\.100\.10\b/GOOD/g' -e 's/198\.51\.100\.66\b/EARLY/g' -e 's/198\.51\.100\.99\b/LISTED/g' -e 's/198\.51\.100\.150\b/DENIED/g' \
        -e 's/message-id=<[^@]*@/message-id=<0@/' -e 's/\b[0-9A-F]{6,}\b/0/g' -e 's/[0-9]+([.:][0-9]+)*/0/g' -e 's/[[:space:]]+/ /g' -e 's/ $//'
}
# read_aloud HEADING: the commands of a chapter, each in a file, and what is printed behind each, in another one.
read_aloud() {
    rm -rf /run/chapter
    mkdir /run/chapter
    awk -v heading="## $1" '
        /^```/ { inside = !inside && $0 == "```console"; next }
        !inside && /^## / { here = $0 == heading }
        inside && here && /^# / {
            number++
            print substr($0, 3) > sprintf("/run/chapter/%02d.command", number)
            printf "" > sprintf("/run/chapter/%02d.shown", number)
            next
        }
        inside && here { print > sprintf("/run/chapter/%02d.shown", number) }
    ' $document
}
# play HEADING: does what the chapter says; each line that is shown there has to come, but for `...`.
play() {
    read_aloud "$1"
    check "$1: has commands" test -e /run/chapter/01.command || end
    printf '\n## %s\n' "$1" > $transcript
    for command in /run/chapter/*.command; do
        said=${command%.command}.said
        printf '# %s\n' "$(cat "$command")" > $transcript
        journalctl --sync
        check "$1: $(cat "$command")" sh -c "cd /root && . $command > $said 2>&1" || cat "$said"
        { cat "$said"; echo "[$(($(seconds) - begun)) s]"; } > $transcript
        alike < "$said" > "$said.alike"
        alike < "${command%.command}.shown" | grep -v '^\.\.\.$' > "$said.shown"
        expect_nothing "$1: $(cat "$command"): all that the document shows is printed" "$(grep -Fxv -f "$said.alike" "$said.shown")"
    done
}
# delivers ADDRESS: a mail server that sends one message.
delivers() {
    from "$1"
    ip netns exec client smtp-source -M partner.example.org -f someone@partner.example.org -t postmaster@example.test 198.51.100.1:25
}
# talks_early ADDRESS: a bot, which says everything at once.
talks_early() {
    begin "$1"
    printf 'HELO bot\r\nMAIL FROM:<a@bot.example>\r\nRCPT TO:<postmaster@example.test>\r\n' >&3
    until_true hears '[25][0-9][0-9] '
    leave
}
# tries ADDRESS: one that knows how to wait; the reply to its recipient stands in the file of what it hears.
tries() {
    begin "$1"
    until_true hears '220 ' && printf 'EHLO mail.example.net\r\n' >&3
    until_true hears '250 ' && printf 'MAIL FROM:<a@example.net>\r\n' >&3
    until_true hears '250 2.1.0' && printf 'RCPT TO:<postmaster@example.test>\r\n' >&3
    until_true hears '\(550\|250 2.1.5\) '
    printf 'QUIT\r\n' >&3
    leave
}
replied() { grep -q "$1" $session.hears; }
mails() { grep -c '^From ' /var/mail/root; }
arrived_since() { [ "$(mails)" -gt "$1" ]; }
# What is said of clients that are gone settles a little later.
logged_by_postfix() { [ "$(journalctl -u 'postfix*' -o cat --no-pager | grep -c "$1")" -ge "$2" ]; }
kept() { mxscreen status | grep -q "^  written: $1\$"; }
# clients: those of a quarter of an hour. The last reply is the listed one's.
clients() {
    delivers 198.51.100.10
    talks_early 198.51.100.66
    tries 198.51.100.150
    tries 198.51.100.99
}

# The host as it is at ten.
network 10 20 66 99 150
hostname mx.example.test
cat > /etc/hosts << HOSTS
127.0.0.1 localhost
198.51.100.1 mx.example.test mx
HOSTS
echo 'nameserver 127.0.0.1' > /etc/resolv.conf
cp /story/main.cf /etc/postfix/main.cf
printf '192.0.2.25 permit\n198.51.100.150 reject\n' > /etc/postfix/postscreen_access.cidr
echo 'key.zen.example.net zen.example.net' > /etc/postfix/dnsbl_reply
postscreen='/^smtp .*smtpd$/d; s/^#(smtp .*postscreen|smtpd .*smtpd|dnsblog .*|tlsproxy .*)$/\1/'
sed -i -E "$postscreen" /etc/postfix/master.cf
dnsmasq --no-hosts --no-resolv --listen-address=127.0.0.1 --bind-interfaces --local=/test/example.net/example.org/example.com/arpa/ --local-ttl=300 \
    --address=/2.0.0.127.key.zen.example.net/127.0.0.2 --address=/2.0.0.127.bl.example.org/127.0.0.2 --address=/2.0.0.127.list.example.com/127.0.0.2 \
    --address=/99.100.51.198.key.zen.example.net/127.0.0.4
newaliases
check "Postfix runs" systemctl start postfix || end
check "with postscreen" until_true sh -c 'ss -lnt | grep -q ":25 "' || end
cp /story/mxscreen.deb /root/mxscreen_0.1.0_amd64.deb
cp /story/next.deb "/root/mxscreen_0.1.0+next_amd64.deb"
remember_what_is_there
begun=$(seconds)

play "The host"
play "Install"
play "Take over what postscreen does"
play "Examine the host"
play "Watch"
clients
check "in the dry run the listed one meets postscreen" replied '^550 5.7.1'
check "mail arrives" until_true arrived_since 0
check "all is in the journal" until_true kept 4
play "Who would have been turned away"
play "What if"
play "Switch it on"
before=$(mails)
clients
check "the listed one is turned away" replied '^550 5.7.1'
check "mail arrives" until_true arrived_since "$before"
check "Postfix is done with it" until_true logged_by_postfix ': removed$' 2
check "and the gate with its clients" until_true logged 'DISCONNECT [198.51.100.99]'
play "See it work"
begin 198.51.100.20
check "a session is open" until_true hears '220 '
play "Upgrade"
expect "the session goes on" "220-" "$(finish)"
play "Remove"
check "nothing is left" until_true nothing_is_left
before=$(mails)
delivers 198.51.100.20
check "mail arrives" until_true arrived_since "$before"
end
