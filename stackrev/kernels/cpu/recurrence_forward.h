// The stack-LSTM, forward; letters and chunks are explained in recurrence.h.
#pragma once

#include <algorithm>
#include <vector>

#include "recurrence.h"

namespace stackrev {

template <typename S>
class Forward : Recurrence<S> {
    using Base = Recurrence<S>;
    using typename Base::Chunk;
    using Base::B, Base::H, Base::K, Base::M, Base::N, Base::T, Base::c_, Base::e, Base::ph, Base::pm, Base::weights_;

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
        Buffer<S> z, values, gates;             // [rows, 4 ph], [rows, pm], [rows, 2]
        std::vector<double> heights;
        std::vector<Index> tops;  // the uppermost element on each row's chain
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
            for (Index i = 0; i < rows; ++i) stack(now, chunk, t, i);
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
        now.values = Buffer<S>(rows * pm);
        now.gates = Buffer<S>(padded<S>(2 * rows));
        for (Index i = 0; i < rows; ++i) {
            const Index b = chunk.first + i;
            for (Index k = 0; k < K; ++k) {
                copy<S>(hidden(now, k, i), static_cast<const S*>(c_.hidden0) + (k * B + b) * H, H);
                copy<S>(now.cells[k].data() + i * ph, static_cast<const S*>(c_.cell0) + (k * B + b) * H, H);
            }
            copy<S>(now.sources[0].data() + i * weights_.source(0), static_cast<const S*>(c_.read0) + b * M, M);
            now.heights.push_back(c_.height0[b]);
            now.tops.push_back(this->stack_row(b).link_initial());
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
                const Index first = k == 0 ? M : H;
                S* const saved = static_cast<S*>(c_.sources[k]) + (t * B + chunk.first + i) * (first + H);
                copy<S>(saved, source, first);
                copy<S>(saved + first, source + below, H);
            }
            S* const activated = c_.saving ? static_cast<S*>(c_.activated) + at * 4 * H : nullptr;
            lstm_cell<S>(z, activated && H == ph ? activated : z, c, source + below, ph);
            if (activated) {
                if (H != ph) copy_parts<S>(activated, H, z, ph, 4, H);
                copy<S>(static_cast<S*>(c_.cells) + at * H, c, H);
            }
        }
    }

    // sigmoid of the gates' and tanh of the value's pre-activations, from the top layer's h
    void controls(Carried& now, const Chunk& chunk, Index t, Index rows) {
        for (Index i = 0; i < rows; ++i) {
            const Index at = t * B + chunk.first + i;
            const S* const h = hidden(now, K - 1, i);
            copy<S>(static_cast<S*>(c_.top_hidden) + at * H, h, H);
            const S* const noise = c_.noise ? static_cast<const S*>(c_.noise) + at * 2 : nullptr;
            gate_inputs<S>(weights_, h, noise, now.gates.data() + 2 * i);
            copy<S>(now.values.data() + i * pm, weights_.value_bias.data(), pm);
        }
        multiply<S>(rows, now.values.data(), pm, hidden(now, K - 1, 0), weights_.source(K - 1), weights_.value, true);
        sigmoid_all<S>(now.gates.data(), 2 * rows);
        tanh_all<S>(now.values.data(), rows * pm);
    }

    void stack(Carried& now, const Chunk& chunk, Index t, Index i) {
        const Index b = chunk.first + i, at = t * B + b, s = N + t;
        const S* const squashed = now.gates.data() + 2 * i;
        const S d = stretched_gate<S>(squashed[0], e), u = stretched_gate<S>(squashed[1], e);
        static_cast<S*>(c_.push)[at] = d;
        static_cast<S*>(c_.pop)[at] = u;
        if (c_.saving) copy<S>(static_cast<S*>(c_.squashed) + 2 * at, squashed, 2);
        copy<S>(this->values() + (s * B + b) * M, now.values.data() + i * pm, M);

        StackRow<S> row = this->stack_row(b);
        now.heights[i] = row.push(s, now.tops[i], now.heights[i], d, u);
        now.tops[i] = s;
        S* const read = now.sources[0].data() + i * weights_.source(0);
        clear<S>(read, M);
        row.read(s, now.heights[i], read);
    }

    // The state after a row's last step; zeros and empty elements for the steps that it does not take, except for what
    // is saved of them, which nobody reads
    void finish(Carried& now, Index i, Index b) {
        for (Index k = 0; k < K; ++k) {
            copy<S>(static_cast<S*>(c_.end_hidden) + (k * B + b) * H, hidden(now, k, i), H);
            copy<S>(static_cast<S*>(c_.end_cell) + (k * B + b) * H, now.cells[k].data() + i * ph, H);
        }
        copy<S>(static_cast<S*>(c_.end_read) + b * M, now.sources[0].data() + i * weights_.source(0), M);
        c_.height[b] = now.heights[i];
        const Index length = c_.lengths[b];
        const auto uncut = [&](Index s) {
            return s < N ? c_.tops0[s * B + b] : c_.bottoms[s * B + b] + double(static_cast<S*>(c_.push)[(s - N) * B + b]);
        };
        final_tops(c_.bottoms + b, B, N, N + length, uncut, [&](Index s, double top, Index) { c_.tops[s * B + b] = top; });
        for (Index t = length; t < T; ++t) {
            const Index at = t * B + b, s = N + t;
            clear<S>(static_cast<S*>(c_.top_hidden) + at * H, H);
            static_cast<S*>(c_.push)[at] = static_cast<S*>(c_.pop)[at] = 0;
            clear<S>(this->values() + (s * B + b) * M, M);
            c_.bottoms[s * B + b] = c_.tops[s * B + b] = now.heights[i];
            c_.below[s * B + b] = -1;
        }
    }
};

}  // namespace stackrev
