// The neural stack: its step, its derivative, and the kernel that takes it over T steps. All that is the stack's own is
// here: the recurrence (recurrence.h) and the stream of symbols (stream.h) call it.
//
// Elements form a persistent chain, one a row.
//
//     s            place of an element: 0..N-1 are those on the stack at the start, N + t is what step t pushed
//     L, bottoms   [N + T, B]    where each element starts: the height after the pop of its step
//     H, height                  how high the column stands after a step
//     E, top                     where what is left of an element ends
//     below        [N + T, B]    the next element down the chain, -1 at the bottom
//     d, u                       push and pop strength
//
// Step t pops, pushes, reads:
//
//     L_s = max(0, H - u),   H' = L_s + d
//     below[s] = the first element on the chain s-1, below[s-1], ... that starts under L_s
//     r = sum_i max(0, E_i - max(L_i, H' - 1)) v_i
//
// Back:  gd = gH',   gL_s += gH',   gH = gL_s if L_s > 0, else 0,   gu = -gH
//
// What the pop passes never comes back, so it costs O(1) a step on average; the read stops where it has covered one
// unit. An element's top is its own push's H, or the L of the element above it on the chain; for an initial element,
// the lower of its initial top and the lowest L of the new elements, which is that of the last new one on the chain.
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

// One step. `Elements` says where the elements are: bottom(i), and next(i), the next one down the chain, -1 at the bottom;
// if kSomeInitial, also `initial` and initial_top(i), of elements that were there before the first step.

// L = max(0, H - u); a NaN stays one
inline double level_after_pop(double height, double u) {
    const double drained = height - u;
    return drained <= 0 ? 0 : drained;
}

// The first element from `last` down the chain that starts below the level: those above it are popped whole.
template <typename Elements>
inline Index first_below(const Elements& elements, Index last, double level) {
    while (last >= 0 && elements.bottom(last) >= level) last = elements.next(last);
    return last;
}

// Walks from element s down through the top unit, and calls visit(i, alpha_i, inside_i, top source) where alpha > 0 or
// NaN: inside if the element ends the read at its own bottom, L_i > H - 1; the source is the element whose L is the top
// of i, i itself if its own initial top is, or -1 for the height H.
template <typename Elements, typename Visit>
inline void walk_read(const Elements& elements, Index s, double height, Visit&& visit) {
    const double floor = height - 1;
    double top = height, lowest = std::numeric_limits<double>::infinity();
    Index source = -1, lowest_source = -1;
    for (Index i = s; i >= 0; i = elements.next(i)) {
        const double level = elements.bottom(i);
        if constexpr (Elements::kSomeInitial) {
            if (i < elements.initial) {
                const bool own = elements.initial_top(i) <= lowest;
                top = own ? elements.initial_top(i) : lowest;
                source = own ? i : lowest_source;
            }
        }
        const bool inside = level > floor;
        const double alpha = top - (inside ? level : floor);
        if (!(alpha <= 0)) visit(i, alpha, inside, source);
        if (!inside) break;
        top = level;
        source = i;
        if constexpr (Elements::kSomeInitial) {
            if (i >= elements.initial) {
                lowest = level;
                lowest_source = i;
            }
        }
    }
}

// From the gradients of L and of H after a step to those of the step's controls and of H before it
struct StepGradient {
    double push, pop, height;
};

inline StepGradient step_backward(double level, double g_level, double g_height) {
    const double sum = g_level + g_height, before = level > 0 ? sum : 0;
    return {g_height, -before, before};
}

// What both directions share: one row's view of arrays whose elements lie `stride` rows apart.
template <typename S>
struct StackRow {
    static constexpr bool kSomeInitial = true;

    const S* values;        // element s at values + s * value_stride
    double* bottoms;        // at bottoms[s * stride]
    std::int32_t* below;    // at below[s * stride]
    const double* tops;     // of the initial elements, at tops[s * stride]
    Index initial;           // N
    Index stride, value_stride, width;

    const S* value(Index s) const { return values + s * value_stride; }
    double bottom(Index s) const { return bottoms[s * stride]; }
    Index next(Index s) const { return below[s * stride]; }
    double initial_top(Index s) const { return tops[s * stride]; }

    // Links the initial elements that are alive, and returns the uppermost, -1 if there is none.
    Index link_initial() {
        Index last = -1;
        for (Index s = 0; s < initial; ++s) {
            below[s * stride] = static_cast<std::int32_t>(last);
            if (tops[s * stride] > bottom(s)) last = s;
        }
        return last;
    }

    // Pops and pushes: element s goes on the chain above `last`, the uppermost so far. Returns H.
    double push(Index s, Index last, double height, double d, double u) {
        const double level = level_after_pop(height, u);
        bottoms[s * stride] = level;
        below[s * stride] = static_cast<std::int32_t>(first_below(*this, last, level));
        return level + d;
    }

    // r, added to `read`
    void read(Index s, double height, S* read) const {
        walk_read(*this, s, height, [&](Index i, double alpha, bool, Index) {
            add_scaled<S>(read, static_cast<S>(alpha), value(i), width);
        });
    }

    // The derivative of the read: from g_read to the read elements' values, L, initial tops, and H.
    void read_backward(Index s, double height, const S* g_read, S* g_values, double* g_bottoms, double* g_tops,
                       double& g_height, Begun begun = {}) const {
        walk_read(*this, s, height, [&](Index i, double alpha, bool inside, Index source) {
            const double g = dot<S>(value(i), g_read, width);
            S* const g_value = g_values + i * value_stride;
            if (begun(i)) {
                add_scaled<S>(g_value, static_cast<S>(alpha), g_read, width);
            } else {
                scale<S>(g_value, static_cast<S>(alpha), g_read, width);
            }
            if (source < 0) {
                g_height += g;
            } else if (source == i) {
                g_tops[i * stride] += g;
            } else {
                g_bottoms[source * stride] += g;
            }
            if (inside) {
                g_bottoms[i * stride] -= g;
            } else {
                g_height -= g;
            }
        });
    }
};

// The tops of all elements after the last step, E_i = min(H_i or the initial top, min over later k of L_k), from the
// last to the first, calling visit(s, E_s, source): the element whose L it is, s itself for its own uncut top.
template <typename Uncut, typename Visit>
void final_tops(const double* bottoms, Index stride, Index initial, Index elements, Uncut&& uncut, Visit&& visit) {
    double lowest = std::numeric_limits<double>::infinity();
    Index lowest_source = -1;
    for (Index s = elements - 1; s >= 0; --s) {
        const double own = uncut(s);
        const bool kept = own <= lowest;
        visit(s, kept ? own : lowest, kept ? s : lowest_source);
        if (s >= initial && bottoms[s * stride] <= lowest) {
            lowest = bottoms[s * stride];
            lowest_source = s;
        }
    }
}

// The neural stack over T steps given all its controls, forward and backward. Rows are split over threads. A thread takes
// its rows together through the steps, so that it meets memory in its own order.
template <typename S>
class NeuralStack {
   public:
    explicit NeuralStack(const StackCall& call)
        : c_(call), T(call.steps), B(call.batch), M(call.width), N(call.initial) {}

    void forward() {
        over_rows([&](Index first, Index end) { forward(first, end); });
    }

    void backward(const StackGradientCall& g) {
        over_rows([&](Index first, Index end) { backward(g, first, end); });
    }

   private:
    template <typename Work>
    void over_rows(Work&& work) const {
        const Index parts = std::max<Index>(1, std::min(Index(c_.threads), B));
        in_parallel(parts, parts, [&](Index i) { work(B * i / parts, B * (i + 1) / parts); });
    }

    StackRow<S> row(Index b) const {
        return {static_cast<const S*>(c_.values) + b * M, c_.bottoms + b, c_.below + b, c_.tops0 + b, N, B, B * M, M};
    }

    // The top of element s before anything is popped from it
    double uncut(Index s, Index b) const {
        return s < N ? c_.tops0[s * B + b] : c_.bottoms[s * B + b] + c_.push[(s - N) * B + b];
    }

    void forward(Index first, Index end) {
        std::vector<double> heights(c_.height0 + first, c_.height0 + end);
        std::vector<Index> last;
        for (Index b = first; b < end; ++b) last.push_back(row(b).link_initial());
        for (Index t = 0; t < T; ++t) {
            for (Index b = first; b < end; ++b) {
                const Index at = t * B + b, s = N + t, i = b - first;
                StackRow<S> stack = row(b);
                heights[i] = stack.push(s, last[i], heights[i], c_.push[at], c_.pop[at]);
                last[i] = s;
                S* const read = static_cast<S*>(c_.reads) + at * M;
                clear<S>(read, M);
                stack.read(s, heights[i], read);
            }
        }
        for (Index b = first; b < end; ++b) {
            c_.height[b] = heights[b - first];
            final_tops(c_.bottoms + b, B, N, N + T, [&](Index s) { return uncut(s, b); },
                       [&](Index s, double top, Index) { c_.tops[s * B + b] = top; });
        }
    }

    // From the last step to the first: the read, then the push and the pop
    void backward(const StackGradientCall& g, Index first, Index end) {
        std::vector<double> gH(end - first, 0.0);
        for (Index s = 0; s < N + T; ++s) {
            for (Index b = first; b < end; ++b) g.g_bottoms[s * B + b] = g.g_end_bottoms ? g.g_end_bottoms[s * B + b] : 0;
        }
        // Whether an element's gradient has a value yet. Filling all with zeros first would take a way through memory more.
        std::vector<char> begun((N + T) * (end - first), 0);
        // until its step is reached, g_push holds what the final tops give to H
        for (Index t = 0; t < T; ++t) std::fill(g.g_push + t * B + first, g.g_push + t * B + end, 0.0);
        for (Index s = 0; s < N; ++s) std::fill(g.g_tops0 + s * B + first, g.g_tops0 + s * B + end, 0.0);
        for (Index b = first; b < end; ++b) {
            if (g.g_height) gH[b - first] = g.g_height[b];
            if (g.g_end_tops) end_tops(g, b);
        }
        for (Index t = T - 1; t >= 0; --t) {
            for (Index b = first; b < end; ++b) {
                const Index at = t * B + b, s = N + t;
                const StackRow<S> stack = row(b);
                const double L = stack.bottom(s);
                double g_height = gH[b - first] + g.g_push[at];
                if (g.g_reads) {
                    stack.read_backward(s, L + c_.push[at], read_gradient(g, t, b), static_cast<S*>(g.g_values) + b * M,
                                        g.g_bottoms + b, g.g_tops0 + b, g_height,
                                        Begun{begun.data() + b - first, end - first});
                }
                if (!begun[s * (end - first) + b - first]) clear<S>(static_cast<S*>(g.g_values) + (s * B + b) * M, M);
                const StepGradient step = step_backward(L, g.g_bottoms[s * B + b], g_height);
                g.g_push[at] = step.push;
                g.g_pop[at] = step.pop;
                gH[b - first] = step.height;
            }
        }
        for (Index s = 0; s < N; ++s) {
            for (Index b = first; b < end; ++b) {
                if (!begun[s * (end - first) + b - first]) clear<S>(static_cast<S*>(g.g_values) + (s * B + b) * M, M);
            }
        }
        std::copy(gH.begin(), gH.end(), g.g_height0 + first);
    }

    static const S* read_gradient(const StackGradientCall& g, Index t, Index b) {
        return static_cast<const S*>(g.g_reads) + t * g.g_step + b * g.g_row;
    }

    void end_tops(const StackGradientCall& g, Index b) const {
        final_tops(c_.bottoms + b, B, N, N + T, [&](Index s) { return uncut(s, b); },
                   [&](Index s, double, Index source) {
                       const double top = g.g_end_tops[s * B + b];
                       if (source != s) {
                           g.g_bottoms[source * B + b] += top;
                       } else if (s < N) {
                           g.g_tops0[s * B + b] += top;
                       } else {
                           g.g_push[(s - N) * B + b] += top;
                       }
                   });
    }

    const StackCall& c_;
    const Index T, B, M, N;
};

}  // namespace stackrev
