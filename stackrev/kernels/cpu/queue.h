// The neural queue: its step and its derivative, for the kernel of the queue alone (structure.h), the recurrence
// (recurrence.h) and the stream of symbols (stream.h). Letters that are not here are in structure.h.
//
//     F, low, S, high    how much has been drained and poured so far; both only grow
//     levels [2T, B]     F and S after each step
//     bottom, top        an element's place on the line of all that was ever poured, S_{i-1} and S_i
//     order, head        the elements that are not empty, first in first, and the first of them that is not drained
//     d, u               push and pop strength
//
// Step t pops, pushes, reads:
//
//     F' = min(S, F + u),   S' = S + d
//     r  = sum_i max(0, min(top_i, F' + depth) - max(bottom_i, F')) v_i
//
// Back:  gd = gS',   gS = gS',   gF = gu = gF' if F' < S, else 0 and gS += gF'
//
// Since tops only grow with the elements and F with the steps, `head` only moves forward, and back in the derivative; a read
// goes from there until it has covered its depth.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "structure.h"

namespace stackrev {

// Walks over the elements order(head) to order(end - 1) as far as the depth that is read, and calls visit(i, alpha_i,
// own_bottom, own_top) where alpha > 0: whether the read is bounded by the element's bottom and top, or by F and F + depth.
// `Elements` says which element is at a place of the order, and its bottom(i) and top(i).
template <typename Elements, typename Visit>
inline void walk_front(const Elements& elements, Index head, Index end, double low, double depth, Visit&& visit) {
    const double ceiling = low + depth;
    for (Index place = head; place < end; ++place) {
        const Index i = elements.order(place);
        const double bottom = elements.bottom(i), top = elements.top(i);
        const bool own_bottom = bottom > low, own_top = top < ceiling;
        const double alpha = (own_top ? top : ceiling) - (own_bottom ? bottom : low);
        if (alpha > 0) visit(i, alpha, own_bottom, own_top);
        if (!own_top) break;
    }
}

template <typename S, typename P>
class QueueRow : public Row<S, P> {
    using Base = Row<S, P>;
    using Base::B, Base::M, Base::N, Base::bottoms_, Base::high0_, Base::high_, Base::low0_, Base::low_, Base::tops_;

   public:
    using Base::Base, Base::value;
    static constexpr Index kEnds = 1;
    // How many elements from the head on are asked for: what a read covers if pushes are about a half, and a few more. On
    // the way back a read covers what has been read before, so a few are enough.
    static constexpr Index kAhead = 6, kAheadBackward = 3;

    struct State {
        double low, high;
        std::vector<std::int32_t> order;
        Index head;
        Index asked = 0;  // how many elements of the order have been asked for
    };

    struct Gradient {
        std::vector<double> bottoms, tops;  // of the initial elements
        std::vector<double> highs;          // of S before the first step and after each step
        double low;
        std::vector<std::int32_t> order;
        Index head;
        Index asked = 0;  // the place in the order from which on elements have been asked for
    };

    State start(Index) const { return {*low0_, *high0_, initial_order(), 0}; }

    void step(Index t, State& now) const {
        now.low = lower(now.high, now.low + this->pop(t));
        now.high += this->push(t);
        this->level(2 * t) = now.low;
        this->level(2 * t + 1) = now.high;
        add_to(now.order, t);
        while (now.head < Index(now.order.size()) && top(now.order[now.head]) <= now.low) ++now.head;
    }

    void read(Index t, const State& now, double depth, Ends<S> reads) const {
        walk(t, now.order, now.head, depth, [&](Index i, double alpha, bool, bool) {
            add_scaled<S>(reads[0], static_cast<S>(alpha), value(i), M);
        });
    }

    [[gnu::always_inline]] void prefetch(Index t, State& now) const {
        const Index size = now.order.size(), end = now.head + kAhead;
        now.asked = std::max(now.asked, now.head);
        for (; now.asked < std::min(end, size); ++now.asked) this->prefetch_value(now.order[now.asked]);
        if (size < end) this->prefetch_value(N + t + 1);
    }

    void finish(const State& now, Index length, Index steps) const {
        *low_ = now.low;
        *high_ = now.high;
        for (Index s = 0; s < N + length; ++s) {
            bottoms_[s * B] = higher(bottom(s), now.low);
            tops_[s * B] = top(s);
        }
        this->end_empty(N + length, N + steps, now.high);
    }

    Gradient start_backward(const MemoryGradientArrays& g, Index b, Index length, Index) const {
        Gradient now{std::vector<double>(N), std::vector<double>(N), std::vector<double>(length + 1), 0, initial_order(), 0};
        if (g.g_end_low) now.low = g.g_end_low[b];
        if (g.g_end_high) now.highs[length] = g.g_end_high[b];
        // what a row that takes no step has not cut: its bottoms are its own
        const double low = length > 0 ? low_after(length - 1) : -std::numeric_limits<double>::infinity();
        for (Index s = 0; s < N + length; ++s) {
            if (g.g_end_tops) top_gradient(now, s) += g.g_end_tops[s * B + b];
            if (g.g_end_bottoms) (bottom(s) > low ? bottom_gradient(now, s) : now.low) += g.g_end_bottoms[s * B + b];
        }
        for (Index t = 0; t < length; ++t) add_to(now.order, t);
        now.head = now.asked = now.order.size();
        return now;
    }

    void read_backward(Index t, Gradient& now, double depth, Ends<const S> g_reads, S* g_values, double& g_depth,
                       Begun begun = {}) const {
        if (now.head > Index(now.order.size())) now.head = now.order.size();
        while (now.head > 0 && !(top(now.order[now.head - 1]) <= low_after(t))) --now.head;
        walk(t, now.order, now.head, depth, [&](Index i, double alpha, bool own_bottom, bool own_top) {
            const double g = this->weight_backward(i, alpha, g_reads[0], g_values, begun);
            if (own_top) {
                top_gradient(now, i) += g;
            } else {
                now.low += g;
                g_depth += g;
            }
            (own_bottom ? bottom_gradient(now, i) : now.low) -= g;
        });
    }

    [[gnu::always_inline]] void prefetch_backward(Index, Gradient& now, S* g_values) const {
        const Index end = std::max<Index>(0, now.head - kAheadBackward);
        now.asked = std::min(now.asked, now.head);
        while (now.asked > end) this->prefetch_value(now.order[--now.asked], g_values);
    }

    void step_backward(Index t, Gradient& now, double* g_push, double* g_pop) const {
        *g_push = now.highs[t + 1];
        now.highs[t] += now.highs[t + 1];
        *g_pop = 0;
        if (low_after(t) < high_before(t)) {
            *g_pop = now.low;
        } else {
            now.highs[t] += now.low;
            now.low = 0;
        }
        if (!now.order.empty() && now.order.back() == N + t) now.order.pop_back();
    }

    void finish_backward(const Gradient& now, const MemoryGradientArrays& g, Index b) const {
        for (Index s = 0; s < N; ++s) {
            g.g_bottoms0[s * B + b] = now.bottoms[s];
            g.g_tops0[s * B + b] = now.tops[s];
        }
        g.g_low0[b] = now.low;
        g.g_high0[b] = now.highs[0];
    }

   private:
    double low_after(Index t) const { return this->level(2 * t); }
    double high_after(Index t) const { return this->level(2 * t + 1); }
    double high_before(Index t) const { return t > 0 ? high_after(t - 1) : *high0_; }
    double bottom(Index s) const { return s < N ? this->bottom0(s) : high_before(s - N); }
    double top(Index s) const { return s < N ? this->top0(s) : high_after(s - N); }
    double& bottom_gradient(Gradient& now, Index s) const { return s < N ? now.bottoms[s] : now.highs[s - N]; }
    double& top_gradient(Gradient& now, Index s) const { return s < N ? now.tops[s] : now.highs[s - N + 1]; }

    std::vector<std::int32_t> initial_order() const {
        std::vector<std::int32_t> order;
        for (Index s = 0; s < N; ++s) {
            if (this->alive0(s)) order.push_back(static_cast<std::int32_t>(s));
        }
        return order;
    }

    // What step t has pushed, unless it is empty
    void add_to(std::vector<std::int32_t>& order, Index t) const {
        if (!(high_after(t) <= high_before(t))) order.push_back(static_cast<std::int32_t>(N + t));
    }

    // The read after step t. A height that is NaN makes all of it NaN.
    template <typename Visit>
    void walk(Index t, const std::vector<std::int32_t>& order, Index head, double depth, Visit&& visit) const {
        struct Elements {
            const QueueRow& row;
            const std::int32_t* at;
            Index order(Index place) const { return at[place]; }
            double bottom(Index i) const { return row.bottom(i); }
            double top(Index i) const { return row.top(i); }
        };
        const double full = high_after(t) - low_after(t);
        if (full != full) return visit(N + t, full, false, false);
        walk_front(Elements{*this, order.data()}, head, Index(order.size()), low_after(t), depth, visit);
    }
};

}  // namespace stackrev
