// operator new and delete for the libraries for macOS, where Zig's linker would export those of libc++ otherwise, and the
// loader could put them in the place of another library's. wheels.py compiles it with these operators hidden.
//
// All forms are here: a single one that was missing would bring libc++'s, and with it all of libc++'s.
#include <cstdlib>
#include <new>

using std::align_val_t, std::nothrow_t, std::size_t;

void* operator new(size_t size, const nothrow_t&) noexcept { return std::malloc(size ? size : 1); }

void* operator new(size_t size, align_val_t line, const nothrow_t&) noexcept {
    const size_t least = static_cast<size_t>(line) < sizeof(void*) ? sizeof(void*) : static_cast<size_t>(line);
    void* memory = nullptr;
    return posix_memalign(&memory, least, size ? size : 1) == 0 ? memory : nullptr;
}

void* operator new(size_t size) {
    if (void* memory = operator new(size, std::nothrow)) return memory;
    throw std::bad_alloc();
}

void* operator new(size_t size, align_val_t line) {
    if (void* memory = operator new(size, line, std::nothrow)) return memory;
    throw std::bad_alloc();
}

void* operator new[](size_t size) { return operator new(size); }
void* operator new[](size_t size, align_val_t line) { return operator new(size, line); }
void* operator new[](size_t size, const nothrow_t& none) noexcept { return operator new(size, none); }
void* operator new[](size_t size, align_val_t line, const nothrow_t& none) noexcept { return operator new(size, line, none); }

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, const nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, align_val_t, const nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t, align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, const nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, align_val_t, const nothrow_t&) noexcept { std::free(memory); }
