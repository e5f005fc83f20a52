// stackrev's compiled kernels, as C functions over raw pointers. Each returns a Status.
#include <algorithm>
#include <exception>
#include <limits>
#include <memory>
#include <string>

#include "calls.h"
#include "deque.h"
#include "processor.h"
#include "queue.h"
#include "readout.h"
#include "recurrence_backward.h"
#include "recurrence_forward.h"
#include "stack.h"
#include "stream.h"
#include "stream_batch.h"

#if defined(_WIN32)
#define STACKREV_EXPORT extern "C" __declspec(dllexport)
#else
#define STACKREV_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

using stackrev::kDone, stackrev::kNoMemory, stackrev::kUnknownSymbol, stackrev::kWrongLengths;

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

template <typename S, template <typename, typename> class Structure>
int forward(const stackrev::RecurrenceCall& call) {
    if (!lengths_fit(call)) return kWrongLengths;
    if (!symbols_fit(call, call.ids)) return kUnknownSymbol;
    return guarded([&] { stackrev::Forward<S, Structure>(call).run(); });
}

template <typename S, template <typename, typename> class Structure>
int backward(const stackrev::RecurrenceGradientCall& call) {
    if (!lengths_fit(call.forward)) return kWrongLengths;
    if (!symbols_fit(call.forward, call.forward.ids)) return kUnknownSymbol;
    return guarded([&] { stackrev::Backward<S, Structure>(call).run(); });
}

template <typename S>
int read_out(const stackrev::ReadOutCall& call) {
    if (!lengths_fit(call)) return kWrongLengths;
    if (!symbols_fit(call, call.targets)) return kUnknownSymbol;
    return guarded([&] { stackrev::ReadOut<S>(call).run(); });
}

}  // namespace

// What library.py expects to find; a library from an older source is not used.
STACKREV_EXPORT int stackrev_version() { return 17; }

// The layouts of the structs in calls.h
STACKREV_EXPORT const char* stackrev_layouts() {
    static const std::string text = stackrev::layouts();
    return text.c_str();
}

// The sets of instructions that this processor has: 2 AVX-512, 1 AVX2 and FMA, 0 neither.
STACKREV_EXPORT int stackrev_processor() { return stackrev::instruction_set(); }

// Takes threads from an OpenMP runtime from now on: its GOMP_parallel, or null for threads of our own
STACKREV_EXPORT void stackrev_borrow_threads(stackrev::Lender lender) { stackrev::lender = lender; }

// A structure alone and in the recurrence, forward and backward, in one type of numbers
#define STACKREV_EXPORT_STRUCTURE(name, Structure, S)                                                              \
    STACKREV_EXPORT int stackrev_##name##_##S(const stackrev::MemoryCall* call) {                                  \
        return guarded([&] { stackrev::NeuralMemory<S, stackrev::Structure>(*call).forward(); });                  \
    }                                                                                                              \
    STACKREV_EXPORT int stackrev_##name##_backward_##S(const stackrev::MemoryGradientCall* call) {                 \
        return guarded([&] { stackrev::NeuralMemory<S, stackrev::Structure>(call->forward).backward(*call); });    \
    }                                                                                                              \
    STACKREV_EXPORT int stackrev_##name##_recurrence_##S(const stackrev::RecurrenceCall* call) {                   \
        return forward<S, stackrev::Structure>(*call);                                                             \
    }                                                                                                              \
    STACKREV_EXPORT int stackrev_##name##_recurrence_backward_##S(const stackrev::RecurrenceGradientCall* call) {  \
        return backward<S, stackrev::Structure>(*call);                                                            \
    }

STACKREV_EXPORT_STRUCTURE(stack, StackRow, float)
STACKREV_EXPORT_STRUCTURE(stack, StackRow, double)
STACKREV_EXPORT_STRUCTURE(queue, QueueRow, float)
STACKREV_EXPORT_STRUCTURE(queue, QueueRow, double)
STACKREV_EXPORT_STRUCTURE(deque, DequeRow, float)
STACKREV_EXPORT_STRUCTURE(deque, DequeRow, double)

STACKREV_EXPORT int stackrev_read_out_float(const stackrev::ReadOutCall* call) { return read_out<float>(*call); }

STACKREV_EXPORT int stackrev_read_out_double(const stackrev::ReadOutCall* call) { return read_out<double>(*call); }

// A stream at the beginning of a string, or a copy of one, or null when memory ran out
STACKREV_EXPORT stackrev::Stream* stackrev_stream(const stackrev::StreamCall* call) {
    stackrev::Stream* stream = nullptr;
    guarded([&] { stream = new stackrev::Stream(std::make_shared<const stackrev::StreamModel>(*call)); });
    return stream;
}

STACKREV_EXPORT stackrev::Stream* stackrev_stream_copy(const stackrev::Stream* other) {
    stackrev::Stream* stream = nullptr;
    guarded([&] { stream = new stackrev::Stream(*other); });
    return stream;
}

// A stream of the same model at the beginning of a string
STACKREV_EXPORT stackrev::Stream* stackrev_stream_fresh(const stackrev::Stream* other) {
    stackrev::Stream* stream = nullptr;
    guarded([&] { stream = new stackrev::Stream(other->model()); });
    return stream;
}

STACKREV_EXPORT void stackrev_stream_free(stackrev::Stream* stream) { delete stream; }

STACKREV_EXPORT int stackrev_stream_reset(stackrev::Stream* stream) {
    return guarded([&] { stream->reset(); });
}

// Whether all symbols are the model's
STACKREV_EXPORT int stackrev_stream_check(const stackrev::Stream* stream, const std::int32_t* symbols, std::int64_t count) {
    const bool known = std::all_of(symbols, symbols + count, [&](std::int32_t symbol) { return stream->knows(symbol); });
    return known ? kDone : kUnknownSymbol;
}

// Steps of the encoder or of the decoder, without a look at what the decoder would write
STACKREV_EXPORT int stackrev_stream_feed(stackrev::Stream* stream, int decoding, const std::int32_t* symbols,
                                         std::int64_t count) {
    return guarded([&] {
        for (std::int64_t i = 0; i < count; ++i) stream->step(decoding != 0, symbols[i]);
    });
}

// Feeds the decoder `first`, then what it writes, until it writes `stop` or `limit` symbols. The margin is the least of
// all steps'.
STACKREV_EXPORT int stackrev_stream_write(stackrev::Stream* stream, std::int32_t first, std::int32_t stop,
                                          std::int64_t limit, std::int32_t* written, std::int64_t* count, float* margin) {
    *count = 0;
    *margin = std::numeric_limits<float>::infinity();
    return guarded([&] {
        while (*count < limit) {
            stream->step(true, first);
            const stackrev::Guess guess = stream->guess();
            *margin = std::min(*margin, guess.margin);
            written[(*count)++] = first = guess.symbol;
            if (first == stop) break;
        }
    });
}

// Reads strings of a stream's model and writes its answers, side by side: the decoder is fed the separator, then what it
// writes, until it writes `stop` or as many symbols as a string's limit.
STACKREV_EXPORT int stackrev_stream_answer(const stackrev::Stream* stream, const stackrev::AnswerCall* call) {
    std::int64_t symbols = 0;
    for (std::int64_t i = 0; i < call->count; ++i) symbols += call->lengths[i];
    const auto known = [&](std::int64_t symbol) { return stream->knows(symbol); };
    if (!known(call->start) || !known(call->separator)) return kUnknownSymbol;
    if (!std::all_of(call->symbols, call->symbols + symbols, known)) return kUnknownSymbol;
    return guarded([&] { stackrev::StreamBatch(*stream->model(), *call).run(); });
}

// Feeds the decoder `first`, then the targets, until it would write another symbol. `right` is how many were right, the
// margin the least of theirs.
STACKREV_EXPORT int stackrev_stream_score(stackrev::Stream* stream, std::int32_t first, const std::int32_t* targets,
                                          std::int64_t count, std::int64_t* right, float* margin) {
    *right = 0;
    *margin = std::numeric_limits<float>::infinity();
    return guarded([&] {
        while (*right < count) {
            stream->step(true, first);
            const stackrev::Guess guess = stream->guess();
            if (guess.symbol != targets[*right]) break;
            *margin = std::min(*margin, guess.margin);
            first = targets[(*right)++];
        }
    });
}

STACKREV_EXPORT void stackrev_stream_look(stackrev::Stream* stream, double* numbers, float* hidden, float* read) {
    stream->look(numbers, hidden, read);
}

STACKREV_EXPORT void stackrev_stream_nearest(const stackrev::Stream* stream, double* four) { stream->nearest(four); }

// The cell's own functions, of `count` numbers: sigmoid, or tanh if `hyperbolic`. `flush` as in a recurrence over a batch,
// where numbers too small to be normal count as zero; a stream does not flush.
STACKREV_EXPORT int stackrev_activation(int hyperbolic, int flush, const float* from, float* to, std::int64_t count) {
    return guarded([&] {
        constexpr stackrev::Index kBlock = 4096;
        stackrev::Buffer<float> block(kBlock);
        const auto run = [&] {
            for (std::int64_t i = 0; i < count; i += kBlock) {
                const stackrev::Index size = std::min(kBlock, count - i);
                stackrev::copy<float>(block.data(), from + i, size);
                hyperbolic ? stackrev::tanh_all<float>(block.data(), size) : stackrev::sigmoid_all<float>(block.data(), size);
                stackrev::copy<float>(to + i, block.data(), size);
            }
        };
        if (flush) {
            const stackrev::FlushDenormals flushing;
            run();
        } else {
            run();
        }
    });
}
