// The hook as Python sees it, on any platform.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <utility>

#include "hook.h"

namespace pysamp {

namespace nb = nanobind;

// Adds the force to a System. `evaluate` answers force evaluations outside a run: packed particles in, energy and forces out.
template <class Access, class HookType = Hook>
class PyHook {
   public:
    PyHook(std::uintptr_t system, std::vector<int> atoms, bool velocities, bool steps_by_count, bool own_thread,
           nb::callable evaluate)
        : hook_(std::make_shared<HookType>()), evaluate_(std::move(evaluate)) {
        hook_->atoms = std::move(atoms);
        hook_->velocities = velocities;
        hook_->steps_by_count = steps_by_count;
        hook_->own_thread = own_thread;
        hook_->resize();
        hook_->evaluate = [this] { evaluate_outside_a_run(); };
        index_ = reinterpret_cast<OpenMM::System*>(system)->addForce(new HookForce<Access>(hook_));
    }
    ~PyHook() {
        hook_->evaluate = [] { throw OpenMM::OpenMMException("pysamp: the simulation was not closed"); };
    }
    int index() const { return index_; }
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
    double seconds() {  // that the engine waited for the bias since the last call; from the first call on
        hook_->measure = true;
        return std::exchange(hook_->seconds, 0.0);
    }
    nb::ndarray<double, nb::numpy, nb::ndim<1>> packed() {
        return {hook_->packed.data(), {hook_->packed.size()}, nb::find(*this)};
    }

   protected:
    OpenMM::ContextImpl& context() const {
        if (!attached()) throw std::runtime_error("the simulation was closed");
        return *hook_->context;
    }
    std::shared_ptr<HookType> hook_;

   private:
    using Flat = nb::ndarray<double, nb::numpy, nb::ndim<1>, nb::c_contig>;

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
    nb::callable evaluate_;
    int index_;
};

// What all hooks have in Python.
template <class Class>
nb::class_<Class>& define_hook(nb::class_<Class>& definition) {
    return definition.def_prop_ro("index", &Class::index)
        .def_prop_ro("attached", &Class::attached)
        .def_prop_ro("counts", &Class::counts)
        .def("seconds", &Class::seconds)
        .def("start", &Class::start)
        .def("finish", &Class::finish)
        .def_prop_ro("packed", &Class::packed);
}

}  // namespace pysamp
