// Vectors of as many numbers as the target's registers hold, and the functions the gates need on them.
//
//     Lanes<S>::type     a vector of Lanes<S>::count numbers of type S (float or double)
//     load, store        between a vector and memory of any alignment
//     split_exponentials, sigmoids, hyperbolic_tangents, total
//
// The width follows the compiler's flags, so one source serves AVX-512, AVX2, SSE2 and NEON.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "index.h"

namespace stackrev {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows = 12;  // rows of a matrix product that share a load of weights; what the registers hold
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 6;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 12;
#else
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 6;
#endif

template <typename S>
struct Lanes;

template <>
struct Lanes<float> {
    static constexpr int count = kVectorBytes / sizeof(float);
    typedef float type __attribute__((vector_size(kVectorBytes)));
    typedef std::uint32_t bits __attribute__((vector_size(kVectorBytes)));
    static constexpr int mantissa = 23;
    static constexpr std::uint32_t one = 0x3F800000u;  // the bits of 1
    static constexpr float shifter = 12582912.0f;      // 1.5 * 2^23: adding it rounds to an integer in the low bits
    static constexpr float smallest = -87.0f, largest = 88.0f;  // where exp neither underflows nor overflows
    static constexpr float log2_e = 1.44269504088896341f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr int terms = 7;
};

template <>
struct Lanes<double> {
    static constexpr int count = kVectorBytes / sizeof(double);
    typedef double type __attribute__((vector_size(kVectorBytes)));
    typedef std::uint64_t bits __attribute__((vector_size(kVectorBytes)));
    static constexpr int mantissa = 52;
    static constexpr std::uint64_t one = 0x3FF0000000000000u;
    static constexpr double shifter = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double smallest = -708.0, largest = 709.0;
    static constexpr double log2_e = 1.4426950408889634074;
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    static constexpr int terms = 13;
};

template <typename S>
using Vector = typename Lanes<S>::type;

// The smallest multiple of the vector's length that holds `size` numbers.
template <typename S>
constexpr Index padded(Index size) {
    return (size + Lanes<S>::count - 1) / Lanes<S>::count * Lanes<S>::count;
}

template <typename S>
inline Vector<S> load(const S* from) {
    Vector<S> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <typename S>
inline void store(S* to, Vector<S> v) {
    std::memcpy(to, &v, sizeof v);
}

// 1 / k!, the coefficients of exp's Taylor series.
template <typename S>
constexpr S reciprocal_factorial(int k) {
    double product = 1;
    for (int i = 2; i <= k; ++i) product *= i;
    return static_cast<S>(1 / product);
}

// y cut to [low, high]; NaN stays NaN.
template <typename S>
inline Vector<S> clamped(Vector<S> y, S low, S high) {
    const Vector<S> lows = Vector<S>{} + low, highs = Vector<S>{} + high;
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4) {  // one instruction each, where GCC makes two of what is below
        return (Vector<S>)_mm512_min_ps((__m512)highs, _mm512_max_ps((__m512)lows, (__m512)y));
    }
#endif
    y = y < lows ? lows : y;
    return y > highs ? highs : y;
}

// The functions below take N vectors at once and go through them operation by operation: each is a long chain in which
// every operation waits for the one before, and the processor does not look far enough ahead to find the next vector's.
#define STACKREV_EACH _Pragma("GCC unroll 8") for (int v = 0; v < N; ++v)

// y = n ln 2 + r with |r| <= ln 2 / 2: exp(y) = 2^n exp(r). Gives 2^n and exp(r) - 1, which keeps its accuracy near 0.
// `narrow`: y is known to be where exp neither underflows nor overflows.
template <typename S, bool narrow = false, int N>
[[gnu::always_inline]] inline void split_exponentials(Vector<S> (&y)[N], Vector<S> (&power)[N], Vector<S> (&minus_one)[N]) {
    using L = Lanes<S>;
    Vector<S> n[N], r[N];
    if constexpr (!narrow) STACKREV_EACH y[v] = clamped<S>(y[v], L::smallest, L::largest);
    STACKREV_EACH power[v] = y[v] * L::log2_e + L::shifter;
    STACKREV_EACH n[v] = power[v] - L::shifter;
    STACKREV_EACH r[v] = (y[v] - n[v] * L::ln2_high) - n[v] * L::ln2_low;
    STACKREV_EACH power[v] = (Vector<S>)(((typename L::bits)power[v] << L::mantissa) + L::one);
    STACKREV_EACH minus_one[v] = Vector<S>{} + reciprocal_factorial<S>(L::terms);
#pragma GCC unroll 16
    for (int k = L::terms - 1; k >= 2; --k) STACKREV_EACH minus_one[v] = minus_one[v] * r[v] + reciprocal_factorial<S>(k);
    STACKREV_EACH minus_one[v] = minus_one[v] * (r[v] * r[v]) + r[v];
}

template <typename S>
inline void split_exponential(Vector<S> y, Vector<S>& power, Vector<S>& minus_one) {
    Vector<S> ys[1] = {y}, powers[1], rests[1];
    split_exponentials<S>(ys, powers, rests);
    power = powers[0];
    minus_one = rests[0];
}

// 1 / (1 + exp(-x)), in place
template <typename S, int N>
[[gnu::always_inline]] inline void sigmoids(Vector<S> (&x)[N]) {
    Vector<S> power[N], minus_one[N];
    STACKREV_EACH x[v] = -x[v];
    split_exponentials<S>(x, power, minus_one);
    STACKREV_EACH x[v] = 1 / (1 + (power[v] * minus_one[v] + power[v]));
}

// (exp(2x) - 1) / (exp(2x) + 1), in place
template <typename S, int N>
[[gnu::always_inline]] inline void hyperbolic_tangents(Vector<S> (&x)[N]) {
    Vector<S> power[N], minus_one[N];
    STACKREV_EACH x[v] = clamped<S>(x[v], -20, 20);  // tanh is 1 to the last bit from there
    STACKREV_EACH x[v] = x[v] + x[v];
    split_exponentials<S, true>(x, power, minus_one);
    STACKREV_EACH x[v] = power[v] * minus_one[v] + (power[v] - 1);
    STACKREV_EACH x[v] = x[v] / (x[v] + 2);
}

#undef STACKREV_EACH

template <typename S>
inline Vector<S> hyperbolic_tangent(Vector<S> x) {
    Vector<S> one[1] = {x};
    hyperbolic_tangents<S>(one);
    return one[0];
}

// The sum of a vector's numbers: its upper half is added to its lower half until one is left.
template <typename S, int count = Lanes<S>::count>
inline S total(const S* x) {
    if constexpr (count == 1) {
        return x[0];
    } else {
        typedef S Half __attribute__((vector_size(count / 2 * sizeof(S))));
        Half low, high;
        std::memcpy(&low, x, sizeof low);
        std::memcpy(&high, x + count / 2, sizeof high);
        low += high;
        S sums[count / 2];
        std::memcpy(sums, &low, sizeof low);
        return total<S, count / 2>(sums);
    }
}

template <typename S>
inline S total(Vector<S> v) {
    S x[Lanes<S>::count];
    store<S>(x, v);
    return total<S>(x);
}

// a . b over `size` numbers; with `size` a multiple of the vector's length, the rest is nothing.
template <typename S>
inline S dot(const S* a, const S* b, Index size) {
    constexpr Index count = Lanes<S>::count;
    Vector<S> sum{};
    Index i = 0;
    for (; i + count <= size; i += count) sum += load<S>(a + i) * load<S>(b + i);
    S rest = total<S>(sum);
    for (; i < size; ++i) rest += a[i] * b[i];
    return rest;
}

// to += factor * from
template <typename S>
inline void add_scaled(S* to, S factor, const S* from, Index size) {
    constexpr Index count = Lanes<S>::count;
    Index i = 0;
    for (; i + count <= size; i += count) store<S>(to + i, load<S>(to + i) + factor * load<S>(from + i));
    for (; i < size; ++i) to[i] += factor * from[i];
}

// to = factor * from
template <typename S>
inline void scale(S* to, S factor, const S* from, Index size) {
    constexpr Index count = Lanes<S>::count;
    Index i = 0;
    for (; i + count <= size; i += count) store<S>(to + i, factor * load<S>(from + i));
    for (; i < size; ++i) to[i] = factor * from[i];
}

// The runs that are copied and cleared are short: a call of the C library's functions would take longer than they do.
template <typename S>
inline void copy(S* to, const S* from, Index size) {
    constexpr Index count = Lanes<S>::count;
    Index i = 0;
    for (; i + count <= size; i += count) store<S>(to + i, load<S>(from + i));
    for (; i < size; ++i) to[i] = from[i];
}

template <typename S>
inline void clear(S* to, Index size) {
    constexpr Index count = Lanes<S>::count;
    Index i = 0;
    for (; i + count <= size; i += count) store<S>(to + i, Vector<S>{});
    for (; i < size; ++i) to[i] = 0;
}

}  // namespace stackrev
