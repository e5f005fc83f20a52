// The LSTM with a stack, queue or deque, forward; letters and chunks are explained in recurrence.h.
#pragma once

#include <algorithm>
#include <vector>

#include "recurrence.h"

namespace stackrev {

template <typename S, template <typename, typename> class Structure>
class Forward : Recurrence<S, Structure> {
    using Base = Recurrence<S, Structure>;
    using typename Base::Chunk, typename Base::RowOf;
    using Base::B, Base::E, Base::H, Base::K, Base::M, Base::N, Base::R, Base::T;
    using Base::c_, Base::cell_stretch_, Base::kGates, Base::ph, Base::pr, Base::stretch_, Base::weights_;

   public:
    explicit Forward(const RecurrenceCall& call) : Base(call, false) {}

    void run() {
        const auto chunks = this->chunks();
        in_parallel(Index(chunks.size()), c_.threads, [&](Index i) { run(chunks[i]); });
    }

   private:
    // What a chunk's rows carry from step to step
    struct Carried {
        std::vector<Buffer<S>> sources, cells;  // a layer [rows, source], [rows, ph]
        Buffer<S> z, values, gates;             // [rows, 4 ph], [rows, pr], [rows, 2E]
        std::vector<typename RowOf::State> memory;
    };

    S* hidden(Carried& now, Index k, Index i) const {
        return now.sources[k].data() + i * weights_.source(k) + weights_.below(k);
    }

    void run(const Chunk& chunk) {
        Carried now = start(chunk);
        Index rows = chunk.end - chunk.first;
        for (Index t = 0; t < T; ++t) {
            rows = this->running(chunk, t, rows);
            if (rows == 0) break;
            for (Index k = 0; k < K; ++k) layer(now, chunk, k, t, rows);
            controls(now, chunk, t, rows);
            for (Index i = 0; i < rows; ++i) memory(now, chunk, t, i);
        }
        for (Index i = 0; i < chunk.end - chunk.first; ++i) finish(now, i, chunk.first + i);
    }

    Carried start(const Chunk& chunk) const {
        const Index rows = chunk.end - chunk.first;
        Carried now;
        for (Index k = 0; k < K; ++k) {
            now.sources.emplace_back(rows * weights_.source(k));
            now.cells.emplace_back(rows * ph);
        }
        now.z = Buffer<S>(rows * 4 * ph);
        now.values = Buffer<S>(rows * pr);
        now.gates = Buffer<S>(padded<S>(kGates * rows));
        now.memory.reserve(rows);
        for (Index i = 0; i < rows; ++i) {
            const Index b = chunk.first + i;
            for (Index k = 0; k < K; ++k) {
                copy<S>(hidden(now, k, i), static_cast<const S*>(c_.hidden0) + (k * B + b) * H, H);
                copy<S>(now.cells[k].data() + i * ph, static_cast<const S*>(c_.cell0) + (k * B + b) * H, H);
            }
            copy<S>(now.sources[0].data() + i * weights_.source(0), static_cast<const S*>(c_.read0) + b * R, R);
            now.memory.push_back(this->row(b).start(T));
        }
        return now;
    }

    // z = x_t + [r; h] W_1, or b + [h'; h] W_k; the cell; h to the layer's own source and to that of the layer above
    void layer(Carried& now, const Chunk& chunk, Index k, Index t, Index rows) {
        const Index width = weights_.source(k), below = weights_.below(k);
        for (Index i = 0; i < rows; ++i) {
            S* const z = now.z.data() + i * 4 * ph;
            if (k == 0) {
                const Index at = t * B + chunk.first + i;
                const S* const x = static_cast<const S*>(c_.inputs) + (c_.ids ? c_.ids[at] : at) * 4 * H;
                copy_parts<S>(z, ph, x, H, 4, H);
            } else {
                copy<S>(z, weights_.biases[k - 1].data(), 4 * ph);
                copy<S>(now.sources[k].data() + i * width, hidden(now, k - 1, i), ph);
            }
        }
        multiply<S>(rows, now.z.data(), 4 * ph, now.sources[k].data(), width, weights_.recurrent[k], true);
        for (Index i = 0; i < rows; ++i) {
            const Index at = (k * T + t) * B + chunk.first + i;
            S *const z = now.z.data() + i * 4 * ph, *const c = now.cells[k].data() + i * ph;
            S* const source = now.sources[k].data() + i * width;
            if (c_.saving) {
                const Index first = k == 0 ? R : H;
                S* const saved = static_cast<S*>(c_.sources[k]) + (t * B + chunk.first + i) * (first + H);
                copy<S>(saved, source, first);
                copy<S>(saved + first, source + below, H);
            }
            S* const activated = c_.saving ? static_cast<S*>(c_.activated) + at * 4 * H : nullptr;
            lstm_cell<S>(z, activated && H == ph ? activated : z, c, source + below, ph, cell_stretch_);
            if (activated) {
                if (H != ph) copy_parts<S>(activated, H, z, ph, 4, H);
                copy<S>(static_cast<S*>(c_.cells) + at * H, c, H);
            }
        }
    }

    // sigmoid of the gates' and tanh of the values' pre-activations, from the top layer's h
    void controls(Carried& now, const Chunk& chunk, Index t, Index rows) {
        for (Index i = 0; i < rows; ++i) {
            const Index at = t * B + chunk.first + i;
            const S* const h = hidden(now, K - 1, i);
            copy<S>(static_cast<S*>(c_.top_hidden) + at * H, h, H);
            const S* const noise = c_.noise ? static_cast<const S*>(c_.noise) + at * kGates : nullptr;
            gate_inputs<S>(weights_, h, noise, now.gates.data() + kGates * i);
            copy<S>(now.values.data() + i * pr, weights_.value_bias.data(), pr);
        }
        multiply<S>(rows, now.values.data(), pr, hidden(now, K - 1, 0), weights_.source(K - 1), weights_.value, true);
        sigmoid_all<S>(now.gates.data(), kGates * rows);
        tanh_all<S>(now.values.data(), rows * pr);
    }

    void memory(Carried& now, const Chunk& chunk, Index t, Index i) {
        const Index b = chunk.first + i, at = t * B + b;
        const S* const squashed = now.gates.data() + kGates * i;
        if (c_.saving) copy<S>(static_cast<S*>(c_.squashed) + at * kGates, squashed, kGates);
        RowOf row = this->row(b);
        for (Index e = 0; e < E; ++e) {
            static_cast<S*>(c_.push)[at * E + e] = stretched_gate<S>(squashed[2 * e], stretch_);
            static_cast<S*>(c_.pop)[at * E + e] = stretched_gate<S>(squashed[2 * e + 1], stretch_);
            copy<S>(row.value(N + t * E + e), now.values.data() + i * pr + e * M, M);
        }
        row.step(t, now.memory[i]);
        S* const read = now.sources[0].data() + i * weights_.source(0);
        clear<S>(read, R);
        row.read(t, now.memory[i], 1, Ends<S>{{read, read + M}});
    }

    // The state after a row's last step; zeros and empty elements for the steps that it does not take, except for what
    // is saved of them, which nobody reads
    void finish(Carried& now, Index i, Index b) {
        for (Index k = 0; k < K; ++k) {
            copy<S>(static_cast<S*>(c_.end_hidden) + (k * B + b) * H, hidden(now, k, i), H);
            copy<S>(static_cast<S*>(c_.end_cell) + (k * B + b) * H, now.cells[k].data() + i * ph, H);
        }
        copy<S>(static_cast<S*>(c_.end_read) + b * R, now.sources[0].data() + i * weights_.source(0), R);
        const Index length = c_.lengths[b];
        this->row(b).finish(now.memory[i], length, T);
        for (Index t = length; t < T; ++t) {
            const Index at = t * B + b;
            clear<S>(static_cast<S*>(c_.top_hidden) + at * H, H);
            for (Index e = 0; e < E; ++e) {
                static_cast<S*>(c_.push)[at * E + e] = static_cast<S*>(c_.pop)[at * E + e] = 0;
                clear<S>(this->row(b).value(N + t * E + e), M);
            }
        }
    }
};

}  // namespace stackrev
