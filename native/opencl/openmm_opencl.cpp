// The CUDA route's test double: OpenMM's OpenCL platform, with XLA on the host. All of it but streams and copies is the same code,
// and OpenCL runs on a CPU (PoCL). Not part of the package; built with -DPYSAMP_OPENCL_TEST=ON for tests/engines/test_openmm_device.py.
#include "device.h"

#include <cstring>

#include "openmm/opencl/OpenCLContext.h"
#include "openmm/opencl/OpenCLPlatform.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace pysamp {
namespace {

class OpenCL {
   public:
    struct Stream {};

    static OpenMM::ComputeContext& context(OpenMM::ContextImpl& context) {
        return *reinterpret_cast<OpenMM::OpenCLPlatform::PlatformData*>(context.getPlatformData())->contexts.at(0);
    }
    void wait(OpenMM::ComputeContext&) {}
    void mark(OpenMM::ComputeContext&) {}
    void bring(Stream, OpenMM::ComputeArray& array, const double* from, std::size_t) {
        if (from != nullptr) array.upload(from);
    }
    void take(Stream, OpenMM::ComputeArray& array, double* to, std::size_t, Kind kind) {
        array.download(to);
        if (kind == kFinished) to[0] = 0.0;
    }
};

ffi::Error advance(std::int64_t slot, ffi::Buffer<ffi::F64> forces, ffi::ResultBuffer<ffi::F64> packed) {
    return device_turn<OpenCL>(OpenCL::Stream{}, slot, forces, packed);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    AdvanceHandler, advance,
    ffi::Ffi::Bind().Attr<std::int64_t>("slot").Arg<ffi::Buffer<ffi::F64>>().Ret<ffi::Buffer<ffi::F64>>());

class PyOpenCLHook : public PyDeviceHook<OpenCL> {
   public:
    using PyDeviceHook::PyDeviceHook;
    void reorder() { OpenCL::context(context()).forceReorder(); }
    std::vector<int> atom_of_row() { return OpenCL::context(context()).getAtomIndex(); }
    int n_moved() {  // particles whose molecule is held in another cell than it was put
        int n = 0;
        auto& cc = OpenCL::context(context());
        for (int i = 0; i < cc.getNumAtoms(); ++i) {
            auto offset = cc.getPosCellOffsets()[i];
            n += offset.x != 0 || offset.y != 0 || offset.z != 0;
        }
        return n;
    }
};

}  // namespace
}  // namespace pysamp

NB_MODULE(_openmm_opencl, m) {
    using Hook = pysamp::PyOpenCLHook;
    pysamp::define_device<Hook>(m, reinterpret_cast<void*>(pysamp::AdvanceHandler))
        .def("reorder", &Hook::reorder)
        .def_prop_ro("atom_of_row", &Hook::atom_of_row)
        .def_prop_ro("n_moved", &Hook::n_moved);
}
