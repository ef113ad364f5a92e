/* A stand-in for NVIDIA's libnvidia-ml.so.1: one GPU that answers as the file named by NVML_STANDIN says.
 *
 * Once a GPU was opened by its address, a file of that name with ".ADDRESS" behind it is asked instead, if there is one.
 * The file is read at every call, one "key value..." a line:
 *   fail FUNCTION CODE        the function returns this code
 *   uuid TEXT                 the GPU's UUID
 *   action N | ecc N | clocks N | pending N | mig N | remap C U P F
 *   instance GI CI UUID       a MIG device (any number)
 *   process PID               a compute process (any number)
 *   link N TYPE ADDRESS       an active NVLink
 * Events are the lines of the same file that begin with "event TYPE DATA GI CI", each told once. Calls that open and
 * close are appended to the file named by NVML_STANDIN with ".calls".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int ret_t;
typedef void *handle_t;
enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMED_OUT = 10 };

static int running;
static int told;
static char last[512];
static char gpu, mig[64];

static char opened[32];

static FILE *script(void) {
    const char *path = getenv("NVML_STANDIN");
    char own[512];
    FILE *file;
    if (!path) return NULL;
    snprintf(own, sizeof own, "%s.%s", path, opened);
    return *opened && (file = fopen(own, "r")) ? file : fopen(path, "r");
}

/* Find the nth line with this key and copy what follows it; return whether there is one. */
static int find(const char *key, int nth, char *rest, size_t size) {
    FILE *file = script();
    char line[512];
    int found = 0;
    size_t length = strlen(key);
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, key, length) == 0 && (line[length] == ' ' || line[length] == 0) && nth-- == 0) {
            snprintf(rest, size, "%s", line[length] ? line + length + 1 : "");
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static long long value(const char *key) { char rest[512]; return find(key, 0, rest, sizeof rest) ? strtoll(rest, NULL, 0) : -1; }

static ret_t failure(const char *function) {
    char key[128], rest[512];
    snprintf(key, sizeof key, "fail %s", function);
    return find(key, 0, rest, sizeof rest) ? atoi(rest) : OK;
}

static void note(const char *what) {
    const char *path = getenv("NVML_STANDIN");
    char name[512];
    FILE *file;
    if (!path) return;
    snprintf(name, sizeof name, "%s.calls", path);
    if ((file = fopen(name, "a"))) { fprintf(file, "%s\n", what); fclose(file); }
}

#define BEGIN(name) do { ret_t code = failure(name); if (code) return code; if (!running) return UNINITIALIZED; } while (0)
#define NUMBER(key, type, out) do { long long n = value(key); if (n < 0) return NOT_SUPPORTED; *(out) = (type)n; return OK; } while (0)

ret_t nvmlInitWithFlags(unsigned flags) {
    ret_t code = failure("init");
    (void)flags;
    if (code) return code;
    running++;
    note("init");
    return OK;
}
ret_t nvmlShutdown(void) { BEGIN("shutdown"); running--; note("shutdown"); return OK; }
const char *nvmlErrorString(ret_t code) { (void)code; return "stand-in error"; }

ret_t nvmlDeviceGetHandleByPciBusId_v2(const char *address, handle_t *out) {
    char line[512];
    snprintf(line, sizeof line, "open %s", address);
    BEGIN("handle");
    note(line);
    snprintf(opened, sizeof opened, "%s", address);
    *out = &gpu;
    return OK;
}
ret_t nvmlDeviceGetUUID(handle_t device, char *out, unsigned size) {
    char rest[512], uuid[256];
    BEGIN("uuid");
    if (device != (handle_t)&gpu) {
        if (!find("instance", (int)((char *)device - mig), rest, sizeof rest)) return INVALID;
        if (sscanf(rest, "%*d %*d %255s", uuid) != 1) return INVALID;
    } else if (!find("uuid", 0, uuid, sizeof uuid)) return NOT_SUPPORTED;
    snprintf(out, size, "%s", uuid);
    return OK;
}

struct field { unsigned id, scope; long long timestamp, latency; unsigned type; ret_t code; union { unsigned ui; unsigned long long ull; double d; } value; };
ret_t nvmlDeviceGetFieldValues(handle_t device, int count, struct field *fields) {
    long long action = value("action");
    (void)device;
    BEGIN("fields");
    for (int i = 0; i < count; i++) {
        fields[i].code = fields[i].id == 230 && action >= 0 ? OK : NOT_SUPPORTED;
        fields[i].value.ui = (unsigned)action;
    }
    return OK;
}
ret_t nvmlDeviceGetTotalEccErrors(handle_t device, unsigned kind, unsigned counter, unsigned long long *out) {
    (void)device;
    BEGIN("ecc");
    if (kind != 1 || counter != 0) return INVALID;
    NUMBER("ecc", unsigned long long, out);
}
ret_t nvmlDeviceGetRemappedRows(handle_t device, unsigned *c, unsigned *u, unsigned *p, unsigned *f) {
    char rest[512];
    (void)device;
    BEGIN("remap");
    if (!find("remap", 0, rest, sizeof rest)) return NOT_SUPPORTED;
    return sscanf(rest, "%u %u %u %u", c, u, p, f) == 4 ? OK : INVALID;
}
ret_t nvmlDeviceGetRetiredPagesPendingStatus(handle_t device, unsigned *out) { (void)device; BEGIN("pending"); NUMBER("pending", unsigned, out); }
ret_t nvmlDeviceGetCurrentClocksEventReasons(handle_t device, unsigned long long *out) { (void)device; BEGIN("clocks"); NUMBER("clocks", unsigned long long, out); }

ret_t nvmlDeviceGetMigMode(handle_t device, unsigned *current, unsigned *pending) { (void)device; *pending = 0; BEGIN("mig"); NUMBER("mig", unsigned, current); }
ret_t nvmlDeviceGetMaxMigDeviceCount(handle_t device, unsigned *out) { (void)device; BEGIN("instances"); *out = 7; return OK; }
ret_t nvmlDeviceGetMigDeviceHandleByIndex(handle_t device, unsigned index, handle_t *out) {
    char rest[512];
    (void)device;
    BEGIN("instance");
    if (!find("instance", (int)index, rest, sizeof rest)) return NOT_FOUND;
    *out = &mig[index];
    return OK;
}
static ret_t instance(handle_t device, const char *format, unsigned *out) {
    char rest[512];
    if (!find("instance", (int)((char *)device - mig), rest, sizeof rest)) return INVALID;
    return sscanf(rest, format, out) == 1 ? OK : INVALID;
}
ret_t nvmlDeviceGetGpuInstanceId(handle_t device, unsigned *out) { BEGIN("gi"); return instance(device, "%u", out); }
ret_t nvmlDeviceGetComputeInstanceId(handle_t device, unsigned *out) { BEGIN("ci"); return instance(device, "%*u %u", out); }

struct process { unsigned pid; unsigned long long memory; unsigned gi, ci; };
ret_t nvmlDeviceGetComputeRunningProcesses_v3(handle_t device, unsigned *count, struct process *out) {
    char rest[512];
    unsigned n = 0;
    (void)device;
    BEGIN("processes");
    while (find("process", (int)n, rest, sizeof rest)) {
        if (out && n < *count) { memset(&out[n], 0, sizeof *out); out[n].pid = (unsigned)atoi(rest); }
        n++;
    }
    if (n && (!out || *count < n)) { *count = n; return TOO_SMALL; }
    *count = n;
    return OK;
}
ret_t nvmlDeviceGetGraphicsRunningProcesses_v3(handle_t device, unsigned *count, struct process *out) { (void)device; (void)out; BEGIN("graphics"); *count = 0; return OK; }

static int linked(unsigned number, unsigned *type, char *address) {
    char rest[512];
    unsigned wanted;
    for (int i = 0; find("link", i, rest, sizeof rest); i++)
        if (sscanf(rest, "%u %u %31s", &wanted, type, address) == 3 && wanted == number) return 1;
    return 0;
}
ret_t nvmlDeviceGetNvLinkState(handle_t device, unsigned number, unsigned *out) {
    unsigned type;
    char address[32];
    (void)device;
    BEGIN("links");
    *out = (unsigned)linked(number, &type, address);
    return number < 18 ? OK : INVALID;
}
ret_t nvmlDeviceGetNvLinkRemoteDeviceType(handle_t device, unsigned number, unsigned *out) {
    char address[32];
    (void)device;
    BEGIN("link type");
    return linked(number, out, address) ? OK : INVALID;
}
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char address[32]; };
ret_t nvmlDeviceGetNvLinkRemotePciInfo_v2(handle_t device, unsigned number, struct pci *out) {
    unsigned type;
    (void)device;
    BEGIN("link pci");
    return linked(number, &type, out->address) ? OK : INVALID;
}

struct event { handle_t device; unsigned long long type, data; unsigned gi, ci; };
ret_t nvmlDeviceGetSupportedEventTypes(handle_t device, unsigned long long *out) {
    long long types = value("events");
    (void)device;
    BEGIN("event types");
    *out = types < 0 ? 0xffff : (unsigned long long)types;
    return OK;
}
ret_t nvmlEventSetCreate(handle_t *out) { BEGIN("event set"); *out = &told; note("set"); return OK; }
ret_t nvmlEventSetFree(handle_t set) { (void)set; BEGIN("free"); note("free"); return OK; }
ret_t nvmlDeviceRegisterEvents(handle_t device, unsigned long long types, handle_t set) {
    (void)device; (void)types; (void)set;
    BEGIN("register");
    if (strcmp(last, getenv("NVML_STANDIN"))) {
        snprintf(last, sizeof last, "%s", getenv("NVML_STANDIN"));
        told = 0;
    }
    return OK;
}
ret_t nvmlEventSetWait_v2(handle_t set, struct event *out, unsigned timeout_ms) {
    char rest[512];
    (void)set;
    for (unsigned waited = 0;; waited += 5) {
        BEGIN("wait");
        if (find("event", told, rest, sizeof rest)) {
            told++;
            memset(out, 0, sizeof *out);
            return sscanf(rest, "%lli %lli %u %u", (long long *)&out->type, (long long *)&out->data, &out->gi, &out->ci) == 4 ? OK : INVALID;
        }
        /* Sooner than asked, so that tests close quickly. */
        if (waited >= timeout_ms || waited >= 50) return TIMED_OUT;
        usleep(5000);
    }
}
