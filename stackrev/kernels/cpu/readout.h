// What follows the recurrence, o = tanh(W_o h + b_o) and logits = W_l o + b_l, up to the mean cross-entropy of the steps
// that rows take, with all its gradients; or up to whether the greatest logit is the target's.
//
//     T, B, H, V         steps, rows, width of h and of o, symbols
//     n                  steps that are taken, the sum of the lengths
//     z, p, g            logits, softmax of z / temperature, gradient of z
//
// A step's rows go all the way, from h to its gradient, while they are in the cache: neither logits nor probabilities are
// ever in memory as a whole. Steps are cut into one part a thread; every part sums the gradients of the weights for
// itself, and these sums are added in the order of the parts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "calls.h"
#include "cell.h"
#include "matmul.h"
#include "threads.h"

namespace stackrev {

template <typename S>
class ReadOut {
   public:
    explicit ReadOut(const ReadOutCall& call)
        : c_(call), T(call.steps), B(call.batch), H(call.hidden), V(call.symbols), ph(padded<S>(H)), pv(padded<S>(V)),
          output_(H, ph), logits_(H, pv), output_bias_(ph), logits_bias_(pv) {
        const S *const output = static_cast<const S*>(c_.output), *const logits = static_cast<const S*>(c_.logits);
        for (Index i = 0; i < H; ++i) output_.set_across(0, i, output + i * H, H);
        for (Index i = 0; i < V; ++i) logits_.set_across(0, i, logits + i * H, H);
        copy<S>(output_bias_.data(), static_cast<const S*>(c_.output_bias), H);
        std::fill(logits_bias_.data(), logits_bias_.data() + pv, std::numeric_limits<S>::lowest());  // of what is padding
        copy<S>(logits_bias_.data(), static_cast<const S*>(c_.logits_bias), V);
        for (Index b = 0; b < B; ++b) n_ += c_.lengths[b];
        if (c_.right) return;
        output_back_ = Packed<S>(H, ph);
        logits_back_ = Packed<S>(V, ph);
        for (Index i = 0; i < H; ++i) output_back_.set_run(i, 0, output + i * H, H);
        for (Index i = 0; i < V; ++i) logits_back_.set_run(i, 0, logits + i * H, H);
    }

    void run() {
        const std::vector<Index> cuts = this->cuts();
        std::vector<Sums> sums(cuts.size() - 1);
        in_parallel(Index(sums.size()), c_.threads, [&](Index i) { sums[i] = run(cuts[i], cuts[i + 1]); });
        if (!c_.right) write(sums);
    }

   private:
    // [H, ph], [ph], [H, pv] (the transpose of what is wanted), [pv]
    struct Sums {
        Buffer<S> output, output_bias, logits, logits_bias;
        double losses[2] = {0, 0};
    };

    // How many rows take step t: of `rows` at most, the first so many
    Index running(Index t, Index rows) const {
        while (rows > 0 && c_.lengths[rows - 1] <= t) --rows;
        return rows;
    }

    // Cuts the steps where the sum of their rows passes each thread's share.
    std::vector<Index> cuts() const {
        const Index parts = std::max<Index>(1, std::min(Index(c_.threads), T));
        std::vector<Index> result{0};
        Index rows = B, done = 0;
        for (Index t = 0; t < T && Index(result.size()) < parts; ++t) {
            rows = running(t, rows);
            done += rows;
            if (done * parts >= n_ * Index(result.size())) result.push_back(t + 1);
        }
        if (result.back() < T || result.size() == 1) result.push_back(T);
        return result;
    }

    Sums run(Index first, Index end) const {
        Sums sums;
        if (!c_.right) {
            sums.output = Buffer<S>(H * ph);
            sums.output_bias = Buffer<S>(ph);
            sums.logits = Buffer<S>(H * pv);
            sums.logits_bias = Buffer<S>(pv);
        }
        Buffer<S> o(B * ph), z(B * pv), g_o(B * ph), g_h(B * ph);
        Index rows = B;
        for (Index t = first; t < end; ++t) {
            rows = running(t, rows);
            const S* const h = static_cast<const S*>(c_.states) + t * B * H;
            for (Index i = 0; i < rows; ++i) {
                copy<S>(o.data() + i * ph, output_bias_.data(), ph);
                copy<S>(z.data() + i * pv, logits_bias_.data(), pv);
            }
            multiply<S>(rows, o.data(), ph, h, H, output_, true);
            tanh_all<S>(o.data(), rows * ph);
            multiply<S>(rows, z.data(), pv, o.data(), ph, logits_, true);
            if (c_.right) {
                for (Index i = 0, at = t * B; i < B; ++i, ++at) {
                    c_.right[at] = i < rows && guess(z.data() + i * pv) == c_.targets[at];
                }
                continue;
            }
            for (Index i = 0; i < rows; ++i) cross_entropy(z.data() + i * pv, c_.targets[t * B + i], sums.losses);
            add_products<S>(sums.logits.data(), H, pv, {{o.data(), z.data(), rows}}, ph, pv);
            add_rows<S>(rows, sums.logits_bias.data(), pv, z.data(), pv);
            multiply<S>(rows, g_o.data(), ph, z.data(), pv, logits_back_, false);
            for (Index i = 0; i < rows * ph; i += Lanes<S>::count) {
                const Vector<S> squashed = load<S>(o.data() + i);
                store<S>(g_o.data() + i, load<S>(g_o.data() + i) * (1 - squashed * squashed));
            }
            add_products<S>(sums.output.data(), H, ph, {{h, g_o.data(), rows}}, H, ph);
            add_rows<S>(rows, sums.output_bias.data(), ph, g_o.data(), ph);
            multiply<S>(rows, g_h.data(), ph, g_o.data(), ph, output_back_, false);
            S* const g_states = static_cast<S*>(c_.g_states) + t * B * H;
            copy_parts<S>(g_states, H, g_h.data(), ph, rows, H);
            clear<S>(g_states + rows * H, (B - rows) * H);
        }
        return sums;
    }

    // NaN if one of them is
    S greatest(const S* z) const {
        constexpr Index count = Lanes<S>::count;
        const Vector<S> nothing{};
        Vector<S> best = load<S>(z), wrong{};
        for (Index j = 0; j < pv; j += count) {
            const Vector<S> each = load<S>(z + j);
            best = each > best ? each : best;
            wrong += each == each ? nothing : each;
        }
        S lanes[count];
        store<S>(lanes, best);
        return *std::max_element(lanes, lanes + count) + total<S>(wrong);
    }

    // The first of the greatest; V if one is NaN
    Index guess(const S* z) const { return std::find(z, z + V, greatest(z)) - z; }

    // The losses of one row, added to the sums; its logits become their gradient, (p - [target]) / (n temperature).
    void cross_entropy(S* z, Index target, double* losses) const {
        constexpr Index count = Lanes<S>::count;
        const S most = greatest(z), scale = static_cast<S>(1 / c_.temperature), own = z[target] - most;
        double total_at_one = 0;
        if (c_.temperature != 1) {
            Vector<S> sum{};
            for (Index j = 0; j < pv; j += count) sum += exponentials(z, j, most, 1);
            total_at_one = total<S>(sum);
        }
        Vector<S> sum{};
        for (Index j = 0; j < pv; j += count) {
            const Vector<S> each = exponentials(z, j, most, scale);
            sum += each;
            store<S>(z + j, each);
        }
        const double all = total<S>(sum);
        losses[0] += std::log(all) - double(own) * double(scale);
        losses[1] += std::log(c_.temperature != 1 ? total_at_one : all) - double(own);
        const S weight = static_cast<S>(1 / (double(n_) * c_.temperature)), share = static_cast<S>(weight / all);
        for (Index j = 0; j < pv; j += count) store<S>(z + j, load<S>(z + j) * share);
        z[target] -= weight;
    }

    // exp((z_j - most) scale) from j on; of what is padding, as good as nothing
    static Vector<S> exponentials(const S* z, Index j, S most, S scale) {
        Vector<S> power, minus_one;
        split_exponential<S>((load<S>(z + j) - most) * scale, power, minus_one);
        return power * minus_one + power;
    }

    void write(const std::vector<Sums>& parts) const {
        S *const output = static_cast<S*>(c_.g_output), *const output_bias = static_cast<S*>(c_.g_output_bias);
        S *const logits = static_cast<S*>(c_.g_logits), *const logits_bias = static_cast<S*>(c_.g_logits_bias);
        clear<S>(output, H * H);
        clear<S>(output_bias, H);
        clear<S>(logits, V * H);
        clear<S>(logits_bias, V);
        double losses[2] = {0, 0};
        for (const Sums& sums : parts) {
            for (Index i = 0; i < H; ++i) {
                for (Index j = 0; j < H; ++j) output[j * H + i] += sums.output[i * ph + j];
            }
            for (Index j = 0; j < V; ++j) {
                for (Index i = 0; i < H; ++i) logits[j * H + i] += sums.logits[i * pv + j];
            }
            add_scaled<S>(output_bias, 1, sums.output_bias.data(), H);
            add_scaled<S>(logits_bias, 1, sums.logits_bias.data(), V);
            for (int i = 0; i < 2; ++i) losses[i] += sums.losses[i];
        }
        for (int i = 0; i < 2; ++i) c_.losses[i] = losses[i] / double(n_);
    }

    const ReadOutCall& c_;
    const Index T, B, H, V;
    Index n_ = 0;
    const Index ph, pv;
    Packed<S> output_, logits_, output_back_, logits_back_;
    Buffer<S> output_bias_, logits_bias_;
};

}  // namespace stackrev
