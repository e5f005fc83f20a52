// One string through a whole model, symbol by symbol, for strings of any length: encoder, then decoder and read-out.
//
//     z   = W_x x + b + [r; h] W_1, ...        a cell's step, as in recurrence.py
//     o   = tanh(W_o h + b_o),   logits = W_y o + b_y
//
// The stack is a buffer that grows and shrinks: what is popped is gone, and its memory is used again or given back.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <vector>

#include "cell.h"

namespace stackrev {

// The arrays of an encoder or decoder, as the model has them
struct CellArrays {
    const float* symbols;           // [V, 4H]
    const float* const* recurrent;  // K times [M + H or 2H, 4H]
    const float* const* biases;     // K times [4H]
    const float *control, *control_bias;
};

struct SessionCall {
    std::int64_t hidden, width, layers, symbols, outputs;
    double stretch;
    CellArrays encoder, decoder;
    const float *hidden0, *cell0;           // [K, H]
    const float *output, *output_bias;      // [O, H], [O]
    const float *logits, *logits_bias;      // [V, O], [V]
};

// The elements on a stack: values and bottoms, in blocks, so that growing copies nothing and shrinking frees.
class Elements {
   public:
    explicit Elements(long width) : width_(width) {}

    long size() const { return size_; }
    double& bottom(long i) { return blocks_[i / kBlock]->bottoms[i % kBlock]; }
    float* value(long i) { return blocks_[i / kBlock]->values.get() + (i % kBlock) * width_; }

    void push() {
        if (size_ / kBlock == long(blocks_.size())) blocks_.push_back(std::make_unique<Block>(width_));
        ++size_;
    }

    void pop() {
        --size_;
        while (long(blocks_.size()) > size_ / kBlock + 2) blocks_.pop_back();  // one spare, for a stack that goes to and fro
    }

    void clear() {
        size_ = 0;
        blocks_.clear();
    }

   private:
    static constexpr long kBlock = 1024;
    struct Block {
        explicit Block(long width) : values(new float[kBlock * width]) {}
        double bottoms[kBlock];
        std::unique_ptr<float[]> values;
    };
    long width_, size_ = 0;
    std::vector<std::unique_ptr<Block>> blocks_;
};

// What the read-out says about the next symbol.
struct Guess {
    std::int32_t symbol;
    float margin;  // by how much its logit exceeds the second best
};

class Session {
   public:
    explicit Session(const SessionCall& call)
        : sizes_{call.hidden, call.width, call.layers},
          V(call.symbols), e(static_cast<float>(call.stretch)),
          encoder_(sizes_, V, call.encoder), decoder_(sizes_, V, call.decoder),
          ph(encoder_.weights.ph), pm(encoder_.weights.pm), po(padded<float>(call.outputs)), pv(padded<float>(V)),
          hidden0_(copied(call.hidden0, call.layers * call.hidden)), cell0_(copied(call.cell0, call.layers * call.hidden)),
          output_(transposed(call.output, call.outputs, call.hidden, po, ph)), logits_(transposed(call.logits, V, call.outputs, pv, po)),
          output_bias_(po), logits_bias_(pv), z_(4 * ph), value_(pm), gates_(padded<float>(2)), o_(po), scores_(pv),
          elements_(call.width) {
        copy<float>(output_bias_.data(), call.output_bias, call.outputs);
        copy<float>(logits_bias_.data(), call.logits_bias, V);
        for (long k = 0; k < call.layers; ++k) {
            sources_.emplace_back(encoder_.weights.source(k));
            cells_.emplace_back(ph);
        }
        reset();
    }

    // Back to the trained h_0 and c_0, an empty read and an empty stack
    void reset() {
        const long H = sizes_.hidden;
        for (long k = 0; k < sizes_.layers; ++k) {
            clear<float>(sources_[k].data(), encoder_.weights.source(k));
            copy<float>(hidden(k), hidden0_.data() + k * H, H);
            copy<float>(cells_[k].data(), cell0_.data() + k * H, H);
        }
        height_ = 0;
        elements_.clear();
        std::fill(std::begin(nearest_), std::end(nearest_), std::numeric_limits<double>::infinity());
        std::fill(std::begin(last_), std::end(last_), std::numeric_limits<double>::infinity());
    }

    bool knows(std::int32_t symbol) const { return symbol >= 0 && symbol < V; }

    void step(bool decoding, std::int32_t symbol) {
        const Cell& cell = decoding ? decoder_ : encoder_;
        const Weights<float>& weights = cell.weights;
        const long top = sizes_.layers - 1;
        for (int gate = 0; gate < 2; ++gate) {  // what the step before did to the stack is read from here on
            double& nearest = nearest_[2 * decoding_ + gate];
            nearest = std::min(nearest, last_[gate]);
        }
        for (long k = 0; k <= top; ++k) {
            copy<float>(z_.data(), k == 0 ? cell.symbols.data() + symbol * 4 * ph : weights.biases[k - 1].data(), 4 * ph);
            if (k > 0) copy<float>(sources_[k].data(), hidden(k - 1), ph);
            multiply<float>(1, z_.data(), 0, sources_[k].data(), 0, weights.recurrent[k], true);
            lstm_cell<float>(z_.data(), z_.data(), cells_[k].data(), hidden(k), ph);
        }
        gate_inputs<float>(weights, hidden(top), nullptr, gates_.data());
        for (int gate = 0; gate < 2; ++gate) last_[gate] = std::abs(double(gates_[gate]));
        decoding_ = decoding;
        sigmoid_all<float>(gates_.data(), 2);
        push_ = stretched_gate<float>(gates_[0], e);
        pop_ = stretched_gate<float>(gates_[1], e);
        copy<float>(value_.data(), weights.value_bias.data(), pm);
        multiply<float>(1, value_.data(), 0, hidden(top), 0, weights.value, true);
        tanh_all<float>(value_.data(), pm);
        stack();
    }

    // The most probable next symbol
    Guess guess() {
        copy<float>(o_.data(), output_bias_.data(), po);
        multiply<float>(1, o_.data(), 0, hidden(sizes_.layers - 1), 0, output_, true);
        tanh_all<float>(o_.data(), po);
        copy<float>(scores_.data(), logits_bias_.data(), pv);
        multiply<float>(1, scores_.data(), 0, o_.data(), 0, logits_, true);
        Guess best{0, 0};
        float second = -std::numeric_limits<float>::infinity();
        for (long v = 1; v < V; ++v) {
            if (scores_[v] > scores_[best.symbol]) {
                second = scores_[best.symbol];
                best.symbol = static_cast<std::int32_t>(v);
            } else if (scores_[v] > second) {
                second = scores_[v];
            }
        }
        best.margin = scores_[best.symbol] - second;
        return best;
    }

    // For those who look on: push, pop, height and number of elements; the top layer's hidden state; the read
    void look(double* numbers, float* hidden_out, float* read) {
        numbers[0] = push_;
        numbers[1] = pop_;
        numbers[2] = height_;
        numbers[3] = static_cast<double>(elements_.size());
        copy<float>(hidden_out, hidden(sizes_.layers - 1), sizes_.hidden);
        copy<float>(read, sources_[0].data(), sizes_.width);
    }

    // How near to 0 the gates' pre-activations have come since `reset`: the encoder's push and pop, the decoder's; but
    // for the last step's, on which nothing depends yet
    void nearest(double* four) const { std::copy(std::begin(nearest_), std::end(nearest_), four); }

   private:
    struct Cell {
        Cell(Sizes sizes, long V, const CellArrays& arrays)
            : weights(sizes, raw(sizes, arrays), false), symbols(V * 4 * weights.ph) {
            const long H = sizes.hidden;
            for (long row = 0; row < 4 * V; ++row) {
                float* const to = symbols.data() + row * weights.ph;
                for (long j = 0; j < H; ++j) to[j] = arrays.symbols[row * H + j] + arrays.biases[0][row % 4 * H + j];
            }
        }
        static RawWeights<float> raw(Sizes sizes, const CellArrays& arrays) {
            return {{arrays.recurrent, arrays.recurrent + sizes.layers},
                    {arrays.biases + 1, arrays.biases + sizes.layers},
                    arrays.control,
                    arrays.control_bias};
        }
        Weights<float> weights;
        Buffer<float> symbols;  // [V, 4 ph], the first bias included
    };

    static Buffer<float> copied(const float* from, long size) {
        Buffer<float> buffer(size);
        copy<float>(buffer.data(), from, size);
        return buffer;
    }

    // A matrix [rows, columns], packed as its transpose
    static Packed<float> transposed(const float* raw, long rows, long columns, long padded_rows, long padded_columns) {
        Packed<float> packed(padded_columns, padded_rows);
        for (long i = 0; i < rows; ++i) {
            for (long j = 0; j < columns; ++j) packed.set(j, i, raw[i * columns + j]);
        }
        return packed;
    }

    float* hidden(long k) { return sources_[k].data() + encoder_.weights.below(k); }

    // Pop, push, read; the equations are in stack.h. Here an element's successor on the chain is its neighbour.
    void stack() {
        const double drained = height_ - pop_, level = drained <= 0 ? 0 : drained;
        while (elements_.size() > 0 && elements_.bottom(elements_.size() - 1) >= level) elements_.pop();
        const long last = elements_.size();
        elements_.push();
        elements_.bottom(last) = level;
        copy<float>(elements_.value(last), value_.data(), sizes_.width);
        height_ = level + push_;

        float* const read = sources_[0].data();
        clear<float>(read, sizes_.width);
        const double floor = height_ - 1;
        double top = height_;
        for (long i = last; i >= 0; --i) {
            const double bottom = elements_.bottom(i);
            const bool inside = bottom > floor;
            const double alpha = top - (inside ? bottom : floor);
            if (!(alpha <= 0)) add_scaled<float>(read, static_cast<float>(alpha), elements_.value(i), sizes_.width);
            if (!inside) break;
            top = bottom;
        }
    }

    const Sizes sizes_;
    const long V;
    const float e;
    const Cell encoder_, decoder_;
    const long ph, pm, po, pv;
    const Buffer<float> hidden0_, cell0_;
    const Packed<float> output_, logits_;
    Buffer<float> output_bias_, logits_bias_;
    // the state, and scratch
    std::vector<Buffer<float>> sources_, cells_;
    Buffer<float> z_, value_, gates_, o_, scores_;
    double height_ = 0;
    float push_ = 0, pop_ = 0;
    double nearest_[4], last_[2];
    bool decoding_ = false;
    Elements elements_;
};

}  // namespace stackrev
