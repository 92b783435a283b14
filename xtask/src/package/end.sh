# The end of a story, however it came: what the gate has said where it went wrong, the machine's last words, its power.
exec > /dev/ttyS0 2>&1
status=0
if [ "$SERVICE_RESULT" != success ]; then
    status=1
    [ "$SERVICE_RESULT" = exit-code ] || echo "FAIL package/the story ends by itself: it ended by $SERVICE_RESULT"
    journalctl -b -o short-monotonic --no-pager | tail -n 200
fi
echo "$(cat /story/done) $status"
sync
systemctl poweroff --force --force
