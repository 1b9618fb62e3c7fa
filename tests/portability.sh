#!/usr/bin/env bash
# Runs the tests as other machines would: with other instruction sets, numbers of threads and makers of the processor,
# with torch's own operators only, and with other random weights. Prints a line for each setting, keeps its log in
# runs/portability, and ends with 1 if anything failed.
#   bash tests/portability.sh                                      # all settings: as many times tests/run.sh
#   bash tests/portability.sh avx2 seeds1 -- tests/cli -k export   # some; what follows -- goes to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

names=(default avx2 sse41 sse42 threads1 threads2 seeds1 seeds2 torch intel zen4 zen5)
declare -A setting=(
    [default]="ATEN_CPU_CAPABILITY=default"
    [avx2]="ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2"
    [sse41]="ONEDNN_MAX_CPU_ISA=SSE41"
    [sse42]="MKL_ENABLE_INSTRUCTIONS=SSE4_2"
    [threads1]="OMP_NUM_THREADS=1"
    # threads that wait for others leave the core to them: each of several processes has two
    [threads2]="OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive"
    [seeds1]="MOS_TEST_SEED=1"
    [seeds2]="MOS_TEST_SEED=2"
    [torch]="MOS_FAIRSEQ_KERNELS=torch"
)
# what /proc/cpuinfo says, by which mos_fairseq/modules/kernels.py chooses between MKL and oneDNN: maker, family and a
# further instruction set. Where torch has no AVX-512, all of them are alike.
declare -A maker=([intel]="GenuineIntel 6 amx_tile" [zen4]="AuthenticAMD 25" [zen5]="AuthenticAMD 26")

chosen=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    [[ " ${names[*]} " == *" $1 "* ]] || { echo "error: '$1': allowed are ${names[*]}" >&2 && exit 2; }
    chosen+=("$1")
    shift
done
[ $# -eq 0 ] || shift
[ ${#chosen[@]} -gt 0 ] || chosen=("${names[@]}")
logs=runs/portability
mkdir -p "$logs"

# as_made_by FILE COMMAND...: only the command sees FILE in place of /proc/cpuinfo
as_made_by() {
    local alone=(unshare --mount)
    [ "$(id -u)" = 0 ] || alone=(unshare --mount --map-root-user)
    "${alone[@]}" bash -c 'mount --bind "$0" /proc/cpuinfo && exec "$@"' "$@"
}

# run NAME PYTEST-ARGUMENTS...
run() {
    local name=$1
    shift
    if [ -n "${maker[$name]:-}" ]; then
        local vendor family flag
        read -r vendor family flag <<<"${maker[$name]}"
        sed "s/^\(vendor_id\s*:\).*/\1 $vendor/; s/^\(cpu family\s*:\).*/\1 $family/; s/^\(flags\s*:.*\)/\1 $flag/" \
            /proc/cpuinfo >"$logs/$name.cpuinfo"
        as_made_by "$logs/$name.cpuinfo" bash tests/run.sh "$@"
    else
        # shellcheck disable=SC2086  # several settings
        env ${setting[$name]} bash tests/run.sh "$@"
    fi
}

count() { # count WORD LOG: the number before WORD in pytest's closing line
    tail -n 1 "$2" | grep -oE "[0-9]+ $1" | grep -oE "[0-9]+" || echo 0
}

# on a processor with AVX2 and nothing above it, these compute what threads1 does
alike=""
if grep -qw avx2 /proc/cpuinfo && ! grep -qwE "avx512f|avx_vnni" /proc/cpuinfo; then
    alike="avx2 intel zen4 zen5"
fi

result=0
printf '%-9s %7s %7s %8s\n' setting passed failed seconds
for name in "${chosen[@]}"; do
    log=$logs/$name.log
    if [[ " $alike " == *" $name "* && " ${chosen[*]} " == *" threads1 "* ]]; then
        printf '%-9s as threads1: this processor has nothing above AVX2\n' "$name"
        continue
    fi
    if [ -n "${maker[$name]:-}" ] && ! as_made_by /proc/cpuinfo true 2>/dev/null; then
        printf '%-9s not tried: nothing may be mounted over /proc/cpuinfo here\n' "$name"
        continue
    fi
    begin=$SECONDS status=0
    run "$name" "$@" >"$log" 2>&1 || status=$?
    passed=$(count passed "$log") failed=$(($(count failed "$log") + $(count "errors?" "$log")))
    note=""
    [ "$status" = 0 ] || { result=1 && note="  status $status, see $log"; }
    printf '%-9s %7s %7s %8s%s\n' "$name" "$passed" "$failed" $((SECONDS - begin)) "$note"
done
exit $result
