// The neural deque: its steps and its derivative, for the kernel of the deque alone (structure.h), the recurrence
// (recurrence.h) and the stream of symbols (stream.h). Letters that are not here are in structure.h; end 0 is the top.
//
//     H, high, G, low    where the column ends at the top and at the bottom
//     h, g               its ends after the pops of a step
//     levels [2T, B]     h and g of each step: of element s, the end that it shares with what was there before
//     links [2T, B]      the places of a step's two elements in the order: of the top one, then of the bottom one
//     order              the elements from bottom to top, of which those from `left` to `right` are there
//     d, u               push and pop strength of an end
//
// Step t pops at the top, then at the bottom, pushes, reads:
//
//     h = max(G, H - u_top),   g = min(h, G + u_bottom),   H' = h + d_top,   G' = g - d_bottom
//     the top element is on [h, H'], the bottom element on [G', g], each cut by every later h from above, g from below
//     r_top    = sum_i max(0, top_i - max(bottom_i, H' - depth)) v_i
//     r_bottom = sum_i max(0, min(top_i, G' + depth) - bottom_i) v_i
//
// Back:  gd_top = gH',  gd_bottom = -gG',  gh += gH',  gg += gG'
//        gG = gu_bottom = gg if g < h, else 0 and gh += gg;   gH = -gu_top = gh if h > G, else 0 and gG += gh
//
// Elements are lost and won at the two ends alone, so what is there is always one run of the order, in which neighbours
// touch: where two meet is the level of the one that came later, and of what is cut by nobody, its own end. A pop passes
// an element once, and a read goes on until it has covered its depth. The derivative goes back through the same orders: a
// step's elements leave their places, and those that they have overwritten come back.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "structure.h"

namespace stackrev {

// Where an element ends, and whose gradient that end's is: a place in DequeRow::Gradient::ends
struct DequeEnd {
    double at;
    Index source;
};

// Walk from an end of the order through the depth that is read, and call visit(place, alpha, end, other) where alpha > 0:
// the element's end towards the one that is read, and its other end, or null if the read goes no further than the depth.
// `Elements` says for a place of the order where the element's bottom and its top are.
template <typename Elements, typename Visit>
inline void walk_top(const Elements& elements, Index left, Index right, double high, double depth, Visit&& visit) {
    const double floor = high - depth;
    for (Index place = right; place >= left; --place) {
        const DequeEnd top = elements.top(place), bottom = elements.bottom(place);
        const bool own = bottom.at > floor;
        const double alpha = top.at - (own ? bottom.at : floor);
        if (alpha > 0) visit(place, alpha, top, own ? &bottom : nullptr);
        if (!own) break;
    }
}

template <typename Elements, typename Visit>
inline void walk_bottom(const Elements& elements, Index left, Index right, double low, double depth, Visit&& visit) {
    const double ceiling = low + depth;
    for (Index place = left; place <= right; ++place) {
        const DequeEnd top = elements.top(place), bottom = elements.bottom(place);
        const bool own = top.at < ceiling;
        const double alpha = (own ? top.at : ceiling) - bottom.at;
        if (alpha > 0) visit(place, alpha, bottom, own ? &top : nullptr);
        if (!own) break;
    }
}

template <typename S, typename P>
class DequeRow : public Row<S, P> {
    using Base = Row<S, P>;
    using Base::B, Base::M, Base::N, Base::bottoms_, Base::high0_, Base::high_, Base::low0_, Base::low_, Base::tops_;

    struct Order {
        std::vector<std::int32_t> at;
        Index left, right;
    };

   public:
    using Base::Base, Base::value;
    static constexpr Index kEnds = 2;

    struct State {
        double low, high;
        Order order;
    };

    struct Gradient {
        // of G and H as they now are, of the initial elements' tops and bottoms, of each step's h and g
        std::vector<double> ends;
        std::vector<double> outer;  // of each step's H' and G' as ends that are never cut; empty if there is none
        Order order;
        std::vector<std::int32_t> hidden;  // what each of the steps' elements has overwritten in the order
    };

    State start(Index steps) const { return {*low0_, *high0_, initial_order(steps)}; }

    void step(Index t, State& now) const {
        const double h = higher(now.low, now.high - this->pop(t, 0)), g = lower(h, now.low + this->pop(t, 1));
        Order& order = now.order;
        const Elements elements{*this, order, now.low, h};
        while (order.right >= order.left && elements.bottom(order.right).at >= h) --order.right;
        while (order.left <= order.right && elements.top(order.left).at <= g) ++order.left;
        this->level(2 * t) = h;
        this->level(2 * t + 1) = g;
        now.high = high_after(t);
        now.low = low_after(t);
        order.at[++order.right] = static_cast<std::int32_t>(N + 2 * t);
        order.at[--order.left] = static_cast<std::int32_t>(N + 2 * t + 1);
        this->link(2 * t) = static_cast<std::int32_t>(order.right);
        this->link(2 * t + 1) = static_cast<std::int32_t>(order.left);
    }

    void read(Index t, const State& now, double depth, Ends<S> reads) const {
        const auto add = [&](Index e) {
            return [this, e, reads](Index i, double alpha, DequeEnd, const DequeEnd*) {
                add_scaled<S>(reads[e], static_cast<S>(alpha), value(i), M);
            };
        };
        walk(t, now.order, depth, add(0), add(1));
    }

    // What a step reads first is what it pushes.
    [[gnu::always_inline]] void prefetch(Index t, const State&) const {
        for (Index e = 0; e < kEnds; ++e) this->prefetch_value(N + 2 * (t + 1) + e);
    }

    void finish(const State& now, Index length, Index steps) const {
        *low_ = now.low;
        *high_ = now.high;
        final_ends(length, [&](Index s, bool top, double at, Index) { (top ? tops_ : bottoms_)[s * B] = at; });
        for (Index s = N + 2 * length; s < N + 2 * steps; s += 2) {
            this->end_empty(s, s + 1, now.high);
            this->end_empty(s + 1, s + 2, now.low);
        }
    }

    Gradient start_backward(const MemoryGradientArrays& g, Index b, Index length, Index steps) const {
        Gradient now{std::vector<double>(level_end(2 * length)), {}, initial_order(steps), {}};
        now.ends[kLow] = g.g_end_low ? g.g_end_low[b] : 0;
        now.ends[kHigh] = g.g_end_high ? g.g_end_high[b] : 0;
        if (g.g_end_bottoms || g.g_end_tops) {
            now.outer.resize(2 * length);
            final_ends(length, [&](Index s, bool top, double, Index source) {
                const double* const from = top ? g.g_end_tops : g.g_end_bottoms;
                if (from) (source < 0 ? now.outer[s - N] : now.ends[source]) += from[s * B + b];
            });
        }
        for (Index i = 0; i < 2 * length; ++i) {
            std::int32_t& place = now.order.at[this->link(i)];
            now.hidden.push_back(place);
            place = static_cast<std::int32_t>(N + i);
        }
        if (length > 0) add_outer(now, length - 1);
        return now;
    }

    void read_backward(Index t, Gradient& now, double depth, Ends<const S> g_reads, S* g_values, double& g_depth,
                       Begun begun = {}) const {
        now.order.right = this->link(2 * t);
        now.order.left = this->link(2 * t + 1);
        // a read grows with the end towards the top, and with the depth where it stops there
        const auto add = [&](Index e, double sign, Index read_end) {
            return [=, &now, &g_depth](Index i, double alpha, DequeEnd end, const DequeEnd* other) {
                if (!g_reads[e]) return;
                const double g = this->weight_backward(i, alpha, g_reads[e], g_values, begun);
                now.ends[end.source] += sign * g;
                now.ends[other ? other->source : read_end] -= sign * g;
                if (!other) g_depth += g;
            };
        };
        walk(t, now.order, depth, add(0, 1, kHigh), add(1, -1, kLow));
    }

    [[gnu::always_inline]] void prefetch_backward(Index t, const Gradient&, S* g_values) const {
        for (Index e = 0; e < kEnds; ++e) this->prefetch_value(N + 2 * (t - 1) + e, g_values);
    }

    void step_backward(Index t, Gradient& now, double* g_push, double* g_pop) const {
        double &low = now.ends[kLow], &high = now.ends[kHigh];
        g_push[0] = high;
        g_push[1] = -low;
        double h = now.ends[level_end(2 * t)] + high;
        const double g = now.ends[level_end(2 * t + 1)] + low;
        low = high = g_pop[0] = g_pop[1] = 0;
        if (this->level(2 * t + 1) < this->level(2 * t)) {
            low = g_pop[1] = g;
        } else {
            h += g;
        }
        if (this->level(2 * t) > (t > 0 ? low_after(t - 1) : *low0_)) {
            high = h;
            g_pop[0] = -h;
        } else {
            low += h;
        }
        for (Index i : {2 * t + 1, 2 * t}) now.order.at[this->link(i)] = now.hidden[i];
        if (t > 0) add_outer(now, t - 1);
    }

    void finish_backward(const Gradient& now, const MemoryGradientArrays& g, Index b) const {
        for (Index s = 0; s < N; ++s) {
            g.g_tops0[s * B + b] = now.ends[top_end(s)];
            g.g_bottoms0[s * B + b] = now.ends[bottom_end(s)];
        }
        g.g_low0[b] = now.ends[kLow];
        g.g_high0[b] = now.ends[kHigh];
    }

   private:
    // Places in Gradient::ends
    static constexpr Index kLow = 0, kHigh = 1;
    static Index top_end(Index s) { return 2 + s; }
    Index bottom_end(Index s) const { return 2 + N + s; }
    Index level_end(Index i) const { return 2 + 2 * N + i; }

    double high_after(Index t) const { return this->level(2 * t) + this->push(t, 0); }
    double low_after(Index t) const { return this->level(2 * t + 1) - this->push(t, 1); }

    static void add_outer(Gradient& now, Index t) {
        if (now.outer.empty()) return;
        now.ends[kHigh] += now.outer[2 * t];
        now.ends[kLow] += now.outer[2 * t + 1];
    }

    // The initial elements that are alive, with room for the steps' at both sides. Each was added above all that were
    // there before it or below them.
    Order initial_order(Index steps) const {
        Index alive = 0;
        for (Index s = 0; s < N; ++s) alive += this->alive0(s);
        const Index middle = alive + steps;
        Order order{std::vector<std::int32_t>(2 * middle + 1), middle, middle - 1};
        for (Index s = 0; s < N; ++s) {
            if (!this->alive0(s)) continue;
            const bool above = order.right < order.left || this->bottom0(s) >= this->top0(order.at[order.right]);
            order.at[above ? ++order.right : --order.left] = static_cast<std::int32_t>(s);
        }
        return order;
    }

    // Where the elements of an order end, of which the outermost end at `low` and `high`
    struct Elements {
        const DequeRow& row;
        const Order& order;
        double low, high;

        Index step_of(Index i) const { return i < row.N ? -1 : (i - row.N) / 2; }

        DequeEnd top(Index place) const {
            if (place == order.right) return {high, kHigh};
            const Index i = order.at[place], next = order.at[place + 1];
            const bool cut = step_of(next) > step_of(i);
            if (i < row.N && !(cut && row.level(next - row.N) < row.top0(i))) return {row.top0(i), top_end(i)};
            return row.end_of((cut ? next : i) - row.N);
        }

        DequeEnd bottom(Index place) const {
            if (place == order.left) return {low, kLow};
            const Index i = order.at[place], next = order.at[place - 1];
            const bool cut = step_of(next) > step_of(i);
            if (i < row.N && !(cut && row.level(next - row.N) > row.bottom0(i))) return {row.bottom0(i), row.bottom_end(i)};
            return row.end_of((cut ? next : i) - row.N);
        }
    };

    DequeEnd end_of(Index i) const { return {this->level(i), level_end(i)}; }

    // The reads after step t. A height that is NaN makes all of both NaN.
    template <typename VisitTop, typename VisitBottom>
    void walk(Index t, const Order& order, double depth, VisitTop&& top, VisitBottom&& bottom) const {
        const double low = low_after(t), high = high_after(t), full = high - low;
        if (full != full) {
            top(N + 2 * t, full, {full, kHigh}, nullptr);
            bottom(N + 2 * t, full, {full, kLow}, nullptr);
            return;
        }
        const Elements elements{*this, order, low, high};
        const auto placed = [&](auto& visit) {
            return [&](Index place, double alpha, DequeEnd end, const DequeEnd* other) {
                visit(order.at[place], alpha, end, other);
            };
        };
        walk_top(elements, order.left, order.right, high, depth, placed(top));
        walk_bottom(elements, order.left, order.right, low, depth, placed(bottom));
    }

    // The ends of all elements after the last step, from the last to the first: calls visit(s, top, at, source) for the top
    // and for the bottom; the source is -1 for a step's own outer end, H' or G', that nothing has cut.
    template <typename Visit>
    void final_ends(Index length, Visit&& visit) const {
        constexpr double infinite = std::numeric_limits<double>::infinity();
        DequeEnd lowest{infinite, -1}, highest{-infinite, -1};
        const auto ends = [&](Index s, DequeEnd top, DequeEnd bottom) {
            const DequeEnd above = lowest.at < top.at ? lowest : top, below = highest.at > bottom.at ? highest : bottom;
            visit(s, true, above.at, above.source);
            visit(s, false, below.at, below.source);
        };
        for (Index t = length - 1; t >= 0; --t) {
            const DequeEnd h = end_of(2 * t), g = end_of(2 * t + 1);
            ends(N + 2 * t + 1, g, {low_after(t), -1});
            ends(N + 2 * t, {high_after(t), -1}, h);
            if (h.at <= lowest.at) lowest = h;
            if (g.at >= highest.at) highest = g;
        }
        for (Index s = 0; s < N; ++s) {
            ends(s, {this->top0(s), top_end(s)}, {this->bottom0(s), bottom_end(s)});
        }
    }
};

}  // namespace stackrev
