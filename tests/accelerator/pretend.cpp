// "pretend": an accelerator to test with where there is none.
//
// Two devices of torch's PrivateUse1 kind. Their memory is the host's and their kernels are the CPU's,
// but they behave as a GPU does towards whoever uses them: operands on the host or on the other device
// are refused, random streams and autocast rules are their own, and float64 can be taken away, as on
// Apple's. Whenever the host would have to wait for the device, or copies to or from it, a Python
// function is told.
//
// What it cannot show: a GPU's arithmetic, its speed, and what happens while the host runs ahead.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <pybind11/pybind11.h>
#include <torch/library.h>

#include <array>
#include <string>
#include <unordered_set>
#include <vector>

namespace py = pybind11;
using at::Tensor;

namespace {

constexpr auto kPretend = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex kDevices = 2;

thread_local c10::DeviceIndex current_device = 0;
bool has_double = true;
PyObject* listener = nullptr;

void tell(const char* event, const std::string& what) {
  if (listener == nullptr) return;
  py::gil_scoped_acquire gil;
  PyObject* result = PyObject_CallFunction(listener, "ss", event, what.c_str());
  if (result == nullptr) throw py::error_already_set();
  Py_DECREF(result);
}

bool is_pretend(const Tensor& x) { return x.defined() && x.device().type() == kPretend; }

void check_dtype(at::ScalarType type) {
  TORCH_CHECK_TYPE(has_double || type != at::kDouble, "pretend devices have no float64 at present");
}

// ------------------------------------------------------------------------------------------- memory

c10::DataPtr owned_by_device(c10::DataPtr memory, c10::DeviceIndex index) {
  void* address = memory.get();
  auto* owner = new c10::DataPtr(std::move(memory));
  auto release = [](void* kept) { delete static_cast<c10::DataPtr*>(kept); };
  return {address, owner, release, c10::Device(kPretend, index)};
}

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    return owned_by_device(c10::GetCPUAllocator()->allocate(std::max<size_t>(size, 1)), current_device);
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    default_copy_data(to, from, size);
  }
};

Allocator allocator;
REGISTER_ALLOCATOR(kPretend, &allocator);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  using Device = c10::Device;
  using Stream = c10::Stream;
  c10::DeviceType type() const override { return kPretend; }
  Device getDevice() const override { return {kPretend, current_device}; }
  void setDevice(Device device) const override { current_device = device.index(); }
  void uncheckedSetDevice(Device device) const noexcept override { current_device = device.index(); }
  Device exchangeDevice(Device device) const override {
    Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }
  // Everything happens at once: there is one stream, and it never has anything left to do.
  Stream getStream(Device device) const noexcept override { return Stream(Stream::DEFAULT, device); }
  Stream getNewStream(Device device, int) const override { return Stream(Stream::DEFAULT, device); }
  Stream exchangeStream(Stream stream) const noexcept override { return stream; }
  void record(void**, const Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// --------------------------------------------------------------------------------------- randomness

// A CPU generator under another name: what it draws for the device does not move the host's stream.
struct Generator final : at::CPUGeneratorImpl {
  at::Generator stream;
  Generator(uint64_t seed, c10::DeviceIndex index)
      : at::CPUGeneratorImpl(seed), stream(at::detail::createCPUGenerator(seed)) {
    device_ = c10::Device(kPretend, index);
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }
  uint64_t seed() override { return stream.seed(); }
  uint64_t current_seed() const override { return stream.current_seed(); }
  void set_current_seed(uint64_t seed) override { stream.set_current_seed(seed); }
  void set_state(const c10::TensorImpl& state) override { stream.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return stream.unsafeGetGeneratorImpl()->get_state();
  }
};

at::Generator& default_generator(c10::DeviceIndex index) {
  static std::array<at::Generator, kDevices> all = {
      at::make_generator<Generator>(c10::detail::getNonDeterministicRandom(), 0),
      at::make_generator<Generator>(c10::detail::getNonDeterministicRandom(), 1)};
  return all.at(index < 0 ? current_device : index);
}

at::Generator as_cpu(const at::Generator& generator) {
  if (generator.device().type() != kPretend) return generator;
  return static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->stream;
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  c10::DeviceIndex getCurrentDevice() const override { return current_device; }
  at::Device getDeviceFromPtr(void*) const override { return {kPretend, current_device}; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    return default_generator(index);
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::make_generator<Generator>(0, index < 0 ? current_device : index);
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    auto memory = owned_by_device(c10::GetCPUAllocator()->allocate(size), storage.device().index());
    std::memcpy(memory.get(), storage.data(), std::min(size, storage.nbytes()));
    storage.unsafeGetStorageImpl()->set_data_ptr(std::move(memory));
    storage.unsafeGetStorageImpl()->set_nbytes(size);
  }
};

// --------------------------------------------------------------- one memory, seen from the two sides

Tensor view_of(c10::Storage storage, c10::DispatchKey key, const Tensor& like) {
  auto x = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  x.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return x;
}

// The CPU's view of a device tensor. It does not own the memory: the device tensor outlives the call.
Tensor on_host(const Tensor& x) {
  c10::DataPtr borrowed(x.storage().mutable_data(), c10::Device(c10::kCPU));
  c10::Storage storage(c10::Storage::use_byte_size_t(), x.storage().nbytes(), std::move(borrowed),
                       c10::GetCPUAllocator(), /*resizable=*/true);
  return view_of(std::move(storage), c10::DispatchKey::CPU, x);
}

c10::Storage adopted(const c10::Storage& host, c10::DeviceIndex index) {
  auto* owner = new c10::Storage(host);
  auto release = [](void* kept) { delete static_cast<c10::Storage*>(kept); };
  c10::DataPtr memory(host.mutable_data(), owner, release, c10::Device(kPretend, index));
  return {c10::Storage::use_byte_size_t(), host.nbytes(), std::move(memory), &allocator, true};
}

// A device tensor of what a CPU kernel has made.
Tensor on_device(const Tensor& x, c10::DeviceIndex index) {
  if (!x.defined()) return x;
  check_dtype(x.scalar_type());
  return view_of(adopted(x.storage(), index), c10::DispatchKey::PrivateUse1, x);
}

// ---------------------------------------------------------------------------------------- operations

// The host has to know what the device computed: an item, or how large a result is.
const std::unordered_set<std::string> kWaits = {
    "aten::_local_scalar_dense", "aten::nonzero",     "aten::masked_select",      "aten::equal",
    "aten::is_nonzero",          "aten::_unique2",    "aten::unique_consecutive", "aten::unique_dim",
    "aten::bincount",            "aten::repeat_interleave"};
// Lengths of packed sequences are the host's on every device.
const std::unordered_set<std::string> kMayMix = {"aten::_pack_padded_sequence"};
// `x[index]` takes an index of the host's, and copies it.
const std::unordered_set<std::string> kIndexing = {"aten::index", "aten::index_put_", "aten::_index_put_impl_"};

// One call of an operation: its device tensors, as the CPU sees them while the kernel runs.
class Call {
 public:
  explicit Call(const std::string& name)
      : name_(name), mixes_(kMayMix.count(name) > 0), indexes_(kIndexing.count(name) > 0) {}

  Tensor enter(const Tensor& x, bool is_index) {
    if (!x.defined()) return x;
    if (is_index && (x.scalar_type() == at::kBool || x.scalar_type() == at::kByte)) tell("wait", name_ + " by a mask");
    if (is_pretend(x)) {
      TORCH_CHECK(index_ < 0 || index_ == x.device().index(),
                  "Expected all tensors to be on the same device, but found pretend:0 and pretend:1 (", name_, ")");
      index_ = x.device().index();
      seen_.emplace_back(x, on_host(x));
      return seen_.back().second;
    }
    if (is_index) {
      tell("upload", name_ + " by an index on the host");
    } else {
      TORCH_CHECK(mixes_ || x.dim() == 0,
                  "Expected all tensors to be on the same device, but found pretend and cpu (", name_, ")");
    }
    return x;
  }

  // Outputs given by the caller may have been resized, and moved by that.
  void settle() {
    for (auto& [device, host] : seen_) {
      if (host.storage().data() != device.storage().data()) {
        device.unsafeGetTensorImpl()->set_storage_keep_dtype(adopted(host.storage(), index_));
      } else if (host.sizes() == device.sizes()) {
        continue;
      }
      device.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
    }
  }

  Tensor leave(const Tensor& x) const {
    if (!x.defined()) return x;
    for (const auto& [device, host] : seen_) {
      if (host.is_same(x)) return device;
    }
    for (const auto& [device, host] : seen_) {
      // A part of an argument: it keeps that argument's memory alive.
      if (x.storage().nbytes() && x.storage().data() == host.storage().data())
        return view_of(c10::Storage(device.storage()), c10::DispatchKey::PrivateUse1, x);
    }
    return on_device(x, device());
  }

  c10::DeviceIndex device() const { return index_ < 0 ? current_device : index_; }
  void asked_for(c10::DeviceIndex index) { index_ = index < 0 ? current_device : index; }
  bool indexes() const { return indexes_; }

 private:
  std::string name_;
  bool mixes_, indexes_;
  c10::DeviceIndex index_ = -1;
  std::vector<std::pair<Tensor, Tensor>> seen_;
};

// Every operation that has no kernel below: the CPU's, on the same memory.
void by_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  if (kWaits.count(name)) tell("wait", name);
  Call call(name);
  auto arguments = torch::jit::last(*stack, schema.arguments().size());
  const size_t first = stack->size() - arguments.size();
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    c10::IValue& value = (*stack)[first + i];
    const bool is_index = call.indexes() && i == 1;
    if (value.isTensor()) {
      value = call.enter(value.toTensor(), false);
    } else if (value.isTensorList()) {
      c10::List<Tensor> entered;
      for (const Tensor& x : value.toTensorVector()) entered.push_back(call.enter(x, is_index));
      value = entered;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> entered;
      for (const std::optional<Tensor>& x : value.toOptionalTensorVector())
        entered.push_back(x ? std::optional<Tensor>(call.enter(*x, is_index)) : x);
      value = entered;
    } else if (value.isDevice()) {
      call.asked_for(value.toDevice().index());
      value = c10::Device(c10::kCPU);
    } else if (value.isGenerator()) {
      value = as_cpu(value.toGenerator());
    } else if (value.isNone() && schema.arguments()[i].name() == "generator") {
      value = as_cpu(default_generator(call.device()));
    }
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  call.settle();
  const size_t results = stack->size() - schema.returns().size();
  for (size_t i = results; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = call.leave(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> left;
      for (const Tensor& x : value.toTensorVector()) left.push_back(call.leave(x));
      value = left;
    }
  }
}

struct InDevice {  // Allocations inside are on this device.
  c10::DeviceIndex before = current_device;
  explicit InDevice(std::optional<c10::Device> device) {
    if (device && device->has_index()) current_device = device->index();
  }
  ~InDevice() { current_device = before; }
};

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<c10::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  InDevice inside(device);
  auto type = c10::dtype_or_default(dtype);
  check_dtype(type);
  c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &allocator, keys, type, format);
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  InDevice inside(device);
  auto type = c10::dtype_or_default(dtype);
  check_dtype(type);
  c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &allocator, keys, type);
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool non_blocking) {
  if (!is_pretend(to)) tell("download", "copy");
  if (!is_pretend(from)) tell(non_blocking ? "upload_async" : "upload", "copy");
  Tensor target = is_pretend(to) ? on_host(to) : to;
  target.copy_(is_pretend(from) ? on_host(from) : from);
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

Tensor& set_storage(Tensor& x, at::Storage storage, int64_t offset, at::IntArrayRef size, at::IntArrayRef stride) {
  auto* impl = x.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  if (stride.size() == size.size() && stride.data() != nullptr) {
    impl->set_sizes_and_strides(size, stride, offset);
  } else {
    impl->set_sizes_contiguous(size);
    impl->set_storage_offset(offset);
  }
  return x;
}

Tensor& set_whole_storage(Tensor& x, at::Storage storage) {
  const int64_t length = storage.nbytes() / x.dtype().itemsize();
  return set_storage(x, std::move(storage), 0, {length}, {1});
}

Tensor convolution(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, at::IntArrayRef stride,
                   at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
                   int64_t groups) {
  Call call("aten::convolution");
  std::optional<Tensor> b;
  if (bias && bias->defined()) b = call.enter(*bias, false);
  Tensor y = at::convolution(call.enter(x, false), call.enter(weight, false), b, stride, padding, dilation, transposed,
                             output_padding, groups);
  return call.leave(y);
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& gradient, const Tensor& x, const Tensor& weight,
                                                        at::IntArrayRef stride, at::IntArrayRef padding,
                                                        at::IntArrayRef dilation, bool transposed,
                                                        at::IntArrayRef output_padding, int64_t groups,
                                                        std::array<bool, 3> wanted) {
  Call call("aten::convolution_backward");
  const std::vector<int64_t> bias_size{transposed ? weight.size(1) * groups : weight.size(0)};
  auto [dx, dw, db] = at::convolution_backward(
      call.enter(gradient, false), call.enter(x, false), call.enter(weight, false), at::OptionalIntArrayRef(bias_size),
      stride, padding, dilation, transposed, output_padding, groups, wanted);
  return {call.leave(dx), call.leave(dw), call.leave(db)};
}

// torch gives every device but the CPU its recurrent cells in one piece. Made of differentiable parts here.
Tensor with_bias(const Tensor& gates, const std::optional<Tensor>& bias) {
  return bias && bias->defined() ? gates + *bias : gates;
}

std::tuple<Tensor, Tensor> gru_cell(const Tensor& input, const Tensor& hidden, const Tensor& state,
                                    const std::optional<Tensor>& input_bias, const std::optional<Tensor>& hidden_bias) {
  auto from_input = with_bias(input, input_bias).chunk(3, 1);
  auto from_hidden = with_bias(hidden, hidden_bias).chunk(3, 1);
  Tensor reset = (from_input[0] + from_hidden[0]).sigmoid();
  Tensor update = (from_input[1] + from_hidden[1]).sigmoid();
  Tensor fresh = (from_input[2] + reset * from_hidden[2]).tanh();
  return {fresh + update * (state - fresh), state};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input, const Tensor& hidden, const Tensor& cell,
                                             const std::optional<Tensor>& input_bias,
                                             const std::optional<Tensor>& hidden_bias) {
  auto gates = (with_bias(input, input_bias) + with_bias(hidden, hidden_bias)).chunk(4, 1);
  Tensor next = gates[1].sigmoid() * cell + gates[0].sigmoid() * gates[2].tanh();
  return {gates[3].sigmoid() * next.tanh(), next, next};
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&by_the_cpu>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Storage", set_whole_storage);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
  // Views are views of the device's memory, not results of a kernel.
  m.impl("as_strided", [](const Tensor& x, at::IntArrayRef size, at::IntArrayRef stride, std::optional<int64_t> offset) {
    return at::native::as_strided_tensorimpl(x, size, stride, offset);
  });
  m.impl("view", [](const Tensor& x, at::IntArrayRef size) { return at::native::view(x, size); });
  m.impl("_reshape_alias", [](const Tensor& x, at::IntArrayRef size, at::IntArrayRef stride) {
    return at::native::_reshape_alias(x, size, stride);
  });
  m.impl("unfold", [](const Tensor& x, int64_t dimension, int64_t size, int64_t step) {
    return at::native::unfold(x, dimension, size, step);
  });
}

TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("_thnn_fused_gru_cell", gru_cell);
  m.impl("_thnn_fused_lstm_cell", lstm_cell);
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define HALF(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FULL(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(HALF)
  AT_FORALL_FP32(FULL)
  AT_FORALL_PROMOTE(WIDEST)
}

PYBIND11_MODULE(antelope_pretend, m) {
  m.def("register", []() { at::RegisterPrivateUse1HooksInterface(new Hooks()); });
  m.def("listen", [](py::object function) { listener = function.is_none() ? nullptr : function.inc_ref().ptr(); });
  m.def("give_float64", [](bool given) { has_double = given; });
  m.def("device_count", []() { return kDevices; });
  m.def("current_device", []() { return current_device; });
  m.def("set_device", [](c10::DeviceIndex index) { current_device = index; });
  m.def("seed", [](c10::DeviceIndex index, uint64_t seed) { default_generator(index).set_current_seed(seed); });
  m.def("state", [](c10::DeviceIndex index) {
    Tensor state(default_generator(index).unsafeGetGeneratorImpl()->get_state());
    return py::bytes(static_cast<const char*>(state.data_ptr()), state.nbytes());
  });
  m.def("set_state", [](c10::DeviceIndex index, const std::string& bytes) {
    Tensor state = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
    std::memcpy(state.data_ptr(), bytes.data(), bytes.size());
    default_generator(index).unsafeGetGeneratorImpl()->set_state(*state.unsafeGetTensorImpl());
  });
}
