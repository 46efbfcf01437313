// The emulator: runs the threads of a block as fibres. See cuda_runtime.h.

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;
uint64_t emulated_exchange[32][32];
uint64_t emulated_cached_loads = 0;

namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kCacheWay = 4096;  // addresses this far apart share a set of the first cache
constexpr unsigned kMaxThreads = 1024;

enum class State { ready, at_block_barrier, at_warp_barrier, done };

using Place = void* [5];  // where to jump to, as GCC's own setjmp keeps it: it saves no signals and runs no cleanups

// A fibre starts in a context of its own. Later switches are jumps, which make no system call.
struct Fibre {
    ucontext_t context;
    Place place;
    bool begun = false;
    std::unique_ptr<char[]> stack{new char[kStackBytes + kCacheWay]};
    State state = State::done;
    unsigned mask = 0;
    std::deque<std::vector<std::function<void()>>> started[2] = {{{}}, {{}}};  // groups, the last one still open
};

std::mutex turn;  // one kernel at a time, because shared memory is static
std::vector<Fibre> fibres;
ucontext_t starter;
Place scheduler;
unsigned current = 0, threads = 0;
bool late[2] = {};
const std::function<void()>* body = nullptr;
thread_local int device = 0;
uint64_t launches[kEmulatedDevices] = {};
uint64_t shared_asked = 0;

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "[emulator] block %u, thread %u: %s\n", blockIdx.x, current, what);
    std::abort();
}

// Jumps are in functions of their own: GCC's setjmp and longjmp may not meet in one.
[[noreturn, gnu::noinline]] void jump(Place& place) { __builtin_longjmp(place, 1); }

[[gnu::noinline]] void yield() {
    if (__builtin_setjmp(fibres[current].place) == 0) jump(scheduler);
}

void entry() {
    for (;;) {  // once a block
        (*body)();
        fibres[current].state = State::done;
        yield();
    }
}

void wait(State state, unsigned mask) {
    fibres[current].state = state;
    fibres[current].mask = mask;
    yield();
}

[[gnu::noinline]] void begin(Fibre& fibre, unsigned thread) {
    fibre.begun = true;
    getcontext(&fibre.context);
    // Stacks that begin at equal places of a page would share few sets of the cache.
    fibre.context.uc_stack.ss_sp = fibre.stack.get() + thread * 192 % kCacheWay;
    fibre.context.uc_stack.ss_size = kStackBytes;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, entry, 0);
    swapcontext(&starter, &fibre.context);
}

[[gnu::noinline]] void resume(unsigned thread) {
    current = thread;
    threadIdx = dim3(thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y));
    if (__builtin_setjmp(scheduler) != 0) return;
    if (fibres[thread].begun) jump(fibres[thread].place);
    begin(fibres[thread], thread);
}

// Releases the lanes of a warp whose mask is complete: all lanes of the mask wait with the same mask.
bool release_warp(unsigned first) {
    bool released = false;
    for (unsigned lane = 0; lane < 32 && first + lane < threads; ++lane) {
        const Fibre& one = fibres[first + lane];
        if (one.state != State::at_warp_barrier) continue;
        bool all = true;
        for (unsigned other = 0; other < 32; ++other)
            if (one.mask >> other & 1)
                all = all && first + other < threads && fibres[first + other].state == State::at_warp_barrier &&
                      fibres[first + other].mask == one.mask;
        if (!all) continue;
        const unsigned mask = one.mask;
        for (unsigned other = 0; other < 32; ++other)
            if (mask >> other & 1) fibres[first + other].state = State::ready;
        released = true;
    }
    return released;
}

bool release_block() {
    for (unsigned thread = 0; thread < threads; ++thread)
        if (fibres[thread].state != State::at_block_barrier) return false;
    for (unsigned thread = 0; thread < threads; ++thread) fibres[thread].state = State::ready;
    return true;
}

// Runs each ready thread of first .. last - 1 once. Returns whether there was any.
bool run_threads(unsigned first, unsigned last, bool reverse) {
    bool ran = false;
    for (unsigned i = first; i < last; ++i) {
        const unsigned thread = reverse ? last - 1 - (i - first) : i;
        if (fibres[thread].state == State::ready) resume(thread), ran = true;
    }
    for (unsigned warp = first; warp < last; warp += 32) release_warp(warp);
    return ran;
}

bool all_done() {
    for (unsigned thread = 0; thread < threads; ++thread)
        if (fibres[thread].state != State::done) return false;
    for (unsigned thread = 0; thread < threads; ++thread)
        for (const auto& started : fibres[thread].started)
            if (started.size() > 1 || !started.front().empty())
                fail("a thread ended before its asynchronous copies or products");
    return true;
}

void run_block(bool reverse, bool by_warps) {
    const unsigned together = by_warps ? 32 : threads;
    for (unsigned thread = 0; thread < threads; ++thread) fibres[thread].state = State::ready;
    while (!all_done()) {
        bool ran = false;
        for (unsigned first = 0; first < threads; first += together)
            while (run_threads(first, std::min(first + together, threads), reverse)) ran = true;
        if (!release_block() && !ran) fail("a barrier or warp operation that some thread never reaches");
    }
}

}  // namespace

void __syncthreads() { wait(State::at_block_barrier, 0); }
void emulated_warp_barrier(unsigned mask) {
    if ((mask >> emulated_lane() & 1) == 0) fail("a warp operation whose mask leaves this lane out");
    wait(State::at_warp_barrier, mask);
}
unsigned emulated_lane() { return current % 32; }
unsigned emulated_warp() { return current / 32; }

void emulated_fail(const char* what) { fail(what); }

void emulated_start(std::function<void()> work, emulated_queue queue) {
    if (late[queue])
        fibres[current].started[queue].back().push_back(std::move(work));
    else
        work();
}

void emulated_commit(emulated_queue queue) { fibres[current].started[queue].emplace_back(); }

void emulated_wait(size_t groups, emulated_queue queue) {
    auto& started = fibres[current].started[queue];
    for (; started.size() > groups + 1; started.pop_front())
        for (const auto& work : started.front()) work();
}

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return "no error";
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorInvalidDevice:
            return "invalid device ordinal";
        case cudaErrorLaunchOutOfResources:
            return "too many resources requested for launch";
        default:
            return "invalid configuration argument";
    }
}

cudaError_t cudaGetDevice(int* current) {
    *current = device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int next) {
    if (next < 0 || next >= kEmulatedDevices) return cudaErrorInvalidDevice;
    device = next;
    return cudaSuccess;
}

// For tests: what happened since the library was loaded.
extern "C" uint64_t emulated_launches(int of_device) { return launches[of_device]; }
extern "C" uint64_t emulated_last_dynamic_shared() { return shared_asked; }
extern "C" uint64_t emulated_loads_past_l1() { return emulated_cached_loads; }

cudaError_t emulated_launch(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
    const std::lock_guard<std::mutex> lock(turn);
    const char* order = std::getenv("SPADE_EMULATOR_ORDER");
    const bool reverse = order != nullptr && std::strcmp(order, "reverse") == 0;
    const bool by_warps = order != nullptr && std::strcmp(order, "warps") == 0;
    const char* what = std::getenv("SPADE_EMULATOR_LATE");
    late[emulated_copies] = what != nullptr && std::strcmp(what, "copies") == 0;
    late[emulated_products] = what != nullptr && std::strcmp(what, "products") == 0;
    threads = config.blockDim.x * config.blockDim.y * config.blockDim.z;
    if (threads == 0 || threads > kMaxThreads || config.gridDim.x == 0 || config.gridDim.x > 0x7FFFFFFFu ||
        config.gridDim.y == 0 || config.gridDim.y > 65535 ||
        config.dynamicSmemBytes > static_cast<size_t>(emulated_shared_limit()))
        return cudaErrorInvalidConfiguration;
    ++launches[device];
    shared_asked = config.dynamicSmemBytes;
    if (fibres.empty()) fibres = std::vector<Fibre>(kMaxThreads);
    body = &thread;
    blockDim = config.blockDim, gridDim = config.gridDim;
    const unsigned blocks = gridDim.x * gridDim.y;
    for (unsigned i = 0; i < blocks; ++i) {
        const unsigned block = reverse ? blocks - 1 - i : i;
        blockIdx = dim3(block % gridDim.x, block / gridDim.x, 0);
        run_block(reverse, by_warps);
    }
    return cudaSuccess;
}
