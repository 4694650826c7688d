/* libcuda.so.1: as much of NVIDIA's driver as batchland and onnxruntime's CUDA provider call.

   STUB_CUINIT        status of cuInit (0)
   STUB_DRIVER        CUDA version of the driver (13000)
   STUB_CAPABILITY    compute capability (90 for 9.0) */
#include "core.h"

int cuInit(unsigned flags) {
    int status = stub_number("STUB_CUINIT", 0);
    return status ? status : stub_device_count() ? OK : NO_DEVICE;
}

int cuDriverGetVersion(int *version) {
    *version = stub_number("STUB_DRIVER", 13000);
    return OK;
}

int cuDeviceGetCount(int *count) {
    *count = stub_device_count();
    return OK;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal < stub_device_count() ? OK : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "Stub GPU %d", stub_physical(device));
    return OK;
}

int cuDeviceGetUuid_v2(char *uuid, int device) {
    memset(uuid, stub_physical(device), 16);
    return OK;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = stub_number("STUB_CAPABILITY", 90);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
    return OK;
}

int cuTensorMapEncodeTiled(void) { return NO_DEVICE; }
