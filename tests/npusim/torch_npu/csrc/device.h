// Devices, streams, events and random generators; everything runs at once, in the caller's thread.
#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <array>
#include <vector>

#include "memory.h"

namespace npusim {

inline thread_local std::array<c10::StreamId, kMaxDevices> current_streams{};

class DeviceGuard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override {
    return kNPU;
  }
  c10::Device getDevice() const override {
    return {kNPU, current_device};
  }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < num_devices(), "invalid NPU device index ", device);
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index()) {
      current_device = device.index();
    }
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto previous = getDevice();
    setDevice(device);
    return previous;
  }
  DeviceIndex deviceCount() const noexcept override {
    return num_devices();
  }
  c10::DeviceCapability getDeviceCapability(c10::Device) const override {
    return {};
  }

  c10::Stream getStream(c10::Device device) const override {
    return stream(device, current_streams.at(index_of(device)));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return stream(device, 0);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    static std::atomic<c10::StreamId> last{0};
    return stream(device, ++last);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return getNewStream(device, 0);
  }
  c10::Stream exchangeStream(c10::Stream next) const override {
    const auto previous = getStream(next.device());
    current_streams.at(next.device_index()) = next.id();
    return previous;
  }
  void* getStreamNativeHandle(const c10::Stream stream) const override {
    return reinterpret_cast<void*>(stream.id());
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {
    note_deliberate_sync("synchronize a stream");
  }
  void synchronizeDevice(const DeviceIndex) const override {
    note_deliberate_sync("synchronize the device");
  }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}

  // Whatever an event could wait for has already happened.
  void record(void** event, const c10::Stream&, const DeviceIndex, const c10::EventFlag)
      const override {
    static char recorded;
    *event = &recorded;
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  void synchronizeEvent(void*) const override {
    note_deliberate_sync("synchronize an event");
  }
  double elapsedTime(void*, void*, const DeviceIndex) const override {
    return 0.0;
  }

 private:
  static DeviceIndex index_of(c10::Device device) {
    return device.has_index() ? device.index() : current_device;
  }
  static c10::Stream stream(c10::Device device, c10::StreamId id) {
    return c10::Stream(c10::Stream::UNSAFE, c10::Device(kNPU, index_of(device)), id);
  }
};

// Counter-based like the real one: 16 bytes of state, seed and offset, and every use moves the offset.
class Generator final : public c10::GeneratorImpl {
 public:
  explicit Generator(DeviceIndex device)
      : c10::GeneratorImpl({kNPU, device}, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {}

  void set_current_seed(uint64_t seed) override {
    seed_ = seed;
    offset_ = 0;
  }
  uint64_t current_seed() const override {
    return seed_;
  }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom(true));
    return seed_;
  }
  void set_offset(uint64_t offset) override {
    offset_ = offset;
  }
  uint64_t get_offset() const override {
    return offset_;
  }
  void set_state(const c10::TensorImpl& state) override {
    TORCH_CHECK(state.numel() == 8 || state.numel() == 16, "RNG state is wrong size");
    const auto* bytes = static_cast<const uint8_t*>(state.data());
    std::memcpy(&seed_, bytes, 8);
    offset_ = 0;
    if (state.numel() == 16) {
      std::memcpy(&offset_, bytes + 8, 8);
    }
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    auto state = at::empty({16}, at::TensorOptions().dtype(at::kByte).device(at::kCPU));
    auto* bytes = static_cast<uint8_t*>(state.mutable_data_ptr());
    std::memcpy(bytes, &seed_, 8);
    std::memcpy(bytes + 8, &offset_, 8);
    return state.getIntrusivePtr();
  }

  // A seed for one use: the next output of SplitMix64.
  uint64_t draw() {
    std::lock_guard<std::mutex> guard(mutex_);
    uint64_t word = seed_ + 0x9E3779B97F4A7C15ull * (offset_ + 1);
    offset_ += 4;
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9ull;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EBull;
    return word ^ (word >> 31);
  }

 private:
  Generator* clone_impl() const override {
    auto* copy = new Generator(device().index());
    copy->seed_ = seed_;
    copy->offset_ = offset_;
    return copy;
  }
  uint64_t seed_ = c10::default_rng_seed_val;
  uint64_t offset_ = 0;
};

inline const at::Generator& default_generator(DeviceIndex device) {
  static const auto* all = [] {
    auto* generators = new std::vector<at::Generator>;
    for (int index = 0; index < kMaxDevices; index++) {
      generators->push_back(at::make_generator<Generator>(static_cast<DeviceIndex>(index)));
    }
    return generators;
  }();
  return all->at(device < 0 ? current_device : device);
}

// The host generator a CPU kernel gets in place of one of the device.
inline at::Generator host_generator(const std::optional<at::Generator>& asked, DeviceIndex device) {
  const auto& generator = asked.has_value() && asked->defined() ? *asked : default_generator(device);
  TORCH_CHECK(
      generator.device().type() == kNPU,
      "Expected a 'npu' device type for generator but found '", generator.device().type(), "'");
  return at::detail::createCPUGenerator(generator.get<Generator>()->draw());
}

class Hooks final : public at::PrivateUse1HooksInterface {
 public:
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return num_devices() > 0;
  }
  bool hasPrimaryContext(DeviceIndex) const override {
    return true;
  }
  DeviceIndex deviceCount() const override {
    return num_devices();
  }
  DeviceIndex getCurrentDevice() const override {
    return current_device;
  }
  void setCurrentDevice(DeviceIndex device) const override {
    DeviceGuard().setDevice({kNPU, device});
  }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    return DeviceGuard().exchangeDevice({kNPU, device}).index();
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override {
    return device < 0 ? current_device : exchangeDevice(device);
  }
  const at::Generator& getDefaultGenerator(DeviceIndex device) const override {
    return default_generator(device);
  }
  at::Generator getNewGenerator(DeviceIndex device) const override {
    return at::make_generator<Generator>(device < 0 ? current_device : device);
  }
  at::Device getDeviceFromPtr(void*) const override {
    return {kNPU, current_device};
  }
  bool isPinnedPtr(const void* address) const override {
    return PinnedMemory::get()->holds(address);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return PinnedMemory::get();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    DeviceScope scope(storage.device());
    auto memory = device_memory()->allocate(bytes);
    if (storage.data() != nullptr && bytes != 0) {
      std::memcpy(memory.get(), storage.data(), std::min(bytes, storage.nbytes()));
    }
    storage.set_data_ptr_noswap(std::move(memory));
    storage.set_nbytes(bytes);
  }
};

}  // namespace npusim
