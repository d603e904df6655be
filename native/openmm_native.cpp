// OpenMM's Reference and CPU platforms, whose particles are in host memory: the force hook, the XLA FFI call that resumes the
// engine from inside a compiled loop, and views of the engine's arrays.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "hook.h"
#include "openmm/Platform.h"
#include "openmm/reference/ReferencePlatform.h"
#include "xla/ffi/api/ffi.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace pysamp {
namespace {

OpenMM::ReferencePlatform::PlatformData& platform_data(OpenMM::ContextImpl& context) {
    return *reinterpret_cast<OpenMM::ReferencePlatform::PlatformData*>(context.getPlatformData());
}

struct HostAccess {
    void initialize(OpenMM::ContextImpl& context, Hook& hook) {
        int n = context.getSystem().getNumParticles();
        for (int atom : hook.atoms)
            if (atom < 0 || atom >= n) throw OpenMM::OpenMMException("pysamp: particle index out of range");
    }
    void read(OpenMM::ContextImpl& context, Hook& hook) {
        auto& data = platform_data(context);
        double* out = hook.packed.data() + 1;
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j) *out++ = data.periodicBoxVectors[i][j];
        out = gather(*data.positions, hook.atoms, out);
        if (hook.velocities) gather(*data.velocities, hook.atoms, out);
    }
    double add(OpenMM::ContextImpl& context, Hook& hook, bool add_forces, bool energy) {
        if (add_forces) add_to(*platform_data(context).forces, hook);
        return energy ? hook.forces[0] : 0.0;
    }
    static void add_to(std::vector<OpenMM::Vec3>& forces, const Hook& hook) {
        const double* in = hook.forces.data() + 1;
        for (int atom : hook.atoms) {
            OpenMM::Vec3& force = forces[atom];
            for (int j = 0; j < 3; ++j) force[j] += *in++;
        }
    }
    static double* gather(const std::vector<OpenMM::Vec3>& from, const std::vector<int>& atoms, double* out) {
        for (int atom : atoms) {
            const OpenMM::Vec3& row = from[atom];
            for (int j = 0; j < 3; ++j) *out++ = row[j];
        }
        return out;
    }
};

ffi::Error advance(ffi::Buffer<ffi::S64> address, ffi::Buffer<ffi::F64> forces, ffi::ResultBuffer<ffi::F64> packed) {
    auto* hook = reinterpret_cast<Hook*>(address.typed_data()[0]);
    if (hook == nullptr || hook->magic != Hook::kMagic || !hook->running())
        return ffi::Error(ffi::ErrorCode::kFailedPrecondition, "pysamp: the simulation was closed");
    if (forces.element_count() != hook->forces.size() || packed->element_count() != hook->packed.size())
        return ffi::Error(ffi::ErrorCode::kInvalidArgument, "pysamp: the sampler does not fit the simulation");
    std::memcpy(hook->forces.data(), forces.typed_data(), hook->forces.size() * sizeof(double));
    hook->packed[0] = hook->resume();
    std::memcpy(packed->typed_data(), hook->packed.data(), hook->packed.size() * sizeof(double));
    return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    AdvanceHandler, advance,
    ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::S64>>().Arg<ffi::Buffer<ffi::F64>>().Ret<ffi::Buffer<ffi::F64>>());

using Flat = nb::ndarray<double, nb::numpy, nb::ndim<1>, nb::c_contig>;

// Doubles at `address`, from the 64-byte boundary before it: JAX takes no other address without a copy. The second number is how
// many doubles of padding that puts in front. A boundary never crosses a page, and the padding is never read.
nb::tuple view(std::uintptr_t address, std::size_t n, nb::object owner) {
    std::size_t padding = (address % 64) / sizeof(double);
    auto* start = reinterpret_cast<double*>(address) - padding;
    return nb::make_tuple(nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>(start, {n + padding}, owner), padding);
}

class PyHook {
   public:
    PyHook(std::uintptr_t system, std::vector<int> atoms, bool velocities, bool steps_by_count, bool own_thread,
           nb::callable evaluate)
        : hook_(std::make_shared<Hook>()), evaluate_(std::move(evaluate)) {
        hook_->atoms = std::move(atoms);
        hook_->velocities = velocities;
        hook_->steps_by_count = steps_by_count;
        hook_->own_thread = own_thread;
        hook_->resize();
        hook_->evaluate = [this] { evaluate_outside_a_run(); };
        index_ = reinterpret_cast<OpenMM::System*>(system)->addForce(new HookForce<HostAccess>(hook_));
    }
    ~PyHook() {
        hook_->evaluate = [] { throw OpenMM::OpenMMException("pysamp: the simulation was not closed"); };
    }
    int index() const { return index_; }
    std::int64_t address() const { return reinterpret_cast<std::int64_t>(hook_.get()); }
    bool attached() const { return hook_->context != nullptr; }
    void start(int n) { hook_->start(n); }
    nb::tuple finish() {
        Failure failure;
        {
            nb::gil_scoped_release release;
            failure = hook_->finish();
        }
        return nb::make_tuple(failure.message, failure.not_finite);
    }
    nb::tuple counts() const { return nb::make_tuple(hook_->n_steps, hook_->n_evaluations); }
    nb::dict arrays(nb::object owner) {
        if (!attached()) throw std::runtime_error("the simulation was closed");
        auto& data = platform_data(*hook_->context);
        nb::dict result;
        auto add = [&](const char* name, std::vector<OpenMM::Vec3>& rows) {
            result[name] = view(reinterpret_cast<std::uintptr_t>(rows.data()), 3 * rows.size(), owner);
        };
        add("positions", *data.positions);
        add("velocities", *data.velocities);
        add("forces", *data.forces);
        return result;
    }
    void read_now() {  // packed as at a force evaluation, without one
        if (!attached()) throw std::runtime_error("the simulation was closed");
        HostAccess().read(*hook_->context, *hook_);
    }
    nb::ndarray<double, nb::numpy, nb::ndim<1>> packed() {
        return {hook_->packed.data(), {hook_->packed.size()}, nb::find(*this)};
    }

   private:
    void evaluate_outside_a_run() {
        nb::gil_scoped_acquire acquire;
        try {
            auto result = nb::cast<Flat>(evaluate_(packed_copy()));
            if (result.size() != hook_->forces.size()) throw std::runtime_error("pysamp: wrong number of bias forces");
            std::memcpy(hook_->forces.data(), result.data(), result.size() * sizeof(double));
        } catch (nb::python_error& error) {
            throw OpenMM::OpenMMException(error.what());
        }
    }
    nb::object packed_copy() {
        auto* copy = new std::vector<double>(hook_->packed);
        nb::capsule owner(copy, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
        return nb::cast(nb::ndarray<double, nb::numpy, nb::ndim<1>>(copy->data(), {copy->size()}, owner));
    }
    std::shared_ptr<Hook> hook_;
    nb::callable evaluate_;
    int index_;
};

}  // namespace
}  // namespace pysamp

NB_MODULE(_openmm_native, m) {
    using pysamp::PyHook;
    m.attr("openmm_version") = PYSAMP_OPENMM_VERSION;
    m.def("library_version", [] { return OpenMM::Platform::getOpenMMVersion(); }, "Version of the OpenMM library that is loaded.");
    m.def("advance_target", [] { return nb::capsule(reinterpret_cast<void*>(pysamp::AdvanceHandler)); });
    m.def("view", &pysamp::view, nb::arg("address"), nb::arg("n"), nb::arg("owner"));
    nb::class_<PyHook>(m, "Hook")
        .def(nb::init<std::uintptr_t, std::vector<int>, bool, bool, bool, nb::callable>(), nb::arg("system"), nb::arg("atoms"),
             nb::arg("velocities"), nb::arg("steps_by_count"), nb::arg("own_thread"), nb::arg("evaluate"))
        .def_prop_ro("index", &PyHook::index)
        .def_prop_ro("address", &PyHook::address)
        .def_prop_ro("attached", &PyHook::attached)
        .def_prop_ro("counts", &PyHook::counts)
        .def("start", &PyHook::start)
        .def("finish", &PyHook::finish)
        .def("arrays", &PyHook::arrays)
        .def("read_now", &PyHook::read_now)
        .def_prop_ro("packed", &PyHook::packed);
}
