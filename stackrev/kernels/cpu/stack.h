// The neural stack: its step and its derivative. All that is the stack's own is here: the kernel of the stack alone
// (structure.h), the recurrence (recurrence.h) and the stream of symbols (stream.h) call it.
//
// Elements form a persistent chain, one a row; letters that are not here are in structure.h.
//
//     L, bottoms   [N + T, B]    where each element starts: the height after the pop of its step
//     H, height                  how high the column stands after a step
//     E, top                     where what is left of an element ends
//     links        [N + T, B]    the next element down the chain, -1 at the bottom
//     d, u                       push and pop strength
//
// Step t pops, pushes, reads:
//
//     L_s = max(0, H - u),   H' = L_s + d
//     below[s] = the first element on the chain s-1, below[s-1], ... that starts under L_s
//     r = sum_i max(0, E_i - max(L_i, H' - depth)) v_i
//
// Back:  gd = gH',   gL_s += gH',   gH = gL_s if L_s > 0, else 0,   gu = -gH
//
// What the pop passes never comes back, so it costs O(1) a step on average; the read stops where it has covered its
// depth. An element's top is its own push's H, or the L of the element above it on the chain; for an initial element,
// the lower of its initial top and the lowest L of the new elements, which is that of the last new one on the chain.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "structure.h"

namespace stackrev {

// One step. `Elements` says where the elements are: bottom(i), and next(i), the next one down the chain, -1 at the bottom;
// if kSomeInitial, also initial(), their number, and initial_top(i), of elements that were there before the first step.

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

// Walks from element s down through the depth that is read, and calls visit(i, alpha_i, inside_i, top source) where
// alpha > 0 or NaN: inside if the element is read down to its own bottom, L_i > H - depth; the source is the element whose
// L is the top of i, i itself if its own initial top is, or -1 for the height H.
template <typename Elements, typename Visit>
inline void walk_read(const Elements& elements, Index s, double height, double depth, Visit&& visit) {
    const double floor = height - depth;
    double top = height, lowest = std::numeric_limits<double>::infinity();
    Index source = -1, lowest_source = -1;
    for (Index i = s; i >= 0; i = elements.next(i)) {
        const double level = elements.bottom(i);
        if constexpr (Elements::kSomeInitial) {
            if (i < elements.initial()) {
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
            if (i >= elements.initial()) {
                lowest = level;
                lowest_source = i;
            }
        }
    }
}

template <typename S, typename P>
class StackRow : public Row<S, P> {
    using Base = Row<S, P>;
    using Base::B, Base::M, Base::N, Base::bottoms_, Base::high0_, Base::high_, Base::tops_;

   public:
    using Base::Base, Base::value;
    static constexpr Index kEnds = 1;
    static constexpr bool kSomeInitial = true;

    struct State {
        double height;
        Index last;  // the uppermost element, -1 if there is none
    };

    struct Gradient {
        std::vector<double> bottoms, tops;  // of each L, and of each element's own top as one that is never cut
        double height;
    };

    // The chain of those that are alive
    State start(Index) {
        State now{*high0_, -1};
        for (Index s = 0; s < N; ++s) {
            bottoms_[s * B] = this->bottom0(s);
            this->link(s) = static_cast<std::int32_t>(now.last);
            if (this->alive0(s)) now.last = s;
        }
        return now;
    }

    void step(Index t, State& now) {
        const Index s = N + t;
        const double level = level_after_pop(now.height, this->pop(t));
        bottoms_[s * B] = level;
        this->link(s) = static_cast<std::int32_t>(first_below(*this, now.last, level));
        now = {level + this->push(t), s};
    }

    void read(Index t, const State& now, double depth, Ends<S> reads) const {
        walk_read(*this, N + t, now.height, depth, [&](Index i, double alpha, bool, Index) {
            add_scaled<S>(reads[0], static_cast<S>(alpha), value(i), M);
        });
    }

    void finish(const State& now, Index length, Index steps) {
        *high_ = now.height;
        final_tops(length, [&](Index s, double top, Index) { tops_[s * B] = top; });
        this->end_empty(N + length, N + steps, now.height);
        for (Index t = length; t < steps; ++t) this->link(N + t) = -1;
    }

    Gradient start_backward(const MemoryGradientArrays& g, Index b, Index length, Index) const {
        Gradient now{std::vector<double>(N + length), std::vector<double>(N + length), g.g_end_high ? g.g_end_high[b] : 0};
        for (Index s = 0; g.g_end_bottoms && s < N + length; ++s) now.bottoms[s] = g.g_end_bottoms[s * B + b];
        if (g.g_end_tops) {
            final_tops(length, [&](Index s, double, Index source) {
                (source == s ? now.tops : now.bottoms)[source] += g.g_end_tops[s * B + b];
            });
        }
        if (length > 0) now.height += now.tops[N + length - 1];
        return now;
    }

    void read_backward(Index t, Gradient& now, double depth, Ends<const S> g_reads, S* g_values, double& g_depth,
                       Begun begun = {}) const {
        walk_read(*this, N + t, height_after(t), depth, [&](Index i, double alpha, bool inside, Index source) {
            const double g = this->weight_backward(i, alpha, g_reads[0], g_values, begun);
            if (source < 0) {
                now.height += g;
            } else {
                (source == i ? now.tops : now.bottoms)[source] += g;
            }
            if (inside) {
                now.bottoms[i] -= g;
            } else {
                now.height -= g;
                g_depth += g;
            }
        });
    }

    void step_backward(Index t, Gradient& now, double* g_push, double* g_pop) const {
        const double sum = now.bottoms[N + t] + now.height, before = bottom(N + t) > 0 ? sum : 0;
        *g_push = now.height;
        *g_pop = -before;
        now.height = t > 0 ? before + now.tops[N + t - 1] : before;
    }

    void finish_backward(const Gradient& now, const MemoryGradientArrays& g, Index b) const {
        for (Index s = 0; s < N; ++s) {
            g.g_bottoms0[s * B + b] = now.bottoms[s];
            g.g_tops0[s * B + b] = now.tops[s];
        }
        g.g_high0[b] = now.height;
    }

    // What the walks ask
    double bottom(Index s) const { return bottoms_[s * B]; }
    Index next(Index s) const { return this->link(s); }
    Index initial() const { return N; }
    double initial_top(Index s) const { return this->top0(s); }

   private:
    double height_after(Index t) const { return bottom(N + t) + this->push(t); }

    // The tops of all elements after the last step, E_i = min(H_i or the initial top, min over later k of L_k), from the
    // last to the first, calling visit(s, E_s, source): the element whose L it is, s itself for its own uncut top. As in
    // plain torch, a NaN is lower than any number; so there is always an element whose L is the lowest.
    template <typename Visit>
    void final_tops(Index length, Visit&& visit) const {
        double lowest = std::numeric_limits<double>::infinity();
        Index lowest_source = -1;
        for (Index s = N + length - 1; s >= 0; --s) {
            const double own = s < N ? this->top0(s) : height_after(s - N);
            const bool kept = own <= lowest || own != own;
            visit(s, kept ? own : lowest, kept ? s : lowest_source);
            if (s >= N && lowest == lowest && !(bottom(s) > lowest)) {
                lowest = bottom(s);
                lowest_source = s;
            }
        }
    }
};

}  // namespace stackrev
