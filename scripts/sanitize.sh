#!/usr/bin/env bash
# Builds the kernels with AddressSanitizer and UndefinedBehaviorSanitizer and runs their tests on them, those of structures,
# recurrences and streams for every set of instructions that the processor has. Then with ThreadSanitizer, and runs
# scripts/sanitize_threads.py. The builds go into a temporary copy; any finding ends the run with an error. Left out are
# tests that the sanitizers themselves break: of torch's compiler, of forks, and of bounds on memory.
#
#   scripts/sanitize.sh [further arguments for pytest]
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
compiler=${CXX:-g++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -r "$root/stackrev" "$root/tests" "$root/checkpoints" "$root/pyproject.toml" "$work/"
mkdir "$work/scripts"
cp "$root/scripts/sanitize_threads.py" "$work/scripts/"
rm -f "$work"/stackrev/kernels/cpu/*.so
cd "$work"

sets=(baseline)
if [[ $(uname -m) == x86_64 ]]; then
    for name in avx2 avx512f; do
        if grep -qw "$name" /proc/cpuinfo; then sets+=("${name%f}"); fi
    done
fi

# GCC 12 takes the undefined operands in its own header of vector instructions for uninitialized variables.
build() {
    local name flags
    for name in "${sets[@]}"; do
        case $name in
            baseline) flags=() ;;
            avx2) flags=(-mavx2 -mfma) ;;
            avx512) flags=(-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl) ;;
        esac
        "$compiler" -std=c++17 -O1 -g -fno-omit-frame-pointer -fno-math-errno -fno-trapping-math -fvisibility=hidden \
            -D_GLIBCXX_ASSERTIONS -Wall -Wextra -Werror -Wno-maybe-uninitialized -Wno-uninitialized \
            -shared -fPIC -pthread "$@" "${flags[@]}" \
            stackrev/kernels/cpu/kernel.cpp -o "stackrev/kernels/cpu/_$name.so"
    done
}

# The interpreter is not instrumented, so its leaks are not ours to find, and the runtime has to be there first.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=ignore_noninstrumented_modules=1:report_signal_unsafe=0:halt_on_error=1
export PYTHONPATH=$work PYTHONMALLOC=malloc

build -fsanitize=address,undefined -fno-sanitize-recover=all
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so.6)"
LD_PRELOAD=$preload "$python" -c '
from stackrev.kernels import available, describe
print(describe())
raise SystemExit(not available())'
left="not compiled_as and not fork and not child and not more_than_there_is and not address_space"
LD_PRELOAD=$preload "$python" -m pytest tests/kernels -p no:cacheprovider -k "$left" "$@"
for name in "${sets[@]::${#sets[@]}-1}"; do  # the last one is what has just been tested
    STACKREV_NATIVE=$name LD_PRELOAD=$preload "$python" -m pytest tests/kernels/test_compiled_memories.py \
        tests/kernels/test_compiled_stack.py tests/kernels/test_compiled_recurrence.py tests/kernels/test_stream.py \
        tests/kernels/test_stream_batch.py -p no:cacheprovider -k "$left" "$@"
done

# ThreadSanitizer takes no address spaces that are laid out at random as widely as some systems do it.
build -fsanitize=thread
for name in "${sets[@]}"; do
    STACKREV_NATIVE=$name LD_PRELOAD=$("$compiler" -print-file-name=libtsan.so) \
        setarch "$(uname -m)" -R "$python" scripts/sanitize_threads.py
done
