// Many strings side by side through a whole model, read and then answered: what stream.h does for one, with rows that
// share every load of weights. The equations are there.
//
// Rows are sorted by length, longest first, so those that still read are the first so many; a row that has written its
// last symbol changes places with the last one that still writes. Sums are added in the same order whatever the number
// of rows: what is written for a string does not depend on its neighbours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "calls.h"
#include "cell.h"
#include "stack.h"
#include "stream.h"

namespace stackrev {

// The elements on a row's stack, in memory that is used again for the row's next string
class RowElements {
   public:
    static constexpr bool kSomeInitial = false;

    explicit RowElements(Index width) : width_(width) {}

    Index size() const { return size_; }
    double bottom(Index i) const { return bottoms_[i]; }
    const float* value(Index i) const { return values_.get() + i * width_; }
    static Index next(Index i) { return i - 1; }
    void keep(Index count) { size_ = count; }

    // Makes room for so many elements.
    void reserve(Index room) {
        if (room <= room_) return;
        std::unique_ptr<float[]> values(new float[room * width_]);
        std::copy(values_.get(), values_.get() + size_ * width_, values.get());
        values_ = std::move(values);
        bottoms_.resize(room);
        room_ = room;
    }

    void push(double bottom, const float* value) {
        if (size_ == room_) reserve(2 * room_ + 1);
        bottoms_[size_] = bottom;
        copy<float>(values_.get() + size_ * width_, value, width_);
        ++size_;
    }

   private:
    Index width_, size_ = 0, room_ = 0;
    std::unique_ptr<float[]> values_;
    std::vector<double> bottoms_;
};

class StreamBatch {
   public:
    StreamBatch(const StreamModel& model, const AnswerCall& call)
        : model_(model), a_(call), B(std::min<Index>(call.count, kChunkRows)), ph(model.ph), pr(model.pr), z_(B * 4 * ph),
          values_(B * pr), gates_(padded<float>(model.sizes.gates() * B)), o_(B * model.po), scores_(B * model.pv),
          starts_(B), logits_bias_(model.pv) {
        for (Index k = 0; k < model.sizes.layers; ++k) {
            sources_.emplace_back(B * model.encoder.weights.source(k));
            cells_.emplace_back(B * ph);
        }
        for (Index i = 0; i < B; ++i) {
            auto memory = model.structure == kStreamStack ? nullptr : stream_memory(model.structure, model.M);
            rows_.push_back({{}, 0, RowElements(model.M), std::move(memory)});
        }
        std::fill(logits_bias_.data(), logits_bias_.data() + model.pv, std::numeric_limits<float>::lowest());
        copy<float>(logits_bias_.data(), model.logits_bias.data(), model.V);
    }

    void run() {
        std::vector<String> strings;
        for (Index i = 0, from = 0, to = 0; i < a_.count; from += a_.lengths[i], to += a_.limits[i], ++i) {
            a_.counts[i] = 0;
            strings.push_back({a_.symbols + from, a_.written + to, a_.lengths[i], a_.limits[i], a_.counts + i});
        }
        std::stable_sort(strings.begin(), strings.end(),
                         [](const String& a, const String& b) { return a.length > b.length; });
        for (Index first = 0; first < a_.count; first += B) {
            const Index rows = std::min(B, a_.count - first);
            for (Index i = 0; i < rows; ++i) start(i, strings[first + i]);
            read(rows);
            write(rows);
        }
    }

   private:
    struct String {
        const std::int32_t* symbols;
        std::int32_t* written;
        Index length, limit;
        std::int64_t* count;
    };
    struct Row {
        String string;
        double height;
        RowElements elements;
        std::unique_ptr<StreamMemory> memory;  // of what is no stack; a stack has elements and height
        std::int32_t fed = 0;
    };

    float* hidden(Index k, Index i) {
        const Weights<float>& weights = model_.encoder.weights;
        return sources_[k].data() + i * weights.source(k) + weights.below(k);
    }

    // The trained h_0 and c_0, an empty read and an empty memory
    void start(Index i, const String& string) {
        const Index H = model_.sizes.hidden;
        for (Index k = 0; k < model_.sizes.layers; ++k) {
            const Index width = model_.encoder.weights.source(k);
            clear<float>(sources_[k].data() + i * width, width);
            clear<float>(cells_[k].data() + i * ph, ph);
            copy<float>(hidden(k, i), model_.hidden0.data() + k * H, H);
            copy<float>(cells_[k].data() + i * ph, model_.cell0.data() + k * H, H);
        }
        rows_[i].string = string;
        if (rows_[i].memory) return rows_[i].memory->clear();
        rows_[i].height = 0;
        rows_[i].elements.keep(0);
        rows_[i].elements.reserve(string.length + 1);
    }

    void read(Index running) {
        for (Index i = 0; i < running; ++i) rows_[i].fed = static_cast<std::int32_t>(a_.start);
        step(model_.encoder, running);
        for (Index t = 0;; ++t) {
            while (running > 0 && rows_[running - 1].string.length <= t) --running;
            if (running == 0) return;
            for (Index i = 0; i < running; ++i) rows_[i].fed = rows_[i].string.symbols[t];
            step(model_.encoder, running);
        }
    }

    void write(Index running) {
        for (Index i = running - 1; i >= 0; --i) {
            rows_[i].fed = static_cast<std::int32_t>(a_.separator);
            if (rows_[i].string.limit == 0) swap(i, --running);
        }
        while (running > 0) {
            step(model_.decoder, running);
            guess(running);
            for (Index i = running - 1; i >= 0; --i) {
                const String& string = rows_[i].string;
                string.written[(*string.count)++] = rows_[i].fed;
                if (rows_[i].fed == a_.stop || *string.count == string.limit) swap(i, --running);
            }
        }
    }

    // Lets two rows change places, all that they carry with them.
    void swap(Index i, Index j) {
        if (i == j) return;
        std::swap(rows_[i], rows_[j]);
        for (Index k = 0; k < model_.sizes.layers; ++k) {
            const Index width = model_.encoder.weights.source(k);
            float *const source = sources_[k].data(), *const cell = cells_[k].data();
            std::swap_ranges(source + i * width, source + (i + 1) * width, source + j * width);
            std::swap_ranges(cell + i * ph, cell + (i + 1) * ph, cell + j * ph);
        }
    }

    void step(const StreamModel::Cell& cell, Index rows) {
        for (Index k = 0; k < model_.sizes.layers; ++k) layer(cell, k, rows);
        controls(cell.weights, rows);
    }

    void layer(const StreamModel::Cell& cell, Index k, Index rows) {
        const Weights<float>& weights = cell.weights;
        const Index width = weights.source(k);
        for (Index i = 0; i < rows; ++i) {
            starts_[i] = k == 0 ? cell.symbols.data() + rows_[i].fed * 4 * ph : weights.biases[k - 1].data();
            if (k > 0) copy<float>(sources_[k].data() + i * width, hidden(k - 1, i), ph);
        }
        const auto start = [&](Index i) { return starts_[i]; };
        multiply_from<float, true>(start, rows, z_.data(), 4 * ph, sources_[k].data(), width, weights.recurrent[k]);
        for (Index i = 0; i < rows; ++i) {
            float* const z = z_.data() + i * 4 * ph;
            lstm_cell<float>(z, z, cells_[k].data() + i * ph, hidden(k, i), ph, model_.cell_e);
        }
    }

    // The gates; the values, if any row pushes; the memories
    void controls(const Weights<float>& weights, Index rows) {
        const Index top = model_.sizes.layers - 1, gates = model_.sizes.gates();
        for (Index i = 0; i < rows; ++i) gate_inputs<float>(weights, hidden(top, i), nullptr, gates_.data() + gates * i);
        sigmoid_all<float>(gates_.data(), gates * rows);
        bool pushing = false;
        for (Index i = 0; i < gates * rows; ++i) {
            gates_[i] = stretched_gate<float>(gates_[i], model_.e);
            pushing = pushing || (i % 2 == 0 && gates_[i] != 0);
        }
        if (pushing) {
            const auto start = [&](Index) { return weights.value_bias.data(); };
            multiply_from<float, true>(start, rows, values_.data(), pr, hidden(top, 0), weights.source(top), weights.value);
            tanh_all<float>(values_.data(), rows * pr);
        }
        for (Index i = 0; i < rows; ++i) {
            rows_[i].memory ? memory(i) : stack(i, gates_[2 * i], gates_[2 * i + 1]);
        }
    }

    void memory(Index i) {
        float push[kMostEnds], pop[kMostEnds];
        for (Index end = 0; end < model_.E; ++end) {
            push[end] = gates_[2 * (i * model_.E + end)];
            pop[end] = gates_[2 * (i * model_.E + end) + 1];
        }
        float* const read = sources_[0].data() + i * model_.encoder.weights.source(0);
        clear<float>(read, model_.sizes.width);
        rows_[i].memory->step(push, pop, values_.data() + i * pr, read);
    }

    // Pop, push, read. An element of strength 0 changes no read, now or later, and is left out.
    void stack(Index i, float push, float pop) {
        RowElements& elements = rows_[i].elements;
        const double level = level_after_pop(rows_[i].height, pop);
        elements.keep(first_below(elements, elements.size() - 1, level) + 1);
        if (push != 0) elements.push(level, values_.data() + i * pr);
        const double height = rows_[i].height = level + push;
        float* const read = sources_[0].data() + i * model_.encoder.weights.source(0);
        clear<float>(read, model_.sizes.width);
        walk_read(elements, elements.size() - 1, height, 1, [&](Index j, double alpha, bool, Index) {
            add_scaled<float>(read, static_cast<float>(alpha), elements.value(j), model_.sizes.width);
        });
    }

    // The most probable next symbol of each row, which it is fed next
    void guess(Index rows) {
        const Index po = model_.po, pv = model_.pv, top = model_.sizes.layers - 1;
        const Index width = model_.encoder.weights.source(top);
        const auto output = [&](Index) { return model_.output_bias.data(); };
        const auto logits = [&](Index) { return logits_bias_.data(); };
        multiply_from<float, true>(output, rows, o_.data(), po, hidden(top, 0), width, model_.output);
        tanh_all<float>(o_.data(), rows * po);
        multiply_from<float, true>(logits, rows, scores_.data(), pv, o_.data(), po, model_.logits);
        for (Index i = 0; i < rows; ++i) rows_[i].fed = first_greatest(scores_.data() + i * pv);
    }

    // The first of the greatest, as `Stream::guess` finds it, which passes over NaNs
    std::int32_t first_greatest(const float* scores) const {
        typedef std::int32_t Places __attribute__((vector_size(kVectorBytes)));
        constexpr Index count = Lanes<float>::count;
        Vector<float> best = load<float>(scores), sum = best;
        Places places{};  // of each lane's best, the place of its vector
        for (Index j = count; j < model_.pv; j += count) {
            const Vector<float> each = load<float>(scores + j);
            places = each > best ? Places{} + static_cast<std::int32_t>(j) : places;
            best = each > best ? each : best;
            sum += each;
        }
        std::int32_t greatest = 0;
        if (const float all = total<float>(sum); all == all) {
            float lanes[count];
            std::int32_t starts[count];
            store<float>(lanes, best);
            std::memcpy(starts, &places, sizeof starts);
            const float most = *std::max_element(lanes, lanes + count);
            greatest = std::numeric_limits<std::int32_t>::max();
            for (std::int32_t lane = 0; lane < count; ++lane) {
                greatest = std::min(greatest, lanes[lane] == most ? starts[lane] + lane : greatest);
            }
        } else {
            for (std::int32_t v = 1; v < model_.V; ++v) greatest = scores[v] > scores[greatest] ? v : greatest;
        }
        return greatest;
    }

    const StreamModel& model_;
    const AnswerCall& a_;
    const Index B, ph, pr;
    std::vector<Row> rows_;
    std::vector<Buffer<float>> sources_, cells_;    // a layer [B, source], [B, ph]
    Buffer<float> z_, values_, gates_, o_, scores_;  // [B, 4 ph], [B, pr], [B, 2], [B, po], [B, pv]
    std::vector<const float*> starts_;               // what each row's pre-activations start from
    Buffer<float> logits_bias_;                      // [pv], lowest where there is no symbol
};

}  // namespace stackrev
