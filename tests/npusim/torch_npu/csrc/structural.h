// Operators about storage rather than numbers: making, copying, viewing and resizing tensors.
#pragma once
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>

#include "alias.h"
#include "device.h"

namespace npusim {

inline at::ScalarType checked_dtype(std::optional<at::ScalarType> asked, const char* where) {
  const auto dtype = asked.value_or(at::get_default_dtype_as_scalartype());
  if (dtype == at::kDouble || at::isComplexType(dtype)) {
    note_float64(where);
  }
  return dtype;
}

inline Tensor empty_memory_format(
    c10::IntArrayRef size,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout> layout,
    std::optional<at::Device> device,
    std::optional<bool> pin_memory,
    std::optional<at::MemoryFormat> memory_format) {
  TORCH_CHECK(!pin_memory.value_or(false), "Only dense CPU tensors can be pinned");
  TORCH_CHECK(layout.value_or(at::kStrided) == at::kStrided, "only strided tensors are simulated");
  DeviceScope scope(device.value_or(c10::Device(kNPU)));
  return at::detail::empty_generic(
      size, device_memory(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      checked_dtype(dtype, "aten::empty"), memory_format);
}

inline Tensor empty_strided(
    c10::IntArrayRef size,
    c10::IntArrayRef stride,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device> device,
    std::optional<bool> pin_memory) {
  TORCH_CHECK(!pin_memory.value_or(false), "Only dense CPU tensors can be pinned");
  DeviceScope scope(device.value_or(c10::Device(kNPU)));
  return at::detail::empty_strided_generic(
      size, stride, device_memory(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      checked_dtype(dtype, "aten::empty_strided"));
}

// Only pinned memory lets the host go on while the copy runs.
inline void note_copy(const Tensor& from, const Tensor& to, bool non_blocking) {
  if (on_npu(from) == on_npu(to)) {
    return;
  }
  const auto& host = on_npu(from) ? to : from;
  const bool is_pinned = PinnedMemory::get()->holds(host.storage().data());
  if (host.numel() == 0 || (non_blocking && is_pinned)) {
    return;
  }
  std::string cause = on_npu(from) ? "copy device to host" : "copy host to device";
  if (non_blocking) {
    cause += ", non_blocking but not pinned";
  } else if (host.dim() == 0) {
    cause += ", one number";
  }
  note_sync(cause);
}

inline Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  count_operator("aten::_copy_from");
  note_copy(from, to, non_blocking);
  const auto source = on_npu(from) ? host_view(from) : from;
  const auto target = on_npu(to) ? host_view(to) : to;
  target.copy_(source);
  return to;
}

inline Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

inline at::Scalar local_scalar(const Tensor& tensor) {
  count_operator("aten::_local_scalar_dense");
  note_sync("aten::_local_scalar_dense (.item(), bool(), int(), float())");
  return host_view(tensor).item();
}

inline const Tensor& resize(
    const Tensor& tensor, c10::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  DeviceScope scope(tensor.device());
  return at::native::resize_(tensor, size, format);
}

inline Tensor& set_storage(Tensor& tensor, at::Storage source) {
  const auto number = static_cast<int64_t>(source.nbytes() / tensor.itemsize());
  return at::native::set_storage_cpu_(tensor, std::move(source), 0, {number}, {});
}

inline Tensor& set_empty(Tensor& tensor) {
  DeviceScope scope(tensor.device());
  c10::Storage storage(
      c10::Storage::use_byte_size_t{}, 0, device_memory()->allocate(0), device_memory(), true);
  return at::native::set_storage_cpu_(tensor, std::move(storage), 0, {0}, {});
}

inline void record_stream(Tensor&, c10::Stream) {}

// The real device allows `parameter.data = tensor` from the host to it and back.
inline bool has_compatible_type(const Tensor& one, const Tensor& other) {
  const auto is_dense = [](const Tensor& tensor) {
    return tensor.layout() == at::kStrided && (on_npu(tensor) || tensor.is_cpu());
  };
  return is_dense(one) && is_dense(other);
}

}  // namespace npusim
