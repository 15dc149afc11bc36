// What a collective gives back, and what may be reduced.
#pragma once
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <set>
#include <vector>

#include "alias.h"

namespace npusim {

using c10d::ReduceOp;
using Tensors = std::vector<Tensor>;
using WorkPointer = c10::intrusive_ptr<c10d::Work>;

// Gloo's work, whose results are the device tensors and not the host views gloo was given.
class HcclWork final : public c10d::Work {
 public:
  HcclWork(WorkPointer inner, Tensors outputs)
      : inner_(std::move(inner)), outputs_(std::move(outputs)) {}
  bool isCompleted() override {
    return inner_->isCompleted();
  }
  bool isSuccess() const override {
    return inner_->isSuccess();
  }
  std::exception_ptr exception() const override {
    return inner_->exception();
  }
  Tensors result() override {
    return outputs_;
  }
  void synchronize() override {
    wait(kNoTimeout);
  }
  // Once: gloo copies some results when it is waited for, also over what was divided since.
  bool wait(std::chrono::milliseconds timeout) override {
    if (!was_waited_for_) {
      was_waited_for_ = inner_->wait(timeout);
    }
    return was_waited_for_;
  }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    const auto give_outputs = [outputs = outputs_](c10::ivalue::Future& done) {
      done.value();  // raises what gloo raised
      return c10::IValue(outputs);
    };
    return inner_->getFuture()->then(give_outputs, c10::ListType::ofTensors());
  }

 private:
  WorkPointer inner_;
  Tensors outputs_;
  bool was_waited_for_ = false;
};

inline void check_reduction(ReduceOp::RedOpType operation, const Tensor& tensor) {
  TORCH_CHECK(
      operation == ReduceOp::SUM || operation == ReduceOp::AVG || operation == ReduceOp::MAX ||
          operation == ReduceOp::MIN || operation == ReduceOp::PRODUCT,
      "Unsupported HCCL reduce operation: it knows SUM, AVG, MAX, MIN and PRODUCT");
  static const std::set<at::ScalarType> known{at::kFloat, at::kHalf,  at::kBFloat16, at::kInt,
                                              at::kLong,  at::kShort, at::kChar,     at::kBool};
  TORCH_CHECK(
      known.count(tensor.scalar_type()) != 0, "Unsupported data type for HCCL reduction: ",
      tensor.scalar_type(), " (int8, int16, int32, int64, float16, bfloat16 and float32 are)");
}

// Neither library averages: both sum, and divide afterwards. Truths are added as numbers are.
struct Reduction {
  bool is_average;
  ReduceOp operation;

  Reduction(const ReduceOp& asked, const Tensor& tensor)
      : is_average(asked == ReduceOp::AVG), operation(asked) {
    check_reduction(asked.op_, tensor);
    if (is_average) {
      operation = ReduceOp::SUM;
    } else if (asked.op_ == ReduceOp::SUM && tensor.scalar_type() == at::kBool) {
      operation = ReduceOp::MAX;
    }
  }
};

}  // namespace npusim
