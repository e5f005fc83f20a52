// The stack-LSTM over a batch of sequences, forward and backward. The equations are those of structures/recurrence.py.
//
//     T, B, K, N         steps, rows, layers, elements on the stack at the start
//     t, b, k, s         a step, a row, a layer, the place N + t of the step's element on the stack
//     gX, g_x            gradient of X
//
// Rows need nothing of each other. They are cut into chunks of neighbours with about equal work; a thread takes a chunk
// from its first step to its last. Rows are sorted, so those still running are the first of a chunk. Every chunk sums the
// gradients of the weights for itself, and these sums are added in the order of the chunks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "calls.h"
#include "cell.h"
#include "stack.h"
#include "threads.h"

namespace stackrev {

constexpr Index kProductRows = 48;  // at least so many go into a product for the weights' gradients, if there are so many

template <typename S>
class Recurrence {
   public:
    Recurrence(const RecurrenceCall& call, bool backward)
        : c_(call), T(call.steps), B(call.batch), H(call.hidden), M(call.width), K(call.layers), N(call.initial),
          e(static_cast<S>(call.stretch)), weights_(Sizes{H, M, K}, raw(call), backward), ph(weights_.ph), pm(weights_.pm) {}

   protected:
    struct Chunk {
        Index first, end;
    };

    // Cuts the rows where the sum of their lengths passes each thread's share.
    std::vector<Chunk> chunks() const {
        const Index threads = std::max<Index>(1, std::min(Index(c_.threads), B));
        const Index count = std::min(B, threads * ((B + threads * kChunkRows - 1) / (threads * kChunkRows)));
        double all = 0, done = 0;
        for (Index b = 0; b < B; ++b) all += c_.lengths[b] + 1;
        std::vector<Chunk> result;
        Index first = 0;
        for (Index b = 0; b < B; ++b) {
            done += c_.lengths[b] + 1;
            const Index end = b + 1, cut = Index(result.size()) + 1;
            if (end == B || done >= all * cut / count) {
                result.push_back({first, end});
                first = end;
            }
        }
        return result;
    }

    // How many of a chunk's rows run at step t, the rows before `rows` at most
    Index running(const Chunk& chunk, Index t, Index rows) const {
        while (rows > 0 && c_.lengths[chunk.first + rows - 1] <= t) --rows;
        return rows;
    }

    StackRow<S> stack_row(Index b) const {
        return {values() + b * M, c_.bottoms + b, c_.below + b, c_.tops0 + b, N, B, B * M, M};
    }
    S* values() const { return static_cast<S*>(c_.values); }

    static RawWeights<S> raw(const RecurrenceCall& call) {
        RawWeights<S> weights;
        for (Index k = 0; k < call.layers; ++k) {
            weights.recurrent.push_back(static_cast<const S*>(call.recurrent[k]));
            if (k) weights.biases.push_back(static_cast<const S*>(call.biases[k - 1]));
        }
        weights.control = static_cast<const S*>(call.control);
        weights.control_bias = static_cast<const S*>(call.control_bias);
        return weights;
    }

    const RecurrenceCall& c_;
    const Index T, B, H, M, K, N;
    const S e;
    const Weights<S> weights_;
    const Index ph, pm;
};

}  // namespace stackrev
