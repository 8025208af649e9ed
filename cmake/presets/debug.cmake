# For the debugger, with fault points.
set(CMAKE_C_COMPILER gcc CACHE STRING "")
set(CMAKE_BUILD_TYPE Debug CACHE STRING "")
set(EAGRE_FAULTPOINTS ON CACHE BOOL "")
