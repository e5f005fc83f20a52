// Large blocks of memory that are used again. Fresh memory comes from the operating system page by page, each zeroed
// and each with a trap into the system, which for the neural stack would cost as much as all the arithmetic.
//
// Idle blocks are marked as the system's to take back whenever it needs them (MADV_FREE): they cost no memory, but address
// space. Where that is not to be had there are no blocks, and callers get their memory elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace stackrev {

class Memory {
   public:
    static constexpr std::size_t kPage = std::size_t(1) << 21;    // a large page, where there are any
    static constexpr std::size_t kKept = std::size_t(1) << 30;    // idle bytes at most

    // At least `bytes` bytes of anything, or null. An idle block serves if less than half of it would be wasted.
    void* take(std::size_t bytes) {
        bytes = rounded(bytes);
        const std::lock_guard<std::mutex> lock(guard_);
        auto best = idle_.end();
        for (auto each = idle_.begin(); each != idle_.end(); ++each) {
            const bool fits = each->bytes >= bytes && each->bytes < 2 * bytes;
            if (fits && (best == idle_.end() || each->bytes < best->bytes)) best = each;
        }
        if (best == idle_.end()) {
            void* const start = fresh(bytes);
            if (start || idle_.empty()) return start;
            shrink(0);  // there is a bound on address space, and it has been met
            return fresh(bytes);
        }
        const Block block = *best;
        idle_.erase(best);
        idle_bytes_ -= block.bytes;
        return begin_use(block);
    }

    // Back from whom `take` gave it to
    void give_back(void* start) {
        const std::lock_guard<std::mutex> lock(guard_);
        for (auto each = used_.begin(); each != used_.end(); ++each) {
            if (each->start != start) continue;
            const Block block = *each;
            used_.erase(each);
            keep(block);
            return;
        }
    }

   private:
    struct Block {
        void* start;
        std::size_t bytes;
    };

    static std::size_t rounded(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

    void* begin_use(const Block& block) {
        used_.push_back(block);
        return block.start;
    }

#if defined(__linux__) && defined(MADV_FREE) && defined(MADV_HUGEPAGE)
    // From the system, starting at a large page
    void* fresh(std::size_t bytes) {
        void* const mapped = mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) return nullptr;
        char* const first = static_cast<char*>(mapped);
        const std::uintptr_t place = reinterpret_cast<std::uintptr_t>(first);
        const std::size_t skipped = rounded(place) - place;
        if (skipped) munmap(first, skipped);
        if (skipped < kPage) munmap(first + skipped + bytes, kPage - skipped);
        madvise(first + skipped, bytes, MADV_HUGEPAGE);  // a hint; it may be refused
        return begin_use({first + skipped, bytes});
    }

    void keep(const Block& block) {
        if (block.bytes > kKept || madvise(block.start, block.bytes, MADV_FREE) != 0) {
            munmap(block.start, block.bytes);
            return;
        }
        idle_.push_back(block);
        idle_bytes_ += block.bytes;
        shrink(kKept);
    }

    // The blocks that have been idle longest go, until no more than `most` bytes are left.
    void shrink(std::size_t most) {
        while (idle_bytes_ > most) {
            idle_bytes_ -= idle_.front().bytes;
            munmap(idle_.front().start, idle_.front().bytes);
            idle_.erase(idle_.begin());
        }
    }
#else
    void shrink(std::size_t) {}
    void* fresh(std::size_t) { return nullptr; }
    void keep(const Block&) {}
#endif

    std::mutex guard_;
    std::vector<Block> idle_, used_;  // idle: the one that has been so longest first
    std::size_t idle_bytes_ = 0;
};

}  // namespace stackrev
