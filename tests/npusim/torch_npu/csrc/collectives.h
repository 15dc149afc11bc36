// The hccl backend: gloo on host views of device tensors, with the rules of the real library.
#pragma once
#include <ATen/ops/cat.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "work.h"

namespace npusim {

using Inner = c10::intrusive_ptr<c10d::Backend>;

class HcclBackend final : public c10d::Backend {
 public:
  HcclBackend(Inner inner, int rank, int size)
      : c10d::Backend(rank, size), inner_(std::move(inner)) {}

  const std::string getBackendName() const override {
    return "hccl";
  }
  void setTimeout(std::chrono::milliseconds timeout) override {
    inner_->setTimeout(timeout);
  }
  void setSequenceNumberForGroup() override {
    inner_->setSequenceNumberForGroup();
  }
  uint64_t getSequenceNumberForGroup() override {
    return inner_->getSequenceNumberForGroup();
  }

  WorkPointer barrier(const c10d::BarrierOptions& options) override {
    return inner_->barrier(options);
  }
  WorkPointer broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override {
    auto views = counted_views("broadcast", tensors);
    return done(inner_->broadcast(views, options), tensors);
  }
  WorkPointer allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override {
    return reduce_all(tensors, options, &c10d::Backend::allreduce);
  }
  WorkPointer allreduce_coalesced(
      Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) override {
    return reduce_all(tensors, options, &c10d::Backend::allreduce_coalesced);
  }
  WorkPointer reduce(Tensors& tensors, const c10d::ReduceOptions& options) override {
    const Reduction reduction(options.reduceOp, tensors.at(0));
    auto inner_options = options;
    inner_options.reduceOp = reduction.operation;
    auto views = counted_views("reduce", tensors);
    return done(inner_->reduce(views, inner_options), tensors, reduction, views);
  }

  WorkPointer allgather(
      std::vector<Tensors>& outputs,
      Tensors& inputs,
      const c10d::AllgatherOptions& options) override {
    auto output_views = views_of(outputs);
    auto input_views = counted_views("all_gather", inputs);
    return done(inner_->allgather(output_views, input_views, options), outputs.at(0));
  }
  WorkPointer _allgather_base(
      Tensor& output, Tensor& input, const c10d::AllgatherOptions& options) override {
    auto output_view = view_of(output);
    auto input_view = counted_view("all_gather_into_tensor", input);
    return done(inner_->_allgather_base(output_view, input_view, options), {output});
  }
  WorkPointer allgather_into_tensor_coalesced(
      Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) override {
    auto output_views = views_of(outputs);
    auto input_views = counted_views("all_gather_into_tensor", inputs);
    return done(
        inner_->allgather_into_tensor_coalesced(output_views, input_views, options), outputs);
  }

  WorkPointer reduce_scatter(
      Tensors& outputs,
      std::vector<Tensors>& inputs,
      const c10d::ReduceScatterOptions& options) override {
    const Reduction reduction(options.reduceOp, outputs.at(0));
    auto inner_options = options;
    inner_options.reduceOp = reduction.operation;
    auto output_views = views_of(outputs);
    auto input_views = views_of(inputs);
    count("reduce_scatter", inputs.at(0));
    const auto work = inner_->reduce_scatter(output_views, input_views, inner_options);
    return done(work, outputs, reduction, output_views);
  }
  WorkPointer _reduce_scatter_base(
      Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& options) override {
    const Reduction reduction(options.reduceOp, input);
    auto inner_options = options;
    inner_options.reduceOp = reduction.operation;
    auto output_view = view_of(output);
    auto input_view = counted_view("reduce_scatter_tensor", input);
    const auto work = inner_->_reduce_scatter_base(output_view, input_view, inner_options);
    return done(work, {output}, reduction, {output_view});
  }
  WorkPointer reduce_scatter_tensor_coalesced(
      Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& options) override {
    const Reduction reduction(options.reduceOp, inputs.at(0));
    auto inner_options = options;
    inner_options.reduceOp = reduction.operation;
    auto output_views = views_of(outputs);
    auto input_views = counted_views("reduce_scatter_tensor", inputs);
    const auto work =
        inner_->reduce_scatter_tensor_coalesced(output_views, input_views, inner_options);
    return done(work, outputs, reduction, output_views);
  }

  WorkPointer alltoall_base(
      Tensor& output,
      Tensor& input,
      std::vector<int64_t>& output_sizes,
      std::vector<int64_t>& input_sizes,
      const c10d::AllToAllOptions& options) override {
    auto output_view = view_of(output);
    auto input_view = counted_view("all_to_all_single", input);
    return done(
        inner_->alltoall_base(output_view, input_view, output_sizes, input_sizes, options),
        {output});
  }
  // Gloo exchanges single tensors only: the lists are laid end to end.
  WorkPointer alltoall(
      Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& options) override {
    std::vector<int64_t> output_sizes, input_sizes;
    const auto output_views = views_of(outputs);
    auto sent = joined(counted_views("all_to_all", inputs), input_sizes);
    auto received = joined(output_views, output_sizes);
    const auto work =
        inner_->alltoall_base(received, sent, output_sizes, input_sizes, options);
    work->wait();
    // Gloo has taken the sizes over.
    int64_t start = 0;
    for (const auto& view : output_views) {
      view.copy_(received.narrow(0, start, view.numel()).view(view.sizes()));
      start += view.numel();
    }
    return done(work, outputs);
  }

  WorkPointer gather(
      std::vector<Tensors>& outputs,
      Tensors& inputs,
      const c10d::GatherOptions& options) override {
    auto output_views = views_of(outputs);
    auto input_views = counted_views("gather", inputs);
    return done(
        inner_->gather(output_views, input_views, options),
        outputs.empty() ? Tensors{} : outputs[0]);
  }
  WorkPointer scatter(
      Tensors& outputs,
      std::vector<Tensors>& inputs,
      const c10d::ScatterOptions& options) override {
    auto input_views = views_of(inputs);
    auto output_views = counted_views("scatter", outputs);
    return done(inner_->scatter(output_views, input_views, options), outputs);
  }
  WorkPointer send(Tensors& tensors, int to, int tag) override {
    auto views = counted_views("send", tensors);
    return done(inner_->send(views, to, tag), tensors);
  }
  WorkPointer recv(Tensors& tensors, int from, int tag) override {
    auto views = counted_views("recv", tensors);
    return done(inner_->recv(views, from, tag), tensors);
  }

 private:
  static Tensor view_of(const Tensor& tensor) {
    TORCH_CHECK(
        on_npu(tensor), "No backend type associated with device type ", tensor.device().type(),
        ": hccl takes NPU tensors");
    return host_view(tensor);
  }
  static Tensors views_of(const Tensors& tensors) {
    Tensors views;
    for (const auto& tensor : tensors) {
      views.push_back(view_of(tensor));
    }
    return views;
  }
  static std::vector<Tensors> views_of(const std::vector<Tensors>& lists) {
    std::vector<Tensors> views;
    for (const auto& tensors : lists) {
      views.push_back(views_of(tensors));
    }
    return views;
  }

  static void count(const std::string& name, const Tensors& tensors) {
    int64_t bytes = 0;
    for (const auto& tensor : tensors) {
      bytes += static_cast<int64_t>(tensor.nbytes());
    }
    add_to(statistics().collective_calls, name);
    add_to(statistics().collective_bytes, name, bytes);
  }
  static Tensors counted_views(const std::string& name, const Tensors& tensors) {
    count(name, tensors);
    return views_of(tensors);
  }
  static Tensor counted_view(const std::string& name, const Tensor& tensor) {
    count(name, {tensor});
    return view_of(tensor);
  }

  static Tensor joined(const Tensors& parts, std::vector<int64_t>& sizes) {
    Tensors flat;
    for (const auto& part : parts) {
      TORCH_CHECK(part.dim() != 0, "HCCL all_to_all does not take tensors without dimensions");
      flat.push_back(part.reshape(-1));
      sizes.push_back(part.numel());
    }
    return at::cat(flat);
  }

  template <typename Options, typename Method>
  WorkPointer reduce_all(Tensors& tensors, const Options& options, Method method) {
    const Reduction reduction(options.reduceOp, tensors.at(0));
    auto inner_options = options;
    inner_options.reduceOp = reduction.operation;
    auto views = counted_views("all_reduce", tensors);
    return done(((*inner_).*method)(views, inner_options), tensors, reduction, views);
  }

  static WorkPointer done(WorkPointer work, Tensors outputs) {
    return c10::make_intrusive<HcclWork>(std::move(work), std::move(outputs));
  }
  WorkPointer done(
      WorkPointer inner, Tensors outputs, const Reduction& reduction, const Tensors& views) {
    auto work = done(std::move(inner), std::move(outputs));
    if (reduction.is_average) {
      work->wait();
      for (const auto& view : views) {
        view.is_floating_point() ? view.div_(getSize()) : view.div_(getSize(), "trunc");
      }
    }
    return work;
  }

  Inner inner_;
};

}  // namespace npusim
