/*
 * The part of the Ascend runtime whose answers the host code of torch_npu looks at.
 *
 * Written from the calls the wheel makes; no source of CANN is used. Every function gives 0 for
 * success. Device memory is address space that takes no memory until somebody writes to it, so a
 * model of any size fits; copies are made, kernels are not run.
 *
 * STAND_IN_DEVICES: how many devices there are (8). STAND_IN_SOC: their name (Ascend910B3).
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define OUT_OF_MEMORY 207001
#define PAGE 4096
#define DEVICE_BYTES ((size_t)64 << 30)
#define ROOT_INFO_BYTES 4108

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

/* Devices */

static __thread int32_t current_device = 0;

int aclrtGetDeviceCount(uint32_t *count) {
    *count = (uint32_t)atoi(setting("STAND_IN_DEVICES", "8"));
    return 0;
}

int aclrtGetDevice(int32_t *device) {
    *device = current_device;
    return 0;
}

int aclrtSetDevice(int32_t device) {
    current_device = device;
    return 0;
}

const char *aclrtGetSocName(void) { return setting("STAND_IN_SOC", "Ascend910B3"); }

int aclrtGetMemInfo(int kind, size_t *free_bytes, size_t *total_bytes) {
    *free_bytes = *total_bytes = DEVICE_BYTES;
    return 0;
}

int aclrtDeviceCanAccessPeer(int32_t *can, int32_t device, int32_t peer) {
    *can = 1;
    return 0;
}

int aclrtGetCurrentContext(void **context) {
    *context = (void *)1;
    return 0;
}

int aclrtGetPrimaryCtxState(int32_t device, uint32_t *flags, int32_t *active) {
    *active = 1;
    return 0;
}

int aclrtGetStreamOverflowSwitch(void *stream, uint32_t *flag) {
    *flag = 0;
    return 0;
}

/* Memory: the length stands in a page of its own in front of each piece. */

int aclrtMalloc(void **piece, size_t bytes, int policy) {
    int protection = PROT_READ | PROT_WRITE;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *begin = mmap(NULL, bytes + PAGE, protection, flags, -1, 0);
    if (begin == MAP_FAILED) return OUT_OF_MEMORY;
    *(size_t *)begin = bytes + PAGE;
    *piece = begin + PAGE;
    return 0;
}

int aclrtMallocAlign32(void **piece, size_t bytes, int policy) {
    return aclrtMalloc(piece, bytes, policy);
}

int aclrtFree(void *piece) {
    if (piece) {
        char *begin = (char *)piece - PAGE;
        munmap(begin, *(size_t *)begin);
    }
    return 0;
}

int aclrtMallocHost(void **piece, size_t bytes) {
    return posix_memalign(piece, 512, bytes ? bytes : 512);
}

int aclrtMallocHostWithCfg(void **piece, size_t bytes, void *settings) {
    return aclrtMallocHost(piece, bytes);
}

int aclrtFreeHost(void *piece) {
    free(piece);
    return 0;
}

int aclrtMemcpy(void *to, size_t room, const void *from, size_t bytes, int kind) {
    memmove(to, from, bytes);
    return 0;
}

int aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t bytes, int kind, void *stream) {
    return aclrtMemcpy(to, room, from, bytes, kind);
}

int aclrtMemset(void *to, size_t room, int32_t value, size_t bytes) {
    memset(to, value, bytes);
    return 0;
}

int aclrtMemsetAsync(void *to, size_t room, int32_t value, size_t bytes, void *stream) {
    return aclrtMemset(to, room, value, bytes);
}

/* acl/acl_rt.h: aclrtPtrAttributes */
struct pointer_attributes {
    struct {
        uint32_t device;
        int32_t kind;
    } location;
    uint32_t page_bytes;
    uint32_t reserved[4];
};

int aclrtPointerGetAttributes(const void *pointer, struct pointer_attributes *attributes) {
    memset(attributes, 0, sizeof *attributes);
    attributes->location.kind = 1;
    return 0;
}

/* Streams and events are numbers; everything queued is done at once. */

static int64_t next_number = 1;

static int give_number(void **out) {
    *out = (void *)__atomic_fetch_add(&next_number, 1, __ATOMIC_RELAXED);
    return 0;
}

int aclrtCreateStream(void **stream) { return give_number(stream); }
int aclrtCreateStreamWithConfig(void **stream, uint32_t priority, uint32_t flag) {
    return give_number(stream);
}
int aclrtCreateEvent(void **event) { return give_number(event); }
int aclrtCreateEventWithFlag(void **event, uint32_t flag) { return give_number(event); }
int aclrtCreateEventExWithFlag(void **event, uint32_t flag) { return give_number(event); }

int aclrtStreamGetId(void *stream, int32_t *number) {
    *number = (int32_t)(intptr_t)stream;
    return 0;
}

int aclrtStreamQuery(void *stream, int32_t *status) {
    *status = 1;
    return 0;
}

int aclrtQueryEventStatus(void *event, int32_t *status) {
    *status = 1;
    return 0;
}

int aclrtQueryEventWaitStatus(void *event, int32_t *status) {
    *status = 1;
    return 0;
}

int aclrtEventElapsedTime(float *milliseconds, void *start, void *end) {
    *milliseconds = 1.0f;
    return 0;
}

/* Settings and messages */

size_t aclGetCompileoptSize(int option) { return 16; }

int aclGetCompileopt(int option, char *value, size_t room) {
    strncpy(value, "disable", room);
    return 0;
}

const char *aclGetRecentErrMsg(void) { return "this runtime stands in for CANN"; }

/* Groups of ranks: one, which exchanges nothing. */

int HcclGetRootInfo(void *info) {
    memset(info, 0, ROOT_INFO_BYTES);
    return 0;
}

static int give_group(void **group) {
    *group = (void *)2;
    return 0;
}

int HcclCommInitRootInfo(uint32_t ranks, const void *info, uint32_t rank, void **group) {
    return give_group(group);
}

int HcclCommInitRootInfoConfig(uint32_t ranks, const void *info, uint32_t rank,
                               const void *settings, void **group) {
    return give_group(group);
}

int HcclGetCommName(void *group, char *name) {
    strcpy(name, "stands_in");
    return 0;
}

const char *HcclGetErrorString(int code) { return "this group stands in for HCCL"; }
