# For `tools/dev fuzz`: libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer.
set(CMAKE_C_COMPILER clang CACHE STRING "")
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(EAGRE_SANITIZE address,undefined,fuzzer-no-link CACHE STRING "")
set(EAGRE_FAULTPOINTS ON CACHE BOOL "")
