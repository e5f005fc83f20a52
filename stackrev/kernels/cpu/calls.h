// The calls as Python makes them: calls.py has the same structs. Their layouts are exported, and a library whose layouts
// differ from calls.py's is refused when it is loaded, so that a field can't be added, moved or dropped on one side alone.
//
// `void` is float or double, whichever the function is for.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "index.h"

namespace stackrev {

// What a function returns
enum Status { kDone = 0, kNoMemory = 1, kWrongLengths = 2, kUnknownSymbol = 3 };

constexpr Index kChunkRows = 48;  // rows of a batch that a thread takes together: what they carry fits the cache

// Where a stack, queue or deque is in memory, over T steps of B rows that each add E elements (2 for a deque, else 1) to N
// that are there at the start. What levels and links are is the structure's own; its header says.
struct MemoryArrays {
    void* values;                                      // [N + E T, B, M], the first N are there already
    const double *bottoms0, *tops0, *low0, *high0;     // [N, B], [N, B], [B] (null for a stack), [B]
    // results
    double *bottoms, *tops, *low, *high;               // [N + E T, B], [N + E T, B], [B] (null for a stack), [B]
    // for the derivative
    double* levels;                                    // [2 T, B]; null for a stack, whose bottoms are what it needs
    std::int32_t* links;                               // of a stack [N + T, B], of a deque [2 T, B]; null for a queue
};

struct MemoryGradientArrays {
    // gradients of the results; null where there is none
    const void* g_end_values;                          // [N + E T, B, M]
    const double *g_end_bottoms, *g_end_tops, *g_end_low, *g_end_high;
    // gradients wanted
    void* g_values;                                    // [N + E T, B, M]; the first N are the initial values'
    double *g_bottoms0, *g_tops0, *g_low0, *g_high0;   // [N, B], [N, B], [B] (null for a stack), [B]
};

// A stack, queue or deque over T steps given all its controls
struct MemoryCall {
    std::int64_t steps, batch, width, initial, threads;
    const double *push, *pop;     // [T, E, B]
    const double* depth;          // [T, B], how much a read covers; null for 1
    MemoryArrays memory;
    void* reads[2];               // results, [T, B, M] of each end; the second null where there is one
};

struct MemoryGradientCall {
    MemoryCall forward;
    const void* g_reads[2];                 // gradients of the reads of each end, or null
    std::int64_t g_step[2], g_row[2];       // from a step's and from a row's to the next one's
    MemoryGradientArrays gradients;
    double *g_push, *g_pop, *g_depth;       // gradients wanted; g_depth may be null
};

// The LSTM with a stack, queue or deque over a batch of sequences
struct RecurrenceCall {
    std::int64_t steps, batch, hidden, width, layers, initial, threads, saving, symbols;
    double stretch, cell_stretch;
    const std::int64_t* lengths;  // [B]
    const std::int64_t* ids;      // [T, B], less than `symbols`, or null
    // inputs
    const void *inputs, *noise;                       // [T, B, 4H], or [symbols, 4H] if there are ids; [T, B, 2E] or null
    const void *hidden0, *cell0, *read0;              // [K, B, H], [K, B, H], [B, E M]
    const void* const* recurrent;                     // K times
    const void* const* biases;                        // K - 1 times
    const void *control, *control_bias;               // [H, 2E + E M], [2E + E M]
    // results
    void *top_hidden, *push, *pop;                    // [T, B, H], [T, B, E], [T, B, E]
    void *end_hidden, *end_cell, *end_read;           // [K, B, H], [K, B, H], [B, E M]
    MemoryArrays memory;
    // saved for the derivative, the last three only if `saving`
    void *squashed, *activated, *cells;               // [T, B, 2E], [K, T, B, 4H], [K, T, B, H]
    void* const* sources;                             // K times [T, B, E M + H or 2H]
};

struct RecurrenceGradientCall {
    RecurrenceCall forward;
    // gradients of the results; null where there is none
    const void *g_top_hidden, *g_end_hidden, *g_end_cell, *g_end_read;
    // gradients wanted
    void *g_inputs, *g_noise;                         // [T, B, 4H], or [symbols, 4H] if there are ids; [T, B, 2E]
    void *g_hidden0, *g_cell0, *g_read0;              // [K, B, H], [K, B, H], [B, E M]
    void *g_control, *g_control_bias;                 // [H, 2E + E M], [2E + E M]
    MemoryGradientArrays gradients;                   // and of the results among them
    void* const* g_recurrent;                         // K times [E M + H or 2H, 4H]
    void* const* g_biases;                            // K - 1 times [4H]
};

// What follows the recurrence
struct ReadOutCall {
    std::int64_t steps, batch, hidden, symbols, threads;
    double temperature;
    const std::int64_t *lengths, *targets;       // [B], falling; [T, B], each less than V
    const void* states;                          // [T, B, H]
    const void *output, *output_bias;            // [H, H], [H]
    const void *logits, *logits_bias;            // [V, H], [V]
    // results: either whether the greatest logit is the target's, [T, B], or, if that is null, the rest
    std::int8_t* right;
    double* losses;  // at the temperature, and at 1
    void *g_states, *g_output, *g_output_bias, *g_logits, *g_logits_bias;
};

// The arrays of an encoder or decoder, as the model has them
struct CellArrays {
    const float* symbols;           // [V, 4H]
    const float* const* recurrent;  // K times [M + H or 2H, 4H]
    const float* const* biases;     // K times [4H]
    const float *control, *control_bias;
};

// A whole model, for a stream of symbols
struct StreamCall {
    std::int64_t structure, hidden, width, layers, symbols, outputs;  // 0 a stack, 1 a queue, 2 a deque
    std::int64_t kept;  // about how many values of a stack are kept in memory, though they could be found again
    double stretch, cell_stretch;
    CellArrays encoder, decoder;
    const float *hidden0, *cell0;           // [K, H]
    const float *output, *output_bias;      // [O, H], [O]
    const float *logits, *logits_bias;      // [V, O], [V]
};

// Strings that a stream's model reads and answers. String i has lengths[i] symbols and room for limits[i] answered ones,
// one string after the other; counts[i] says how many were written.
struct AnswerCall {
    std::int64_t count, start, separator, stop;
    const std::int64_t *lengths, *limits;
    const std::int32_t* symbols;
    // results
    std::int64_t* counts;
    std::int32_t* written;
};

// 'i' for an integer of 64 bits, 'd' for a double, 'p' for a pointer, 's' for a struct or an array
template <typename Field>
constexpr char kind_of() {
    if constexpr (std::is_pointer_v<Field>) return 'p';
    if constexpr (std::is_same_v<Field, std::int64_t>) return 'i';
    if constexpr (std::is_same_v<Field, double>) return 'd';
    return 's';
}

// One line: the struct's name and size, its fields' names, and for each its kind, offset and size
template <typename Call, typename... Fields>
std::string layout_of(const char* name, const char* names, const Call& call, const Fields&... fields) {
    std::string line = std::string(name) + "\t" + std::to_string(sizeof(Call)) + "\t" + names + "\t";
    const auto add = [&](char kind, const void* field, std::size_t size) {
        const auto offset = static_cast<const char*>(field) - reinterpret_cast<const char*>(&call);
        line += kind + std::to_string(offset) + "+" + std::to_string(size) + " ";
    };
    (add(kind_of<Fields>(), &fields, sizeof fields), ...);
    return line + "\n";
}

// The fields are named once more, but inside the struct: a name that it does not have does not compile, and one that is
// left out here makes the sizes disagree.
#define STACKREV_LAYOUT(Call, ...)                                                                        \
    struct Call##Layout : Call {                                                                          \
        std::string line() const {                                                                        \
            return layout_of(#Call, #__VA_ARGS__, static_cast<const Call&>(*this), __VA_ARGS__);          \
        }                                                                                                 \
    };

STACKREV_LAYOUT(MemoryArrays, values, bottoms0, tops0, low0, high0, bottoms, tops, low, high, levels, links)
STACKREV_LAYOUT(MemoryGradientArrays, g_end_values, g_end_bottoms, g_end_tops, g_end_low, g_end_high, g_values, g_bottoms0,
                g_tops0, g_low0, g_high0)
STACKREV_LAYOUT(MemoryCall, steps, batch, width, initial, threads, push, pop, depth, memory, reads)
STACKREV_LAYOUT(MemoryGradientCall, forward, g_reads, g_step, g_row, gradients, g_push, g_pop, g_depth)
STACKREV_LAYOUT(RecurrenceCall, steps, batch, hidden, width, layers, initial, threads, saving, symbols, stretch,
                cell_stretch, lengths, ids, inputs, noise, hidden0, cell0, read0, recurrent, biases, control, control_bias,
                top_hidden, push, pop, end_hidden, end_cell, end_read, memory, squashed, activated, cells, sources)
STACKREV_LAYOUT(RecurrenceGradientCall, forward, g_top_hidden, g_end_hidden, g_end_cell, g_end_read, g_inputs, g_noise,
                g_hidden0, g_cell0, g_read0, g_control, g_control_bias, gradients, g_recurrent, g_biases)
STACKREV_LAYOUT(ReadOutCall, steps, batch, hidden, symbols, threads, temperature, lengths, targets, states, output,
                output_bias, logits, logits_bias, right, losses, g_states, g_output, g_output_bias, g_logits,
                g_logits_bias)
STACKREV_LAYOUT(CellArrays, symbols, recurrent, biases, control, control_bias)
STACKREV_LAYOUT(StreamCall, structure, hidden, width, layers, symbols, outputs, kept, stretch, cell_stretch, encoder,
                decoder, hidden0, cell0, output, output_bias, logits, logits_bias)
STACKREV_LAYOUT(AnswerCall, count, start, separator, stop, lengths, limits, symbols, counts, written)

inline std::string layouts() {
    return MemoryArraysLayout{}.line() + MemoryGradientArraysLayout{}.line() + MemoryCallLayout{}.line() +
           MemoryGradientCallLayout{}.line() + RecurrenceCallLayout{}.line() + RecurrenceGradientCallLayout{}.line() +
           ReadOutCallLayout{}.line() + CellArraysLayout{}.line() + StreamCallLayout{}.line() + AnswerCallLayout{}.line() +
           "kNoMemory " + std::to_string(kNoMemory) + "\nkWrongLengths " + std::to_string(kWrongLengths) +
           "\nkUnknownSymbol " + std::to_string(kUnknownSymbol) + "\nkChunkRows " + std::to_string(kChunkRows) + "\n";
}

}  // namespace stackrev
