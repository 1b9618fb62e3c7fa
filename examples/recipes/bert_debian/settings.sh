# Source this with here set: the settings of run.sh and classifiers.sh, each by its name in capitals, and their tools.

root=$(cd "$here/../../.." && pwd)
. "$here/../../tools/cpu_env.sh"
. "$here/../../tools/steps.sh"
prepared=${DATA:-$root/data/bert_debian}
space=${SPACE:-$here/space.yaml}
length=${LENGTH:-96}
if [ -n "${SMALL:-}" ]; then
    defaults=(layer 20 40 1024 2e-4 20 6 1 300 500 8 50 supernet section)
else
    defaults=("none layer neuron" 1000 4000 2048 2e-4 1000 50 10 "4000 all" all 3 "50 25" "supernet start" "section pair")
fi
read -ra routings <<<"${ROUTINGS:-${defaults[0]}}"
head_updates=${HEAD_UPDATES:-${defaults[1]}} updates=${UPDATES:-${defaults[2]}} max_tokens=${MAX_TOKENS:-${defaults[3]}}
lr=${LR:-${defaults[4]}} samples=${VALID_SAMPLES:-${defaults[5]}} population=${POPULATION:-${defaults[6]}}
iterations=${ITERATIONS:-${defaults[7]}}
read -ra examples <<<"${EXAMPLES:-${defaults[8]}}"
test_examples=${TEST_EXAMPLES:-${defaults[9]}} epochs=${EPOCHS:-${defaults[10]}}
read -ra budgets <<<"${BUDGETS:-${defaults[11]}}"
read -ra sources <<<"${SOURCES:-${defaults[12]}}"
read -ra tasks <<<"${TASKS:-${defaults[13]}}"
for task in "${tasks[@]}"; do
    case $task in
    section | pair) ;;
    *) echo "error: TASKS has $task: allowed are section and pair" >&2 && exit 1 ;;
    esac
done
for source in "${sources[@]}"; do
    case $source in
    supernet | start | random) ;;
    *) echo "error: SOURCES has $source: allowed are supernet, start and random" >&2 && exit 1 ;;
    esac
done
if [[ " ${sources[*]} " != *" supernet "* ]]; then
    echo "error: SOURCES is ${sources[*]}: it lacks supernet, whose winner is exported" >&2
    exit 1
fi
sampling=${SAMPLING:-sandwich}
case $sampling in
sandwich | random) ;;
*) echo "error: SAMPLING is $sampling: allowed are sandwich and random" >&2 && exit 1 ;;
esac
plugin=(--user-dir "$root/mos_fairseq" --log-format simple --log-interval 50 --num-workers 0)
