// Parts of a job that need nothing of each other, spread over threads that live as long as the job: nothing is left
// behind that a fork could lose.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace stackrev {

// Calls work(part) for each part in 0..parts-1, on at most `threads` threads of which the caller is one.
template <typename Work>
void in_parallel(long parts, long threads, Work&& work) {
    std::atomic<long> next{0};
    std::exception_ptr failure;
    std::mutex guard;
    const auto take_parts = [&] {
        try {
            for (long part = next++; part < parts; part = next++) work(part);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            failure = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    try {
        for (long i = 1; i < threads && i < parts; ++i) others.emplace_back(take_parts);
    } catch (const std::system_error&) {
        // the system gives no more threads: those that are there do all parts
    }
    take_parts();
    for (std::thread& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace stackrev
