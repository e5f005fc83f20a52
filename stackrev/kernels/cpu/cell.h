// The controller's arithmetic: LSTM cells and the controls of a stack, queue or deque, and their derivatives.
//
//     E                  `ends`: 2 of a deque, top and bottom, else 1
//     H, R               width of the hidden state and of what is read, which is E values; `hidden` and `width`, and padded
//                        with zeros to whole vectors `ph` and `pr`
//     source             [pr + ph] or [ph + ph], a layer's input: the read or the hidden state of the layer below, then
//                        its own hidden state
//     z                  [4 ph], a layer's pre-activations: input, forget, cell and output gate
//     a                  the controls' pre-activations: push and pop of each end, the ends' values [pr]
//
// Padding stays zero through a step and back: a cell with z = 0 and c = 0 gives h = 0 and passes no gradient.
#pragma once

#include <type_traits>
#include <vector>

#include "matmul.h"

namespace stackrev {

struct Sizes {
    Index hidden, width, layers, ends;

    Index gates() const { return 2 * ends; }
};

// The weights as the caller has them: row-major, recurrent[k] [R + H or 2H, 4H], control [H, 2E + R].
template <typename S>
struct RawWeights {
    std::vector<const S*> recurrent;
    std::vector<const S*> biases;  // of the layers above the first
    const S* control;
    const S* control_bias;
};

// Copies `parts` runs of `size` numbers, `from_stride` apart, to runs `to_stride` apart.
template <typename S>
inline void copy_parts(S* to, Index to_stride, const S* from, Index from_stride, Index parts, Index size) {
    if (to_stride == size && from_stride == size) return copy<S>(to, from, parts * size);
    for (Index i = 0; i < parts; ++i) copy<S>(to + i * to_stride, from + i * from_stride, size);
}

// Where a run of padded parts starts, given the parts without padding: there, if none is needed, or in `scratch`.
template <typename S>
inline const S* pad_parts(const S* from, S* scratch, Index parts, Index size, Index padded_size) {
    if (size == padded_size) return from;
    copy_parts<S>(scratch, padded_size, from, size, parts, size);
    return scratch;
}

// The weights packed for the products of the forward or the backward pass.
template <typename S>
struct Weights {
    Sizes sizes;
    Index ph, pr;
    std::vector<Packed<S>> recurrent;  // forward: [source, 4 ph], backward: its transpose
    std::vector<Buffer<S>> biases;     // [4 ph], of the layers above the first
    Packed<S> value;                   // forward: [ph, pr], backward: its transpose
    Buffer<S> value_bias, gates;       // [pr], [2E, ph]
    std::vector<S> gate_biases;        // 2E

    Index below(Index layer) const { return layer == 0 ? pr : ph; }
    Index source(Index layer) const { return below(layer) + ph; }

    Weights(Sizes s, const RawWeights<S>& raw, bool backward)
        : sizes(s), ph(padded<S>(s.hidden)), pr(padded<S>(s.width)), value_bias(pr), gates(s.gates() * ph),
          gate_biases(raw.control_bias, raw.control_bias + s.gates()) {
        for (Index k = 0; k < s.layers; ++k) {
            recurrent.push_back(pack_recurrent(raw.recurrent[k], k, backward));
            if (k == 0) continue;
            biases.emplace_back(4 * ph);
            copy_parts<S>(biases.back().data(), ph, raw.biases[k - 1], s.hidden, 4, s.hidden);
        }
        value = backward ? Packed<S>(pr, ph) : Packed<S>(ph, pr);
        for (Index j = 0; j < s.hidden; ++j) {
            const S* const row = raw.control + j * (s.gates() + s.width);
            for (Index gate = 0; gate < s.gates(); ++gate) gates[gate * ph + j] = row[gate];
            for (Index m = 0; m < s.width; ++m) {
                const S weight = row[s.gates() + m];
                backward ? value.set(m, j, weight) : value.set(j, m, weight);
            }
        }
        copy<S>(value_bias.data(), raw.control_bias + s.gates(), s.width);
    }

   private:
    Packed<S> pack_recurrent(const S* raw, Index layer, bool backward) const {
        const Index H = sizes.hidden, first = layer == 0 ? sizes.width : H;
        Packed<S> packed = backward ? Packed<S>(4 * ph, source(layer)) : Packed<S>(source(layer), 4 * ph);
        for (Index i = 0; i < first + H; ++i) {
            const Index row = i < first ? i : below(layer) + i - first;
            for (Index gate = 0; gate < 4; ++gate) {
                const S* const run = raw + (i * 4 + gate) * H;
                if (backward) {
                    packed.set_across(gate * ph, row, run, H);
                } else {
                    packed.set_run(row, gate * ph, run, H);
                }
            }
        }
        return packed;
    }
};

// Calls work(j, n) with n = 4 or 1, as a constant, for runs of n vectors' numbers from j on, which cover `size` numbers.
template <typename S, typename Work>
[[gnu::always_inline]] inline void by_vectors(Index size, const Work& work) {
    constexpr Index count = Lanes<S>::count;
    Index j = 0;
    for (; j + 4 * count <= size; j += 4 * count) work(j, std::integral_constant<int, 4>{});
    for (; j < size; j += count) work(j, std::integral_constant<int, 1>{});
}

// n vectors from `from` on
template <typename S, int n>
[[gnu::always_inline]] inline void load_some(Vector<S> (&x)[n], const S* from) {
#pragma GCC unroll 8
    for (int v = 0; v < n; ++v) x[v] = load<S>(from + v * Lanes<S>::count);
}

template <typename S, int n>
[[gnu::always_inline]] inline void store_some(S* to, const Vector<S> (&x)[n]) {
#pragma GCC unroll 8
    for (int v = 0; v < n; ++v) store<S>(to + v * Lanes<S>::count, x[v]);
}

// activated: i, f, o = gate(z), g = candidate(z), which may be z's own memory;   c = f c + i g,   h = o tanh(c), where
// gate(z) = clamp((1 + 2e) sigmoid(z) - e, 0, 1) and candidate(z) = clamp((1 + 2e) tanh(z), -1, 1) = 2 gate(2z) - 1
template <typename S>
inline void lstm_cell(const S* z, S* activated, S* c, S* h, Index ph, S e) {
    for (Index j = 0; j < ph; j += Lanes<S>::count) {
        Vector<S> gates[3] = {load<S>(z + j), load<S>(z + ph + j), load<S>(z + 3 * ph + j)};
        Vector<S> g = hyperbolic_tangent<S>(load<S>(z + 2 * ph + j));
        sigmoids<S>(gates);
        if (e > 0) {
#pragma GCC unroll 3
            for (int gate = 0; gate < 3; ++gate) gates[gate] = clamped<S>((1 + 2 * e) * gates[gate] - e, 0, 1);
            g = clamped<S>((1 + 2 * e) * g, -1, 1);
        }
        store<S>(activated + j, gates[0]);
        store<S>(activated + ph + j, gates[1]);
        store<S>(activated + 2 * ph + j, g);
        store<S>(activated + 3 * ph + j, gates[2]);
        store<S>(c + j, gates[1] * load<S>(c + j) + gates[0] * g);
    }
    by_vectors<S>(ph, [&](Index j, auto n) {
        Vector<S> squashed[n.value];
        load_some<S>(squashed, c + j);
        hyperbolic_tangents<S>(squashed);
#pragma GCC unroll 8
        for (int v = 0; v < n.value; ++v) {
            const Index at = j + v * Lanes<S>::count;
            store<S>(h + at, load<S>(activated + 3 * ph + at) * squashed[v]);
        }
    });
}

// The derivatives of gate(z) and candidate(z), given their values. They are 0 where a gate is 0 or 1, or a candidate -1 or 1.
template <typename S>
inline Vector<S> gate_slope(Vector<S> gate, S e) {
    const Vector<S> zero{}, one = zero + 1, slope = (gate + e) * (one + e - gate) / (1 + 2 * e);
    return ((gate <= zero) | (gate >= one)) ? zero : slope;
}

template <typename S>
inline Vector<S> candidate_slope(Vector<S> candidate, S e) {
    const Vector<S> zero{}, one = zero + 1, slope = (1 + 2 * e) - candidate * candidate / (1 + 2 * e);
    return ((candidate <= -one) | (candidate >= one)) ? zero : slope;
}

// From the gradient of h and of c to those of z and of the cell before, which replaces g_c.
template <typename S, bool stretched>
inline void lstm_cell_backward(
    const S* activated, const S* c, const S* c_before, const S* g_h, S* g_c, S* g_z, Index ph, S e) {
    for (Index j = 0; j < ph; j += Lanes<S>::count) {
        const Vector<S> i = load<S>(activated + j), f = load<S>(activated + ph + j);
        const Vector<S> g = load<S>(activated + 2 * ph + j), o = load<S>(activated + 3 * ph + j);
        const Vector<S> gh = load<S>(g_h + j);
        const Vector<S> squashed = hyperbolic_tangent<S>(load<S>(c + j));
        const Vector<S> gc = load<S>(g_c + j) + gh * o * (1 - squashed * squashed);
        if constexpr (stretched) {
            store<S>(g_z + j, gc * g * gate_slope<S>(i, e));
            store<S>(g_z + ph + j, gc * load<S>(c_before + j) * gate_slope<S>(f, e));
            store<S>(g_z + 2 * ph + j, gc * i * candidate_slope<S>(g, e));
            store<S>(g_z + 3 * ph + j, gh * squashed * gate_slope<S>(o, e));
        } else {
            store<S>(g_z + j, gc * g * i * (1 - i));
            store<S>(g_z + ph + j, gc * load<S>(c_before + j) * f * (1 - f));
            store<S>(g_z + 2 * ph + j, gc * i * (1 - g * g));
            store<S>(g_z + 3 * ph + j, gh * squashed * o * (1 - o));
        }
        store<S>(g_c + j, gc * f);
    }
}

// The gates' pre-activations of one row, push then pop of each end
template <typename S>
inline void gate_inputs(const Weights<S>& weights, const S* h, const S* noise, S* to) {
    for (Index gate = 0; gate < weights.sizes.gates(); ++gate) {
        const S own = dot<S>(h, weights.gates.data() + gate * weights.ph, weights.ph);
        to[gate] = weights.gate_biases[gate] + own + (noise ? noise[gate] : 0);
    }
}

// In place, for `size` numbers whose padding may be written
template <typename S>
inline void sigmoid_all(S* x, Index size) {
    by_vectors<S>(size, [&](Index j, auto n) {
        Vector<S> some[n.value];
        load_some<S>(some, x + j);
        sigmoids<S>(some);
        store_some<S>(x + j, some);
    });
}

template <typename S>
inline void tanh_all(S* x, Index size) {
    by_vectors<S>(size, [&](Index j, auto n) {
        Vector<S> some[n.value];
        load_some<S>(some, x + j);
        hyperbolic_tangents<S>(some);
        store_some<S>(x + j, some);
    });
}

// gate = clamp((1 + 2e) sigmoid - e, 0, 1), given the sigmoid
template <typename S>
inline S stretched_gate(S squashed, S e) {
    const S gate = (1 + 2 * e) * squashed - e;
    return gate < 0 ? 0 : gate > 1 ? 1 : gate;
}

// Its derivative by the pre-activation
template <typename S>
inline S stretched_gate_slope(S squashed, S gate, S e) {
    return gate > 0 && gate < 1 ? (1 + 2 * e) * squashed * (1 - squashed) : 0;
}

}  // namespace stackrev
