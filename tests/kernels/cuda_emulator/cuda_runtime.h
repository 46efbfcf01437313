// The part of CUDA that the kernels use, on the CPU. Compiled against the headers in this folder, the kernels run
// unchanged.
//
// The threads of a block are fibres of one OS thread. They switch only at barriers and warp operations, in the order of
// the environment variable SPADE_EMULATOR_ORDER: by default each thread in turn, "reverse" the other way round, and
// "warps" each warp as far as it gets. A kernel that reads without waiting gives different results in different orders.
// Blocks run one after the other. The process ends with a message if some thread of a block never reaches a barrier, or
// some lane of a mask never reaches a warp operation.
#ifndef SPADE_EMULATOR_CUDA_RUNTIME_H
#define SPADE_EMULATOR_CUDA_RUNTIME_H

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

// ---- Host side ----

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorLaunchOutOfResources = 701
};
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
constexpr int kEmulatedShared = 227 << 10;  // room for the dynamic shared memory of a block on any GPU
constexpr int kEmulatedDevices = 2;
using cudaStream_t = struct emulated_stream*;

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};

const char* cudaGetErrorString(cudaError_t error);
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

// Two equal devices; each thread has a current device, and each device counts its launches.
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);

// The compute capability of the emulated GPU, such as 86 for 8.6: SPADE_EMULATOR_TARGET, or 90 (Hopper).
inline int emulated_target() {
    const char* target = std::getenv("SPADE_EMULATOR_TARGET");
    return target == nullptr ? 90 : std::atoi(target);
}

// The most dynamic shared memory of a block that a kernel may ask for (CUDA programming guide, compute capabilities).
inline int emulated_shared_limit() {
    switch (emulated_target()) {
        case 75:  // too little for any product of float16
            return 64 << 10;
        case 80:
            return 163 << 10;
        case 90:
        case 100:
            return 227 << 10;
        default:  // 8.6, 8.9, 12.0
            return 99 << 10;
    }
}

// Three multiprocessors, so that kernels go round their strides.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    if (attribute == cudaDevAttrMultiProcessorCount) *value = 3;
    if (attribute == cudaDevAttrComputeCapabilityMajor) *value = emulated_target() / 10;
    if (attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin) *value = emulated_shared_limit();
    return cudaSuccess;
}

template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
    *blocks = 1;
    return cudaSuccess;
}

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int value) {
    return value <= emulated_shared_limit() ? cudaSuccess : cudaErrorInvalidValue;
}

inline cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t) {
    std::memset(pointer, value, bytes);
    return cudaSuccess;
}

cudaError_t emulated_launch(const cudaLaunchConfig_t& config, const std::function<void()>& thread);

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const std::tuple<Parameters...> kept(arguments...);
    return emulated_launch(*config, [&] { std::apply(kernel, kept); });
}

// ---- Barriers and warp operations ----

void __syncthreads();
void emulated_warp_barrier(unsigned mask);
unsigned emulated_lane();
extern uint64_t emulated_exchange[][32];  // [warp][lane]
unsigned emulated_warp();

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { emulated_warp_barrier(mask); }

template <typename Value>
Value emulated_shuffle(unsigned mask, Value value, unsigned from) {
    static_assert(sizeof(Value) <= 8);
    std::memcpy(&emulated_exchange[emulated_warp()][emulated_lane()], &value, sizeof(Value));
    emulated_warp_barrier(mask);
    Value result;
    std::memcpy(&result, &emulated_exchange[emulated_warp()][from], sizeof(Value));
    emulated_warp_barrier(mask);
    return result;
}

inline unsigned __ballot_sync(unsigned mask, bool value) {
    emulated_exchange[emulated_warp()][emulated_lane()] = value;
    emulated_warp_barrier(mask);
    unsigned result = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1) result |= static_cast<unsigned>(emulated_exchange[emulated_warp()][lane]) << lane;
    emulated_warp_barrier(mask);
    return result;
}

inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }

template <typename Value>
Value __shfl_xor_sync(unsigned mask, Value value, int lanes) {
    return emulated_shuffle(mask, value, emulated_lane() ^ static_cast<unsigned>(lanes));
}

template <typename Value>
Value __shfl_sync(unsigned mask, Value value, int lane) {
    return emulated_shuffle(mask, value, static_cast<unsigned>(lane));
}

template <typename Value>
Value __shfl_up_sync(unsigned mask, Value value, unsigned by) {
    const unsigned lane = emulated_lane();
    return emulated_shuffle(mask, value, lane >= by ? lane - by : lane);
}

// Asynchronous copies and products, which a thread starts and waits for in groups. They run at once or, if
// SPADE_EMULATOR_LATE is "copies" or "products", as late as the wait allows. A correct kernel gives the same result
// either way.
enum emulated_queue { emulated_copies, emulated_products };
void emulated_start(std::function<void()> work, emulated_queue queue);
void emulated_commit(emulated_queue queue);
void emulated_wait(size_t groups, emulated_queue queue);
[[noreturn]] void emulated_fail(const char* what);

// ---- Memory ----

inline void __threadfence() {}

extern uint64_t emulated_cached_loads;  // __ldcg since the library was loaded

template <typename Value>
Value __ldcg(const Value* address) {
    ++emulated_cached_loads;
    return *address;
}

template <typename Value>
Value atomicAdd(Value* address, Value value) {
    const Value old = *address;
    *address = old + value;
    return old;
}

inline int atomicMin(int* address, int value) {
    const int old = *address;
    if (value < old) *address = value;
    return old;
}

inline int atomicCAS(int* address, int expected, int value) {
    const int old = *address;
    if (old == expected) *address = value;
    return old;
}

inline unsigned atomicInc(unsigned* address, unsigned limit) {
    const unsigned old = *address;
    *address = old >= limit ? 0 : old + 1;
    return old;
}

inline float rsqrtf(float value) { return 1 / std::sqrt(value); }
using ::fmaxf;
using ::fminf;
using ::tanhf;
using std::fmaf;

inline int min(int a, int b) { return a < b ? a : b; }

#endif
