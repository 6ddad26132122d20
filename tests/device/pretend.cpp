// A pretend accelerator in host memory: torch's PrivateUse1 backend, as an extension.
//
// It computes with the CPU's kernels, so results can be compared bit for bit, and is as strict as a real device: its
// tensors can't be combined with CPU tensors of one or more dimensions, memory is uninitialized, and transfers between
// device and host are counted.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <set>

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>

namespace {

using at::IntArrayRef;
using at::Tensor;
using std::optional;

const c10::Device kPretend(at::kPrivateUse1, 0);

// ---- counters of transfers

enum Crossing { kToHost, kFromHost, kRead, kCrossings };
const char* const kNames[kCrossings] = {"to_host", "from_host", "read"};
std::atomic<int64_t> counts[kCrossings];  // atomic, because backward passes run on another thread

// The fallback copies arguments and results, unlike the kernels of a real device.
thread_local bool in_fallback = false;

std::atomic<PyObject*> observer{nullptr};  // called with the kind of each transfer

void cross(Crossing crossing) {
  if (in_fallback) return;
  ++counts[crossing];
  if (observer.load()) {
    py::gil_scoped_acquire locked;
    if (PyObject* call = observer.load()) py::reinterpret_borrow<py::object>(call)(kNames[crossing]);
  }
}

// ---- the device and its memory

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return at::kPrivateUse1; }
  c10::Device exchangeDevice(c10::Device) const override { return kPretend; }
  c10::Device getDevice() const override { return kPretend; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, kPretend); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (!bytes) return {nullptr, nullptr, &std::free, kPretend};
    // Aligned like the CPU's memory, so that vectorized kernels round alike.
    void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    TORCH_CHECK(data, "no memory left");
    std::memset(data, 0xff, bytes);  // NaN, so that reads of uninitialized memory are noticed
    return {data, data, &std::free, kPretend};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
} memory;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &memory)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto fresh = memory.allocate(bytes);
    if (bytes && storage.nbytes()) std::memcpy(fresh.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

// Returns a CPU tensor that shares the memory of a tensor on the device.
Tensor on_host(const Tensor& tensor) {
  if (!tensor.defined() || tensor.is_cpu()) return tensor;
  auto view = at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
  view._set_conj(tensor.is_conj());
  view._set_neg(tensor.is_neg());
  return view;
}

// Copies a CPU tensor to the device, with the same strides.
Tensor on_device(const Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  auto moved = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(kPretend));
  on_host(moved).copy_(tensor);
  return moved;
}

// ---- kernels

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

Tensor empty(IntArrayRef size, optional<at::ScalarType> dtype, optional<at::Layout>, optional<at::Device>,
             optional<bool>, optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, optional<at::ScalarType> dtype, optional<at::Layout>,
                     optional<at::Device>, optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, kKeys, c10::dtype_or_default(dtype));
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) {
  if (!self.is_cpu() && to.is_cpu()) cross(kToHost);
  if (self.is_cpu() && !to.is_cpu()) cross(kFromHost);
  on_host(to).copy_(on_host(self));
  return to;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  if (to.sizes() != self.sizes()) at::native::resize_(to, self.sizes());
  return copy_from(self, to, false);
}

at::Scalar local_scalar_dense(const Tensor& self) {
  cross(kRead);
  return on_host(self).item();
}

Tensor& set_storage(Tensor& self, at::Storage source) {
  int64_t size = source.nbytes() / self.dtype().itemsize();
  return at::native::set_storage_cpu_(self, std::move(source), 0, size, {});
}

Tensor& set_empty(Tensor& self) {
  return set_storage(self, c10::make_intrusive<c10::StorageImpl>(
                               c10::StorageImpl::use_byte_size_t(), 0, memory.allocate(0), &memory, true));
}

void check_device(const Tensor& tensor, const std::string& name) {
  TORCH_CHECK(!tensor.defined() || !tensor.is_cpu() || tensor.dim() == 0,
              "Expected all tensors to be on the same device, but found at least two devices, ", kPretend,
              " and cpu! (when checking argument in method ", name, ")");
}

// Torch calls these operators only on devices; the fallback would not find CPU kernels of these names.
Tensor convolution(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, IntArrayRef stride,
                   IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef output_padding,
                   int64_t groups) {
  for (const auto& tensor : {input, weight, bias.value_or(Tensor())}) check_device(tensor, "convolution");
  return on_device(at::convolution(on_host(input), on_host(weight), on_host(bias.value_or(Tensor())), stride, padding,
                                   dilation, transposed, output_padding, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& gradient, const Tensor& input,
                                                        const Tensor& weight, IntArrayRef stride, IntArrayRef padding,
                                                        IntArrayRef dilation, bool transposed,
                                                        IntArrayRef output_padding, int64_t groups,
                                                        std::array<bool, 3> wanted) {
  int64_t channels = transposed ? weight.size(1) * groups : weight.size(0);
  auto [of_input, of_weight, of_bias] = at::convolution_backward(
      on_host(gradient), on_host(input), on_host(weight), IntArrayRef(channels), stride, padding, dilation, transposed,
      output_padding, groups, wanted);
  return {on_device(of_input), on_device(of_weight), on_device(of_bias)};
}

// The fused cells of recurrent networks, which exist only for devices: composed of operators with known gradients.
std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& of_input, const Tensor& of_hidden, const Tensor& cell,
                                             const optional<Tensor>& bias_input, const optional<Tensor>& bias_hidden) {
  auto gates = of_input + of_hidden;
  if (bias_input && bias_input->defined()) gates = gates + *bias_input + *bias_hidden;
  auto parts = gates.chunk(4, 1);
  auto next = parts[1].sigmoid() * cell + parts[0].sigmoid() * parts[2].tanh();
  return {parts[3].sigmoid() * next.tanh(), next, gates.detach()};
}

std::tuple<Tensor, Tensor> gru_cell(const Tensor& of_input, const Tensor& of_hidden, const Tensor& hidden,
                                    const optional<Tensor>& bias_input, const optional<Tensor>& bias_hidden) {
  const bool biased = bias_input && bias_input->defined();
  auto from_input = (biased ? of_input + *bias_input : of_input).chunk(3, 1);
  auto from_hidden = (biased ? of_hidden + *bias_hidden : of_hidden).chunk(3, 1);
  auto reset = (from_input[0] + from_hidden[0]).sigmoid(), update = (from_input[1] + from_hidden[1]).sigmoid();
  auto fresh = (from_input[2] + reset * from_hidden[2]).tanh();
  return {(hidden - fresh) * update + fresh, fresh.detach()};
}

// ---- all other operators run on the CPU

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  // Devices accept indices that are on the host.
  const bool putting = name.find("index_put") != std::string::npos;
  const bool indexing = putting || name == "aten::index" || name == "aten::_unsafe_index";
  bool by_mask = false;  // for reading by a mask, torch calls nonzero, which is counted below
  for (const auto& argument : arguments) {
    if (argument.isTensor()) check_device(argument.toTensor(), name);
    if (!argument.isList()) continue;
    for (const c10::IValue& item : argument.toListRef()) {
      if (!item.isTensor()) continue;
      const auto& tensor = item.toTensor();
      if (!indexing) check_device(tensor, name);
      by_mask |= putting && tensor.defined() && !tensor.is_cpu() &&
                 (tensor.scalar_type() == at::kBool || tensor.scalar_type() == at::kByte);
    }
  }
  // On a real device the host waits for these: their result on the host, or its size, depends on the values.
  static const std::set<std::string> waits = {
      "aten::equal", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim",
      "aten::unique_consecutive", "aten::bincount", "aten::repeat_interleave"};
  if (by_mask || waits.count(name)) cross(kRead);
  const bool before = std::exchange(in_fallback, true);
  struct Restore {
    bool before;
    ~Restore() { in_fallback = before; }
  } restore{before};
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("resize_", &at::native::resize_);
  m.impl("set_", &set_empty);
  m.impl("set_.source_Storage", &set_storage);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  // Views: the CPU's implementations only use sizes and strides.
  m.impl("view", [](const Tensor& self, IntArrayRef size) { return at::native::view(self, size); });
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("view_as_real", &at::native::view_as_real);
  m.impl("view_as_complex", &at::native::view_as_complex);
}

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("_thnn_fused_lstm_cell", &lstm_cell);
  m.impl("_thnn_fused_gru_cell", &gru_cell);
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.def("counts", [] {
    py::dict result;
    for (int i = 0; i < kCrossings; ++i) result[kNames[i]] = counts[i].load();
    return result;
  });
  m.def("reset", [] {
    for (auto& count : counts) count = 0;
  });
  m.def("observe", [](py::object call) { Py_XDECREF(observer.exchange(call.is_none() ? nullptr : call.release().ptr())); });
}
