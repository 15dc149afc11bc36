// The kernel behind every operator: the CPU's kernel, run on host views of device tensors.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/util/SmallVector.h>

#include <unordered_map>

#include "alias.h"
#include "device.h"

namespace npusim {

// What the kernel must know about an operator; found once.
struct Operator {
  std::string name;  // aten::add.Tensor
  bool always_syncs = false;
  bool repeats = false;
  int64_t generator_argument = -1;
  std::atomic<bool> is_forbidden{false};
  std::atomic<int64_t> calls{0};

  explicit Operator(const c10::FunctionSchema& schema) : name(schema.name()) {
    static const std::set<std::string> syncing{
        "aten::nonzero",          "aten::masked_select", "aten::_unique",
        "aten::_unique2",         "aten::unique_dim",    "aten::unique_consecutive",
        "aten::unique_dim_consecutive", "aten::bincount", "aten::equal"};
    always_syncs = syncing.count(name) != 0;
    if (!schema.overload_name().empty()) {
      name += "." + schema.overload_name();
    }
    repeats = name == "aten::repeat_interleave.Tensor";
    for (size_t index = 0; index < schema.arguments().size(); index++) {
      if (schema.arguments()[index].name() == "generator") {
        generator_argument = static_cast<int64_t>(index);
      }
    }
  }
};

struct Operators {
  std::unordered_map<const void*, std::unique_ptr<Operator>> by_schema;
  std::mutex mutex;
};

inline Operators& operators() {
  static auto* all = new Operators;
  return *all;
}

inline Operator& operator_of(const c10::OperatorHandle& handle) {
  std::lock_guard<std::mutex> guard(operators().mutex);
  auto& entry = operators().by_schema[&handle.schema()];
  if (entry == nullptr) {
    entry = std::make_unique<Operator>(handle.schema());
    entry->is_forbidden = rules().forbidden_operators.count(entry->name) != 0;
  }
  return *entry;
}

inline void forbid_operators(std::set<std::string> names) {
  std::lock_guard<std::mutex> guard(operators().mutex);
  for (auto& [schema, entry] : operators().by_schema) {
    entry->is_forbidden = names.count(entry->name) != 0;
  }
  rules().forbidden_operators = std::move(names);
}

class KernelCall {
 public:
  KernelCall(const c10::OperatorHandle& handle, Operator& entry, c10::Stack* stack)
      : handle_(handle),
        schema_(handle.schema()),
        operator_(entry),
        stack_(*stack),
        first_(stack->size() - handle.schema().arguments().size()) {}

  void run() {
    operator_.calls++;
    TORCH_CHECK_NOT_IMPLEMENTED(
        !operator_.is_forbidden, "operator ", operator_.name, " was forbidden on the NPU");
    for (size_t index = 0; index < schema_.arguments().size(); index++) {
      take_argument(index);
    }
    check();
    give_generator();
    handle_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
    write_back();
    give_results();
  }

 private:
  struct Pair {
    Tensor device;
    Tensor host;
    bool is_written;
  };

  void take_argument(size_t index) {
    auto& value = stack_[first_ + index];
    const auto* alias = schema_.arguments()[index].alias_info();
    const bool is_written = alias != nullptr && alias->isWrite();
    if (value.isTensor()) {
      value = to_host(value.toTensor(), is_written);
    } else if (value.isTensorList()) {
      c10::List<Tensor> views;
      for (const auto& tensor : value.toTensorVector()) {
        views.push_back(to_host(tensor, is_written));
      }
      value = std::move(views);
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> views;
      for (const std::optional<Tensor>& index_tensor : value.toOptionalTensorList()) {
        views.push_back(index_to_host(index_tensor));
      }
      value = std::move(views);
    } else if (value.isDevice()) {
      asked_device_ = value.toDevice();
      value = c10::Device(c10::kCPU);
    }
  }

  Tensor to_host(const Tensor& tensor, bool is_written) {
    if (!tensor.defined()) {
      return tensor;
    }
    if (tensor.device().is_cpu()) {
      TORCH_CHECK(
          tensor.dim() == 0 && !is_written,
          "Expected all tensors to be on the same device. Expected NPU tensor, please check "
          "whether the input tensor device is correct. (", operator_.name,
          " got a CPU tensor of shape ", tensor.sizes(), ")");
      return tensor;
    }
    TORCH_CHECK(on_npu(tensor), "unexpected device ", tensor.device(), " in ", operator_.name);
    const auto device = tensor.device().index();
    TORCH_CHECK(
        device_ < 0 || device_ == device,
        "Expected all tensors to be on the same device, but found at least two devices, npu:",
        static_cast<int>(device_), " and npu:", static_cast<int>(device), " in ", operator_.name);
    device_ = device;
    has_float64_ |= tensor.scalar_type() == at::kDouble || tensor.is_complex();
    pairs_.push_back({tensor, host_view(tensor, is_written), is_written});
    return pairs_.back().host;
  }

  // Indices may lie on the host, and masks have a length that only their values tell; both wait.
  std::optional<Tensor> index_to_host(const std::optional<Tensor>& index) {
    if (!index.has_value() || !index->defined()) {
      return index;
    }
    if (index->device().is_cpu() && index->dim() != 0) {
      note_sync(operator_.name + " with a CPU index");
      return index;
    }
    if (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte) {
      note_sync(operator_.name + " with a boolean mask");
    }
    return to_host(*index, false);
  }

  void check() {
    if (operator_.always_syncs) {
      note_sync(operator_.name);
    }
    if (operator_.repeats && stack_.back().isNone()) {
      note_sync("aten::repeat_interleave without output_size");
    }
    if (has_float64_) {
      note_float64(operator_.name);
    }
    if (device_ < 0) {
      const bool is_named = asked_device_.has_value() && asked_device_->has_index();
      device_ = is_named ? asked_device_->index() : current_device;
    }
  }

  void give_generator() {
    if (operator_.generator_argument >= 0) {
      auto& value = stack_[first_ + operator_.generator_argument];
      value = host_generator(value.toOptional<at::Generator>(), device_);
    }
  }

  // The CPU kernel may have resized what it wrote to.
  void write_back() {
    for (auto& [device, host, is_written] : pairs_) {
      if (!is_written) {
        continue;
      }
      const auto& storage = device.storage();
      if (host.storage().data() != storage.data()) {
        storage.set_data_ptr_noswap(take_over(host.storage(), device.device().index()));
        storage.set_nbytes(host.storage().nbytes());
      }
      if (host.sizes() != device.sizes() || host.strides() != device.strides()) {
        device.unsafeGetTensorImpl()->set_sizes_and_strides(
            host.sizes(), host.strides(), host.storage_offset());
      }
    }
  }

  void give_results() {
    const size_t number = schema_.returns().size();
    for (size_t index = stack_.size() - number; index < stack_.size(); index++) {
      auto& value = stack_[index];
      if (value.isTensor()) {
        value = to_device(value.toTensor());
      } else if (value.isTensorList()) {
        c10::List<Tensor> tensors;
        for (const auto& tensor : value.toTensorVector()) {
          tensors.push_back(to_device(tensor));
        }
        value = std::move(tensors);
      }
    }
  }

  Tensor to_device(const Tensor& host) {
    if (!host.defined()) {
      return host;
    }
    for (const auto& pair : pairs_) {
      if (pair.host.is_same(host)) {
        return pair.device;
      }
    }
    const auto* storage = host.storage().unsafeGetStorageImpl();
    for (const auto& pair : pairs_) {
      if (pair.host.storage().unsafeGetStorageImpl() == storage) {
        return device_view(pair.device.storage(), host);
      }
    }
    if (host.scalar_type() == at::kDouble && !has_float64_) {
      note_float64(operator_.name);
    }
    return adopt(host, device_);
  }

  const c10::OperatorHandle& handle_;
  const c10::FunctionSchema& schema_;
  Operator& operator_;
  c10::Stack& stack_;
  const size_t first_;
  c10::SmallVector<Pair, 6> pairs_;
  std::optional<c10::Device> asked_device_;
  DeviceIndex device_ = -1;
  bool has_float64_ = false;
};

// For operators the device has a kernel for.
inline void run_kernel(const c10::OperatorHandle& handle, c10::Stack* stack) {
  KernelCall(handle, operator_of(handle), stack).run();
}

// For operators it has none for.
inline void run_fallback(const c10::OperatorHandle& handle, c10::Stack* stack) {
  auto& entry = operator_of(handle);
  note_fallback(entry.name);
  KernelCall(handle, entry, stack).run();
}

}  // namespace npusim
