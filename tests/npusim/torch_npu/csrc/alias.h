// The same bytes seen from both sides: a host tensor over device memory, and the way back.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>

#include "memory.h"

namespace npusim {

using at::Tensor;

inline bool on_npu(const Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kNPU;
}

inline void copy_view(const Tensor& from, const Tensor& to) {
  auto* impl = to.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(from.sizes(), from.strides(), from.storage_offset());
  if (from.is_conj()) {
    impl->_set_conj(true);
  }
  if (from.is_neg()) {
    impl->_set_neg(true);
  }
}

inline void drop_storage(void* context) {
  delete static_cast<c10::Storage*>(context);
}

// A CPU tensor over the bytes of a device tensor, which it keeps alive.
inline Tensor host_view(const Tensor& tensor, bool may_be_resized = false) {
  const auto& storage = tensor.storage();
  c10::DataPtr memory(
      storage.mutable_data(), new c10::Storage(storage), &drop_storage, c10::Device(c10::kCPU));
  c10::Storage host(
      c10::Storage::use_byte_size_t{}, storage.nbytes(), std::move(memory),
      may_be_resized ? c10::GetCPUAllocator() : nullptr, may_be_resized);
  auto view = at::detail::make_tensor<c10::TensorImpl>(
      std::move(host), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  copy_view(tensor, view);
  return view;
}

inline std::optional<Tensor> host_view(const std::optional<Tensor>& tensor) {
  return tensor.has_value() && tensor->defined() ? std::optional<Tensor>(host_view(*tensor))
                                                 : std::nullopt;
}

// A device tensor in ``storage``, laid out like ``host``.
inline Tensor device_view(c10::Storage storage, const Tensor& host) {
  auto view = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), host.dtype());
  copy_view(host, view);
  return view;
}

// Memory of a device that is a host storage taken over; nothing is copied.
inline c10::DataPtr take_over(const c10::Storage& host, DeviceIndex device) {
  const int64_t bytes = block_bytes(host.nbytes());
  take(device, bytes);
  auto* block = new Block{nullptr, bytes, device, host};
  return {host.mutable_data(), block, &free_block, c10::Device(kNPU, device)};
}

// A host tensor as a tensor of a device, in the same memory.
inline Tensor adopt(const Tensor& host, DeviceIndex device) {
  if (!host.defined()) {
    return host;
  }
  TORCH_CHECK(host.layout() == at::kStrided, "sparse results are not simulated");
  c10::Storage storage(
      c10::Storage::use_byte_size_t{}, host.storage().nbytes(),
      take_over(host.storage(), device), device_memory(), true);
  return device_view(std::move(storage), host);
}

inline void check_on_npu(const char* where, std::initializer_list<const Tensor*> tensors) {
  DeviceIndex device = -1;
  for (const auto* tensor : tensors) {
    if (!tensor->defined()) {
      continue;
    }
    TORCH_CHECK(
        on_npu(*tensor),
        "Expected all tensors to be on the same device. Expected NPU tensor, please check whether "
        "the input tensor device is correct. (", where, " got a tensor on ", tensor->device(), ")");
    TORCH_CHECK(
        device < 0 || device == tensor->device().index(),
        "Expected all tensors to be on the same device, but found at least two devices in ", where);
    device = tensor->device().index();
  }
}

}  // namespace npusim
