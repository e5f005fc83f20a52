// The stack, queue or deque of a stream of symbols: one string's, of any length, without a derivative. What is popped is
// gone, and its memory is used again or given back. The equations are in stack.h, queue.h and deque.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <utility>

#include "deque.h"
#include "queue.h"
#include "simd.h"
#include "stack.h"

namespace stackrev {

// What can find out again which values a block of elements had, after they have been forgotten.
class Recall {
   public:
    virtual ~Recall() = default;
    // Writes the values of the block that begins with element `first`, one after the other
    virtual void recall(Index first, float* values) = 0;
};

// Elements from the bottom, 0, to the top: values and where they start and end, in blocks, so that growing copies nothing
// and shrinking frees. At either end one spare block is kept, for a structure that goes to and fro.
class Elements {
   public:
    static constexpr Index kBlock = 1024;

    explicit Elements(Index width) : width_(width) {}
    Elements(const Elements& other) : width_(other.width_), first_(other.first_), size_(other.size_) {
        for (const auto& block : other.blocks_) {
            blocks_.push_back(std::make_unique<Block>(width_));
            std::copy(std::begin(block->bottoms), std::end(block->bottoms), blocks_.back()->bottoms);
            std::copy(std::begin(block->tops), std::end(block->tops), blocks_.back()->tops);
            if (block->values) {
                std::copy(block->values.get(), block->values.get() + kBlock * width_, blocks_.back()->values.get());
            } else {
                blocks_.back()->values.reset();
            }
        }
    }
    Elements& operator=(const Elements&) = delete;

    Index size() const { return size_; }
    double& bottom(Index i) { return block(i).bottoms[place(i)]; }
    double& top(Index i) { return block(i).tops[place(i)]; }
    double bottom(Index i) const { return block(i).bottoms[place(i)]; }
    double top(Index i) const { return block(i).tops[place(i)]; }

    void add_top(double bottom, double top, const float* value) {
        if ((first_ + size_) / kBlock == Index(blocks_.size())) blocks_.push_back(std::make_unique<Block>(width_));
        set(size_++, bottom, top, value);
    }

    void add_bottom(double bottom, double top, const float* value) {
        if (first_ == 0) {
            blocks_.push_front(std::make_unique<Block>(width_));
            first_ = kBlock;
        }
        --first_;
        ++size_;
        set(0, bottom, top, value);
    }

    // Drops all elements above the first so many
    void keep(Index count) {
        size_ = count;
        while (Index(blocks_.size()) > (first_ + size_) / kBlock + 2) blocks_.pop_back();
    }

    void drop_bottom() {
        ++first_;
        --size_;
        if (first_ < 2 * kBlock) return;
        blocks_.pop_front();
        first_ -= kBlock;
    }

    void clear() {
        first_ = size_ = 0;
        blocks_.clear();
    }

    // Forgets the values of a whole block, which begins with element `first`; where they are asked for, `recall` has them.
    // Only of a stack, whose elements keep their places.
    void forget(Index first) { block(first).values.reset(); }
    void recall_with(Recall* recall) { recall_ = recall; }

    // The read's sum: alpha times the value of element i
    void add(float* read, Index i, double alpha) const { add_scaled<float>(read, static_cast<float>(alpha), value(i), width_); }
    // A read of what is NaN
    void fill(float* read, double number) const { std::fill(read, read + width_, static_cast<float>(number)); }

   private:
    struct Block {
        explicit Block(Index width) : values(new float[kBlock * width]()) {}
        double bottoms[kBlock] = {}, tops[kBlock] = {};
        std::unique_ptr<float[]> values;
    };

    Block& block(Index i) const { return *blocks_[(first_ + i) / kBlock]; }
    Index place(Index i) const { return (first_ + i) % kBlock; }
    float* value(Index i) const {
        std::unique_ptr<float[]>& values = block(i).values;
        if (!values) {
            std::unique_ptr<float[]> again(new float[kBlock * width_]());
            recall_->recall(i - place(i), again.get());
            values = std::move(again);
        }
        return values.get() + place(i) * width_;
    }
    void set(Index i, double bottom, double top, const float* value) {
        block(i).bottoms[place(i)] = bottom;
        block(i).tops[place(i)] = top;
        copy<float>(this->value(i), value, width_);
    }

    Index width_, first_ = 0, size_ = 0;  // first_: the place of element 0 in the first block
    std::deque<std::unique_ptr<Block>> blocks_;
    Recall* recall_ = nullptr;
};

// What a stream asks of its memory. The numbers of an end follow those of the end before: of push and pop, one number an
// end, of values and reads, one value.
class StreamMemory {
   public:
    explicit StreamMemory(Index width) : elements_(width), width_(width) {}
    virtual ~StreamMemory() = default;
    virtual std::unique_ptr<StreamMemory> copied() const = 0;
    // Remove, add, and read into `reads`, which is 0
    virtual void step(const float* push, const float* pop, const float* values, float* reads) = 0;

    void clear() {
        low_ = high_ = 0;
        elements_.clear();
    }
    void forget(Index first) { elements_.forget(first); }
    void recall_with(Recall* recall) { elements_.recall_with(recall); }
    double low() const { return low_; }
    double high() const { return high_; }
    Index size() const { return elements_.size(); }

   protected:
    StreamMemory(const StreamMemory&) = default;

    Elements elements_;
    Index width_;
    double low_ = 0, high_ = 0;
};

class StreamStack final : public StreamMemory {
   public:
    using StreamMemory::StreamMemory;
    std::unique_ptr<StreamMemory> copied() const override { return std::make_unique<StreamStack>(*this); }

    void step(const float* push, const float* pop, const float* values, float* reads) override {
        const Chain chain{elements_};
        const double level = level_after_pop(high_, *pop);
        elements_.keep(first_below(chain, elements_.size() - 1, level) + 1);
        high_ = level + *push;
        elements_.add_top(level, high_, values);
        walk_read(chain, elements_.size() - 1, high_, 1, [&](Index i, double alpha, bool, Index) {
            elements_.add(reads, i, alpha);
        });
    }

   private:
    // None of the elements was popped, so an element's neighbour is the next one down the chain.
    struct Chain {
        static constexpr bool kSomeInitial = false;
        const Elements& elements;
        double bottom(Index i) const { return elements.bottom(i); }
        static Index next(Index i) { return i - 1; }
    };
};

class StreamQueue final : public StreamMemory {
   public:
    using StreamMemory::StreamMemory;
    std::unique_ptr<StreamMemory> copied() const override { return std::make_unique<StreamQueue>(*this); }

    void step(const float* push, const float* pop, const float* values, float* reads) override {
        low_ = lower(high_, low_ + *pop);
        const double before = high_;
        high_ += *push;
        if (!(high_ <= before)) elements_.add_top(before, high_, values);
        while (elements_.size() > 0 && elements_.top(0) <= low_) elements_.drop_bottom();
        const double full = high_ - low_;
        if (full != full) return elements_.fill(reads, full);
        walk_front(InOrder{elements_}, 0, elements_.size(), low_, 1, [&](Index i, double alpha, bool, bool) {
            elements_.add(reads, i, alpha);
        });
    }

   private:
    struct InOrder {
        const Elements& elements;
        static Index order(Index place) { return place; }
        double bottom(Index i) const { return elements.bottom(i); }
        double top(Index i) const { return elements.top(i); }
    };
};

class StreamDeque final : public StreamMemory {
   public:
    using StreamMemory::StreamMemory;
    std::unique_ptr<StreamMemory> copied() const override { return std::make_unique<StreamDeque>(*this); }

    void step(const float* push, const float* pop, const float* values, float* reads) override {
        const double h = higher(low_, high_ - pop[0]), g = lower(h, low_ + pop[1]);
        Index last = elements_.size() - 1;
        while (last >= 0 && elements_.bottom(last) >= h) --last;
        elements_.keep(last + 1);
        if (last >= 0) elements_.top(last) = lower(elements_.top(last), h);
        while (elements_.size() > 0 && elements_.top(0) <= g) elements_.drop_bottom();
        if (elements_.size() > 0) elements_.bottom(0) = higher(elements_.bottom(0), g);
        high_ = h + push[0];
        low_ = g - push[1];
        elements_.add_top(h, high_, values);
        elements_.add_bottom(low_, g, values + width_);
        const double full = high_ - low_;
        if (full != full) return elements_.fill(reads, full), elements_.fill(reads + width_, full);
        last = elements_.size() - 1;
        walk_top(InOrder{elements_}, 0, last, high_, 1, [&](Index i, double alpha, DequeEnd, const DequeEnd*) {
            elements_.add(reads, i, alpha);
        });
        walk_bottom(InOrder{elements_}, 0, last, low_, 1, [&](Index i, double alpha, DequeEnd, const DequeEnd*) {
            elements_.add(reads + width_, i, alpha);
        });
    }

   private:
    struct InOrder {
        const Elements& elements;
        DequeEnd bottom(Index i) const { return {elements.bottom(i), 0}; }
        DequeEnd top(Index i) const { return {elements.top(i), 0}; }
    };
};

// The number that a call has for the structure
enum StreamStructure : std::int64_t { kStreamStack = 0, kStreamQueue = 1, kStreamDeque = 2 };

constexpr Index kMostEnds = 2;

inline std::unique_ptr<StreamMemory> stream_memory(std::int64_t structure, Index width) {
    if (structure == kStreamStack) return std::make_unique<StreamStack>(width);
    if (structure == kStreamQueue) return std::make_unique<StreamQueue>(width);
    return std::make_unique<StreamDeque>(width);
}

inline Index stream_ends(std::int64_t structure) { return structure == kStreamDeque ? 2 : 1; }

}  // namespace stackrev
