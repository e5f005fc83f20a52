// stackrev's compiled kernels, as C functions over raw pointers. Each returns a Status.
#include <algorithm>
#include <exception>
#include <limits>

#include "columns.h"
#include "memory.h"
#include "readout.h"
#include "recurrence.h"
#include "session.h"

#define STACKREV_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Status { kDone = 0, kNoMemory = 1, kWrongLengths = 2, kUnknownSymbol = 3 };

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

// Whether the symbol of every step that a row takes, if there are any, is one of those that the call knows
template <typename Call>
bool symbols_fit(const Call& call, const std::int64_t* ids) {
    for (std::int64_t b = 0; ids && b < call.batch; ++b) {
        for (std::int64_t t = 0; t < call.lengths[b]; ++t) {
            const std::int64_t id = ids[t * call.batch + b];
            if (id < 0 || id >= call.symbols) return false;
        }
    }
    return true;
}

// Whether the rows are sorted by length, from at most T to at least 0
template <typename Call>
bool lengths_fit(const Call& call) {
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
    if (!symbols_fit(call, call.ids)) return kUnknownSymbol;
    return guarded([&] { stackrev::Forward<S>(call).run(); });
}

template <typename S>
int backward(const stackrev::RecurrenceGradientCall& call) {
    if (!lengths_fit(call.forward)) return kWrongLengths;
    if (!symbols_fit(call.forward, call.forward.ids)) return kUnknownSymbol;
    return guarded([&] { stackrev::Backward<S>(call).run(); });
}

template <typename S>
int read_out(const stackrev::ReadOutCall& call) {
    if (!lengths_fit(call)) return kWrongLengths;
    if (!symbols_fit(call, call.targets)) return kUnknownSymbol;
    return guarded([&] { stackrev::ReadOut<S>(call).run(); });
}

stackrev::Memory memory;

}  // namespace

// What library.py expects to find; a library from an older source is not used.
STACKREV_EXPORT int stackrev_version() { return 9; }

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

// Takes threads from an OpenMP runtime from now on: its GOMP_parallel, or null for threads of our own
STACKREV_EXPORT void stackrev_borrow_threads(stackrev::Lender lender) { stackrev::lender = lender; }

// Memory for `bytes` bytes, or null if it has to come from elsewhere; and back
STACKREV_EXPORT void* stackrev_take(std::int64_t bytes) {
    void* start = nullptr;
    guarded([&] { start = memory.take(static_cast<std::size_t>(bytes)); });
    return start;
}

STACKREV_EXPORT void stackrev_give_back(void* start) {
    guarded([&] { memory.give_back(start); });
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

STACKREV_EXPORT int stackrev_read_out_float(const stackrev::ReadOutCall* call) { return read_out<float>(*call); }

STACKREV_EXPORT int stackrev_read_out_double(const stackrev::ReadOutCall* call) { return read_out<double>(*call); }

// A session, or null when memory ran out
STACKREV_EXPORT stackrev::Session* stackrev_session(const stackrev::SessionCall* call) {
    stackrev::Session* session = nullptr;
    guarded([&] { session = new stackrev::Session(*call); });
    return session;
}

STACKREV_EXPORT void stackrev_session_free(stackrev::Session* session) { delete session; }

STACKREV_EXPORT int stackrev_session_reset(stackrev::Session* session) {
    return guarded([&] { session->reset(); });
}

// Steps of the encoder or of the decoder, without a look at what the decoder would write
STACKREV_EXPORT int stackrev_session_feed(stackrev::Session* session, int decoding, const std::int32_t* symbols,
                                          std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
        if (!session->knows(symbols[i])) return kUnknownSymbol;
    }
    return guarded([&] {
        for (std::int64_t i = 0; i < count; ++i) session->step(decoding != 0, symbols[i]);
    });
}

// Feeds the decoder `first`, then what it writes, until it writes `stop` or `limit` symbols. The margin is the least of
// all steps'.
STACKREV_EXPORT int stackrev_session_write(stackrev::Session* session, std::int32_t first, std::int32_t stop,
                                           std::int64_t limit, std::int32_t* written, std::int64_t* count, float* margin) {
    *count = 0;
    *margin = std::numeric_limits<float>::infinity();
    if (!session->knows(first)) return kUnknownSymbol;
    return guarded([&] {
        while (*count < limit) {
            session->step(true, first);
            const stackrev::Guess guess = session->guess();
            *margin = std::min(*margin, guess.margin);
            written[(*count)++] = first = guess.symbol;
            if (first == stop) break;
        }
    });
}

// Feeds the decoder `first`, then the targets, until it would write another symbol. `right` is how many were right, the
// margin the least of theirs.
STACKREV_EXPORT int stackrev_session_score(stackrev::Session* session, std::int32_t first, const std::int32_t* targets,
                                           std::int64_t count, std::int64_t* right, float* margin) {
    *right = 0;
    *margin = std::numeric_limits<float>::infinity();
    if (!session->knows(first)) return kUnknownSymbol;
    return guarded([&] {
        while (*right < count) {
            session->step(true, first);
            const stackrev::Guess guess = session->guess();
            if (guess.symbol != targets[*right]) break;
            *margin = std::min(*margin, guess.margin);
            first = targets[(*right)++];
        }
    });
}

STACKREV_EXPORT void stackrev_session_look(stackrev::Session* session, double* numbers, float* hidden, float* read) {
    session->look(numbers, hidden, read);
}

STACKREV_EXPORT void stackrev_session_nearest(stackrev::Session* session, double* four) { session->nearest(four); }
