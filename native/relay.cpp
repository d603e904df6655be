// Engines that call Python for their forces, stepped from inside a compiled loop all the same.
//
// The engine's own run is a Python function in a thread of its own, which only runs while the loop waits for it. Where the engine
// asks Python for forces, that calls exchange(): it gathers the sampler's particles from the engine's memory and waits; the XLA FFI
// call that had let the engine go on returns them to XLA, and the next such call brings the bias forces. A stack of its own, which
// serves for engines without Python (hook.h), does not do: an interpreter's frames belong to a thread, and XLA may change threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "coroutine.h"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace pysamp {
namespace {

// Rows of numbers in the engine's memory, and where they are in an array of doubles.
struct Rows {
    char* data;
    std::int64_t row, column;  // strides [bytes]
    int n_columns;
    char kind;  // 'd', 'f', 'i' (int32)
    std::int64_t offset;

    double get(std::int64_t i, int k) const {
        const char* at = data + i * row + k * column;
        if (kind == 'd') return *reinterpret_cast<const double*>(at);
        if (kind == 'f') return *reinterpret_cast<const float*>(at);
        return *reinterpret_cast<const std::int32_t*>(at);
    }
    void set(std::int64_t i, int k, double value) const {
        char* at = data + i * row + k * column;
        if (kind == 'd') *reinterpret_cast<double*>(at) = value;
        else *reinterpret_cast<float*>(at) = static_cast<float>(value);
    }
};

using Array = nb::ndarray<nb::device::cpu>;
using ConstArray = nb::ndarray<nb::ro, nb::device::cpu>;

enum Kind { kFinished = 0, kNewStep = 1, kSameStep = 2 };

// Where the time goes within the hook: gathering, the switch to the loop, its step, the switch back, writing; and all of it in
// evaluations by way of Python, of which a run begins with one.
enum Part { kGather, kAway, kStep, kBack, kScatter, kPython, kParts };

class Stopwatch {
   public:
    class Hook {  // on the engine's stack for as long as the hook lasts
       public:
        Hook(Stopwatch& watch, bool python) : watch_(watch) {
            watch_.runs_ = watch_.wanted_;
            watch_.python_ = python;
            if (!watch_.runs_) return;
            if (!python) watch_.n_evaluations_ += 1.0;
            watch_.mark_ = Clock::now();
        }
        ~Hook() { watch_.runs_ = false; }
        Hook(const Hook&) = delete;
        Hook& operator=(const Hook&) = delete;

       private:
        Stopwatch& watch_;
    };
    void lap(Part part) {
        if (!runs_) return;
        Clock::time_point now = Clock::now();
        spent_[python_ ? kPython : part] += std::chrono::duration<double>(now - mark_).count();
        mark_ = now;
    }
    std::vector<double> take() {
        wanted_ = true;
        auto result = std::exchange(spent_, std::vector<double>(kParts, 0.0));
        result.push_back(std::exchange(n_evaluations_, 0.0));
        return result;
    }

   private:
    using Clock = std::chrono::steady_clock;
    std::vector<double> spent_ = std::vector<double>(kParts, 0.0);
    Clock::time_point mark_;
    double n_evaluations_ = 0.0;
    bool wanted_ = false, runs_ = false, python_ = false;
};

class Relay {
   public:
    static constexpr std::uint64_t kMagic = 0x70797361'6d707231;
    std::uint64_t magic = kMagic;
    std::vector<double> handed, forces;

    Relay(std::size_t n_handed, std::size_t n_forces, std::vector<std::int64_t> tags, nb::callable evaluate, bool spins)
        : handed(n_handed), forces(n_forces), tags_(std::move(tags)), index_(tags_.size()), evaluate_(std::move(evaluate)),
          spins_(spins) {}
    ~Relay() { magic = 0; }

    // Where a tag is among the rows of the engine's arrays.
    void set_places(ConstArray places) {
        places_ = static_cast<const std::uint32_t*>(places.data());
        sources_.clear();
        targets_.clear();
        totals_.clear();
    }
    void add_source(ConstArray array, std::int64_t offset) { sources_.push_back(rows(array, offset)); }
    void add_target(Array array, std::int64_t offset) { targets_.push_back(rows(array, offset)); }
    void add_total(Array array, std::int64_t offset) { totals_.push_back(rows(array, offset)); }

    // The engine's hook, called at each evaluation of forces: by way of Python, until that says repeat_since().
    void set_forces(std::int64_t step) {
        Stopwatch::Hook within(stopwatch_, !repeats_);
        if (!repeats_) {
            evaluate_(step);
        } else {
            bool is_new = step != std::exchange(last_step_, step);
            if (!exchange(is_new ? kNewStep : kSameStep)) {
                PyErr_SetString(PyExc_FloatingPointError, "a bias energy or force is not finite");
                throw nb::python_error();
            }
        }
    }
    // For the rest of the run nothing changes but particles and step: no Python is needed.
    void repeat_since(std::int64_t step) {
        repeats_ = true;
        last_step_ = step;
    }
    // Seconds spent in each part of the hook since the last call, and the number of evaluations without Python; from the first
    // call on.
    std::vector<double> seconds() { return stopwatch_.take(); }

    // On the engine's stack: hand over, wait, take. False if what came back is not finite.
    bool exchange(double kind) {
        if (!engine_ || cancelled_) throw std::runtime_error("the run was left");
        fetch_rows();
        for (const Rows& source : sources_) {
            double* out = handed.data() + source.offset;
            for (std::int64_t i : index_)
                for (int k = 0; k < source.n_columns; ++k) *out++ = source.get(i, k);
        }
        handed[0] = kind;
        stopwatch_.lap(kGather);
        {
            nb::gil_scoped_release release;
            engine_->suspend();
        }
        stopwatch_.lap(kBack);
        if (cancelled_) throw std::runtime_error("the run was left");
        double sum = 0.0;
        for (double value : forces) sum += value * 0.0;
        for (const Rows& target : targets_) {
            const double* in = forces.data() + target.offset;
            for (std::int64_t i : index_)
                for (int k = 0; k < target.n_columns; ++k) target.set(i, k, *in++);
        }
        std::int64_t first = index_.empty() ? 0 : index_[0];  // some particle: only sums over all of them have a meaning
        for (const Rows& total : totals_)
            for (int k = 0; k < total.n_columns; ++k) total.set(first, k, forces[total.offset + k]);
        stopwatch_.lap(kScatter);
        return sum == 0.0;
    }

    // Begin a run; it goes on with each resume().
    void start(nb::callable body) {
        if (engine_) throw std::runtime_error("the engine is running already");
        error_ = nullptr;
        cancelled_ = started_ = repeats_ = false;
        auto run = [this, body = std::move(body)] {
            nb::gil_scoped_acquire acquire;
            try {
                body();
            } catch (...) {
                error_ = std::current_exception();
            }
        };
        engine_ = std::make_unique<Thread>(std::move(run), spins_);
    }

    // The FFI call: go on to the next evaluation of forces.
    void resume() {
        started_ = true;
        stopwatch_.lap(kStep);
        if (!engine_->finished()) engine_->resume();
        stopwatch_.lap(kAway);
        if (engine_->finished()) handed[0] = kFinished;
    }
    bool running() const { return engine_ != nullptr; }

    // End a run, also one that was left in the middle; throws what the engine threw.
    void finish() {
        if (engine_ && started_) {
            nb::gil_scoped_release release;
            cancelled_ = !engine_->finished();
            while (!engine_->finished()) engine_->resume();
        }
        engine_.reset();
        repeats_ = false;
        if (error_ && !cancelled_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

   private:
    // The places of the particles. All of their rows are asked for before any is read: after the engine's own work they are not in
    // the caches, and waiting for one after the other takes longest.
    void fetch_rows() {
        for (std::size_t i = 0; i < tags_.size(); ++i) {
            index_[i] = places_[tags_[i]];
            for (const Rows& source : sources_) __builtin_prefetch(source.data + index_[i] * source.row, 0);
            for (const Rows& target : targets_) __builtin_prefetch(target.data + index_[i] * target.row, 1);
        }
    }

    template <class AnyArray>
    static Rows rows(const AnyArray& array, std::int64_t offset) {
        auto type = array.dtype();
        bool is_float = type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float);
        bool is_int = type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Int);
        char kind = is_float && type.bits == 64 ? 'd' : is_float && type.bits == 32 ? 'f' : is_int && type.bits == 32 ? 'i' : 0;
        if (kind == 0 || array.ndim() < 1 || array.ndim() > 2) throw std::invalid_argument("pysamp: unknown kind of array");
        std::int64_t size = type.bits / 8;
        bool flat = array.ndim() == 1;
        return {const_cast<char*>(static_cast<const char*>(array.data())), array.stride(0) * size, flat ? 0 : array.stride(1) * size,
                flat ? 1 : static_cast<int>(array.shape(1)), kind, offset};
    }
    std::vector<std::int64_t> tags_, index_;
    nb::callable evaluate_;
    const bool spins_;
    bool repeats_ = false;
    std::int64_t last_step_ = 0;
    Stopwatch stopwatch_;
    const std::uint32_t* places_ = nullptr;
    std::vector<Rows> sources_, targets_, totals_;
    std::unique_ptr<Thread> engine_;
    std::exception_ptr error_;
    bool cancelled_ = false, started_ = false;
};

ffi::Error advance(ffi::Buffer<ffi::S64> address, ffi::Buffer<ffi::F64> forces, ffi::ResultBuffer<ffi::F64> handed) {
    auto* relay = reinterpret_cast<Relay*>(address.typed_data()[0]);
    if (relay == nullptr || relay->magic != Relay::kMagic || !relay->running())
        return ffi::Error(ffi::ErrorCode::kFailedPrecondition, "pysamp: the simulation was closed");
    if (forces.element_count() != relay->forces.size() || handed->element_count() != relay->handed.size())
        return ffi::Error(ffi::ErrorCode::kInvalidArgument, "pysamp: the sampler does not fit the simulation");
    std::memcpy(relay->forces.data(), forces.typed_data(), relay->forces.size() * sizeof(double));
    relay->resume();
    std::memcpy(handed->typed_data(), relay->handed.data(), relay->handed.size() * sizeof(double));
    return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    AdvanceHandler, advance,
    ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::S64>>().Arg<ffi::Buffer<ffi::F64>>().Ret<ffi::Buffer<ffi::F64>>());

}  // namespace
}  // namespace pysamp

NB_MODULE(_relay, m) {
    nb::set_leak_warnings(false);  // a simulation that is still bound when Python ends is nobody's fault
    using pysamp::Relay;
    m.def("advance_target", [] { return nb::capsule(reinterpret_cast<void*>(pysamp::AdvanceHandler)); });
    nb::class_<Relay>(m, "Relay")
        .def(nb::init<std::size_t, std::size_t, std::vector<std::int64_t>, nb::callable, bool>(), nb::arg("n_handed"),
             nb::arg("n_forces"), nb::arg("tags"), nb::arg("evaluate"), nb::arg("spins"))
        .def_prop_ro("address", [](Relay& self) { return reinterpret_cast<std::int64_t>(&self); })
        .def_prop_ro("handed",
                     [](nb::handle_t<Relay> self) {
                         auto& values = nb::cast<Relay&>(self).handed;
                         return nb::ndarray<double, nb::numpy, nb::ndim<1>>(values.data(), {values.size()}, self);
                     })
        .def("set_places", &Relay::set_places)
        .def("add_source", &Relay::add_source)
        .def("add_target", &Relay::add_target)
        .def("add_total", &Relay::add_total)
        .def("set_forces", &Relay::set_forces)
        .def("repeat_since", &Relay::repeat_since)
        .def("seconds", &Relay::seconds)
        .def("exchange", &Relay::exchange)
        .def("start", &Relay::start)
        .def("finish", &Relay::finish);
}
