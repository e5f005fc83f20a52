#!/usr/bin/env bash
# Builds the kernels with AddressSanitizer and UndefinedBehaviorSanitizer and runs their tests on them. The build goes into
# a temporary copy; any finding ends the run with an error. Left out are tests that the sanitizers themselves break: of
# torch's compiler, of forks, and of bounds on memory.
#
#   scripts/sanitize.sh [further arguments for pytest]
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
compiler=${CXX:-g++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -r "$root/stackrev" "$root/tests" "$root/pyproject.toml" "$work/"
rm -f "$work"/stackrev/kernels/cpu/*.so

build() {
    local name=$1
    shift
    "$compiler" -std=c++17 -O1 -g -fno-omit-frame-pointer -fno-math-errno -fno-trapping-math -fvisibility=hidden \
        -fsanitize=address,undefined -fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS -Wall -Wextra -Werror -Wno-maybe-uninitialized \
        -shared -fPIC -pthread "$@" "$work/stackrev/kernels/cpu/kernel.cpp" -o "$work/stackrev/kernels/cpu/_$name.so"
}

build baseline
if [[ $(uname -m) == x86_64 ]]; then
    build avx2 -mavx2 -mfma
    build avx512 -mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl
fi

# The interpreter is not instrumented, so its leaks are not ours to find, and the runtime has to be there first.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
export PYTHONPATH=$work PYTHONMALLOC=malloc
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so.6)"
cd "$work"
LD_PRELOAD=$preload "$python" -c '
from stackrev.kernels import available, describe
print(describe())
raise SystemExit(not available())'
LD_PRELOAD=$preload "$python" -m pytest tests/kernels -p no:cacheprovider \
    -k "not compiled_as and not fork and not child and not more_than_there_is and not address_space" "$@"
