// The type of sizes and places. It has 64 bits on every platform, which `long` has not on Windows.
#pragma once

#include <cstdint>

namespace stackrev {

using Index = std::int64_t;

}  // namespace stackrev
