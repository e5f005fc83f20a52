// Parts of a job that need nothing of each other, spread over threads: those of the caller's OpenMP runtime where it has
// lent them (a second set would fight with them for the cores), or else threads that live as long as the job.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "index.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace stackrev {

// While one of these lives, numbers too small to be normal count as zero on its thread. Gradients that fade come to them,
// and arithmetic with them takes a hundred times as long.
class FlushDenormals {
   public:
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;
#if defined(__x86_64__)
    FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }  // flush to zero, denormals are zero
    ~FlushDenormals() { _mm_setcsr(before_); }

   private:
    unsigned before_;
#else
    FlushDenormals() = default;
#endif
};

// The OpenMP runtime's GOMP_parallel(function, data, threads, flags), or null
using Lender = void (*)(void (*)(void*), void*, unsigned, unsigned);
inline Lender lender = nullptr;

// Calls work() on up to `threads` threads at once, of which the caller is one.
template <typename Work>
void on_threads(Index threads, Work& work) {
    if (threads > 1 && lender) {
        lender([](void* data) { (*static_cast<Work*>(data))(); }, &work, static_cast<unsigned>(threads), 0);
        return;
    }
    std::vector<std::thread> others;
    try {
        for (Index i = 1; i < threads; ++i) others.emplace_back(std::ref(work));
    } catch (const std::system_error&) {
        // the system gives no more threads: those that are there do all the work
    }
    work();
    for (std::thread& other : others) other.join();
}

// Calls work(part) for each part in 0..parts-1, on at most `threads` threads.
template <typename Work>
void in_parallel(Index parts, Index threads, Work&& work) {
    std::atomic<Index> next{0};
    std::exception_ptr failure;
    std::mutex guard;
    auto take_parts = [&] {
        const FlushDenormals flushing;
        try {
            for (Index part = next++; part < parts; part = next++) work(part);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            failure = std::current_exception();
        }
    };
    on_threads(std::min(threads, parts), take_parts);
    if (failure) std::rethrow_exception(failure);
}

}  // namespace stackrev
