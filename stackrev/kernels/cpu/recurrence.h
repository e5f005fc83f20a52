// The stack-LSTM over a batch of sequences, forward and backward. The equations are those of recurrence.py.
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

#include "cell.h"
#include "stack.h"
#include "threads.h"

namespace stackrev {

// The call as Python makes it (recurrence fields in ops.py are the same, in the same order). `void` is float or double.
struct RecurrenceCall {
    std::int64_t steps, batch, hidden, width, layers, initial, threads, saving, symbols;
    double stretch;
    const std::int64_t* lengths;  // [B]
    const std::int64_t* ids;      // [T, B], less than `symbols`, or null
    // inputs
    const void *inputs, *noise;                       // [T, B, 4H], or [symbols, 4H] if there are ids; [T, B, 2] or null
    const void *hidden0, *cell0, *read0;              // [K, B, H], [K, B, H], [B, M]
    const double *tops0, *height0;                    // [N, B], [B]
    const void* const* recurrent;                     // K times
    const void* const* biases;                        // K - 1 times
    const void *control, *control_bias;               // [H, 2 + M], [2 + M]
    // results; the first N elements of the stack are there already
    void *top_hidden, *push, *pop;                    // [T, B, H], [T, B], [T, B]
    void *end_hidden, *end_cell, *end_read;           // [K, B, H], [K, B, H], [B, M]
    void* values;                                     // [N + T, B, M]
    double *bottoms, *tops, *height;                  // [N + T, B], [N + T, B], [B]
    // saved for the derivative; the last four only if `saving`
    std::int32_t* below;                              // [N + T, B]
    void *squashed, *activated, *cells;               // [T, B, 2], [K, T, B, 4H], [K, T, B, H]
    void* const* sources;                             // K times [T, B, M + H or 2H]
};

struct RecurrenceGradientCall {
    RecurrenceCall forward;
    // gradients of the results; null where there is none
    const void *g_top_hidden, *g_end_hidden, *g_end_cell, *g_end_read, *g_end_values;
    const double *g_end_bottoms, *g_end_tops, *g_end_height;
    // gradients wanted
    void *g_inputs, *g_noise;                         // [T, B, 4H], or [symbols, 4H] if there are ids; [T, B, 2]
    void *g_hidden0, *g_cell0, *g_read0;              // [K, B, H], [K, B, H], [B, M]
    void* g_values;                                   // [N + T, B, M]; the first N are the initial values'
    double *g_bottoms, *g_tops0, *g_height0;          // [N + T, B] (the first N count), [N, B], [B]
    void *g_control, *g_control_bias;                 // [H, 2 + M], [2 + M]
    void* const* g_recurrent;                         // K times [M + H or 2H, 4H]
    void* const* g_biases;                            // K - 1 times [4H]
};

constexpr long kChunkRows = 48;  // what these rows carry from step to step fits the cache beside the weights
constexpr long kProductRows = 48;  // at least so many go into a product for the weights' gradients, if there are so many

template <typename S>
class Recurrence {
   public:
    Recurrence(const RecurrenceCall& call, bool backward)
        : c_(call), T(call.steps), B(call.batch), H(call.hidden), M(call.width), K(call.layers), N(call.initial),
          e(static_cast<S>(call.stretch)), weights_(Sizes{H, M, K}, raw(call), backward), ph(weights_.ph), pm(weights_.pm) {}

   protected:
    struct Chunk {
        long first, end;
    };

    // Cuts the rows where the sum of their lengths passes each thread's share.
    std::vector<Chunk> chunks() const {
        const long threads = std::max<long>(1, std::min(long(c_.threads), B));
        const long count = std::min(B, threads * ((B + threads * kChunkRows - 1) / (threads * kChunkRows)));
        double all = 0, done = 0;
        for (long b = 0; b < B; ++b) all += c_.lengths[b] + 1;
        std::vector<Chunk> result;
        long first = 0;
        for (long b = 0; b < B; ++b) {
            done += c_.lengths[b] + 1;
            const long end = b + 1, cut = long(result.size()) + 1;
            if (end == B || done >= all * cut / count) {
                result.push_back({first, end});
                first = end;
            }
        }
        return result;
    }

    // How many of a chunk's rows run at step t, the rows before `rows` at most
    long running(const Chunk& chunk, long t, long rows) const {
        while (rows > 0 && c_.lengths[chunk.first + rows - 1] <= t) --rows;
        return rows;
    }

    StackRow<S> stack_row(long b) const {
        return {values() + b * M, c_.bottoms + b, c_.below + b, c_.tops0 + b, N, B, B * M, M};
    }
    S* values() const { return static_cast<S*>(c_.values); }

    static RawWeights<S> raw(const RecurrenceCall& call) {
        RawWeights<S> weights;
        for (long k = 0; k < call.layers; ++k) {
            weights.recurrent.push_back(static_cast<const S*>(call.recurrent[k]));
            if (k) weights.biases.push_back(static_cast<const S*>(call.biases[k - 1]));
        }
        weights.control = static_cast<const S*>(call.control);
        weights.control_bias = static_cast<const S*>(call.control_bias);
        return weights;
    }

    const RecurrenceCall& c_;
    const long T, B, H, M, K, N;
    const S e;
    const Weights<S> weights_;
    const long ph, pm;
};

template <typename S>
class Forward : Recurrence<S> {
    using Base = Recurrence<S>;
    using typename Base::Chunk;
    using Base::B, Base::H, Base::K, Base::M, Base::N, Base::T, Base::c_, Base::e, Base::ph, Base::pm, Base::weights_;

   public:
    explicit Forward(const RecurrenceCall& call) : Base(call, false) {}

    void run() {
        const auto chunks = this->chunks();
        in_parallel(long(chunks.size()), c_.threads, [&](long i) { run(chunks[i]); });
    }

   private:
    // What a chunk's rows carry from step to step
    struct Carried {
        std::vector<Buffer<S>> sources, cells;  // a layer [rows, source], [rows, ph]
        Buffer<S> z, values, gates;             // [rows, 4 ph], [rows, pm], [rows, 2]
        std::vector<double> heights;
        std::vector<long> tops;  // the uppermost element on each row's chain
    };

    S* hidden(Carried& now, long k, long i) const {
        return now.sources[k].data() + i * weights_.source(k) + weights_.below(k);
    }

    void run(const Chunk& chunk) {
        Carried now = start(chunk);
        long rows = chunk.end - chunk.first;
        for (long t = 0; t < T; ++t) {
            rows = this->running(chunk, t, rows);
            if (rows == 0) break;
            for (long k = 0; k < K; ++k) layer(now, chunk, k, t, rows);
            controls(now, chunk, t, rows);
            for (long i = 0; i < rows; ++i) stack(now, chunk, t, i);
        }
        for (long i = 0; i < chunk.end - chunk.first; ++i) finish(now, i, chunk.first + i);
    }

    Carried start(const Chunk& chunk) const {
        const long rows = chunk.end - chunk.first;
        Carried now;
        for (long k = 0; k < K; ++k) {
            now.sources.emplace_back(rows * weights_.source(k));
            now.cells.emplace_back(rows * ph);
        }
        now.z = Buffer<S>(rows * 4 * ph);
        now.values = Buffer<S>(rows * pm);
        now.gates = Buffer<S>(padded<S>(2 * rows));
        for (long i = 0; i < rows; ++i) {
            const long b = chunk.first + i;
            for (long k = 0; k < K; ++k) {
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
    void layer(Carried& now, const Chunk& chunk, long k, long t, long rows) {
        const long width = weights_.source(k), below = weights_.below(k);
        for (long i = 0; i < rows; ++i) {
            S* const z = now.z.data() + i * 4 * ph;
            if (k == 0) {
                const long at = t * B + chunk.first + i;
                const S* const x = static_cast<const S*>(c_.inputs) + (c_.ids ? c_.ids[at] : at) * 4 * H;
                copy_parts<S>(z, ph, x, H, 4, H);
            } else {
                copy<S>(z, weights_.biases[k - 1].data(), 4 * ph);
                copy<S>(now.sources[k].data() + i * width, hidden(now, k - 1, i), ph);
            }
        }
        multiply<S>(rows, now.z.data(), 4 * ph, now.sources[k].data(), width, weights_.recurrent[k], true);
        for (long i = 0; i < rows; ++i) {
            const long at = (k * T + t) * B + chunk.first + i;
            S *const z = now.z.data() + i * 4 * ph, *const c = now.cells[k].data() + i * ph;
            S* const source = now.sources[k].data() + i * width;
            if (c_.saving) {
                const long first = k == 0 ? M : H;
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
    void controls(Carried& now, const Chunk& chunk, long t, long rows) {
        for (long i = 0; i < rows; ++i) {
            const long at = t * B + chunk.first + i;
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

    void stack(Carried& now, const Chunk& chunk, long t, long i) {
        const long b = chunk.first + i, at = t * B + b, s = N + t;
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
    void finish(Carried& now, long i, long b) {
        for (long k = 0; k < K; ++k) {
            copy<S>(static_cast<S*>(c_.end_hidden) + (k * B + b) * H, hidden(now, k, i), H);
            copy<S>(static_cast<S*>(c_.end_cell) + (k * B + b) * H, now.cells[k].data() + i * ph, H);
        }
        copy<S>(static_cast<S*>(c_.end_read) + b * M, now.sources[0].data() + i * weights_.source(0), M);
        c_.height[b] = now.heights[i];
        const long length = c_.lengths[b];
        const auto uncut = [&](long s) {
            return s < N ? c_.tops0[s * B + b] : c_.bottoms[s * B + b] + double(static_cast<S*>(c_.push)[(s - N) * B + b]);
        };
        final_tops(c_.bottoms + b, B, N, N + length, uncut, [&](long s, double top, long) { c_.tops[s * B + b] = top; });
        for (long t = length; t < T; ++t) {
            const long at = t * B + b, s = N + t;
            clear<S>(static_cast<S*>(c_.top_hidden) + at * H, H);
            static_cast<S*>(c_.push)[at] = static_cast<S*>(c_.pop)[at] = 0;
            clear<S>(this->values() + (s * B + b) * M, M);
            c_.bottoms[s * B + b] = c_.tops[s * B + b] = now.heights[i];
            c_.below[s * B + b] = -1;
        }
    }
};

template <typename S>
class Backward : Recurrence<S> {
    using Base = Recurrence<S>;
    using typename Base::Chunk;
    using Base::B, Base::H, Base::K, Base::M, Base::N, Base::T, Base::c_, Base::e, Base::ph, Base::pm, Base::weights_;

   public:
    explicit Backward(const RecurrenceGradientCall& call) : Base(call.forward, true), g_(call) {}

    void run() {
        const auto chunks = this->chunks();
        std::vector<Sums> sums(chunks.size());
        in_parallel(long(chunks.size()), c_.threads, [&](long i) { sums[i] = run(chunks[i]); });
        write(sums);
    }

   private:
    // Of the weights' gradients: a layer [M + H or 2H, 4 ph] and [4 ph], the value's [H, pm] and [pm], the gates' [ph] and
    // 2 numbers; if there are ids, of the inputs [symbols, 4 ph]
    struct Sums {
        std::vector<Buffer<S>> recurrent, biases;
        Buffer<S> inputs;
        Buffer<S> value, value_bias, push, pop;
        S push_bias = 0, pop_bias = 0;
    };

    // Gradients g of pre-activations, [rows, columns], beside what the weights multiplied, which wait for enough of them
    struct Waiting {
        Buffer<S> g;
        long columns = 0, capacity = 0, rows = 0;
        std::vector<RowPairs<S>> factors;

        Waiting() = default;
        Waiting(long most, long width) : g((most + kProductRows) * width), columns(width), capacity(most + kProductRows) {}
        S* next() { return g.data() + rows * columns; }
        bool full(long more) const { return rows + more > capacity; }
        void add(const S* in, long more) {
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
        Buffer<S> read;                        // [rows, pm]
        std::vector<double> heights;
        std::vector<double> uncut;  // [T, rows], of each step's H as a top of the final state; empty if there is none
        Waiting values;          // [rows, pm]
        std::vector<Waiting> z;  // a layer [rows, 4 ph]
        Buffer<S> above, into, saved;  // scratch: [rows, ph], [rows, source], and padded copies of what was saved
        long rows;
        Sums sums;
    };

    Sums run(const Chunk& chunk) {
        Carried now = start(chunk);
        const long last = c_.lengths[chunk.first];
        for (long b = chunk.first; b < chunk.end; ++b) blank(b);
        long rows = 0;
        for (long t = last - 1; t >= 0; --t) {
            while (rows < now.rows && c_.lengths[chunk.first + rows] > t) ++rows;
            if (now.values.full(rows)) add_value_products(now);
            S* const values = now.values.next();
            for (long i = 0; i < rows; ++i) stack(now, chunk, t, i, values + i * pm);
            now.values.add(static_cast<const S*>(c_.top_hidden) + (t * B + chunk.first) * H, rows);
            add_rows<S>(rows, now.sums.value_bias.data(), pm, values, pm);
            // gh of the top layer: + ga W_a'
            multiply<S>(rows, now.above.data(), ph, values, pm, weights_.value, true);
            for (long k = K - 1; k >= 0; --k) layer(now, chunk, k, t, rows);
        }
        add_value_products(now);
        for (long k = 0; k < K; ++k) add_layer_products(now, k);
        for (long i = 0; i < now.rows; ++i) finish(now, i, chunk.first + i);
        return std::move(now.sums);
    }

    Carried start(const Chunk& chunk) {
        Carried now;
        now.rows = chunk.end - chunk.first;
        long widest = 0;
        for (long k = 0; k < K; ++k) {
            now.hidden.emplace_back(now.rows * ph);
            now.cells.emplace_back(now.rows * ph);
            widest = std::max(widest, weights_.source(k));
            now.z.emplace_back(now.rows, 4 * ph);
            now.sums.recurrent.emplace_back(width(k) * 4 * ph);
            if (k) now.sums.biases.emplace_back(4 * ph);
        }
        if (c_.ids) now.sums.inputs = Buffer<S>(c_.symbols * 4 * ph);
        now.sums.value = Buffer<S>(H * pm);
        now.sums.value_bias = Buffer<S>(pm);
        now.sums.push = Buffer<S>(ph);
        now.sums.pop = Buffer<S>(ph);
        now.read = Buffer<S>(now.rows * pm);
        now.values = Waiting(now.rows, pm);
        now.above = Buffer<S>(now.rows * ph);
        now.into = Buffer<S>(now.rows * widest);
        now.saved = Buffer<S>(6 * ph);
        if (g_.g_end_tops) now.uncut.assign(T * now.rows, 0.0);
        for (long i = 0; i < now.rows; ++i) {
            const long b = chunk.first + i;
            for (long k = 0; k < K; ++k) {
                const long at = (k * B + b) * H;
                if (g_.g_end_hidden) copy<S>(now.hidden[k].data() + i * ph, static_cast<const S*>(g_.g_end_hidden) + at, H);
                if (g_.g_end_cell) copy<S>(now.cells[k].data() + i * ph, static_cast<const S*>(g_.g_end_cell) + at, H);
            }
            if (g_.g_end_read) copy<S>(now.read.data() + i * pm, static_cast<const S*>(g_.g_end_read) + b * M, M);
            now.heights.push_back(g_.g_end_height ? g_.g_end_height[b] : 0);
            start_stack(now, i, b);
        }
        return now;
    }

    // The final stack's values, bottoms and tops
    void start_stack(Carried& now, long i, long b) {
        const long elements = N + c_.lengths[b];
        for (long s = 0; s < elements; ++s) {
            S* const g_value = static_cast<S*>(g_.g_values) + (s * B + b) * M;
            if (g_.g_end_values) {
                copy<S>(g_value, static_cast<const S*>(g_.g_end_values) + (s * B + b) * M, M);
            } else {
                clear<S>(g_value, M);
            }
            g_.g_bottoms[s * B + b] = g_.g_end_bottoms ? g_.g_end_bottoms[s * B + b] : 0;
            if (s < N) g_.g_tops0[s * B + b] = 0;
        }
        if (!g_.g_end_tops) return;
        const auto uncut = [&](long s) {
            return s < N ? c_.tops0[s * B + b] : c_.bottoms[s * B + b] + double(push(s - N, b));
        };
        final_tops(c_.bottoms + b, B, N, elements, uncut, [&](long s, double, long source) {
            const double g = g_.g_end_tops[s * B + b];
            if (source != s) {
                g_.g_bottoms[source * B + b] += g;
            } else if (s < N) {
                g_.g_tops0[s * B + b] += g;
            } else {
                now.uncut[(s - N) * now.rows + i] += g;
            }
        });
    }

    S push(long t, long b) const { return static_cast<const S*>(c_.push)[t * B + b]; }
    S pop(long t, long b) const { return static_cast<const S*>(c_.pop)[t * B + b]; }

    // The read, the push, the pop, the controls; leaves the gradient of the value's pre-activation in `ga_value` and
    // what is known of that of the top layer's h in `above`
    void stack(Carried& now, const Chunk& chunk, long t, long i, S* ga_value) {
        const long b = chunk.first + i, at = t * B + b, s = N + t;
        const StackRow<S> row = this->stack_row(b);
        const double L = row.bottom(s), height = L + double(push(t, b));
        double gH = now.heights[i] + (now.uncut.empty() ? 0 : now.uncut[t * now.rows + i]);
        row.read_backward(s, height, now.read.data() + i * pm, static_cast<S*>(g_.g_values) + b * M, g_.g_bottoms + b,
                          g_.g_tops0 + b, gH);
        const double gd = gH, gL = g_.g_bottoms[s * B + b] + gH;
        gH = L > 0 ? gL : 0;
        now.heights[i] = gH;

        const S* const squashed = static_cast<const S*>(c_.squashed) + 2 * at;
        const S ga_push = static_cast<S>(gd) * stretched_gate_slope<S>(squashed[0], push(t, b), e);
        const S ga_pop = static_cast<S>(-gH) * stretched_gate_slope<S>(squashed[1], pop(t, b), e);
        const S* const v = row.value(s);
        const S* const gv = static_cast<const S*>(g_.g_values) + (s * B + b) * M;
        for (long m = 0; m < M; ++m) ga_value[m] = gv[m] * (1 - v[m] * v[m]);
        S* const g_noise = static_cast<S*>(g_.g_noise) + at * 2;
        g_noise[0] = ga_push;
        g_noise[1] = ga_pop;
        const S* const h = static_cast<const S*>(c_.top_hidden) + at * H;
        add_scaled<S>(now.sums.push.data(), ga_push, h, H);
        add_scaled<S>(now.sums.pop.data(), ga_pop, h, H);
        now.sums.push_bias += ga_push;
        now.sums.pop_bias += ga_pop;

        S* const above = now.above.data() + i * ph;
        copy<S>(above, now.hidden[K - 1].data() + i * ph, ph);
        if (g_.g_top_hidden) {
            const S* const g = static_cast<const S*>(g_.g_top_hidden) + at * H;
            for (long j = 0; j < H; ++j) above[j] += g[j];
        }
        add_scaled<S>(above, ga_push, weights_.push.data(), ph);
        add_scaled<S>(above, ga_pop, weights_.pop.data(), ph);
    }

    // How wide what a layer multiplies is, without padding
    long width(long k) const { return (k == 0 ? M : H) + H; }

    // The cell, then from gz to the weights and to the layer's source: gh of the step before, and gh of the layer below
    // or gr
    void layer(Carried& now, const Chunk& chunk, long k, long t, long rows) {
        S* const saved = now.saved.data();
        if (now.z[k].full(rows)) add_layer_products(now, k);
        S* const z = now.z[k].next();
        for (long i = 0; i < rows; ++i) {
            const long b = chunk.first + i, at = (k * T + t) * B + b;
            const S* const cells = static_cast<const S*>(c_.cells);
            const S* const last = t ? cells + (at - B) * H : static_cast<const S*>(c_.cell0) + (k * B + b) * H;
            const S* const activated =
                pad_parts<S>(static_cast<const S*>(c_.activated) + at * 4 * H, saved, 4, H, ph);
            const S* const c = pad_parts<S>(cells + at * H, saved + 4 * ph, 1, H, ph);
            const S* const c_before = pad_parts<S>(last, saved + 5 * ph, 1, H, ph);
            S* const gz = z + i * 4 * ph;
            lstm_cell_backward<S>(activated, c, c_before, now.above.data() + i * ph, now.cells[k].data() + i * ph, gz, ph);
            if (k == 0 && c_.ids) {
                add_scaled<S>(now.sums.inputs.data() + c_.ids[t * B + b] * 4 * ph, 1, gz, 4 * ph);
            } else if (k == 0) {
                copy_parts<S>(static_cast<S*>(g_.g_inputs) + (t * B + b) * 4 * H, H, gz, ph, 4, H);
            }
        }
        now.z[k].add(static_cast<const S*>(c_.sources[k]) + (t * B + chunk.first) * width(k), rows);
        if (k) add_rows<S>(rows, now.sums.biases[k - 1].data(), 4 * ph, z, 4 * ph);
        const long source = weights_.source(k), below = weights_.below(k);
        multiply<S>(rows, now.into.data(), source, z, 4 * ph, weights_.recurrent[k], false);
        for (long i = 0; i < rows; ++i) {
            const S* const into = now.into.data() + i * source;
            copy<S>(now.hidden[k].data() + i * ph, into + below, ph);
            if (k == 0) {
                copy<S>(now.read.data() + i * pm, into, pm);
            } else {
                const S* const carried = now.hidden[k - 1].data() + i * ph;
                S* const above = now.above.data() + i * ph;
                for (long j = 0; j < ph; ++j) above[j] = into[j] + carried[j];
            }
        }
    }

    void add_value_products(Carried& now) {
        add_products<S>(now.sums.value.data(), H, pm, now.values.factors, H, pm);
        now.values.clear();
    }

    void add_layer_products(Carried& now, long k) {
        add_products<S>(now.sums.recurrent[k].data(), width(k), 4 * ph, now.z[k].factors, width(k), 4 * ph);
        now.z[k].clear();
    }

    // The steps that a row does not take have no gradient.
    void blank(long b) {
        for (long t = c_.lengths[b]; t < T; ++t) {
            if (!c_.ids) clear<S>(static_cast<S*>(g_.g_inputs) + (t * B + b) * 4 * H, 4 * H);
            clear<S>(static_cast<S*>(g_.g_noise) + (t * B + b) * 2, 2);
        }
    }

    void finish(Carried& now, long i, long b) {
        for (long k = 0; k < K; ++k) {
            copy<S>(static_cast<S*>(g_.g_hidden0) + (k * B + b) * H, now.hidden[k].data() + i * ph, H);
            copy<S>(static_cast<S*>(g_.g_cell0) + (k * B + b) * H, now.cells[k].data() + i * ph, H);
        }
        copy<S>(static_cast<S*>(g_.g_read0) + b * M, now.read.data() + i * pm, M);
        g_.g_height0[b] = now.heights[i];
    }

    // Adds the chunks' sums, without padding, to what is wanted.
    void write(const std::vector<Sums>& chunks) const {
        S *const control = static_cast<S*>(g_.g_control), *const bias = static_cast<S*>(g_.g_control_bias);
        clear<S>(control, H * (2 + M));
        clear<S>(bias, 2 + M);
        for (long k = 0; k < K; ++k) clear<S>(static_cast<S*>(g_.g_recurrent[k]), width(k) * 4 * H);
        for (long k = 1; k < K; ++k) clear<S>(static_cast<S*>(g_.g_biases[k - 1]), 4 * H);
        if (c_.ids) clear<S>(static_cast<S*>(g_.g_inputs), c_.symbols * 4 * H);
        for (const Sums& sums : chunks) {
            for (long k = 0; k < K; ++k) {
                add_parts(static_cast<S*>(g_.g_recurrent[k]), sums.recurrent[k].data(), width(k) * 4);
                if (k) add_parts(static_cast<S*>(g_.g_biases[k - 1]), sums.biases[k - 1].data(), 4);
            }
            if (c_.ids) add_parts(static_cast<S*>(g_.g_inputs), sums.inputs.data(), c_.symbols * 4);
            for (long j = 0; j < H; ++j) {
                S* const row = control + j * (2 + M);
                row[0] += sums.push[j];
                row[1] += sums.pop[j];
                add_scaled<S>(row + 2, 1, sums.value.data() + j * pm, M);
            }
            bias[0] += sums.push_bias;
            bias[1] += sums.pop_bias;
            add_scaled<S>(bias + 2, 1, sums.value_bias.data(), M);
        }
    }

    void add_parts(S* to, const S* from, long parts) const {
        for (long i = 0; i < parts; ++i) add_scaled<S>(to + i * H, 1, from + i * ph, H);
    }

    const RecurrenceGradientCall& g_;
};

}  // namespace stackrev
