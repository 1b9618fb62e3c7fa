# Source this: shared functions of studies that resume where they stopped.

# seeded_study WORK_DIR [SEED…]: makes the folder, and sets work and seeds (1 by default); without arguments it prints
# the head of the script that calls it
seeded_study() {
    if [ $# -lt 1 ]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[-1]}" >&2
        exit 2
    fi
    work=$1
    seeds=("${@:2}")
    [ $# -gt 1 ] || seeds=(1)
    local seed
    for seed in "${seeds[@]}"; do
        if ! [[ $seed =~ ^[0-9]+$ ]]; then
            echo "error: SEED is $seed: allowed are whole numbers" >&2
            exit 1
        fi
    done
    mkdir -p "$work"
    work=$(cd "$work" && pwd)
}

# keep_settings NAME TEXT: refuses settings that differ from those of the folder's first run; its steps would not follow them
keep_settings() {
    local file=$work/$1.settings
    [ -e "$file" ] || echo "$2" >"$file"
    if [ "$(cat "$file")" != "$2" ]; then
        echo "error: the settings are $2: those of $work are $(cat "$file"); give another folder, or these" >&2
        exit 1
    fi
}

# step NAME COMMAND…: what it prints goes to $work/NAME.log; skipped once it is done. Of two scripts that are at the same
# step of a folder, one waits.
step() {
    local log=$work/$1.log lock
    [ ! -e "$work/$1.done" ] || return 0
    mkdir -p "$work/.locks"
    exec {lock}>"$work/.locks/$1"
    ! command -v flock >/dev/null || flock "$lock"
    if [ ! -e "$work/$1.done" ]; then
        echo "$(date +%T) $1"
        "${@:2}" >"$log" 2>&1 || {
            tail -n 1 "$log" >&2
            exit 1
        }
        touch "$work/$1.done"
    fi
    exec {lock}>&-
}
