// One string through a whole model, symbol by symbol, for strings of any length: encoder, then decoder and read-out.
//
//     z   = W_x x + b + [r; h] W_1, ...        a cell's step, as in structures/recurrence.py
//     o   = tanh(W_o h + b_o),   logits = W_l o + b_l
//
// Most of the memory that a long string takes is the values on its stack, M numbers a symbol. A network that has learned
// to reverse reads in each step what it pushes in this very step, so what it pushes follows from the symbols and from the
// state that it was in before the first of them. So values far below the top of the stack are forgotten, a block at a
// time, and found again by the same steps, to the last bit, when the decoder has come down to them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "calls.h"
#include "cell.h"
#include "stream_memory.h"

namespace stackrev {

// The weights, packed. Streams share one of these, which nothing changes.
struct StreamModel {
    explicit StreamModel(const StreamCall& call)
        : structure(call.structure), kept(std::max<Index>(1, call.kept / Elements::kBlock)), M(call.width),
          E(stream_ends(structure)),
          sizes{call.hidden, E * M, call.layers, E},
          V(call.symbols), e(static_cast<float>(call.stretch)), cell_e(static_cast<float>(call.cell_stretch)),
          encoder(sizes, V, call.encoder), decoder(sizes, V, call.decoder),
          ph(encoder.weights.ph), pr(encoder.weights.pr), po(padded<float>(call.outputs)), pv(padded<float>(V)),
          hidden0(copied(call.hidden0, call.layers * call.hidden)), cell0(copied(call.cell0, call.layers * call.hidden)),
          output(transposed(call.output, call.outputs, call.hidden, po, ph)),
          logits(transposed(call.logits, V, call.outputs, pv, po)), output_bias(po), logits_bias(pv) {
        copy<float>(output_bias.data(), call.output_bias, call.outputs);
        copy<float>(logits_bias.data(), call.logits_bias, V);
    }

    struct Cell {
        Cell(Sizes sizes, Index V, const CellArrays& arrays)
            : weights(sizes, raw(sizes, arrays), false), symbols(V * 4 * weights.ph) {
            const Index H = sizes.hidden;
            for (Index row = 0; row < 4 * V; ++row) {
                float* const to = symbols.data() + row * weights.ph;
                for (Index j = 0; j < H; ++j) to[j] = arrays.symbols[row * H + j] + arrays.biases[0][row % 4 * H + j];
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

    static Buffer<float> copied(const float* from, Index size) {
        Buffer<float> buffer(size);
        copy<float>(buffer.data(), from, size);
        return buffer;
    }

    // A matrix [rows, columns], packed as its transpose
    static Packed<float> transposed(const float* raw, Index rows, Index columns, Index padded_rows, Index padded_columns) {
        Packed<float> packed(padded_columns, padded_rows);
        for (Index i = 0; i < rows; ++i) {
            for (Index j = 0; j < columns; ++j) packed.set(j, i, raw[i * columns + j]);
        }
        return packed;
    }

    const std::int64_t structure;
    const Index kept;  // so many blocks of a stack's values, the newest, are not forgotten
    const Index M, E;
    const Sizes sizes;
    const Index V;
    const float e, cell_e;
    const Cell encoder, decoder;
    const Index ph, pr, po, pv;
    const Buffer<float> hidden0, cell0;
    const Packed<float> output, logits;
    Buffer<float> output_bias, logits_bias;
};

// What the read-out says about the next symbol.
struct Guess {
    std::int32_t symbol;
    float margin;  // by how much its logit exceeds the second best
};

// Where the controller of one string stands: each layer's input, its own hidden state included, and its cell
struct Controller {
    Controller() = default;
    explicit Controller(const StreamModel& model) {
        for (Index k = 0; k < model.sizes.layers; ++k) {
            sources.emplace_back(model.encoder.weights.source(k));
            cells.emplace_back(model.ph);
        }
    }
    Controller(const StreamModel& model, const Controller& other) {
        for (Index k = 0; k < model.sizes.layers; ++k) {
            sources.push_back(StreamModel::copied(other.sources[k].data(), model.encoder.weights.source(k)));
            cells.push_back(StreamModel::copied(other.cells[k].data(), model.ph));
        }
    }

    float* hidden(const StreamModel& model, Index k) { return sources[k].data() + model.encoder.weights.below(k); }

    // A step of the LSTM; `z` is scratch, [4 ph].
    void step(const StreamModel& model, const StreamModel::Cell& cell, std::int32_t symbol, float* z) {
        const Weights<float>& weights = cell.weights;
        const Index ph = model.ph;
        for (Index k = 0; k < model.sizes.layers; ++k) {
            copy<float>(z, k == 0 ? cell.symbols.data() + symbol * 4 * ph : weights.biases[k - 1].data(), 4 * ph);
            if (k > 0) copy<float>(sources[k].data(), hidden(model, k - 1), ph);
            multiply<float>(1, z, 0, sources[k].data(), 0, weights.recurrent[k], true);
            lstm_cell<float>(z, z, cells[k].data(), hidden(model, k), ph, model.cell_e);
        }
    }

    // What is pushed, [pr]
    void value(const StreamModel& model, const Weights<float>& weights, float* to) {
        copy<float>(to, weights.value_bias.data(), model.pr);
        multiply<float>(1, to, 0, hidden(model, model.sizes.layers - 1), 0, weights.value, true);
        tanh_all<float>(to, model.pr);
    }

    std::vector<Buffer<float>> sources, cells;  // a layer [source], [ph]
};

// From what the values of a block of the stack follow: steps of the encoder, one an element, each of which read what it
// pushed
struct Origin {
    Controller before;  // of the first step
    std::vector<std::int32_t> symbols;
    bool known = false;  // whether there were such steps, one after the other from the block's first element on
};

// How far a model has got with a string
class Stream final : private Recall {
   public:
    explicit Stream(std::shared_ptr<const StreamModel> model)
        : model_(std::move(model)), z_(4 * model_->ph), value_(model_->pr), gates_(padded<float>(2 * model_->E)),
          push_(model_->E), pop_(model_->E), o_(model_->po), scores_(model_->pv), last_(2 * model_->E),
          memory_(stream_memory(model_->structure, model_->M)), controller_(*model_) {
        memory_->recall_with(this);
        reset();
    }

    // The same place in the same string, from which the two go on for themselves
    Stream(const Stream& other)
        : model_(other.model_), z_(4 * model_->ph), value_(model_->pr), gates_(padded<float>(2 * model_->E)),
          push_(other.push_), pop_(other.pop_), o_(model_->po), scores_(model_->pv), last_(other.last_),
          decoding_(other.decoding_), memory_(other.memory_->copied()), controller_(*model_, other.controller_) {
        memory_->recall_with(this);
        for (const Origin& origin : other.origins_) {
            origins_.push_back({Controller(*model_, origin.before), origin.symbols, origin.known});
        }
        std::copy(std::begin(other.nearest_), std::end(other.nearest_), nearest_);
    }
    Stream& operator=(const Stream&) = delete;

    const std::shared_ptr<const StreamModel>& model() const { return model_; }

    // Back to the trained h_0 and c_0, an empty read and an empty memory
    void reset() {
        const Index H = model_->sizes.hidden;
        for (Index k = 0; k < model_->sizes.layers; ++k) {
            clear<float>(controller_.sources[k].data(), model_->encoder.weights.source(k));
            copy<float>(hidden(k), model_->hidden0.data() + k * H, H);
            copy<float>(controller_.cells[k].data(), model_->cell0.data() + k * H, H);
        }
        memory_->clear();
        origins_.clear();
        std::fill(std::begin(nearest_), std::end(nearest_), std::numeric_limits<double>::infinity());
        std::fill(last_.begin(), last_.end(), std::numeric_limits<double>::infinity());
    }

    bool knows(std::int64_t symbol) const { return symbol >= 0 && symbol < model_->V; }

    void step(bool decoding, std::int32_t symbol) {
        const StreamModel::Cell& cell = decoding ? model_->decoder : model_->encoder;
        const Weights<float>& weights = cell.weights;
        const Index gates = model_->sizes.gates();
        for (Index gate = 0; gate < gates; ++gate) {  // what the step before did to the memory is read from here on
            double& nearest = nearest_[2 * decoding_ + gate % 2];
            nearest = std::min(nearest, last_[gate]);
        }
        const Index before = memory_->size();
        const bool stacking = model_->structure == kStreamStack;
        if (stacking && !decoding && before % Elements::kBlock == 0) begin_block(before / Elements::kBlock);
        controller_.step(*model_, cell, symbol, z_.data());
        gate_inputs<float>(weights, hidden(model_->sizes.layers - 1), nullptr, gates_.data());
        for (Index gate = 0; gate < gates; ++gate) last_[gate] = std::abs(double(gates_[gate]));
        decoding_ = decoding;
        sigmoid_all<float>(gates_.data(), gates);
        for (Index end = 0; end < model_->E; ++end) {
            push_[end] = stretched_gate<float>(gates_[2 * end], model_->e);
            pop_[end] = stretched_gate<float>(gates_[2 * end + 1], model_->e);
        }
        controller_.value(*model_, weights, value_.data());
        float* const read = controller_.sources[0].data();
        clear<float>(read, model_->sizes.width);
        memory_->step(push_.data(), pop_.data(), value_.data(), read);
        if (stacking) note_origin(!decoding && std::equal(read, read + model_->M, value_.data()), before, symbol);
    }

    // The most probable next symbol
    Guess guess() {
        copy<float>(o_.data(), model_->output_bias.data(), model_->po);
        multiply<float>(1, o_.data(), 0, hidden(model_->sizes.layers - 1), 0, model_->output, true);
        tanh_all<float>(o_.data(), model_->po);
        copy<float>(scores_.data(), model_->logits_bias.data(), model_->pv);
        multiply<float>(1, scores_.data(), 0, o_.data(), 0, model_->logits, true);
        Guess best{0, 0};
        float second = -std::numeric_limits<float>::infinity();
        for (Index v = 1; v < model_->V; ++v) {
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

    // What an observer may see: push and pop of each end, low, high and number of elements; the top layer's hidden state;
    // the read
    void look(double* numbers, float* hidden_out, float* read) {
        for (Index end = 0; end < model_->E; ++end) {
            *numbers++ = push_[end];
            *numbers++ = pop_[end];
        }
        numbers[0] = memory_->low();
        numbers[1] = memory_->high();
        numbers[2] = static_cast<double>(memory_->size());
        copy<float>(hidden_out, hidden(model_->sizes.layers - 1), model_->sizes.hidden);
        copy<float>(read, controller_.sources[0].data(), model_->sizes.width);
    }

    // How near to 0 the gates' pre-activations have come since `reset`: the encoder's push and pop, the decoder's, at any
    // end. The last step's are left out, since nothing depends on them yet.
    void nearest(double* four) const { std::copy(std::begin(nearest_), std::end(nearest_), four); }

   private:
    float* hidden(Index k) { return controller_.hidden(*model_, k); }

    // The next step of the encoder may push the first element of a block.
    void begin_block(Index block) {
        origins_.resize(block);
        origins_.push_back({Controller(*model_, controller_), {}, true});
    }

    // A step has been taken that pushed an element. `own`: it was the encoder's, and read what it pushed. Whole blocks far
    // enough below are forgotten if their values can be found again.
    void note_origin(bool own, Index before, std::int32_t symbol) {
        const Index last = memory_->size() - 1, block = last / Elements::kBlock, place = last % Elements::kBlock;
        if (Index(origins_.size()) > block + 1) origins_.resize(block + 1);
        if (Index(origins_.size()) <= block) return;
        Origin& origin = origins_[block];
        origin.known = origin.known && own && last == before && place == Index(origin.symbols.size());
        if (origin.known) origin.symbols.push_back(symbol);
        if (place != 0 || block < model_->kept) return;
        const Index far = block - model_->kept;
        const bool whole = Index(origins_[far].symbols.size()) == Elements::kBlock;
        if (origins_[far].known && whole) memory_->forget(far * Elements::kBlock);
    }

    void recall(Index first, float* values) override {
        const Index block = first / Elements::kBlock;
        if (block >= Index(origins_.size()) || !origins_[block].known) return;
        const Origin& origin = origins_[block];
        Controller again(*model_, origin.before);
        Buffer<float> z(4 * model_->ph), value(model_->pr);
        for (const std::int32_t symbol : origin.symbols) {
            again.step(*model_, model_->encoder, symbol, z.data());
            again.value(*model_, model_->encoder.weights, value.data());
            copy<float>(values, value.data(), model_->M);
            copy<float>(again.sources[0].data(), value.data(), model_->M);
            values += model_->M;
        }
    }

    const std::shared_ptr<const StreamModel> model_;
    // the state, and scratch
    Buffer<float> z_, value_, gates_;
    std::vector<float> push_, pop_;  // of each end
    Buffer<float> o_, scores_;
    double nearest_[4];
    std::vector<double> last_;  // how near to 0 the last step's gates were
    bool decoding_ = false;
    std::unique_ptr<StreamMemory> memory_;
    Controller controller_;
    std::vector<Origin> origins_;  // of the stack's blocks, from the bottom
};

}  // namespace stackrev
