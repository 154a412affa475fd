# Runs a command on a board for as long as its client listens: $1 work directory, $2 seconds, then the command.
# It has a process group of its own, which ends with the connection (our stdin), after $2 seconds, or with it.
work=$1 limit=$2
shift 2
[ -d "$work/groups" ] && cd "$work" || { echo "edgekit: this session is over" >&2; exit 125; }
exec 3<&0
setsid "$@" </dev/null 3<&- &
group=$!
note() {
    IFS= read -r stat 2>/dev/null <"/proc/$1/stat" && (set -- ${stat##*) }; echo "${20}") >"groups/$1"
}
note $group

# A watcher has a group of its own too: what it waits for ends with it.
watch='"$@" <&3; kill -TERM "-$0" 2>/dev/null || exit; sleep 1; kill -KILL "-$0"'
setsid sh -c "$watch" $group cat >/dev/null 2>&1 &
client=$!
setsid sh -c "$watch" $group sleep "$limit" >/dev/null 2>&1 &
deadline=$!
note $client
note $deadline

# A child that was just started has no group yet.
end() {
    while kill -0 $1 2>/dev/null && ! kill -KILL -$1 2>/dev/null; do :; done
    rm -f groups/$1
}
finish() {
    trap '' HUP INT TERM
    end $group
    end $client
    end $deadline
    exit $1
}
trap 'kill -TERM -$group 2>/dev/null && sleep 1; finish 129' HUP INT TERM
wait $group
code=$?
kill -KILL -$group 2>/dev/null
finish $code
