// Count what a program does on the simulated device, and refuse what it was told to refuse.
#pragma once
#include <c10/util/Exception.h>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>

namespace npusim {

using Counts = std::map<std::string, int64_t>;

// Operators of the boxed kernel keep their own counter, see kernel.h; all others are counted here.
struct Statistics {
  Counts operators;
  Counts fallbacks;
  Counts syncs;
  Counts float64;
  Counts collective_calls;
  Counts collective_bytes;
  std::mutex mutex;
};

// Never destroyed: threads of a process group may outlive the main thread.
inline Statistics& statistics() {
  static auto* all = new Statistics;
  return *all;
}

// Same numbers as torch.npu.set_sync_debug_mode.
enum SyncMode : int { kCountSyncs = 0, kWarnOfSyncs = 1, kForbidSyncs = 2 };

struct Rules {
  std::atomic<int> sync_mode{kCountSyncs};
  std::atomic<bool> forbid_float64{false};
  std::atomic<bool> forbid_fallbacks{false};
  std::set<std::string> forbidden_operators;  // guarded by the mutex of the statistics
  std::function<void(const std::string&)> on_first_sync;  // called once per cause
};

inline Rules& rules() {
  static auto* all = new Rules;
  return *all;
}

inline int64_t add_to(Counts& counts, const std::string& name, int64_t amount = 1) {
  std::lock_guard<std::mutex> guard(statistics().mutex);
  return counts[name] += amount;
}

inline void count_operator(const std::string& name) {
  add_to(statistics().operators, name);
}

// The host has to wait for the device here.
inline void note_sync(const std::string& cause) {
  const bool is_first = add_to(statistics().syncs, cause) == 1;
  if (is_first && rules().on_first_sync) {
    rules().on_first_sync(cause);
  }
  if (rules().sync_mode == kWarnOfSyncs) {
    TORCH_WARN("called a synchronizing NPU operation: ", cause);
  }
  TORCH_CHECK(
      rules().sync_mode != kForbidSyncs, "called a synchronizing NPU operation: ", cause);
}

// The caller waits on purpose: counted, never refused.
inline void note_deliberate_sync(const std::string& cause) {
  add_to(statistics().syncs, cause);
}

inline void note_float64(const std::string& where) {
  add_to(statistics().float64, where);
  TORCH_CHECK(
      !rules().forbid_float64,
      "float64 or complex tensor on an NPU in ", where,
      ": the device has no such arithmetic, and casts to float64 give float32 there");
}

// No kernel for the device: real hardware copies to the host, computes there and copies back.
inline void note_fallback(const std::string& name) {
  add_to(statistics().fallbacks, name);
  TORCH_CHECK_NOT_IMPLEMENTED(
      !rules().forbid_fallbacks,
      "operator ", name, " has no NPU kernel and would run on the CPU (it is not in operators.txt)");
  note_sync("CPU fallback of " + name);
}

}  // namespace npusim
