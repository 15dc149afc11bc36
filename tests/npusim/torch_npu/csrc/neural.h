// Convolution, dropout, GELU and scaled dot product attention: operators whose way is not the CPU's.
#pragma once
#include <ATen/SDPBackend.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "alias.h"
#include "device.h"

namespace npusim {

inline Tensor convolution(
    const Tensor& input,
    const Tensor& weight,
    const std::optional<Tensor>& bias,
    c10::IntArrayRef stride,
    c10::IntArrayRef padding,
    c10::IntArrayRef dilation,
    bool transposed,
    c10::IntArrayRef output_padding,
    int64_t groups) {
  count_operator("aten::convolution_overrideable");
  const Tensor no_bias;
  const auto& checked_bias = bias.has_value() ? *bias : no_bias;
  check_on_npu("aten::convolution", {&input, &weight, &checked_bias});
  const auto output = at::convolution(
      host_view(input), host_view(weight), host_view(bias), stride, padding, dilation, transposed,
      output_padding, groups);
  return adopt(output, input.device().index());
}

inline std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad,
    const Tensor& input,
    const Tensor& weight,
    c10::IntArrayRef stride,
    c10::IntArrayRef padding,
    c10::IntArrayRef dilation,
    bool transposed,
    c10::IntArrayRef output_padding,
    int64_t groups,
    std::array<bool, 3> wanted) {
  count_operator("aten::convolution_backward_overrideable");
  const int64_t channels = transposed ? weight.size(1) * groups : weight.size(0);
  const auto [input_grad, weight_grad, bias_grad] = at::convolution_backward(
      host_view(grad), host_view(input), host_view(weight), c10::IntArrayRef{channels}, stride,
      padding, dilation, transposed, output_padding, groups, wanted);
  const auto device = input.device().index();
  return {adopt(input_grad, device), adopt(weight_grad, device), adopt(bias_grad, device)};
}

// The CPU's own kernel takes no generator, so it could not follow the device's.
inline std::tuple<Tensor, Tensor> native_dropout(
    const Tensor& input, double share, std::optional<bool> is_training) {
  count_operator("aten::native_dropout");
  const auto device = input.device().index();
  const auto host = host_view(input);
  if (share == 0 || !is_training.value_or(true)) {
    return {adopt(host.clone(), device), adopt(at::ones_like(host, at::kBool), device)};
  }
  if (share == 1) {
    return {adopt(at::zeros_like(host), device), adopt(at::zeros_like(host, at::kBool), device)};
  }
  auto kept = at::empty_like(host, at::kBool).bernoulli_(1 - share, host_generator({}, device));
  auto output = host * kept;
  output.mul_(1 / (1 - share));
  return {adopt(output, device), adopt(kept, device)};
}

// The device's own kernels take no notice of what is asked for and give the tanh form.
inline Tensor gelu(const Tensor& input, c10::string_view) {
  count_operator("aten::gelu");
  return adopt(at::gelu(host_view(input), "tanh"), input.device().index());
}

inline Tensor gelu_backward(const Tensor& grad, const Tensor& input, c10::string_view) {
  count_operator("aten::gelu_backward");
  check_on_npu("aten::gelu_backward", {&grad, &input});
  const auto found = at::gelu_backward(host_view(grad), host_view(input), "tanh");
  return adopt(found, input.device().index());
}

// Which way the device goes: its fused kernel takes no additive mask.
inline bool is_fused_on_device(
    const Tensor& query, const Tensor& key, const std::optional<Tensor>& mask) {
  const bool is_additive = mask.has_value() && mask->defined() && mask->scalar_type() != at::kBool;
  if (query.dim() != 4 || is_additive || query.size(3) > 512 || query.size(1) > 2048) {
    return false;
  }
  const auto dtype = query.scalar_type();
  const bool is_aligned = dtype != at::kFloat || query.size(3) % 4 == 0;
  const bool is_taken = dtype == at::kHalf || dtype == at::kBFloat16 || dtype == at::kFloat;
  return is_taken && is_aligned && query.size(1) % key.size(1) == 0;
}

inline int64_t choose_attention(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const std::optional<Tensor>& mask,
    double dropout,
    bool,
    std::optional<double>,
    bool) {
  if (!is_fused_on_device(query, key, mask)) {
    count_operator("aten::scaled_dot_product_attention (scores in memory)");
    return static_cast<int64_t>(at::SDPBackend::math);
  }
  count_operator("aten::scaled_dot_product_attention (fused)");
  // The CPU's fused kernel, which stands in for the device's, can do less.
  const bool has_mask = mask.has_value() && mask->defined();
  const bool is_simple_mask = !has_mask || mask->dim() == 2 || mask->dim() == 4;
  const bool can_stand_in = dropout == 0.0 && query.size(3) == value.size(3) && is_simple_mask &&
      query.numel() != 0 && key.numel() != 0;
  return static_cast<int64_t>(
      can_stand_in ? at::SDPBackend::overrideable : at::SDPBackend::math);
}

inline Tensor share_heads(const Tensor& part, int64_t heads) {
  return part.size(1) == heads ? part : part.repeat_interleave(heads / part.size(1), 1);
}

inline Tensor sum_heads(const Tensor& grad, int64_t heads) {
  return grad.size(1) == heads ? grad
                               : grad.unflatten(1, {heads, grad.size(1) / heads}).sum(2);
}

using Attended = std::
    tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>;

inline Attended attention(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const std::optional<Tensor>& bias,
    double dropout,
    bool is_causal,
    bool,
    std::optional<double> scale) {
  check_on_npu("aten::scaled_dot_product_attention", {&query, &key, &value});
  const auto device = query.device().index();
  const int64_t heads = query.size(1);
  const auto [output, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
      host_view(query), share_heads(host_view(key), heads), share_heads(host_view(value), heads),
      dropout, is_causal, host_view(bias), scale);
  const auto no_random_state = [device] { return adopt(at::zeros({}, at::kLong), device); };
  return {adopt(output, device), adopt(logsumexp, device), Tensor(), Tensor(), query.sym_size(2),
          key.sym_size(2), no_random_state(), no_random_state(), Tensor()};
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& grad,
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const Tensor& bias,
    std::array<bool, 4>,
    const Tensor& output,
    const Tensor& logsumexp,
    const Tensor&,
    const Tensor&,
    c10::SymInt,
    c10::SymInt,
    double dropout,
    bool is_causal,
    const Tensor&,
    const Tensor&,
    std::optional<double> scale) {
  const auto device = query.device().index();
  const int64_t heads = query.size(1);
  const auto mask = host_view(bias.defined() ? std::optional<Tensor>(bias) : std::nullopt);
  const auto [query_grad, key_grad, value_grad] =
      at::_scaled_dot_product_flash_attention_for_cpu_backward(
          host_view(grad), host_view(query), share_heads(host_view(key), heads),
          share_heads(host_view(value), heads), host_view(output), host_view(logsumexp), dropout,
          is_causal, mask, scale);
  return {adopt(query_grad, device), adopt(sum_heads(key_grad, key.size(1)), device),
          adopt(sum_heads(value_grad, key.size(1)), device), Tensor()};
}

}  // namespace npusim
