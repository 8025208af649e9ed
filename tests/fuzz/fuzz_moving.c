/* A ring that changes between any two loads of those who use it: see scene.h. */
#include "fuzz/fuzz.h"
#include "fuzz/scene.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    scene_run(data, size, true);
    return 0;
}
