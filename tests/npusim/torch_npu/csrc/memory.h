// Device memory: host memory with an account per device, a limit and the real allocator's sizes.
#pragma once
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Storage.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "statistics.h"

namespace npusim {

using c10::DeviceIndex;
constexpr auto kNPU = c10::DeviceType::PrivateUse1;
constexpr int kMaxDevices = 16;

inline DeviceIndex num_devices() {
  static const auto number = [] {
    const char* asked = std::getenv("NPU_SIM_DEVICES");
    const int there = asked ? std::atoi(asked) : 8;
    const char* visible = std::getenv("ASCEND_RT_VISIBLE_DEVICES");
    if (!visible || !*visible) return static_cast<DeviceIndex>(there);
    const int seen = 1 + std::count(visible, visible + std::strlen(visible), ',');
    return static_cast<DeviceIndex>(std::min(there, seen));
  }();
  return number;
}

// The thread's device, as in the real runtime.
inline thread_local DeviceIndex current_device = 0;

class DeviceScope {
 public:
  explicit DeviceScope(c10::Device device) : previous_(current_device) {
    if (device.has_index()) {
      TORCH_CHECK(device.index() < num_devices(), "invalid NPU device index ", device);
      current_device = device.index();
    }
  }
  ~DeviceScope() {
    current_device = previous_;
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  DeviceIndex previous_;
};

struct MemoryAccount {
  std::atomic<int64_t> allocated{0};
  std::atomic<int64_t> peak{0};
  std::atomic<int64_t> limit{int64_t{64} << 30};

  void add(int64_t bytes) {
    const int64_t now = allocated += bytes;
    int64_t highest = peak;
    while (now > highest && !peak.compare_exchange_weak(highest, now)) {
    }
  }
};

inline MemoryAccount& account_of(DeviceIndex device) {
  static auto* accounts = new std::array<MemoryAccount, kMaxDevices>;
  return accounts->at(device);
}

inline std::string readable(int64_t bytes) {
  const double mebibytes = static_cast<double>(bytes) / (1 << 20);
  char text[32];
  if (mebibytes >= 1024) {
    std::snprintf(text, sizeof(text), "%.2f GiB", mebibytes / 1024);
  } else {
    std::snprintf(text, sizeof(text), "%.2f MiB", mebibytes);
  }
  return text;
}

// What the real allocator takes for a request: blocks of 512 bytes, with 32 bytes behind the data.
inline int64_t block_bytes(size_t bytes) {
  return bytes == 0 ? 0 : (static_cast<int64_t>(bytes) + 32 + 511) / 512 * 512;
}

inline void take(DeviceIndex device, int64_t bytes) {
  auto& account = account_of(device);
  const int64_t used = account.allocated;
  const int64_t limit = account.limit;
  TORCH_CHECK_WITH(
      OutOfMemoryError, used + bytes <= limit,
      "NPU out of memory. Tried to allocate ", readable(bytes), " (NPU ",
      static_cast<int>(device), "; ", readable(limit), " total capacity; ", readable(used),
      " already allocated; ", readable(used), " current active; ", readable(limit - used),
      " free; ", readable(used), " reserved in total by PyTorch)");
  account.add(bytes);
}

// Context of a DataPtr: memory of our own, or a host storage that was taken over.
struct Block {
  void* address;
  int64_t bytes;
  DeviceIndex device;
  c10::Storage owner;
};

inline void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  std::free(block->address);
  account_of(block->device).add(-block->bytes);
  delete block;
}

class DeviceMemory final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const auto device = current_device;
    const int64_t taken = block_bytes(bytes);
    take(device, taken);
    void* address = nullptr;
    if (bytes != 0) {
      TORCH_CHECK(posix_memalign(&address, 512, bytes) == 0, "the host is out of memory");
    }
    return {address, new Block{address, taken, device, {}}, &free_block, {kNPU, device}};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  void resetAccumulatedStats(DeviceIndex) override {}

  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex device) override {
    const auto& account = account_of(device);
    c10::CachingDeviceAllocator::DeviceStats stats;
    for (auto* row : {&stats.allocated_bytes, &stats.reserved_bytes, &stats.active_bytes,
                      &stats.requested_bytes}) {
      for (auto& pool : *row) {
        pool.current = account.allocated;
        pool.peak = account.peak;
      }
    }
    return stats;
  }
  void resetPeakStats(DeviceIndex device) override {
    account_of(device).peak = account_of(device).allocated.load();
  }
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex device) override {
    const int64_t limit = account_of(device).limit;
    return {limit - account_of(device).allocated, limit};
  }
};

inline DeviceMemory* device_memory() {
  static auto* memory = new DeviceMemory;
  return memory;
}

// Pinned host memory is plain host memory whose addresses are remembered.
class PinnedMemory final : public c10::Allocator {
 public:
  static PinnedMemory* get() {
    static auto* memory = new PinnedMemory;
    return memory;
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* address = nullptr;
    if (bytes != 0) {
      TORCH_CHECK(posix_memalign(&address, 64, bytes) == 0, "the host is out of memory");
      std::lock_guard<std::mutex> guard(mutex_);
      addresses_.insert(address);
    }
    return {address, address, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
  bool holds(const void* address) {
    std::lock_guard<std::mutex> guard(mutex_);
    return addresses_.count(address) != 0;
  }

 private:
  static void release(void* address) {
    if (address != nullptr) {
      std::lock_guard<std::mutex> guard(get()->mutex_);
      get()->addresses_.erase(address);
      std::free(address);
    }
  }
  std::set<const void*> addresses_;
  std::mutex mutex_;
};

}  // namespace npusim
