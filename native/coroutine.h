// One engine that can be left in the middle of a call and gone on with later.
//
// Coroutine::resume() runs `body` until it calls suspend(), or returns. Two ways to do that:
//   Fiber:  a stack of its own on the caller's thread. A switch costs some nanoseconds.
//   Thread: a thread of its own, the two never running at once. For platforms without assembly below, and for Pythons that
//           check the stack pointer (3.14 and newer), in case the engine calls Python code.
#pragma once

#include <sys/mman.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>

namespace pysamp {

class Coroutine {
   public:
    virtual ~Coroutine() = default;
    virtual void resume() = 0;   // called by the owner
    virtual void suspend() = 0;  // called by the body
    bool finished() const { return finished_; }

   protected:
    explicit Coroutine(std::function<void()> body) : body_(std::move(body)) {}
    std::function<void()> body_;  // must not throw
    bool finished_ = false;
};

#if (defined(__x86_64__) || defined(__aarch64__)) && (defined(__linux__) || defined(__APPLE__))
#define PYSAMP_HAS_FIBERS 1

// Save the callee-saved registers on this stack, store its pointer, and go on with another stack.
extern "C" void pysamp_switch_stack(void** save, void* load);

class Fiber final : public Coroutine {
   public:
    explicit Fiber(std::function<void()> body) : Coroutine(std::move(body)) {
        page_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        memory_ = mmap(nullptr, kSize + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | kNoReserve, -1, 0);
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
        mprotect(memory_, page_, PROT_NONE);  // running out of stack faults instead of corrupting
        auto* top = reinterpret_cast<void**>(static_cast<char*>(memory_) + kSize + page_);
#if defined(__x86_64__)
        // as pysamp_switch_stack leaves a stack: control words, six registers, return address
        *--top = nullptr;
        *--top = reinterpret_cast<void*>(&Fiber::entry);
        *--top = nullptr;                        // rbp
        *--top = nullptr;                        // rbx
        *--top = this;                           // r12, which entry reads
        for (int i = 0; i < 3; ++i) *--top = nullptr;  // r13 to r15
        *--top = reinterpret_cast<void*>(std::uintptr_t{0x1f80} | (std::uintptr_t{0x037f} << 32));  // mxcsr, x87 control
#else
        for (int i = 0; i < 20; ++i) *--top = nullptr;  // x19 to x30, d8 to d15
        top[0] = this;                                        // x19
        top[11] = reinterpret_cast<void*>(&Fiber::entry);     // x30
#endif
        fiber_ = top;
    }
    ~Fiber() override { munmap(memory_, kSize + page_); }
    void resume() override { pysamp_switch_stack(&owner_, fiber_); }
    void suspend() override { pysamp_switch_stack(&fiber_, owner_); }

   private:
    static constexpr std::size_t kSize = std::size_t{8} << 20;  // reserved; memory is used as far as the stack grows
#if defined(MAP_NORESERVE)
    static constexpr int kNoReserve = MAP_NORESERVE;
#else
    static constexpr int kNoReserve = 0;
#endif
    [[noreturn]] static void entry();
    [[noreturn]] void run() {
        body_();
        finished_ = true;
        suspend();
        std::abort();  // a finished fiber is never resumed
    }
    std::size_t page_;
    void* memory_;
    void* fiber_;
    void* owner_ = nullptr;
};
#endif

// Keeps one thread on the processor on which another one runs. Of two threads that never run at once, each wakes up the other in
// some microseconds on the same processor, and in 50 and more on an idle one.
class Follower {
   public:
    Follower() = default;
    Follower(const Follower&) = delete;
    Follower& operator=(const Follower&) = delete;
    ~Follower() { let_go(); }

#if defined(__linux__)
    void follow() {  // called by the thread that is to follow
        if (thread_ == std::this_thread::get_id()) return;
        let_go();
        thread_ = std::this_thread::get_id();
        if (sched_getaffinity(0, sizeof(allowed_), &allowed_) == 0) id_ = static_cast<pid_t>(syscall(SYS_gettid));
    }
    void lead() {  // by the thread that is followed
        int processor = sched_getcpu();
        if (id_ == 0 || processor == processor_ || processor < 0 || !CPU_ISSET(processor, &allowed_)) return;
        processor_ = processor;
        cpu_set_t here;
        CPU_ZERO(&here);
        CPU_SET(processor, &here);
        sched_setaffinity(id_, sizeof(here), &here);
    }

   private:
    void let_go() {
        if (id_ != 0 && processor_ >= 0) sched_setaffinity(id_, sizeof(allowed_), &allowed_);
        id_ = 0;
        processor_ = -1;
    }
    cpu_set_t allowed_;
    pid_t id_ = 0;
    int processor_ = -1;
    std::thread::id thread_;
#else
    void follow() {}
    void lead() {}

   private:
    void let_go() {}
#endif
};

class Thread final : public Coroutine {
   public:
    // spins: have both sides look out for each other, for a while, instead of sleeping. That takes a processor of its own, whose
    // caches then keep what the owner needs; where there is none, nothing spins.
    explicit Thread(std::function<void()> body, bool spins = false)
        : Coroutine(std::move(body)), spins_(spins && n_processors() > 1) {}
    ~Thread() override {
        if (thread_.joinable()) thread_.join();
    }
    void resume() override {
        if (!spins_) owner_.follow();
        hand_over(true);
        if (!thread_.joinable()) {
            thread_ = std::thread([this] {
                body_();
                finished_ = true;
                hand_over(false);
            });
        }
        wait_for(false);
    }
    void suspend() override {
        if (!spins_) owner_.lead();
        hand_over(false);
        wait_for(true);
    }

   private:
    bool seen_soon(bool engine) const {
        if (!spins_) return false;
        auto end = std::chrono::steady_clock::now() + kPatience;
        do {
            for (int i = 0; i < 64; ++i) {
                if (engine_runs_.load(std::memory_order_acquire) == static_cast<std::uint32_t>(engine)) return true;
                relax();
            }
        } while (std::chrono::steady_clock::now() < end);
        return false;
    }
    static void relax() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }
    static int n_processors() {
#if defined(__linux__)
        cpu_set_t allowed;
        if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return CPU_COUNT(&allowed);
#endif
        return static_cast<int>(std::thread::hardware_concurrency());
    }
    static constexpr std::chrono::seconds kPatience{1};
    const bool spins_;
    std::atomic<std::uint32_t> engine_runs_ = 0;

#if defined(__linux__)
    // Straight to the kernel: what a condition variable adds is little, unless its code and data have to come from memory.
    void hand_over(bool to_engine) {
        engine_runs_.store(to_engine);
        if (sleeps_[to_engine].exchange(false)) syscall(SYS_futex, &engine_runs_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    }
    void wait_for(bool engine) {
        if (seen_soon(engine)) return;
        while (true) {
            sleeps_[engine].store(true);
            if (engine_runs_.load() == static_cast<std::uint32_t>(engine)) break;
            syscall(SYS_futex, &engine_runs_, FUTEX_WAIT_PRIVATE, static_cast<std::uint32_t>(!engine), nullptr, nullptr, 0);
        }
        sleeps_[engine].store(false);
    }
    std::atomic<bool> sleeps_[2] = {false, false};  // whether the owner, the engine may have to be woken up
    static_assert(sizeof(engine_runs_) == 4 && std::atomic<std::uint32_t>::is_always_lock_free);
#else
    void hand_over(bool to_engine) {
        {
            std::lock_guard lock(mutex_);
            engine_runs_ = to_engine;
        }
        changed_.notify_one();
    }
    void wait_for(bool engine) {
        if (seen_soon(engine)) return;
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return engine_runs_ == static_cast<std::uint32_t>(engine); });
    }
    std::mutex mutex_;
    std::condition_variable changed_;
#endif

    Follower owner_;
    std::thread thread_;
};

inline std::unique_ptr<Coroutine> make_coroutine(std::function<void()> body, bool own_thread) {
#if defined(PYSAMP_HAS_FIBERS)
    if (!own_thread) return std::make_unique<Fiber>(std::move(body));
#endif
    return std::make_unique<Thread>(std::move(body));
}

}  // namespace pysamp
