# Source this after steps.sh, with here and root set: the corpora of this folder's studies.

# choose_corpus embedded WORK_DIR [SEED…] | libreoffice WORK_DIR DATA [SEED…]: sets data, space, passes, warmup, tokens,
# work and seeds, and makes the folder
choose_corpus() {
    case ${1:-} in
    embedded)
        seeded_study "${@:2}"
        data=$work/data-bin space=tiny passes=2724 warmup=300 tokens=2048
        ;;
    libreoffice)
        [ $# -ge 3 ] || seeded_study
        if [ ! -d "$3" ]; then
            echo "error: DATA is $3: no such folder" >&2
            exit 1
        fi
        data=$(cd "$3" && pwd)
        seeded_study "$2" "${@:4}"
        space=$root/examples/recipes/libreoffice_help/search_space.yaml passes=3168 warmup=400 tokens=3000
        ;;
    *) seeded_study ;;
    esac
}
