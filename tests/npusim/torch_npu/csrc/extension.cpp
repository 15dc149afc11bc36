// What Python sees of the simulated device; the one translation unit, since torch's headers are slow.
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "collectives.h"
#include "registration.h"

namespace npusim {
namespace {

Counts all_operators() {
  Counts counts;
  {
    std::lock_guard<std::mutex> guard(statistics().mutex);
    counts = statistics().operators;
  }
  std::lock_guard<std::mutex> guard(operators().mutex);
  for (const auto& [schema, entry] : operators().by_schema) {
    if (entry->calls != 0) {
      counts[entry->name] += entry->calls;
    }
  }
  return counts;
}

std::map<std::string, Counts> read_statistics() {
  auto operators_now = all_operators();
  std::lock_guard<std::mutex> guard(statistics().mutex);
  const auto& now = statistics();
  return {{"operators", std::move(operators_now)},
          {"fallbacks", now.fallbacks},
          {"syncs", now.syncs},
          {"float64", now.float64},
          {"collective_calls", now.collective_calls},
          {"collective_bytes", now.collective_bytes}};
}

void reset_statistics() {
  {
    std::lock_guard<std::mutex> guard(statistics().mutex);
    auto& now = statistics();
    for (auto* counts : {&now.operators, &now.fallbacks, &now.syncs, &now.float64,
                         &now.collective_calls, &now.collective_bytes}) {
      counts->clear();
    }
  }
  std::lock_guard<std::mutex> guard(operators().mutex);
  for (auto& [schema, entry] : operators().by_schema) {
    entry->calls = 0;
  }
}

// Kernels run without the interpreter's lock, so the callback takes it.
void on_first_sync(const pybind11::object& callback) {
  auto* kept = new pybind11::object(callback);  // outlives the interpreter's own end
  rules().on_first_sync = [kept](const std::string& cause) {
    pybind11::gil_scoped_acquire lock;
    (*kept)(cause);
  };
}

void set_device(DeviceIndex device) {
  TORCH_CHECK(device >= 0 && device < num_devices(), "invalid NPU device index ", int{device});
  current_device = device;
}

c10::intrusive_ptr<c10d::Backend> make_hccl(
    const c10::intrusive_ptr<c10d::Backend>& inner, int rank, int size) {
  return c10::make_intrusive<HcclBackend>(inner, rank, size);
}

uint64_t draw_seed(DeviceIndex device) {
  return default_generator(device).get<Generator>()->draw();
}

}  // namespace
}  // namespace npusim

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  using namespace npusim;
  module.def("register_everything", &register_everything);

  module.def("device_count", &num_devices);
  module.def("current_device", [] { return current_device; });
  module.def("set_device", &set_device);
  module.def("default_generator", &default_generator);
  module.def("draw_seed", &draw_seed);
  module.def("set_memory_limit", [](DeviceIndex device, int64_t bytes) {
    account_of(device).limit = bytes;
  });

  module.def("host_view", [](const Tensor& tensor) { return host_view(tensor); });
  module.def("adopt", &adopt);
  module.def("make_hccl", &make_hccl);

  module.def("count_operator", &count_operator);
  module.def("note_sync", &note_sync);
  module.def("read_statistics", &read_statistics);
  module.def("reset_statistics", &reset_statistics);
  module.def("on_first_sync", &on_first_sync);
  module.def("set_sync_mode", [](int mode) { rules().sync_mode = mode; });
  module.def("sync_mode", [] { return rules().sync_mode.load(); });
  module.def("forbid_float64", [](bool on) { rules().forbid_float64 = on; });
  module.def("forbid_fallbacks", [](bool on) { rules().forbid_fallbacks = on; });
  module.def("forbid_operators", &forbid_operators);
}
