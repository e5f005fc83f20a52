// stackrev's compiled kernels, as C functions over raw pointers. Each returns a Status.
#include <exception>

#include "columns.h"
#include "recurrence.h"

#define STACKREV_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Status { kDone = 0, kNoMemory = 1, kWrongLengths = 2 };

// Runs `work`; C++ exceptions end here.
template <typename Work>
int guarded(Work&& work) {
    try {
        work();
        return kDone;
    } catch (const std::exception&) {
        return kNoMemory;
    }
}

// Whether the rows are sorted by length, from at most T to at least 0
bool lengths_fit(const stackrev::RecurrenceCall& call) {
    std::int64_t most = call.steps;
    for (std::int64_t b = 0; b < call.batch; ++b) {
        if (call.lengths[b] > most || call.lengths[b] < 0) return false;
        most = call.lengths[b];
    }
    return true;
}

template <typename S>
int forward(const stackrev::RecurrenceCall& call) {
    if (!lengths_fit(call)) return kWrongLengths;
    return guarded([&] { stackrev::Forward<S>(call).run(); });
}

template <typename S>
int backward(const stackrev::RecurrenceGradientCall& call) {
    if (!lengths_fit(call.forward)) return kWrongLengths;
    return guarded([&] { stackrev::Backward<S>(call).run(); });
}

}  // namespace

// What library.py expects to find; a library from an older source is not used.
STACKREV_EXPORT int stackrev_version() { return 2; }

// The sets of instructions that this processor has: 2 AVX-512, 1 AVX2 and FMA, 0 neither.
STACKREV_EXPORT int stackrev_processor() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) {
        return 2;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

STACKREV_EXPORT int stackrev_recurrence_float(const stackrev::RecurrenceCall* call) { return forward<float>(*call); }

STACKREV_EXPORT int stackrev_recurrence_double(const stackrev::RecurrenceCall* call) { return forward<double>(*call); }

STACKREV_EXPORT int stackrev_recurrence_backward_float(const stackrev::RecurrenceGradientCall* call) {
    return backward<float>(*call);
}

STACKREV_EXPORT int stackrev_recurrence_backward_double(const stackrev::RecurrenceGradientCall* call) {
    return backward<double>(*call);
}

STACKREV_EXPORT int stackrev_stack_float(const stackrev::StackCall* call) {
    return guarded([&] { stackrev::Columns<float>(*call).forward(); });
}

STACKREV_EXPORT int stackrev_stack_double(const stackrev::StackCall* call) {
    return guarded([&] { stackrev::Columns<double>(*call).forward(); });
}

STACKREV_EXPORT int stackrev_stack_backward_float(const stackrev::StackGradientCall* call) {
    return guarded([&] { stackrev::Columns<float>(call->forward).backward(*call); });
}

STACKREV_EXPORT int stackrev_stack_backward_double(const stackrev::StackGradientCall* call) {
    return guarded([&] { stackrev::Columns<double>(call->forward).backward(*call); });
}
