# ThreadSanitizer. Optimised: the races are to be run often.
set(CMAKE_C_COMPILER gcc CACHE STRING "")
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(EAGRE_SANITIZE thread CACHE STRING "")
set(EAGRE_FAULTPOINTS ON CACHE BOOL "")
