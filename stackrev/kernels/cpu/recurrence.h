// The LSTM with a stack, queue or deque over a batch of sequences, forward and backward. The equations are those of
// structures/recurrence.py; the structure is a template's argument, as structure.h has it.
//
//     T, B, K, N         steps, rows, layers, elements of the structure at the start
//     E, M, R            the structure's ends, the width of a value and that of what is read, E M
//     t, b, k, e, s      a step, a row, a layer, an end, the place N + E t + e of the step's element at it
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
#include "structure.h"
#include "threads.h"

namespace stackrev {

constexpr Index kProductRows = 48;  // at least so many go into a product for the weights' gradients, if there are so many

template <typename S, template <typename, typename> class Structure>
class Recurrence {
   public:
    using RowOf = Structure<S, S>;
    static constexpr Index E = RowOf::kEnds, kGates = 2 * E;

    Recurrence(const RecurrenceCall& call, bool backward)
        : c_(call), T(call.steps), B(call.batch), H(call.hidden), M(call.width), R(E * M), K(call.layers), N(call.initial),
          stretch_(static_cast<S>(call.stretch)),
          cell_stretch_(static_cast<S>(call.cell_stretch)), weights_(Sizes{H, R, K, E}, raw(call), backward), ph(weights_.ph),
          pr(weights_.pr),
          strengths_{static_cast<const S*>(call.push), static_cast<const S*>(call.pop), E, E * B, 1} {}

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

    RowOf row(Index b) const { return {c_.memory, strengths_, b, N, B, M}; }

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
    const Index T, B, H, M, R, K, N;
    const S stretch_, cell_stretch_;
    const Weights<S> weights_;
    const Index ph, pr;
    const Strengths<S> strengths_;
};

}  // namespace stackrev
