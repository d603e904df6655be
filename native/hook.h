// The force hook of one OpenMM Context: where the engine stops for the bias, and goes on with it.
//
// During a run the engine is a coroutine. Its Integrator::step runs until a force evaluation reaches HookImpl, which writes the
// sampler's atoms into `packed` and suspends; an XLA FFI call, part of the compiled loop, returns them to XLA, and the next such
// call brings the bias forces and resumes the engine. Outside a run (getState, minimiser) the hook calls a Python function.
//
// `packed` is {kind, box (9), positions (3 k), velocities (3 k, if asked for)}; `forces` is {energy, forces (3 k)}.
#pragma once

#include <Python.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "coroutine.h"
#include "openmm/Context.h"
#include "openmm/Force.h"
#include "openmm/Integrator.h"
#include "openmm/OpenMMException.h"
#include "openmm/System.h"
#include "openmm/internal/ContextImpl.h"
#include "openmm/internal/ForceImpl.h"

namespace pysamp {

enum Kind { kFinished = 0, kNewStep = 1, kSameStep = 2 };

struct Failure {
    std::string message;
    bool not_finite = false;  // the bias was not finite
};

class NotFinite : public OpenMM::OpenMMException {
   public:
    NotFinite() : OpenMMException("a bias energy or force is not finite") {}
};

class Hook {
   public:
    static constexpr std::uint64_t kMagic = 0x70797361'6d702131;  // tells a live hook from a stale address
    std::uint64_t magic = kMagic;

    std::vector<int> atoms;
    int force_group = 0;
    bool velocities = false;
    bool steps_by_count = false;  // the integrator does not begin its steps with updateContextState
    bool own_thread = false;
    bool may_move = false;  // whether the engine can go on in another thread than the one where it stopped
    std::function<void()> evaluate;  // outside a run: fills `forces` from `packed`

    std::vector<double> packed, forces;
    OpenMM::ContextImpl* context = nullptr;
    long long n_evaluations = 0, n_steps = 0;
    bool measure = false;  // whether to add up the time that the engine waits for the bias, in `seconds`
    double seconds = 0.0;

    ~Hook() { magic = 0; }

    void resize() {
        packed.assign(10 + (velocities ? 6 : 3) * atoms.size(), 0.0);
        forces.assign(1 + 3 * atoms.size(), 0.0);
    }

    bool running() const { return engine_ != nullptr; }
    bool in_loop() const { return engine_ && started_; }  // the compiled loop, not Python, answers the next evaluation
    bool finished() const { return engine_ && engine_->finished(); }
    Kind kind() const { return kind_; }

    // Ask for n steps; they are done by the following calls of resume().
    void start(int n) {
        if (running()) throw std::runtime_error("the hook is running already");
        if (context == nullptr) throw std::runtime_error("the hook's force is not part of a Context");
        if (magic != kMagic) throw std::runtime_error("the hook was closed");
        failure_ = {};
        started_ = cancelled_ = armed_ = false;
        last_step_count_ = -1;  // the step count may have been set back
        forces.assign(forces.size(), 0.0);
        owner_ = std::this_thread::get_id();
        engine_ = make_coroutine(
            [this, n] {
                try {
                    context->getIntegrator().step(n);
                } catch (const NotFinite& error) {
                    failure_ = {error.what(), true};
                } catch (const std::exception& error) {
                    if (!cancelled_) failure_ = {error.what(), false};
                } catch (...) {
                    if (!cancelled_) failure_ = {"the engine raised an unknown exception", false};
                }
            },
            own_thread);
    }

    // Let the engine go on to its next force evaluation; returns what it stopped for.
    Kind resume() {
        auto thread = std::this_thread::get_id();
        if (!started_) {
            owner_ = thread;
            started_ = true;
        } else if (!own_thread && !may_move && thread != owner_) {
            cancelled_ = true;
            failure_ = {"XLA moved the loop to another thread; set PYSAMP_OPENMM_THREAD=1 to give the engine one of its own"};
        }
        if (!engine_->finished()) engine_->resume();  // a counted loop may go on for longer than the engine
        return engine_->finished() ? kFinished : kind_;
    }

    // End a run, also one that was left in the middle; returns what went wrong.
    Failure finish() {
        if (engine_ && started_ && !engine_->finished()) {
            if (!cancelled_) failure_ = {"the run was left before the engine had finished"};
            cancelled_ = true;
            while (!engine_->finished()) engine_->resume();
        }
        engine_.reset();
        return failure_;
    }

    // Called by the force first: tell a new MD step from one more evaluation.
    void classify(bool include_forces, long long step_count) {
        bool new_step = running() && include_forces && step_count != last_step_count_ && (armed_ || steps_by_count);
        if (new_step) {
            armed_ = false;
            last_step_count_ = step_count;
            ++n_steps;
        }
        ++n_evaluations;
        kind_ = new_step ? kNewStep : kSameStep;
    }

    // Called by the force with `packed` filled: get `forces`.
    void exchange() {
        if (in_loop()) {
            if (!cancelled_) engine_->suspend();
            if (cancelled_) throw OpenMM::OpenMMException("the run was cancelled");
        } else {
            evaluate();
        }
        double sum = 0.0;
        for (double value : forces) sum += value * 0.0;
        if (sum != 0.0) throw NotFinite();
    }

    void arm() { armed_ = true; }  // a new MD step begins

   private:
    std::unique_ptr<Coroutine> engine_;
    std::thread::id owner_;
    Failure failure_;
    Kind kind_ = kSameStep;
    bool started_ = false, cancelled_ = false, armed_ = false;
    long long last_step_count_ = -1;
};

// Adds the time until its end to the hook's, if that is asked for.
class Stopwatch {
   public:
    explicit Stopwatch(Hook& hook) : hook_(hook), start_(hook.measure ? Clock::now() : Clock::time_point()) {}
    ~Stopwatch() {
        if (hook_.measure) hook_.seconds += std::chrono::duration<double>(Clock::now() - start_).count();
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

   private:
    using Clock = std::chrono::steady_clock;
    Hook& hook_;
    Clock::time_point start_;
};

// The OpenMM side; `Access` reads positions and adds forces on one platform, and returns the energy if it is to be reported now.
template <class Access>
class HookForce : public OpenMM::Force {
   public:
    explicit HookForce(std::shared_ptr<Hook> hook) : hook_(std::move(hook)) {}
    bool usesPeriodicBoundaryConditions() const override { return false; }

   protected:
    OpenMM::ForceImpl* createImpl() const override { return new Impl(*this, hook_); }

   private:
    class Impl : public OpenMM::ForceImpl {
       public:
        Impl(const HookForce& owner, std::shared_ptr<Hook> hook) : owner_(owner), hook_(std::move(hook)) {}
        ~Impl() override {
            if (hook_->context == context_) hook_->context = nullptr;
        }
        const OpenMM::Force& getOwner() const override { return owner_; }
        void initialize(OpenMM::ContextImpl& context) override {
            context_ = hook_->context = &context;
            access_.initialize(context, *hook_);
        }
        // Forces are asked in the order in which they were added, and this one was last: whatever a barostat evaluates before
        // the step's own forces is over when this is called.
        void updateContextState(OpenMM::ContextImpl&, bool&) override { hook_->arm(); }
        double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool forces, bool energy, int groups) override {
            if ((groups & (1 << owner_.getForceGroup())) == 0) return 0.0;
            Stopwatch stopwatch(*hook_);
            hook_->classify(forces, context.getStepCount());
            access_.read(context, *hook_);
            hook_->exchange();
            return access_.add(context, *hook_, forces, energy);
        }
        std::map<std::string, double> getDefaultParameters() override { return {}; }
        std::vector<std::string> getKernelNames() override { return {}; }

       private:
        const HookForce& owner_;
        std::shared_ptr<Hook> hook_;
        OpenMM::ContextImpl* context_ = nullptr;
        Access access_;
    };
    std::shared_ptr<Hook> hook_;
};

}  // namespace pysamp
