// Calls functions of a library for another process, which may run on another processor or system: `emulation.py`.
//
// All numbers are 64 bits, little-endian. A request is: a name, as its length and bytes; the count of arguments, and for
// each its value and whether it is a pointer; the count of blocks, and for each its address over there, its size, the
// count and the offsets of pointers in it, and its bytes. Every pointer leads into a block or is null. The answer is what
// the function has returned, and all blocks' bytes.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <windows.h>
#else
#include <dlfcn.h>
#endif

using Number = std::uint64_t;
using Function = Number (*)(Number, Number, Number, Number, Number, Number, Number, Number);

constexpr Number kLine = 64;  // a block starts as far from a cache line as it does over there

struct Block {
    Number address, size;
    std::vector<Number> pointers;
    std::vector<char> memory;
    char* data;
};

[[noreturn]] void fail(const std::string& why) {
    std::fprintf(stderr, "%s\n", why.c_str());
    std::exit(1);
}

void read_bytes(void* to, Number size) {
    if (size && std::fread(to, 1, size, stdin) != size) std::exit(0);  // there are no more requests
}

Number read_number() {
    Number number;
    read_bytes(&number, sizeof number);
    return number;
}

void* find(void* library, const std::string& name) {
#if defined(_WIN32)
    void* found = reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name.c_str()));
#else
    void* found = dlsym(library, name.c_str());
#endif
    if (!found) fail("the library has no " + name);
    return found;
}

Number moved(Number pointer, const std::vector<Block>& blocks) {
    if (!pointer) return 0;
    for (const Block& block : blocks) {
        if (block.address <= pointer && pointer < block.address + block.size) {
            return reinterpret_cast<Number>(block.data) + pointer - block.address;
        }
    }
    fail("a pointer leads to nothing that was sent");
}

std::vector<Block> read_blocks() {
    std::vector<Block> blocks(read_number());
    for (Block& block : blocks) {
        block.address = read_number();
        block.size = read_number();
        block.pointers.resize(read_number());
        for (Number& offset : block.pointers) offset = read_number();
        block.memory.resize(block.size + kLine);
        block.data = block.memory.data() + (block.address - reinterpret_cast<Number>(block.memory.data())) % kLine;
        read_bytes(block.data, block.size);
    }
    for (Block& block : blocks) {
        for (const Number offset : block.pointers) {
            Number& pointer = *reinterpret_cast<Number*>(block.data + offset);
            pointer = moved(pointer, blocks);
        }
    }
    return blocks;
}

int main(int count, char** words) {
    if (count != 2) fail("give the library");
#if defined(_WIN32)
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
    void* library = LoadLibraryA(words[1]);
    if (!library) fail("the library does not load: error " + std::to_string(GetLastError()));
#else
    void* library = dlopen(words[1], RTLD_NOW);
    if (!library) fail(dlerror());
#endif
    for (;;) {
        std::string name(read_number(), ' ');
        read_bytes(name.data(), name.size());
        Number values[8] = {}, pointers[8] = {};
        const Number arguments = read_number();
        if (arguments > 8) fail(name + " has too many arguments");
        for (Number i = 0; i < arguments; ++i) values[i] = read_number(), pointers[i] = read_number();
        const std::vector<Block> blocks = read_blocks();
        for (Number i = 0; i < arguments; ++i) {
            if (pointers[i]) values[i] = moved(values[i], blocks);
        }
        const auto function = reinterpret_cast<Function>(find(library, name));
        const Number result = function(values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7]);
        std::fwrite(&result, sizeof result, 1, stdout);
        for (const Block& block : blocks) std::fwrite(block.data, 1, block.size, stdout);
        std::fflush(stdout);
    }
}
