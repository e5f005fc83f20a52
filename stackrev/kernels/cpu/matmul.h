// Products of a few rows with a matrix of weights, out[rows, columns] (+)= in[rows, depth] @ weights[depth, columns], and
// the gradient of the weights, sums[depth, columns] += in[rows, depth]' @ g[rows, columns].
//
// The weights are packed once a call into panels of two vectors' columns, each a contiguous [depth, 2 vectors], padded
// with zeros. A tile of up to kTileRows rows then holds its sums in registers and shares every load of weights.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "simd.h"

namespace stackrev {

// Memory for `size` numbers, zero at first, that starts on a cache line.
template <typename S>
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(Index size)
        : data_(static_cast<S*>(::operator new(sizeof(S) * static_cast<std::size_t>(size > 0 ? size : 1), kLine))) {
        std::memset(data_.get(), 0, sizeof(S) * static_cast<std::size_t>(size > 0 ? size : 0));
    }
    S* data() { return data_.get(); }
    const S* data() const { return data_.get(); }
    S& operator[](Index i) { return data_.get()[i]; }
    const S& operator[](Index i) const { return data_.get()[i]; }

   private:
    static constexpr std::align_val_t kLine{64};
    struct Free {
        void operator()(S* p) const { ::operator delete(p, kLine); }
    };
    std::unique_ptr<S, Free> data_;
};

// A matrix [depth, columns], packed. `columns` is a multiple of the vector's length.
template <typename S>
class Packed {
   public:
    Packed() = default;
    Packed(Index depth, Index columns) : depth_(depth), columns_(columns), data_(depth * columns) {}

    void set(Index row, Index column, S weight) { *at(row, column) = weight; }

    // `count` numbers of a row, from a column on
    void set_run(Index row, Index column, const S* weights, Index count) {
        for (Index end = column + count; column < end;) {
            const Index run = std::min(end - column, kPanel - column % kPanel);
            copy<S>(at(row, column), weights, run);
            column += run;
            weights += run;
        }
    }

    const S* panel(Index index) const { return data_.data() + index * kPanel * depth_; }
    Index panels() const { return (columns_ + kPanel - 1) / kPanel; }
    Index width_of(Index panel) const { return columns_ - panel * kPanel < kPanel ? columns_ - panel * kPanel : kPanel; }
    Index depth() const { return depth_; }

    static constexpr Index kPanel = 2 * Lanes<S>::count;

    // `count` numbers of a column, from a row on
    void set_across(Index row, Index column, const S* weights, Index count) {
        S* const to = at(row, column);
        const Index stride = width_of(column / kPanel);
        for (Index i = 0; i < count; ++i) to[i * stride] = weights[i];
    }

   private:
    S* at(Index row, Index column) {
        const Index panel = column / kPanel;
        return data_.data() + panel * kPanel * depth_ + row * width_of(panel) + column % kPanel;
    }

    Index depth_ = 0, columns_ = 0;
    Buffer<S> data_;
};

// R rows of a panel of W vectors. The sums of a row start from the numbers at `from`, or from 0 if that is null. Where R is
// small, U partial sums each hide the latency of the additions.
template <typename S, int R, int W, int U>
inline void tile(S* out, Index out_stride, const S* const* from, const S* in, Index in_stride, const S* panel, Index depth) {
    constexpr int count = Lanes<S>::count;
    Vector<S> sum[U][R][W];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int w = 0; w < W; ++w) {
            sum[0][r][w] = from ? load<S>(from[r] + w * count) : Vector<S>{};
#pragma GCC unroll 4
            for (int u = 1; u < U; ++u) sum[u][r][w] = Vector<S>{};
        }
    }
    Index k = 0;
    for (; k + U <= depth; k += U) {
#pragma GCC unroll 4
        for (int u = 0; u < U; ++u) {
            Vector<S> weights[W];
#pragma GCC unroll 2
            for (int w = 0; w < W; ++w) weights[w] = load<S>(panel + (k + u) * W * count + w * count);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const S x = in[r * in_stride + k + u];
#pragma GCC unroll 2
                for (int w = 0; w < W; ++w) sum[u][r][w] += x * weights[w];
            }
        }
    }
    for (; k < depth; ++k) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
            for (int w = 0; w < W; ++w) {
                sum[0][r][w] += in[r * in_stride + k] * load<S>(panel + k * W * count + w * count);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int w = 0; w < W; ++w) {
#pragma GCC unroll 4
            for (int u = 1; u < U; ++u) sum[0][r][w] += sum[u][r][w];
            store<S>(out + r * out_stride + w * count, sum[0][r][w]);
        }
    }
}

template <typename S, int R, int W, bool alike>
void tile_of(int rows, S* out, Index out_stride, const S* const* from, const S* in, Index in_stride, const S* panel,
             Index depth) {
    if (rows == R) {
        constexpr int partial = alike ? 1 : R == 1 ? 4 : R <= 3 ? 2 : 1;
        tile<S, R, W, partial>(out, out_stride, from, in, in_stride, panel, depth);
    } else if constexpr (R > 1) {
        tile_of<S, R - 1, W, alike>(rows, out, out_stride, from, in, in_stride, panel, depth);
    }
}

// out = start + in @ weights, for `rows` rows in tiles of nearly equal height, where start(i) is the address of the numbers
// that row i starts from, or null for 0 in all rows; if `alike`, to the last bit the same for a row whatever the number of rows
template <typename S, bool alike = false, typename Start>
void multiply_from(const Start& start, Index rows, S* out, Index out_stride, const S* in, Index in_stride,
                   const Packed<S>& weights) {
    if (rows == 0) return;
    const Index tiles = (rows + kTileRows - 1) / kTileRows;
    for (Index p = 0; p < weights.panels(); ++p) {
        const Index column = p * Packed<S>::kPanel;
        for (Index i = 0; i < tiles; ++i) {
            const Index first = rows * i / tiles, end = rows * (i + 1) / tiles;
            const int height = static_cast<int>(end - first);
            const S* from[kTileRows];
            const bool zero = start(first) == nullptr;
            for (int r = 0; r < height && !zero; ++r) from[r] = start(first + r) + column;
            S* const to = out + first * out_stride + column;
            const S* const x = in + first * in_stride;
            if (weights.width_of(p) == Packed<S>::kPanel) {
                tile_of<S, kTileRows, 2, alike>(height, to, out_stride, zero ? nullptr : from, x, in_stride, weights.panel(p), weights.depth());
            } else {
                tile_of<S, kTileRows, 1, alike>(height, to, out_stride, zero ? nullptr : from, x, in_stride, weights.panel(p), weights.depth());
            }
        }
    }
}

// out (+)= in @ weights
template <typename S>
void multiply(Index rows, S* out, Index out_stride, const S* in, Index in_stride, const Packed<S>& weights, bool add) {
    const auto start = [=](Index i) -> const S* { return add ? out + i * out_stride : nullptr; };
    multiply_from<S>(start, rows, out, out_stride, in, in_stride, weights);
}

// Some rows of the two factors of a sum of products, in' @ g
template <typename S>
struct RowPairs {
    const S *in, *g;
    Index rows;
};

// R rows of the sums, W vectors wide.
template <typename S, int R, int W>
inline void sums_tile(S* sums, Index stride, const std::vector<RowPairs<S>>& factors, Index row, Index in_stride, Index column,
                      Index g_stride) {
    constexpr int count = Lanes<S>::count;
    Vector<S> sum[R][W];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int w = 0; w < W; ++w) sum[r][w] = load<S>(sums + r * stride + w * count);
    }
    for (const RowPairs<S>& pairs : factors) {
        const S *in = pairs.in + row, *g = pairs.g + column;
        for (Index i = 0; i < pairs.rows; ++i, in += in_stride, g += g_stride) {
            Vector<S> values[W];
#pragma GCC unroll 2
            for (int w = 0; w < W; ++w) values[w] = load<S>(g + w * count);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const S x = in[r];
#pragma GCC unroll 2
                for (int w = 0; w < W; ++w) sum[r][w] += x * values[w];
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
        for (int w = 0; w < W; ++w) store<S>(sums + r * stride + w * count, sum[r][w]);
    }
}

template <typename S, int R, int W>
void sums_tile_of(int height, S* sums, Index stride, const std::vector<RowPairs<S>>& factors, Index row, Index in_stride,
                  Index column, Index g_stride) {
    if (height == R) {
        sums_tile<S, R, W>(sums, stride, factors, row, in_stride, column, g_stride);
    } else if constexpr (R > 1) {
        sums_tile_of<S, R - 1, W>(height, sums, stride, factors, row, in_stride, column, g_stride);
    }
}

// sums[depth, columns] += in' @ g over all rows of the factors. `columns` is a multiple of the vector's length and the
// sums' stride. The more rows at once, the less often the sums go through memory.
template <typename S>
void add_products(S* sums, Index depth, Index columns, const std::vector<RowPairs<S>>& factors, Index in_stride,
                  Index g_stride) {
    constexpr Index panel = Packed<S>::kPanel;
    const Index tiles = (depth + kTileRows - 1) / kTileRows;
    for (Index column = 0; column < columns; column += panel) {
        for (Index i = 0; i < tiles; ++i) {
            const Index first = depth * i / tiles, end = depth * (i + 1) / tiles;
            S* const to = sums + first * columns + column;
            const int height = static_cast<int>(end - first);
            if (columns - column >= panel) {
                sums_tile_of<S, kTileRows, 2>(height, to, columns, factors, first, in_stride, column, g_stride);
            } else {
                sums_tile_of<S, kTileRows, 1>(height, to, columns, factors, first, in_stride, column, g_stride);
            }
        }
    }
}

// sums[columns] += the sum of the rows of g
template <typename S>
void add_rows(Index rows, S* sums, Index columns, const S* g, Index g_stride) {
    for (Index i = 0; i < rows; ++i) add_scaled<S>(sums, 1, g + i * g_stride, columns);
}

}  // namespace stackrev
