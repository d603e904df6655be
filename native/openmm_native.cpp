// OpenMM's Reference and CPU platforms, whose particles are in host memory: the force hook, the XLA FFI call that resumes the
// engine from inside a compiled loop, and views of the engine's arrays.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "openmm/Platform.h"
#include "openmm/reference/ReferencePlatform.h"
#include "python_hook.h"
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

// Doubles at `address`, from the 64-byte boundary before it: JAX takes no other address without a copy. The second number is how
// many doubles of padding that puts in front. A boundary never crosses a page, and the padding is never read.
nb::tuple view(std::uintptr_t address, std::size_t n, nb::object owner) {
    std::size_t padding = (address % 64) / sizeof(double);
    auto* start = reinterpret_cast<double*>(address) - padding;
    return nb::make_tuple(nb::ndarray<double, nb::numpy, nb::ndim<1>, nb::c_contig>(start, {n + padding}, owner), padding);
}

class PyHostHook : public PyHook<HostAccess> {
   public:
    // Between two force evaluations these platforms hold nothing that belongs to a thread, and XLA may run a loop that it has not
    // compiled to one function in several.
    template <class... Args>
    explicit PyHostHook(Args&&... args) : PyHook(std::forward<Args>(args)...) {
        hook_->may_move = true;
    }
    std::int64_t address() const { return reinterpret_cast<std::int64_t>(hook_.get()); }
    nb::dict arrays(nb::object owner) {
        auto& data = platform_data(context());
        nb::dict result;
        auto add = [&](const char* name, std::vector<OpenMM::Vec3>& rows) {
            result[name] = view(reinterpret_cast<std::uintptr_t>(rows.data()), 3 * rows.size(), owner);
        };
        add("positions", *data.positions);
        add("velocities", *data.velocities);
        add("forces", *data.forces);
        return result;
    }
    void read_now() { HostAccess().read(context(), *hook_); }  // packed as at a force evaluation, without one
};

}  // namespace
}  // namespace pysamp

NB_MODULE(_openmm_native, m) {
    nb::set_leak_warnings(false);  // a simulation that is still bound when Python ends is nobody's fault
    m.attr("openmm_version") = PYSAMP_OPENMM_VERSION;
    m.def("library_address", [] { return reinterpret_cast<std::uintptr_t>(&OpenMM::Platform::getPlatformByName("Reference")); },
          "Address of the Reference platform: that of `import openmm`, unless two copies of OpenMM are loaded.");
    m.def("advance_target", [] { return nb::capsule(reinterpret_cast<void*>(pysamp::AdvanceHandler)); });
    m.def("view", &pysamp::view, nb::arg("address"), nb::arg("n"), nb::arg("owner"));
    using Hook = pysamp::PyHostHook;
    nb::class_<Hook> hook(m, "Hook");
    pysamp::define_hook(hook)
        .def(nb::init<std::uintptr_t, std::vector<int>, bool, bool, bool, nb::callable>(), nb::arg("system"), nb::arg("atoms"),
             nb::arg("velocities"), nb::arg("steps_by_count"), nb::arg("own_thread"), nb::arg("evaluate"))
        .def_prop_ro("address", &Hook::address)
        .def("arrays", &Hook::arrays)
        .def("read_now", &Hook::read_now);
}
