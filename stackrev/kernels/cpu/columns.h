// The neural stack over T steps given all its controls, forward and backward; equations and letters are in stack.h.
//
// Rows are split over threads. A thread takes its rows together through the steps, so memory is met in its own order.
#pragma once

#include <algorithm>
#include <vector>

#include "stack.h"
#include "threads.h"

namespace stackrev {

// The call as Python makes it (_StackCall in ops.py has the same fields, in the same order). `void` is float or double.
struct StackCall {
    std::int64_t steps, batch, width, initial, threads;
    const void* values;                          // [N + T, B, M]
    const double *push, *pop, *tops0, *height0;  // [T, B], [T, B], [N, B], [B]
    // results; the first N bottoms are there already
    void* reads;                      // [T, B, M]
    double *bottoms, *tops, *height;  // [N + T, B], [N + T, B], [B]
    std::int32_t* below;              // [N + T, B], for the derivative
};

struct StackGradientCall {
    StackCall forward;
    std::int64_t g_step, g_row;                           // from a step's and a row's g_reads to the next one's
    const void* g_reads;                                  // gradients of the results; null where there is none
    const double *g_end_bottoms, *g_end_tops, *g_height;
    void* g_values;                                       // gradients wanted
    double *g_push, *g_pop, *g_bottoms, *g_tops0, *g_height0;
};

template <typename S>
class Columns {
   public:
    explicit Columns(const StackCall& call)
        : c_(call), T(call.steps), B(call.batch), M(call.width), N(call.initial) {}

    void forward() {
        over_rows([&](long first, long end) { forward(first, end); });
    }

    void backward(const StackGradientCall& g) {
        over_rows([&](long first, long end) { backward(g, first, end); });
    }

   private:
    template <typename Work>
    void over_rows(Work&& work) const {
        const long parts = std::max<long>(1, std::min(long(c_.threads), B));
        in_parallel(parts, parts, [&](long i) { work(B * i / parts, B * (i + 1) / parts); });
    }

    StackRow<S> row(long b) const {
        return {static_cast<const S*>(c_.values) + b * M, c_.bottoms + b, c_.below + b, c_.tops0 + b, N, B, B * M, M};
    }

    // The top of element s before anything is popped from it
    double uncut(long s, long b) const {
        return s < N ? c_.tops0[s * B + b] : c_.bottoms[s * B + b] + c_.push[(s - N) * B + b];
    }

    void forward(long first, long end) {
        std::vector<double> heights(c_.height0 + first, c_.height0 + end);
        std::vector<long> last;
        for (long b = first; b < end; ++b) last.push_back(row(b).link_initial());
        for (long t = 0; t < T; ++t) {
            for (long b = first; b < end; ++b) {
                const long at = t * B + b, s = N + t, i = b - first;
                StackRow<S> stack = row(b);
                heights[i] = stack.push(s, last[i], heights[i], c_.push[at], c_.pop[at]);
                last[i] = s;
                S* const read = static_cast<S*>(c_.reads) + at * M;
                clear<S>(read, M);
                stack.read(s, heights[i], read);
            }
        }
        for (long b = first; b < end; ++b) {
            c_.height[b] = heights[b - first];
            final_tops(c_.bottoms + b, B, N, N + T, [&](long s) { return uncut(s, b); },
                       [&](long s, double top, long) { c_.tops[s * B + b] = top; });
        }
    }

    // From the last step to the first: the read, then
    //     gd = gH,   gL += gH,   gH of the step before = gL if L > 0, else 0,   gu = -gH of the step before
    void backward(const StackGradientCall& g, long first, long end) {
        std::vector<double> gH(end - first, 0.0);
        for (long s = 0; s < N + T; ++s) {
            for (long b = first; b < end; ++b) g.g_bottoms[s * B + b] = g.g_end_bottoms ? g.g_end_bottoms[s * B + b] : 0;
        }
        // Whether an element's gradient has a value yet. Filling all with zeros first would take a way through memory more.
        std::vector<char> begun((N + T) * (end - first), 0);
        // until its step is reached, g_push holds what the final tops give to H
        for (long t = 0; t < T; ++t) std::fill(g.g_push + t * B + first, g.g_push + t * B + end, 0.0);
        for (long s = 0; s < N; ++s) std::fill(g.g_tops0 + s * B + first, g.g_tops0 + s * B + end, 0.0);
        for (long b = first; b < end; ++b) {
            if (g.g_height) gH[b - first] = g.g_height[b];
            if (g.g_end_tops) end_tops(g, b);
        }
        for (long t = T - 1; t >= 0; --t) {
            for (long b = first; b < end; ++b) {
                const long at = t * B + b, s = N + t;
                const StackRow<S> stack = row(b);
                const double L = stack.bottom(s);
                double g_height = gH[b - first] + g.g_push[at];
                if (g.g_reads) {
                    stack.read_backward(s, L + c_.push[at], read_gradient(g, t, b), static_cast<S*>(g.g_values) + b * M,
                                        g.g_bottoms + b, g.g_tops0 + b, g_height,
                                        Begun{begun.data() + b - first, end - first});
                }
                if (!begun[s * (end - first) + b - first]) clear<S>(static_cast<S*>(g.g_values) + (s * B + b) * M, M);
                g.g_push[at] = g_height;
                const double gL = g.g_bottoms[s * B + b] + g_height;
                gH[b - first] = L > 0 ? gL : 0;
                g.g_pop[at] = -gH[b - first];
            }
        }
        for (long s = 0; s < N; ++s) {
            for (long b = first; b < end; ++b) {
                if (!begun[s * (end - first) + b - first]) clear<S>(static_cast<S*>(g.g_values) + (s * B + b) * M, M);
            }
        }
        std::copy(gH.begin(), gH.end(), g.g_height0 + first);
    }

    static const S* read_gradient(const StackGradientCall& g, long t, long b) {
        return static_cast<const S*>(g.g_reads) + t * g.g_step + b * g.g_row;
    }

    void end_tops(const StackGradientCall& g, long b) const {
        final_tops(c_.bottoms + b, B, N, N + T, [&](long s) { return uncut(s, b); },
                   [&](long s, double, long source) {
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
    const long T, B, M, N;
};

}  // namespace stackrev
