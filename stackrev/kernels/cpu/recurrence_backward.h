// The derivative of the LSTM with a stack, queue or deque; letters and chunks are explained in recurrence.h.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "recurrence.h"

namespace stackrev {

template <typename S, template <typename, typename> class Structure>
class Backward : Recurrence<S, Structure> {
    using Base = Recurrence<S, Structure>;
    using typename Base::Chunk, typename Base::RowOf;
    using Base::B, Base::E, Base::H, Base::K, Base::M, Base::N, Base::R, Base::T;
    using Base::c_, Base::cell_stretch_, Base::kGates, Base::ph, Base::pr, Base::stretch_, Base::weights_;

   public:
    explicit Backward(const RecurrenceGradientCall& call) : Base(call.forward, true), g_(call) {}

    void run() {
        const auto chunks = this->chunks();
        std::vector<Sums> sums(chunks.size());
        in_parallel(Index(chunks.size()), c_.threads, [&](Index i) { sums[i] = run(chunks[i]); });
        write(sums);
    }

   private:
    // Of the weights' gradients: a layer [R + H or 2H, 4 ph] and [4 ph], the values' [H, pr] and [pr], the gates' [2E, ph]
    // and 2E numbers; if there are ids, of the inputs [symbols, 4 ph]
    struct Sums {
        std::vector<Buffer<S>> recurrent, biases;
        Buffer<S> inputs;
        Buffer<S> value, value_bias, gates;
        S gate_biases[kGates] = {};
    };

    // Gradients g of pre-activations, [rows, columns], beside what the weights multiplied, which wait for enough of them
    struct Waiting {
        Buffer<S> g;
        Index columns = 0, capacity = 0, rows = 0;
        std::vector<RowPairs<S>> factors;

        Waiting() = default;
        Waiting(Index most, Index width) : g((most + kProductRows) * width), columns(width), capacity(most + kProductRows) {}
        S* next() { return g.data() + rows * columns; }
        bool full(Index more) const { return rows + more > capacity; }
        void add(const S* in, Index more) {
            factors.push_back({in, next(), more});
            rows += more;
        }
        void clear() {
            factors.clear();
            rows = 0;
        }
    };

    // Gradients of the state after step t, while t falls
    struct Carried {
        std::vector<Buffer<S>> hidden, cells;  // a layer [rows, ph]
        Buffer<S> read;                        // [rows, pr]
        std::vector<typename RowOf::Gradient> memory;
        Waiting values;          // [rows, pr]
        std::vector<Waiting> z;  // a layer [rows, 4 ph]
        Buffer<S> above, into, saved;  // scratch: [rows, ph], [rows, source], and padded copies of what was saved
        Index rows;
        Sums sums;
    };

    Sums run(const Chunk& chunk) {
        Carried now = start(chunk);
        const Index last = c_.lengths[chunk.first];
        for (Index b = chunk.first; b < chunk.end; ++b) blank(b);
        Index rows = 0;
        for (Index t = last - 1; t >= 0; --t) {
            while (rows < now.rows && c_.lengths[chunk.first + rows] > t) ++rows;
            if (now.values.full(rows)) add_value_products(now);
            S* const values = now.values.next();
            for (Index i = 0; i < rows; ++i) memory(now, chunk, t, i, values + i * pr);
            now.values.add(static_cast<const S*>(c_.top_hidden) + (t * B + chunk.first) * H, rows);
            add_rows<S>(rows, now.sums.value_bias.data(), pr, values, pr);
            // gh of the top layer: + ga W_a'
            multiply<S>(rows, now.above.data(), ph, values, pr, weights_.value, true);
            for (Index k = K - 1; k >= 0; --k) layer(now, chunk, k, t, rows);
        }
        add_value_products(now);
        for (Index k = 0; k < K; ++k) add_layer_products(now, k);
        for (Index i = 0; i < now.rows; ++i) finish(now, i, chunk.first + i);
        return std::move(now.sums);
    }

    Carried start(const Chunk& chunk) {
        Carried now;
        now.rows = chunk.end - chunk.first;
        Index widest = 0;
        for (Index k = 0; k < K; ++k) {
            now.hidden.emplace_back(now.rows * ph);
            now.cells.emplace_back(now.rows * ph);
            widest = std::max(widest, weights_.source(k));
            now.z.emplace_back(now.rows, 4 * ph);
            now.sums.recurrent.emplace_back(width(k) * 4 * ph);
            if (k) now.sums.biases.emplace_back(4 * ph);
        }
        if (c_.ids) now.sums.inputs = Buffer<S>(c_.symbols * 4 * ph);
        now.sums.value = Buffer<S>(H * pr);
        now.sums.value_bias = Buffer<S>(pr);
        now.sums.gates = Buffer<S>(kGates * ph);
        now.read = Buffer<S>(now.rows * pr);
        now.values = Waiting(now.rows, pr);
        now.above = Buffer<S>(now.rows * ph);
        now.into = Buffer<S>(now.rows * widest);
        now.saved = Buffer<S>(6 * ph);
        now.memory.reserve(now.rows);
        for (Index i = 0; i < now.rows; ++i) {
            const Index b = chunk.first + i;
            for (Index k = 0; k < K; ++k) {
                const Index at = (k * B + b) * H;
                if (g_.g_end_hidden) copy<S>(now.hidden[k].data() + i * ph, static_cast<const S*>(g_.g_end_hidden) + at, H);
                if (g_.g_end_cell) copy<S>(now.cells[k].data() + i * ph, static_cast<const S*>(g_.g_end_cell) + at, H);
            }
            if (g_.g_end_read) copy<S>(now.read.data() + i * pr, static_cast<const S*>(g_.g_end_read) + b * R, R);
            start_values(b);
            now.memory.push_back(this->row(b).start_backward(g_.gradients, b, c_.lengths[b], T));
        }
        return now;
    }

    // From the final state's values to those of the elements
    void start_values(Index b) const {
        const Index elements = N + E * c_.lengths[b];
        for (Index s = 0; s < elements; ++s) {
            const Index at = (s * B + b) * M;
            S* const g_value = static_cast<S*>(g_.gradients.g_values) + at;
            if (g_.gradients.g_end_values) {
                copy<S>(g_value, static_cast<const S*>(g_.gradients.g_end_values) + at, M);
            } else {
                clear<S>(g_value, M);
            }
        }
    }

    // The reads, the step, the controls; leaves the gradients of the values' pre-activations in `ga_values` and what is
    // known of that of the top layer's h in `above`
    void memory(Carried& now, const Chunk& chunk, Index t, Index i, S* ga_values) {
        const Index b = chunk.first + i, at = t * B + b;
        const RowOf row = this->row(b);
        S* const g_values = static_cast<S*>(g_.gradients.g_values) + b * M;
        double g_depth = 0, g_push[E], g_pop[E];
        const S* const g_read = now.read.data() + i * pr;
        row.read_backward(t, now.memory[i], 1, Ends<const S>{{g_read, g_read + M}}, g_values, g_depth);
        row.step_backward(t, now.memory[i], g_push, g_pop);

        const S* const squashed = static_cast<const S*>(c_.squashed) + at * kGates;
        S* const ga = static_cast<S*>(g_.g_noise) + at * kGates;
        for (Index e = 0; e < E; ++e) {
            const S push = static_cast<const S*>(c_.push)[at * E + e], pop = static_cast<const S*>(c_.pop)[at * E + e];
            ga[2 * e] = static_cast<S>(g_push[e]) * stretched_gate_slope<S>(squashed[2 * e], push, stretch_);
            ga[2 * e + 1] = static_cast<S>(g_pop[e]) * stretched_gate_slope<S>(squashed[2 * e + 1], pop, stretch_);
            const Index s = N + t * E + e;
            const S *const v = row.value(s), *const gv = g_values + s * B * M;
            for (Index m = 0; m < M; ++m) ga_values[e * M + m] = gv[m] * (1 - v[m] * v[m]);
        }
        const S* const h = static_cast<const S*>(c_.top_hidden) + at * H;
        S* const above = now.above.data() + i * ph;
        copy<S>(above, now.hidden[K - 1].data() + i * ph, ph);
        if (g_.g_top_hidden) {
            const S* const g = static_cast<const S*>(g_.g_top_hidden) + at * H;
            for (Index j = 0; j < H; ++j) above[j] += g[j];
        }
        for (Index gate = 0; gate < kGates; ++gate) {
            add_scaled<S>(now.sums.gates.data() + gate * ph, ga[gate], h, H);
            now.sums.gate_biases[gate] += ga[gate];
            add_scaled<S>(above, ga[gate], weights_.gates.data() + gate * ph, ph);
        }
    }

    // How wide what a layer multiplies is, without padding
    Index width(Index k) const { return (k == 0 ? R : H) + H; }

    // The cell, then from gz to the weights and to the layer's source: gh of the step before, and gh of the layer below
    // or gr
    void layer(Carried& now, const Chunk& chunk, Index k, Index t, Index rows) {
        S* const saved = now.saved.data();
        if (now.z[k].full(rows)) add_layer_products(now, k);
        S* const z = now.z[k].next();
        for (Index i = 0; i < rows; ++i) {
            const Index b = chunk.first + i, at = (k * T + t) * B + b;
            const S* const cells = static_cast<const S*>(c_.cells);
            const S* const last = t ? cells + (at - B) * H : static_cast<const S*>(c_.cell0) + (k * B + b) * H;
            const S* const activated =
                pad_parts<S>(static_cast<const S*>(c_.activated) + at * 4 * H, saved, 4, H, ph);
            const S* const c = pad_parts<S>(cells + at * H, saved + 4 * ph, 1, H, ph);
            const S* const c_before = pad_parts<S>(last, saved + 5 * ph, 1, H, ph);
            S* const gz = z + i * 4 * ph;
            const auto back = cell_stretch_ > 0 ? lstm_cell_backward<S, true> : lstm_cell_backward<S, false>;
            back(activated, c, c_before, now.above.data() + i * ph, now.cells[k].data() + i * ph, gz, ph, cell_stretch_);
            if (k == 0 && c_.ids) {
                add_scaled<S>(now.sums.inputs.data() + c_.ids[t * B + b] * 4 * ph, 1, gz, 4 * ph);
            } else if (k == 0) {
                copy_parts<S>(static_cast<S*>(g_.g_inputs) + (t * B + b) * 4 * H, H, gz, ph, 4, H);
            }
        }
        now.z[k].add(static_cast<const S*>(c_.sources[k]) + (t * B + chunk.first) * width(k), rows);
        if (k) add_rows<S>(rows, now.sums.biases[k - 1].data(), 4 * ph, z, 4 * ph);
        const Index source = weights_.source(k), below = weights_.below(k);
        multiply<S>(rows, now.into.data(), source, z, 4 * ph, weights_.recurrent[k], false);
        for (Index i = 0; i < rows; ++i) {
            const S* const into = now.into.data() + i * source;
            copy<S>(now.hidden[k].data() + i * ph, into + below, ph);
            if (k == 0) {
                copy<S>(now.read.data() + i * pr, into, pr);
            } else {
                const S* const carried = now.hidden[k - 1].data() + i * ph;
                S* const above = now.above.data() + i * ph;
                for (Index j = 0; j < ph; ++j) above[j] = into[j] + carried[j];
            }
        }
    }

    void add_value_products(Carried& now) {
        add_products<S>(now.sums.value.data(), H, pr, now.values.factors, H, pr);
        now.values.clear();
    }

    void add_layer_products(Carried& now, Index k) {
        add_products<S>(now.sums.recurrent[k].data(), width(k), 4 * ph, now.z[k].factors, width(k), 4 * ph);
        now.z[k].clear();
    }

    // The steps that a row does not take have no gradient.
    void blank(Index b) {
        for (Index t = c_.lengths[b]; t < T; ++t) {
            if (!c_.ids) clear<S>(static_cast<S*>(g_.g_inputs) + (t * B + b) * 4 * H, 4 * H);
            clear<S>(static_cast<S*>(g_.g_noise) + (t * B + b) * kGates, kGates);
        }
    }

    void finish(Carried& now, Index i, Index b) {
        for (Index k = 0; k < K; ++k) {
            copy<S>(static_cast<S*>(g_.g_hidden0) + (k * B + b) * H, now.hidden[k].data() + i * ph, H);
            copy<S>(static_cast<S*>(g_.g_cell0) + (k * B + b) * H, now.cells[k].data() + i * ph, H);
        }
        copy<S>(static_cast<S*>(g_.g_read0) + b * R, now.read.data() + i * pr, R);
        this->row(b).finish_backward(now.memory[i], g_.gradients, b);
    }

    // Adds the chunks' sums, without padding, to what is wanted.
    void write(const std::vector<Sums>& chunks) const {
        S *const control = static_cast<S*>(g_.g_control), *const bias = static_cast<S*>(g_.g_control_bias);
        clear<S>(control, H * (kGates + R));
        clear<S>(bias, kGates + R);
        for (Index k = 0; k < K; ++k) clear<S>(static_cast<S*>(g_.g_recurrent[k]), width(k) * 4 * H);
        for (Index k = 1; k < K; ++k) clear<S>(static_cast<S*>(g_.g_biases[k - 1]), 4 * H);
        if (c_.ids) clear<S>(static_cast<S*>(g_.g_inputs), c_.symbols * 4 * H);
        for (const Sums& sums : chunks) {
            for (Index k = 0; k < K; ++k) {
                add_parts(static_cast<S*>(g_.g_recurrent[k]), sums.recurrent[k].data(), width(k) * 4);
                if (k) add_parts(static_cast<S*>(g_.g_biases[k - 1]), sums.biases[k - 1].data(), 4);
            }
            if (c_.ids) add_parts(static_cast<S*>(g_.g_inputs), sums.inputs.data(), c_.symbols * 4);
            for (Index j = 0; j < H; ++j) {
                S* const row = control + j * (kGates + R);
                for (Index gate = 0; gate < kGates; ++gate) row[gate] += sums.gates[gate * ph + j];
                add_scaled<S>(row + kGates, 1, sums.value.data() + j * pr, R);
            }
            add_scaled<S>(bias, 1, sums.gate_biases, kGates);
            add_scaled<S>(bias + kGates, 1, sums.value_bias.data(), R);
        }
    }

    void add_parts(S* to, const S* from, Index parts) const {
        for (Index i = 0; i < parts; ++i) add_scaled<S>(to + i * H, 1, from + i * ph, H);
    }

    const RecurrenceGradientCall& g_;
};

}  // namespace stackrev
