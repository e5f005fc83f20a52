// The sets of instructions that this processor has and the system lets programs use.
//
// The compilers' own __builtin_cpu_supports needs a runtime library that fills in a table, which Zig's does not.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace stackrev {

// 2 AVX-512, 1 AVX2 and FMA, 0 neither
inline int instruction_set() {
#if defined(__x86_64__)
    const auto has = [](unsigned flags, int bit) { return ((flags >> bit) & 1u) != 0; };
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const bool fma = has(c, 12), saves = has(c, 27);  // whether the system says which registers it saves
    if (!fma || !saves || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    unsigned saved, high;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if (!has(b, 5) || (saved & 0x06u) != 0x06u) return 0;
    const bool avx512 = has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31);  // F, DQ, BW, VL
    return avx512 && (saved & 0xE6u) == 0xE6u ? 2 : 1;
#else
    return 0;
#endif
}

}  // namespace stackrev
