# What users get: optimised, hardened, without fault points.
set(CMAKE_C_COMPILER gcc CACHE STRING "")
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
