// Tell torch's dispatcher which function runs which operator on the device.
#pragma once
#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include "kernel.h"
#include "neural.h"
#include "structural.h"

namespace npusim {

// Installing a fallback beside the one torch has for no device at all warns; it is meant.
class NoWarnings final : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

inline void register_device() {
  c10::SetAllocator(kNPU, device_memory());
  c10::impl::registerDeviceGuard(kNPU, new DeviceGuard);
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  at::native::_fused_sdp_choice_stub.set_privateuse1_dispatch_ptr(&choose_attention);
}

inline void register_own_kernels(torch::Library& library) {
  library.impl("empty.memory_format", &empty_memory_format);
  library.impl("empty_strided", &empty_strided);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
  library.impl("_local_scalar_dense", &local_scalar);
  library.impl("as_strided", &at::native::as_strided_tensorimpl);
  library.impl("view", &at::native::view);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("resize_", &resize);
  library.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  library.impl("set_.source_Storage", &set_storage);
  library.impl("set_.source_Tensor", &at::native::set_tensor_);
  library.impl("set_", &set_empty);
  library.impl("record_stream", &record_stream);
  library.impl("_has_compatible_shallow_copy_type", &has_compatible_type);
  library.impl("native_dropout", &native_dropout);
  library.impl("gelu", &gelu);
  library.impl("gelu_backward", &gelu_backward);
  library.impl("_fused_sdp_choice", &choose_attention);
  library.impl("convolution_overrideable", &convolution);
  library.impl("convolution_backward_overrideable", &convolution_backward);
  library.impl("_scaled_dot_product_fused_attention_overrideable", &attention);
  library.impl("_scaled_dot_product_fused_attention_overrideable_backward", &attention_backward);
}

// Operators whose result type changes under autocast.
inline void register_autocast(torch::Library& m) {
#define NPUSIM_LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define NPUSIM_FLOAT32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define NPUSIM_FLOAT32_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define NPUSIM_PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(NPUSIM_LOWER)
  AT_FORALL_FP32(NPUSIM_FLOAT32)
  AT_FORALL_FP32_SET_OPT_DTYPE(NPUSIM_FLOAT32_DTYPE)
  AT_FORALL_PROMOTE(NPUSIM_PROMOTE)
#undef NPUSIM_LOWER
#undef NPUSIM_FLOAT32
#undef NPUSIM_FLOAT32_DTYPE
#undef NPUSIM_PROMOTE
}

// Operators on lists would otherwise be taken apart; copies between devices have to be.
inline bool is_list_operator(const std::string& name) {
  return name.rfind("aten::_foreach_", 0) == 0 && name.rfind("aten::_foreach_copy_", 0) != 0;
}

// The listed operators that have a kernel on the CPU get it on the device; all others fall back.
inline void register_listed_kernels(torch::Library& library, const std::vector<std::string>& names) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : names) {
    const auto point = name.find('.');
    const auto overload = point == std::string::npos ? "" : name.substr(point + 1);
    const auto handle = dispatcher.findOp({name.substr(0, point), overload});
    if (!handle.has_value() || handle->hasKernelForDispatchKey(c10::DispatchKey::PrivateUse1)) {
      continue;
    }
    if (!handle->hasKernelForDispatchKey(c10::DispatchKey::CPU) && !is_list_operator(name)) {
      continue;
    }
    library.impl(
        name.substr(std::strlen("aten::")).c_str(),
        torch::CppFunction::makeFromBoxedFunction<&run_kernel>());
  }
}

// Args: names of the aten operators the real device has kernels for, such as "aten::add.Tensor".
inline void register_everything(const std::vector<std::string>& listed) {
  using torch::Library;
  NoWarnings silent;
  c10::WarningUtils::WarningHandlerGuard guard(&silent);
  register_device();
  // Libraries take their kernels back when they are destroyed; these never are.
  const auto library = [](const char* name_space, c10::DispatchKey key) {
    return new Library(Library::IMPL, name_space, key, __FILE__, __LINE__);
  };
  auto* kernels = library("aten", c10::DispatchKey::PrivateUse1);
  register_own_kernels(*kernels);
  register_listed_kernels(*kernels, listed);
  library("_", c10::DispatchKey::PrivateUse1)
      ->fallback(torch::CppFunction::makeFromBoxedFunction<&run_fallback>());
  register_autocast(*library("aten", c10::DispatchKey::AutocastPrivateUse1));
  library("_", c10::DispatchKey::AutocastPrivateUse1)
      ->fallback(torch::CppFunction::makeFallthrough());
}

}  // namespace npusim
