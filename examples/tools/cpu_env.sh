# Source this: settings for training on a CPU.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)}
# Beside another busy process, threads that spin until all are done take each other's time: on two cores, the quickstart made
# 0.5 updates a second. After 10,000 turns they sleep: 4.7, and 16.8 instead of 17.1 on an idle machine (Xeon)
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-10000}
if getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
    # Training on a CPU spends much of its time on new pages: let glibc keep its memory, in huge pages
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0
    GLIBC_TUNABLES+=:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456
fi
