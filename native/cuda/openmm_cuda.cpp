// OpenMM's CUDA platform: the loop stays on the device. The host enqueues OpenMM's and XLA's kernels by turns, and events put the
// two streams in order; nothing waits on the host, unless a barostat asks for an energy.
//
// OpenMM has a CUDA context of its own (cuCtxCreate), XLA has the device's primary one. What the driver's manual says of two
// contexts, and what this file relies on: an event is recorded in a stream of its own context (cuEventRecord), may be waited for by
// a stream of any other (cuStreamWaitEvent), and memory of one is copied to the other by cuMemcpyPeerAsync.
#include "device.h"

#include <cuda.h>

#include "openmm/cuda/CudaArray.h"
#include "openmm/cuda/CudaContext.h"
#include "openmm/cuda/CudaPlatform.h"

namespace nb = nanobind;
namespace ffi = xla::ffi;

namespace pysamp {
namespace {

void check(CUresult result, const char* what) {
    if (result == CUDA_SUCCESS) return;
    const char* name = nullptr;
    cuGetErrorName(result, &name);
    throw OpenMM::OpenMMException(std::string(what) + ": " + (name ? name : "unknown CUDA error"));
}

class Current {  // makes a context the calling thread's, for a while
   public:
    explicit Current(CUcontext context) { check(cuCtxPushCurrent(context), "cuCtxPushCurrent"); }
    ~Current() {
        CUcontext popped;
        cuCtxPopCurrent(&popped);
    }
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
};

OpenMM::CudaContext& cuda(OpenMM::ComputeContext& cc) { return static_cast<OpenMM::CudaContext&>(cc); }

CUdeviceptr pointer(OpenMM::ComputeArray& array) {
    return static_cast<OpenMM::CudaArray&>(array.getArray()).getDevicePointer();
}

class Cuda {
   public:
    using Stream = CUstream;

    Cuda() = default;
    Cuda(const Cuda&) = delete;
    Cuda& operator=(const Cuda&) = delete;
    ~Cuda() {
        if (from_xla_ != nullptr) cuEventDestroy(from_xla_);
        if (from_engine_ != nullptr) cuEventDestroy(from_engine_);
    }

    static OpenMM::ComputeContext& context(OpenMM::ContextImpl& context) {
        auto& contexts = reinterpret_cast<OpenMM::CudaPlatform::PlatformData*>(context.getPlatformData())->contexts;
        if (contexts.size() != 1) throw OpenMM::OpenMMException("pysamp: a simulation spread over several devices");
        return *contexts[0];
    }

    void wait(OpenMM::ComputeContext& cc) {
        check(cuStreamWaitEvent(cuda(cc).getCurrentStream(), from_xla_, CU_EVENT_WAIT_DEFAULT), "cuStreamWaitEvent");
    }
    void mark(OpenMM::ComputeContext& cc) {
        if (from_engine_ == nullptr) check(cuEventCreate(&from_engine_, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
        check(cuEventRecord(from_engine_, cuda(cc).getCurrentStream()), "cuEventRecord");
    }

    void bring(Stream stream, OpenMM::ComputeArray& array, const double* from, std::size_t n) {
        CUcontext xla = context_of(stream);
        Current current(xla);
        if (from_xla_ == nullptr) check(cuEventCreate(&from_xla_, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
        if (from != nullptr)
            copy(pointer(array), engine(array), reinterpret_cast<CUdeviceptr>(from), xla, n * sizeof(double), stream);
        check(cuEventRecord(from_xla_, stream), "cuEventRecord");
    }
    void take(Stream stream, OpenMM::ComputeArray& array, double* to, std::size_t n, Kind kind) {
        CUcontext xla = context_of(stream);
        Current current(xla);
        auto target = reinterpret_cast<CUdeviceptr>(to);
        if (kind != kFinished) check(cuStreamWaitEvent(stream, from_engine_, CU_EVENT_WAIT_DEFAULT), "cuStreamWaitEvent");
        copy(target, xla, pointer(array), engine(array), n * sizeof(double), stream);
        if (kind == kFinished) check(cuMemsetD32Async(target, 0, 2, stream), "cuMemsetD32Async");  // the double 0
    }

   private:
    static CUcontext context_of(Stream stream) {
        CUcontext context = nullptr;
        check(cuStreamGetCtx(stream, &context), "cuStreamGetCtx");
        return context;
    }
    static CUcontext engine(OpenMM::ComputeArray& array) { return cuda(array.getContext()).getContext(); }
    static void copy(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, std::size_t n, Stream stream) {
        if (to_context == from_context)
            check(cuMemcpyDtoDAsync(to, from, n, stream), "cuMemcpyDtoDAsync");
        else
            check(cuMemcpyPeerAsync(to, to_context, from, from_context, n, stream), "cuMemcpyPeerAsync");
    }
    CUevent from_xla_ = nullptr, from_engine_ = nullptr;  // each belongs to the context of the stream that it is recorded in
};

XLA_FFI_DEFINE_HANDLER_SYMBOL(AdvanceHandler, device_turn<Cuda>,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<CUstream>>()
                                  .Attr<std::int64_t>("slot")
                                  .Arg<ffi::Buffer<ffi::F64>>()
                                  .Ret<ffi::Buffer<ffi::F64>>());

class PyCudaHook : public PyDeviceHook<Cuda> {
   public:
    using PyDeviceHook::PyDeviceHook;

    int device() { return cuda(Cuda::context(context())).getDeviceIndex(); }

    // OpenMM's arrays as they are: rows of four in its own order, padded; forces as three rows of fixed-point numbers. The host
    // waits until OpenMM has written them.
    nb::dict arrays(nb::object owner) {
        auto& cu = cuda(Cuda::context(context()));
        OpenMM::ContextSelector selector(cu);
        check(cuStreamSynchronize(cu.getCurrentStream()), "cuStreamSynchronize");
        std::size_t rows = static_cast<std::size_t>(cu.getPaddedNumAtoms());
        bool doubles = cu.getUseDoublePrecision(), mixed = cu.getUseMixedPrecision();
        nb::dict result;
        result["posq"] = view(cu.getPosq(), doubles, rows, owner);
        if (mixed) result["posq_correction"] = view(cu.getPosqCorrection(), false, rows, owner);
        result["velm"] = view(cu.getVelm(), doubles || mixed, rows, owner);
        result["forces"] = view<std::int64_t>(cu.getLongForceBuffer(), {3, rows}, owner);
        result["atom_of_row"] = view<std::int32_t>(cu.getAtomIndexArray(), {rows}, owner);
        return result;
    }

   private:
    template <class T>
    static nb::object view(OpenMM::CudaArray& array, std::vector<std::size_t> shape, nb::object owner) {
        int device = cuda(array.getContext()).getDeviceIndex();
        return nb::cast(nb::ndarray<T, nb::device::cuda>(reinterpret_cast<void*>(array.getDevicePointer()), shape.size(),
                                                         shape.data(), owner, nullptr, nb::dtype<T>(), nb::device::cuda::value,
                                                         device));
    }
    static nb::object view(OpenMM::CudaArray& array, bool doubles, std::size_t rows, nb::object owner) {
        return doubles ? view<double>(array, {rows, 4}, owner) : view<float>(array, {rows, 4}, owner);
    }
};

}  // namespace
}  // namespace pysamp

NB_MODULE(_openmm_cuda, m) {
    using Hook = pysamp::PyCudaHook;
    pysamp::define_device<Hook>(m, reinterpret_cast<void*>(pysamp::AdvanceHandler))
        .def_prop_ro("device", &Hook::device)
        .def("arrays", &Hook::arrays, nb::arg("owner"));
}
