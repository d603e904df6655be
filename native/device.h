// OpenMM's platforms whose particles are in the memory of a device. Written against what those platforms have in common, so that
// the CUDA route and its test double on OpenCL (native/opencl) differ only in their `Device`:
//
//   static OpenMM::ComputeContext& context(OpenMM::ContextImpl&);
//   the engine's side    void wait(cc): the engine's stream waits for all that XLA's has been given up to the last bring()
//                        void mark(cc): up to here, XLA's stream has to wait for the engine's
//   XLA's side           using Stream;
//                        void bring(stream, array, from, n): n doubles from XLA's memory, if any; marks XLA's stream for wait()
//                        void take(stream, array, to, n, kind): n doubles to XLA's memory, after what was marked
//
// The engine has a thread of its own: XLA may run the blocks of a loop on different threads, and each thread has a CUDA context.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "hook.h"
#include "openmm/common/ComputeArray.h"
#include "openmm/common/ComputeContext.h"
#include "openmm/common/ContextSelector.h"
#include "openmm/Platform.h"
#include "python_hook.h"
#include "xla/ffi/api/ffi.h"

namespace pysamp {

// In the kernel language that OpenMM's platforms share and compile at run time. A place is a particle's row in OpenMM's arrays,
// which are sorted anew every few hundred steps, and the number of box vectors by which its molecule was moved meanwhile.
inline constexpr const char* kKernels = R"(
KERNEL void pysampGather(int n, int withVelocities, double kind, double ax, double ay, double az, double bx, double by,
        double bz, double cx, double cy, double cz, GLOBAL const int4* RESTRICT places, GLOBAL const real4* RESTRICT posq,
        GLOBAL const real4* RESTRICT posqCorrection, GLOBAL const mixed4* RESTRICT velm, GLOBAL double* RESTRICT packed) {
    for (int i = GLOBAL_ID; i < n; i += GLOBAL_SIZE) {
        if (i == 0) {
            packed[0] = kind;
            packed[1] = ax; packed[2] = ay; packed[3] = az;
            packed[4] = bx; packed[5] = by; packed[6] = bz;
            packed[7] = cx; packed[8] = cy; packed[9] = cz;
        }
        int4 place = places[i];
        real4 p = posq[place.x];
        double x = p.x, y = p.y, z = p.z;
#ifdef USE_MIXED_PRECISION
        real4 rest = posqCorrection[place.x];
        x += rest.x;
        y += rest.y;
        z += rest.z;
#endif
        packed[10+3*i] = x-place.y*ax-place.z*bx-place.w*cx;
        packed[11+3*i] = y-place.y*ay-place.z*by-place.w*cy;
        packed[12+3*i] = z-place.y*az-place.z*bz-place.w*cz;
        if (withVelocities) {
            mixed4 v = velm[place.x];
            packed[10+3*n+3*i] = v.x;
            packed[11+3*n+3*i] = v.y;
            packed[12+3*n+3*i] = v.z;
        }
    }
}

// Other kernels may be adding to the same forces on another stream: hence atomically.
KERNEL void pysampScatter(int n, int paddedNumAtoms, GLOBAL const int4* RESTRICT places, GLOBAL const double* RESTRICT forces,
        GLOBAL mm_ulong* RESTRICT forceBuffer) {
    for (int i = GLOBAL_ID; i < n; i += GLOBAL_SIZE) {
        int row = places[i].x;
        for (int j = 0; j < 3; j++)
            ATOMIC_ADD(&forceBuffer[row+j*paddedNumAtoms], (mm_ulong) (mm_long) (forces[1+3*i+j]*4294967296.0));
    }
}
)";

// Rows and cell offsets of some particles, kept from call to call.
class Places {
   public:
    // Look the particles up; true if anything changed. Costs O(k), and O(N) where OpenMM has sorted its arrays.
    bool update(const std::vector<int>& atoms, const std::vector<int>& atom_of_row, const std::vector<OpenMM::mm_int4>& offsets) {
        bool sorted = rows_.size() == atoms.size();
        for (std::size_t i = 0; sorted && i < atoms.size(); ++i) sorted = atom_of_row[rows_[i].x] == atoms[i];
        if (!sorted) {
            std::vector<int> row_of_atom(atom_of_row.size(), 0);
            for (std::size_t row = 0; row < atom_of_row.size(); ++row) row_of_atom[atom_of_row[row]] = static_cast<int>(row);
            rows_.resize(atoms.size());
            for (std::size_t i = 0; i < atoms.size(); ++i) rows_[i].x = row_of_atom[atoms[i]];
        }
        bool changed = !sorted;
        for (auto& row : rows_) {
            const auto& offset = offsets[row.x];
            changed |= row.y != offset.x || row.z != offset.y || row.w != offset.z;
            row.y = offset.x;
            row.z = offset.y;
            row.w = offset.z;
        }
        return changed;
    }
    const std::vector<OpenMM::mm_int4>& rows() const { return rows_; }

   private:
    std::vector<OpenMM::mm_int4> rows_;
};

template <class Device>
class DeviceAccess;

template <class Device>
class DeviceHook : public Hook {
   public:
    DeviceAccess<Device>* access = nullptr;  // while the force is part of a Context
};

template <class Device>
class DeviceAccess {
   public:
    ~DeviceAccess() {
        if (hook_ && hook_->access == this) hook_->access = nullptr;
    }

    void initialize(OpenMM::ContextImpl& context, Hook& hook) {
        for (int atom : hook.atoms)
            if (atom < 0 || atom >= context.getSystem().getNumParticles())
                throw OpenMM::OpenMMException("pysamp: particle index out of range");
        hook_ = static_cast<DeviceHook<Device>*>(&hook);
        hook_->access = this;
        cc_ = &Device::context(context);
        cc_->addPostComputation(new After(*this));  // the context deletes it, after this object
    }

    // At a force evaluation: gather the particles, for XLA's stream or for the host.
    void read(OpenMM::ContextImpl&, Hook& hook) {
        OpenMM::ContextSelector selector(*cc_);
        pending_ = false;
        if (!gather_) build(hook);
        if (places_.update(hook.atoms, cc_->getAtomIndex(), cc_->getPosCellOffsets())) places_array_.upload(places_.rows());
        OpenMM::Vec3 box[3];
        cc_->getPeriodicBoxVectors(box[0], box[1], box[2]);
        gather_->setArg(2, static_cast<double>(hook.kind()));
        for (int i = 0; i < 9; ++i) gather_->setArg(3 + i, box[i / 3][i % 3]);
        bool in_loop = hook.in_loop();
        if (in_loop) device_.wait(*cc_);  // what was gathered before may still be on its way
        gather_->execute(n_);
        if (in_loop)
            device_.mark(*cc_);
        else
            packed_.download(hook.packed);
    }

    // The forces are added after all others, so that these need not wait for XLA.
    double add(OpenMM::ContextImpl&, Hook& hook, bool, bool) {
        if (!hook.in_loop()) {
            OpenMM::ContextSelector selector(*cc_);
            forces_.upload(hook.forces);
        }
        pending_ = true;
        return 0.0;
    }

    // XLA's side of a turn of its loop.
    void turn(typename Device::Stream stream, const double* forces, double* packed) {
        device_.bring(stream, forces_, hook_->in_loop() ? forces : nullptr, hook_->forces.size());
        Kind kind = hook_->resume();
        if (!packed_.isInitialized()) throw std::runtime_error("the engine stopped before its first force evaluation");
        device_.take(stream, packed_, packed, hook_->packed.size(), kind);
    }

    OpenMM::ComputeContext& context() { return *cc_; }
    bool built() const { return packed_.isInitialized(); }

   private:
    class After : public OpenMM::ComputeContext::ForcePostComputation {
       public:
        explicit After(DeviceAccess& access) : access_(access) {}
        double computeForceAndEnergy(bool forces, bool energy, int) override { return access_.finish(forces, energy); }

       private:
        DeviceAccess& access_;
    };

    double finish(bool forces, bool energy) {
        if (!pending_) return 0.0;
        pending_ = false;
        if (hook_->in_loop()) device_.wait(*cc_);
        if (forces) scatter_->execute(n_);
        if (energy && hook_->in_loop()) {  // barostats; the host needs the number
            std::vector<double> host(hook_->forces.size());
            forces_.download(host);
            return host[0];
        }
        return energy ? hook_->forces[0] : 0.0;
    }

    // Not before the first evaluation: OpenMM completes its arrays after the forces' initialisation.
    void build(Hook& hook) {
        n_ = static_cast<int>(hook.atoms.size());
        places_array_.initialize<OpenMM::mm_int4>(*cc_, hook.atoms.size(), "pysampPlaces");
        packed_.initialize<double>(*cc_, hook.packed.size(), "pysampPacked");
        forces_.initialize<double>(*cc_, hook.forces.size(), "pysampForces");
        forces_.upload(hook.forces);
        auto program = cc_->compileProgram(kKernels);
        auto gather = program->createKernel("pysampGather");
        gather->addArg(n_);
        gather->addArg(static_cast<int>(hook.velocities));
        for (int i = 0; i < 10; ++i) gather->addArg(0.0);
        gather->addArg(places_array_);
        gather->addArg(cc_->getPosq());
        gather->addArg(cc_->getUseMixedPrecision() ? cc_->getPosqCorrection() : cc_->getPosq());
        gather->addArg(cc_->getVelm());
        gather->addArg(packed_);
        scatter_ = program->createKernel("pysampScatter");
        scatter_->addArg(n_);
        scatter_->addArg(cc_->getPaddedNumAtoms());
        scatter_->addArg(places_array_);
        scatter_->addArg(forces_);
        scatter_->addArg(cc_->getLongForceBuffer());
        gather_ = gather;
    }

    DeviceHook<Device>* hook_ = nullptr;
    OpenMM::ComputeContext* cc_ = nullptr;
    Device device_;
    Places places_;
    OpenMM::ComputeArray places_array_, packed_, forces_;
    OpenMM::ComputeKernel gather_, scatter_;
    int n_ = 0;
    bool pending_ = false;
};

// Hooks by small numbers that are used again: the number is part of the compiled loop, and the next simulation in the process
// finds that compiled. (An address in a buffer would be in the device's memory, and reading it would halt the host at each step.)
template <class Device>
class Slots {
   public:
    static int add(std::shared_ptr<DeviceHook<Device>> hook) {
        std::lock_guard lock(mutex());
        auto& slots = all();
        std::size_t i = 0;
        while (i < slots.size() && slots[i]) ++i;
        if (i == slots.size()) slots.emplace_back();
        slots[i] = std::move(hook);
        return static_cast<int>(i);
    }
    static void remove(int slot) {
        std::lock_guard lock(mutex());
        all()[static_cast<std::size_t>(slot)] = nullptr;
    }
    static std::shared_ptr<DeviceHook<Device>> get(std::int64_t slot) {
        std::lock_guard lock(mutex());
        auto& slots = all();
        return slot >= 0 && static_cast<std::size_t>(slot) < slots.size() ? slots[static_cast<std::size_t>(slot)] : nullptr;
    }

   private:
    static std::mutex& mutex() {
        static std::mutex instance;
        return instance;
    }
    static std::vector<std::shared_ptr<DeviceHook<Device>>>& all() {
        static std::vector<std::shared_ptr<DeviceHook<Device>>> instance;
        return instance;
    }
};

template <class Device>
xla::ffi::Error device_turn(typename Device::Stream stream, std::int64_t slot, xla::ffi::Buffer<xla::ffi::F64> forces,
                            xla::ffi::ResultBuffer<xla::ffi::F64> packed) {
    using xla::ffi::Error, xla::ffi::ErrorCode;
    auto hook = Slots<Device>::get(slot);
    if (!hook || !hook->running() || hook->access == nullptr)
        return Error(ErrorCode::kFailedPrecondition, "pysamp: the simulation was closed");
    if (forces.element_count() != hook->forces.size() || packed->element_count() != hook->packed.size())
        return Error(ErrorCode::kInvalidArgument, "pysamp: the sampler does not fit the simulation");
    try {
        hook->access->turn(stream, forces.typed_data(), packed->typed_data());
    } catch (const std::exception& error) {
        return Error(ErrorCode::kInternal, std::string("pysamp: ") + error.what());
    }
    return Error::Success();
}

template <class Device>
class PyDeviceHook : public PyHook<DeviceAccess<Device>, DeviceHook<Device>> {
    using Base = PyHook<DeviceAccess<Device>, DeviceHook<Device>>;

   public:
    PyDeviceHook(std::uintptr_t system, std::vector<int> atoms, bool velocities, bool steps_by_count, nb::callable evaluate)
        : Base(system, std::move(atoms), velocities, steps_by_count, true, std::move(evaluate)) {
        slot_ = Slots<Device>::add(this->hook_);
    }
    ~PyDeviceHook() { release(); }
    int slot() const { return slot_.value_or(-1); }
    // No more calls from compiled loops; the number is free for another.
    void release() {
        if (slot_) Slots<Device>::remove(*slot_);
        slot_.reset();
    }
    // At least how many turns of the loop the engine needs to finish.
    int turns_left(int n_steps, long long n_steps_before) const {
        if (!this->hook_->running() || this->hook_->finished()) return 0;
        return std::max(1, n_steps - static_cast<int>(this->hook_->n_steps - n_steps_before) + 1);
    }

   private:
    std::optional<int> slot_;
};

// What the module of each device has in Python.
template <class Class>
nb::class_<Class> define_device(nb::module_& m, void* handler) {
    m.attr("openmm_version") = PYSAMP_OPENMM_VERSION;
    m.def("library_address", [] { return reinterpret_cast<std::uintptr_t>(&OpenMM::Platform::getPlatformByName("Reference")); },
          "Address of the Reference platform: that of `import openmm`, unless two copies of OpenMM are loaded.");
    m.def("advance_target", [handler] { return nb::capsule(handler); });
    nb::class_<Class> definition(m, "Hook");
    definition
        .def(nb::init<std::uintptr_t, std::vector<int>, bool, bool, nb::callable>(), nb::arg("system"), nb::arg("atoms"),
             nb::arg("velocities"), nb::arg("steps_by_count"), nb::arg("evaluate"))
        .def_prop_ro("slot", &Class::slot)
        .def("release", &Class::release)
        .def("turns_left", &Class::turns_left, nb::arg("n_steps"), nb::arg("n_steps_before"));
    return define_hook(definition);
}

}  // namespace pysamp
