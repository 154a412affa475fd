# Keeps one session on a board for as long as its client lives; $1 base $2 run $3 owner $4 lock (0|1) $5 seconds.
# The client sends a line now and then. When lines stop coming for $5 seconds, or the connection closes, what
# the session started is killed, its clocks are put back, its directory and its lock are removed.
set -u
umask 077
base=$1 run=$2 owner=$3 want_lock=$4 limit=$5
work=$base/edgekit-$run
lock=$base/edgekit-lock

# Start time of process $1: with its number and the boot it names a process for good. A zombie is none.
started() {
    IFS= read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    set -- ${stat##*) }
    [ "$1" != Z ] && echo "${20}"
}
IFS= read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id || boot=unknown
me="$$ $(started $$) $boot"
alive() { [ "$3" = "$boot" ] && [ "$(started "$1")" = "$2" ]; }

# Signal $1 to every process group of directory $2, unless its number belongs to another process by now.
signal() {
    for group in "$2"/groups/*; do
        [ -f "$group" ] || continue
        now=$(started "${group##*/}") && [ "$now" != "$(cat "$group")" ] && continue
        kill "-$1" "-${group##*/}" 2>/dev/null && hit=1
    done
}

# Remove a work directory, if its sentinel says that it is one; $2 is the boot it belongs to.
clear_away() {
    IFS= read -r sentinel 2>/dev/null <"$1/.edgekit" || return
    [ "$sentinel" = "edgekit ${1##*/edgekit-}" ] || return
    if [ "$2" = "$boot" ]; then
        hit=0
        signal TERM "$1"
        [ $hit = 0 ] || sleep 1
        signal KILL "$1"
        [ ! -f "$1/undo" ] || sh "$1/undo"
    fi
    rm -rf "$1" || { sleep 1; rm -rf "$1"; }
}

# Work directories whose keeper is gone: the board lost power, or the keeper was killed.
sweep() {
    for place in "$base"/edgekit-*/.edgekit; do
        [ -f "$place" ] || continue
        { read -r _; read -r pid start of; } 2>/dev/null <"$place" || continue
        alive "$pid" "$start" "$of" || clear_away "${place%/.edgekit}" "$of"
    done
}

# A symbolic link is made in one step and carries its text: the lock and its owner cannot be apart.
take_lock() {
    mine="$me $run $owner"
    for attempt in 1 2 3; do
        ln -s "$mine" "$lock" 2>/dev/null && return 0
        held=$(readlink "$lock") || continue
        alive $held && break
        mv "$lock" "$lock.$$" 2>/dev/null || break
        [ "$(readlink "$lock.$$")" = "$held" ] || mv "$lock.$$" "$lock"
        rm -f "$lock.$$"
    done
    echo "busy ${held:-}"
    return 1
}

watchdog='seen=
while sleep "$1"; do
    now=$(cat "$2/beat")
    [ "$now" != "$seen" ] || kill "$3"
    seen=$now
done'

listen() {
    beat=0
    while IFS= read -r line && [ "$line" != quit ]; do
        beat=$((beat + 1))
        echo $beat >"$work/beat"
        echo "beat $beat"
    done
}

finish() {
    trap '' HUP INT TERM PIPE EXIT
    kill $reader 2>/dev/null
    # a child that was just started has no group yet
    while [ "$watcher" ] && kill -0 $watcher 2>/dev/null && ! kill -KILL -$watcher 2>/dev/null; do :; done
    clear_away "$work" "$boot"
    [ "$want_lock" = 0 ] || [ "$(readlink "$lock")" != "$mine" ] || rm -f "$lock"
    exit 0
}

[ -d "$base" ] && [ -w "$base" ] || { echo "error $base is not a directory that can be written to"; exit 1; }
command -v setsid >/dev/null || { echo "error there is no setsid"; exit 1; }
sweep
[ "$want_lock" = 0 ] || take_lock || exit 1
watcher= reader=
trap finish HUP INT TERM EXIT
mkdir "$work" && echo "edgekit $run" >"$work/.edgekit" && echo "$me" >>"$work/.edgekit" &&
    mkdir "$work/groups" && echo 0 >"$work/beat" || { echo "error cannot make $work"; exit 1; }
echo "ready $boot $work"
exec 3<&0
listen <&3 &
reader=$!
setsid sh -c "$watchdog" watchdog "$limit" "$work" $reader </dev/null 3<&- >/dev/null 2>&1 &
watcher=$!
wait $reader
