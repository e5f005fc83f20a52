// What the kernels ask of a structure, and the kernel that takes one over T steps given all its controls.
//
//     N, T, B, M         elements at the start, steps, rows, width of a value
//     E                  ends at which a step adds and removes: 2 of a deque, top and bottom, else 1
//     s                  place of an element: 0..N-1 are those there at the start, N + E t + e is what step t added at end e
//     gX, g_x            gradient of X
//
// A structure is a class template Structure<S, P>, one row's view of the arrays: S is the type of values, P that of
// strengths. Heights are double. It has
//
//     kEnds                                      E
//     State start(steps)                         what a row carries from step to step
//     step(t, state)                             remove, add
//     read(t, state, depth, reads)               what is read after step t, added to `reads`
//     prefetch(t, state)                         asks for values that the steps after t will read, ahead of their use
//     finish(state, length, steps)               the results, of a row that took `length` steps
//     Gradient start_backward(g, b, length, steps)   the same from the last step to the first; g: of the results
//     read_backward(t, gradient, depth, g_reads, g_values, g_depth, begun)
//     prefetch_backward(t, gradient, g_values)   as prefetch, for the steps before t
//     step_backward(t, gradient, g_push, g_pop)  E numbers each
//     finish_backward(gradient, g)
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "calls.h"
#include "simd.h"
#include "threads.h"

namespace stackrev {

// Which of a row's elements have a gradient to add to, one flag each; the others' memory is not filled. Without flags, all.
struct Begun {
    char* flags = nullptr;
    Index stride = 0;

    // Whether element i is one of them, which it is from now on
    bool operator()(Index i) const {
        if (!flags) return true;
        char& flag = flags[i * stride];
        const bool before = flag;
        flag = 1;
        return before;
    }
};

// What each end reads, or its gradient; null where there is no such end, or no gradient
template <typename S>
struct Ends {
    S* at[2];

    S* operator[](Index e) const { return at[e]; }
};

// max and min that keep a NaN
inline double higher(double a, double b) { return a > b || a != a ? a : b; }
inline double lower(double a, double b) { return a < b || a != a ? a : b; }

// Where the strengths of a call are: of row b, step t and end e at [b * row + t * step + e * end]
template <typename P>
struct Strengths {
    const P *push, *pop;
    Index row, step, end;
};

// One row's view of arrays whose elements lie `stride` rows apart
template <typename S, typename P>
class Row {
   public:
    Row(const MemoryArrays& m, const Strengths<P>& p, Index b, Index initial, Index batch, Index width)
        : values_(static_cast<S*>(m.values) + b * width), bottoms0_(m.bottoms0 + b), tops0_(m.tops0 + b),
          low0_(at(m.low0, b)), high0_(m.high0 + b), bottoms_(at(m.bottoms, b)), tops_(at(m.tops, b)), low_(at(m.low, b)),
          high_(at(m.high, b)), levels_(at(m.levels, b)), links_(at(m.links, b)), push_(p.push + b * p.row),
          pop_(at(p.pop, b * p.row)), step_(p.step), end_(p.end), N(initial), B(batch), M(width) {}

    S* value(Index s) const { return values_ + s * B * M; }

    // A stack reads what lies where the processor looks ahead by itself, and does without these.
    template <typename State>
    void prefetch(Index, const State&) const {}
    template <typename Gradient>
    void prefetch_backward(Index, const Gradient&, S*) const {}

   protected:
    template <typename X>
    static X* at(X* array, Index offset) {
        return array ? array + offset : nullptr;
    }

    double push(Index t, Index e = 0) const { return static_cast<double>(push_[t * step_ + e * end_]); }
    double pop(Index t, Index e = 0) const { return static_cast<double>(pop_[t * step_ + e * end_]); }
    double bottom0(Index s) const { return bottoms0_[s * B]; }
    double top0(Index s) const { return tops0_[s * B]; }
    // Whether there is something of an initial element
    bool alive0(Index s) const { return top0(s) > bottom0(s); }
    double& level(Index i) const { return levels_[i * B]; }
    std::int32_t& link(Index i) const { return links_[i * B]; }

    // Elements without strength for the steps that the row does not take
    void end_empty(Index first, Index end, double place) const {
        for (Index s = first; s < end; ++s) bottoms_[s * B] = tops_[s * B] = place;
    }

    // Asks the processor for the value of element i and, if there is one, the place of its gradient. The next element that
    // a row reads lies far from the one before, where the processor does not look ahead by itself; without this, most of
    // the time of long sequences is spent on waiting for memory. It is inlined because GCC drops calls of functions that
    // do nothing else.
    [[gnu::always_inline]] void prefetch_value(Index i, S* g_values = nullptr) const {
        constexpr Index line = 64 / sizeof(S);  // a cache line
        for (Index m = 0; m < M; m += line) __builtin_prefetch(value(i) + m, 0, 2);
        if (!g_values) return;
        for (Index m = 0; m < M; m += line) __builtin_prefetch(g_values + i * B * M + m, 1, 2);
    }

    // A read's derivative by element i, read with weight alpha: adds to the value's gradient, returns that of alpha
    double weight_backward(Index i, double alpha, const S* g_read, S* g_values, Begun begun) const {
        S* const g_value = g_values + i * B * M;
        if (begun(i)) {
            add_scaled<S>(g_value, static_cast<S>(alpha), g_read, M);
        } else {
            scale<S>(g_value, static_cast<S>(alpha), g_read, M);
        }
        return dot<S>(value(i), g_read, M);
    }

   private:
    S* values_;
    const double *bottoms0_, *tops0_;

   protected:
    const double *low0_, *high0_;
    double *bottoms_, *tops_, *low_, *high_;

   private:
    double* levels_;
    std::int32_t* links_;
    const P *push_, *pop_;
    Index step_, end_;

   protected:
    Index N, B, M;
};

// A structure over T steps, forward and backward. Rows are split over threads. A thread takes its rows together through the
// steps, so that it meets memory in its own order.
template <typename S, template <typename, typename> class Structure>
class NeuralMemory {
    using RowOf = Structure<S, double>;
    static constexpr Index E = RowOf::kEnds;

   public:
    explicit NeuralMemory(const MemoryCall& call)
        : c_(call), T(call.steps), B(call.batch), M(call.width), N(call.initial), strengths_{c_.push, c_.pop, 1, E * B, B} {}

    void forward() {
        over_rows([&](Index first, Index end) { forward(first, end); });
    }

    void backward(const MemoryGradientCall& g) {
        over_rows([&](Index first, Index end) { backward(g, first, end); });
    }

   private:
    template <typename Work>
    void over_rows(Work&& work) const {
        const Index parts = std::max<Index>(1, std::min(Index(c_.threads), B));
        in_parallel(parts, parts, [&](Index i) { work(B * i / parts, B * (i + 1) / parts); });
    }

    RowOf row(Index b) const { return {c_.memory, strengths_, b, N, B, M}; }
    double depth(Index t, Index b) const { return c_.depth ? c_.depth[t * B + b] : 1; }

    void forward(Index first, Index end) {
        std::vector<typename RowOf::State> now;
        now.reserve(end - first);
        for (Index b = first; b < end; ++b) now.push_back(row(b).start(T));
        for (Index t = 0; t < T; ++t) {
            for (Index b = first; b < end; ++b) {
                RowOf memory = row(b);
                memory.step(t, now[b - first]);
                Ends<S> reads{};
                for (Index e = 0; e < E; ++e) {
                    reads.at[e] = static_cast<S*>(c_.reads[e]) + (t * B + b) * M;
                    clear<S>(reads[e], M);
                }
                memory.read(t, now[b - first], depth(t, b), reads);
                if (t + 1 < T) memory.prefetch(t, now[b - first]);
            }
        }
        for (Index b = first; b < end; ++b) row(b).finish(now[b - first], T, T);
    }

    // From the last step to the first: the reads, then the step
    void backward(const MemoryGradientCall& g, Index first, Index end) {
        const Index rows = end - first;
        std::vector<typename RowOf::Gradient> now;
        now.reserve(rows);
        for (Index b = first; b < end; ++b) now.push_back(row(b).start_backward(g.gradients, b, T, T));
        // Whether an element's gradient has a value yet. Filling all with zeros first would take a way through memory more.
        std::vector<char> begun((N + E * T) * rows, 0);
        const auto fill = [&](Index s, Index b) {
            if (!begun[s * rows + b - first]) clear<S>(static_cast<S*>(g.gradients.g_values) + (s * B + b) * M, M);
        };
        for (Index t = T - 1; t >= 0; --t) {
            for (Index b = first; b < end; ++b) {
                const RowOf memory = row(b);
                if (g.g_reads[0] || g.g_reads[1]) {
                    Ends<const S> g_reads{};
                    for (Index e = 0; e < E; ++e) {
                        if (!g.g_reads[e]) continue;
                        g_reads.at[e] = static_cast<const S*>(g.g_reads[e]) + t * g.g_step[e] + b * g.g_row[e];
                    }
                    double g_depth = 0;
                    memory.read_backward(t, now[b - first], depth(t, b), g_reads,
                                         static_cast<S*>(g.gradients.g_values) + b * M, g_depth,
                                         Begun{begun.data() + b - first, rows});
                    if (t > 0) memory.prefetch_backward(t, now[b - first], static_cast<S*>(g.gradients.g_values) + b * M);
                    if (g.g_depth) g.g_depth[t * B + b] = g_depth;
                }
                for (Index e = 0; e < E; ++e) fill(N + t * E + e, b);
                double g_push[E], g_pop[E];
                memory.step_backward(t, now[b - first], g_push, g_pop);
                for (Index e = 0; e < E; ++e) {
                    g.g_push[(t * E + e) * B + b] = g_push[e];
                    g.g_pop[(t * E + e) * B + b] = g_pop[e];
                }
            }
        }
        for (Index s = 0; s < N; ++s) {
            for (Index b = first; b < end; ++b) fill(s, b);
        }
        for (Index b = first; b < end; ++b) row(b).finish_backward(now[b - first], g.gradients, b);
    }

    const MemoryCall& c_;
    const Index T, B, M, N;
    const Strengths<double> strengths_;
};

}  // namespace stackrev
