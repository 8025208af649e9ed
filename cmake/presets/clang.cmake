# The other compiler: its warnings, its code.
set(CMAKE_C_COMPILER clang CACHE STRING "")
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(EAGRE_FAULTPOINTS ON CACHE BOOL "")
