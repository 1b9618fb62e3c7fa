# Source this: settings for training on a CPU.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)}
# Threads that spin until all are done take each other's time where another process is busy. On two cores of a Xeon beside
# another training, the quickstart's made 0.4 to 0.6 updates a second. These sleep after 10,000 turns: 4.7 beside a busy loop,
# and 16.8 on an idle machine (17.1 without)
if [ -z "${OMP_WAIT_POLICY:-}" ]; then
    export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-10000}
fi
if getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
    # Training on a CPU spends much of its time on new pages: let glibc keep its memory, in huge pages
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0
    GLIBC_TUNABLES+=:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456
fi
