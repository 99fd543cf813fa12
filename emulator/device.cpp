// SPDX-License-Identifier: GPL-3.0-or-later
//
// An emulated XPU: tensors whose device type is "xpu", in host memory, computed by CPU kernels.
// It shows how code behaves around such a device; it says nothing about Intel hardware. See README.md beside it.
//
//   Memory      one ledger per device: what is allocated, what the cache holds, what another process holds
//   Faults      errors raised on demand, at the n-th operation or at the next synchronisation
//   Operators   one boxed function lends every argument to the CPU and takes the results back
//   Hooks       what PyTorch asks a device for: guard, streams, events, generators, pinned memory
//   Controls    extern "C" functions, called from Python through ctypes

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/XPUHooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

namespace {

using c10::DataPtr;
using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::DispatchKey;
using c10::DispatchKeySet;
using c10::IValue;
using c10::Storage;
using c10::StorageImpl;
using torch::jit::Stack;

// --- Memory ---------------------------------------------------------------------------------------------------------

constexpr int64_t kRound = 512, kSegment = 2 << 20;

int64_t rounded(int64_t size, int64_t unit) {
  return (size + unit - 1) / unit * unit;
}

enum MemoryMode { kHonest = 0, kRaises = 1, kStale = 2, kNonsense = 3 };

struct Ledger {
  int physical = 0;
  int64_t total = 0;
  bool fp64 = true;
  bool integrated = false;
  double fraction = 1.0;
  int64_t other = 0;  // bytes that another process holds
  int mode = kHonest;
  int64_t stale_free = -1;
  int64_t reserved = 0, reserved_peak = 0;
  c10::CachingAllocator::Stat allocated, requested, blocks;
  int64_t ooms = 0, retries = 0;
};

std::mutex ledger_lock;
std::vector<Ledger> known, visible;
bool settled = false;

// What ZE_AFFINITY_MASK and ONEAPI_DEVICE_SELECTOR leave, in their order; read when a device is first asked for.
std::vector<int> parse_indices(const std::string& text, bool* understood) {
  std::vector<int> found;
  size_t at = 0;
  *understood = true;
  while (at <= text.size()) {
    size_t comma = std::min(text.find(',', at), text.size());
    const std::string item = text.substr(at, comma - at);
    char* end = nullptr;
    const long value = std::strtol(item.c_str(), &end, 10);
    if (item.empty() || (*end != '\0' && *end != '.')) {
      *understood = false;
      return {};
    }
    found.push_back(static_cast<int>(value));
    at = comma + 1;
  }
  return found;
}

void keep(std::vector<Ledger>& devices, const std::string& indices) {
  bool understood = false;
  const auto wanted = parse_indices(indices, &understood);
  if (!understood) {
    return;
  }
  std::vector<Ledger> kept;
  for (size_t index = 0; index < devices.size(); ++index) {
    if (std::find(wanted.begin(), wanted.end(), static_cast<int>(index)) != wanted.end()) {
      kept.push_back(devices[index]);
    }
  }
  devices = std::move(kept);
}

void settle() {
  std::lock_guard<std::mutex> guard(ledger_lock);
  if (settled) {
    return;
  }
  settled = true;
  visible = known;
  if (const char* mask = std::getenv("ZE_AFFINITY_MASK"); mask != nullptr && *mask != '\0') {
    keep(visible, mask);
  }
  if (const char* selector = std::getenv("ONEAPI_DEVICE_SELECTOR"); selector != nullptr && *selector != '\0') {
    const std::string text(selector);
    const auto colon = text.find(':');
    const std::string backend = text.substr(0, colon);
    if (backend != "level_zero" && backend != "*") {
      visible.clear();
    } else if (colon != std::string::npos) {
      keep(visible, text.substr(colon + 1));
    }
  }
}

DeviceIndex device_count() {
  settle();
  return static_cast<DeviceIndex>(visible.size());
}

Ledger& ledger(int64_t index) {
  TORCH_CHECK(index >= 0 && index < device_count(), "emulated XPU: device index ", index, " is out of range; there are ",
              static_cast<int>(device_count()));
  return visible[index];
}

int64_t limit(const Ledger& device) {
  return static_cast<int64_t>(static_cast<double>(device.total) * device.fraction);
}

std::string mib(int64_t size) {
  char text[64];
  const double value = static_cast<double>(size) / (1 << 20);
  snprintf(text, sizeof text, value < 1024 ? "%.2f MiB" : "%.2f GiB", value < 1024 ? value : value / 1024);
  return text;
}

std::atomic<int64_t> oom_next{0};  // raise torch.OutOfMemoryError at the n-th allocation from now

[[noreturn]] void out_of_memory(int64_t index, Ledger& device, int64_t size) {
  device.ooms += 1;
  C10_THROW_ERROR(
      OutOfMemoryError,
      c10::str("XPU out of memory. Tried to allocate ", mib(size), ". GPU ", index, " has a total capacity of ",
               mib(device.total), " of which ", mib(std::max<int64_t>(0, device.total - device.other - device.reserved)),
               " is free. Of the allocated memory ", mib(device.allocated.current), " is allocated by PyTorch, and ",
               mib(device.reserved - device.allocated.current),
               " is reserved by PyTorch but unallocated. (emulated XPU)"));
}

void charge(int64_t index, int64_t size) {
  auto& device = ledger(index);
  std::lock_guard<std::mutex> guard(ledger_lock);
  const int64_t block = rounded(size, kRound);
  if (oom_next > 0 && --oom_next == 0) {
    out_of_memory(index, device, size);
  }
  const int64_t needed = rounded(device.allocated.current + block, kSegment);
  if (needed > device.reserved) {
    const int64_t room = std::min(limit(device), device.total - device.other);
    if (needed > room) {
      device.retries += 1;
      device.reserved = rounded(device.allocated.current, kSegment);
      out_of_memory(index, device, size);
    }
    device.reserved = needed;
    device.reserved_peak = std::max(device.reserved_peak, needed);
  }
  device.allocated.increase(block);
  device.requested.increase(size);
  device.blocks.increase(1);
}

struct Held {
  int64_t index, size;
  DataPtr memory;
};

void release(void* context) {
  std::unique_ptr<Held> held(static_cast<Held*>(context));
  auto& device = visible[held->index];
  std::lock_guard<std::mutex> guard(ledger_lock);
  device.allocated.decrease(rounded(held->size, kRound));
  device.requested.decrease(held->size);
  device.blocks.decrease(1);
}

DataPtr adopt(DataPtr memory, int64_t size, DeviceIndex index) {
  const Device device(DeviceType::XPU, index);
  if (size == 0) {
    return DataPtr(nullptr, device);
  }
  charge(index, size);
  void* data = memory.get();
  return DataPtr(data, new Held{index, size, std::move(memory)}, &release, device);
}

thread_local DeviceIndex current = 0;

struct EmulatedAllocator final : c10::DeviceAllocator {
  DataPtr allocate(size_t size) override {
    const auto index = current;
    if (size == 0) {
      return adopt(DataPtr(), 0, index);
    }
    {
      // Refuse before the host is asked for the memory.
      auto& device = ledger(index);
      std::lock_guard<std::mutex> guard(ledger_lock);
      const auto needed = rounded(device.allocated.current + rounded(size, kRound), kSegment);
      if (needed > std::min(limit(device), device.total - device.other) && needed > device.reserved) {
        device.retries += 1;
        device.reserved = rounded(device.allocated.current, kSegment);
        out_of_memory(index, device, static_cast<int64_t>(size));
      }
    }
    return adopt(c10::GetCPUAllocator()->allocate(size), static_cast<int64_t>(size), index);
  }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    std::memcpy(to, from, count);
  }
  bool initialized() override {
    return device_count() > 0;
  }
  void emptyCache(c10::MempoolId_t) override {
    std::lock_guard<std::mutex> guard(ledger_lock);
    for (auto& device : visible) {
      device.reserved = rounded(device.allocated.current, kSegment);
    }
  }
  void recordStream(const DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex index) override {
    auto& device = ledger(index);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocation[0] = stats.active[0] = device.blocks;
    stats.allocated_bytes[0] = stats.active_bytes[0] = device.allocated;
    stats.requested_bytes[0] = device.requested;
    stats.reserved_bytes[0].current = device.reserved;
    stats.reserved_bytes[0].peak = device.reserved_peak;
    stats.num_ooms = device.ooms;
    stats.num_alloc_retries = device.retries;
    return stats;
  }
  void resetAccumulatedStats(DeviceIndex index) override {
    auto& device = ledger(index);
    for (auto* stat : {&device.allocated, &device.requested, &device.blocks}) {
      stat->allocated = stat->freed = 0;
    }
    device.ooms = device.retries = 0;
  }
  void resetPeakStats(DeviceIndex index) override {
    auto& device = ledger(index);
    for (auto* stat : {&device.allocated, &device.requested, &device.blocks}) {
      stat->peak = stat->current;
    }
    device.reserved_peak = device.reserved;
  }
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex index) {  // overrides since torch 2.10
    auto& device = ledger(index);
    const int64_t free = std::max<int64_t>(0, device.total - device.other - device.reserved);
    switch (device.mode) {
      case kRaises:
        throw std::runtime_error(
            "The device (emulated XPU) doesn't support querying the available free memory. You can file an issue at "
            "https://github.com/pytorch/pytorch/issues to help us prioritize its implementation.");
      case kStale:
        return {static_cast<size_t>(device.stale_free), static_cast<size_t>(device.total)};
      case kNonsense:
        return {static_cast<size_t>(device.total) * 3, static_cast<size_t>(device.total)};
      default:
        return {static_cast<size_t>(free), static_cast<size_t>(device.total)};
    }
  }
};

EmulatedAllocator& allocator() {
  static auto* instance = new EmulatedAllocator;
  return *instance;
}

struct WithDevice {
  DeviceIndex before = current;
  explicit WithDevice(DeviceIndex index) {
    current = index;
  }
  ~WithDevice() {
    current = before;
  }
};

// --- Faults ---------------------------------------------------------------------------------------------------------

constexpr int kDeviceLost = 20;
std::atomic<int64_t> operations{0}, fault_at{0}, fault_times{0};
std::array<std::atomic<int64_t>, 64> operations_of{};  // by device; those that a fault or a refusal ended are not in it
std::atomic<int> fault_code{0}, sync_code{0}, empty_code{0};
std::atomic<bool> lost{false};

const char* unified_runtime_name(int code) {
  switch (code) {
    case kDeviceLost:
      return "UR_RESULT_ERROR_DEVICE_LOST";
    case 38:
      return "UR_RESULT_ERROR_OUT_OF_HOST_MEMORY";
    case 39:
      return "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY";
    case 40:
      return "UR_RESULT_ERROR_OUT_OF_RESOURCES";
    default:
      return "UR_RESULT_ERROR_UNKNOWN";
  }
}

[[noreturn]] void raise_code(int code) {
  if (code == kDeviceLost) {
    lost = true;  // as on hardware, nothing works on a lost device until the process ends
  }
  throw std::runtime_error(c10::str("level_zero backend failed with error: ", code, " (", unified_runtime_name(code), ")"));
}

void count_operation() {
  if (lost) {
    raise_code(kDeviceLost);
  }
  const int64_t number = ++operations;
  if (fault_code != 0 && number >= fault_at && fault_times != 0) {
    --fault_times;
    raise_code(fault_code);
  }
}

void synchronize() {
  if (lost) {
    raise_code(kDeviceLost);
  }
  if (const int code = sync_code.exchange(0); code != 0) {
    raise_code(code);
  }
}

// --- Generators -----------------------------------------------------------------------------------------------------

std::atomic<bool> same_random_numbers{false};
constexpr uint64_t kOwnNumbers = 0x9E3779B97F4A7C15ULL;

struct EmulatedGenerator final : c10::GeneratorImpl {
  explicit EmulatedGenerator(DeviceIndex index, uint64_t seed = c10::detail::getNonDeterministicRandom())
      : c10::GeneratorImpl(Device(DeviceType::XPU, index), DispatchKeySet(DispatchKey::XPU)),
        inner(at::make_generator<at::CPUGeneratorImpl>(seed)) {
    set_current_seed(seed);
  }
  void set_current_seed(uint64_t seed) override {
    given = seed;
    inner.set_current_seed(same_random_numbers ? seed : seed ^ kOwnNumbers);
  }
  void set_offset(uint64_t offset) override {
    inner.set_offset(offset);
  }
  uint64_t get_offset() const override {
    return inner.get_offset();
  }
  uint64_t current_seed() const override {
    return given;
  }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom());
    return given;
  }
  void set_state(const c10::TensorImpl& state) override {
    inner.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return inner.unsafeGetGeneratorImpl()->get_state();
  }
  EmulatedGenerator* clone_impl() const override {
    auto* copy = new EmulatedGenerator(device().index(), given);
    copy->inner = inner.clone();
    return copy;
  }
  uint64_t given = 0;
  at::Generator inner;
};

const at::Generator& default_generator(DeviceIndex index) {
  static auto* generators = new std::map<DeviceIndex, at::Generator>;
  static std::mutex lock;
  std::lock_guard<std::mutex> guard(lock);
  const DeviceIndex wanted = index < 0 ? current : index;
  auto found = generators->find(wanted);
  if (found == generators->end()) {
    auto made = at::make_generator<EmulatedGenerator>(wanted, c10::default_rng_seed_val);
    found = generators->emplace(wanted, std::move(made)).first;
  }
  return found->second;
}

at::Generator& inner_generator(const at::Generator& generator) {
  return static_cast<EmulatedGenerator*>(generator.unsafeGetGeneratorImpl())->inner;
}

// --- Operators ------------------------------------------------------------------------------------------------------

bool is_xpu(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == DeviceType::XPU;
}

// What one call lends to the CPU, so that results can be recognised.
struct Loan {
  struct Lent {
    at::Tensor original, alias;
    void* data;
  };
  std::vector<Lent> tensors;
  std::vector<std::pair<Storage, Storage>> storages;  // (of the XPU, of the CPU)
  std::vector<StorageImpl*> of_cpu;                   // storages of tensors that stay on the CPU
  c10::optional<Device> target;
  bool mixed_allowed = false;

  Storage lend(const Storage& storage) {
    for (auto& pair : storages) {
      if (pair.first.unsafeGetStorageImpl() == storage.unsafeGetStorageImpl()) {
        return pair.second;
      }
    }
    void* data = storage.mutable_data();
    auto alias = c10::make_intrusive<StorageImpl>(
        StorageImpl::use_byte_size_t{}, storage.nbytes(), DataPtr(data, Device(DeviceType::CPU)),
        c10::GetCPUAllocator(), true);
    storages.emplace_back(storage, Storage(std::move(alias)));
    return storages.back().second;
  }

  at::Tensor lend(const at::Tensor& tensor) {
    for (auto& lent : tensors) {
      if (lent.original.is_same(tensor)) {
        return lent.alias;
      }
    }
    auto alias = like(tensor, lend(tensor.storage()), DispatchKey::CPU);
    tensors.push_back({tensor, alias, alias.storage().mutable_data()});
    return alias;
  }

  static at::Tensor like(const at::Tensor& tensor, Storage storage, DispatchKey key) {
    auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), DispatchKeySet(key), tensor.dtype());
    auto* impl = made.unsafeGetTensorImpl();
    impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    impl->_set_conj(tensor.is_conj());
    impl->_set_neg(tensor.is_neg());
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
      impl->set_wrapped_number(true);
    }
    return made;
  }

  // A storage that the CPU made becomes one of the XPU: the bytes stay where they are, the ledger is charged.
  Storage take(const Storage& storage) {
    for (auto& pair : storages) {
      if (pair.second.unsafeGetStorageImpl() == storage.unsafeGetStorageImpl()) {
        return pair.first;
      }
    }
    const auto size = static_cast<int64_t>(storage.nbytes());
    auto* impl = storage.unsafeGetStorageImpl();
    auto memory = adopt(impl->set_data_ptr(DataPtr(storage.mutable_data(), Device(DeviceType::CPU))), size, target->index());
    auto made = c10::make_intrusive<StorageImpl>(
        StorageImpl::use_byte_size_t{}, size, std::move(memory), &allocator(), true);
    storages.emplace_back(Storage(std::move(made)), storage);
    return storages.back().first;
  }

  at::Tensor take(const at::Tensor& tensor) {
    if (!tensor.defined()) {
      return tensor;
    }
    for (auto& lent : tensors) {
      if (lent.alias.is_same(tensor)) {
        return lent.original;
      }
    }
    TORCH_CHECK(tensor.layout() == c10::kStrided, "emulated XPU: results of layout ", tensor.layout(), " are not supported");
    for (auto* storage : of_cpu) {
      if (storage == tensor.storage().unsafeGetStorageImpl()) {
        return tensor;
      }
    }
    return like(tensor, take(tensor.storage()), DispatchKey::XPU);
  }

  // In-place operators may have resized an argument, changed its shape or given it another storage.
  void settle_arguments() {
    for (auto& lent : tensors) {
      auto* impl = lent.original.unsafeGetTensorImpl();
      const bool same = lent.alias.storage().unsafeGetStorageImpl() == lend(lent.original.storage()).unsafeGetStorageImpl();
      if (!same) {
        impl->set_storage_keep_dtype(take(lent.alias.storage()));
      } else if (lent.alias.storage().data() != lent.data) {
        const auto& grown = lent.alias.storage();
        const auto size = static_cast<int64_t>(grown.nbytes());
        auto* storage = lent.original.storage().unsafeGetStorageImpl();
        if (storage->data() == lent.data) {  // else another argument that shares it was first
          auto memory = grown.unsafeGetStorageImpl()->set_data_ptr(DataPtr());
          storage->set_data_ptr_noswap(adopt(std::move(memory), size, lent.original.device().index()));
          storage->set_nbytes(size);
        }
      } else if (lent.alias.storage().nbytes() != lent.original.storage().nbytes()) {
        lent.original.storage().unsafeGetStorageImpl()->set_nbytes(lent.alias.storage().nbytes());
      }
      if (lent.alias.sizes() != lent.original.sizes() || lent.alias.strides() != lent.original.strides() ||
          lent.alias.storage_offset() != lent.original.storage_offset()) {
        impl->set_sizes_and_strides(lent.alias.sizes(), lent.alias.strides(), lent.alias.storage_offset());
      }
    }
  }

  void see(const Device& device) {
    if (!target) {
      target = device;
    } else if (!mixed_allowed && *target != device) {
      mismatch(*target, device);
    }
  }

  [[noreturn]] static void mismatch(const Device& one, const Device& other) {
    C10_THROW_ERROR(Error, c10::str("Expected all tensors to be on the same device, but found at least two devices, ",
                                    one, " and ", other, "!"));
  }
};

bool fp64_exempt(const std::string& name) {
  static const std::unordered_set<std::string> names = {
      "aten::set_", "aten::resize_", "aten::_local_scalar_dense", "aten::alias", "aten::detach", "aten::view"};
  return names.count(name) > 0;
}

void check_fp64(const at::Tensor& tensor, const std::string& name) {
  const auto type = tensor.scalar_type();
  if ((type == at::kDouble || type == at::kComplexDouble) && !ledger(tensor.device().index()).fp64 && !fp64_exempt(name)) {
    throw std::runtime_error("Required aspect fp64 is not supported on the device");
  }
}

// Operators that take indices from either side, as on CUDA.
bool indices_from_cpu(const std::string& name) {
  static const std::unordered_set<std::string> names = {
      "aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put", "aten::_unsafe_index",
      "aten::_unsafe_index_put"};
  return names.count(name) > 0;
}

void look_at(Loan& loan, const at::Tensor& tensor, const std::string& name) {
  if (is_xpu(tensor)) {
    loan.see(tensor.device());
    if (!loan.mixed_allowed) {
      check_fp64(tensor, name);
    }
  } else if (tensor.defined() && tensor.has_storage()) {
    loan.of_cpu.push_back(tensor.storage().unsafeGetStorageImpl());
  }
}

bool out_of_place(const at::Tensor& tensor) {
  return tensor.defined() && !is_xpu(tensor) && tensor.dim() > 0;
}

void visit_tensors(const IValue& value, const std::function<void(const at::Tensor&, bool in_list)>& see) {
  if (value.isTensor()) {
    see(value.toTensor(), false);
  } else if (value.isList()) {
    for (const IValue& item : value.toListRef()) {
      if (item.isTensor()) {
        see(item.toTensor(), true);
      }
    }
  }
}

// Refuses a call that a device would refuse: arguments on two devices, float64 where there is none.
void check_arguments(Loan& loan, c10::ArrayRef<IValue> arguments, const std::string& name) {
  const bool free_indices = indices_from_cpu(name);
  for (const IValue& value : arguments) {
    visit_tensors(value, [&](const at::Tensor& tensor, bool) { look_at(loan, tensor, name); });
  }
  if (loan.mixed_allowed || !loan.target) {
    return;
  }
  for (const IValue& value : arguments) {
    visit_tensors(value, [&](const at::Tensor& tensor, bool in_list) {
      if (out_of_place(tensor) && !(free_indices && in_list)) {
        Loan::mismatch(*loan.target, tensor.device());
      }
    });
  }
}

Device with_index(Device device) {
  return device.has_index() ? device : Device(DeviceType::XPU, current);
}

IValue lend_value(Loan& loan, const IValue& value);

IValue lend_list(Loan& loan, const IValue& value) {
  if (value.isTensorList()) {
    c10::List<at::Tensor> lent;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      lent.push_back(is_xpu(tensor) ? loan.lend(tensor) : tensor);
    }
    return lent;
  }
  if (value.isOptionalTensorList()) {
    c10::List<c10::optional<at::Tensor>> lent;
    for (const IValue& item : value.toListRef()) {
      lent.push_back(item.isTensor() ? c10::optional<at::Tensor>(lend_value(loan, item).toTensor()) : c10::nullopt);
    }
    return lent;
  }
  return value;
}

IValue lend_value(Loan& loan, const IValue& value) {
  if (value.isTensor()) {
    const auto& tensor = value.toTensor();
    return is_xpu(tensor) ? IValue(loan.lend(tensor)) : value;
  }
  if (value.isStorage()) {
    const auto storage = value.toStorage();
    return storage.device().type() == DeviceType::XPU ? IValue(loan.lend(storage)) : value;
  }
  if (value.isDevice()) {
    return value.toDevice().type() == DeviceType::XPU ? IValue(Device(DeviceType::CPU)) : value;
  }
  if (value.isGenerator()) {
    const auto generator = value.toGenerator();
    TORCH_CHECK(generator.device().type() == DeviceType::XPU || !loan.target,
                "Expected a 'xpu' device type for generator but found '", generator.device().type(), "'");
    return generator.device().type() == DeviceType::XPU ? IValue(inner_generator(generator)) : value;
  }
  return value.isList() ? lend_list(loan, value) : value;
}

bool takes_generator(const c10::Argument& argument) {
  const auto type = argument.type();
  return type->kind() == c10::TypeKind::OptionalType &&
      type->castRaw<c10::OptionalType>()->getElementType()->kind() == c10::TypeKind::GeneratorType;
}

IValue take_value(Loan& loan, const IValue& value) {
  if (value.isTensor()) {
    return loan.take(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> taken;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      taken.push_back(loan.take(tensor));
    }
    return taken;
  }
  return value;
}

std::atomic<bool> refusing{false};
std::set<std::string>& refused() {
  static auto* names = new std::set<std::string>;
  return *names;
}

void check_coverage(const std::string& name) {
  if (refusing && refused().count(name) > 0) {
    C10_THROW_ERROR(NotImplementedError,
                    c10::str("Could not run '", name, "' with arguments from the 'XPU' backend (emulated XPU: "
                             "torch-xpu-ops runs it on the CPU; the operator-coverage mode refuses it)."));
  }
}

// Runs `op` at the CPU with what is on the stack lent to it.
void run_on_cpu(const c10::OperatorHandle& op, const c10::OperatorHandle& named, Stack* stack, bool mixed_allowed) {
  const auto& schema = op.schema();
  const auto& name = named.schema().name();
  count_operation();
  check_coverage(name);
  Loan loan;
  loan.mixed_allowed = mixed_allowed;
  const auto count = schema.arguments().size();
  auto arguments = torch::jit::last(*stack, count);
  check_arguments(loan, arguments, name);
  for (const IValue& value : arguments) {
    if (!loan.target && value.isDevice() && value.toDevice().type() == DeviceType::XPU) {
      loan.target = with_index(value.toDevice());
    }
  }
  if (!loan.target) {
    loan.target = Device(DeviceType::XPU, current);
  }
  const size_t first = stack->size() - count;
  for (size_t index = 0; index < count; ++index) {
    IValue& value = (*stack)[first + index];
    value = value.isNone() && takes_generator(schema.arguments()[index])
        ? IValue(inner_generator(default_generator(loan.target->index())))
        : lend_value(loan, value);
  }
  {
    at::AutoDispatchBelowADInplaceOrView below;
    c10::impl::ExcludeDispatchKeyGuard plain(DispatchKeySet(DispatchKey::AutocastCPU));
    op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  }
  ++operations_of.at(loan.target->index());
  loan.settle_arguments();
  const size_t start = stack->size() - schema.returns().size();
  for (size_t index = start; index < stack->size(); ++index) {
    (*stack)[index] = take_value(loan, (*stack)[index]);
    visit_tensors((*stack)[index], [&](const at::Tensor& tensor, bool) {
      if (is_xpu(tensor) && !mixed_allowed) {
        check_fp64(tensor, name);
      }
    });
  }
}

void boxed(const c10::OperatorHandle& op, DispatchKeySet, Stack* stack) {
  if (!op.hasComputedKernelForDispatchKey(DispatchKey::CPU)) {
    C10_THROW_ERROR(NotImplementedError, c10::str("Could not run '", c10::toString(op.operator_name()),
                                                  "' with arguments from the 'XPU' backend."));
  }
  run_on_cpu(op, op, stack, false);
}

void boxed_copy(const c10::OperatorHandle& op, DispatchKeySet, Stack* stack) {
  const auto& to = torch::jit::peek(*stack, 0, 3).toTensor();
  const auto& from = torch::jit::peek(*stack, 1, 3).toTensor();
  if (is_xpu(to) && is_xpu(from) && to.scalar_type() != from.scalar_type()) {
    check_fp64(to, "");  // the device converts; bytes can be copied in any type
    check_fp64(from, "");
  }
  run_on_cpu(op, op, stack, true);
}

void boxed_convolution(const c10::OperatorHandle& op, DispatchKeySet, Stack* stack) {
  static const auto convolution = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
  run_on_cpu(convolution, op, stack, false);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups,
    std::array<bool, 3> mask) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution_backward", "");
  const std::vector<int64_t> bias = {transposed ? weight.size(1) * groups : weight.size(0)};
  Stack stack;
  torch::jit::push(stack, grad, input, weight, bias, stride, padding, dilation, transposed, output_padding, groups,
                   std::vector<bool>(mask.begin(), mask.end()));
  run_on_cpu(op, op, &stack, false);
  return {stack[0].toTensor(), stack[1].toTensor(), stack[2].toTensor()};
}

bool differentiable(const c10::OperatorHandle& op, const Stack& stack) {
  bool found = false;
  for (const IValue& value : torch::jit::last(stack, op.schema().arguments().size())) {
    visit_tensors(value, [&](const at::Tensor& tensor, bool) { found |= tensor.defined() && tensor.requires_grad(); });
  }
  return found && c10::GradMode::is_enabled();
}

// The parts that these are made of have no kernel for CPU tensors: the CPU computes a whole network at once.
void boxed_recurrent(const c10::OperatorHandle& op, DispatchKeySet, Stack* stack) {
  if (differentiable(op, *stack)) {
    C10_THROW_ERROR(NotImplementedError, c10::str("emulated XPU: gradients of ", op.schema().name(), " are not supported"));
  }
  run_on_cpu(op, op, stack, false);
}

void boxed_attention(const c10::OperatorHandle& op, DispatchKeySet, Stack* stack) {
  if (!differentiable(op, *stack)) {
    return run_on_cpu(op, op, stack, false);
  }
  const auto count = op.schema().arguments().size();
  const auto arguments = torch::jit::pop(*stack, count);
  const auto optional = [&](size_t index) { return arguments[index].toOptional<at::Tensor>(); };
  const auto attended = at::_scaled_dot_product_attention_math(
      arguments[0].toTensor(), arguments[1].toTensor(), arguments[2].toTensor(), optional(3), arguments[4].toDouble(),
      arguments[5].toBool(), c10::nullopt, arguments[6].toOptional<double>(), arguments[7].toBool());
  torch::jit::push(*stack, std::get<0>(attended));
}

DeviceIndex asked_for(const c10::optional<Device>& device) {
  const auto index = device && device->has_index() ? device->index() : current;
  ledger(index);
  return index;
}

at::Tensor empty(at::IntArrayRef size, c10::optional<at::ScalarType> type, c10::optional<at::Layout>,
                 c10::optional<Device> device, c10::optional<bool>, c10::optional<at::MemoryFormat> format) {
  const WithDevice here(asked_for(device));
  return at::detail::empty_generic(size, &allocator(), DispatchKeySet(DispatchKey::XPU),
                                   c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, c10::optional<at::ScalarType> type,
                         c10::optional<at::Layout>, c10::optional<Device> device, c10::optional<bool>) {
  const WithDevice here(asked_for(device));
  return at::detail::empty_strided_generic(size, stride, &allocator(), DispatchKeySet(DispatchKey::XPU),
                                           c10::dtype_or_default(type));
}

void record_stream(at::Tensor&, c10::Stream) {}

const std::set<std::string>& own_kernels() {
  static const std::set<std::string> names = {
      "empty.memory_format", "empty_strided", "as_strided", "view", "_reshape_alias", "unfold", "copy_",
      "record_stream", "convolution_overrideable", "convolution_backward_overrideable", "scaled_dot_product_attention"};
  return names;
}

torch::Library& kernels() {
  static auto* library = new torch::Library(torch::Library::IMPL, "aten", DispatchKey::XPU, __FILE__, __LINE__);
  return *library;
}

void register_kernels() {
  auto& library = kernels();
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  library.impl("view", TORCH_FN(at::native::view));
  library.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  library.impl("unfold", TORCH_FN(at::native::unfold));
  library.impl("record_stream", TORCH_FN(record_stream));
  library.impl("convolution_backward_overrideable", TORCH_FN(convolution_backward));
  library.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&boxed_copy>());
  library.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&boxed_convolution>());
  library.impl("scaled_dot_product_attention", torch::CppFunction::makeFromBoxedFunction<&boxed_attention>());
  static auto* autograd = new torch::Library(torch::Library::IMPL, "aten", DispatchKey::AutogradXPU, __FILE__, __LINE__);
  autograd->impl("scaled_dot_product_attention", torch::CppFunction::makeFromBoxedFunction<&boxed_attention>());
  for (const char* name : {"lstm.input", "lstm_cell", "gru.input", "gru_cell"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&boxed_recurrent>());
    autograd->impl(name, torch::CppFunction::makeFromBoxedFunction<&boxed_recurrent>());
  }
  for (const auto& name : c10::Dispatcher::singleton().getRegistrationsForDispatchKey(DispatchKey::CPU)) {
    const std::string full = c10::toString(name), prefix = "aten::";
    if (full.compare(0, prefix.size(), prefix) == 0 && own_kernels().count(full.substr(prefix.size())) == 0) {
      library.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&boxed>());
    }
  }
  static auto* others = new torch::Library(torch::Library::IMPL, "_", DispatchKey::XPU, __FILE__, __LINE__);
  others->fallback(torch::CppFunction::makeFromBoxedFunction<&boxed>());
}

// --- Hooks ----------------------------------------------------------------------------------------------------------

struct PinnedAllocator final : c10::Allocator {
  struct Pinned {
    PinnedAllocator* owner;
    DataPtr memory;
  };
  static void unpin(void* context) {
    std::unique_ptr<Pinned> pinned(static_cast<Pinned*>(context));
    std::lock_guard<std::mutex> guard(pinned->owner->lock);
    pinned->owner->ranges.erase(reinterpret_cast<uintptr_t>(pinned->memory.get()));
  }
  DataPtr allocate(size_t size) override {
    auto memory = c10::GetCPUAllocator()->allocate(size);
    void* data = memory.get();
    {
      std::lock_guard<std::mutex> guard(lock);
      ranges[reinterpret_cast<uintptr_t>(data)] = size;
    }
    return DataPtr(data, new Pinned{this, std::move(memory)}, &unpin, Device(DeviceType::CPU));
  }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    std::memcpy(to, from, count);
  }
  bool holds(const void* data) {
    const auto address = reinterpret_cast<uintptr_t>(data);
    std::lock_guard<std::mutex> guard(lock);
    auto next = ranges.upper_bound(address);
    if (next == ranges.begin()) {
      return false;
    }
    --next;
    return address < next->first + std::max<size_t>(next->second, 1);
  }
  std::mutex lock;
  std::map<uintptr_t, size_t> ranges;
};

PinnedAllocator& pinned_allocator() {
  static auto* instance = new PinnedAllocator;
  return *instance;
}

thread_local bool hand_out_default = false;  // torch.Generator() wraps a default generator while this is set
thread_local std::map<DeviceIndex, int64_t> streams;
std::atomic<int64_t> next_stream{1};

}  // namespace

// The registry knows this class by its name. `override` is left off, so that one source serves several versions.
struct XPUHooks : at::XPUHooksInterface {
  template <typename... Given>  // up to torch 2.12 the registry gives an argument
  explicit XPUHooks(Given&...) {}
  void init() const {}
  bool hasXPU() const {
    return device_count() > 0;
  }
  bool isBuilt() const {
    return !at::detail::getCUDAHooks().isBuilt();  // one process may not have both
  }
  bool isAvailable() const {
    return device_count() > 0;
  }
  bool hasPrimaryContext(DeviceIndex) const {
    return true;
  }
  std::string showConfig() const {
    return "emulated XPU";
  }
  DeviceIndex deviceCount() const {
    return device_count();
  }
  DeviceIndex getNumGPUs() const {
    return device_count();
  }
  DeviceIndex current_device() const {
    return current;
  }
  DeviceIndex getCurrentDevice() const {
    return current;
  }
  void setCurrentDevice(DeviceIndex index) const {
    ledger(index);
    current = index;
  }
  DeviceIndex exchangeDevice(DeviceIndex index) const {
    const auto before = current;
    if (index >= 0) {
      current = index;
    }
    return before;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const {
    return exchangeDevice(index);
  }
  void deviceSynchronize(DeviceIndex) const {
    synchronize();
  }
  const at::Generator& getDefaultGenerator(DeviceIndex index = -1) const {
    return default_generator(index);
  }
  at::Generator getNewGenerator(DeviceIndex index = -1) const {
    const auto wanted = index < 0 ? current : index;
    return hand_out_default ? default_generator(wanted)
                            : at::make_generator<EmulatedGenerator>(wanted, c10::default_rng_seed_val);
  }
  c10::Allocator* getPinnedMemoryAllocator() const {
    return &pinned_allocator();
  }
  bool isPinnedPtr(const void* data) const {
    return pinned_allocator().holds(data);
  }
};

namespace {

struct Moment {
  std::chrono::steady_clock::time_point when;
};

struct EmulatedGuard final : c10::impl::DeviceGuardImplInterface {
  static constexpr DeviceType static_type = DeviceType::XPU;
  EmulatedGuard() = default;
  explicit EmulatedGuard(DeviceType) {}
  DeviceType type() const override {
    return DeviceType::XPU;
  }
  Device exchangeDevice(Device device) const override {
    const auto before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override {
    return Device(DeviceType::XPU, current);
  }
  void setDevice(Device device) const override {
    if (device.has_index()) {
      ledger(device.index());
      current = device.index();
    }
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.has_index()) {
      current = device.index();
    }
  }
  c10::Stream getStream(Device device) const override {
    const auto index = with_index(device).index();
    return stream(index, streams[index]);
  }
  c10::Stream getDefaultStream(Device device) const override {
    return stream(with_index(device).index(), 0);
  }
  c10::Stream getStreamFromGlobalPool(Device device, bool) const override {
    return getNewStream(device, 0);
  }
  c10::Stream getNewStream(Device device, int) const override {
    return stream(with_index(device).index(), next_stream++);
  }
  c10::Stream exchangeStream(c10::Stream wanted) const override {
    const auto before = getStream(wanted.device());
    streams[wanted.device_index()] = wanted.id();
    return before;
  }
  DeviceIndex deviceCount() const noexcept override {
    return device_count();
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {
    synchronize();
  }
  void synchronizeDevice(const DeviceIndex) const override {
    synchronize();
  }
  void record(void** event, const c10::Stream&, const DeviceIndex, const c10::EventFlag) const override {
    if (*event == nullptr) {
      *event = new Moment;
    }
    static_cast<Moment*>(*event)->when = std::chrono::steady_clock::now();
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  void synchronizeEvent(void*) const override {
    synchronize();
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    delete static_cast<Moment*>(event);
  }
  double elapsedTime(void* first, void* second, const DeviceIndex) const override {
    const auto passed = static_cast<Moment*>(second)->when - static_cast<Moment*>(first)->when;
    return std::chrono::duration<double, std::milli>(passed).count();
  }
  static c10::Stream stream(DeviceIndex index, int64_t id) {
    return c10::Stream(c10::Stream::UNSAFE, Device(DeviceType::XPU, index), id);
  }
};

thread_local std::string last_error;

template <typename Function>
int64_t guarded(Function function) {
  try {
    return function();
  } catch (const c10::Error& error) {
    last_error = error.what_without_backtrace();
  } catch (const std::exception& error) {
    last_error = error.what();
  }
  return -1;
}

}  // namespace

namespace at {
using ::XPUHooks;
REGISTER_XPU_HOOKS(XPUHooks)
}  // namespace at

C10_REGISTER_GUARD_IMPL(XPU, EmulatedGuard)

// --- Controls: -1 is an error, which emulated_error() words -----------------------------------------------------------

extern "C" {

const char* emulated_error() {
  return last_error.c_str();
}

void emulated_add_device(int64_t total, int fp64) {
  Ledger device;
  device.physical = static_cast<int>(known.size());
  device.total = total;
  device.fp64 = fp64 != 0;
  known.push_back(device);
}

int64_t emulated_start() {
  return guarded([] {
    c10::SetAllocator(DeviceType::XPU, &allocator());
    register_kernels();
    return 0;
  });
}

int64_t emulated_device_count() {
  return device_count();
}

int64_t emulated_physical(int64_t index) {
  return guarded([&] { return static_cast<int64_t>(ledger(index).physical); });
}

int64_t emulated_get_device() {
  return current;
}

int64_t emulated_set_device(int64_t index) {
  return guarded([&] {
    ledger(index);
    current = static_cast<DeviceIndex>(index);
    return 0;
  });
}

int64_t emulated_get_stream(int64_t index) {
  return streams[static_cast<DeviceIndex>(index)];
}

void emulated_set_stream(int64_t index, int64_t id) {
  streams[static_cast<DeviceIndex>(index)] = id;
}

void emulated_hand_out_default(int wanted) {
  hand_out_default = wanted != 0;
}

void emulated_same_random_numbers(int wanted) {
  same_random_numbers = wanted != 0;
}

int64_t emulated_synchronize() {
  return guarded([] {
    synchronize();
    return 0;
  });
}

int64_t emulated_empty_cache() {
  return guarded([] {
    if (const int code = empty_code.exchange(0); code != 0) {
      raise_code(code);
    }
    allocator().emptyCache({0, 0});
    return 0;
  });
}

int64_t emulated_memory_info(int64_t index, int64_t* answer) {
  return guarded([&] {
    const auto info = allocator().getMemoryInfo(static_cast<DeviceIndex>(index));
    answer[0] = static_cast<int64_t>(info.first);
    answer[1] = static_cast<int64_t>(info.second);
    return 0;
  });
}

// allocated, requested, blocks: current, peak, allocated, freed each; then reserved, its peak, OOMs, retries.
int64_t emulated_memory_stats(int64_t index, int64_t* answer) {
  return guarded([&] {
    auto& device = ledger(index);
    std::lock_guard<std::mutex> guard(ledger_lock);
    for (const auto* stat : {&device.allocated, &device.requested, &device.blocks}) {
      for (const int64_t value : {stat->current, stat->peak, stat->allocated, stat->freed}) {
        *answer++ = value;
      }
    }
    for (const int64_t value : {device.reserved, device.reserved_peak, device.ooms, device.retries}) {
      *answer++ = value;
    }
    return 0;
  });
}

int64_t emulated_reset_stats(int64_t index, int peak) {
  return guarded([&] {
    const auto device = static_cast<DeviceIndex>(index);
    peak != 0 ? allocator().resetPeakStats(device) : allocator().resetAccumulatedStats(device);
    return 0;
  });
}

int64_t emulated_set_fraction(int64_t index, double fraction) {
  return guarded([&] {
    ledger(index).fraction = fraction;
    return 0;
  });
}

double emulated_get_fraction(int64_t index) {
  return ledger(index).fraction;
}

int64_t emulated_other_process(int64_t index, int64_t bytes) {
  return guarded([&] {
    ledger(index).other = bytes;
    return 0;
  });
}

int64_t emulated_memory_mode(int64_t index, int mode) {
  return guarded([&] {
    auto& device = ledger(index);
    device.mode = kHonest;
    device.stale_free = static_cast<int64_t>(allocator().getMemoryInfo(static_cast<DeviceIndex>(index)).first);
    device.mode = mode;
    return 0;
  });
}

int64_t emulated_operations() {
  return operations;
}

int64_t emulated_operations_of(int64_t index) {
  return guarded([&] {
    ledger(index);
    return operations_of.at(index).load();
  });
}

void emulated_fail(int code, int64_t after, int64_t times) {
  fault_at = operations + after;
  fault_times = times;
  fault_code = code;
}

void emulated_fail_synchronize(int code) {
  sync_code = code;
}

void emulated_fail_empty_cache(int code) {
  empty_code = code;
}

void emulated_fail_allocation(int64_t after) {
  oom_next = after;
}

void emulated_clear_faults() {
  fault_code = 0;
  sync_code = 0;
  empty_code = 0;
  oom_next = 0;
  lost = false;
}

void emulated_refuse(const char* name) {
  refused().insert(name);
  refusing = true;
}

void emulated_refuse_nothing() {
  refused().clear();
  refusing = false;
}

}  // extern "C"
