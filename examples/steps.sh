# To be sourced: steps of a study that goes on where it stopped.

# step NAME COMMAND…: what it prints goes to $work/NAME.log; skipped once it is done
step() {
    local log=$work/$1.log
    if [ ! -e "$work/$1.done" ]; then
        echo "$(date +%T) $1"
        "${@:2}" >"$log" 2>&1 || {
            tail -n 1 "$log" >&2
            exit 1
        }
        touch "$work/$1.done"
    fi
}
