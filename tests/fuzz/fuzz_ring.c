/* A destroyed ring, in turns with its use: see scene.h. */
#include "fuzz/fuzz.h"
#include "fuzz/scene.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    scene_run(data, size, false);
    return 0;
}
